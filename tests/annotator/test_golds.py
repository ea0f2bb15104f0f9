"""Golds among ordinary tasks, and the set that qualifies for real work."""

from __future__ import annotations

import math
import random

import pytest
from django.test import Client
from django.utils import timezone

from annotator.models import (
    Assignment,
    Judgment,
    Preference,
    Project,
    Rater,
    Role,
    Task,
)
from annotator.services import judgments, qualification, queue, tasks
from tests import factories
from tests.annotator.test_api import caller
from tests.annotator.test_queue import expire

pytestmark = pytest.mark.django_db
GOLD = {"ranks": [1, 2], "strength": 1, "both_bad": False, "ratings": None}


def gold(project: Project, **fields: object) -> Task:
    task = factories.pairwise_task(project, gold=GOLD, is_gold=True, **fields)
    Task.objects.filter(pk=task.pk).update(free=0)
    return task


def answer(rater: Rater, lease: queue.Lease, *, right: bool = True) -> None:
    best = lease.shown_order.index(0 if right else 1)
    judgments.answer(
        assignment_id=lease.assignment_id,
        rater=rater,
        answers={"verdict": f"{'ab'[best]}1"},
        options=rater.project.options,
    )


def claim(rater: Rater) -> queue.Claim:
    return queue.claim(project=rater.project, rater=rater)


def drain(rater: Rater) -> list[int]:
    had = []
    while lease := claim(rater).lease:
        had.append(lease.task_id)
        answer(rater, lease)
    return had


def test_golds_come_at_their_rate_once_each_and_are_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dice = random.Random(7)
    monkeypatch.setattr(queue.secrets, "randbits", dice.getrandbits)
    project = factories.project(settings={"gold_rate": 0.3})
    ordinary = [factories.pairwise_task(project).pk for _ in range(150)]
    golds = [gold(project).pk for _ in range(150)]
    rater = factories.rater(project)
    had = drain(rater)
    assert sorted(pk for pk in had if pk in ordinary) == ordinary, "no work is left behind"
    given = [pk for pk in had if pk in golds]
    assert len(set(given)) == len(given), "each at most once"
    expected, spread = 0.3 * len(had), math.sqrt(0.3 * 0.7 * len(had))
    assert abs(len(given) - expected) < 4 * spread
    assert given != sorted(given), "in no order to be learned"
    hits = Judgment.objects.filter(rater=rater, task_id__in=golds)
    assert set(hits.values_list("is_hit", "is_counted")) == {(True, True)}
    rater.refresh_from_db()
    assert rater.judged == len(had), "a gold counts in one's own progress like any task"
    assert set(Task.objects.filter(pk__in=golds).values_list("free", flat=True)) == {0}


def test_golds_alone_keep_nobody_busy() -> None:
    project = factories.project(settings={"gold_rate": 0.5})
    gold(project)
    assert claim(factories.rater(project)).withheld.key == "nothing_left"


def test_each_rater_meets_golds_in_an_order_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(3)
    monkeypatch.setattr(queue.secrets, "randbits", dice.getrandbits)
    project = factories.project(settings={"gold_rate": 0.5, "overlap": 4})
    for _ in range(30):
        factories.pairwise_task(project)
    golds = {gold(project).pk for _ in range(30)}
    first = {next(pk for pk in drain(factories.rater(project)) if pk in golds) for _ in range(4)}
    assert len(first) > 1


def test_gold_is_not_given_to_whoever_had_it_as_an_ordinary_task() -> None:
    project = factories.project(settings={"gold_rate": 0.5, "overlap": 2})
    task = factories.pairwise_task(project, gold=GOLD)
    rater = factories.rater(project)
    answer(rater, claim(rater).lease)
    tasks.change(project=project, task_ids=[task.pk], change=tasks.Change("gold"), by=None)
    for _ in range(30):
        factories.pairwise_task(project)
    queue.reset_marks(project_id=project.pk)
    assert task.pk not in drain(rater)
    assert Judgment.objects.get(task=task, rater=rater).is_hit is None, "not scored in hindsight"


def always_gold(project: Project) -> tuple[Task, Rater]:
    """A project where the first claim is a gold."""
    Project.objects.filter(pk=project.pk).update(settings={**project.settings, "gold_rate": 0.5})
    task = gold(project)
    for _ in range(3):
        factories.pairwise_task(project)
    return task, factories.rater(Project.objects.get(pk=project.pk))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue.secrets, "randbits", lambda bits: 2**40)


@pytest.mark.usefixtures("drawn")
def test_gold_is_skipped_undone_and_late_like_any_task() -> None:
    task, rater = always_gold(factories.project())
    lease = claim(rater).lease
    assert lease.task_id == task.pk
    assert claim(rater).lease == lease, "held like any task"
    judgments.skip(assignment_id=lease.assignment_id, rater=rater, reason="")
    back = judgments.undo(rater=rater, options=rater.project.options)
    assert (back.pk, back.state) == (lease.assignment_id, "leased")
    expire(lease)
    again = claim(rater).lease
    assert again.task_id == task.pk, "what ran out comes back"
    assert again.shown_order == lease.shown_order
    expire(lease)
    queue.sweep_expired(project_id=rater.project_id)
    done = judgments.answer(
        assignment_id=lease.assignment_id,
        rater=rater,
        answers={"verdict": "tie"},
        options=rater.project.options,
    )
    assert done.is_counted, "a late gold is not told apart by an apology"
    task.refresh_from_db()
    assert (task.free, task.judged) == (0, 1)
    judgments.undo(rater=rater, options=rater.project.options)
    task.refresh_from_db()
    assert (task.free, task.judged) == (0, 0)


@pytest.mark.usefixtures("drawn")
def test_page_of_a_gold_differs_from_any_other_only_in_its_texts() -> None:
    project = factories.project("plain")
    _, rater = always_gold(project)
    client = Client()
    client.force_login(rater.user)
    page = client.get("/p/plain/annotate/").content.decode()
    assert Assignment.objects.get().task.is_gold
    assert "gold" not in page.lower()
    status, asked = caller(rater.user)("POST", "/projects/plain/tasks/claim")
    assert status == 200
    assert "gold" not in str(asked)


def test_made_an_ordinary_task_again_it_has_the_places_that_are_left() -> None:
    project = factories.project(settings={"overlap": 3})
    task = factories.pairwise_task(project)
    one, other, third = (factories.rater(project) for _ in range(3))
    for rater in (one, other):
        answer(rater, claim(rater).lease)
    held = claim(third).lease
    tasks.change(project=project, task_ids=[task.pk], change=tasks.Change("gold"), by=None)
    task.refresh_from_db()
    assert (task.is_gold, task.free, task.gold["ranks"]) == (True, 0, [1, 2])
    assert set(Preference.objects.values_list("is_gold", flat=True)) == {True}
    tasks.change(project=project, task_ids=[task.pk], change=tasks.Change("ordinary"), by=None)
    task.refresh_from_db()
    assert (task.is_gold, task.free) == (False, 0), "two verdicts and one lease"
    assert set(Preference.objects.values_list("is_gold", flat=True)) == {False}
    judgments.skip(assignment_id=held.assignment_id, rater=third, reason="")
    task.refresh_from_db()
    assert task.free == 1


@pytest.mark.parametrize(
    ("choices", "why"),
    [([], "fewer than two"), ([True], "fewer than two"), ([True, False], "verdicts differ")],
    ids=["unjudged", "once", "split"],
)
def test_task_without_a_known_verdict_does_not_become_a_gold(choices: list[bool], why: str) -> None:
    project = factories.project(settings={"overlap": 3})
    task = factories.pairwise_task(project)
    for right in choices:
        rater = factories.rater(project)
        answer(rater, claim(rater).lease, right=right)
    done = tasks.change(project=project, task_ids=[task.pk], change=tasks.Change("gold"), by=None)
    assert done.changed == 0
    assert [why in reason for reason in done.refused] == [True]
    task.refresh_from_db()
    assert not task.is_gold


def qualifying(share: float = 0.8, size: int = 5) -> tuple[Project, list[Task]]:
    project = factories.project(settings={"qualification_share": share, "gold_rate": 0.0})
    for _ in range(3):
        factories.pairwise_task(project)
    return project, [gold(project, is_qualification=True) for _ in range(size)]


def test_qualification_comes_first_in_order_and_opens_real_work() -> None:
    project, asked = qualifying()
    rater = factories.rater(project)
    had = drain(rater)
    assert had[:5] == [task.pk for task in asked]
    assert len(had) == 8
    rater.refresh_from_db()
    assert rater.qualified_at is not None


def test_whoever_fails_is_told_so_and_can_be_given_another_try() -> None:
    project, asked = qualifying()
    rater = factories.rater(project)
    for right in (True, True, True, False, False):
        answer(rater, claim(rater).lease, right=right)
    for _ in range(2):
        why = claim(rater).withheld
        assert why.key == "not_qualified"
        assert "3 of 5" in why.text
    judgments.undo(rater=rater, options=project.options)
    held = claim(rater).lease
    assert held.task_id == asked[4].pk
    answer(rater, held)
    assert claim(rater).withheld.key == "not_qualified", "an answer mended later opens nothing"
    assert qualification.try_again(rater=rater, project=project, by=None) == 5
    assert not Assignment.objects.filter(rater=rater).exclude(draft=None).exists()
    rater.refresh_from_db()
    assert rater.judged == 0
    assert len(drain(rater)) == 8
    assert Judgment.objects.filter(task=asked[0], rater=rater).count() == 3, "nothing is erased"


def test_skipped_qualification_task_is_not_right() -> None:
    project, _ = qualifying(share=1.0, size=2)
    rater = factories.rater(project)
    answer(rater, claim(rater).lease)
    judgments.skip(assignment_id=claim(rater).lease.assignment_id, rater=rater, reason="")
    assert claim(rater).withheld.key == "not_qualified"
    qualification.grant(rater=rater, by=None)
    assert claim(rater).lease is not None


@pytest.mark.parametrize("role", [Role.OWNER, Role.REVIEWER], ids=str)
def test_owners_and_reviewers_need_not_qualify(role: Role) -> None:
    project, asked = qualifying()
    lease = claim(factories.rater(project, role)).lease
    assert lease.task_id not in [task.pk for task in asked]


def test_golds_and_qualification_use_up_no_quota() -> None:
    project, _ = qualifying()
    rater = factories.rater(project)
    Rater.objects.filter(pk=rater.pk).update(quota=2)
    assert len(drain(rater)) == 5 + 2
    assert claim(rater).withheld.key == "quota"
    Rater.objects.filter(pk=rater.pk).update(quota=None, daily_cap=3, paused_at=timezone.now())
    assert claim(rater).withheld.key == "paused"
    Rater.objects.filter(pk=rater.pk).update(paused_at=None)
    assert len(drain(rater)) == 1
