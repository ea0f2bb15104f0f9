"""Evaluating a reward model: the form that starts it, and finding what compares two models."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_GET, require_http_methods

from annotator.errors import AppError
from annotator.forms.evaluations import EvaluateForm
from annotator.jobs import base
from annotator.models import RewardModel, Role
from annotator.queries import evaluations
from annotator.queries import rewards as queries
from annotator.services import reward_evaluation
from annotator.views import evaluation_charts
from annotator.views.helpers import Access, project_page


def context(model: RewardModel, *, beside: str = "") -> dict[str, object]:
    """What a model's page shows of its newest evaluation."""
    run, active = evaluations.newest_and_active(model)
    figures = run.result["figures"] if run is not None else None
    return {
        "evaluating": active,
        "evaluation": run,
        "figures": figures,
        "calibrated": figures["calibration"].get(model.name) if figures else None,
        "drawn": evaluation_charts.page(figures, model.name, beside=beside) if figures else None,
    }


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def evaluate(request: HttpRequest, access: Access, number: int) -> HttpResponse:
    """Ask for an evaluation and start it."""
    model = queries.find(access.project, number)
    if model is None:
        raise Http404("no such reward model in this project")
    form = EvaluateForm(request.POST if request.method == "POST" else None, model=model)
    if request.method == "POST" and form.is_valid():
        try:
            with transaction.atomic():
                run = reward_evaluation.start(
                    reward_model=model, by=request.user, **form.settings()
                )
                base.enqueue(run)
        except AppError as error:
            form.add_error(None, f"{error.message} {error.advice}".strip())
        else:
            return redirect("run", slug=access.project.slug, run_id=run.pk)
    found = {"access": access, "model": model, "form": form}
    status = 422 if request.method == "POST" else 200
    return render(request, "rewards/evaluate.html", found, status=status)


@project_page(Role.OWNER)
@require_GET
def compare(request: HttpRequest, access: Access) -> HttpResponse:
    """Two models that were ticked: to the page that has both, or to what would compare them."""
    slug = access.project.slug
    given = [one for one in request.GET.getlist("model") if one.isascii() and one.isdecimal()]
    numbers = list(dict.fromkeys(int(one) for one in given if len(one) < 10))
    if len(numbers) != 2:
        messages.info(request, "Tick two models to set them beside each other.")
        return redirect("reward_models", slug=slug)
    models = [queries.find(access.project, number) for number in numbers]
    if None in models:
        raise Http404("no such reward model in this project")
    for model, other in (models, models[::-1]):
        run = evaluations.newest(model)
        if run is not None and other.name in run.result["figures"]["calibration"]:
            address = reverse("reward_model", args=[slug, model.number])
            return redirect(f"{address}?{urlencode({'beside': other.name})}#evaluation")
    messages.info(
        request,
        f"No evaluation has {models[0]} and {models[1]} on the same pairs yet. Start one.",
    )
    return redirect("reward_model_evaluate", slug=slug, number=models[0].number)
