"""Pairs: votes counted, majority drawn, the same for training and export."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.errors import Invalid
from annotator.models import Preference, Rater
from annotator.queries.pair_texts import training_rows, with_texts
from annotator.queries.pairs import (
    Pair,
    Selection,
    chunks,
    count_unvoted,
    decided_pairs,
    rater_ids,
)
from models.pairs import parse_pair
from tests import factories
from tests.annotator.ballots import judged_pair, raters, task_of, vote

pytestmark = pytest.mark.django_db

EVERY_SPLIT = ["train", "validation", "test"]


def pair_of(a: int = 0, b: int = 0, ties: int = 0, **fields: Any) -> Pair:
    values = dict.fromkeys(Pair._fields, 0) | {"wins_a": a, "wins_b": b, "ties": ties}
    return Pair(**(values | {"split": "train"} | fields))


@pytest.mark.parametrize(
    ("a", "b", "ties", "outcome"),
    [
        (1, 0, 0, "a"),
        (0, 1, 0, "b"),
        (2, 1, 0, "a"),
        (1, 3, 2, "b"),
        (0, 0, 1, "tie"),
        (1, 0, 1, "tie"),
        (2, 1, 2, "tie"),
        (1, 1, 2, "tie"),
        (1, 1, 0, "contradiction"),
        (2, 2, 1, "contradiction"),
        (1, 1, 1, "contradiction"),
        (0, 0, 0, "tie"),
    ],
)
def test_most_votes_win_and_anything_level_has_no_winner(
    a: int, b: int, ties: int, outcome: str
) -> None:
    assert pair_of(a, b, ties).outcome == outcome


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_a_winner_has_strictly_more_votes_whatever_the_votes(a: int, b: int, ties: int) -> None:
    pair, turned = pair_of(a, b, ties), pair_of(b, a, ties)
    assert turned.outcome == {"a": "b", "b": "a"}.get(pair.outcome, pair.outcome)
    if pair.outcome == "a":
        assert a > b
        assert a > ties
        assert pair.p_a > 0.5
        assert pair.agreement == a / (a + b + ties)


def test_the_strength_is_the_mean_of_the_winners_votes_only() -> None:
    project = factories.project()
    task = factories.pairwise_task(project)
    for rater, outcome, strength in zip(raters(project, 3), (-1, -1, 1), (3, 2, 1), strict=True):
        vote(task, rater, outcome, strength=strength)
    (pair,) = decided_pairs(project)
    assert (pair.outcome, pair.strength, pair.votes, pair.raters) == ("b", 2.5, 3, 3)
    assert pair.pair_id == Preference.objects.earliest("pk").pk


def test_two_tasks_that_list_the_responses_the_other_way_round_are_one_pair() -> None:
    project = factories.project()
    prompt = factories.prompt(project)
    one, other = factories.response(prompt), factories.response(prompt)
    first, second, third = raters(project, 3)
    vote(task_of(prompt, one, other), first, 1)
    back = task_of(prompt, other, one)
    vote(back, second, -1)
    vote(back, third, 1)
    (pair,) = decided_pairs(project)
    assert (pair.a_id, pair.b_id) == (one.pk, other.pk)
    assert (pair.wins_a, pair.wins_b, pair.outcome) == (2, 1, "a")


def test_control_tasks_do_not_count_but_are_told_of() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    judged_pair(project, [1], by=[rater], is_gold=True)
    assert list(decided_pairs(project)) == []
    ((pair,),) = chunks(project, Selection())
    assert (pair.votes, pair.golds, pair.pair_id) == (0, 1, 0)


def test_only_the_chosen_raters_count() -> None:
    project = factories.project()
    (outside,) = raters(project, 1)
    person = factories.rater(project)
    judged_pair(project, [1, -1], by=[outside, person])

    def outcomes(selection: Selection) -> list[str]:
        return [pair.outcome for pair in decided_pairs(project, selection)]

    assert outcomes(Selection()) == ["contradiction"]
    assert outcomes(Selection("imported")) == ["a"]
    assert outcomes(Selection("people")) == ["b"]
    assert outcomes(Selection("named", (person.name,))) == ["b"]
    with pytest.raises(Invalid, match="called Nobody"):
        outcomes(Selection("named", (person.name, "Nobody")))
    with pytest.raises(Invalid):
        rater_ids(project, Selection("named"))


def test_raters_of_another_project_are_never_chosen() -> None:
    project, other = factories.project(), factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    judged_pair(other, [1], by=raters(other, 1, Rater.Kind.JUDGE))
    with pytest.raises(Invalid):
        rater_ids(project, Selection("named", ("judge 1",)))
    assert len(list(decided_pairs(project))) == 1


def test_splits_and_least_votes_narrow_what_comes() -> None:
    project = factories.project()
    people = raters(project, 2)
    judged_pair(project, [1, 1], by=people, of=factories.prompt(project, split="train"))
    judged_pair(project, [1], by=people, of=factories.prompt(project, split="test"))
    assert [pair.split for pair in decided_pairs(project)] == ["train", "test"]
    assert [pair.split for pair in decided_pairs(project, min_votes=2)] == ["train"]
    only_test = Selection(splits=("test",))
    assert [pair.split for pair in decided_pairs(project, only_test)] == ["test"]


def test_pairs_come_in_order_and_no_list_splits_a_prompt() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    for _ in range(4):
        prompt = factories.prompt(project)
        for _ in range(3):
            judged_pair(project, [1], by=[rater], of=prompt)
    lists = list(chunks(project, Selection(), size=2))
    pairs = [pair for some in lists for pair in some]
    assert [pair[:3] for pair in pairs] == sorted(pair[:3] for pair in pairs)
    assert len(pairs) == 12
    homes = Counter(prompt for some in lists for prompt in {pair.prompt_id for pair in some})
    assert set(homes.values()) == {1}


VOTES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from([1, 0, -1])), max_size=25
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(votes=VOTES)
def test_the_count_is_that_of_a_counter_over_the_votes(votes: list[tuple[int, int, int]]) -> None:
    project = factories.project()
    people = raters(project, 4)
    tasks = [factories.pairwise_task(project) for _ in range(3)]
    expected: dict[int, Counter[int]] = {}
    last = {(task, rater): outcome for task, rater, outcome in votes}
    for (task, rater), outcome in last.items():
        vote(tasks[task], people[rater], outcome)
        expected.setdefault(tasks[task].prompt_id, Counter())[outcome] += 1
    counted = {
        pair.prompt_id: Counter({1: pair.wins_a, -1: pair.wins_b, 0: pair.ties})
        for pair in decided_pairs(project)
    }
    assert counted == expected


def test_texts_come_with_their_pairs() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    task = judged_pair(project, [1], by=[rater], texts=("yes “ok”", "no\n\n"))
    ((one,),) = with_texts(chunks(project, Selection()))
    assert (one.a.text, one.b.text) == ("yes “ok”", "no\n\n")
    assert one.prompt.messages == task.prompt.messages
    assert not one.is_repeat


def same_texts_twice(outcomes: tuple[list[int], list[int]]) -> Any:
    """One prompt; the same two texts by other generators, the second time the other way round."""
    project = factories.project()
    people = raters(project, 3)
    prompt = factories.prompt(project)
    texts = [("yes", "one"), ("no", "one"), ("no", "two"), ("yes", "two")]
    yes, no, no_too, yes_too = (
        factories.response(prompt, text, generator=generator) for text, generator in texts
    )
    for task, votes in (
        (task_of(prompt, yes, no), outcomes[0]),
        (task_of(prompt, no_too, yes_too), outcomes[1]),
    ):
        for rater, outcome in zip(people, votes, strict=False):
            vote(task, rater, outcome)
    return project


def test_pairs_of_the_same_texts_that_disagree_pool_their_votes() -> None:
    project = same_texts_twice(([1], [1, 1]))
    ((first, second),) = with_texts(chunks(project, Selection()))
    assert (first.pair.wins_a, first.pair.wins_b, first.pair.outcome) == (1, 2, "b")
    assert second.is_repeat
    assert [row["chosen"] for row in training_rows(project, "train")] == ["no"]


def test_pairs_of_the_same_texts_that_agree_stay_unless_asked_to_pool() -> None:
    project = same_texts_twice(([1], [-1, -1]))
    ((first, second),) = with_texts(chunks(project, Selection()))
    assert (first.pair.votes, second.pair.votes) == (1, 2)
    assert not second.is_repeat
    ((first, second),) = with_texts(chunks(project, Selection()), pool_repeats=True)
    assert (first.pair.wins_a, first.pair.wins_b) == (3, 0)
    assert second.is_repeat


def test_training_rows_keep_the_trainers_contract() -> None:
    project = factories.project()
    people = raters(project, 3)
    judged_pair(project, [1, 1, -1], by=people, texts=("good", "bad"))
    judged_pair(project, [-1, 0], by=people, texts=("bad", "good"))
    judged_pair(project, [0], by=people, texts=("this", "that"))
    judged_pair(project, [1, -1], by=people, texts=("left", "right"))
    prompt = factories.prompt(project)
    alike = [factories.response(prompt, "same", generator=name) for name in ("x", "y")]
    vote(task_of(prompt, *alike), people[0], 1)
    judged_pair(project, [-1], by=people, of=factories.prompt(project, split="test"))
    rows = list(training_rows(project, "train"))
    assert [(row["chosen"], row["rejected"], round(row["p"], 3)) for row in rows] == [
        ("good", "bad", 0.667)
    ]
    rows = list(training_rows(project, "train", keep_ties=True))
    assert [(row["chosen"], round(row["p"], 3), row["strength"]) for row in rows] == [
        ("good", 0.667, 1),
        ("bad", 0.5, 0),
        ("this", 0.5, 0),
        ("left", 0.5, 0),
    ]
    for row in rows:
        assert parse_pair(row).prompt == row["prompt"]
        assert Preference.objects.get(pk=row["pair_id"]).prompt_id == row["prompt_id"]


def test_pairs_nobody_voted_on_are_counted_once() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    prompt = factories.prompt(project)
    one, other, third = (factories.response(prompt) for _ in range(3))
    vote(task_of(prompt, one, other), rater, 1)
    task_of(prompt, other, one)  # the same pair again: voted on
    task_of(prompt, one, third)
    task_of(prompt, third, one)
    assert count_unvoted(project, EVERY_SPLIT) == {"train": 1}
    assert count_unvoted(project, ["test"]) == {}
    ranking = task_of(factories.prompt(project), third, other)
    ranking.response_ids = [one.pk, other.pk, third.pk]
    ranking.save()
    assert count_unvoted(project, EVERY_SPLIT) == {"train": 1 + 3}


def test_pairs_that_a_verdict_says_nothing_of_are_counted() -> None:
    project = factories.project()
    prompt = factories.prompt(project)
    checked = task_of(prompt, factories.response(prompt), factories.response(prompt))
    # Both answers pass the same share of a checklist: a judgment, and no vote.
    checked.kind, checked.judged = "checklist", 1
    checked.save()
    assert count_unvoted(project, EVERY_SPLIT) == {"train": 1}
