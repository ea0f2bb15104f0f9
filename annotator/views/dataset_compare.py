"""Two versions of a dataset side by side."""

from __future__ import annotations

from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from annotator.models import DatasetVersion, Role
from annotator.queries import datasets as queries
from annotator.services import dataset_compare as service
from annotator.views.helpers import Access, as_id, project_page

OFFERED: Final = 100  # versions to choose among
WORDS: Final = {
    "added": ("Added", "only in the newer"),
    "removed": ("Removed", "only in the older"),
    "flipped": ("Flipped", "the same answers, the other one chosen"),
    "moved": ("Moved", "in another split"),
}


@project_page(Role.OWNER)
@require_GET
def compare(request: HttpRequest, access: Access) -> HttpResponse:
    """``?a=3&b=5``: what became of the rows of version 3 in version 5; else the two newest."""
    versions = list(access.project.dataset_versions.order_by("-number")[:OFFERED])
    older, newer = _chosen(request, access, versions)
    found = service.compare(older, newer) if older and newer else None
    context = {
        "access": access,
        "versions": versions,
        "older": older,
        "newer": newer,
        "found": found,
        "kinds": _kinds(found) if found and not found.why_not else [],
    }
    return render(request, "datasets/compare.html", context)


def _chosen(
    request: HttpRequest, access: Access, versions: list[DatasetVersion]
) -> tuple[DatasetVersion | None, DatasetVersion | None]:
    if "a" not in request.GET and "b" not in request.GET:
        return (versions[1], versions[0]) if len(versions) > 1 else (None, None)
    return _find(request, access, "a"), _find(request, access, "b")


def _find(request: HttpRequest, access: Access, name: str) -> DatasetVersion:
    number = as_id(request.GET.get(name, ""))
    # Numbers are four bytes wide: a larger one is nobody's.
    version = queries.find(access.project, number) if number and number < 2**31 else None
    if version is None:
        raise Http404("no such dataset in this project")
    return version


def _kinds(found: service.Comparison) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "title": title,
            "about": about,
            "count": found.counts[key],
            "examples": found.examples[key],
        }
        for key, (title, about) in WORDS.items()
    ]
