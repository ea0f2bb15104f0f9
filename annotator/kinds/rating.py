"""Each response on a scale, one per attribute; preferences where the first attribute differs."""

from __future__ import annotations

from typing import Any, Final

from annotator.kinds.base import LABELS, Answers, Unfit, as_shown, canonical, common, show_common
from annotator.kinds.grid import Choice, Keys, first_few, line, moves, state
from annotator.kinds.verdict import MAX_STRENGTH, Edge, Ratings, Verdict, dense
from annotator.models import ProjectSettings

NOT_APPLICABLE: Final = "na"
NOT_APPLICABLE_KEY: Final = "-"
TEN: Final = "t"  # the key for 10 on a scale from 0; on one from 1 it is 0


class Rating:
    """Fields: ``rate-0-A``: attribute by its place in the settings, response by its label."""

    template = "rating.html"
    fewest, most = 1, 10

    def read(
        self, answers: Answers, *, options: ProjectSettings, shown_order: list[int]
    ) -> Verdict:
        legal = {str(n): n for n in range(options.rating_low, options.rating_high + 1)}
        ratings: Ratings = {}
        lacking = []
        for at, attribute in enumerate(options.attributes):
            by_slot: list[int | None] = []
            for slot in range(len(shown_order)):
                given = answers.get(f"rate-{at}-{LABELS[slot]}", "")
                if given == NOT_APPLICABLE and options.allow_not_applicable:
                    by_slot.append(None)
                elif given in legal:
                    by_slot.append(legal[given])
                else:
                    lacking.append(f"{attribute} of {LABELS[slot]}")
            if not lacking:
                ratings[attribute] = canonical(by_slot, shown_order=shown_order)
        if lacking:
            raise Unfit(f"Still to rate: {first_few(lacking)}.")
        return common(answers, rated(ratings), options=options)

    def show(
        self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]
    ) -> dict[str, str]:
        shown = show_common(verdict, options=options)
        for at, attribute in enumerate(options.attributes):
            values = (verdict.ratings or {}).get(attribute)
            if values is None:
                continue
            for label, value in zip(
                LABELS, as_shown(values, shown_order=shown_order), strict=False
            ):
                shown[f"rate-{at}-{label}"] = NOT_APPLICABLE if value is None else str(value)
        return shown

    def present(self, draft: Answers, *, options: ProjectSettings, slots: int) -> dict[str, Any]:
        choices = scale(options)
        lines = [
            line(attribute, stem=f"rate-{at}-", draft=draft, choices=choices, slots=slots)
            for at, attribute in enumerate(options.attributes)
        ]
        keys = [key for _, _, key in choices if key not in (TEN, NOT_APPLICABLE_KEY)]
        steps: list[Keys] = [((keys[0], "to", keys[-1]), "rate, and go to the next")]
        if any(key == TEN for _, _, key in choices):
            steps.append(((TEN,), "rate 10"))
        if options.allow_not_applicable:
            steps.append(((NOT_APPLICABLE_KEY,), "does not apply"))
        return {
            "help": [*steps, *moves(slots=slots)],
            "blocks": [{"title": "Rate", "hint": anchors(options), "lines": lines}],
            **state(lines),
        }

    def edges(self, verdict: Verdict, *, options: ProjectSettings) -> list[Edge]:
        """Pairs whose deciding ratings differ; the difference, at most 3, is the strength."""
        values = deciding(verdict, options=options)
        result = []
        for i, one in enumerate(values):
            for j in range(i + 1, len(values)):
                other = values[j]
                if one is None or other is None or one == other:
                    continue
                gap = one - other
                result.append(Edge(i, j, 1 if gap > 0 else -1, min(abs(gap), MAX_STRENGTH)))
        return result

    def say(self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]) -> str:
        ratings = verdict.ratings or {}
        if not ratings:
            return "No ratings"
        # Stored verdicts come back with their attributes in an order of the database.
        first = next((name for name in options.attributes if name in ratings), min(ratings))
        shown = as_shown(ratings[first], shown_order=shown_order)
        said = ", ".join(
            f"{label} {'–' if value is None else value}"
            for label, value in zip(LABELS, shown, strict=False)
        )
        more = f" (+{len(ratings) - 1})" if len(ratings) > 1 else ""
        return f"{first}: {said}{more}"

    def matches(self, verdict: Verdict, gold: Verdict) -> bool:
        """Right when every rating the gold names is met within one step."""
        given = verdict.ratings or {}
        return all(
            wanted is None or (got is not None and abs(got - wanted) <= 1)
            for attribute, values in (gold.ratings or {}).items()
            for got, wanted in zip(given.get(attribute, [None] * len(values)), values, strict=False)
        )


def scale(options: ProjectSettings) -> list[Choice]:
    """(value, label, key) of every rating that can be given, the lowest first."""
    ten = "0" if options.rating_low else TEN
    steps = range(options.rating_low, options.rating_high + 1)
    choices = [(str(n), str(n), str(n) if n < 10 else ten) for n in steps]
    if options.allow_not_applicable:
        choices.append((NOT_APPLICABLE, "n/a", NOT_APPLICABLE_KEY))
    return choices


def anchors(options: ProjectSettings) -> str:
    """What the ends of the scale mean, where the owner said so."""
    ends = (
        (options.rating_low, options.rating_low_means),
        (options.rating_high, options.rating_high_means),
    )
    return ", ".join(f"{value} is {means}" for value, means in ends if means)


def deciding(verdict: Verdict, *, options: ProjectSettings) -> list[int | None]:
    """The ratings of the attribute that decided what is preferred.

    PostgreSQL keeps the keys of a stored verdict in an order of its own, and imported ones name
    attributes that the settings do not: the ranks tell which attribute they were made from.
    """
    ratings = verdict.ratings or {}
    ordered = [name for name in options.attributes if name in ratings]
    ordered += [name for name in ratings if name not in ordered]
    for name in ordered:
        alone = rated({name: ratings[name]})
        if (alone.ranks, alone.strength) == (verdict.ranks, verdict.strength):
            return ratings[name]
    return ratings[ordered[0]] if ordered else [None] * len(verdict.ranks)


def rated(ratings: Ratings) -> Verdict:
    """Ratings in canonical order as a verdict; the first attribute gives the ranks."""
    values = next(iter(ratings.values()))
    known = [value for value in values if value is not None]
    gap = max(known) - min(known) if known else 0
    return Verdict(ranks=dense(values), strength=min(gap, MAX_STRENGTH), ratings=ratings)
