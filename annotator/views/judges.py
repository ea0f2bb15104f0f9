"""AI judges: the list, the form that makes one, its report, and what it may do."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotator.errors import AppError
from annotator.forms.judges import PREFIX, JudgeForm, JudgeRunForm
from annotator.jobs import base
from annotator.models import Judge, Role, RubricVersion, Run
from annotator.queries import judge_report
from annotator.queries import judges as queries
from annotator.queries import rubric_judges as rubrics
from annotator.queries.run_commands import ledger
from annotator.services import battery as batteries
from annotator.services import judge_report as reports
from annotator.services import judges as service
from annotator.services import judging
from annotator.views import judge_charts, judge_list
from annotator.views.helpers import Access, page_after, project_page
from rubrics.judging import JUDGES

TRIES: Final = 200


@project_page(Role.REVIEWER)
@require_GET
def judges(request: HttpRequest, access: Access) -> HttpResponse:
    archived = request.GET.get("show") == "archived"
    page = queries.listing(access.project, after=page_after(request), archived=archived)
    context = {
        "access": access,
        "page": page,
        "table": judge_list.table(page.rows),
        "archived": archived,
        "endpoints": queries.endpoints(access.project) if access.can_manage else [],
    }
    return render(request, "judges/list.html", context)


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest, access: Access) -> HttpResponse:
    """Ask for a judge and add it. htmx asks for the options of the kind just chosen."""
    if request.method == "POST":
        form = JudgeForm(request.POST, project=access.project)
        if form.is_valid():
            try:
                judge = service.add(project=access.project, by=request.user, **form.values())
            except AppError as error:
                form.add_error(None, f"{error.message} {error.advice}".strip())
            else:
                return redirect("judge", slug=access.project.slug, judge_id=judge.pk)
        return _form(request, access, form, status=422)
    initial = _initial(request, access)
    if request.htmx:
        initial |= _typed(request)
    form = JudgeForm(project=access.project, initial=initial)
    if request.htmx:
        return render(request, "judges/new.html#options", {"access": access, "form": form})
    return _form(request, access, form)


def _typed(request: HttpRequest) -> dict[str, Any]:
    """What stood in the form of the same kind before another rubric was chosen."""
    sent = request.GET
    if not sent.get("kind") or sent.get("shown") != sent["kind"] or sent["kind"] not in JUDGES:
        return {}
    fields = JUDGES[sent["kind"]].load_options().model_fields
    typed: dict[str, Any] = {name: sent[PREFIX + name] for name in fields if PREFIX + name in sent}
    typed |= {
        name: PREFIX + name in sent for name, info in fields.items() if info.annotation is bool
    }
    return typed | ({"endpoint": sent["endpoint"]} if "endpoint" in sent else {})


def _initial(request: HttpRequest, access: Access) -> dict[str, Any]:
    """What the form starts from: another judge's settings, or the kind and rubric in the address."""
    asked: dict[str, Any] = {
        "kind": request.GET.get("kind", ""),
        "name": request.GET.get("name", ""),
        "rubric": request.GET.get("rubric", ""),
    }
    like = request.GET.get("like", "")
    found = queries.find(access.project, int(like)) if _is_number(like) else None
    if found is not None and found.kind in JUDGES and asked["kind"] in ("", found.kind):
        options = dict(found.options)
        if found.rubric_version_id is not None:
            options.pop("criteria", None)  # the version has them
        return {
            **options, "kind": found.kind, "name": found.name, "endpoint": found.endpoint_id,
            "rubric": found.rubric_version_id or "",
        }  # fmt: skip
    version = rubrics.find_version(access.project, asked["rubric"])
    if version is not None:
        return asked | _by_rubric(version, asked)
    return asked


def _by_rubric(version: RubricVersion, asked: dict[str, Any]) -> dict[str, Any]:
    """The name of a rubric, and the endpoint and model that checked its criteria."""
    found: dict[str, Any] = {"name": asked["name"] or version.rubric.name}
    verifier = version.verifier
    if verifier is not None and verifier.endpoint_id is not None:
        found |= {
            "endpoint": verifier.endpoint_id,
            "models": verifier.options.get("models", [])[:1],
        }
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19


def _form(
    request: HttpRequest, access: Access, form: JudgeForm, *, status: int = 200
) -> HttpResponse:
    context = {"access": access, "form": form}
    return render(request, "judges/new.html", context, status=status)


@project_page(Role.REVIEWER)
@require_GET
def judge(request: HttpRequest, access: Access, judge_id: int) -> HttpResponse:
    """The report, computed again in the background where it is behind."""
    found = _find(access, judge_id)
    run = reports.start_if_stale(judge=found)
    if run is not None:
        base.enqueue(run)
    return _show(request, access, found)


def _show(
    request: HttpRequest,
    access: Access,
    found: Judge,
    *,
    run_form: JudgeRunForm | None = None,
    status: int = 200,
) -> HttpResponse:
    report = judge_report.report(found)
    context = {
        "access": access,
        "judge": found,
        "what": queries.what(found),
        "can_run": found.kind in JUDGES and found.archived_at is None,
        "active": queries.active_runs(found),
        "report": report,
        "figures": report.figures if report else None,
        "newer": judge_report.newer(found, report) if report else 0,
        "headlines": judge_charts.headlines(report.figures) if report else [],
        "charts": judge_charts.report_page(report.figures) if report else None,
        "battery": judge_charts.battery(queries.last_battery(found)),
        "run_form": run_form or JudgeRunForm(),
        "failures": queries.failures(found),
        "settings": _settings(found),
        "criteria": rubrics.shown_criteria(found),
    }
    return render(request, "judges/judge.html", context, status=status)


def _settings(found: Judge) -> list[tuple[str, str]]:
    """Its options under the names that the form gives them."""
    if found.kind not in JUDGES:
        return ledger(found.options)
    fields = JUDGES[found.kind].load_options().model_fields
    titles = {key: (info.title or key) for key, info in fields.items()}
    return ledger(
        {titles.get(key, key): value for key, value in found.options.items() if key != "criteria"}
    )


def _find(access: Access, judge_id: int) -> Judge:
    found = queries.find(access.project, judge_id)
    if found is None:
        raise Http404("no such judge in this project")
    return found


@project_page(Role.OWNER)
@require_POST
def run(request: HttpRequest, access: Access, judge_id: int) -> HttpResponse:
    """Let it judge, in the background."""
    found, form = _find(access, judge_id), JudgeRunForm(request.POST)
    if form.is_valid():
        try:
            with transaction.atomic():
                started = judging.start(
                    project=access.project, judge=found, by=request.user, **form.values()
                )
                base.enqueue(started)
        except AppError as error:
            form.add_error(None, f"{error.message} {error.advice}".strip())
        else:
            return redirect("run", slug=access.project.slug, run_id=started.pk)
    return _show(request, access, found, run_form=form, status=422)


@project_page(Role.OWNER)
@require_POST
def battery(request: HttpRequest, access: Access, judge_id: int) -> HttpResponse:
    """Try the attacks on it, in the background."""
    found = _find(access, judge_id)

    def start() -> Run:
        return batteries.start(judge=found, tries=TRIES, by=request.user)

    return _started(request, access, found, start)


@project_page(Role.REVIEWER)
@require_POST
def measure(request: HttpRequest, access: Access, judge_id: int) -> HttpResponse:
    """Compute its report again."""
    found = _find(access, judge_id)

    def start() -> Run:
        return reports.start(judge=found, by=request.user)[0]

    return _started(request, access, found, start)


def _started(request: HttpRequest, access: Access, found: Judge, start: Any) -> HttpResponse:
    try:
        with transaction.atomic():
            base.enqueue(started := start())
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
        return redirect("judge", slug=access.project.slug, judge_id=found.pk)
    return redirect("run", slug=access.project.slug, run_id=started.pk)


@project_page(Role.OWNER)
@require_POST
def archive(request: HttpRequest, access: Access, judge_id: int) -> HttpResponse:
    found = _find(access, judge_id)
    service.archive(judge=found, by=request.user, is_archived=not found.archived_at)
    messages.success(request, "In use again." if not found.archived_at else "Archived.")
    return redirect("judges", slug=access.project.slug)


@project_page(Role.OWNER)
@require_GET
def calls(request: HttpRequest, access: Access) -> HttpResponse:
    """The ledger: every call that was paid for, newest first, or those of one run."""
    asked = request.GET.get("run", "")
    run_id = int(asked) if _is_number(asked) else None
    page = queries.calls(access.project, run_id=run_id, after=page_after(request))
    return render(request, "judges/calls.html", {"access": access, "page": page, "run_id": run_id})


@project_page(Role.OWNER)
@require_GET
def call(request: HttpRequest, access: Access, call_id: int) -> HttpResponse:
    found = queries.find_call(access.project, call_id)
    if found is None:
        raise Http404("no such call in this project")
    return render(request, "judges/call.html", {"access": access, "call": found})
