"""Where golds, groups, decisions, imports and locks meet: rules of one that another must keep."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from django.db import connection, transaction
from django.test import Client

from annotator.errors import Conflict
from annotator.models import Preference, Project, Rater, Role, Task, User
from annotator.queries import figures
from annotator.queries.datasets import sides
from annotator.queries.pairs import Selection, decided_pairs
from annotator.services import (
    adjudication,
    groups,
    judgments,
    projects,
    qualification,
    queue,
    queue_order,
    tasks,
)
from annotator.services.tasks import Change
from tests import factories
from tests.annotator.imported import jsonl, read
from tests.annotator.test_golds import GOLD, claim, gold
from tests.annotator.test_queue import expire

PAIR = {"prompt": "Which is prime?", "response1": "7", "response2": "8"}


def change(project: Project, task: Task, action: str, value: int = 0) -> tasks.Done:
    made = Change(action, value)
    return tasks.change(project=project, task_ids=[task.pk], change=made, by=None)


# Golds ------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_gold_that_went_to_another_group_brings_no_rain_of_golds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = factories.project(settings={"gold_rate": 0.5})
    rater, lost = factories.rater(project), gold(project)
    for _ in range(4):
        factories.pairwise_task(project)
    monkeypatch.setattr(queue.secrets, "randbits", lambda bits: 0)
    held = claim(rater).lease
    assert held is not None
    assert held.task_id == lost.pk
    expire(held)
    queue.sweep_expired(project_id=project.pk)
    change(project, lost, "assign", groups.create(project=project, name="Others", by=None).pk)
    gold(project)
    # Half the draws are no gold's turn: this is one.
    monkeypatch.setattr(queue.secrets, "randbits", lambda bits: 2**31 - 1)
    following = claim(rater).lease
    assert following is not None
    assert not Task.objects.get(pk=following.task_id).is_gold


@pytest.mark.django_db
def test_votes_of_who_is_left_out_make_no_gold() -> None:
    project = factories.project()
    task = factories.pairwise_task(project, overlap=3)
    people = [factories.rater(project) for _ in range(2)]
    for person in people:
        factories.judgment(person, task, "a1")
    Rater.objects.filter(pk=people[0].pk).update(is_excluded=True)
    done = change(project, task, "gold")
    assert (done.changed, list(done.refused.values())) == (0, [1])
    Rater.objects.filter(pk=people[0].pk).update(is_excluded=False)
    assert change(project, task, "gold").changed == 1


@pytest.mark.django_db
def test_task_that_left_the_qualification_set_keeps_its_verdict_and_its_places() -> None:
    project = factories.project(settings={"overlap": 2, "qualification_share": 1.0})
    rater = factories.rater(project)
    task, other = (gold(project, is_qualification=True) for _ in range(2))
    for _ in range(2):
        lease = claim(rater).lease
        assert lease is not None
        judgments.answer(
            assignment_id=lease.assignment_id,
            rater=rater,
            answers={"verdict": "a1"},
            options=project.options,
        )
    change(project, other, "ordinary")
    assert qualification.try_again(rater=rater, project=project, by=None) == 1
    other.refresh_from_db()
    assert (other.judged, other.free) == (1, 1)
    task.refresh_from_db()
    assert (task.judged, task.free) == (0, 0)


@pytest.mark.django_db
def test_operators_pages_cannot_make_a_gold_that_has_places() -> None:
    operator = User.objects.create_superuser("root@example.org", "correct horse battery")
    client = Client()
    client.force_login(operator)
    task = factories.pairwise_task(factories.project(), gold=GOLD)
    sent = {"project": task.project_id, "prompt": task.prompt_id, "kind": "pairwise",
            "is_gold": "on", "is_settled": "on", "group_id": "7", "priority": "5",
            "position": "1",
            "gold": "{}", "import_run_id": "1"}  # fmt: skip
    client.post(f"/operator/annotator/task/{task.pk}/change/", sent)
    task.refresh_from_db()
    found = (task.is_gold, task.is_settled, task.group_id, task.priority, task.free)
    assert found == (False, False, 0, 0, task.overlap)


# Imports ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_votes_imported_onto_a_gold_reach_no_training(tmp_path: Path) -> None:
    project = factories.project()
    read(project, jsonl(tmp_path / "pairs.jsonl", [PAIR]))
    task = Task.objects.get()
    Task.objects.filter(pk=task.pk).update(gold=GOLD)
    assert change(project, task, "gold").changed == 1
    read(project, jsonl(tmp_path / "votes.jsonl", [{**PAIR, "preference": 1}]))
    assert set(Preference.objects.values_list("is_gold", flat=True)) == {True}
    assert list(decided_pairs(project)) == []


@pytest.mark.django_db(transaction=True)
def test_votes_imported_onto_a_settled_task_are_overruled_at_once(tmp_path: Path) -> None:
    project = factories.project()
    read(project, jsonl(tmp_path / "pairs.jsonl", [PAIR]))
    task = Task.objects.get()
    adjudication.decide(
        task=task,
        rater=factories.rater(project, Role.REVIEWER),
        answers={"verdict": "b1"},
        options=project.options,
    )
    read(project, jsonl(tmp_path / "votes.jsonl", [{**PAIR, "preference": 1}]))
    assert Preference.objects.count() == 2
    (pair,) = decided_pairs(project)
    assert (pair.outcome, pair.votes) == ("b", 1)
    reviewer = User.objects.get(memberships__role=Role.REVIEWER)
    adjudication.unsettle(task=task, by=reviewer)
    (pair,) = decided_pairs(project)
    assert (pair.outcome, pair.votes) == ("a", 1)


# Figures ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_agreement_of_the_overview_leaves_out_who_is_left_out() -> None:
    project = factories.project()
    task = factories.pairwise_task(project, overlap=3)
    people = [factories.rater(project) for _ in range(3)]
    for person, choice in zip(people, ("a1", "a1", "b1"), strict=True):
        factories.judgment(person, task, choice)
    Rater.objects.filter(pk=people[2].pk).update(is_excluded=True)
    found = figures._agreements({project.pk: 3})[project.pk]
    assert (found.share, found.comparisons) == (1.0, 1)


@pytest.mark.django_db
def test_response_that_was_not_rated_is_no_loser_by_its_side() -> None:
    project = factories.project(settings={"kind": "rating", "attributes": ["Clear"]})
    task = factories.task_of(project, "rating", 2, overlap=2)
    one, other = (factories.rater(project) for _ in range(2))
    factories.judgment(one, task, "a1")
    factories.judgment(other, task, "a1", ranks=[1, 0], strength=0)
    with connection.cursor():
        found = sides(project, Selection(), connection=connection.connection)
    assert found is not None
    assert (found.first, found.votes) == (1, 1)


# Names and addresses ----------------------------------------------------------------------------


@pytest.mark.django_db
def test_group_may_be_named_like_that_of_a_person() -> None:
    project = factories.project()
    rater = factories.rater(project, name="Bo")
    groups.create(project=project, name=f"Bo #{rater.pk}", by=None)
    own = groups.of_person(rater)
    assert groups.of_person(rater) == own
    with pytest.raises(Conflict, match="There is a group"):
        groups.create(project=project, name=f"Bo #{rater.pk}", by=None)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "asked", ["9" * 4400, "٣", "9" * 30, "x"], ids=["long", "arab", "big", "x"]
)
def test_desk_opens_whatever_assignment_the_address_names(asked: str) -> None:
    project = factories.project("desk")
    factories.pairwise_task(project)
    client = Client()
    client.force_login(factories.member(project))
    assert client.get("/p/desk/annotate/", {"assignment": asked}).status_code == 200


@pytest.mark.django_db
def test_task_skipped_in_one_tab_and_judged_in_another_is_skipped_no_more() -> None:
    project = factories.project()
    factories.pairwise_task(project)
    rater = factories.rater(project)
    lease = claim(rater).lease
    assert lease is not None
    judgments.skip(assignment_id=lease.assignment_id, rater=rater, reason="")
    done = judgments.answer(
        assignment_id=lease.assignment_id,
        rater=rater,
        answers={"verdict": "a1"},
        options=project.options,
    )
    assert done.is_counted
    rater.refresh_from_db()
    assert (rater.judged, rater.skipped) == (1, 0)


# Locks ------------------------------------------------------------------------------------------


@contextmanager
def while_waiting_for(task: Task, do: Callable[[], object]) -> Iterator[psycopg.Connection]:
    """``do`` in a thread, held up by a lock on ``task``; gives a connection beside both."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - raised below, whatever it is
            failures.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    with transaction.atomic():
        Task.objects.select_for_update(no_key=True).get(pk=task.pk)
        thread.start()
        _until_somebody_waits()
        yield connection.connection
    thread.join(60)
    if failures:
        raise failures[0]


def _until_somebody_waits() -> None:
    pause = threading.Event()
    with connection.cursor() as cursor:
        for _ in range(2_000):
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            if cursor.fetchone()[0]:
                return
            pause.wait(0.01)
            cursor.execute("SELECT pg_stat_clear_snapshot()")
    raise AssertionError("nobody waited for the task")


def _raters_are_free(project: Project) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM (SELECT id FROM annotator_rater WHERE project_id = %s"
            " FOR NO KEY UPDATE SKIP LOCKED) free",
            [project.pk],
        )
        return bool(cursor.fetchone()[0] == Rater.objects.filter(project=project).count())


def several(monkeypatch: pytest.MonkeyPatch) -> tuple[Project, list[Task], User]:
    """A project of three chunks with somebody who has a mark."""
    monkeypatch.setattr(queue_order, "CHUNK", 1)
    project = factories.project("chunks")
    made = [factories.pairwise_task(project) for _ in range(3)]
    factories.rater(project)
    return project, made, factories.member(project, Role.OWNER)


@pytest.mark.django_db(transaction=True)
def test_change_of_all_tasks_locks_no_rater_before_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    project, made, owner = several(monkeypatch)
    client = Client()
    client.force_login(owner)

    def post() -> None:
        sent = {"action": "overlap", "value": "3", "all": ""}
        assert client.post("/p/chunks/tasks/change/", sent).status_code == 302

    with while_waiting_for(made[1], post):
        assert _raters_are_free(project)
    assert set(Task.objects.values_list("overlap", "free")) == {(3, 3)}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("update", [{"overlap": 3}, {"sampler": "random"}], ids=str)
def test_changed_settings_lock_no_rater_before_a_task(
    monkeypatch: pytest.MonkeyPatch, update: dict[str, object]
) -> None:
    project, made, owner = several(monkeypatch)
    options = project.options.model_copy(update=update)
    with while_waiting_for(
        made[1], lambda: projects.change(project=project, by=owner, texts={}, options=options)
    ):
        assert _raters_are_free(project)


@pytest.mark.django_db(transaction=True)
def test_another_try_locks_its_rater_after_all_its_tasks() -> None:
    project = factories.project()
    asked = [gold(project, is_qualification=True) for _ in range(2)]
    rater = factories.rater(project)
    for task in asked:
        factories.judgment(rater, task, "a1")
        Task.objects.filter(pk=task.pk).update(free=0)
    with while_waiting_for(
        asked[1], lambda: qualification.try_again(rater=rater, project=project, by=None)
    ):
        assert _raters_are_free(project)
    assert set(Task.objects.values_list("judged", "free")) == {(0, 0)}


@pytest.mark.django_db(transaction=True)
def test_sending_back_locks_its_rater_after_the_task() -> None:
    project = factories.project()
    task, rater = factories.pairwise_task(project), factories.rater(project)
    reviewer = factories.member(project, Role.REVIEWER)
    factories.judgment(rater, task, "a1")

    def send() -> None:
        adjudication.send_back(
            task=task, rater_ids=[rater.pk], note="Again.", by=reviewer, options=project.options
        )

    with while_waiting_for(task, send):
        assert _raters_are_free(project)
    task.refresh_from_db()
    assert (task.judged, task.free) == (0, 0)
