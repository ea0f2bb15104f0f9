"""axe finds nothing serious on any page that people judge, review or run a project with."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from PIL import Image as Pillow
from playwright.sync_api import Page, expect

from annotator.jobs import base
from annotator.models import Assignment, Project, Response, Role, User
from annotator.services import images, quality, review
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
GRAVE = ("serious", "critical")
SETTINGS = {
    "overlap": 2,
    "reasons": ["Wrong fact", "Ignores the question"],
    "criteria": ["Answers the question"],
    "failures": ["Names a source that does not exist"],
}


def faults(page: Page) -> list[str]:
    """What axe calls serious or worse, with the first place of each."""
    return [
        f"{page.url}: {found['id']}: {found['nodes'][0]['html'][:200]}"
        for found in Axe().run(page).response["violations"]
        if found["impact"] in GRAVE
    ]


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (320, 240), (shade, 80, 120)).save(file, "PNG")
    return file.getvalue()


def world(kind: str, k: int) -> tuple[Project, User]:
    project = factories.project("axe", settings=SETTINGS | {"kind": kind}, guidelines="Be *fair*.")
    earlier = [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Which is *longer*?\n\n| a | b |\n|---|---|\n| 1 | 2 |"},
    ]
    texts = [f"Answer **{n}** with `code` and\n\n```python\nprint({n})\n```" for n in range(k)]
    for number in range(2):
        of = factories.prompt(project, messages=[*earlier[:2], dict(earlier[2], n=number)])
        factories.task_of(project, kind, k, texts=texts, of=of)
    return project, factories.member(project, name="Aiko Tanabe")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("kind", "k"),
    [("pairwise", 2), ("ranking", 4), ("rating", 3), ("best-worst", 4), ("checklist", 2)],
)
def test_desk_of_every_kind(open_page: OpenPage, kind: str, k: int, scheme: str) -> None:
    project, person = world(kind, k)
    page = open_page(person, f"/p/{project.slug}/annotate/", color_scheme=scheme)
    found = faults(page)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    found += faults(page)
    page.keyboard.press("?")
    page.set_viewport_size({"width": 420, "height": 800})
    found += faults(page)
    assert found == []


def test_desk_of_images(open_page: OpenPage) -> None:
    project, person = world("pairwise", 2)
    for shade, response in enumerate(Response.objects.all()):
        kept = images.ingest(project=project, data=picture(shade * 20), alt=f"A shade, {shade}")
        Response.objects.filter(pk=response.pk).update(image=kept, text="")
    page = open_page(person, f"/p/{project.slug}/annotate/")
    expect(page.locator("img").first).to_be_visible()
    assert faults(page) == []


def test_pages_around_the_desk(open_page: OpenPage) -> None:
    project, person = world("pairwise", 2)
    page = open_page(person, f"/p/{project.slug}/annotate/")
    found = []
    for count in (1, 2):
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        expect(page.locator(".taskbar b").first).to_have_text(str(count))
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    found += faults(page)
    mine = reverse("history", args=[project.slug])
    for address in (mine, f"{mine}?queue=pending", f"{mine}?queue=skipped"):
        page.goto(address)
        found += faults(page)
    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_of_owners_and_reviewers(open_page: OpenPage, scheme: str) -> None:
    project, _ = world("pairwise", 2)
    raters = [factories.rater(project) for _ in range(3)]
    for task in project.tasks.all():
        for rater, choice in zip(raters, ("a1", "b1", "a2"), strict=True):
            factories.judgment(rater, task, choice, rationale="Shorter.")
    assert Assignment.objects.count() == 6
    run, _ = quality.start(project=project, by=None)
    base.perform(run.pk, quality.perform)
    review.refresh(project.pk)
    owner = factories.member(project, Role.OWNER)
    slug = [project.slug]
    page = open_page(owner, reverse("overview", args=slug), color_scheme=scheme)
    found = faults(page)
    for name in ("review", "raters", "quality", "tasks", "members", "settings"):
        page.goto(reverse(name, args=slug))
        found += faults(page)
    page.goto(reverse("task", args=[project.slug, project.tasks.first().pk]))
    found += faults(page)
    assert found == []
