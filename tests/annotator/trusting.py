"""Judges that have judged and may be trusted: rows as runs and rules leave them."""

from __future__ import annotations

from django.utils import timezone

from annotator.models import (
    AcceptRule,
    Assignment,
    Battery,
    Judge,
    JudgeOutcome,
    Judgment,
    Preference,
    Project,
    Task,
)
from tests import factories


def says(judge: Judge, task: Task, *, first: bool | None, confidence: float | None) -> Judgment:
    """A verdict of a judge as a run writes it: held, taking no place."""
    ranks = [1, 1] if first is None else [1, 2] if first else [2, 1]
    judgment = Judgment.objects.create(
        project=task.project, task=task, rater=judge.rater, is_counted=False, ranks=ranks,
        strength=int(first is not None), confidence=confidence, submitted_at=timezone.now(),
    )  # fmt: skip
    JudgeOutcome.objects.create(judge=judge, task=task, judgment=judgment, confidence=confidence)
    Preference.objects.create(
        project=task.project, judgment=judgment, task=task, prompt_id=task.prompt_id,
        rater=judge.rater, a_id=task.response_ids[0], b_id=task.response_ids[1],
        outcome=0 if first is None else 1 if first else -1, strength=int(first is not None),
        is_gold=task.is_gold, is_overruled=task.is_settled, is_held=True,
    )  # fmt: skip
    return judgment


def passed(judge: Judge, *, is_passed: bool = True) -> Battery:
    probes = [{"key": "blank", "label": "Blank", "is_passed": is_passed}]
    return Battery.objects.create(judge=judge, limit=0.01, probes=probes, is_passed=is_passed)


def known_tasks(judge: Judge, n: int, *, wrong: int = 0, sure: float = 0.9) -> list[Task]:
    """Pairs with a known answer that the judge has judged; the least sure are wrong."""
    made = []
    for number in range(n):
        is_wrong = number < wrong
        task = factories.pairwise_task(judge.project, gold={"ranks": [1, 2], "strength": 1})
        says(judge, task, first=not is_wrong, confidence=sure - (0.3 if is_wrong else 0) * 1.0)
        made.append(task)
    return made


def waiting_tasks(judge: Judge, n: int, *, confidence: float = 0.9) -> list[Task]:
    made = []
    for _ in range(n):
        task = factories.pairwise_task(judge.project)
        says(judge, task, first=True, confidence=confidence)
        made.append(task)
    return made


def rule(judge: Judge, *, threshold: float = 0.8, audit_share: float = 0.0) -> AcceptRule:
    """A rule as ``turn_on`` leaves it, whatever the evidence."""
    figures = {"rule": {"threshold": threshold}, "chance_right": [[0.5, 0.75], [0.85, 0.97]]}
    return AcceptRule.objects.create(
        judge=judge, limit=0.05, audit_share=audit_share, is_on=True, figures=figures
    )


def is_exact(project: Project) -> None:
    """Every task's free places are overlap - counted judgments - live leases."""
    for task in Task.objects.filter(project=project):
        leases = Assignment.objects.filter(task=task, state="leased").count()
        expected = 0 if task.is_gold else task.overlap - task.judged - leases
        assert task.free == expected, task.pk


def held(judge: Judge) -> list[bool]:
    edges = Preference.objects.filter(rater=judge.rater).order_by("task_id")
    return list(edges.values_list("is_held", flat=True))
