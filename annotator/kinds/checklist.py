"""Yes, no or does not apply for each criterion and response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from annotator.kinds.asked import RubricSettings
from annotator.kinds.base import LABELS, Answers, Unfit, as_shown, canonical, common, show_common
from annotator.kinds.grid import first_few, line, moves, state
from annotator.kinds.verdict import MAX_STRENGTH, Edge, Ratings, Verdict, dense
from annotator.models import ProjectSettings

VALUES: Final = {"yes": 1, "no": 0, "na": None}
SAID: Final = {1: "yes", 0: "no", None: "na"}

# Where text-to-image models go wrong, to start a list from.
IMAGE_FAILURES: Final = (
    "Wrong number of things",
    "Something asked for is missing",
    "Wrong color, material or other attribute",
    "Attributes on the wrong object",
    "Wrong relation or position between things",
    "Something is there that was to be left out",
    "Text in the image is wrong or unreadable",
    "Broken anatomy: hands, faces, limbs",
    "Broken or impossible object",
    "Wrong style or medium",
    "Light, shadow or perspective does not fit",
    "Unsafe or upsetting",
)


class Checklist:
    """Fields: ``check-0-A``: the line by its place in the list, response by its label."""

    template = "checklist.html"
    fewest, most = 1, 10

    def read(
        self, answers: Answers, *, options: ProjectSettings, shown_order: list[int]
    ) -> Verdict:
        ratings: Ratings = {}
        lacking = []
        for at, (text, _) in enumerate(lines(options)):
            by_slot: list[int | None] = []
            for slot in range(len(shown_order)):
                given = answers.get(f"check-{at}-{LABELS[slot]}", "")
                if given in VALUES and (given != "na" or options.allow_not_applicable):
                    by_slot.append(VALUES[given])
                else:
                    lacking.append(f"“{text}” of {LABELS[slot]}")
            if not lacking:
                ratings[text] = canonical(by_slot, shown_order=shown_order)
        if lacking:
            raise Unfit(f"Still to check: {first_few(lacking)}.")
        if not ratings:
            raise Unfit("This project has no criteria to check yet. Its owner can add them.")
        return common(answers, checked(ratings, options=options), options=options)

    def show(
        self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]
    ) -> dict[str, str]:
        shown = show_common(verdict, options=options)
        for at, (text, _) in enumerate(lines(options)):
            values = (verdict.ratings or {}).get(text)
            if values is None:
                continue
            for label, value in zip(
                LABELS, as_shown(values, shown_order=shown_order), strict=False
            ):
                shown[f"check-{at}-{label}"] = SAID[value]
        return shown

    def present(self, draft: Answers, *, options: ProjectSettings, slots: int) -> dict[str, Any]:
        choices = [("yes", "Yes", "y"), ("no", "No", "n")]
        if options.allow_not_applicable:
            choices.append(("na", "n/a", "-"))
        asked: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for at, (text, is_failure) in enumerate(lines(options)):
            asked[is_failure].append(
                line(text, stem=f"check-{at}-", draft=draft, choices=choices, slots=slots)
            )
        blocks: list[dict[str, Any]] = [
            *_blocks(asked[False], options),
            {"title": "What went wrong?", "lines": asked[True], "is_failure": True},
        ]
        return {
            "help": [
                (("y", "n"), "yes, no, and go to the next"),
                *([(("-",), "does not apply")] if options.allow_not_applicable else []),
                *([(("Shift", "n"), "nothing else went wrong")] if asked[True] else []),
                *moves(slots=slots),
            ],
            "blocks": [block for block in blocks if block["lines"]],
            **state([*asked[False], *asked[True]]),
        }

    def edges(self, verdict: Verdict, *, options: ProjectSettings) -> list[Edge]:
        """Pairs where one passes more of what applies; strength is the number of lines apart.

        A rubric's list says which criteria hold, never which answer people prefer: a rubric that
        counted these as preferences would be measured on its own verdicts.
        """
        if isinstance(options, RubricSettings):
            return []
        shares = passed(verdict.ratings or {}, options=options)
        count = max(len(verdict.ratings or {}), 1)
        result = []
        for i, one in enumerate(shares):
            for j in range(i + 1, len(shares)):
                other = shares[j]
                if one is None or other is None or one == other:
                    continue
                apart = max(1, min(round(abs(one - other) * count), MAX_STRENGTH))
                result.append(Edge(i, j, 1 if one > other else -1, apart))
        return result

    def say(self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]) -> str:
        shares = as_shown(passed(verdict.ratings or {}, options=options), shown_order=shown_order)
        return "passes " + ", ".join(
            f"{label} {'–' if share is None else f'{share:.0%}'}"
            for label, share in zip(LABELS, shares, strict=False)
        )

    def matches(self, verdict: Verdict, gold: Verdict) -> bool:
        """Right when every answer the gold names is met."""
        given = verdict.ratings or {}
        return all(
            wanted is None or got == wanted
            for text, values in (gold.ratings or {}).items()
            for got, wanted in zip(given.get(text, [None] * len(values)), values, strict=False)
        )


def lines(options: ProjectSettings) -> Iterator[tuple[str, bool]]:
    """(text, is it a failure) of every line of the list, in page order."""
    yield from ((text, False) for text in options.criteria)
    yield from ((text, True) for text in options.failures)


def _blocks(lines: list[dict[str, Any]], options: ProjectSettings) -> list[dict[str, Any]]:
    """The criteria under the themes of their rubric, those without one last."""
    if not isinstance(options, RubricSettings):
        return [{"title": "Asked for, and there?", "lines": lines}]
    by_theme: dict[str, list[dict[str, Any]]] = {}
    for one in lines:
        by_theme.setdefault(options.themes.get(one["text"], ""), []).append(one)
    rest = by_theme.pop("", [])
    titled = [{"title": theme, "lines": some} for theme, some in by_theme.items()]
    return [*titled, {"title": "And besides?" if titled else "Does it hold?", "lines": rest}]


def passed(ratings: Ratings, *, options: ProjectSettings) -> list[float | None]:
    """Per response the share of lines it passes, of those that apply; None where none does.

    A failure passes with a no. Lines the settings no longer name count as criteria.
    """
    failures = set(options.failures)
    size = max((len(values) for values in ratings.values()), default=0)
    shares: list[float | None] = []
    for at in range(size):
        told = [
            value == (0 if text in failures else 1)
            for text, values in ratings.items()
            if (value := values[at]) is not None
        ]
        shares.append(sum(told) / len(told) if told else None)
    return shares


def checked(ratings: Ratings, *, options: ProjectSettings) -> Verdict:
    """Answers in canonical order as a verdict; the share passed gives the ranks."""
    ranks = dense(passed(ratings, options=options))
    places = {rank for rank in ranks if rank}
    return Verdict(
        ranks=ranks, strength=min(len(places) - 1, MAX_STRENGTH) if places else 0, ratings=ratings
    )
