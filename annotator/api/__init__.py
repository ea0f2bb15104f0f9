"""The typed API under /api/v1/: the same services as the pages, with a personal token.

curl -H "Authorization: Bearer TOKEN" http://127.0.0.1:8000/api/v1/projects
"""

from __future__ import annotations

import math
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.security import HttpBearer

from annotator.api import (
    datasets,
    judge_reports,
    judges,
    projects,
    quality,
    reward_evaluations,
    reward_models,
    rubric_gaps,
    rubric_scores,
    rubric_tries,
    rubrics,
    tasks,
)
from annotator.errors import AppError, TooMany
from annotator.models import User
from annotator.services import tokens


class Token(HttpBearer):
    """A personal token from the preferences page."""

    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        user = tokens.user_of(token)
        if user is not None:
            request.user = user
        return user


api = NinjaAPI(
    title="Touchstone",
    version="1",
    urls_namespace="api",
    auth=Token(),
    description="Projects, the annotation queue, runs and data sets.",
    docs_url=None,  # the interactive page loads scripts from elsewhere, which the policy forbids
)
api.add_router("/projects", projects.router)
api.add_router("/projects", datasets.router)
api.add_router("/projects", tasks.router)
api.add_router("/projects", quality.router)
api.add_router("/projects", judges.router)
api.add_router("/projects", judge_reports.router)
api.add_router("/projects", reward_evaluations.router)
api.add_router("/projects", reward_models.project_router)
api.add_router("/reward-models", reward_models.router)
api.add_router("/projects", rubric_gaps.router)
api.add_router("/projects", rubric_scores.router)
api.add_router("/projects", rubric_tries.router)
api.add_router("/projects", rubrics.router)


@api.exception_handler(AppError)
def app_error(request: HttpRequest, error: AppError) -> HttpResponse:
    body: dict[str, Any] = {"detail": error.message}
    if error.advice:
        body["advice"] = error.advice
    response = api.create_response(request, body, status=error.status)
    if isinstance(error, TooMany):
        response["Retry-After"] = str(max(1, math.ceil(error.seconds)))
    return response


@api.exception_handler(RequestDataTooBig)
def too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    detail = f"A request has {most:,} bytes at most."
    return api.create_response(request, {"detail": detail}, status=413)


@csrf_exempt
def nothing_here(request: HttpRequest) -> HttpResponse:
    """An address under /api/v1/ that is none: a program is told in JSON, as for everything."""
    detail = f"There is no {request.path}. /api/v1/openapi.json lists what there is."
    return api.create_response(request, {"detail": detail}, status=404)


@api.exception_handler(Http404)
def not_found(request: HttpRequest, error: Http404) -> HttpResponse:
    return api.create_response(request, {"detail": "Nothing here."}, status=404)
