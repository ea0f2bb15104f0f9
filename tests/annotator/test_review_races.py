"""Reviewers, raters and each other at the same moment: what is in force is always one thing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from django.db import connection

from annotator.errors import Conflict
from annotator.kinds.verdict import Verdict
from annotator.models import Assignment, Judgment, Preference, Project, Rater, Role, Task
from annotator.queries.pairs import decided_pairs
from annotator.services import adjudication, judgments, queue, review
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)
ROUNDS = 12


def at_once(*doings: Callable[[], object]) -> None:
    """Do all of it at the same moment, each on its own connection; the first error is raised."""
    start = threading.Barrier(len(doings))
    failures: list[BaseException] = []

    def run(do: Callable[[], object]) -> None:
        try:
            start.wait(30)
            do()
        except BaseException as error:  # noqa: BLE001 - raised below, whatever it is
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(do,)) for do in doings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


def submit(rater: Rater, assignment_id: int, ranks: list[int]) -> Callable[[], object]:
    return lambda: judgments.submit(
        assignment_id=assignment_id,
        rater=rater,
        options=rater.project.options,
        verdict=lambda *_: Verdict(ranks=ranks, strength=1),
    )


def decide(task: Task, rater: Rater, verdict: str) -> Callable[[], object]:
    return lambda: adjudication.decide(
        task=task, rater=rater, answers={"verdict": verdict}, options=rater.project.options
    )


def assert_only_the_decision_counts(project: Project) -> None:
    for task in Task.objects.filter(project=project, is_settled=True):
        in_force = Judgment.objects.get(task=task, kind="adjudication", is_current=True)
        (edge,) = Preference.objects.filter(task=task, is_overruled=False)
        assert edge.judgment_id == in_force.pk


def test_vote_submitted_while_its_task_is_decided_is_overruled() -> None:
    project = factories.project(settings={"overlap": 2})
    reviewer = factories.rater(project, Role.REVIEWER)
    raters = [factories.rater(project) for _ in range(2)]
    for task in [factories.pairwise_task(project) for _ in range(ROUNDS)]:
        leases = [queue.claim_next(project=project, rater=rater) for rater in raters]
        at_once(
            *(
                submit(rater, lease.assignment_id, [1, 2])
                for rater, lease in zip(raters, leases, strict=True)
            ),
            decide(task, reviewer, "b1"),
        )
        task.refresh_from_db()
        assert (task.judged, task.free, task.is_settled) == (2, 0, True)
    assert_only_the_decision_counts(project)
    assert {pair.outcome for pair in decided_pairs(project)} == {"b"}


def test_two_reviewers_deciding_at_once_leave_one_decision() -> None:
    project = factories.project()
    reviewers = [factories.rater(project, Role.REVIEWER) for _ in range(2)]
    voter = factories.rater(project)
    for _ in range(ROUNDS):
        task = factories.pairwise_task(project)
        factories.judgment(voter, task, "tie")
        at_once(decide(task, reviewers[0], "a1"), decide(task, reviewers[1], "b1"))
        assert Judgment.objects.filter(task=task, kind="adjudication").count() == 2
    assert_only_the_decision_counts(project)


def test_sending_back_while_the_rater_corrects_and_another_decides() -> None:
    project = factories.project()
    reviewers = [factories.rater(project, Role.REVIEWER) for _ in range(2)]
    voter = factories.rater(project)
    for _ in range(ROUNDS):
        task = factories.pairwise_task(project)
        factories.judgment(voter, task, "a1")
        held = Assignment.objects.get(task=task, rater=voter)

        def reopen(pk: int = held.pk) -> None:
            with suppress(Conflict):  # the reviewer was first: it is open already
                judgments.reopen(assignment_id=pk, rater=voter, options=project.options)

        def send(task: Task = task) -> None:
            adjudication.send_back(
                task=task,
                rater_ids=[voter.pk],
                note="Again, please.",
                by=reviewers[0].user,
                options=project.options,
            )

        at_once(reopen, send, decide(task, reviewers[1], "b1"))
        held.refresh_from_db()
        assert (held.state, held.sent_back_note) == ("leased", "Again, please.")
        assert not Judgment.objects.filter(task=task, kind="vote", is_current=True).exists()
        assert Judgment.objects.filter(task=task, kind="withdrawal").count() == 1
        task.refresh_from_db()
        assert (task.judged, task.free) == (0, 0), "the place stays the rater's"
        submit(voter, held.pk, [1, 2])()
    assert_only_the_decision_counts(project)


def test_refreshing_twice_at_once_opens_each_item_once() -> None:
    project = factories.project()
    tasks = [factories.pairwise_task(project) for _ in range(3)]
    for task in tasks:
        review.flag(task=task)
    at_once(
        *(lambda: review.refresh(project.pk) for _ in range(3)),
        *(lambda task=task: review.flag(task=task) for task in tasks),
    )
    assert review.refresh(project.pk) == review.Refreshed(opened=0, closed=0)
    assert {item.detail["flags"] for item in review.ReviewItem.objects.all()} == {2}
