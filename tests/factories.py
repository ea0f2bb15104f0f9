"""Rows for tests: functions with defaults, each a complete and legal little world."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.core.cache import caches
from django.db.models import F
from django.utils import timezone

from annotator.kinds.pairwise import pairwise_verdict
from annotator.models import (
    Assignment,
    AssignmentState,
    Endpoint,
    Judge,
    Judgment,
    Membership,
    Project,
    ProjectSettings,
    Prompt,
    Rater,
    Response,
    Role,
    Task,
    User,
)
from annotator.services import judgments, raters

_number = itertools.count(1)


def forget_cached() -> None:
    """Nothing cached is found from here on.

    Not ``cache.clear()``: that flushes the Redis database, with the sessions and the queued jobs
    of whatever test runs beside this one.
    """
    caches["default"].key_prefix += "-"


def user(name: str = "", **fields: Any) -> User:
    number = next(_number)
    return User.objects.create_user(
        email=fields.pop("email", f"person{number}@example.org"),
        password=fields.pop("password", "correct horse battery"),
        name=name or f"Person {number}",
        **fields,
    )


def project(slug: str = "", *, settings: dict[str, Any] | None = None, **fields: Any) -> Project:
    options = ProjectSettings.model_validate(settings or {})
    slug = slug or f"project-{next(_number)}"
    return Project.objects.create(
        slug=slug,
        name=fields.pop("name", slug.replace("-", " ").capitalize()),
        settings=options.model_dump(mode="json"),
        **fields,
    )


def member(in_project: Project, role: Role = Role.ANNOTATOR, **fields: Any) -> User:
    person = user(**fields)
    Membership.objects.create(project=in_project, user=person, role=role)
    return person


def rater(in_project: Project, role: Role = Role.ANNOTATOR, **fields: Any) -> Rater:
    """A person who judges in the project."""
    return raters.for_member(project=in_project, user=member(in_project, role, **fields))


def endpoint(in_project: Project, **fields: Any) -> Endpoint:
    """Where a judge could be asked; nobody listens there."""
    defaults = {"name": f"endpoint-{next(_number)}", "base_url": "http://127.0.0.1:8790/v1"}
    return Endpoint.objects.create(project=in_project, **(defaults | fields))


def judge(in_project: Project, *, kind: str = "llm", **fields: Any) -> Judge:
    """A judge that has judged nothing yet, with its rater."""
    name = fields.pop("name", f"judge-{next(_number)}")
    version = fields.pop("version", 1)
    if kind == "llm" and "endpoint" not in fields:
        fields["endpoint"] = endpoint(in_project)
    rater = Rater.objects.create(
        project=in_project, kind=Rater.Kind.JUDGE, name=f"{name} v{version}"
    )
    return Judge.objects.create(
        project=in_project, rater=rater, name=name, version=version, kind=kind, **fields
    )


def digest(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()


def prompt(in_project: Project, text: str = "", *, split: str = "train", **fields: Any) -> Prompt:
    text = text or f"Question {next(_number)}?"
    messages = fields.pop("messages", [{"role": "user", "content": text}])
    return Prompt.objects.create(
        project=in_project,
        content_hash=digest(repr(messages)),
        messages=messages,
        split=split,
        **fields,
    )


def response(to: Prompt, text: str = "", **fields: Any) -> Response:
    text = text or f"Answer {next(_number)}."
    return Response.objects.create(
        project=to.project,
        prompt=to,
        content_hash=digest(text, fields.get("generator", "")),
        text=text,
        **fields,
    )


def task_of(
    in_project: Project,
    kind: str = "pairwise",
    k: int = 2,
    *,
    texts: Sequence[str] = (),
    of: Prompt | None = None,
    **fields: Any,
) -> Task:
    """One prompt with ``k`` responses and a task of any kind, overlap from the project."""
    of = of or prompt(in_project)
    responses = [response(of, text) for text in texts or [""] * k]
    overlap = fields.pop("overlap", in_project.options.overlap)
    number = next(_number)
    return Task.objects.create(
        project=in_project,
        prompt=of,
        kind=kind,
        response_ids=[one.pk for one in responses],
        content_hash=digest("task", str(number)),
        overlap=overlap,
        free=overlap,
        position=fields.pop("position", number),
        **fields,
    )


def pairwise_task(in_project: Project, *, texts: tuple[str, str] = ("", ""), **fields: Any) -> Task:
    return task_of(in_project, texts=texts, **fields)


def ranking_task(in_project: Project, k: int = 4, **fields: Any) -> Task:
    return task_of(in_project, "ranking", k, **fields)


def best_worst_task(in_project: Project, k: int = 4, **fields: Any) -> Task:
    return task_of(in_project, "best-worst", k, **fields)


def judgment(by: Rater, on: Task, choice: str = "a1", **fields: Any) -> Judgment:
    """A verdict as a person gives it: the place is taken, the task judged, the edge written."""
    now = timezone.now()
    assignment = Assignment.objects.create(
        project=on.project, task=on, rater=by, state=AssignmentState.LEASED, seed=1,
        shown_order=[0, 1], leased_at=now, expires_at=now + timedelta(minutes=30),
        first_paint_at=now - timedelta(seconds=20),
    )  # fmt: skip
    Task.objects.filter(pk=on.pk).update(free=F("free") - 1)
    said = {"both_bad": fields.pop("both_bad", False), "rationale": fields.pop("rationale", "")}
    done = judgments.submit(
        assignment_id=assignment.pk,
        rater=by,
        options=on.project.options,
        verdict=lambda _, order: pairwise_verdict(choice=choice, shown_order=order, **said),
    )
    if fields:
        Judgment.objects.filter(pk=done.judgment_id).update(**fields)
    return Judgment.objects.get(pk=done.judgment_id)
