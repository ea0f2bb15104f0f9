"""What two processes at once, or one that is away, must not break."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from kombu.exceptions import OperationalError

from annotator.errors import Conflict
from annotator.jobs import base, watch
from annotator.kinds.verdict import Verdict
from annotator.models import Assignment, Judgment, ProjectSettings, Role, Run, RunState, Task
from annotator.services import judgments, projects, queue, runs
from annotator.services.import_rows import Loader
from annotator.uploads import OTHER_BYTES
from tests import factories


@pytest.mark.django_db(transaction=True)
def test_two_tabs_of_one_person_do_not_deadlock() -> None:
    """One tab claims again what expired while the other submits it late, over and over."""
    project = factories.project(settings={"overlap": 2})
    factories.pairwise_task(project)
    rater = factories.rater(project)
    failures: list[BaseException] = []
    for _ in range(25):
        lease = queue.claim_next(project=project, rater=rater)
        Assignment.objects.filter(pk=lease.assignment_id).update(
            expires_at=timezone.now() - timedelta(hours=1)
        )
        queue.sweep_expired(project_id=project.pk)
        barrier = threading.Barrier(2)

        def submit(assignment_id: int = lease.assignment_id, start: Any = barrier) -> None:
            start.wait()
            judgments.submit(
                assignment_id=assignment_id,
                rater=rater,
                options=project.options,
                verdict=lambda *_: Verdict(ranks=[1, 2], strength=1),
            )

        def claim(start: Any = barrier) -> None:
            start.wait()
            queue.claim_next(project=project, rater=rater)

        threads = [threading.Thread(target=_kept, args=(do, failures)) for do in (submit, claim)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        judgments.undo(rater=rater, options=ProjectSettings())
    assert not failures, failures[0]
    task = Task.objects.get()
    held = Assignment.objects.filter(task=task, state="leased").count()
    assert task.free == 2 - task.judged - held
    assert not Judgment.objects.filter(is_current=True).exists()


def _kept(do: Any, failures: list[BaseException]) -> None:
    try:
        do()
    except BaseException as error:  # noqa: BLE001 - shown by the test, whatever it is
        failures.append(error)
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_settings_an_import_goes_by_wait_for_its_end() -> None:
    project = factories.project()
    owner = factories.member(project, Role.OWNER)
    run = runs.start(project=project, kind="import", title="Import x", config={}, by=owner)
    pen = runs.begin(run_id=run.pk, worker="test")
    wanted = project.options.model_copy(update={"overlap": 3})
    with Loader(project=project, run=pen.run) as loader:
        with pytest.raises(Conflict, match="import is under way"):
            projects.change(project=project, by=owner, texts={}, options=wanted)
        loader.record({})
    assert projects.change(project=project, by=owner, texts={}, options=wanted) == ["overlap"]


@pytest.mark.django_db(transaction=True)
def test_import_that_was_taken_over_adds_nothing() -> None:
    project = factories.project()
    run = runs.start(project=project, kind="import", title="Import x", config={}, by=None)
    pen = runs.begin(run_id=run.pk, worker="first")
    with pytest.raises(runs.LostRun):
        _record_after_a_takeover(pen)
    run.refresh_from_db()
    assert run.result == {}


def _record_after_a_takeover(pen: runs.Work) -> None:
    with Loader(project=pen.run.project, run=pen.run) as loader:
        Run.objects.filter(pk=pen.run.pk).update(token=None)
        loader.record({"prompts": 1})


@pytest.mark.django_db
def test_message_that_was_not_sent_is_sent_by_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = factories.project()
    run = runs.start(project=project, kind="export", title="Export", config={}, by=None)
    sent: list[int] = []
    away = True

    def send_task(name: str, kwargs: dict[str, int]) -> None:
        if away:
            raise OperationalError("Redis is away")
        sent.append(kwargs["run_id"])

    monkeypatch.setattr(base.app, "send_task", send_task)
    assert base.send(run) is False
    assert watch.look() == 1, "looked at, and still away"
    away = False
    watch.look()
    assert sent == [run.pk]


@pytest.mark.django_db(transaction=True)
def test_ctrl_c_cancels_the_run_of_a_command() -> None:
    project = factories.project()
    run = runs.start(project=project, kind="import", title="Import x", config={}, by=None)

    def interrupted(_: runs.Work) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        base.perform(run.pk, interrupted)
    run.refresh_from_db()
    assert run.state == RunState.CANCELED


@pytest.mark.django_db
def test_draft_and_skip_take_any_bytes() -> None:
    project = factories.project("nul")
    factories.pairwise_task(project)
    client = Client()
    client.force_login(factories.member(project))
    client.get("/p/nul/annotate/")
    held = Assignment.objects.get()
    path = f"/p/nul/annotate/{held.pk}"
    assert client.post(f"{path}/draft/", {"why": "a\0b", "verdict": "\0"}).status_code == 200
    held.refresh_from_db()
    assert held.draft["why"] == "ab"
    assert client.post(f"{path}/skip/", {"reason": "x\0"}).status_code == 302


@pytest.mark.django_db
def test_file_from_nobody_is_not_kept(tmp_path: Any, settings: Any) -> None:
    """The CSRF check reads the body before anybody knows who sent it."""
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)
    kept: list[int] = []

    class Watched(Client):
        def request(self, **request: Any) -> Any:
            response = super().request(**request)
            files = response.wsgi_request.FILES
            kept.extend(one.size for found in files.values() for one in [found])
            return response

    big = tmp_path / "big.bin"
    big.write_bytes(b"x" * (OTHER_BYTES * 4))
    with big.open("rb") as file:
        Watched().post("/accounts/login/", {"file": file})
    assert kept == []
