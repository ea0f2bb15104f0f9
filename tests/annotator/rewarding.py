"""Projects with an approved rubric, for tests of rewards."""

from __future__ import annotations

from typing import Any

from annotator.jobs.scoring import score
from annotator.models import (
    Judge,
    Project,
    Prompt,
    RewardModel,
    RewardScore,
    Rubric,
    RubricVersion,
    Run,
    RunState,
)
from annotator.queries import reward_scores as queries
from annotator.services import endpoints, judges, reward_scores, rubrics
from tests import factories
from tests.simulated import SimulatedServer

PROGRAM = {"text": "Has a list", "verifier": "program", "program": "list"}
CITES = {"text": "Cites a source", "verifier": "llm"}
EXAMPLE = {"text": "Gives an example", "verifier": "llm"}
CITED = "It stands at https://example.org/source to read."
LISTED = "Three steps:\n\n- one\n- two\n- three"
PLAIN = "It is so."


def world(pairs: int = 6, *, test: int = 3, texts: tuple[str, str] = (LISTED, PLAIN)) -> Project:
    """Pairs of which people prefer the first text, each with its number in it."""
    project = factories.project()
    rater = factories.rater(project)
    for number in range(pairs):
        one, other = (f"{text}\n\nNumber {number}." for text in texts)
        turned = number % 2 == 1
        task = factories.pairwise_task(project, texts=(other, one) if turned else (one, other))
        if number < test:
            Prompt.objects.filter(pk=task.prompt_id).update(split="test")
        factories.judgment(rater, task, "b1" if turned else "a1")
    return project


def approved(project: Project, *criteria: dict[str, Any], **fields: Any) -> RubricVersion:
    """An approved version; ``fields`` are set on its row, such as its verifier."""
    rubric = rubrics.create(project=project, name=f"Rubric {Rubric.objects.count() + 1}", by=None)
    draft = rubrics.draft(rubric=rubric, by=None)
    for one in criteria or (PROGRAM,):
        rubrics.add(version=draft, by=None, **one)
    version = rubrics.approve(version=draft, by=None)
    if fields:
        RubricVersion.objects.filter(pk=version.pk).update(**fields)
        version.refresh_from_db()
    return version


def sim_judge(project: Project, server: SimulatedServer, settings: Any, **fields: Any) -> Judge:
    settings.LLM_HOSTS = [server.host]
    endpoint = endpoints.add(
        project=project, name="sim", base_url=server.url, by=None,
        **({"concurrency": 4} | fields),
    )  # fmt: skip
    return judges.add(
        project=project, name="sim", kind="llm", options={"models": ["sim"]},
        endpoint=endpoint, by=None,
    )  # fmt: skip


def scored(version: RubricVersion, **how: Any) -> Run:
    """A run scored in this process, as its worker would."""
    return done(reward_scores.start(version=version, by=None, **how))


def done(run: Run) -> Run:
    score(run_id=run.pk)
    run.refresh_from_db()
    return run


def make_model(project: Any, number: int = 1) -> RewardModel:
    run = Run.objects.create(project=project, kind=Run.Kind.TRAIN, title="T")
    return RewardModel.objects.create(
        project=project, run=run, number=number, objective="bradley-terry", backbone="hashing",
        artifact=str(run.folder.relative_to(run.folder.parent.parent)),
    )  # fmt: skip


def give_scores(model: RewardModel, scores: dict[int, float], *, summary: bool = True) -> None:
    RewardScore.objects.bulk_create(
        RewardScore(project=model.project, response_id=pk, reward_model=model, mean=value)
        for pk, value in scores.items()
    )
    if summary:
        Run.objects.create(
            project=model.project, kind=Run.Kind.SCORE, title="S", state=RunState.DONE,
            config={"reward_model": model.pk},
            result={"summary": queries.summary("reward_model", model.pk).as_json()},
        )  # fmt: skip
