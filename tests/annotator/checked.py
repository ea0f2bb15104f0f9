"""A version of a rubric that people check, and the steps of tests about it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from annotator.jobs import base
from annotator.jobs.tasks import _perform as perform
from annotator.models import (
    Assignment,
    CriterionVerdict,
    Project,
    Role,
    RubricVersion,
    Task,
    User,
)
from annotator.services import queue, raters, rubric_tasks, rubrics
from annotator.services.rubric_tasks import Wish
from rubrics.programs import PROGRAMS
from tests import factories

SHORT, STEPS, RUDE = "It is short.", "It names the steps.", "It is rude."
OWN = {"criteria": ["Polite"], "failures": ["Wrong"], "overlap": 1, "gold_rate": 0}


@pytest.fixture
def project() -> Project:
    return factories.project("letters", settings=OWN)


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Alice")


@pytest.fixture
def version(project: Project) -> RubricVersion:
    return approved(
        project,
        {"text": SHORT, "theme": "Form"},
        {"text": RUDE, "polarity": -1},
        {"text": STEPS, "theme": "Content"},
        {"text": "Under 100 words.", "verifier": "program", "program": "words.at-most-100"},
    )


def approved(project: Project, *criteria: dict[str, Any]) -> RubricVersion:
    rubric = rubrics.create(project=project, name=f"Rubric {project.rubrics.count()}", by=None)
    version = rubrics.draft(rubric=rubric, by=None)
    for values in criteria:
        rubrics.add(version=version, by=None, **known(values))
    return rubrics.approve(version=version, by=None)


def known(values: dict[str, Any]) -> dict[str, Any]:
    """A program that there is, whichever: these tests do not run it."""
    return values | {"program": next(iter(PROGRAMS))} if "program" in values else values


def decided(project: Project, count: int = 1, **fields: Any) -> list[Task]:
    """Pairs on which somebody prefers one side."""
    voter = factories.rater(project)
    tasks = []
    for _ in range(count):
        of = factories.prompt(project, **fields)
        task = factories.pairwise_task(project, of=of, overlap=1)
        factories.judgment(voter, task)
        tasks.append(task)
    return tasks


def make(version: RubricVersion, **wish: Any) -> dict[str, Any]:
    run = rubric_tasks.start(version=version, wish=Wish(**wish), by=None)
    assert base.perform(run.pk, perform)
    run.refresh_from_db()
    assert run.state == "done", run.error
    return run.result


def checklists(version: RubricVersion) -> list[Task]:
    return list(Task.objects.filter(rubric_version_id=version.pk).order_by("pk"))


def answers(**said: str) -> dict[str, str]:
    """SHORT, STEPS, RUDE are asked in this order: themes first, what speaks against last."""
    return {
        f"check-{at}-{label}": value
        for at, name in enumerate(("short", "steps", "rude"))
        for label, value in zip("AB", said.get(name, "yes no").split(), strict=True)
    }


def held(project: Project, person: User) -> Assignment:
    rater = raters.for_member(project=project, user=person)
    lease = queue.claim_next(project=project, rater=rater)
    assert lease is not None
    return Assignment.objects.select_related("task", "rater").get(pk=lease.assignment_id)


def verdicts(assignment: Assignment) -> dict[str, list[int | None]]:
    """By criterion, as shown: A first."""
    ids = [assignment.task.response_ids[place] for place in assignment.shown_order]
    rows = CriterionVerdict.objects.filter(rater=assignment.rater).select_related("criterion")
    found = {(one.criterion.text, one.response_id): one.value for one in rows}
    texts = dict.fromkeys(text for text, _ in found)
    return {text: [found[text, pk] for pk in ids] for text in texts}


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def post(client: Client, name: str, *args: Any, **data: str) -> Any:
    return client.post(reverse(name, args=args), data)
