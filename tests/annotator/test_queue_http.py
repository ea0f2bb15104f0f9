"""Sixty-four people over real HTTP, also with the web process killed in the middle."""

from __future__ import annotations

import http.client
import random
import threading
import time
from pathlib import Path

import pytest

from annotator.models import Assignment, Judgment, Preference, Rater, Task
from tests import factories, serving

CLIENTS = 64
TASKS = 64
OVERLAP = 3


def work(annotator: serving.Annotator, seed: int, failures: list[BaseException]) -> None:
    """Judge until nothing is left. A server that is away is asked again, as a person would."""
    dice = random.Random(seed)
    patience = time.monotonic() + 90
    task: str | None = ""
    try:
        while task is not None:
            try:
                if not task:
                    task = annotator.open_desk()
                else:
                    task = annotator.submit(task, dice.choice(["a2", "a1", "tie", "b1", "b2"]))
            except (OSError, http.client.HTTPException):
                if time.monotonic() > patience:
                    raise
                time.sleep(0.1)
                task = ""
    except BaseException as error:  # noqa: BLE001 - shown by the test, whatever it is
        failures.append(error)
    finally:
        annotator.close()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kills", [0, 2], ids=["quiet", "killed"])
def test_every_task_ends_with_exactly_its_overlap(kills: int, tmp_path: Path) -> None:
    project = factories.project(settings={"overlap": OVERLAP})
    for _ in range(TASKS):
        factories.pairwise_task(project)
    people = [factories.member(project) for _ in range(CLIENTS)]
    sessions = [serving.session_cookie(person) for person in people]
    failures: list[BaseException] = []
    with serving.web(log=tmp_path / "web.log") as web:
        threads = [
            threading.Thread(
                target=work,
                args=(
                    serving.Annotator(port=web.port, slug=project.slug, session=session),
                    seed,
                    failures,
                ),
            )
            for seed, session in enumerate(sessions)
        ]
        for thread in threads:
            thread.start()
        for kill in range(1, kills + 1):
            while Judgment.objects.count() < TASKS * OVERLAP * kill // 3 and not failures:
                time.sleep(0.02)
            web.kill()
            web.start()
        for thread in threads:
            thread.join(120)
    assert not failures, failures[0]
    for task in Task.objects.filter(project=project):
        judgments = Judgment.objects.filter(task=task)
        assert judgments.filter(is_current=True, is_counted=True).count() == OVERLAP
        assert judgments.count() == OVERLAP, "none doubled, none as an extra"
        assert judgments.values("rater").distinct().count() == OVERLAP
        assert (task.judged, task.free) == (OVERLAP, 0)
    assert Preference.objects.count() == TASKS * OVERLAP
    assert not Assignment.objects.filter(state="leased").exists(), "no lease is left"
    counted = Rater.objects.filter(project=project).values_list("judged", flat=True)
    assert sum(counted) == TASKS * OVERLAP
