"""axe finds nothing serious on any page that people judge, review or run a project with."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from PIL import Image as Pillow
from playwright.sync_api import Page, expect

from annotator.jobs import base, judging, reports
from annotator.models import (
    Assignment,
    JudgeOutcome,
    LlmCall,
    Project,
    Response,
    Role,
    Run,
    RunState,
    User,
)
from annotator.queries import judge_report
from annotator.services import battery, images, judges, quality, review
from annotator.services import judge_report as report_service
from annotator.services import judging as judging_service
from rubrics.simulated.dials import Dials
from tests import factories
from tests.browser.working import work_through
from tests.simulated import simulated

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


def judged(project: Project, url: str, known: dict[str, float]) -> tuple[int, int, int]:
    """A judge with a report, a battery and a task that it could not judge.

    Returns (judge, run, endpoint).
    """
    people = [factories.rater(project) for _ in range(2)]
    for number in range(24):
        texts = (f"Take one tablet, letter {number}.", f"Ingest q.d., letter {number}.")
        task = factories.pairwise_task(project, texts=texts)
        known |= {texts[0]: 1.2 - number % 5 / 4, texts[1]: -0.5}
        for person in people:
            factories.judgment(person, task, "b1" if number % 6 == 0 else "a1")
    endpoint = factories.endpoint(project, base_url=url, is_simulated=True)
    judge = judges.add(
        project=project,
        name="steady",
        kind="llm",
        options={"models": ["steady"]},
        endpoint=endpoint,
        by=None,
    )
    run = judging_service.start(project=project, judge=judge, by=None)
    work_through(run, judging.judge)
    work_through(battery.start(judge=judge, tries=20, by=None), judging.battery)
    measured, _ = report_service.start(judge=judge, by=None)
    work_through(measured, reports.report)
    assert judge_report.report(judge) is not None
    left = project.tasks.first()
    JudgeOutcome.objects.filter(judge=judge, task=left).update(
        error="unreadable", detail="it has no verdict"
    )
    Run.objects.filter(pk=run.pk).update(counters=run.counters | {"failed": 1})
    return judge.pk, run.pk, endpoint.pk


def test_pages_of_judges(open_page: OpenPage, settings) -> None:
    project = factories.project("letters", name="Discharge letters")
    owner = factories.member(project, Role.OWNER)
    with simulated(models={"steady": Dials(noise=0.5)}, known=(known := {})) as server:
        settings.LLM_HOSTS = [server.host]
        judge, run, endpoint = judged(project, server.url, known)
    assert not Run.objects.exclude(state=RunState.DONE).exists()
    call = LlmCall.objects.first()
    addresses = [
        reverse(name, args=["letters", *ids])
        for name, *ids in (
            ("judges",), ("judge", judge), ("judge_accept", judge), ("judge_new",),
            ("endpoint_new",), ("endpoint", endpoint), ("calls",), ("call", call.pk),
            ("run", run), ("run_failures", run),
        )
    ]  # fmt: skip
    addresses.append(reverse("judge_new", args=["letters"]) + "?kind=program")
    page = open_page(owner, addresses[0])
    found = []
    for scheme, width in (("light", 1280), ("dark", 420)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        for address in addresses:
            page.goto(address)
            if address == addresses[1]:
                expect(page.get_by_role("button", name="Turn on")).to_be_visible()
            page.evaluate(
                "document.querySelectorAll('main details').forEach((one) => { one.open = true })"
            )
            found += faults(page)
    assert found == []
