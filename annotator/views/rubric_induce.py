"""Starting an induction: the form, what it would take, and the run that it queues."""

from __future__ import annotations

from typing import Any, Final

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from annotator.errors import AppError
from annotator.forms.induction import InduceForm
from annotator.jobs import base
from annotator.models import Role, Rubric
from annotator.queries import induction as queries
from annotator.services import induction_plan
from annotator.views.helpers import Access, page_after, project_page

PAGE: Final = "rubrics/induce.html"


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def induce(request: HttpRequest, access: Access) -> HttpResponse:
    """Ask for an induction and start it. htmx asks for a method's options, and for the estimate."""
    judges = induction_plan.usable_judges(access.project)
    if request.method == "POST":
        form = InduceForm(request.POST, project=access.project, judges=judges)
        if form.is_valid():
            try:
                with transaction.atomic():
                    run = induction_plan.start(by=request.user, **form.values())
                    base.enqueue(run)
            except AppError as error:
                form.add_error(None, f"{error.message} {error.advice}".strip())
            else:
                return redirect("run", slug=access.project.slug, run_id=run.pk)
        return _page(request, access, form, status=422)
    if request.htmx and request.htmx.target == "estimate":
        form = InduceForm(request.GET, project=access.project, judges=judges)
        return render(request, f"{PAGE}#estimate", _context(access, form))
    form = InduceForm(project=access.project, judges=judges, initial=_initial(request, access))
    if request.htmx and request.htmx.target == "options":
        return render(request, f"{PAGE}#options", {"access": access, "form": form})
    return _page(request, access, form)


def _initial(request: HttpRequest, access: Access) -> dict[str, Any]:
    """What the address asks for: a method, a judge, the rubric whose next draft it shall be."""
    found: dict[str, Any] = {"method": request.GET.get("method", "")}
    if request.GET.get("judge"):
        found["judge"] = request.GET["judge"]
    wanted = page_after(request, "rubric")
    if wanted is not None:
        rubric = Rubric.objects.filter(project=access.project, pk=wanted).first()
        if rubric is not None:
            found["name"] = rubric.name
    return found


def _page(
    request: HttpRequest, access: Access, form: InduceForm, *, status: int = 200
) -> HttpResponse:
    return render(request, PAGE, _context(access, form), status=status)


def _context(access: Access, form: InduceForm) -> dict[str, Any]:
    """An unbound form is estimated as it stands: somebody may send it as it is."""
    known = form
    if not form.is_bound:
        defaults = {name: form[name].initial for name in form.fields}
        sent = {name: value for name, value in defaults.items() if value not in (None, False)}
        if form.asks and not sent.get("judge") and form.judges:
            sent["judge"] = str(form.judges[0].pk)
        known = InduceForm(
            sent | {"method": form.method}, project=access.project, judges=form.judges
        )
    raters = known.data.get("raters", "all")
    raters = raters if raters in induction_plan.RATERS else "all"
    there = queries.material(access.project, raters)
    is_planned = known.is_valid()
    return {
        "access": access,
        "form": form,
        "there": there,
        "is_empty": not there.learned and not form.is_bound,
        "plan": induction_plan.plan(**known.planned()) if is_planned else None,
        "agreed": queries.lengths(access.project).agreed if form.method == "rlbff" else None,
    }
