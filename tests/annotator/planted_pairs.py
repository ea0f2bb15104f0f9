"""Projects of many pairs with known qualities, written in a few statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.utils import timezone

from annotator.models import (
    Judgment,
    Preference,
    Project,
    Prompt,
    Rater,
    Response,
    RewardModel,
    RewardScore,
    Task,
)
from tests import factories
from tests.annotator.ballots import RANKS, raters
from tests.annotator.rewarding import make_model

SPLITS = ("train", "train", "train", "validation", "test")


@dataclass(frozen=True)
class Planted:
    """``responses`` (n, k) of n prompts; ``by`` the raters."""

    project: Project
    prompts: list[Prompt]
    responses: np.ndarray
    by: list[Rater]


def planted(count: int, *, k: int = 2, by: int = 1, splits: Sequence[str] = SPLITS) -> Planted:
    """Prompts with ``k`` different answers each, on which nobody has voted."""
    project = factories.project()
    prompts = Prompt.objects.bulk_create(
        Prompt(
            project=project,
            content_hash=factories.digest("planted", str(project.pk), str(n)),
            messages=[{"role": "user", "content": f"Question {n}?"}],
            split=splits[n % len(splits)],
        )
        for n in range(count)
    )
    made = Response.objects.bulk_create(
        Response(
            project=project,
            prompt=prompt,
            text=f"Answer {side} to question {n}.",
            content_hash=factories.digest("planted", str(prompt.pk), str(side)),
        )
        for n, prompt in enumerate(prompts)
        for side in range(k)
    )
    ids = np.array([one.pk for one in made]).reshape(count, k)
    return Planted(project, prompts, ids, raters(project, by))


def votes(of: Planted, said: Sequence[tuple[int, int, int, int, int]]) -> None:
    """Votes (prompt, place of a, place of b, rater, outcome); 1 is for a."""
    pairs = list(dict.fromkeys((n, a, b) for n, a, b, _, _ in said))
    tasks = Task.objects.bulk_create(
        Task(
            project=of.project,
            prompt=of.prompts[n],
            response_ids=[int(of.responses[n, a]), int(of.responses[n, b])],
            content_hash=factories.digest("planted", str(of.prompts[n].pk), str(a), str(b)),
            judged=1,
        )
        for n, a, b in pairs
    )
    task_of = dict(zip(pairs, tasks, strict=True))
    now = timezone.now()
    judgments = Judgment.objects.bulk_create(
        Judgment(
            project=of.project,
            task=task_of[n, a, b],
            rater=of.by[rater],
            ranks=RANKS[outcome],
            strength=abs(outcome),
            submitted_at=now,
        )
        for n, a, b, rater, outcome in said
    )
    Preference.objects.bulk_create(
        Preference(
            project=of.project,
            judgment=judgment,
            task=judgment.task,
            prompt_id=judgment.task.prompt_id,
            rater=judgment.rater,
            a_id=judgment.task.response_ids[0],
            b_id=judgment.task.response_ids[1],
            outcome=outcome,
            strength=abs(outcome),
        )
        for judgment, (_, _, _, _, outcome) in zip(judgments, said, strict=True)
    )


def scored_by(
    of: Planted, scores: np.ndarray, *, number: int = 1, variance: float | None = None
) -> RewardModel:
    """A reward model with these scores (n, k); NaN is none."""
    model = make_model(of.project, number)
    flat: list[tuple[Any, Any]] = list(
        zip(of.responses.ravel().tolist(), scores.ravel().tolist(), strict=True)
    )
    RewardScore.objects.bulk_create(
        RewardScore(
            project=of.project, response_id=pk, reward_model=model, mean=mean, variance=variance
        )
        for pk, mean in flat
        if not np.isnan(mean)
    )
    return model
