"""Trying a version of a rubric for programs: the result at once, or the run that asks a model."""

from __future__ import annotations

from typing import Annotated, Any, Final

from django.db import transaction
from django.http import Http404, HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Field, Router, Schema, Status

from annotator.jobs import base
from annotator.models import Judge, Project, Role, Run
from annotator.queries import rubrics as queries
from annotator.queries.access import access_or_404
from annotator.services import rubric_tries as service
from annotator.services.rubric_tries import MAX_ANSWER, MAX_PROMPT, Subject

router = Router(tags=["rubrics"])

BIGGEST: Final = 2**63 - 1
BIGGEST_NUMBER: Final = 2**31 - 1
Id = Annotated[int, Field(ge=1, le=BIGGEST)]


class TryIn(Schema):
    """Texts, or ids of one or two responses to one prompt of the project.

    ``judge``: the id of the judge whose endpoint and model are asked, the version's own if null.
    """

    prompt: str = Field("", max_length=MAX_PROMPT)
    a: str = Field("", max_length=MAX_ANSWER)
    b: str = Field("", max_length=MAX_ANSWER)
    responses: list[Id] = Field([], max_length=service.MOST_ANSWERS)
    judge: Id | None = None


class TryOut(Schema):
    """``result`` where nobody had to be asked, else ``run``: its result is this one's when done."""

    run: int | None
    state: str
    result: dict[str, Any] | None


@router.post(
    "/{slug}/rubrics/{int:rubric}/versions/{int:number}/try", response={200: TryOut, 202: TryOut}
)
def try_version(
    request: HttpRequest, slug: str, rubric: int, number: int, body: TryIn
) -> Status[dict[str, Any]]:
    """What each criterion says of an answer or of two, and what that comes to."""
    access = access_or_404(request.user, slug, at_least=Role.REVIEWER)
    version = queries.find(access.project, min(rubric, BIGGEST), min(number, BIGGEST_NUMBER))
    if version is None:
        raise Http404("no such version of a rubric in this project")
    judge = None
    if body.judge is not None:
        rows = Judge.objects.select_related("endpoint", "project")
        judge = get_object_or_404(rows, project=access.project, pk=body.judge)
    with transaction.atomic():
        begun = service.begin(
            version=version, subject=_subject(access.project, body), judge=judge, by=request.user
        )
        if isinstance(begun, Run):
            base.enqueue(begun)
            return Status(202, {"run": begun.pk, "state": begun.state, "result": None})
    return Status(200, {"run": None, "state": "done", "result": begun})


def _subject(project: Project, body: TryIn) -> Subject:
    if body.responses:
        return service.pick(project=project, response_ids=body.responses)
    answers = [body.a, body.b] if body.b else [body.a]
    return service.paste(prompt=body.prompt, answers=answers)
