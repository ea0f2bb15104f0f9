"""Sixty-four people over real HTTP, also with the web process killed in the middle."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest

from annotator.kinds import KINDS
from annotator.models import Assignment, Judgment, Preference, Project, Rater, Task, User
from annotator.services import groups, raters
from tests import factories, serving

CLIENTS = 64
TASKS = 64
OVERLAP = 3
CRITERION = "It answers"

Say = Callable[[random.Random], str]


def work(
    annotator: serving.Annotator,
    seed: int,
    failures: list[BaseException],
    say: Say | None = None,
) -> None:
    """Judge until nothing is left. A server that is away is asked again, as a person would."""
    dice = random.Random(seed)
    patience = time.monotonic() + 90
    task: str | None = ""
    try:
        while task is not None:
            try:
                if not task:
                    task = annotator.open_desk()
                elif say is not None:
                    task = annotator.send(task, say(dice))
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


def work_at_once(
    *, project: Project, people: list[User], say: Say | None, kill_at: list[int], log: Path
) -> None:
    """All people at once until nobody gets anything; the server dies at so many verdicts."""
    sessions = [serving.session_cookie(person) for person in people]
    failures: list[BaseException] = []
    with serving.web(log=log) as web:
        threads = [
            threading.Thread(
                target=work,
                args=(
                    serving.Annotator(port=web.port, slug=project.slug, session=session),
                    seed,
                    failures,
                    say,
                ),
            )
            for seed, session in enumerate(sessions)
        ]
        for thread in threads:
            thread.start()
        for verdicts in kill_at:
            while (
                Judgment.objects.count() < verdicts
                and not failures
                and any(thread.is_alive() for thread in threads)
            ):
                time.sleep(0.02)
            web.kill()
            web.start()
        for thread in threads:
            thread.join(120)
    assert not failures, failures[0]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kills", [0, 2], ids=["quiet", "killed"])
def test_every_task_ends_with_exactly_its_overlap(kills: int, tmp_path: Path) -> None:
    project = factories.project(settings={"overlap": OVERLAP})
    for _ in range(TASKS):
        factories.pairwise_task(project)
    people = [factories.member(project) for _ in range(CLIENTS)]
    work_at_once(
        project=project,
        people=people,
        say=None,
        kill_at=[TASKS * OVERLAP * kill // 3 for kill in range(1, kills + 1)],
        log=tmp_path / "web.log",
    )
    assert_exact(Task.objects.filter(project=project))
    assert Preference.objects.count() == TASKS * OVERLAP
    assert not Assignment.objects.filter(state="leased").exists(), "no lease is left"
    counted = Rater.objects.filter(project=project).values_list("judged", flat=True)
    assert sum(counted) == TASKS * OVERLAP


def assert_exact(tasks: object) -> None:
    for task in tasks:
        judgments = Judgment.objects.filter(task=task)
        assert judgments.filter(is_current=True, is_counted=True).count() == OVERLAP
        assert judgments.count() == OVERLAP, "none doubled, none as an extra"
        assert judgments.values("rater").distinct().count() == OVERLAP
        assert (task.judged, task.free) == (OVERLAP, 0)


def pairwise(dice: random.Random) -> str:
    return urlencode({"verdict": dice.choice(["a2", "a1", "tie", "b1", "b2"])})


def ranking(dice: random.Random) -> str:
    places = dice.sample(range(1, 4), 3)
    order = {f"place-{label}": place for label, place in zip("ABC", places, strict=True)}
    return urlencode(order | {"as_shown": "1"})


def best_worst(dice: random.Random) -> str:
    best, worst = dice.sample("ABCD", 2)
    return urlencode({"best": best, "worst": worst})


def rating(dice: random.Random) -> str:
    return urlencode({f"rate-0-{label}": dice.randint(0, 4) for label in "AB"})


def checklist(dice: random.Random) -> str:
    return urlencode({f"check-0-{label}": dice.choice(["yes", "no", "na"]) for label in "AB"})


# A kind, how many responses its tasks have here, and a verdict of it as a page sends it.
SAYINGS: dict[str, tuple[int, Say]] = {
    "pairwise": (2, pairwise),
    "ranking": (3, ranking),
    "best-worst": (4, best_worst),
    "rating": (2, rating),
    "checklist": (2, checklist),
}


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_is_exact_with_golds_groups_and_qualification(kind: str, tmp_path: Path) -> None:
    """Half the tasks are one group's; a server is killed; the strict and the capped stop early."""
    k, say = SAYINGS[kind]
    project = factories.project(
        settings={
            "overlap": OVERLAP,
            "gold_rate": 0.3,
            "qualification_share": 0.0,
            "attributes": ["helpfulness"],
            "criteria": [CRITERION],
            "sampler": "fewest-votes-first",
        }
    )
    group = groups.create(project=project, name="Experts", by=None)
    tasks = [
        factories.task_of(project, kind, k, group_id=group.pk if number % 2 else 0)
        for number in range(8)
    ]
    known = golds(project, kind, k, qualification=False) + golds(
        project, kind, k, qualification=True
    )
    people = [factories.member(project) for _ in range(8)]
    own = [raters.for_member(project=project, user=person) for person in people]
    groups.set_raters(group=group, raters=own[:5], by=None)
    Rater.objects.filter(pk=own[0].pk).update(quota=2)
    Rater.objects.filter(pk=own[1].pk).update(daily_cap=1)
    work_at_once(project=project, people=people, say=say, kill_at=[20], log=tmp_path / "web.log")
    assert_exact(Task.objects.filter(pk__in=[task.pk for task in tasks]))
    for task in Task.objects.filter(pk__in=known):
        given = Judgment.objects.filter(task=task)
        assert given.count() == given.values("rater").distinct().count() == task.judged
        assert not given.filter(is_hit=None).exists()
        assert task.free == 0
    real = Judgment.objects.filter(task__in=tasks)
    assert real.filter(rater=own[0]).count() <= 2
    assert real.filter(rater=own[1]).count() <= 1
    outside = real.filter(task__group_id=group.pk).exclude(rater__in=own[:5])
    assert not outside.exists(), "a group's tasks are its own"
    for rater in Rater.objects.filter(project=project):
        qualifying = Judgment.objects.filter(rater=rater, task__is_qualification=True)
        first = real.filter(rater=rater).order_by("submitted_at").first()
        assert qualifying.count() == 2, "everybody did the whole set"
        assert first is None or all(one.submitted_at < first.submitted_at for one in qualifying)
        assert rater.judged == Judgment.objects.filter(rater=rater).count()


def golds(project: Project, kind: str, k: int, *, qualification: bool) -> list[int]:
    """Known tasks of a kind. Whether they are hit is not what is asked here."""
    scale = {"rating": {"helpfulness": [4, 0]}, "checklist": {CRITERION: [1, 0]}}
    gold = {
        "ranks": list(range(1, k + 1)),
        "strength": 1,
        "both_bad": False,
        "ratings": scale.get(kind),
    }
    made = [
        factories.task_of(
            project, kind, k, gold=gold, is_gold=True, is_qualification=qualification
        ).pk
        for _ in range(2 if qualification else 6)
    ]
    Task.objects.filter(pk__in=made).update(free=0)
    return made
