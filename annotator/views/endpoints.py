"""Endpoints: where judges are asked."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from annotator.errors import AppError
from annotator.forms.judges import EndpointForm
from annotator.models import Endpoint, Role
from annotator.services import endpoints as service
from annotator.views.helpers import Access, project_page


@sensitive_post_parameters("key")
@project_page(Role.OWNER)
@require_http_methods(["GET", "POST"])
def endpoint(request: HttpRequest, access: Access, endpoint_id: int | None = None) -> HttpResponse:
    """Add an endpoint, or change one."""
    found = _find(access, endpoint_id) if endpoint_id is not None else None
    form = EndpointForm(request.POST or None, endpoint=found)
    status = 200
    if request.method == "POST":
        status = 422
        if form.is_valid():
            try:
                if found is None:
                    service.add(project=access.project, by=request.user, **form.values())
                else:
                    service.change(endpoint=found, by=request.user, **form.values())
            except AppError as error:
                form.add_error(None, f"{error.message} {error.advice}".strip())
            else:
                messages.success(request, "Saved.")
                return redirect("judges", slug=access.project.slug)
    context = {"access": access, "form": form, "endpoint": found, "hosts": service.allowed_hosts()}
    return render(request, "judges/endpoint.html", context, status=status)


def _find(access: Access, endpoint_id: int) -> Endpoint:
    found = Endpoint.objects.filter(project=access.project, pk=endpoint_id).first()
    if found is None:
        raise Http404("no such endpoint in this project")
    return found


@project_page(Role.OWNER)
@require_POST
def check(request: HttpRequest, access: Access, endpoint_id: int) -> HttpResponse:
    """Ask it for one word, and say what came of it."""
    found = _find(access, endpoint_id)
    said = service.check(endpoint=found)
    if said.is_ok:
        messages.success(request, f"{found.name}: {said.reason} It took {said.latency_ms:,} ms.")
    else:
        messages.error(request, f"{found.name}: {said.reason}")
    return redirect("judges", slug=access.project.slug)


@project_page(Role.OWNER)
@require_POST
def archive(request: HttpRequest, access: Access, endpoint_id: int) -> HttpResponse:
    found = _find(access, endpoint_id)
    service.archive(endpoint=found, by=request.user)
    messages.success(request, f"{found.name} is archived: its judges can ask it no more.")
    return redirect("judges", slug=access.project.slug)
