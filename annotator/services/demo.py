"""The demo project: written prompts and responses, simulated raters, three accounts.

Everything the raters said is simulated and labelled so. Loading twice adds nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import orjson
from django.db import transaction
from django.utils import timezone

from annotator.demo import simulate
from annotator.models import Judgment, Membership, Project, ProjectSettings, Rater, Role, Task, User
from annotator.services import imports, judgments, projects, raters

SLUG: Final = "demo"
PASSWORD: Final = "touchstone-demo"
OVERLAP: Final = 3
SEED: Final = 7
ACCOUNTS: Final = (
    ("owner@demo.example", "Olive Owner", Role.OWNER),
    ("reviewer@demo.example", "Ravi Reviewer", Role.REVIEWER),
    ("annotator@demo.example", "Anna Annotator", Role.ANNOTATOR),
)


@dataclass(frozen=True)
class Loaded:
    project: Project
    prompts: int
    tasks: int
    votes: int


def load() -> Loaded:
    """Make what is missing of the demo; what is there stays as it is."""
    accounts = people()
    project = Project.objects.filter(slug=SLUG).first() or projects.create(
        slug=SLUG,
        name="Assistant answers",
        question="Which of two answers would you rather have been given?",
        guidelines=simulate.GUIDELINES.read_text(),
        owner=accounts[Role.OWNER],
        options=ProjectSettings(overlap=1, daily_target=20),
    )
    if not project.is_simulated:
        project.is_simulated = True
        project.save(update_fields=["is_simulated"])
    for role, person in accounts.items():
        Membership.objects.get_or_create(project=project, user=person, defaults={"role": role})
    prompts = simulate.load_prompts()
    _import(project, prompts)
    votes = _vote(project, prompts)
    return Loaded(
        project=project,
        prompts=project.prompts.count(),
        tasks=project.tasks.count(),
        votes=votes,
    )


def people() -> dict[Role, User]:
    """The demo's accounts, made on first use."""
    return {role: _account(email, name, role) for email, name, role in ACCOUNTS}


def _account(email: str, name: str, role: Role) -> User:
    person = User.objects.filter(email=email).first()
    if person is None:
        person = User.objects.create_user(
            email, PASSWORD, name=name, may_create_projects=role == Role.OWNER
        )
    return person


def _import(project: Project, prompts: Iterable[simulate.DemoPrompt]) -> None:
    """Through the same door as anybody's file, so that the import page has one to show."""
    if project.prompts.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo.jsonl"
        path.write_bytes(b"".join(_line(prompt) for prompt in prompts))
        imports.import_file(project=project, path=path, format="responses")


def _line(prompt: simulate.DemoPrompt) -> bytes:
    row = {
        "id": prompt.id,
        "messages": list(prompt.messages),
        "tags": [prompt.category],
        "responses": [
            {
                "text": response.text,
                "generator": response.generator,
                "sampling": dict(response.sampling),
            }
            for response in prompt.responses
        ],
    }
    return orjson.dumps(row) + b"\n"


@transaction.atomic
def _vote(project: Project, prompts: list[simulate.DemoPrompt]) -> int:
    """The simulated raters' votes, once; returns how many are there."""
    there = Judgment.objects.filter(project=project, rater__is_simulated=True)
    if there.exists():
        return there.count()
    tasks = _tasks_by_pair(project)
    began = timezone.now() - timedelta(days=14)
    known: dict[str, Rater] = {}
    votes = list(
        simulate.simulate_votes(prompts, simulate.load_raters(), overlap=OVERLAP, seed=SEED)
    )
    for vote in votes:
        if vote.rater not in known:
            known[vote.rater] = raters.imported(project=project, name=vote.rater, is_simulated=True)
        task, flipped = tasks[(vote.prompt_id, *vote.pair)]
        _record(task, known[vote.rater], vote, flipped=flipped, began=began)
    for rater in known.values():
        rater.judged = rater.judgments.filter(is_current=True).count()
        rater.save(update_fields=["judged"])
    return len(votes)


def _tasks_by_pair(project: Project) -> dict[tuple[str, int, int], tuple[Task, bool]]:
    """(prompt id, i, j) -> the task on these two responses, and whether it lists j first."""
    found = {}
    texts = dict(project.responses.values_list("pk", "text"))
    places = {
        (prompt.id, response.text): place
        for prompt in simulate.load_prompts()
        for place, response in enumerate(prompt.responses)
    }
    for task in project.tasks.select_related("prompt"):
        name = task.prompt.external_id
        first, second = (places[(name, texts[pk])] for pk in task.response_ids)
        found[(name, first, second)] = (task, False)
        found[(name, second, first)] = (task, True)
    return found


def _record(
    task: Task, rater: Rater, vote: simulate.SimulatedVote, *, flipped: bool, began: object
) -> None:
    ranks = {"a": [1, 2], "b": [2, 1], "tie": [1, 1]}[vote.outcome]
    shown = list(vote.shown_order)
    submitted_at = began + timedelta(seconds=vote.seconds)
    judgment = Judgment.objects.create(
        project_id=task.project_id,
        task=task,
        rater=rater,
        kind=Judgment.Kind.IMPORTED,
        ranks=ranks[::-1] if flipped else ranks,
        strength=vote.strength,
        both_bad=vote.both_bad,
        rationale=vote.rationale,
        shown_order=[1 - place for place in shown] if flipped else shown,
        first_paint_at=submitted_at - timedelta(milliseconds=vote.active_ms),
        submitted_at=submitted_at,
        active_ms=vote.active_ms,
    )
    judgments.write_preferences(judgment=judgment, task=task, options=task.project.options)
