"""The loop of one project on one page: where it stands and what to do next."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotator.models import Role
from annotator.queries import overview as queries
from annotator.queries import quality
from annotator.views import overview_charts
from annotator.views.helpers import Access, project_page


@project_page(Role.REVIEWER)
@require_GET
def overview(request: HttpRequest, access: Access) -> HttpResponse:
    found = queries.overview(access.project, is_owner=access.can_manage)
    context = {
        "access": access,
        "found": found,
        "charts": overview_charts.charts(found),
        "alpha": quality.alpha(access.project),
    }
    return render(request, "projects/overview.html", context)
