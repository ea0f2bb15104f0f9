"""Remarks and flags from the desk: saved without leaving the task or losing what was entered."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_POST

from annotator.errors import Conflict, Invalid
from annotator.forms.judgments import read_answers
from annotator.models import Rater, Role
from annotator.queries import task_history
from annotator.services import comments, judgments, raters
from annotator.views.helpers import Access, project_page


@project_page(Role.ANNOTATOR)
@require_POST
def remark(request: HttpRequest, access: Access, assignment_id: int) -> HttpResponse:
    """Comment on the task on the desk, or flag it. The whole form came along: a draft."""
    rater = raters.for_member(project=access.project, user=request.user)
    refused = ""
    try:
        made = _remark(request, rater, assignment_id)
    except (Conflict, Invalid) as error:
        refused, made = error.message, None
    if request.htmx:
        context = {"refused_remark": refused, "text": request.POST.get("remark", "")}
        if made is not None:
            context |= {"remarks": task_history.own_remarks(made.task_id, viewer=request.user)}
            context |= {"text": "", "sent": True}
        return render(request, "annotate/remarks.html", context)
    judgments.save_draft(
        assignment_id=assignment_id,
        rater=rater,
        draft=read_answers(request.POST),
        lease_minutes=access.project.options.lease_minutes,
    )
    if refused:
        messages.warning(request, refused)
    else:
        messages.success(request, "Sent to the reviewers.")
    url = reverse("annotate", args=[access.project.slug])
    return redirect(f"{url}?assignment={assignment_id}")


def keep_unsent(request: HttpRequest, rater: Rater, assignment_id: int) -> str:
    """A remark that was typed but not sent goes with the verdict; returns why it could not."""
    if not request.POST.get("remark", "").strip():
        return ""
    try:
        _remark(request, rater, assignment_id)
    except (Conflict, Invalid) as error:
        return f"Your remark was not kept: {error.message}"
    return ""


def _remark(request: HttpRequest, rater: Rater, assignment_id: int) -> comments.Comment:
    return comments.remark(
        assignment_id=assignment_id,
        rater=rater,
        text=request.POST.get("remark", ""),
        is_flag="remark_flag" in request.POST,
    )
