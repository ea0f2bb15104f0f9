"""One's own work: what waits, what is begun, what is done and can be corrected."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotator.models import Role
from annotator.queries import my_work
from annotator.services import raters
from annotator.views.helpers import Access, project_page


@project_page(Role.ANNOTATOR)
@require_GET
def my_judgments(request: HttpRequest, access: Access) -> HttpResponse:
    """Pending, drafts, submitted and skipped tasks of this person; each can be opened."""
    rater = raters.for_member(project=access.project, user=request.user)
    counts = my_work.counts(rater)
    tab = request.GET.get("tab", "")
    if tab not in my_work.TABS:
        # What somebody sent back is why one looks here; else what one did.
        tab = "pending" if counts["pending"] else "submitted"
    query = request.GET.get("q", "")[: my_work.MAX_QUERY]
    work = my_work.work(
        rater,
        options=access.project.options,
        tab=tab,
        query=query,
        after=request.GET.get("after", ""),
    )
    tabs = [(key, label, counts[key]) for key, label in my_work.LABELS_OF_TABS.items()]
    context = {"access": access, "work": work, "tabs": tabs, "tab": tab, "q": query}
    return render(request, "annotate/history.html", context)
