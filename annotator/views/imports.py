"""Imports: the list, the form that uploads a file, its bad rows as CSV, taking one back."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from annotator import formats
from annotator.errors import AppError
from annotator.forms.imports import ImportForm, initial_of
from annotator.importers import IMPORTERS
from annotator.importers.types import FIELDS
from annotator.jobs import base
from annotator.models import Role, Run
from annotator.queries import imports as queries
from annotator.services import import_undo
from annotator.services import imports as service
from annotator.uploads import was_too_large
from annotator.views.helpers import Access, page_after, project_page

# A spreadsheet takes a cell that begins with one of these for a formula.
RUN_BY_SPREADSHEETS: Final = ("=", "+", "-", "@", "\t", "\r")


@project_page(Role.OWNER)
@require_GET
def imports(request: HttpRequest, access: Access) -> HttpResponse:
    page = queries.listing(access.project, after=page_after(request))
    return render(request, "imports/list.html", {"access": access, "page": page})


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest, access: Access) -> HttpResponse:
    """Upload a file, or read one that is here already in another way (``?again=RUN``)."""
    again = _again(request, access)
    if request.method == "GET":
        form = ImportForm(initial=initial_of(again.config) if again else None, again=bool(again))
        return _show_form(request, access, form, again)
    form = ImportForm(request.POST, request.FILES, again=bool(again))
    if was_too_large(request):
        limit = formats.file_size(settings.MAX_UPLOAD_BYTES)
        form.add_error("file", f"The file is larger than {limit}, the most this server takes.")
    if form.is_valid():
        try:
            run = _start(request, access, form, again)
        except AppError as error:
            form.add_error(None, f"{error.message} {error.advice}".strip())
        else:
            return redirect("run", slug=access.project.slug, run_id=run.pk)
    return _show_form(request, access, form, again, status=422)


def _again(request: HttpRequest, access: Access) -> Run | None:
    """The earlier import whose file is to be read; only one of this project's uploads."""
    number = page_after(request, "again")
    if number is None:
        return None
    found = queries.find(access.project, number)
    if found is None or found.config.get("absolute", True):
        raise Http404("no such upload in this project")
    return found


def _start(request: HttpRequest, access: Access, form: ImportForm, again: Run | None) -> Run:
    with transaction.atomic():
        if again is None:
            run = service.receive(
                project=access.project,
                upload=form.cleaned_data["file"],
                config=form.config(),
                by=request.user,
            )
        else:
            run = service.read_again(run=again, config=form.config(), by=request.user)
        base.enqueue(run)
    return run


def _show_form(
    request: HttpRequest,
    access: Access,
    form: ImportForm,
    again: Run | None,
    *,
    status: int = 200,
) -> HttpResponse:
    context = {
        "access": access,
        "form": form,
        "again": again,
        "formats": IMPORTERS.values(),
        "known_fields": FIELDS.items(),
        "limit": settings.MAX_UPLOAD_BYTES,
    }
    return render(request, "imports/new.html", context, status=status)


@project_page(Role.OWNER)
@require_GET
def bad_rows(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    """Line, reason and text of the bad rows, streamed."""
    run = _find(access, run_id)
    response = StreamingHttpResponse(_lines(run), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="import-{run.pk}-bad-rows.csv"'
    return response


class _Echo:
    """A file that hands back what is written to it."""

    def write(self, text: str) -> str:
        return text


def _lines(run: Run) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(["line", "reason", "text"])
    for line, reason, excerpt in queries.issues(run):
        yield writer.writerow([line, harmless(reason), harmless(excerpt)])


def harmless(cell: str) -> str:
    """The cell as text in every spreadsheet: an apostrophe goes before what would be run."""
    return f"'{cell}" if cell.lstrip(" ").startswith(RUN_BY_SPREADSHEETS) else cell


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def undo(request: HttpRequest, access: Access, run_id: int) -> HttpResponse:
    """Say what undoing does; do it when asked."""
    run = _find(access, run_id)
    import_undo.check(run)
    if request.method == "GET":
        context: dict[str, Any] = {
            "access": access,
            "run": run,
            "foretold": import_undo.foretell(run),
        }
        return render(request, "imports/undo.html", context)
    done = import_undo.undo(run=run, by=request.user)
    messages.success(request, _undone(done))
    return redirect("run", slug=access.project.slug, run_id=run.pk)


def _undone(done: dict[str, int]) -> str:
    text = f"Undone: {done['tasks']:,} pairs and {done['judgments']:,} votes were removed."
    return f"{text} {done['kept']:,} pairs that were judged since stay." if done["kept"] else text


def _find(access: Access, run_id: int) -> Run:
    run = queries.find(access.project, run_id)
    if run is None:
        raise Http404("no such import in this project")
    return run
