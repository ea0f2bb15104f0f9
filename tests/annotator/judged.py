"""Verdicts written in bulk: pairs, what people say of them, what a judge says in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import F

from annotator.models import (
    Judge,
    JudgeAnswer,
    JudgeOutcome,
    Judgment,
    Preference,
    Project,
    Prompt,
    Rater,
    Response,
    Task,
)
from tests import factories

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Said:
    """One verdict of a judge: 1 the first response, -1 the second, 0 a tie, None unreadable.

    ``straight`` and ``turned`` are the single answers, in canonical order like ``outcome``.
    """

    outcome: int | None
    confidence: float | None = None
    probability: float | None = None
    straight: int | None = None
    turned: int | None = None
    strength: int = 1
    error: str = "unreadable"


def pairs(
    project: Project,
    n: int,
    *,
    per_prompt: int = 1,
    lengths: Sequence[tuple[int, int]] = (),
    generators: Sequence[tuple[str, str]] = (),
    gold: Sequence[int | None] = (),
    **fields: Any,
) -> list[Task]:
    """Pairwise tasks, ``per_prompt`` of them on every prompt."""
    prompts = Prompt.objects.bulk_create(
        Prompt(
            project=project,
            content_hash=factories.digest("prompt", str(project.pk), str(at)),
            messages=[{"role": "user", "content": f"Question {at}?"}],
            split="test" if at % 2 else "train",
            tags=["odd" if at % 2 else "even"],
        )
        for at in range(-(-n // per_prompt))
    )
    responses = Response.objects.bulk_create(
        Response(
            project=project,
            prompt=prompts[at // per_prompt],
            content_hash=factories.digest("reply", str(project.pk), str(at), str(side)),
            text="x" * (lengths[at][side] if lengths else 10),
            generator=generators[at % len(generators)][side] if generators else "",
        )
        for at in range(n)
        for side in (0, 1)
    )
    tasks = []
    for at in range(n):
        known = gold[at % len(gold)] if gold else None
        answer = None if known is None else {"ranks": ranks(known), "strength": abs(known)}
        tasks.append(
            Task(
                project=project,
                prompt=prompts[at // per_prompt],
                response_ids=[responses[2 * at].pk, responses[2 * at + 1].pk],
                content_hash=factories.digest("task", str(project.pk), str(at)),
                position=at,
                gold=answer,
                **fields,
            )
        )
    return Task.objects.bulk_create(tasks)


def ranks(outcome: int) -> list[int]:
    return {1: [1, 2], 0: [1, 1], -1: [2, 1]}[outcome]


def vote(
    rater: Rater, tasks: Sequence[Task], outcomes: Sequence[int | None], **fields: Any
) -> list[Judgment]:
    """One verdict per task with its edge; None is no verdict."""
    said = [(task, one) for task, one in zip(tasks, outcomes, strict=True) if one is not None]
    made = Judgment.objects.bulk_create(
        Judgment(
            project=rater.project,
            task=task,
            rater=rater,
            ranks=ranks(one),
            strength=abs(one),
            submitted_at=AT,
            **fields,
        )
        for task, one in said
    )
    Preference.objects.bulk_create(
        Preference(
            project=rater.project,
            judgment=judgment,
            task=task,
            prompt_id=task.prompt_id,
            rater=rater,
            a_id=task.response_ids[0],
            b_id=task.response_ids[1],
            outcome=one,
            strength=abs(one),
            is_gold=task.is_gold,
            is_held=rater.kind == Rater.Kind.JUDGE,
        )
        for judgment, (task, one) in zip(made, said, strict=True)
    )
    Rater.objects.filter(pk=rater.pk).update(judged=F("judged") + len(made))
    return made


def imported(project: Project, *names: str) -> list[Rater]:
    kind = Rater.Kind.IMPORTED
    return [Rater.objects.create(project=project, kind=kind, name=name) for name in names]


def judge_says(judge: Judge, tasks: Sequence[Task], said: Sequence[Said]) -> None:
    """A judge's verdicts, outcomes, and where it was asked in both orders its answers."""
    made = vote(judge.rater, tasks, [one.outcome for one in said])
    judgments = {one.task_id: one for one in made}
    JudgeOutcome.objects.bulk_create(
        JudgeOutcome(
            judge=judge,
            task=task,
            judgment=judgments.get(task.pk),
            confidence=one.confidence,
            probability=one.probability,
            error="" if one.outcome is not None else one.error,
        )
        for task, one in zip(tasks, said, strict=True)
    )
    JudgeAnswer.objects.bulk_create(
        JudgeAnswer(
            judge=judge,
            task=task,
            shown_order=order,
            ranks=ranks(answer),
        )
        for task, one in zip(tasks, said, strict=True)
        for order, answer in (([0, 1], one.straight), ([1, 0], one.turned))
        if answer is not None
    )
