"""Each response on a scale, one per attribute; preferences where the first attribute differs."""

from __future__ import annotations

from typing import Any, Final

from annotator.kinds.base import LABELS, Answers, Unfit, as_shown, canonical, common, show_common
from annotator.kinds.verdict import MAX_STRENGTH, Edge, Ratings, Verdict, dense
from annotator.models import ProjectSettings

NOT_APPLICABLE: Final = "na"


class Rating:
    """Fields: ``rate-0-A``: attribute by its place in the settings, response by its label."""

    template = "rating.html"
    fewest, most = 1, 10

    def read(
        self, answers: Answers, *, options: ProjectSettings, shown_order: list[int]
    ) -> Verdict:
        legal = {str(n): n for n in range(options.rating_low, options.rating_high + 1)}
        ratings: Ratings = {}
        missing = []
        for at, attribute in enumerate(options.attributes):
            by_slot: list[int | None] = []
            for slot in range(len(shown_order)):
                given = answers.get(f"rate-{at}-{LABELS[slot]}", "")
                if given == NOT_APPLICABLE and options.allow_not_applicable:
                    by_slot.append(None)
                elif given in legal:
                    by_slot.append(legal[given])
                else:
                    missing.append(f"{attribute} of {LABELS[slot]}")
            if not missing:
                ratings[attribute] = canonical(by_slot, shown_order=shown_order)
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise Unfit(f"Still to rate: {', '.join(missing[:3])}{more}.")
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
        values = [str(n) for n in range(options.rating_low, options.rating_high + 1)]
        return {
            "help": [
                (("j", "k"), "next row, row before"),
                ((values[0], "to", values[-1]), "rate; goes to the next row by itself"),
            ],
            "values": values,
            "attributes": [
                {
                    "name": attribute,
                    "at": at,
                    "cells": [
                        {
                            "label": LABELS[slot],
                            "field": f"rate-{at}-{LABELS[slot]}",
                            "value": draft.get(f"rate-{at}-{LABELS[slot]}", ""),
                        }
                        for slot in range(slots)
                    ],
                }
                for at, attribute in enumerate(options.attributes)
            ],
        }

    def edges(self, verdict: Verdict, *, options: ProjectSettings) -> list[Edge]:
        """Pairs whose deciding ratings differ; the difference, at most 3, is the strength."""
        values = deciding(verdict)
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
        first = next(iter(ratings))
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


def deciding(verdict: Verdict) -> list[int | None]:
    """The ratings of the first attribute, which decides what is preferred."""
    return next(iter((verdict.ratings or {}).values()), [None] * len(verdict.ranks))


def rated(ratings: Ratings) -> Verdict:
    """Ratings in canonical order as a verdict; the first attribute gives the ranks."""
    values = next(iter(ratings.values()))
    known = [value for value in values if value is not None]
    gap = max(known) - min(known) if known else 0
    return Verdict(ranks=dense(values), strength=min(gap, MAX_STRENGTH), ratings=ratings)
