"""What trying a rubric found, in the words and marks of its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from annotator import formats

NAMES: Final = {"a": "A", "b": "B"}
WORDS: Final = {"yes": "yes", "no": "no", "n/a": "does not apply", "": "not known"}


@dataclass(frozen=True)
class Cell:
    """One verdict. ``said`` picks the shape, ``is_good`` whether it speaks for the answer."""

    name: str
    said: str
    word: str
    is_good: bool | None
    share: str  # how much of a yes, where it is not all or nothing
    reason: str
    by: str


@dataclass(frozen=True)
class Line:
    text: str
    worth: str
    is_against: bool
    cells: list[Cell]
    difference: str
    by: str


@dataclass(frozen=True)
class Sum:
    """The last row's cell: verdicts that speak for the answer, the weighted sum, what is missing."""

    name: str
    met: str
    weighted: str
    rest: str


@dataclass(frozen=True)
class Table:
    lines: list[Line]
    sums: list[Sum]
    margin: str
    outcome: str
    detail: str
    people: str
    agrees: bool | None  # with people; None where either has no winner
    asked: Mapping[str, Any] | None
    notes: list[str]

    @property
    def is_pair(self) -> bool:
        return len(self.sums) > 1


def signed(value: float | None) -> str:
    """1.62 -> +1.62, with a real minus; 0 has no sign."""
    if value is None:
        return formats.MISSING
    text = formats.fixed(value, 2)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def table(result: Mapping[str, Any]) -> Table:
    names = list(result["totals"])
    outcome, detail = _outcome(result, names)
    ours = (result["outcome"] or {}).get("winner")
    people, winner = _people(result["people"], ours=ours)
    return Table(
        lines=[_line(row, names) for row in result["criteria"]],
        sums=[_sum(NAMES[name], result["totals"][name]) for name in names],
        margin=signed((result["outcome"] or {}).get("margin")),
        outcome=outcome,
        detail=detail,
        people=people,
        agrees=ours == winner if ours in NAMES and winner in NAMES else None,
        asked=result["asked"],
        notes=result["notes"],
    )


def _line(row: Mapping[str, Any], names: list[str]) -> Line:
    worth = row["worth"]
    cells = [_cell(NAMES[name], row[name], worth) for name in names]
    makers = {cell.by for cell in cells if cell.by}
    return Line(
        text=row["text"],
        worth=signed(worth),
        is_against=worth < 0,
        cells=cells,
        difference=signed(row["difference"]),
        by=makers.pop() if len(makers) == 1 else "",
    )


def _cell(name: str, found: Mapping[str, Any], worth: float) -> Cell:
    said = found["said"]
    decides = said in ("yes", "no") and worth != 0
    return Cell(
        name=name,
        said=said or "unknown",
        word=WORDS[said],
        is_good=(said == "yes") == (worth > 0) if decides else None,
        share=_share(found),
        reason=found["reason"],
        by=found["by"],
    )


def _share(found: Mapping[str, Any]) -> str:
    if found["probability"] is not None:
        return f"P(yes) {formats.percent(found['probability'], digits=0)}"
    score = found["score"]
    return "" if score in (None, 0, 1) else f"score {formats.percent(score, digits=0)}"


def _sum(name: str, total: Mapping[str, Any]) -> Sum:
    rest = [
        f"{count:,} {words}"
        for count, words in (
            (total["not_applicable"], "not applicable"), (total["unknown"], "not known")
        )
        if count
    ]  # fmt: skip
    return Sum(
        name=name,
        met=f"{total['met']:,} of {total['of']:,} satisfied" if total["of"] else "none can be told",
        weighted=signed(total["weighted"]),
        rest=", ".join(rest),
    )


def _outcome(result: Mapping[str, Any], names: list[str]) -> tuple[str, str]:
    """What it comes to in one phrase, and what that rests on."""
    found = result["outcome"]
    if found is None:
        total = result["totals"][names[0]]
        return f"It satisfies {total['met']:,} of {total['of']:,}", ""
    if found["winner"] is None:
        return "No criterion is known of both answers", ""
    count = found["counted"]
    of = len(result["criteria"])
    basis = f"on {count:,} of {of:,} criteri{'on' if of == 1 else 'a'}"
    if found["winner"] == "even":
        return "Neither comes out first", f"the weighted sums are equal, {basis}"
    margin, most = formats.fixed(abs(found["margin"]), 2), formats.fixed(found["most"], 2)
    return f"{NAMES[found['winner']]} comes out first", f"by {margin} of at most {most}, {basis}"


def _people(votes: Mapping[str, int] | None, *, ours: str | None) -> tuple[str, str]:
    """What people said in words, and whom most of them prefer."""
    if not votes:
        return "", ""
    a, b, ties = votes["a"], votes["b"], votes["ties"]
    total = a + b + ties
    if a == b:
        return f"People are divided: {a:,} for A, {b:,} for B, {ties:,} for neither.", "even"
    winner, count = ("a", a) if a > b else ("b", b)
    if ties > count:
        return f"People see no difference: {ties:,} of {total:,}.", "even"
    beside = {winner: " too"}.get(ours or "", " instead" if ours in NAMES else "")
    return f"People prefer {NAMES[winner]}{beside}: {count:,} of {total:,}.", winner
