"""The queue: exact overlap, no task twice to one rater, leases that come back by themselves."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.errors import Conflict, NotFound
from annotator.kinds.base import kind
from annotator.kinds.pairwise import pairwise_verdict
from annotator.kinds.verdict import Verdict, edges_of_ranks
from annotator.models import Assignment, Judgment, Preference, ProjectSettings, Rater, Task
from annotator.services import judgments, queue
from tests import factories

A_BETTER = Verdict(ranks=[1, 2], strength=1)


def claim(rater: Rater) -> queue.Lease | None:
    return queue.claim_next(project=rater.project, rater=rater)


def submit(rater: Rater, lease: queue.Lease, verdict: Verdict = A_BETTER) -> judgments.Submitted:
    return judgments.submit(
        assignment_id=lease.assignment_id,
        rater=rater,
        options=rater.project.options,
        verdict=lambda *_: verdict,
    )


def expire(lease: queue.Lease) -> None:
    # An hour, because now() in PostgreSQL is when the test's transaction began.
    Assignment.objects.filter(pk=lease.assignment_id).update(
        expires_at=timezone.now() - timedelta(hours=1)
    )


def assert_counters_are_true(project_id: int) -> None:
    """``free`` and ``judged`` equal what the rows say, for every task."""
    for task in Task.objects.filter(project_id=project_id):
        counted = Judgment.objects.filter(task=task, is_current=True, is_counted=True).count()
        held = Assignment.objects.filter(task=task, state="leased").count()
        assert task.judged == counted
        assert task.free == task.overlap - counted - held


@pytest.mark.django_db
def test_claim_returns_the_task_already_held() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    factories.pairwise_task(project)
    rater = factories.rater(project)
    first = claim(rater)
    again = claim(rater)
    assert first is not None
    assert again == first


@pytest.mark.django_db
def test_archived_project_hands_nothing_out() -> None:
    project = factories.project(archived_at=timezone.now())
    factories.pairwise_task(project)
    assert claim(factories.rater(project)) is None


@pytest.mark.django_db
def test_claim_hands_out_by_priority_then_position() -> None:
    project = factories.project()
    late = factories.pairwise_task(project, position=9)
    early = factories.pairwise_task(project, position=1)
    urgent = factories.pairwise_task(project, position=20, priority=5)
    rater = factories.rater(project)
    order = []
    while lease := claim(rater):
        order.append(lease.task_id)
        submit(rater, lease)
    assert order == [urgent.pk, early.pk, late.pk]


@pytest.mark.django_db
def test_claim_never_exceeds_the_overlap() -> None:
    project = factories.project(settings={"overlap": 2})
    task = factories.pairwise_task(project)
    people = [factories.rater(project) for _ in range(4)]
    leases = [claim(person) for person in people]
    assert [lease is not None for lease in leases] == [True, True, False, False]
    for person, lease in zip(people[:2], leases[:2], strict=True):
        submit(person, lease)
    assert [claim(person) for person in people] == [None] * 4
    task.refresh_from_db()
    assert (task.judged, task.free) == (2, 0)


@pytest.mark.django_db
def test_expired_lease_goes_back_and_keeps_the_draft_and_the_sides() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    slow, quick = factories.rater(project), factories.rater(project)
    lease = claim(slow)
    judgments.save_draft(
        assignment_id=lease.assignment_id, rater=slow, draft={"why": "half a"}, lease_minutes=30
    )
    expire(lease)
    taken = claim(quick)
    assert taken.task_id == lease.task_id
    judgments.skip(assignment_id=taken.assignment_id, rater=quick, reason="")
    back = claim(slow)
    assert back.assignment_id == lease.assignment_id
    assert Assignment.objects.get(pk=back.assignment_id).draft == {"why": "half a"}
    assert back.shown_order == lease.shown_order


@pytest.mark.django_db
def test_two_leases_of_one_task_that_run_out_together_free_two_places() -> None:
    project = factories.project(settings={"overlap": 2})
    task = factories.pairwise_task(project)
    for lease in [claim(factories.rater(project)) for _ in range(2)]:
        expire(lease)
    assert queue.sweep_expired(project_id=project.pk) == 2
    task.refresh_from_db()
    assert task.free == 2


@pytest.mark.django_db
def test_late_submit_takes_a_free_place_else_is_kept_as_an_extra() -> None:
    project = factories.project()
    task = factories.pairwise_task(project)
    slow, quick = factories.rater(project), factories.rater(project)
    lease = claim(slow)
    expire(lease)
    other = claim(quick)
    assert not submit(slow, lease).is_counted
    assert submit(quick, other).is_counted
    assert_counters_are_true(project.pk)
    assert Preference.objects.filter(task=task).count() == 2
    second = factories.pairwise_task(project)
    lease = claim(slow)
    assert lease.task_id == second.pk
    expire(lease)
    queue.sweep_expired(project_id=project.pk)
    assert submit(slow, lease).is_counted
    assert_counters_are_true(project.pk)


@pytest.mark.django_db
def test_double_press_records_one_judgment() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    rater = factories.rater(project)
    lease = claim(rater)
    first = submit(rater, lease)
    second = submit(rater, lease)
    assert second.was_repeat
    assert second.judgment_id == first.judgment_id
    assert Judgment.objects.get().ranks == [1, 2]


@pytest.mark.django_db
def test_another_verdict_on_a_judged_task_is_refused() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    rater = factories.rater(project)
    lease = claim(rater)
    submit(rater, lease)
    with pytest.raises(Conflict):
        submit(rater, lease, Verdict(ranks=[2, 1], strength=2))
    assert Judgment.objects.get().ranks == [1, 2]


@pytest.mark.django_db
def test_submit_refuses_another_raters_assignment() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    owner, thief = factories.rater(project), factories.rater(project)
    lease = claim(owner)
    with pytest.raises(NotFound):
        submit(thief, lease)
    assert not Judgment.objects.exists()


@pytest.mark.django_db
def test_skip_frees_the_place_for_others_only() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    picky, other = factories.rater(project), factories.rater(project)
    judgments.skip(assignment_id=claim(picky).assignment_id, rater=picky, reason="I cannot tell")
    assert claim(picky) is None
    assert claim(other) is not None
    assert_counters_are_true(project.pk)


@pytest.mark.django_db
def test_undo_reopens_with_answers_and_adds_to_the_history() -> None:
    project = factories.project()
    task = factories.pairwise_task(project)
    rater, other = factories.rater(project), factories.rater(project)
    lease = claim(rater)
    submit(rater, lease, Verdict(ranks=[2, 1], strength=2, rationale="B is right"))
    reopened = judgments.undo(rater=rater, options=ProjectSettings())
    assert reopened.draft["why"] == "B is right"
    best = "ab"[lease.shown_order.index(1)]
    assert reopened.draft["verdict"] == f"{best}2"
    assert not Preference.objects.filter(task=task).exists()
    assert claim(other) is None, "the place stays the rater's"
    assert_counters_are_true(project.pk)
    submit(rater, lease)
    kinds = Judgment.objects.order_by("revision").values_list("kind", "is_current")
    assert list(kinds) == [("vote", False), ("withdrawal", False), ("vote", True)]
    assert Preference.objects.get(task=task).outcome == 1
    rater.refresh_from_db()
    assert rater.judged == 1


@pytest.mark.django_db
def test_undo_of_a_skip_brings_the_task_back() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    rater = factories.rater(project)
    lease = claim(rater)
    judgments.skip(assignment_id=lease.assignment_id, rater=rater, reason="broken")
    assert judgments.undo(rater=rater, options=ProjectSettings()).pk == lease.assignment_id
    assert_counters_are_true(project.pk)
    with pytest.raises(NotFound, match="nothing to undo"):
        judgments.undo(rater=rater, options=ProjectSettings())


@pytest.mark.django_db
def test_reopen_refuses_what_is_open() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    rater = factories.rater(project)
    lease = claim(rater)
    with pytest.raises(Conflict):
        judgments.reopen(assignment_id=lease.assignment_id, rater=rater, options=ProjectSettings())


@pytest.mark.django_db
def test_mark_moves_back_for_a_place_that_is_free_again() -> None:
    """A rater far past a task still gets it when its lease runs out elsewhere."""
    project = factories.project()
    first = factories.pairwise_task(project)
    for _ in range(queue.CLAIMS_PER_MARK + 5):
        factories.pairwise_task(project)
    slow, quick = factories.rater(project), factories.rater(project)
    held = claim(slow)
    assert held.task_id == first.pk
    for _ in range(queue.CLAIMS_PER_MARK + 2):
        submit(quick, claim(quick))
    quick.refresh_from_db()
    assert quick.mark_task_id is not None
    expire(held)
    assert claim(quick).task_id == first.pk


@pytest.mark.django_db
def test_new_tasks_are_seen_by_raters_who_were_at_the_end() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    rater = factories.rater(project)
    submit(rater, claim(rater))
    assert claim(rater) is None
    new = factories.pairwise_task(project, position=0)
    queue.reset_marks(project_id=project.pk)
    assert claim(rater).task_id == new.pk


@pytest.mark.django_db
def test_set_overlap_opens_places_and_keeps_judgments() -> None:
    project = factories.project()
    task = factories.pairwise_task(project)
    first, second = factories.rater(project), factories.rater(project)
    submit(first, claim(first))
    assert claim(second) is None
    assert queue.set_overlap(project_id=project.pk, overlap=2) == 1
    submit(second, claim(second))
    queue.set_overlap(project_id=project.pk, overlap=1)
    task.refresh_from_db()
    assert (task.judged, task.free) == (2, -1)


@pytest.mark.django_db
def test_claim_walks_no_further_for_a_rater_far_ahead(
    django_assert_max_num_queries: Callable,
) -> None:
    """With overlap, tasks already had stay open; the mark keeps the walk short."""
    project = factories.project(settings={"overlap": 2})
    total = 3 * queue.CLAIMS_PER_MARK
    for _ in range(total):
        factories.pairwise_task(project)
    rater = factories.rater(project)
    for _ in range(total - 1):
        submit(rater, claim(rater))
    rater.refresh_from_db()
    first_open = Task.objects.filter(project=project).order_by("position").first()
    assert rater.mark_position > first_open.position + queue.CLAIMS_PER_MARK
    with django_assert_max_num_queries(10):
        assert claim(rater) is not None


@settings(max_examples=60, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 4), min_size=2, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_edges_are_antisymmetric_under_reordering(ranks: list[int], seed: int) -> None:
    order = random.Random(seed).sample(range(len(ranks)), len(ranks))
    ranks = [sorted(set(ranks)).index(rank) + 1 for rank in ranks]
    plain = {(e.a, e.b): (e.outcome, e.strength) for e in edges_of_ranks(ranks, strength=1)}
    moved = edges_of_ranks([ranks[i] for i in order], strength=1)
    assert len(moved) == len(plain)
    for edge in moved:
        a, b = order[edge.a], order[edge.b]
        expected = plain.get((a, b)) or (-plain[(b, a)][0], plain[(b, a)][1])
        assert (edge.outcome, edge.strength) == expected


@pytest.mark.parametrize("shown_order", [[0, 1], [1, 0]])
@pytest.mark.parametrize("choice", ["a2", "a1", "tie", "b1", "b2"])
def test_scale_and_verdict_are_inverse(choice: str, shown_order: list[int]) -> None:
    options = ProjectSettings()
    verdict = pairwise_verdict(choice=choice, shown_order=shown_order)
    verdict.check(responses=2)
    shown = kind("pairwise").show(verdict, options=options, shown_order=shown_order)
    assert shown == {"verdict": choice}
    mirrored = pairwise_verdict(choice=choice, shown_order=shown_order[::-1])
    if choice != "tie":
        assert mirrored.ranks == verdict.ranks[::-1]


@pytest.mark.django_db
def test_sides_are_balanced() -> None:
    project = factories.project()
    for _ in range(120):
        factories.pairwise_task(project)
    rater = factories.rater(project)
    sides: Counter[int] = Counter()
    while lease := claim(rater):
        sides[lease.shown_order[0]] += 1
        submit(rater, lease)
    # 120 fair coins: outside 35..85 once in more than 100,000 runs.
    assert 35 <= sides[0] <= 85


@pytest.mark.django_db(transaction=True)
def test_overlap_is_exact_with_raters_at_once() -> None:
    """Threads claim, submit, skip, undo and let leases run out; no place is lost or doubled."""
    project = factories.project(settings={"overlap": 3})
    for _ in range(25):
        factories.pairwise_task(project)
    people = [factories.rater(project) for _ in range(8)]
    failures: list[BaseException] = []

    def live(rater: Rater, seed: int) -> None:
        dice = random.Random(seed)
        undone = 0
        try:
            while lease := claim(rater):
                throw = dice.random()
                if throw < 0.1:
                    expire(lease)
                elif throw < 0.15 and undone < 10:
                    undone += 1
                    submit(rater, lease)
                    judgments.undo(rater=rater, options=ProjectSettings())
                else:
                    submit(rater, lease)
        except BaseException as error:  # noqa: BLE001 - shown by the test, whatever it is
            failures.append(error)
        finally:
            connection.close()

    threads = [
        threading.Thread(target=live, args=(person, number)) for number, person in enumerate(people)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[0]
    for person in people:  # leases that ran out last
        while lease := claim(person):
            submit(person, lease)
    assert_counters_are_true(project.pk)
    for task in Task.objects.filter(project=project):
        raters_of = Judgment.objects.filter(task=task, is_current=True, is_counted=True)
        assert raters_of.count() == 3
        assert raters_of.values("rater").distinct().count() == 3
    assert not Assignment.objects.filter(project=project, state="leased").exists()
