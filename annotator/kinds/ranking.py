"""Three to ten responses from best to worst; equal places are ties, no place is "not ranked"."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from annotator.kinds.base import LABELS, Answers, Unfit, as_shown, canonical, common, show_common
from annotator.kinds.verdict import Edge, Verdict, edges_of_ranks, widest
from annotator.models import ProjectSettings

NOT_RANKED: Final = "0"
TENTH_KEY: Final = "t"  # no digit is left for the tenth place

# An order nobody touched looks like a verdict and is none: it is asked about, once.
LEFT_AS_SHOWN: Final = "This is the order in which they were shown: is it your ranking?"
IF_SO: Final = "If it is, save again. If not, change the places first."
BOTH_SAID: Final = (
    "You ticked that the answers cannot be ranked and gave places too: take one of them back."
)


class Ranking:
    """Fields: ``place-A`` to ``place-J``, 1 to the number of responses, or 0 for not ranked.

    ``none_ranked`` says it of the whole task. ``as_shown`` confirms an order that is the one
    shown; without it such an order is refused, whoever sends it.
    """

    template = "ranking.html"
    fewest, most = 3, 10

    def read(
        self, answers: Answers, *, options: ProjectSettings, shown_order: list[int]
    ) -> Verdict:
        slots = len(shown_order)
        given = [answers.get(f"place-{label}", "") for label in LABELS[:slots]]
        places = _places(given, none_ranked=bool(answers.get("none_ranked")))
        if not options.allow_tie:
            _check_no_ties(places)
        if _is_as_shown(places) and not answers.get("as_shown"):
            # The page that asks shows the places that would be saved.
            fill = {f"place-{LABELS[slot]}": str(slot + 1) for slot in range(slots)}
            raise Unfit(LEFT_AS_SHOWN, IF_SO, fill={**fill, "as_shown": "on"})
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
        # The place as a page shows it: after every better one, ties sharing the first.
        places = [1 + sum(0 < other < rank for other in ranks) if rank else 0 for rank in ranks]
        shown |= {f"place-{LABELS[slot]}": str(place) for slot, place in enumerate(places)}
        if not any(places):
            shown["none_ranked"] = "on"
        if _is_as_shown(places):
            shown["as_shown"] = "on"  # asked and answered when it was given
        if verdict.both_bad:
            shown["both_bad"] = "on"
        return shown

    def present(self, draft: Answers, *, options: ProjectSettings, slots: int) -> dict[str, Any]:
        none_ranked = bool(draft.get("none_ranked"))
        legal = {str(place) for place in range(slots + 1)}
        given = [draft.get(f"place-{label}", "") for label in LABELS[:slots]]
        places = [place if place in legal else "" for place in given]
        if none_ranked:
            places = [NOT_RANKED] * slots
        return {
            "help": _help(options, slots=slots),
            "groups": _groups(places),
            "places": [
                {"value": str(place), "key": TENTH_KEY if place == 10 else str(place)}
                for place in range(1, slots + 1)
            ],
            "none_ranked": none_ranked,
            "both_bad": bool(draft.get("both_bad")),
            "as_shown": bool(draft.get("as_shown")),
        }

    def edges(self, verdict: Verdict, *, options: ProjectSettings) -> list[Edge]:
        return edges_of_ranks(verdict.ranks, strength=verdict.strength)

    def say(self, verdict: Verdict, *, options: ProjectSettings, shown_order: list[int]) -> str:
        ranks = as_shown(verdict.ranks, shown_order=shown_order)
        groups = [
            [LABELS[slot] for slot, rank in enumerate(ranks) if rank == place]
            for place in range(1, max(ranks) + 1)
        ]
        left_out = [LABELS[slot] for slot, rank in enumerate(ranks) if not rank]
        if not groups:
            return "Cannot be ranked"
        said = ", then ".join(_listed(group) for group in groups)
        if len(groups) == 1 and len(groups[0]) > 1:
            said += " tied"
        return f"{said}; {_listed(left_out)} not ranked" if left_out else said

    def matches(self, verdict: Verdict, gold: Verdict) -> bool:
        """Right when no pair that the gold orders is turned around or left a tie."""
        wanted = {(e.a, e.b): e.outcome for e in edges_of_ranks(gold.ranks, strength=1)}
        given = {(e.a, e.b): e.outcome for e in edges_of_ranks(verdict.ranks, strength=1)}
        return all(given.get(pair) == outcome for pair, outcome in wanted.items() if outcome)


def _places(given: list[str], *, none_ranked: bool) -> list[int]:
    """Places as numbers, per slot; a page on which nothing was done means the order it shows."""
    slots = len(given)
    if none_ranked:
        if any(place not in ("", NOT_RANKED) for place in given):
            raise Unfit(BOTH_SAID)
        return [0] * slots
    if not any(given):
        return list(range(1, slots + 1))
    missing = [LABELS[slot] for slot, place in enumerate(given) if not place]
    if missing:
        raise Unfit(f"Give a place to {_listed(missing)}, or “not ranked”.")
    if not all(place in {str(n) for n in range(slots + 1)} for place in given):
        raise Unfit(f"A place is a number from 1 to {slots}, or 0 for not ranked.")
    return [int(place) for place in given]


def _is_as_shown(places: list[int]) -> bool:
    return places == list(range(1, len(places) + 1))


def _check_no_ties(places: list[int]) -> None:
    by_place = defaultdict(list)
    for label, place in zip(LABELS, places, strict=False):
        by_place[place].append(label)
    ties = [
        f"{_listed(labels)} share place {place}"
        for place, labels in sorted(by_place.items())
        if place and len(labels) > 1
    ]
    if ties:
        raise Unfit(f"This project asks for an order without ties: {'; '.join(ties)}.")


def _groups(places: list[str]) -> list[dict[str, Any]]:
    """What the list shows from the top: places in order, then what has none, then not ranked.

    rank.js puts the list in this very order when a place changes.
    """
    by_place = defaultdict(list)
    for slot, place in enumerate(places):
        by_place[place].append(slot)
    groups = [
        {"place": place, "slots": by_place[place]}
        for place in sorted(by_place, key=lambda place: int(place or 0))
        if place not in ("", NOT_RANKED)
    ]
    for place in ("", NOT_RANKED):
        groups += [{"place": place, "slots": [slot]} for slot in by_place[place]]
    return groups


def _help(options: ProjectSettings, *, slots: int) -> list[tuple[tuple[str, ...], str]]:
    same = (
        "the same place twice is a tie"
        if options.allow_tie
        else "who had it takes the place it leaves"
    )
    rows: list[tuple[tuple[str, ...], str]] = [
        ((LABELS[0].lower(), "to", LABELS[slots - 1].lower()), "go to that answer"),
        (("1", "to", str(min(slots, 9))), f"give it that place; {same}"),
    ]
    if slots == 10:
        rows.append(((TENTH_KEY,), "give it the tenth place"))
    rows += [
        (("0",), "it cannot be ranked"),
        (("↑", "↓"), "move it up or down"),
        (("n",), "none of them can be ranked"),
    ]
    if options.allow_both_bad:
        rows.append((("x",), "all are bad"))
    return rows


def _listed(labels: list[str]) -> str:
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)
