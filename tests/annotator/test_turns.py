"""Turns on the gpu queue, and what workers say of themselves."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import current_task
from django.test import Client
from django.urls import reverse

from annotator.celery import app
from annotator.jobs import base, watch
from annotator.models import Project, Role, Run, RunState
from annotator.queries import lines
from annotator.services import devices, runs, turns, workers
from tests import factories

pytestmark = pytest.mark.django_db


def queued(project: Project, n: int = 1, *, kind: str = Run.Kind.TRAIN, **config: Any) -> list[Run]:
    return [
        runs.start(project=project, kind=kind, title="Work", config=config, by=None)
        for _ in range(n)
    ]


def take() -> Run | None:
    """What a worker that is free begins."""
    found = turns.next_on_gpu()
    if found is not None:
        runs.begin(run_id=found.pk, worker="w")
        turns.took(found.project_id)
    return found


def end(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(state=RunState.DONE)


@pytest.fixture
def projects() -> tuple[Project, Project, Project]:
    return factories.project("busy"), factories.project("small"), factories.project("third")


# Whose turn it is ---------------------------------------------------------------------------------


def test_fifty_trainings_do_not_starve_another_project(projects: tuple[Project, ...]) -> None:
    busy, small, third = projects
    queued(busy, 50)
    queued(small, 2)
    queued(third, 1)
    order = []
    while (run := take()) is not None:
        order.append(run.project.slug)
        end(run)
    assert order[:5] == ["busy", "small", "third", "busy", "small"]
    assert order[5:] == ["busy"] * 48


def test_project_that_comes_late_is_next(projects: tuple[Project, ...]) -> None:
    busy, small, _ = projects
    queued(busy, 20)
    for _ in range(3):
        run = take()
        assert run is not None
        end(run)
    (late,) = queued(small)
    assert turns.next_on_gpu() == late


def test_second_worker_goes_to_who_has_none(projects: tuple[Project, ...]) -> None:
    busy, small, _ = projects
    queued(busy, 3)
    take()  # and it works for hours
    queued(small, 2)
    first = take()
    assert first is not None
    assert first.project == small
    end(first)
    second = take()  # the other still has one at work, so this is not its turn
    assert second is not None
    assert second.project == small


def test_scores_that_somebody_waits_for_go_before_trainings_of_their_project(
    projects: tuple[Project, ...],
) -> None:
    busy, small, _ = projects
    queued(busy, 2)
    (asked,) = queued(busy, kind=Run.Kind.ASK, queue="gpu")
    assert turns.next_on_gpu() == asked
    (other,) = queued(small)
    take()
    assert turns.next_on_gpu() == other, "asking often does not keep others out"


def test_runs_of_other_queues_have_no_turn(projects: tuple[Project, ...]) -> None:
    busy, *_ = projects
    queued(busy, kind=Run.Kind.EXPORT)
    queued(busy, kind=Run.Kind.SCORE, queue="llm")
    assert turns.next_on_gpu() is None
    (local,) = queued(busy, kind=Run.Kind.JUDGE, queue="gpu")
    assert turns.next_on_gpu() == local


def test_turns_cost_the_same_for_more_runs(
    projects: tuple[Project, ...], django_assert_max_num_queries: Any
) -> None:
    for project in projects:
        queued(project, 30)
    with django_assert_max_num_queries(3):
        turns.next_on_gpu()


# Messages -----------------------------------------------------------------------------------------


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Runs in the order in which a worker did them."""
    order: list[int] = []

    def work(pen: runs.Work) -> dict[str, Any]:
        order.append(pen.run.pk)
        return {}

    def job(*, run_id: int) -> None:
        base.perform(run_id, work)

    for name in ("annotator.jobs.training.train", "annotator.jobs.reward_asks.ask"):
        monkeypatch.setattr(app.tasks[name], "run", job)
    return order


def delivered(run: Run) -> None:
    """What a worker does with a run's message, in this process."""
    task = app.tasks[base.TASKS[Run.Kind(run.kind)]]
    app.tasks[task.name].apply(kwargs={"run_id": run.pk}, throw=True)


@pytest.mark.django_db(transaction=True)
def test_messages_in_order_of_arrival_do_runs_in_turn(
    projects: tuple[Project, ...], done: list[int]
) -> None:
    busy, small, _ = projects
    many = queued(busy, 4)
    few = queued(small, 2)
    (asked,) = queued(small, kind=Run.Kind.ASK, queue="gpu")
    for run in [*many, *few, asked]:
        delivered(run)
    assert done == [
        many[0].pk, asked.pk, many[1].pk, few[0].pk, many[2].pk, few[1].pk, many[3].pk,
    ]  # fmt: skip
    assert not Run.objects.filter(state=RunState.QUEUED).exists()


@pytest.mark.django_db(transaction=True)
def test_message_that_comes_twice_does_nothing_twice(
    projects: tuple[Project, ...], done: list[int]
) -> None:
    (run,) = queued(projects[0])
    for _ in range(3):
        delivered(run)
    assert done == [run.pk]


@pytest.mark.django_db(transaction=True)
def test_job_called_by_hand_does_what_it_was_called_for(
    projects: tuple[Project, ...], done: list[int]
) -> None:
    _, second = queued(projects[0], 2)
    app.tasks["annotator.jobs.training.train"](run_id=second.pk)
    assert done == [second.pk]
    assert not current_task


@pytest.mark.django_db(transaction=True)
def test_run_of_a_dead_worker_is_taken_over_by_its_message(
    projects: tuple[Project, ...], done: list[int]
) -> None:
    (left,) = queued(projects[0])
    runs.begin(run_id=left.pk, worker="dead")
    Run.objects.filter(pk=left.pk).update(heartbeat_at=None)
    queued(projects[1])
    delivered(left)
    assert done == [left.pk]


# What workers say ---------------------------------------------------------------------------------


def test_worker_is_known_while_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers.known() == []
    assert not workers.is_answered("gpu")
    workers.beat(hostname="gpu@one", queues=["gpu"], started=time.time())
    workers.beat(hostname="work@one", queues=["llm", "default"], started=time.time())
    gpu, work = workers.known()
    assert (gpu.hostname, gpu.queues, gpu.name) == ("gpu@one", ("gpu",), base.worker_name())
    assert gpu.device is not None
    assert gpu.device.total > gpu.device.used > 0
    assert work.device is None
    assert workers.is_answered("gpu")
    later = time.time() + workers.SILENT_AFTER + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert workers.known()[0].is_silent
    assert not workers.is_answered("gpu")
    much_later = later + workers.FORGOTTEN_AFTER
    monkeypatch.setattr(time, "time", lambda: much_later)
    assert workers.known() == []


def test_worker_that_starts_again_takes_the_place_of_the_old_and_one_that_ends_is_gone() -> None:
    for started in (1.0, 2.0):
        workers.beat(hostname="gpu@one", queues=["gpu"], started=started)
    assert [one.started for one in workers.known()] == [2.0]
    watch._tell("gpu@one", [], 0.0)
    assert workers.known() == []


def test_what_another_version_said_is_left_out() -> None:
    client = workers.redis()
    for name, value in (("a", b"{"), ("b", b"[]"), ("c", b'{"device": null, "queues": []}')):
        client.hset(workers.key("workers"), name, value)
    assert workers.known() == []
    assert client.hlen(workers.key("workers")) == 0


def test_holder_of_the_device_is_told_while_it_holds_it() -> None:
    assert devices.holder() == ""
    with devices.hold(holder="run 12", on_wait=lambda _: None):
        assert devices.holder() == "run 12"
        assert workers.device_here().holder == "run 12"
    assert devices.holder() == ""
    descriptor = os.open(devices.lock_path(devices.device()), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # looking has left nothing behind
    os.close(descriptor)


# The page -----------------------------------------------------------------------------------------


def page_of(project: Project) -> str:
    client = Client()
    client.force_login(factories.member(project, Role.REVIEWER))
    return client.get(reverse("workers", args=[project.slug])).content.decode()


def test_page_says_who_lives_and_what_waits(projects: tuple[Project, ...]) -> None:
    own, other, _ = projects
    assert "No worker has been heard of" in page_of(own)
    workers.beat(hostname="gpu@one", queues=["gpu"], started=time.time() - 7200)
    (mine,) = queued(own)
    (hidden,) = queued(other)
    for run in (mine, hidden):
        runs.begin(run_id=run.pk, worker=base.worker_name())
    Run.objects.filter(pk=hidden.pk).update(title="Secret")
    queued(own, 2)
    queued(other, 1)
    queued(other, 1, kind=Run.Kind.EXPORT)
    text = " ".join(page_of(own).split())
    assert "gpu@one" in text
    assert f">Run {mine.pk}</a>" in text
    assert "1 run of other projects" in text
    assert "Secret" not in text
    assert "no: these runs wait" in text  # nobody takes the exports
    assert [(one.queue, one.own, one.others) for one in lines.waiting(own)] == [
        ("default", 0, 1), ("llm", 0, 0), ("gpu", 2, 1),
    ]  # fmt: skip


def test_page_without_redis_says_so(projects: tuple[Project, ...], settings: Any) -> None:
    client = Client()
    client.force_login(factories.member(projects[0], Role.REVIEWER))
    address = reverse("workers", args=[projects[0].slug])
    client.get(address)  # the session is there before the queue goes away
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert "The queue is away" in client.get(address).content.decode()


def test_usual_queues_are_those_of_the_settings(settings: Any) -> None:
    routes = settings.CELERY_TASK_ROUTES
    for kind, task in base.TASKS.items():
        module = f"{task.rpartition('.')[0]}.*"
        assert lines.USUAL.get(kind, "default") == routes.get(module, {}).get("queue", "default")
