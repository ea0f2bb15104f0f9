"""Which of two is better: a scale of 3, 5 or 7 steps around the tie."""

from __future__ import annotations

from typing import Any, Final

from annotator.kinds.base import Answers, Unfit, common, show_common
from annotator.kinds.verdict import Edge, Verdict, edges_of_ranks
from annotator.models import ProjectSettings

# Strength -> the word before "better"; HelpSteer2's seven steps reach 3.
WORDS: Final = {1: "", 2: "much ", 3: "very much "}
STEEPEST: Final = {3: 1, 5: 2, 7: 3}


def scale(options: ProjectSettings) -> list[tuple[str, str]]:
    """(value, label) of each step from A to B: ``a2 a1 tie b1 b2`` for five steps."""
    down = range(STEEPEST[options.steps], 0, -1)
    left = [(f"a{strength}", f"A {WORDS[strength]}better") for strength in down]
    right = [(f"b{strength}", f"B {WORDS[strength]}better") for strength in reversed(down)]
    middle = [("tie", "Tie")] if options.allow_tie else []
    return [*left, *middle, *right]


def pairwise_verdict(
    *, choice: str, shown_order: list[int], both_bad: bool = False, rationale: str = ""
) -> Verdict:
    """A verdict from a step as shown, ``a1`` to ``b3`` or ``tie``, in canonical order."""
    side, strength = choice[:1], choice[1:]
    if choice == "tie":
        return Verdict(ranks=[1, 1], strength=0, both_bad=both_bad, rationale=rationale)
    if side not in ("a", "b") or strength not in ("1", "2", "3"):
        raise Unfit("Choose one of the steps shown.")
    ranks = [1, 1]
    ranks[shown_order[1 if side == "a" else 0]] = 2
    return Verdict(ranks=ranks, strength=int(strength), both_bad=both_bad, rationale=rationale)


class Pairwise:
    template = "pairwise.html"
    fewest = most = 2

    def read(
        self, answers: Answers, *, options: ProjectSettings, shown_order: list[int]
    ) -> Verdict:
        choice = answers.get("verdict", "")
        if not choice:
            raise Unfit("Choose which answer is better, or a tie.")
        if choice == "tie" and not options.allow_tie:
            raise Unfit("This project asks you to choose one of the two.")
        if choice not in dict(scale(options)):
            raise Unfit("Choose one of the steps shown.")
        said = pairwise_verdict(
            choice=choice,
            shown_order=shown_order,
            both_bad=bool(answers.get("both_bad")) and options.allow_both_bad,
        )
        return common(answers, said, options=options)

    def show(
        self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]
    ) -> dict[str, str]:
        shown = show_common(verdict, options=options)
        shown["verdict"] = step(verdict, options=options, shown_order=shown_order)
        if verdict.both_bad:
            shown["both_bad"] = "on"
        return shown

    def present(self, draft: Answers, *, options: ProjectSettings, slots: int) -> dict[str, Any]:
        chosen = draft.get("verdict", "")
        steps = scale(options)
        return {
            "help": [
                (("1", "to", str(len(steps))), f"{steps[0][1]} to {steps[-1][1]}"),
                *([(("x",), "both bad")] if options.allow_both_bad else []),
            ],
            "steps": [
                {"value": value, "label": label, "key": at, "checked": value == chosen}
                for at, (value, label) in enumerate(steps, start=1)
            ],
            "both_bad": bool(draft.get("both_bad")),
        }

    def edges(self, verdict: Verdict, *, options: ProjectSettings) -> list[Edge]:
        return edges_of_ranks(verdict.ranks, strength=verdict.strength)

    def say(self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]) -> str:
        if not verdict.strength:
            return "Tie"
        side = "AB"[shown_order.index(verdict.ranks.index(1))]
        return f"{side} {WORDS[verdict.strength]}better"

    def matches(self, verdict: Verdict, gold: Verdict) -> bool:
        return verdict.ranks == gold.ranks


def step(verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]) -> str:
    """The step that shows a canonical verdict; the steepest one where the scale got shorter."""
    if not verdict.strength:
        return "tie"
    side = "ab"[shown_order.index(verdict.ranks.index(1))]
    return f"{side}{min(verdict.strength, STEEPEST[options.steps])}"
