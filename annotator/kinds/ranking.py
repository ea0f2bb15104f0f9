"""Three to ten responses from best to worst; equal places are ties, no place is "not ranked"."""

from __future__ import annotations

from typing import Any

from annotator.kinds.base import LABELS, Answers, Unfit, as_shown, canonical, common, show_common
from annotator.kinds.verdict import Edge, Verdict, edges_of_ranks, widest
from annotator.models import ProjectSettings


class Ranking:
    """Fields: ``place-A`` to ``place-J``, 1 to the number of responses, or 0 for not ranked."""

    template = "ranking.html"
    fewest, most = 3, 10

    def read(
        self, answers: Answers, *, options: ProjectSettings, shown_order: list[int]
    ) -> Verdict:
        slots = len(shown_order)
        given = [answers.get(f"place-{LABELS[slot]}", "") for slot in range(slots)]
        missing = [LABELS[slot] for slot, place in enumerate(given) if not place]
        if missing:
            raise Unfit(f"Give a place to {_listed(missing)}, or “not ranked”.")
        if not all(place in {str(n) for n in range(slots + 1)} for place in given):
            raise Unfit(f"A place is a number from 1 to {slots}, or 0 for not ranked.")
        places = [int(place) for place in given]
        if len({place for place in places if place}) < 2 and not options.allow_tie:
            raise Unfit("This project asks you to put at least one answer before another.")
        # Places as typed may leave gaps, 1 2 2 4; canonical ones do not.
        order = {place: at for at, place in enumerate(sorted(set(places) - {0}), start=1)}
        ranks = canonical([order.get(place, 0) for place in places], shown_order=shown_order)
        said = Verdict(
            ranks=ranks,
            strength=widest(ranks),
            both_bad=bool(answers.get("both_bad")) and options.allow_both_bad,
        )
        return common(answers, said, options=options)

    def show(
        self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]
    ) -> dict[str, str]:
        shown = show_common(verdict, options=options)
        ranks = as_shown(verdict.ranks, shown_order=shown_order)
        for label, rank in zip(LABELS, ranks, strict=False):
            # The place as a page shows it: after every better one, ties sharing the first.
            place = 1 + sum(0 < other < rank for other in ranks) if rank else 0
            shown[f"place-{label}"] = str(place)
        if verdict.both_bad:
            shown["both_bad"] = "on"
        return shown

    def present(self, draft: Answers, *, options: ProjectSettings, slots: int) -> dict[str, Any]:
        places = list(range(1, slots + 1))
        items = [
            {"slot": slot, "label": LABELS[slot], "place": draft.get(f"place-{LABELS[slot]}", "")}
            for slot in range(slots)
        ]
        return {
            "help": [
                ((LABELS[0].lower(), "to", LABELS[slots - 1].lower()), "go to that answer"),
                (("1", "to", str(slots)), "give it that place; the same place twice is a tie"),
                (("0",), "it cannot be ranked"),
                (("↑", "↓"), "move it up or down"),
            ],
            "places": places,
            "items": items,
            "both_bad": bool(draft.get("both_bad")),
            "untouched": not any(item["place"] for item in items),
        }

    def edges(self, verdict: Verdict, *, options: ProjectSettings) -> list[Edge]:
        return edges_of_ranks(verdict.ranks, strength=verdict.strength)

    def say(self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]) -> str:
        ranks = as_shown(verdict.ranks, shown_order=shown_order)
        groups = [
            " = ".join(LABELS[slot] for slot, rank in enumerate(ranks) if rank == place)
            for place in range(1, max(ranks) + 1)
        ]
        left_out = [LABELS[slot] for slot, rank in enumerate(ranks) if not rank]
        said = " > ".join(groups) or "Cannot be ranked"
        return f"{said}; {_listed(left_out)} not ranked" if left_out and groups else said

    def matches(self, verdict: Verdict, gold: Verdict) -> bool:
        """Right when no pair that the gold orders is turned around or left a tie."""
        wanted = {(e.a, e.b): e.outcome for e in edges_of_ranks(gold.ranks, strength=1)}
        given = {(e.a, e.b): e.outcome for e in edges_of_ranks(verdict.ranks, strength=1)}
        return all(given.get(pair) == outcome for pair, outcome in wanted.items() if outcome)


def _listed(labels: list[str]) -> str:
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)
