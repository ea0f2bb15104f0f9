"""Review: what opens an item, what a decision changes, sending back; and all of it at once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from annotator.errors import Conflict, Invalid
from annotator.kinds.base import Unfit
from annotator.kinds.verdict import Verdict
from annotator.models import (
    Assignment,
    AuditEvent,
    Consensus,
    Judgment,
    Preference,
    Project,
    Rater,
    ReviewItem,
    Role,
    Run,
    Task,
)
from annotator.queries import review as queries
from annotator.queries.pair_texts import training_rows
from annotator.queries.pairs import Selection, decided_pairs, rater_ids
from annotator.queries.training import test_votes as votes_on_test
from annotator.services import adjudication, comments, import_undo, judgments, queue, review
from tests import factories

pytestmark = pytest.mark.django_db


def consensus(on: Task, **fields: Any) -> Consensus:
    values = {"aggregator": "majority", "ranks": [1, 2], "posterior": 0.95, "votes": 3,
              "agreement": 1.0, "computed_at": timezone.now()}  # fmt: skip
    return Consensus.objects.create(task=on, project=on.project, **(values | fields))


def open_items(project: Project) -> set[tuple[int, str]]:
    rows = ReviewItem.objects.filter(project=project, closed_at__isnull=True)
    return set(rows.values_list("task_id", "reason"))


def decide(task: Task, by: Rater, verdict: str = "b1", **more: Any) -> adjudication.Decided:
    answers = {"verdict": verdict, "why": more.pop("why", "")}
    options = task.project.options
    return adjudication.decide(task=task, rater=by, answers=answers, options=options, **more)


def split_task(project: Project, *, split: str = "train") -> tuple[Task, list[Rater]]:
    """Two people who say A, one who says B."""
    task = factories.pairwise_task(
        project, texts=("yes", "no"), of=factories.prompt(project, split=split), overlap=3
    )
    people = [factories.rater(project) for _ in range(3)]
    for person, choice in zip(people, ("a1", "a2", "b1"), strict=True):
        factories.judgment(person, task, choice)
    task.refresh_from_db()
    return task, people


# Items ----------------------------------------------------------------------------------------


def test_refresh_opens_what_is_doubtful_and_nothing_else() -> None:
    project = factories.project()
    split, doubtful, sure, single, unfinished, gold = (
        factories.pairwise_task(project, judged=2, overlap=2) for _ in range(6)
    )
    consensus(split, agreement=0.2, posterior=0.5)
    consensus(doubtful, agreement=0.9, posterior=0.6)
    consensus(sure)
    consensus(single, agreement=None, votes=1)
    Task.objects.filter(pk=unfinished.pk).update(judged=1)
    consensus(unfinished, agreement=0.0, posterior=0.5, votes=2)
    Task.objects.filter(pk=gold.pk).update(is_gold=True)
    consensus(gold, agreement=0.0, posterior=0.5)
    assert review.refresh(project.pk) == review.Refreshed(opened=2, closed=0)
    assert open_items(project) == {(split.pk, "disagreement"), (doubtful.pk, "low-posterior")}
    assert review.refresh(project.pk) == review.Refreshed(opened=0, closed=0), "twice is once"


def test_refresh_leaves_other_projects_alone() -> None:
    project, other = factories.project(), factories.project()
    consensus(factories.pairwise_task(other, judged=1), agreement=0.0)
    theirs = ReviewItem.objects.create(
        project=other, task=factories.pairwise_task(other), reason="disagreement"
    )
    review.refresh(project.pk)
    theirs.refresh_from_db()
    assert theirs.closed_at is None
    assert ReviewItem.objects.count() == 1


def test_item_closes_when_it_is_no_longer_true_but_a_flag_stays() -> None:
    project = factories.project()
    task = factories.pairwise_task(project, judged=1)
    found = consensus(task, agreement=0.0)
    review.flag(task=task)
    review.refresh(project.pk)
    assert open_items(project) == {(task.pk, "disagreement"), (task.pk, "flagged")}
    Consensus.objects.filter(pk=found.pk).update(agreement=1.0)
    assert review.refresh(project.pk).closed == 1
    assert open_items(project) == {(task.pk, "flagged")}
    assert ReviewItem.objects.get(reason="disagreement").decision == "resolved"


def test_severity_follows_the_newest_consensus() -> None:
    project = factories.project()
    task = factories.pairwise_task(project, judged=1)
    found = consensus(task, agreement=0.4)
    review.refresh(project.pk)
    Consensus.objects.filter(pk=found.pk).update(agreement=0.1)
    assert review.refresh(project.pk) == review.Refreshed(opened=0, closed=0)
    assert ReviewItem.objects.get().severity == pytest.approx(0.9)


def gold_task(project: Project, hits: dict[Rater, bool]) -> Task:
    task = factories.pairwise_task(project, overlap=len(hits) or 1)
    for rater, hit in hits.items():
        factories.judgment(rater, task, "a1", is_hit=hit)
    Task.objects.filter(pk=task.pk).update(is_gold=True, gold={"ranks": [1, 2], "strength": 1})
    return task


def test_gold_that_several_miss_is_looked_at() -> None:
    project = factories.project()
    one, two, three = (factories.rater(project) for _ in range(3))
    wrong = gold_task(project, {one: False, two: False, three: True})
    gold_task(project, {one: True, two: True, three: False})
    review.refresh(project.pk)
    assert open_items(project) == {(wrong.pk, "failed-gold")}
    assert ReviewItem.objects.get().detail == {"misses": 2, "votes": 3}


def test_rater_who_misses_most_golds_is_looked_at_once() -> None:
    project = factories.project()
    poor, good, away = (factories.rater(project) for _ in range(3))
    tasks = [gold_task(project, {poor: False, good: True}) for _ in range(3)]
    Rater.objects.filter(pk=away.pk).update(is_excluded=True)
    gold_task(project, {away: False})
    review.refresh(project.pk)
    assert open_items(project) == {(tasks[-1].pk, "failed-gold")}
    assert ReviewItem.objects.get().detail == {"raters": [[poor.pk, 3, 3]]}


def test_set_aside_stays_closed_until_somebody_says_something_new() -> None:
    project = factories.project()
    task, _ = split_task(project)
    consensus(task, agreement=1 / 3)
    review.refresh(project.pk)
    reviewer = factories.rater(project, Role.REVIEWER)
    assert adjudication.dismiss(task=task, by=reviewer.user) == 1
    assert review.refresh(project.pk).opened == 0
    factories.judgment(factories.rater(project), task, "b2")
    assert review.refresh(project.pk).opened == 1


def test_queue_has_each_task_once_the_worst_first() -> None:
    project = factories.project()
    mild, bad = (factories.pairwise_task(project, judged=1) for _ in range(2))
    consensus(mild, agreement=0.4)
    consensus(bad, agreement=0.1)
    review.refresh(project.pk)
    review.flag(task=mild)
    first = queries.first_item(project.pk, reason="")
    place = queries.place_of(ReviewItem.objects.get(pk=first), reason="")
    assert (place.item.task_id, place.item.reason) == (mild.pk, "flagged")
    assert (place.number, place.total, place.before) == (1, 2, None)
    second = queries.place_of(ReviewItem.objects.get(pk=place.after), reason="")
    assert (second.item.task_id, second.number, second.before) == (bad.pk, 2, first)
    assert second.after is None
    only = queries.place_of(second.item, reason="disagreement")
    assert (only.number, only.total) == (1, 2)
    assert queries.open_counts(project.pk) == {"flagged": 1, "disagreement": 2}


# Deciding -------------------------------------------------------------------------------------


def test_decision_wins_over_the_votes_and_leaves_them_in_force() -> None:
    project = factories.project()
    task, people = split_task(project)
    before = list(Judgment.objects.filter(is_current=True).order_by("pk").values())
    consensus(task, agreement=1 / 3)
    review.refresh(project.pk)
    reviewer = factories.rater(project, Role.REVIEWER)
    done = decide(task, reviewer, "b2", why="B is true.")
    (pair,) = decided_pairs(project)
    assert (pair.outcome, pair.votes, pair.strength) == ("b", 1, 2)
    assert [row["chosen"] for row in training_rows(project, "train")] == ["no"]
    votes = Judgment.objects.exclude(pk=done.judgment_id)
    assert list(votes.filter(is_current=True).order_by("pk").values()) == before
    assert Preference.objects.filter(is_overruled=True).count() == len(people)
    task.refresh_from_db()
    assert (task.is_settled, task.judged, task.free) == (True, 3, 0)
    assert open_items(project) == set()
    assert ReviewItem.objects.get().decided_by == reviewer.user
    event = AuditEvent.objects.get(verb="review.decided")
    assert event.data["judgment"] == done.judgment_id
    assert review.refresh(project.pk).opened == 0


def test_deciding_again_replaces_whoever_decided_first() -> None:
    project = factories.project()
    task, _ = split_task(project)
    first, second = (factories.rater(project, Role.REVIEWER) for _ in range(2))
    decide(task, first, "b2")
    decide(task, second, "tie")
    decide(task, second, "a1")
    in_force = Judgment.objects.get(kind="adjudication", is_current=True)
    assert (in_force.rater, in_force.revision, in_force.ranks) == (second, 2, [1, 2])
    assert Judgment.objects.filter(kind="adjudication").count() == 3
    (edge,) = Preference.objects.filter(is_overruled=False)
    assert (edge.judgment_id, edge.outcome) == (in_force.pk, 1)


def test_reviewer_who_voted_keeps_the_vote_and_can_correct_it() -> None:
    project = factories.project()
    task, _ = split_task(project)
    reviewer = factories.rater(project, Role.REVIEWER)
    factories.judgment(reviewer, task, "a1")
    decide(task, reviewer, "b1")
    history = Judgment.objects.filter(rater=reviewer).order_by("revision")
    assert [(one.kind, one.is_current) for one in history] == [
        ("vote", True),
        ("adjudication", True),
    ]
    held = Assignment.objects.get(task=task, rater=reviewer)
    judgments.reopen(assignment_id=held.pk, rater=reviewer, options=project.options)
    judgments.submit(
        assignment_id=held.pk,
        rater=reviewer,
        options=project.options,
        verdict=lambda *_: Verdict(ranks=[1, 1], strength=0),
    )
    assert [(one.kind, one.is_current, one.revision) for one in history.all()] == [
        ("vote", False, 1),
        ("adjudication", True, 2),
        ("withdrawal", False, 3),
        ("vote", True, 4),
    ]
    (pair,) = decided_pairs(project)
    assert pair.outcome == "b"


def test_late_vote_on_a_settled_task_is_overruled() -> None:
    project = factories.project()
    task, _ = split_task(project)
    decide(task, factories.rater(project, Role.REVIEWER), "b1")
    late = factories.judgment(factories.rater(project), task, "a2")
    assert late.preferences.get().is_overruled
    (pair,) = decided_pairs(project)
    assert (pair.outcome, pair.votes) == ("b", 1)


def test_vote_brought_by_an_import_is_overruled_by_the_next_refresh() -> None:
    project = factories.project()
    task, _ = split_task(project)
    decide(task, factories.rater(project, Role.REVIEWER), "b1")
    Preference.objects.filter(rater=Rater.objects.earliest("pk")).update(is_overruled=False)
    review.refresh(project.pk)
    assert [pair.votes for pair in decided_pairs(project)] == [1]


def test_taking_the_decision_back_puts_the_votes_in_force() -> None:
    project = factories.project()
    task, _ = split_task(project)
    consensus(task, agreement=1 / 3)
    review.refresh(project.pk)
    reviewer = factories.rater(project, Role.REVIEWER)
    decide(task, reviewer, "b1")
    adjudication.unsettle(task=task, by=reviewer.user)
    (pair,) = decided_pairs(project)
    assert (pair.outcome, pair.votes) == ("a", 3)
    assert not Judgment.objects.filter(kind="adjudication", is_current=True).exists()
    review.refresh(project.pk)
    assert open_items(project) == {(task.pk, "disagreement")}
    with pytest.raises(Conflict, match="Nobody has decided"):
        adjudication.unsettle(task=task, by=reviewer.user)


def test_unfit_decision_changes_nothing() -> None:
    project = factories.project()
    task, _ = split_task(project)
    with pytest.raises(Unfit):
        decide(task, factories.rater(project, Role.REVIEWER), "")
    task.refresh_from_db()
    assert not task.is_settled
    assert not Preference.objects.filter(is_overruled=True).exists()


def test_reviewer_may_call_a_tie_where_raters_may_not() -> None:
    project = factories.project(settings={"allow_tie": False})
    task, _ = split_task(project)
    done = decide(task, factories.rater(project, Role.REVIEWER), "tie", why="Equal.")
    assert Judgment.objects.get(pk=done.judgment_id).rationale == "Equal."


KIND_ANSWERS = {
    "ranking": ({"place-A": "2", "place-B": "1", "place-C": "3", "place-D": "0"}, [2, 1, 3, 0]),
    "best-worst": ({"best": "C", "worst": "A"}, [3, 2, 1, 2]),
}


@pytest.mark.parametrize("kind", sorted(KIND_ANSWERS))
def test_decision_on_other_kinds_writes_their_edges(kind: str) -> None:
    project = factories.project()
    task = factories.task_of(project, kind, 4)
    answers, ranks = KIND_ANSWERS[kind]
    done = adjudication.decide(
        task=task,
        rater=factories.rater(project, Role.REVIEWER),
        answers=answers,
        options=project.options,
    )
    judgment = Judgment.objects.get(pk=done.judgment_id)
    assert judgment.ranks == ranks
    assert judgment.preferences.filter(is_overruled=False).count() >= 3


def test_task_made_a_gold_leaves_training_and_scores_no_earlier_vote() -> None:
    project = factories.project()
    task, _ = split_task(project)
    decide(task, factories.rater(project, Role.REVIEWER), "b2", as_gold=True, why="Plainly B.")
    task.refresh_from_db()
    assert (task.is_gold, task.free) == (True, 0)
    assert task.gold == {
        "ranks": [2, 1], "strength": 2, "both_bad": False, "ratings": None, "note": "Plainly B.",
    }  # fmt: skip
    assert list(decided_pairs(project)) == []
    assert not Judgment.objects.filter(is_hit__isnull=False).exists()
    assert factories.judgment(factories.rater(project), task, "b1").is_hit is True


def test_correcting_a_gold_scores_its_raters_anew() -> None:
    project = factories.project()
    right, wrong = factories.rater(project), factories.rater(project)
    task = factories.pairwise_task(
        project, overlap=2, is_gold=True, gold={"ranks": [1, 2], "strength": 1}
    )
    factories.judgment(right, task, "b1")
    factories.judgment(wrong, task, "a1")
    hits = Judgment.objects.filter(kind="vote").order_by("pk")
    assert [one.is_hit for one in hits] == [False, True]
    decide(task, factories.rater(project, Role.REVIEWER), "b1")
    assert [one.is_hit for one in hits.all()] == [True, False]
    task.refresh_from_db()
    with pytest.raises(Conflict, match="is a gold"):
        adjudication.unsettle(task=task, by=factories.member(project, Role.REVIEWER))


# Readers --------------------------------------------------------------------------------------


def test_raters_left_out_count_in_no_selection() -> None:
    project = factories.project()
    _, people = split_task(project)
    Rater.objects.filter(pk__in=[people[0].pk, people[1].pk]).update(is_excluded=True)
    (pair,) = decided_pairs(project)
    assert (pair.outcome, pair.votes) == ("b", 1)
    named = Selection(raters="named", names=(people[0].name, people[2].name))
    assert rater_ids(project, named) == [people[2].pk]
    assert rater_ids(project, Selection(raters="people")) == [people[2].pk]


def test_ceiling_is_of_what_people_said_by_themselves() -> None:
    project = factories.project()
    task, _ = split_task(project, split="test")
    reviewer = factories.rater(project, Role.REVIEWER)
    decide(task, reviewer, "b1")
    votes = votes_on_test(project, connection=connection.connection)
    assert sorted(votes.outcome.tolist()) == [-1, 1, 1]


# Sending back ---------------------------------------------------------------------------------


def send(task: Task, raters: list[Rater], note: str = "Read the question again.") -> int:
    return adjudication.send_back(
        task=task,
        rater_ids=[one.pk for one in raters],
        note=note,
        by=factories.member(task.project, Role.REVIEWER),
        options=task.project.options,
    )


def test_sent_back_task_is_first_on_the_desk_and_its_place_is_kept() -> None:
    project = factories.project()
    task, people = split_task(project)
    other = factories.pairwise_task(project)
    assert send(task, people[:2]) == 2
    task.refresh_from_db()
    assert (task.judged, task.free) == (1, 0)
    assert [pair.votes for pair in decided_pairs(project)] == [1]
    held = Assignment.objects.get(task=task, rater=people[0])
    assert held.sent_back_note == "Read the question again."
    assert held.expires_at > timezone.now() + timedelta(days=13)
    assert held.draft["verdict"] == "a1"
    assert queue.claim_next(project=project, rater=people[0]).task_id == task.pk
    stranger = factories.rater(project)
    assert queue.claim_next(project=project, rater=stranger).task_id == other.pk
    judgments.submit(
        assignment_id=held.pk,
        rater=people[0],
        options=project.options,
        verdict=lambda *_: Verdict(ranks=[2, 1], strength=1),
    )
    held.refresh_from_db()
    task.refresh_from_db()
    assert (held.sent_back_at, held.sent_back_note) == (None, "")
    assert (task.judged, task.free) == (2, 0)
    assert AuditEvent.objects.get(verb="review.sent-back").data["raters"] == sorted(
        one.pk for one in people[:2]
    )


def test_sent_back_item_opens_again_only_after_an_answer() -> None:
    project = factories.project()
    task, people = split_task(project)
    consensus(task, agreement=1 / 3)
    review.refresh(project.pk)
    send(task, people[2:])
    assert open_items(project) == set()
    Task.objects.filter(pk=task.pk).update(judged=3)
    assert review.refresh(project.pk).opened == 0


def test_sending_back_needs_a_note_and_somebody_with_a_verdict() -> None:
    project = factories.project()
    task, people = split_task(project)
    with pytest.raises(Invalid, match="Say why"):
        send(task, people[:1], note=" \0 ")
    with pytest.raises(Invalid, match="Choose whose"):
        send(task, [])
    with pytest.raises(Invalid, match="under 2,000"):
        send(task, people[:1], note="x" * 2001)
    with pytest.raises(Conflict, match="no verdict here"):
        send(task, [factories.rater(project)])
    assert Judgment.objects.filter(is_current=True).count() == 3


def test_sending_back_what_is_being_corrected_adds_the_note_and_keeps_the_draft() -> None:
    project = factories.project()
    task, people = split_task(project)
    held = Assignment.objects.get(task=task, rater=people[0])
    judgments.reopen(assignment_id=held.pk, rater=people[0], options=project.options)
    Assignment.objects.filter(pk=held.pk).update(draft={"why": "half a thought"})
    send(task, people[:1])
    held.refresh_from_db()
    assert held.draft == {"why": "half a thought"}
    assert held.sent_back_note
    assert Judgment.objects.filter(rater=people[0], kind="withdrawal").count() == 1


def test_undoing_an_import_takes_what_was_computed_and_keeps_what_people_said() -> None:
    project = factories.project()
    run = Run.objects.create(project=project, kind=Run.Kind.IMPORT, title="Import", state="done")
    gone, remarked, settled = (
        factories.pairwise_task(project, import_run_id=run.pk, judged=1) for _ in range(3)
    )
    for task in (gone, remarked, settled):
        consensus(task, agreement=0.0)
    review.refresh(project.pk)
    reviewer = factories.rater(project, Role.REVIEWER)
    comments.comment(task=remarked, by=reviewer.user, text="Odd one.")
    decide(settled, reviewer, "a1")
    assert import_undo.undo(run=run, by=reviewer.user)["tasks"] == 1
    assert set(Task.objects.values_list("pk", flat=True)) == {remarked.pk, settled.pk}
    assert not ReviewItem.objects.filter(task_id=gone.pk).exists()
    assert not Consensus.objects.filter(task_id=gone.pk).exists()


def test_reviewer_who_gives_places_is_not_asked_about_the_order() -> None:
    project = factories.project()
    task = factories.ranking_task(project, k=3)
    reviewer = factories.rater(project, Role.REVIEWER)
    options = project.options
    with pytest.raises(Unfit):
        adjudication.decide(task=task, rater=reviewer, answers={}, options=options)
    places = {"place-A": "1", "place-B": "2", "place-C": "3"}
    adjudication.decide(task=task, rater=reviewer, answers=places, options=options)
    assert Judgment.objects.get(task=task).ranks == [1, 2, 3]
