"""Thin Celery tasks: an id in, a library call, a service call out.

A worker knows the tasks of the modules named here and no others.
"""

from annotator.jobs import (
    evaluations,
    exports,
    imports,
    induction,
    judging,
    quality,
    reports,
    reward_asks,
    rubric_tries,
    scoring,
    tasks,
    training,
    watch,
)

__all__ = [
    "evaluations",
    "exports",
    "imports",
    "induction",
    "judging",
    "quality",
    "reports",
    "reward_asks",
    "rubric_tries",
    "scoring",
    "tasks",
    "training",
    "watch",
]
