"""What a project's people get: limits and pauses of one, groups of some, a pause for all."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotator.errors import AppError, Invalid
from annotator.forms.members import LimitsForm
from annotator.models import Group, Membership, Rater, Role
from annotator.services import groups, members, projects, qualification, raters
from annotator.views.helpers import Access, project_page


def _membership(access: Access, membership_id: int) -> Membership:
    return get_object_or_404(
        Membership.objects.select_related("user"), pk=membership_id, project=access.project
    )


@project_page(Role.OWNER)
@require_GET
def remove(request: HttpRequest, access: Access, membership_id: int) -> HttpResponse:
    """Asks before somebody is removed: only an invitation brings them back."""
    context = {"access": access, "membership": _membership(access, membership_id)}
    return render(request, "projects/member_remove.html", context)


@project_page(Role.OWNER)
@require_POST
def limits(request: HttpRequest, access: Access, membership_id: int) -> HttpResponse:
    """Quota, daily cap, pause and qualification of one person."""
    membership = _membership(access, membership_id)
    rater = raters.for_member(project=access.project, user=membership.user)
    name = str(membership.user)
    if "grant" in request.POST:
        qualification.grant(rater=rater, by=request.user)
        messages.success(request, f"{name} may do real work.")
    elif "again" in request.POST:
        qualification.try_again(rater=rater, project=access.project, by=request.user)
        messages.success(request, f"{name} gets the qualification set once more.")
    elif "pause" in request.POST or "resume" in request.POST:
        members.set_paused(rater=rater, paused="pause" in request.POST, by=request.user)
        said = "gets nothing new" if "pause" in request.POST else "gets tasks again"
        messages.success(request, f"{name} {said}.")
    else:
        form = LimitsForm(request.POST)
        if form.is_valid():
            members.set_limits(rater=rater, by=request.user, **form.cleaned_data)
            messages.success(request, f"The limits of {name} are set.")
        else:
            messages.error(request, "Limits are whole numbers; leave one empty for the project’s.")
    return redirect("members", slug=access.project.slug)


@project_page(Role.OWNER)
@require_POST
def group(request: HttpRequest, access: Access, group_id: int | None = None) -> HttpResponse:
    """Make a group, put people in one, or delete it."""
    try:
        _change_group(request, access, group_id)
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
    return redirect("members", slug=access.project.slug)


def _change_group(request: HttpRequest, access: Access, group_id: int | None) -> None:
    if group_id is None:
        made = groups.create(
            project=access.project, name=request.POST.get("name", ""), by=request.user
        )
        messages.success(request, f"Group “{made.name}” is there. Put people in it.")
        return
    found = get_object_or_404(Group, pk=group_id, project=access.project)
    if "delete" in request.POST:
        groups.delete(group=found, by=request.user)
        messages.success(request, f"Group “{found.name}” is deleted.")
        return
    sent = request.POST.getlist("rater")
    if not all(one.isascii() and one.isdecimal() and len(one) < 19 for one in sent):
        raise Invalid("Only people of this project can be in its groups.")
    people = list(Rater.objects.filter(pk__in=sent, project=access.project))
    groups.set_raters(group=found, raters=people, by=request.user)
    messages.success(request, f"Group “{found.name}” has {len(people):,} now.")


@project_page(Role.OWNER)
@require_POST
def pause(request: HttpRequest, access: Access) -> HttpResponse:
    """Hand out nothing new in the whole project, or go on."""
    paused = "resume" not in request.POST
    projects.set_paused(project=access.project, paused=paused, by=request.user)
    said = "paused: nothing new is handed out" if paused else "going on"
    messages.success(request, f"The project is {said}.")
    return redirect("members", slug=access.project.slug)
