"""Who belongs to a project, and the links that bring people in."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotator.accounts import INVITATION_KEY
from annotator.errors import AppError
from annotator.forms.members import InviteForm, RoleForm
from annotator.models import Invitation, Membership, Role
from annotator.queries import members as people
from annotator.services import members as service
from annotator.views.helpers import Access, page_after, project_page

# A person who just lost the owner's role has no business on the members page.
AFTER_LEAVING: Final = "projects"


@project_page(Role.OWNER)
@require_GET
def members(request: HttpRequest, access: Access) -> HttpResponse:
    return _show(request, access)


@project_page(Role.OWNER)
@require_POST
def change(request: HttpRequest, access: Access, membership_id: int) -> HttpResponse:
    """Two buttons: another role, or out of the project."""
    membership = get_object_or_404(
        Membership.objects.select_related("user"), pk=membership_id, project=access.project
    )
    try:
        if "remove" in request.POST:
            service.remove(membership=membership, by=request.user)
            messages.success(request, f"{membership.user} is no longer a member.")
        else:
            form = RoleForm(request.POST)
            if not form.is_valid():
                return _show(request, access, status=422)
            role = Role(form.cleaned_data["role"])
            service.change_role(membership=membership, role=role, by=request.user)
            messages.success(request, f"{membership.user} is {_a(role)} now.")
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
        return _show(request, access, status=error.status)
    if membership.user_id == request.user.pk and "remove" in request.POST:
        return redirect(AFTER_LEAVING)
    if membership.user_id == request.user.pk and role != Role.OWNER:
        return redirect(AFTER_LEAVING)
    return redirect("members", slug=access.project.slug)


def _a(role: Role) -> str:
    word = role.label.lower()
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


@project_page(Role.OWNER)
@require_POST
@never_cache
def invite(request: HttpRequest, access: Access) -> HttpResponse:
    """Make a link and show it, this once."""
    form = InviteForm(request.POST)
    if not form.is_valid():
        return _show(request, access, form=form, status=422)
    values = form.cleaned_data
    try:
        invitation, token = service.invite(
            project=access.project,
            role=Role(values["role"]),
            note=values["note"],
            places=values["places"],
            days=values["days"],
            by=request.user,
        )
    except AppError as error:
        form.add_error(None, f"{error.message} {error.advice}".strip())
        return _show(request, access, form=form, status=error.status)
    link = request.build_absolute_uri(reverse("invitation", args=[token]))
    return _show(request, access, made=invitation, link=link)


@project_page(Role.OWNER)
@require_POST
def revoke(request: HttpRequest, access: Access, invitation_id: int) -> HttpResponse:
    invitation = get_object_or_404(Invitation, pk=invitation_id, project=access.project)
    service.revoke(invitation=invitation, by=request.user)
    messages.success(request, "The link no longer works. Who came in by it stays.")
    return redirect("members", slug=access.project.slug)


@require_http_methods(["GET", "POST"])
@never_cache
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """What the link leads to, for anyone; POST makes the signed-in user a member."""
    if request.method == "POST":
        return _accept(request, token)
    try:
        found = service.open_invitation(token)
    except AppError:
        # A closed link opens no sign-up, and nobody is sent back to it after signing in.
        request.session.pop(INVITATION_KEY, None)
        raise
    membership = None
    if request.user.is_authenticated:
        membership = found.project.memberships.filter(user=request.user).first()
    if membership is not None and service.covers(membership, found):
        request.session.pop(INVITATION_KEY, None)
    else:
        request.session[INVITATION_KEY] = token
    context = {
        "invitation": found,
        "token": token,
        "membership": membership,
        "is_covered": membership is not None and service.covers(membership, found),
    }
    return render(request, "account/invitation.html", context)


@login_required
def _accept(request: HttpRequest, token: str) -> HttpResponse:
    request.session.pop(INVITATION_KEY, None)
    accepted = service.accept(token=token, user=request.user)
    project = accepted.membership.project
    role = Role(accepted.membership.role)
    if accepted.changed:
        messages.success(request, f"Welcome to {project.name}. You are {_a(role)} there.")
    else:
        messages.info(request, f"You are {_a(role)} of {project.name} already.")
    name = "annotate" if role == Role.ANNOTATOR else "overview"
    return redirect(name, slug=project.slug)


def _show(
    request: HttpRequest,
    access: Access,
    *,
    form: InviteForm | None = None,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    context |= {
        "access": access,
        "page": people.members(access.project, after=page_after(request)),
        "invitations": people.open_invitations(access.project),
        "form": form or InviteForm(),
        "roles": Role.choices,
        "groups": [one for one in people.groups(access.project) if one.person_id is None],
        "raters": people.raters(access.project),
        "has_qualification": people.has_qualification(access.project),
    }
    return render(request, "projects/members.html", context, status=status)
