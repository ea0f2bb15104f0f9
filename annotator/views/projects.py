"""The list of projects, a new one, its settings, putting it away."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotator.errors import AppError, NotAllowed
from annotator.forms.projects import NewProjectForm, OptionsForm, TextsForm, refused
from annotator.kinds.checklist import IMAGE_FAILURES
from annotator.models import ProjectSettings, Role
from annotator.queries import annotation
from annotator.queries import projects as lists
from annotator.services import projects as service
from annotator.views import overview_charts
from annotator.views.helpers import Access, page_after, project_page


@require_GET
@login_required
def projects(request: HttpRequest) -> HttpResponse:
    archived = "archived" in request.GET
    found = lists.projects(request.user, archived=archived, after=page_after(request))
    rows = [
        (
            row,
            overview_charts.agreement(row.figures.agreement, width=96)
            if row.sees_figures
            else None,
        )
        for row in found.page.rows
    ]
    context = {"found": found, "archived": archived, "rows": rows}
    return render(request, "projects/projects.html", context)


@require_http_methods(["GET", "POST"])
@login_required
def new(request: HttpRequest) -> HttpResponse:
    """A project of one's own, for those whom an operator allowed to make some."""
    if not request.user.can_create_projects:
        raise NotAllowed(
            "Your account may not create projects.", advice="Ask an operator of this server."
        )
    form = NewProjectForm(request.POST or None)
    if "preview" in request.POST:
        return _preview(request, "projects/new.html", {"form": form})
    if request.method == "POST" and form.is_valid():
        values = dict(form.cleaned_data)
        options = ProjectSettings(overlap=values.pop("overlap"), kind=values.pop("kind"))
        try:
            project = service.create(owner=request.user, options=options, **values)
        except AppError as error:
            form.add_error("slug", error.message)
        else:
            if options.kind == "checklist":
                messages.info(request, "Say what is to be checked; then import prompts.")
                return redirect("settings", slug=project.slug)
            return redirect("overview", slug=project.slug)
    if form.errors:
        context = {"form": form, "refused": refused(form)}
        return render(request, "projects/new.html", context, status=422)
    return render(request, "projects/new.html", {"form": form})


@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def settings(request: HttpRequest, access: Access) -> HttpResponse:
    """Texts and options on one page, saved together."""
    project = access.project
    data = request.POST or None
    # The form fills in its instance; the page around it goes on showing what is stored.
    texts = TextsForm(data, instance=type(project).objects.get(pk=project.pk))
    options = OptionsForm(data, project=project)
    context = {
        "access": access,
        "texts": texts,
        "options": options,
        "image_failures": len(IMAGE_FAILURES),
        "given": annotation.judged(project.pk),
    }
    if "fill_failures" in request.POST:
        context["options"] = options.with_image_failures()
        return render(request, "projects/settings.html", context)
    if "preview" in request.POST:
        return _preview(request, "projects/settings.html", context)
    if data is not None and texts.is_valid() and options.is_valid():
        try:
            changed = service.change(
                project=project, by=request.user, texts=texts.cleaned_data, options=options.options
            )
        except AppError as error:
            options.add_error(None, f"{error.message} {error.advice}".strip())
        else:
            messages.success(request, "Saved." if changed else "Nothing was changed.")
            return redirect("settings", slug=project.slug)
    if data is not None and (texts.errors or options.errors):
        context["refused"] = refused(texts, options)
        return render(request, "projects/settings.html", context, status=422)
    return render(request, "projects/settings.html", context)


def _preview(request: HttpRequest, template: str, context: dict) -> HttpResponse:
    """The guidelines as annotators will read them; without htmx, above the form as it was."""
    context["preview"] = request.POST.get("guidelines", "")
    if request.htmx:
        return render(request, "projects/guidelines.html#rendered", context)
    return render(request, template, context)


@project_page(Role.OWNER)
@require_POST
def archive(request: HttpRequest, access: Access) -> HttpResponse:
    """Put the project away, or with ``restore`` take it out again."""
    archived = "restore" not in request.POST
    service.set_archived(project=access.project, archived=archived, by=request.user)
    if archived:
        messages.success(request, f"{access.project.name} is archived. Nothing was deleted.")
        return redirect("projects")
    messages.success(request, f"{access.project.name} is open again.")
    return redirect("overview", slug=access.project.slug)
