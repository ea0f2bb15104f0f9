"""Reward models: the list, the form that trains one, its page, its files."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotator.errors import AppError, Gone
from annotator.forms.ensembles import WayForm, read_way
from annotator.forms.training import TrainForm
from annotator.jobs import base
from annotator.models import RewardModel, Role
from annotator.queries import evaluations, reward_scores
from annotator.queries import rewards as queries
from annotator.queries.training import LEAST_TEST, LEAST_TRAIN, readiness
from annotator.services import archives, backbones, ensembles, model_cards, training
from annotator.services import reward_scores as scoring
from annotator.views import reward_charts, reward_evaluations
from annotator.views.helpers import Access, page_after, project_page, token_or_session
from models.transforms import COMBINATIONS


@project_page(Role.OWNER)
@require_GET
def reward_models(request: HttpRequest, access: Access) -> HttpResponse:
    found = queries.listing(access.project, after=page_after(request))
    context = {
        "access": access,
        "found": found,
        "ready": readiness(access.project) if found.is_empty else None,
        "least": {"train": LEAST_TRAIN, "test": LEAST_TEST},
        "table": reward_charts.table(
            found, evaluations.headlines(access.project, [row.number for row in found.page.rows])
        ),
    }
    return render(request, "rewards/list.html", context)


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def train(request: HttpRequest, access: Access) -> HttpResponse:
    """Ask for a training and start it. htmx asks for the options of the method just chosen."""
    fitting = backbones.for_project(access.project)
    if request.method == "POST":
        form = TrainForm(request.POST, fitting=fitting)
        if form.is_valid():
            try:
                with transaction.atomic():
                    run = training.start(project=access.project, by=request.user, **form.settings())
                    base.enqueue(run)
            except AppError as error:
                form.add_error(None, f"{error.message} {error.advice}".strip())
            else:
                return redirect("run", slug=access.project.slug, run_id=run.pk)
        return _show_form(request, access, form, status=422)
    form = TrainForm(fitting=fitting, initial=request.GET)
    if request.htmx:
        return render(request, "rewards/train.html#options", {"access": access, "form": form})
    return _show_form(request, access, form)


def _show_form(
    request: HttpRequest, access: Access, form: TrainForm, *, status: int = 200
) -> HttpResponse:
    context = {
        "access": access,
        "form": form,
        "ready": readiness(access.project),
        "least": {"train": LEAST_TRAIN, "test": LEAST_TEST},
        "local_models": backbones.local_models(),
    }
    return render(request, "rewards/train.html", context, status=status)


@project_page(Role.OWNER)
@require_GET
def reward_model(request: HttpRequest, access: Access, number: int) -> HttpResponse:
    detail = queries.detail(_find(access, number))
    folder = training.artifact_folder(detail.model)
    context = {
        "access": access,
        "detail": detail,
        "model": detail.model,
        "chart": reward_charts.baselines(detail),
        "bytes": archives.size(folder),
        "folder": folder,
        "scored": reward_scores.last_done(reward_model=detail.model),
        "scoring": reward_scores.active_run(reward_model=detail.model),
        **_members(detail.model),
        **reward_evaluations.context(detail.model, beside=request.GET.get("beside", "")),
    }
    return render(request, "rewards/model.html", context)


def _members(model: RewardModel) -> dict[str, Any]:
    """What the page of an ensemble shows besides; nothing of a single model."""
    if model.members == 1:
        return {}
    way = ensembles.way_of(model)
    return {
        "ensemble": model.metrics["ensemble"],
        "combined": str(way),
        "way": WayForm.of(way),
        "ways": [
            {"key": key, "says": COMBINATIONS[key], **told}
            for key, told in model.metrics["ensemble"]["ways"].items()
        ],
    }


@project_page(Role.OWNER)
@require_POST
def score(request: HttpRequest, access: Access, number: int) -> HttpResponse:
    """Have every response scored in the background."""
    model = _find(access, number)
    try:
        with transaction.atomic():
            way = read_way(request.POST) if request.POST.get("combine") else None
            run = scoring.start(
                reward_model=model, by=request.user, **(way.as_json() if way else {})
            )
            base.enqueue(run)
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
        return redirect("reward_model", slug=access.project.slug, number=number)
    return redirect("run", slug=access.project.slug, run_id=run.pk)


@token_or_session
@project_page(Role.OWNER)
@require_GET
def artifact(request: HttpRequest, access: Access, number: int) -> HttpResponse:
    """The model's files and its card as one archive, made while it is sent."""
    model = _find(access, number)
    folder = training.artifact_folder(model)
    if not archives.files_of(folder):
        raise Gone(
            f"The files of {model.name} are no longer on the server.",
            advice="Its figures are kept. Train it again with the same options and seed.",
        )
    name = f"{access.project.slug}-{model.name}"
    card = model_cards.card(model, folder=folder).encode()
    body = archives.stream(folder, inside=name, more={model_cards.NAME: card})
    response = StreamingHttpResponse(body, content_type="application/zip")
    response["Content-Disposition"] = f'attachment; filename="{name}.zip"'
    return response


def _find(access: Access, number: int) -> RewardModel:
    model = queries.find(access.project, number)
    if model is None:
        raise Http404("no such reward model in this project")
    return model
