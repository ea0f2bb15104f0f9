"""What every kind of task does, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from string import ascii_uppercase
from typing import Any, Final, Protocol

from annotator.errors import Invalid
from annotator.kinds import KINDS
from annotator.kinds.verdict import MAX_MS, MAX_RATIONALE, Edge, Verdict
from annotator.models import ProjectSettings, Task
from rubrics.registry import pick

LABELS: Final = ascii_uppercase  # the response shown first is A
MAX_ANSWERS: Final = 500  # fields of one form; ten responses times forty criteria fit

# What a page or program sends: names of fields as the templates write them, values as text.
Answers = Mapping[str, str]


class Unfit(Invalid):
    """Answers that are not a verdict yet. ``messages`` say what is missing, in page order.

    ``fill`` are answers that the page which asks again stands on, over those that were sent.
    """

    def __init__(self, *messages: str, fill: Answers | None = None) -> None:
        super().__init__(" ".join(messages))
        self.messages = messages
        self.fill = dict(fill or {})


class Kind(Protocol):
    """One kind of task.

    ``shown_order[slot]`` is the canonical place of the response shown in that slot; slot 0 is
    labelled A. Field names end in the label, never in a place, so that a page says nothing
    about canonical order.
    """

    template: str  # under templates/annotate/kinds/
    fewest: int  # responses a task has at least
    most: int

    def read(
        self, answers: Answers, *, options: ProjectSettings, shown_order: list[int]
    ) -> Verdict:
        """The verdict a person gave. Raises Unfit where answers are missing or refused."""

    def show(
        self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]
    ) -> dict[str, str]:
        """The answers that give this verdict when shown in this order: ``read`` backwards."""

    def present(self, draft: Answers, *, options: ProjectSettings, slots: int) -> dict[str, Any]:
        """What the kind's template needs beside the answers, filled in from a draft."""

    def edges(self, verdict: Verdict, *, options: ProjectSettings) -> list[Edge]:
        """The preferences a verdict stands for."""

    def say(self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]) -> str:
        """The verdict in the words of the page it was given on, short enough for a table."""

    def matches(self, verdict: Verdict, gold: Verdict) -> bool:
        """Whether a verdict is right where ``gold`` is known."""


def kind(key: str) -> Kind:
    """The kind stored under ``key``. Raises rubrics.registry.UnknownMethod."""
    return pick(KINDS, key)()


def common(answers: Answers, verdict: Verdict, *, options: ProjectSettings) -> Verdict:
    """A verdict with what is asked of every kind: why, reasons, the time it took.

    Raises Unfit for a missing or overlong reason.
    """
    why = answers.get("why", "").strip()
    if options.rationale == "off":
        why = ""
    if options.rationale == "required" and not why:
        raise Unfit("Say why in a few words.")
    if len(why) > MAX_RATIONALE:
        raise Unfit(f"Keep the reason under {MAX_RATIONALE:,} characters.")
    reasons = [reason for at, reason in enumerate(options.reasons) if answers.get(f"reason-{at}")]
    active = answers.get("active_ms", "")
    return replace(
        verdict,
        rationale=why,
        reasons=reasons,
        # isdecimal alone also takes digits that int() reads but no browser writes.
        active_ms=min(int(active), MAX_MS) if active.isascii() and active.isdecimal() else None,
    )


def show_common(verdict: Verdict, *, options: ProjectSettings) -> dict[str, str]:
    """The answers of ``common``, backwards."""
    shown = {
        f"reason-{at}": "on"
        for at, reason in enumerate(options.reasons)
        if reason in verdict.reasons
    }
    if verdict.rationale:
        shown["why"] = verdict.rationale
    return shown


def review_options(options: ProjectSettings) -> ProjectSettings:
    """The settings a reviewer decides by: every answer a vote can hold, and always a reason."""
    return options.model_copy(
        update={"allow_tie": True, "allow_both_bad": True, "rationale": "optional"}
    )


def canonical_order(task: Task) -> list[int]:
    """The order in which reviewers see the responses, the same for everybody."""
    return list(range(len(task.response_ids)))


def canonical(by_slot: list[Any], *, shown_order: list[int]) -> list[Any]:
    """Values per slot shown, put in canonical order."""
    result: list[Any] = [None] * len(shown_order)
    for slot, place in enumerate(shown_order):
        result[place] = by_slot[slot]
    return result


def as_shown(values: list[Any], *, shown_order: list[int]) -> list[Any]:
    """Values in canonical order, put in the order shown."""
    return [values[place] for place in shown_order]


def from_gold(gold: Mapping[str, Any]) -> Verdict:
    """``Task.gold`` as a verdict."""
    return Verdict(
        ranks=list(gold["ranks"]),
        strength=gold["strength"],
        both_bad=gold.get("both_bad", False),
        ratings=gold.get("ratings"),
    )
