"""Whether a judge's confidence is worth what it says, and where it does better or worse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from annotator.queries.judge_report import Bin, Calibration, Calibrator, Estimate, Slice
from annotator.queries.judge_votes import KIND_KEYS, SPLIT_KEYS, UNNAMED
from annotator.queries.quality_data import Codes, Floats
from annotator.services.judge_agreement import hits
from annotator.services.judge_truth import FEWEST, Compared, Flags, estimate, share
from models.calibration import (
    BINS,
    CalibrationError,
    Score,
    brier,
    calibration_error,
    describe,
    edges_of,
    log_loss,
    reliability,
)
from models.calibration import Bin as Bar
from models.calibrators import CALIBRATORS, cross_fitted

FEWEST_SAID: Final = 20  # pairs with a confidence, below which no curve is drawn
SMALLEST: Final = 20  # pairs of a slice that stands alone
MOST_SLICES: Final = 30
LENGTHS: Final = (
    ("less than half as long", 0.0, 0.5),
    ("half to nine tenths", 0.5, 0.9),
    ("about as long", 0.9, 1 / 0.9),
    ("up to twice as long", 1 / 0.9, 2.0),
    ("more than twice as long", 2.0, np.inf),
)
STRENGTHS: Final = ("tie", "better", "much better", "very much better")


def calibration(compared: Compared) -> Calibration | None:
    """On pairs on which people and the judge prefer one; None where it says too little."""
    verdicts = compared.said.verdicts
    rows = compared.is_known & (compared.truth != 0) & ~verdicts.is_failed
    of, confidence, right = _confidence(compared)
    rows &= np.isfinite(confidence)
    ties = int((rows & (verdicts.outcome == 0)).sum())
    rows &= verdicts.outcome != 0
    if rows.sum() < FEWEST_SAID:
        return None
    says, correct, prompts = (
        confidence[rows],
        right[rows].astype(np.float64),
        verdicts.prompts[rows],
    )
    lowest = 0.5 if says.min() >= 0.5 else 0.0
    width = edges_of(says, low=lowest)
    mass = edges_of(says, mass=True)
    bars = reliability(says, correct, width)
    error = calibration_error(says, correct, width, groups=prompts)
    error_mass = calibration_error(says, correct, mass, groups=prompts)
    assert error is not None, "there are rows"
    assert error_mass is not None
    return {
        "of": of,
        "n": len(says),
        "ties_left_out": ties,
        "mean_confidence": float(says.mean()),
        "accuracy": float(correct.mean()),
        "equal_width": [_bin(bar) for bar in bars],
        "equal_mass": [_bin(bar) for bar in reliability(says, correct, mass)],
        "ece": _error(error),
        "ece_equal_mass": _error(error_mass),
        "ece_expected": error.expected,
        "ece_debiased": error.debiased,
        "brier": _score(brier(says, correct, prompts)),
        "log_loss": _score(log_loss(says, correct, prompts)),
        "calibrators": list(_calibrators(says, correct, prompts, lowest)),
        "message": describe(bars),
    }


def _confidence(compared: Compared) -> tuple[str, Floats, Flags]:
    """What is measured, its value per verdict, and whether the verdict it speaks of is right.

    A probability is that of the side it favors, which need not be the verdict's where that was
    made otherwise. A confidence is of the verdict, as the judge says it.
    """
    verdicts = compared.said.verdicts
    probability = verdicts.probability
    known = int(np.isfinite(probability).sum())
    if known and 2 * known >= int(np.isfinite(verdicts.confidence).sum()):
        favors = np.where(probability > 0.5, 1, -1)
        larger = np.clip(np.maximum(probability, 1 - probability), 0, 1)
        return "probability", larger, favors == compared.truth
    confidence = np.clip(verdicts.confidence, 0, 1)
    return "confidence", confidence, hits(compared.truth, compared.classes)


def _bin(bar: Bar) -> Bin:
    return {
        "low": bar.low,
        "high": bar.high,
        "says": bar.says,
        "people": estimate(bar.share, bar.interval, bar.n, bar.n, "wilson"),
    }


def _error(found: CalibrationError) -> Estimate:
    method = "bootstrap over groups" if found.interval else ""
    return estimate(found.value, found.interval, found.n, found.groups, method)


def _score(found: Score) -> Estimate:
    method = "normal over groups" if found.interval else ""
    return estimate(found.value, found.interval, found.n, found.groups, method)


def _calibrators(
    says: Floats, correct: Floats, prompts: Codes, lowest: float
) -> Iterator[Calibrator]:
    yield _calibrator("as-it-is", "As it is", says, correct, lowest)
    for key, method in CALIBRATORS.items():
        mended = cross_fitted(key, says, correct, prompts)
        if mended is not None:
            yield _calibrator(key, method.label, mended, correct, 0.0)


def _calibrator(key: str, label: str, says: Floats, correct: Floats, low: float) -> Calibrator:
    edges = np.linspace(low, 1, BINS + 1)
    bars = reliability(says, correct, edges)
    return {
        "key": key,
        "label": label,
        "ece": sum(bar.n * abs(bar.says - bar.share) for bar in bars) / len(says),
        "brier": brier(says, correct).value,
        "log_loss": log_loss(says, correct).value,
    }


# Slices ---------------------------------------------------------------------------------------


def slices(compared: Compared, tags: list[tuple[str, Codes]]) -> dict[str, list[Slice]]:
    """Agreement by what the pairs are; ``tags`` with the ids of their prompts."""
    known = compared.is_known
    if known.sum() < FEWEST:
        return {}
    verdicts, responses = compared.said.verdicts, compared.said.responses
    low, high = (responses.generators[side] for side in compared.sides)
    ratio = _ratios(compared)
    strength = np.where(verdicts.outcome == 0, 0, np.clip(verdicts.strength, 1, 3))
    readable = ~verdicts.is_failed
    parts = {
        "kind": [(key, verdicts.kinds == code) for code, key in enumerate(KIND_KEYS)],
        "split": [(key, verdicts.splits == code) for code, key in enumerate(SPLIT_KEYS)],
        "tag": [(tag, np.isin(verdicts.prompts, ids)) for tag, ids in tags],
        "generator": [
            (name, (low == code) | (high == code))
            for code, name in enumerate(responses.names[: 4 * MOST_SLICES])
        ],
        "length": [(name, (ratio >= begin) & (ratio < end)) for name, begin, end in LENGTHS],
        "strength": [(name, readable & (strength == code)) for code, name in enumerate(STRENGTHS)],
    }
    if (low == UNNAMED).all():
        parts["generator"] = []
    return {name: _part(compared, known, rows) for name, rows in parts.items()}


def _ratios(compared: Compared) -> Floats:
    """How many times as long as the other the judge's choice is, nan where it chose none."""
    verdicts = compared.said.verdicts
    low, high = (side.astype(np.float64) for side in compared.lengths)
    chosen = np.where(verdicts.outcome > 0, low, high)
    other = np.where(verdicts.outcome > 0, high, low)
    rows = ~verdicts.is_failed & (verdicts.outcome != 0) & (low > 0) & (high > 0)
    return np.divide(chosen, other, out=np.full(len(low), np.nan), where=rows)


def _part(compared: Compared, known: Flags, rows: list[tuple[str, Flags]]) -> list[Slice]:
    """A row per slice, those under SMALLEST together as one."""
    right = hits(compared.truth, compared.classes)
    prompts = compared.said.verdicts.prompts
    kept = [(name, known & row) for name, row in rows if (known & row).any()]
    large = [(name, row) for name, row in kept if row.sum() >= SMALLEST][:MOST_SLICES]
    names = {name for name, _ in large}
    small = [row for name, row in kept if name not in names]
    found = [_slice(name, right[row], prompts[row], 0) for name, row in large]
    if small:
        row = np.any(small, axis=0)
        name = f"{len(small)} smaller" if large else "all"
        found.append(_slice(name, right[row], prompts[row], len(small)))
    return found


def _slice(name: str, right: Flags, prompts: Codes, pooled: int) -> Slice:
    return {"name": name, "pooled": pooled, **share(right, prompts)}
