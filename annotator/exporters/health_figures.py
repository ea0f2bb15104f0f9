"""Figures of a dataset's health from the facts that a pass gathered. Each has an interval or a count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log10
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.exporters.recipe import ExportOptions
from models.intervals import estimate_accuracy, wilson
from models.vote_noise import Estimate, flip_rate, row_noise

SEED: Final = 0
Z: Final = 1.959964
MANY_ROWS: Final = 5  # of one prompt: above that a warning is due
BINS: Final = 16  # of the chart of lengths
COVERED: Final = 0.97  # share of the answers that the bins before the last shall hold
SHOWN: Final = 20  # lines of a list
FEWEST_GOLDS: Final = 30  # votes on control questions
FEWEST_REPEATS: Final = 30  # pairs with two votes

Array = NDArray[Any]


def share(of: Array, groups: Array) -> dict[str, Any]:
    """A share of the rows with its 95 % interval; rows of one prompt go together.

    of (n,) of 0, .5 or 1; groups (n,) codes that never fall.
    """
    n = len(of)
    if not n:
        return {"share": None, "interval": None, "interval_method": "", "rows": 0}
    # Each prompt's rows are neighbors, so this tells whether any has two.
    if (groups[1:] == groups[:-1]).any():
        found = estimate_accuracy(of, groups, seed=SEED)
        assert found is not None
        interval, method = found.interval, found.method
    else:  # the same interval without the arrays of clusters
        interval, method = wilson(float(of.sum()), n), "wilson"
    return {
        "share": round(float(of.mean()), 4),
        "interval": [round(end, 4) for end in interval],
        "interval_method": method,
        "rows": n,
    }


def per_prompt(groups: Array) -> dict[str, Any]:
    """How many rows prompts give."""
    sizes = np.diff(np.flatnonzero(np.diff(groups, prepend=-1, append=-1)))
    many = sizes[sizes > MANY_ROWS]
    return {
        "prompts": len(sizes),
        "most_rows_of_one_prompt": int(sizes.max()),
        "prompts_over": {"limit": MANY_ROWS, "prompts": len(many), "rows": int(many.sum())},
    }


def lengths(chosen: Array, rejected: Array, groups: Array) -> dict[str, Any]:
    """Characters of both sides as counts for a chart, and the gap between them."""
    step = _step(float(max(np.quantile(chosen, COVERED), np.quantile(rejected, COVERED))))
    edges = [place * step for place in range(BINS + 1)]
    counts = [
        np.bincount(np.minimum(one // step, BINS - 1), minlength=BINS) for one in (chosen, rejected)
    ]
    used = max(int(np.flatnonzero(counts[0] + counts[1])[-1]) + 1, 1)
    return {
        "unit": "characters",
        "edges": edges[: used + 1],
        "chosen": counts[0][:used].tolist(),
        "rejected": counts[1][:used].tolist(),
        "median": {
            "chosen": round(float(np.median(chosen))),
            "rejected": round(float(np.median(rejected))),
        },
        "gap": _mean(chosen - rejected, groups),
    }


def _step(longest: float) -> int:
    """A round width with which ``BINS`` bins reach ``longest``."""
    least = max(longest / BINS, 1.0)
    scale = 10 ** int(log10(least))
    return next(ceil(scale * nice) for nice in (1, 2, 2.5, 5, 10) if scale * nice >= least)


def _mean(values: Array, groups: Array) -> dict[str, Any]:
    """A mean with a normal interval that lets rows of one prompt depend on each other."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    mean, n = float(values.mean()), len(values)
    off = np.add.reduceat(values - mean, starts)
    m = len(starts)
    half = Z * float(np.sqrt(off @ off * m / max(m - 1, 1))) / n
    return {
        "mean": round(mean, 1),
        "interval": [round(mean - half, 1), round(mean + half, 1)] if m > 1 else None,
        "rows": n,
    }


def generators(
    names: Sequence[str], chosen: Array, rejected: Array, *, ties: Array, groups: Array
) -> dict[str, Any]:
    """How often each generator's answer is the chosen one, of rows against another's.

    chosen, rejected (n,) codes into ``names``, negative where there is none or it is not told.
    """
    other = chosen != rejected
    met = np.zeros(len(names), dtype=np.int64)
    for side in (chosen, rejected):
        met += np.bincount(side[other & (side >= 0)], minlength=len(names))
    order = sorted(np.flatnonzero(met).tolist(), key=lambda code: (-met[code], names[code]))
    listed = []
    for code in order[:SHOWN]:
        rows = np.flatnonzero(other & ((chosen == code) | (rejected == code)))
        hits = np.where(ties[rows] > 0, 0.5, chosen[rows] == code)
        found = share(hits, groups[rows])
        listed.append({"generator": names[code], "wins": float(hits.sum()), **found})
    return {
        "list": listed,
        "more": max(len(order) - SHOWN, 0),
        "unnamed": int(((chosen == -1) | (rejected == -1)).sum()),
        "same": int((~other & (chosen >= 0)).sum()),
    }


def duplicates(answers: Array, groups: Array) -> dict[str, Any]:
    """Rows with the two texts of another row: of the same prompt, and of another.

    answers (n,) a hash of the two, the same in both directions.
    """
    order = np.argsort(answers, kind="stable")  # within one hash by prompt
    keys = answers[order]
    alike = keys[1:] == keys[:-1]
    twice = np.zeros(len(keys), dtype=bool)
    twice[1:] = alike
    twice[:-1] |= alike
    keys, prompts = keys[twice], groups[order[twice]]  # nearly none of a million
    alike = keys[1:] == keys[:-1]
    same = prompts[1:] == prompts[:-1]
    run = np.cumsum(np.concatenate([[0], ~alike]))[: len(keys)]
    spread = np.bincount(run[1:], weights=alike & ~same, minlength=len(keys)) > 0
    return {"repeats": int((alike & same).sum()), "elsewhere": int(spread[run].sum())}


def leaks(of: Array, groups: Array) -> dict[str, Any]:
    """Rows in which an answer names its model."""
    found = share(of, groups)
    return {
        "rows": int(of.sum()),
        "share": found["share"],
        "interval": found["interval"],
        "of": len(of),
    }


# Noise of labels ---------------------------------------------------------------------------------

ROWS_WORDS: Final = (
    " With it, and with votes that err independently and equally often, a row is wrong with"
    " probability 1 / (1 + ((1 - e) / e) ** lead), where lead is the votes for chosen less those"
    " for rejected; the figure is the mean over rows."
)
GOLD_WORDS: Final = (
    "A vote is wrong as often as the recipe's raters missed control questions. Where those are"
    " easier than the rows, the rows are noisier."
)
REPEAT_WORDS: Final = (
    "Two votes on one pair name different winners with share d, ties left out, over all pairs that"
    " were voted on; each is wrong with e = (1 - sqrt(1 - 2 d)) / 2. Where pairs differ in"
    " difficulty the mean is higher, and differences of taste count as noise."
)
POSTERIOR_WORDS: Final = (
    "The mean of what the recipe's own decider leaves to the other answer, 1 - p. It is as good as"
    " that decider is calibrated."
)


def noise(
    options: ExportOptions,
    *,
    leads: Mapping[int, int],
    certain: Mapping[float, int],
    disagrees: tuple[Estimate, int],
    golds: tuple[Array, Array] | None,
    prompts: int,
) -> dict[str, Any]:
    """How often a row's label is wrong: from control questions, from repeated votes, or from what
    decided. ``certain``: probability of the label -> rows. See Health.noise."""
    if options.decided_by != "votes":
        return _from_posterior(certain, prompts)
    if golds is not None and len(golds[0]) >= FEWEST_GOLDS:
        missed = share(1 - golds[0], golds[1])
        low, high = missed["interval"]
        per_vote = Estimate(missed["share"], (low, high), missed["interval_method"])
        return _from_votes(per_vote, leads, "golds", len(golds[0]), GOLD_WORDS)
    differ, pairs = disagrees
    if pairs >= FEWEST_REPEATS:
        per_vote = flip_rate(differ)
        if differ.value is not None and differ.value >= 0.5:
            why = "two votes on one pair differ as often as two coins"
            return _nothing(why, "repeats", pairs, per_vote)
        return _from_votes(per_vote, leads, "repeats", pairs, REPEAT_WORDS)
    if options.aggregator != "majority":
        return _from_posterior(certain, prompts)
    return _nothing(
        f"fewer than {FEWEST_GOLDS} votes on control questions and {pairs:,} pairs with two votes"
        f" of {FEWEST_REPEATS} needed",
        "",
        pairs,
        None,
    )


def _from_votes(
    per_vote: Estimate, leads: Mapping[int, int], method: str, n: int, words: str
) -> dict[str, Any]:
    found = row_noise(per_vote, leads).as_dict()
    return {
        "value": found["value"],
        "interval": found["interval"],
        "per_vote": per_vote.as_dict(),
        "n": n,
        "unit": "golds" if method == "golds" else "pairs",
        "method": method,
        "how": words + ROWS_WORDS,
        "reason": "",
    }


def _from_posterior(certain: Mapping[float, int], prompts: int) -> dict[str, Any]:
    p, rows = (np.array(list(part), dtype=np.float64) for part in (certain, certain.values()))
    n = int(rows.sum())
    if not n:
        return _nothing("there is no row", "posterior", 0, None)
    value = float(((1 - p) * rows).sum()) / n
    # As if each prompt said one thing: rows of one prompt are not independent.
    low, high = wilson(min(value, 1.0) * prompts, prompts)
    return {
        "value": round(value, 4),
        "interval": [round(low, 4), round(high, 4)],
        "per_vote": None,
        "n": n,
        "unit": "rows",
        "method": "posterior",
        "how": POSTERIOR_WORDS,
        "reason": "",
    }


def _nothing(reason: str, method: str, n: int, per_vote: Estimate | None) -> dict[str, Any]:
    return {
        "value": None,
        "interval": None,
        "per_vote": per_vote and per_vote.as_dict(),
        "n": n,
        "unit": "pairs",
        "method": method,
        "how": "",
        "reason": reason,
    }
