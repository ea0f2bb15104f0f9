"""A project with planted scores, for tests of evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from annotator.jobs.evaluations import evaluate
from annotator.models import Project, Rater, Response, RewardModel, RewardScore, Run, Task
from annotator.services import reward_evaluation
from tests import factories
from tests.annotator.rewarding import make_model

PAIRS = 40
RIGHT = 30  # pairs that the planted model gets right


@dataclass
class World:
    """Pairs of which people prefer the first answer; two raters on every fourth."""

    project: Project
    model: RewardModel
    raters: list[Rater]
    tasks: list[Task]

    def chosen(self, at: int) -> int:
        return self.tasks[at].response_ids[0]

    def rejected(self, at: int) -> int:
        return self.tasks[at].response_ids[1]


def world(pairs: int = PAIRS, *, right: int = RIGHT, split: str = "test") -> World:
    """The model is right by 1 on the first pairs and wrong by 1 on the rest."""
    project = factories.project()
    raters = [factories.rater(project) for _ in range(2)]
    tasks = []
    for number in range(pairs):
        prompt = factories.prompt(project, split=split, tags=["code"] if number % 2 else [])
        long = number % 4 != 3
        texts = (
            f"Answer {number}" + " and more" * 3 * long,
            f"No {number}" + " at all" * (2 - long),
        )
        task = factories.task_of(project, of=prompt, texts=texts, overlap=2)
        factories.judgment(raters[0], task, "a2" if number % 3 else "a1")
        if number % 4 == 0:
            factories.judgment(raters[1], task, "a1")
        tasks.append(task)
    model = make_model(project)
    made = World(project, model, raters, tasks)
    plant(made, model, right=right)
    return made


def plant(made: World, model: RewardModel, *, right: int, by: float = 1.0) -> None:
    """Scores of a model that is right on the first ``right`` pairs."""
    scores = {}
    for at in range(len(made.tasks)):
        scores[made.chosen(at)] = by if at < right else 0.0
        scores[made.rejected(at)] = 0.0 if at < right else by
    RewardScore.objects.bulk_create(
        RewardScore(project=made.project, response_id=pk, reward_model=model, mean=mean)
        for pk, mean in scores.items()
    )


def evaluated(model: RewardModel, **how: Any) -> Run:
    """A run done in this process, as its worker would."""
    run = reward_evaluation.start(reward_model=model, by=None, **how)
    evaluate(run_id=run.pk)
    run.refresh_from_db()
    return run


def name_generators(made: World, first: str, second: str) -> None:
    """Who wrote the preferred and the other answers."""
    for at in range(len(made.tasks)):
        for pk, name in ((made.chosen(at), first), (made.rejected(at), second)):
            Response.objects.filter(pk=pk).update(generator=name)
