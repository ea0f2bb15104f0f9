"""Ranking and best-worst: what a page says, as a canonical verdict, as edges, and back."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.forms.judgments import read_answers
from annotator.kinds.base import LABELS, Unfit, kind
from annotator.kinds.ranking import LEFT_AS_SHOWN
from annotator.kinds.verdict import Verdict, dense, edges_of_ranks, widest
from annotator.models import AssignmentState, Judgment, Preference, ProjectSettings
from annotator.services import judgments, queue
from tests import factories

OPTIONS = ProjectSettings()
RANKING, BEST_WORST = kind("ranking"), kind("best-worst")


def places(*given: int | str, **more: str) -> dict[str, str]:
    """The fields of a page on which A, B, … got these places."""
    fields = {f"place-{LABELS[at]}": str(place) for at, place in enumerate(given)}
    return fields | more


@st.composite
def rankings(draw: st.DrawFn) -> tuple[Verdict, list[int]]:
    """Any legal ranking, ties and unranked included, and any order to show it in."""
    slots = draw(st.integers(3, 10))
    raw = draw(st.lists(st.integers(0, slots), min_size=slots, max_size=slots))
    ranks = dense([None if place == 0 else -place for place in raw])
    verdict = Verdict(
        ranks=ranks,
        strength=widest(ranks),
        both_bad=draw(st.booleans()),
        rationale=draw(st.sampled_from(["", "B invents a cause."])),
    )
    return verdict, draw(st.permutations(range(slots)))


@st.composite
def picks(draw: st.DrawFn) -> tuple[Verdict, list[int]]:
    slots = draw(st.integers(4, 10))
    best, worst = draw(st.lists(st.integers(0, slots - 1), min_size=2, max_size=2, unique=True))
    ranks = [1 if at == best else 3 if at == worst else 2 for at in range(slots)]
    return Verdict(ranks=ranks, strength=2), draw(st.permutations(range(slots)))


@given(case=rankings())
def test_a_ranking_survives_being_shown_and_read(case: tuple[Verdict, list[int]]) -> None:
    verdict, order = case
    shown = RANKING.show(verdict, options=OPTIONS, shown_order=order)
    assert read_answers(shown) == shown, "every field of the page is kept"
    assert RANKING.read(shown, options=OPTIONS, shown_order=order) == verdict


@given(case=picks())
def test_a_pick_survives_being_shown_and_read(case: tuple[Verdict, list[int]]) -> None:
    verdict, order = case
    shown = BEST_WORST.show(verdict, options=OPTIONS, shown_order=order)
    assert read_answers(shown) == shown
    assert BEST_WORST.read(shown, options=OPTIONS, shown_order=order) == verdict


@given(case=rankings(), other=st.randoms(use_true_random=False))
def test_verdict_does_not_depend_on_the_order_shown(
    case: tuple[Verdict, list[int]], other: Any
) -> None:
    verdict, order = case
    again = list(order)
    other.shuffle(again)
    by_response = {place: order.index(place) for place in order}
    first = RANKING.show(verdict, options=OPTIONS, shown_order=order)
    # The same opinion of each response, given on a page that shows them otherwise.
    second = {
        f"place-{LABELS[slot]}": first[f"place-{LABELS[by_response[place]]}"]
        for slot, place in enumerate(again)
    }
    second |= {"as_shown": "on"} | {
        name: value for name, value in first.items() if not name.startswith("place-")
    }
    assert RANKING.read(second, options=OPTIONS, shown_order=again) == verdict


@given(case=rankings())
def test_edges_are_the_verdict_pair_by_pair(case: tuple[Verdict, list[int]]) -> None:
    verdict, _ = case
    edges = RANKING.edges(verdict, options=OPTIONS)
    ranked = [at for at, rank in enumerate(verdict.ranks) if rank]
    assert {(e.a, e.b) for e in edges} == {(a, b) for a in ranked for b in ranked if a < b}
    for edge in edges:
        gap = verdict.ranks[edge.b] - verdict.ranks[edge.a]
        assert edge.outcome == (gap > 0) - (gap < 0)
        assert edge.strength == min(abs(gap), 3)


@given(case=rankings())
def test_edges_turn_around_with_the_ranking(case: tuple[Verdict, list[int]]) -> None:
    verdict, _ = case
    last = max(verdict.ranks)
    turned = [last + 1 - rank if rank else 0 for rank in verdict.ranks]
    forth = edges_of_ranks(verdict.ranks, strength=verdict.strength)
    back = edges_of_ranks(turned, strength=verdict.strength)
    assert [(e.a, e.b, -e.outcome, e.strength) for e in forth] == [tuple(e) for e in back]


@given(case=picks())
def test_the_middle_of_best_worst_was_not_compared(case: tuple[Verdict, list[int]]) -> None:
    verdict, _ = case
    edges = BEST_WORST.edges(verdict, options=OPTIONS)
    best, worst = verdict.ranks.index(1), verdict.ranks.index(3)
    assert len(edges) == 2 * len(verdict.ranks) - 3
    for edge in edges:
        assert {edge.a, edge.b} & {best, worst}
        winner, loser = (edge.a, edge.b) if edge.outcome == 1 else (edge.b, edge.a)
        assert winner == best or loser == worst
        assert edge.strength == (2 if {edge.a, edge.b} == {best, worst} else 1)


@given(
    answers=st.dictionaries(
        st.sampled_from([*places(*range(5)), "none_ranked", "as_shown", "both_bad", "best"]),
        st.sampled_from(["", "0", "1", "2", "3", "4", "5", "-1", "٣", "1.0", " 1", "on", "A"]),
    )
)
def test_any_answers_are_a_legal_verdict_or_refused(answers: dict[str, str]) -> None:
    for of_kind in (RANKING, BEST_WORST):
        of_kind.present(answers, options=OPTIONS, slots=4)
        with suppress(Unfit):
            said = of_kind.read(answers, options=OPTIONS, shown_order=[2, 0, 3, 1])
            said.check(responses=4)


@pytest.mark.parametrize("sent", [{}, places(1, 2, 3, 4)], ids=["untouched", "typed"])
def test_order_left_as_shown_is_asked_about_once(sent: dict[str, str]) -> None:
    order = [2, 0, 3, 1]
    with pytest.raises(Unfit) as asked:
        RANKING.read(sent, options=OPTIONS, shown_order=order)
    assert asked.value.messages[0] == LEFT_AS_SHOWN
    again = {**sent, **asked.value.fill}
    said = RANKING.read(again, options=OPTIONS, shown_order=order)
    assert said.ranks == [2, 4, 1, 3]
    page = RANKING.present(again, options=OPTIONS, slots=4)
    assert [(group["place"], group["slots"]) for group in page["groups"]] == [
        ("1", [0]), ("2", [1]), ("3", [2]), ("4", [3])
    ]  # fmt: skip


def test_confirming_lets_no_half_ranking_through() -> None:
    with pytest.raises(Unfit, match="Give a place to B and D"):
        RANKING.read(places(1, "", 2, "", as_shown="on"), options=OPTIONS, shown_order=[0, 1, 2, 3])


@pytest.mark.parametrize(
    "typed",
    [places(2, 1, 1, 3), places(3, 1, 1, 4), places(4, 2, 2, 4) | places(3, 2, 2, 4)],
    ids=["dense", "sport", "gaps"],
)
def test_places_with_or_without_gaps_are_one_verdict(typed: dict[str, str]) -> None:
    said = RANKING.read(typed, options=OPTIONS, shown_order=[0, 1, 2, 3])
    assert said.ranks == [2, 1, 1, 3]
    shown = RANKING.show(said, options=OPTIONS, shown_order=[0, 1, 2, 3])
    assert shown == places(3, 1, 1, 4)


def test_none_can_be_ranked_needs_no_places_and_refuses_them() -> None:
    order = [2, 0, 3, 1]
    said = RANKING.read({"none_ranked": "on"}, options=OPTIONS, shown_order=order)
    assert (said.ranks, said.strength) == ([0, 0, 0, 0], 0)
    assert RANKING.edges(said, options=OPTIONS) == []
    assert RANKING.read(places(0, 0, 0, 0), options=OPTIONS, shown_order=order) == said
    with pytest.raises(Unfit, match="take one of them back"):
        RANKING.read(places(2, 1, 3, 0, none_ranked="on"), options=OPTIONS, shown_order=order)


def test_ties_are_refused_where_the_project_offers_none() -> None:
    strict = ProjectSettings(allow_tie=False)
    with pytest.raises(Unfit, match="A and C share place 2"):
        RANKING.read(places(2, 1, 2, 4), options=strict, shown_order=[0, 1, 2, 3])
    said = RANKING.read(places(2, 1, 0, 0), options=strict, shown_order=[0, 1, 2, 3])
    assert said.ranks == [2, 1, 0, 0], "not ranked twice is no tie"


def test_best_and_worst_must_both_be_there_and_differ() -> None:
    for answers, message in (
        ({"worst": "A"}, "Choose the best answer"),
        ({"best": "A"}, "Choose the worst answer"),
        ({"best": "A", "worst": "E"}, "Choose the worst answer"),
        ({"best": "AB", "worst": "C"}, "Choose the best answer"),
        ({"best": "B", "worst": "B"}, "cannot be the same"),
    ):
        with pytest.raises(Unfit, match=message):
            BEST_WORST.read(answers, options=OPTIONS, shown_order=[0, 1, 2, 3])


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ([2, 3, 1, 2], "C, then A and D, then B"),
        ([1, 1, 1, 0], "A, B and C tied; D not ranked"),
        ([0, 1, 0, 2], "B, then D; A and C not ranked"),
        ([0, 0, 0, 0], "Cannot be ranked"),
    ],
)
def test_history_says_the_ranking_in_the_letters_that_were_shown(
    ranks: list[int], words: str
) -> None:
    verdict = Verdict(ranks=ranks, strength=widest(ranks))
    assert RANKING.say(verdict, options=OPTIONS, shown_order=[0, 1, 2, 3]) == words


def test_letters_of_the_history_follow_the_order_shown() -> None:
    ranking = Verdict(ranks=[1, 2, 3], strength=2)
    assert RANKING.say(ranking, options=OPTIONS, shown_order=[2, 1, 0]) == "C, then B, then A"
    pick = Verdict(ranks=[1, 2, 2, 3], strength=2)
    said = BEST_WORST.say(pick, options=OPTIONS, shown_order=[3, 1, 2, 0])
    assert said == "D best, A worst"


def test_a_gold_is_hit_by_every_ranking_that_turns_nothing_around() -> None:
    gold = Verdict(ranks=[1, 2, 2], strength=1)
    for ranks, is_hit in (
        ([1, 2, 2], True),
        ([1, 2, 3], True),
        ([1, 1, 2], False),
        ([2, 1, 3], False),
        ([1, 0, 2], False),
    ):
        said = Verdict(ranks=ranks, strength=widest(ranks))
        assert RANKING.matches(said, gold) is is_hit, ranks


@pytest.mark.parametrize(("slots", "keys"), [(4, "1234"), (10, "123456789t")])
def test_every_place_has_a_key(slots: int, keys: str) -> None:
    page = RANKING.present({}, options=OPTIONS, slots=slots)
    assert "".join(place["key"] for place in page["places"]) == keys
    explained = {key for row, _ in page["help"] for key in row}
    assert {"1", "0", "n", "x", LABELS[slots - 1].lower(), keys[-1]} <= explained


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("key", "answers", "ranks", "edges"),
    [
        ("ranking", places(2, 1, 2, 0), {0: 2, 1: 1, 2: 2, 3: 0}, 3),
        ("best-worst", {"best": "C", "worst": "A"}, {0: 3, 1: 2, 2: 1, 3: 2}, 5),
    ],
)
def test_database_keeps_the_verdict_and_its_edges_through_undo(
    key: str, answers: dict[str, str], ranks: dict[int, int], edges: int
) -> None:
    project = factories.project()
    task = factories.task_of(project, key, 4)
    rater = factories.rater(project)
    options = project.options
    lease = queue.claim_next(project=project, rater=rater)
    held = {"assignment_id": lease.assignment_id, "rater": rater, "options": options}
    for _ in range(2):
        judgments.answer(**held, answers=answers)
        kept = Judgment.objects.get(is_current=True)
        by_slot = [kept.ranks[place] for place in kept.shown_order]
        assert dict(enumerate(by_slot)) == ranks
        rows = Preference.objects.filter(judgment=kept)
        assert rows.count() == edges
        for row in rows:
            a, b = (kept.ranks[task.response_ids.index(pk)] for pk in (row.a_id, row.b_id))
            assert row.outcome == (b > a) - (b < a)
        reopened = judgments.undo(rater=rater, options=options)
        assert reopened.state == AssignmentState.LEASED
        assert Preference.objects.count() == 0
        answers = reopened.draft
