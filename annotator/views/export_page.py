"""The recipe of a dataset: filled in with its counts and some of its rows beside it, saved, built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import psycopg
from django.contrib import messages
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from annotator.errors import AppError, NotFound
from annotator.exporters import EXPORTERS, dry, preview
from annotator.exporters.recipe import ExportOptions
from annotator.forms.exports import ExportForm
from annotator.jobs import base
from annotator.models import RecipeVersion, Role, Run
from annotator.queries import datasets as queries
from annotator.queries.pairs import Selection
from annotator.services import exports, recipes
from annotator.views import dataset_health, dataset_page
from annotator.views.helpers import Access, project_page

MAX_SEED: Final = 10_000
SLOW: Final = "Too many votes to count while you wait: the build counts them."


@dataclass
class Found:
    """What is known of a recipe. ``problem``: why nothing could be counted, in words."""

    preview: preview.Preview | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    health: dict[str, Any] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    seed: int = 0
    problem: str = ""
    is_asked: bool = False  # whether anything was counted at all

    @property
    def as_json(self) -> list[str]:
        """The rows as they would be written, cut short."""
        return [
            orjson.dumps(one["row"], option=orjson.OPT_INDENT_2, default=str).decode()
            for one in self.rows
        ]

    @property
    def next_seed(self) -> int:
        return (self.seed + 1) % MAX_SEED


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def export(request: HttpRequest, access: Access) -> HttpResponse:
    """Ask for a recipe, save it, build it. htmx, or the button Count, asks what it would leave."""
    if request.method == "POST":
        return _posted(request, access)
    if request.htmx and request.GET.get("sent"):
        form = ExportForm(request.GET, project=access.project)
        if request.htmx.trigger_name == "format":
            # Another format asks other things: the whole form, what was filled in kept.
            return _show_form(request, access, form, _look(request, access, form), whole=True)
        return _show_form(request, access, form, _look(request, access, form))
    try:
        recipe = _asked_recipe(request, access)
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
        recipe = None
    form = ExportForm(
        project=access.project,
        key=recipe.format if recipe else request.GET.get("format", ""),
        start=recipe.options if recipe else None,
    )
    found = Found() if recipe else _known(access, form)
    return _show_form(request, access, form, found, recipe=recipe)


def _posted(request: HttpRequest, access: Access) -> HttpResponse:
    form = ExportForm(request.POST, project=access.project)
    if "count" in request.POST:
        return _show_form(request, access, form, _look(request, access, form))
    is_valid = form.is_valid()
    if "save" in request.POST:
        saved = _save(request, access, form) if is_valid else None
        if saved is not None:
            messages.success(request, f"Recipe {saved} is saved.")
            return redirect(f"{request.path}?recipe={recipes.reference_of(saved)}")
    else:
        run = _start(request, access, form) if is_valid else None
        if run is not None:
            return redirect("run", slug=access.project.slug, run_id=run.pk)
    return _show_form(request, access, form, Found(), status=422)


def _asked_recipe(request: HttpRequest, access: Access) -> RecipeVersion | None:
    reference = request.GET.get("recipe", "")
    return recipes.named(access.project, reference) if reference else None


def _save(request: HttpRequest, access: Access, form: ExportForm) -> RecipeVersion | None:
    """The saved recipe, or None with the reason on the form."""
    try:
        return recipes.save(
            project=access.project,
            name=request.POST.get("recipe_name", ""),
            format=form.format_key,
            options=form.values(),
            by=request.user,
        )
    except AppError as error:
        form.add_error(None, f"{error.message} {error.advice}".strip())
        return None


def _start(request: HttpRequest, access: Access, form: ExportForm) -> Run | None:
    """The queued build, or None with the reason on the form."""
    try:
        with transaction.atomic():
            run = exports.start(
                project=access.project,
                format=form.format_key,
                options=form.values(),
                by=request.user,
                recipe=_recipe_named(request, access),
            )
            base.enqueue(run)
    except AppError as error:
        form.add_error(None, f"{error.message} {error.advice}".strip())
        return None
    return run


def _recipe_named(request: HttpRequest, access: Access) -> RecipeVersion | None:
    """The recipe whose name stands on the form; the build records it where it says the same."""
    name = request.POST.get("recipe_name", "").strip()
    if not name:
        return None
    try:
        return recipes.named(access.project, name)
    except NotFound:
        return None


def _known(access: Access, form: ExportForm) -> Found:
    """What a page opened anew can show without waiting; the rest comes when it is there."""
    if not form.counts_pairs:
        return Found()
    kinds = queries.known_kinds(access.project, Selection())
    if kinds is None:
        return Found()
    return Found(preview.foretell(kinds, form.options_model()))


def _look(request: HttpRequest, access: Access, form: ExportForm) -> Found:
    """Count what the recipe leaves, and take some rows of it."""
    if not form.is_valid() or not form.counts_pairs or form.options is None:
        return Found()
    seed = _seed(request)
    try:
        exports.check(access.project, form.format_key, form.options)
        found = dry.dry_run(
            access.project, EXPORTERS[form.format_key].load(), form.options, seed=seed
        )
    except AppError as error:
        return Found(problem=f"{error.message} {error.advice}".strip(), is_asked=True)
    except (OperationalError, psycopg.OperationalError):
        is_majority = (form.options.decided_by, form.options.aggregator) == ("votes", "majority")
        kinds = _kinds(access, form.options) if is_majority else None
        shown = preview.foretell(kinds, form.options) if kinds else None
        return Found(shown, problem=SLOW, is_asked=True)
    if found.is_whole:
        shown = preview.counted(found, at=timezone.now())
    else:
        kinds = _kinds(access, form.options)
        shown = preview.scaled(found, kinds, form.options, at=timezone.now())
    rows = dataset_page.with_pictures(access.project, found.rows)
    return Found(shown, rows, found.health, found.columns, seed, is_asked=True)


def _kinds(access: Access, options: ExportOptions) -> queries.Kinds | None:
    chosen = options.selection()
    # Splits are told apart in the counts, so that choosing among them needs no new ones.
    return queries.kinds(access.project, Selection(chosen.raters, chosen.names))


def _seed(request: HttpRequest) -> int:
    """Which rows are shown: the page asks for others by another number."""
    text = request.POST.get("count") or request.GET.get("seed") or "0"
    return int(text) % MAX_SEED if text.isascii() and text.isdecimal() and len(text) < 9 else 0


def _show_form(
    request: HttpRequest,
    access: Access,
    form: ExportForm,
    found: Found,
    *,
    status: int = 200,
    recipe: RecipeVersion | None = None,
    whole: bool = False,
) -> HttpResponse:
    noun = dataset_page.noun_of(form.format_key)
    context = {
        "access": access,
        "form": form,
        "found": found.preview,
        "looked": found,
        "rules": dataset_page.rules(form, found.preview),
        "checks": dataset_health.of_rows(found.health, noun=noun) if found.health else None,
        "noun": noun,
        "recipe": recipe,
        "recipe_name": request.POST.get("recipe_name")
        or request.GET.get("recipe_name")
        or (recipe.recipe.name if recipe else ""),
        "is_untouched": request.method == "GET" and not request.GET.get("sent"),
    }
    name = "datasets/counts.html" if request.htmx and not whole else "datasets/export.html"
    return render(request, name, context, status=status)
