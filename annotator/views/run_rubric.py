"""What a run about a rubric shows: its figures, what became of proposals, how right the draft is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from annotator import formats
from annotator.charts import MiniInterval
from annotator.models import Run, RunState
from annotator.queries import rubric_runs as queries
from annotator.views.judge_list import DOMAIN, cell

# Estimates of a measurement, in the order in which they are read.
LABELS: Final = {
    "rubric": "The rubric",
    "equal_weights": "Its criteria, each counted once",
    "parent": "The version before",
    "judge": "The judge without a rubric",
    "judge_with_rubric": "The judge with it",
    "reward_model": "Reward model",
    "longer_wins": "Longer answer wins",
    "human_ceiling": "People with people",
}
OURS: Final = ("rubric", "equal_weights", "judge_with_rubric")
GAPS: Final = {
    "judge": "The judge’s positional gap",
    "judge_with_rubric": "The same with the rubric",
}


# Reasons that are too short to be read as they stand.
DROPPED: Final = {
    "own-pair": "Does not explain the pair it came from",
    "other-pairs": "Does not hold on other pairs",
    "unverified": "Nobody could verify it",
    "few-pairs": "Came from too few pairs",
    "over-limit": "Beyond the criteria kept",
    "not-selected": "Too like one that is kept",
    "not-in-subset": "Makes no more verdicts right",
    "same-answers": "Pairs of two equal answers",
    "call-budget": "Pairs that the budget left out",
    "budget": "Pairs that the budget left out",
    "partly": "Said only in part",
    "generic": "Too general to check",
}


@dataclass(frozen=True)
class Measured:
    """One line of the held-out figures; ``reason`` where there is none."""

    label: str
    value: str
    interval: str
    mini: MiniInterval | None
    n: int
    reason: str = ""


@dataclass(frozen=True)
class Gap:
    """A difference in percentage points with its interval."""

    label: str
    value: str
    interval: str


@dataclass(frozen=True)
class Made:
    """What a run about a rubric has made so far."""

    version: queries.Version | None
    dropped: list[tuple[str, int]]
    held_out: list[Measured]
    gaps: list[Gap]
    reason: str  # why nothing was measured
    is_stopped_by_budget: bool

    @property
    def axis(self) -> tuple[str, str]:
        low, high = DOMAIN
        return f"{100 * low:.0f}", f"{100 * high:.0f}"


def made(run: Run) -> Made:
    """Of a run that induces: two statements, whatever its size."""
    version = queries.version_of(run)
    found = run.result.get("held_out") or {}
    figures = version.figures if version is not None else {}
    dropped = run.result.get("dropped") or figures.get("dropped") or {}
    stopped = run.result.get("stopped") or figures.get("stopped") or ""
    return Made(
        version=version,
        dropped=sorted(_named(dropped).items(), key=lambda row: (-row[1], row[0])),
        held_out=_measured(found),
        gaps=_gaps(found),
        reason=str(found.get("reason") or ""),
        is_stopped_by_budget=stopped == "budget" or "budget" in str(found.get("reason") or ""),
    )


def _named(dropped: Mapping[str, Any]) -> dict[str, int]:
    return {
        DROPPED.get(key) or key.replace("-", " ").replace("_", " ").capitalize(): count
        for key, count in dropped.items()
        if isinstance(count, int) and count
    }


def _measured(found: Mapping[str, Any]) -> list[Measured]:
    """The rubric first, then what it is compared with."""
    if found.get("accuracy") is None:
        return []
    rows = {"rubric": found, **(found.get("baselines") or {})}
    return [_line(name, rows[name], rows.get("human_ceiling")) for name in LABELS if rows.get(name)]


def _gaps(found: Mapping[str, Any]) -> list[Gap]:
    """Accuracy with the chosen answer shown first less that with it second, in points."""
    position = (found.get("baselines") or {}).get("position") or {}
    return [_gap(label, position[key]["gap"]) for key, label in GAPS.items() if position.get(key)]


def _gap(label: str, one: Mapping[str, Any]) -> Gap:
    value = formats.number(one["value"])
    shown = formats.MISSING if value is None else f"{100 * value:+.1f}"
    return Gap(label, shown, formats.interval(one["low"], one["high"]))


def _line(name: str, one: Mapping[str, Any], ceiling: Mapping[str, Any] | None) -> Measured:
    est, people = _estimate(one), _estimate(ceiling or {})
    drawn = cell(est, people, style=1 if name in OURS else 0)
    label = LABELS[name]
    number = f" {one['number']}" if isinstance(one.get("number"), int) else ""
    reason = "" if est else str(one.get("reason") or "not measured")
    return Measured(
        label + number, drawn.text, drawn.interval, drawn.mini, int(one.get("n") or 0), reason
    )


def _estimate(one: Mapping[str, Any]) -> dict[str, Any] | None:
    """{"value", "low", "high"} of an accuracy with its interval; None where it was not measured."""
    if one.get("accuracy") is None:
        return None
    low, high = one.get("interval") or (None, None)
    return {"value": one["accuracy"], "low": low, "high": high}


def paid(used: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, note) of what a run has asked; [] for one that asked nothing."""
    calls, cached = used.get("calls", 0), used.get("cached", 0)
    if not calls and not cached:
        return []
    sent, received = used.get("tokens_in", 0), used.get("tokens_out", 0)
    return [
        ("Calls paid", f"{calls:,}", f"{cached:,} more from the cache"),
        ("Tokens", formats.compact(sent + received), f"{sent:,} in, {received:,} out"),
        ("Cost", f"{used.get('cost', 0):.4g}", _failed(used.get("errors") or {})),
    ]


def _failed(errors: Mapping[str, int]) -> str:
    count = sum(number for kind, number in errors.items() if kind != "budget")
    return f"{count:,} call{'' if count == 1 else 's'} failed" if count else ""


def headlines(run: Run) -> list[tuple[str, str, str]]:
    """(name, value, note): pairs, and the draft's criteria; [] while there is no draft."""
    if run.kind not in (Run.Kind.RUBRIC, Run.Kind.MEASURE):
        return []
    found = queries.version_of(run)
    if found is None:
        over = run.state in (RunState.FAILED, RunState.CANCELED, RunState.PAUSED)
        is_lost = over and run.kind == Run.Kind.RUBRIC
        return [("Criteria", "0", "no draft was written")] if is_lost else []
    open_ = f", {found.open:,} to decide on" if found.open else ""
    rows = [("Criteria", f"{found.criteria:,}", f"{found.accepted:,} accepted{open_}")]
    learned = _learned(found.figures.get("pairs"))
    if learned and run.kind == Run.Kind.RUBRIC:
        held = (run.result.get("held_out") or {}).get("n")
        rows.insert(
            0, ("Pairs", f"{learned:,}", f"measured on {held:,}" if held else "to learn from")
        )
    return rows


def _learned(pairs: Any) -> int:
    """Pairs that a generator learned from, however its figures say so."""
    found = pairs.get("learned") if isinstance(pairs, dict) else pairs
    return found if isinstance(found, int) else 0
