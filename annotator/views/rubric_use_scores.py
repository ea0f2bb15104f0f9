"""A version of a rubric as a reward: what scoring costs, what the scores are, beside a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from annotator import formats
from annotator.charts import Bar, BarChart, Dot, DotChart, bars, dots_with_intervals
from annotator.errors import AppError
from annotator.forms.reward_scores import RewardScoreForm
from annotator.jobs import base
from annotator.models import RewardModel, Role, RubricVersion, Run
from annotator.queries import reward_pairs
from annotator.queries import reward_scores as queries
from annotator.queries.reward_pairs import Beside
from annotator.services import reward_scores
from annotator.views.helpers import Access, project_page
from annotator.views.rubric_pages import find
from rubrics.intervals import Accuracy

MAX_WEIGHT: Final = 1_000.0


@dataclass(frozen=True)
class Compared:
    """The rubric beside a reward model, and both together."""

    model: RewardModel
    weight: float
    found: Beside | None
    chart: DotChart | None
    formula: str


def context(
    access: Access, version: RubricVersion, *, model: str = "", weight: str = ""
) -> dict[str, Any]:
    """What templates/rubrics/use_scores.html shows. ``model`` and ``weight`` as typed."""
    if version.is_draft:
        return {}
    done = queries.last_done(version)
    summary = (done.result["summary"] if done else None) or None
    models = queries.scored_models(access.project) if summary else []
    return {
        "scores_form": RewardScoreForm(version),
        "scores_cost": queries.cost(version, asked=reward_scores.criteria_asked(version)),
        "scores_run": queries.active_run(version),
        "scores_last": queries.last_run(version),
        "scores_done": done,
        "scores_summary": summary,
        "scores_chart": _histogram(summary) if summary else None,
        "scores_models": models,
        "scores_beside": _beside(version, done, models, model, weight),
    }


@project_page(Role.REVIEWER)
@require_http_methods(["GET", "POST"])
def scores(request: HttpRequest, access: Access, rubric_id: int, number: int) -> HttpResponse:
    """Start scoring, or show the rewards beside another model or weight."""
    found = find(access, rubric_id, number)
    if request.method == "POST":
        return _start(request, access, found)
    shown = context(
        access, found, model=request.GET.get("model", ""), weight=request.GET.get("weight", "")
    )
    name = "rubrics/use_scores.html#beside" if request.htmx else "rubrics/scores.html"
    return render(request, name, {"access": access, "version": found, **shown})


def _start(request: HttpRequest, access: Access, version: RubricVersion) -> HttpResponse:
    back = reverse("rubric_use", args=[access.project.slug, version.rubric_id, version.number])
    if not access.can_manage:
        messages.error(request, "Only an owner of the project starts runs.")
        return redirect(f"{back}#scores")
    form = RewardScoreForm(version, request.POST)
    if not form.is_valid():
        for name, errors in form.errors.items():
            label = form.fields[name].label if name in form.fields else ""
            messages.error(request, f"{label}: {errors[0]}")
        return redirect(f"{back}#scores")
    try:
        with transaction.atomic():
            run = reward_scores.start(version=version, by=request.user, **form.settings())
            base.enqueue(run)
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
        return redirect(f"{back}#scores")
    return redirect("run", slug=access.project.slug, run_id=run.pk)


def _beside(
    version: RubricVersion, done: Run | None, models: list[RewardModel], named: str, typed: str
) -> Compared | None:
    if done is None or not models:
        return None
    model = next((one for one in models if str(one.number) == named), models[0])
    weight = _weight(typed)
    found = reward_pairs.beside(version, model, folder=done.folder, weight=weight)
    return Compared(
        model=model,
        weight=weight,
        found=found,
        chart=_accuracies(model, found) if found and found.n else None,
        formula=_formula(model, weight, found) if found and found.scaling else "",
    )


def _weight(typed: str) -> float:
    """What was typed as a weight; 1 for nonsense."""
    try:
        found = float(typed)
    except ValueError:
        return 1.0
    return max(-MAX_WEIGHT, min(MAX_WEIGHT, found)) if not math.isnan(found) else 1.0


def _formula(model: RewardModel, weight: float, found: Beside) -> str:
    assert found.scaling is not None
    center, scale = found.scaling.center, found.scaling.scale
    return f"reward = {model.name} + {weight:g} * (rubric - {center:.6g}) / {scale:.6g}"


def _accuracies(model: RewardModel, found: Beside) -> DotChart:
    rows = (
        (model.name, found.model),
        ("rubric", found.rubric),
        ("both", found.both),
    )
    told = ", ".join(f"{name} {_words(one)}" for name, one in rows)
    dots = [
        Dot(
            name,
            one.accuracy if one else None,
            one.interval[0] if one else None,
            one.interval[1] if one else None,
            style=3 if name == "both" else 2 if name == "rubric" else 1,
            strong=name == "both",
        )
        for name, one in rows
    ]
    return dots_with_intervals(
        dots,
        label=f"Right on {found.n:,} held-out pairs: {told}.",
        heading="Right on held-out pairs",
        caption=f"{found.n:,} pairs of the test split of which both sides are scored by both.",
        unit="%",
    )


def _words(one: Accuracy | None) -> str:
    return formats.percent(one.accuracy) if one else "not measured"


def _histogram(summary: dict[str, Any]) -> BarChart:
    low, high, counts = summary["low"], summary["high"], summary["bins"]
    step = (high - low) / len(counts)
    shown = [Bar(formats.compact(low + at * step), count) for at, count in enumerate(counts)]
    most = max(range(len(counts)), key=counts.__getitem__)
    return bars(
        shown,
        label=(
            f"Rewards of {summary['n']:,} answers from {low:.3g} to {high:.3g}; most,"
            f" {counts[most]:,}, from {low + most * step:.3g} on."
        ),
        heading="Rewards",
        caption="How many answers have a reward from the number below it on.",
        highlight=len(counts),
        tick_every=4,
    )
