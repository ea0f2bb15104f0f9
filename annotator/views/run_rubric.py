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
    "equal": "Its criteria, each counted once",
    "equal_weights": "Its criteria, each counted once",
    "parent": "The version before",
    "judge": "The judge without a rubric",
    "judge.rubric": "The judge with it",
    "reward-model": "Reward model",
    "length": "Longer answer wins",
    "longer_wins": "Longer answer wins",
    "human_ceiling": "People with people",
}
OURS: Final = ("rubric", "equal", "equal_weights", "judge.rubric")


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
class Made:
    """What a run about a rubric has made so far."""

    version: queries.Version | None
    dropped: list[tuple[str, int]]
    held_out: list[Measured]
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
        reason=str(found.get("reason") or ""),
        is_stopped_by_budget=stopped == "budget" or "budget" in str(found.get("reason") or ""),
    )


def _named(dropped: Mapping[str, Any]) -> dict[str, int]:
    return {
        key.replace("-", " ").replace("_", " ").capitalize(): count
        for key, count in dropped.items()
        if isinstance(count, int) and count
    }


def _measured(found: Mapping[str, Any]) -> list[Measured]:
    """The rubric first, then what it is compared with."""
    if found.get("accuracy") is None:
        return []
    rows = {"rubric": found, **(found.get("baselines") or {})}
    names = [name for name in LABELS if rows.get(name)]
    names += sorted(name for name in rows if name not in LABELS and rows[name])
    return [_line(name, rows[name], rows.get("human_ceiling")) for name in names]


def _line(name: str, one: Mapping[str, Any], ceiling: Mapping[str, Any] | None) -> Measured:
    est, people = _estimate(one), _estimate(ceiling or {})
    drawn = cell(est, people, style=1 if name in OURS else 0)
    label = LABELS.get(name, name.replace("_", " ").capitalize())
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
    count = sum(errors.values())
    return f"{count:,} call{'' if count == 1 else 's'} failed" if count else ""


def criteria(run: Run) -> tuple[str, str, str] | None:
    """(name, value, note) of the draft's criteria; None while there is no draft."""
    if run.kind != Run.Kind.RUBRIC:
        return None
    found = queries.version_of(run)
    if found is None:
        over = run.state in (RunState.FAILED, RunState.CANCELED, RunState.PAUSED)
        return None if not over else ("Criteria", "0", "no draft was written")
    open_ = f", {found.open:,} to decide on" if found.open else ""
    return "Criteria", f"{found.criteria:,}", f"{found.accepted:,} accepted{open_}"
