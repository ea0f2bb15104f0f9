"""From an endpoint to a measured judge, by browser alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from annotator.jobs import judging
from annotator.models import (
    Battery,
    Judge,
    JudgeOutcome,
    Preference,
    Project,
    Role,
    Run,
    User,
)
from annotator.services import judges
from annotator.services import judging as service
from rubrics.simulated.dials import Dials
from tests import factories
from tests.browser.working import work_through
from tests.simulated import simulated

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
PAIRS = 24
PHONE = {"width": 420, "height": 800}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def world() -> tuple[Project, User, dict[str, float]]:
    """Pairs with a plainly better answer, which two people have found."""
    project = factories.project("letters", name="Discharge letters", question="Which is plainer?")
    alice = factories.member(project, Role.OWNER, name="Alice Aho")
    people = [factories.rater(project), factories.rater(project)]
    known: dict[str, float] = {}
    draw = random.Random(4)
    for number in range(PAIRS):
        good, bad = f"Take one tablet, letter {number}.", f"Ingest q.d., letter {number}."
        first_is_good = draw.random() < 0.5
        texts = (good, bad) if first_is_good else (bad, good)
        task = factories.pairwise_task(project, texts=texts)
        known |= {good: 1.2, bad: -1.2}
        for person in people:
            factories.judgment(person, task, "a1" if first_is_good else "b1")
    return project, alice, known


def test_owner_goes_from_an_endpoint_to_a_measured_judge(open_page: OpenPage, settings) -> None:
    _, alice, known = world()
    with simulated(models={"steady": Dials(noise=0.2)}, known=known) as server:
        settings.LLM_HOSTS = [server.host]
        page = open_page(alice, reverse("judges", args=["letters"]))
        page.get_by_role("link", name="Add an endpoint").first.click()
        page.get_by_label("Name").fill("sim")
        page.get_by_label("Address").fill(server.url)
        page.get_by_label("Key", exact=False).first.fill("sk-never-shown-77")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("button", name="Try it").click()
        expect(page.get_by_text("steady answers.")).to_be_visible()
        assert "sk-never-shown-77" not in page.content()
        page.get_by_role("link", name="Add a judge").click()
        page.get_by_label("Name").fill("plain")
        page.get_by_label("Models").fill("steady")
        page.get_by_role("button", name="Add the judge").click()
        expect(page.get_by_role("heading", name="plain v1")).to_be_visible()
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_text("Starts as soon as a worker is free")).to_be_visible()
        work_through(Run.objects.get(kind=Run.Kind.JUDGE), judging.judge)
        expect(page.get_by_role("link", name="Open the report")).to_be_visible()
        page.get_by_role("link", name="Open the report").click()
        figures = page.locator("dl.figures").first
        expect(figures).to_contain_text("Agrees with people")
        expect(figures).to_contain_text(f"{2 * PAIRS} calls")
        expect(page.get_by_text("Agreement, beside the human ceiling")).to_be_visible()
        expect(page.get_by_text("has not been through the attack battery")).to_be_visible()
        expect(page.get_by_role("button", name="Turn on")).to_be_disabled()
        page.get_by_role("button", name="Try the attacks").click()
        work_through(Run.objects.get(kind=Run.Kind.BATTERY), judging.battery)
        expect(page.get_by_role("link", name="See each probe")).to_be_visible()
        page.get_by_role("link", name="See each probe").click()
        expect(page.get_by_role("heading", name="Attack battery")).to_be_visible()
        expect(page.locator("#attacks").locator("..")).to_be_visible()
    judge = Judge.objects.get()
    assert JudgeOutcome.objects.filter(judge=judge, error="").count() == PAIRS
    assert Battery.objects.filter(judge=judge).exists()
    # Measured, and counted nowhere.
    held = Preference.objects.filter(rater=judge.rater).values_list("is_held", flat=True)
    assert list(held) == [True] * PAIRS


def test_kinds_of_judge_swap_their_options_in_place(open_page: OpenPage) -> None:
    _, alice, _ = world()
    page = open_page(alice, reverse("judge_new", args=["letters"]))
    page.get_by_label("Name").fill("kept")
    page.get_by_text("Program", exact=True).click()
    expect(page.locator("#options [name=shown]")).to_have_value("program")
    expect(page.get_by_label("Name")).to_have_value("kept")
    page.get_by_role("button", name="Add the judge").click()
    expect(page.get_by_role("heading", name="kept v1")).to_be_visible()


@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desk", "phone"])
def test_report_fits_and_renews_its_limit(
    open_page: OpenPage, settings, viewport: dict[str, int] | None
) -> None:
    project, alice, known = world()
    with simulated(models={"steady": Dials(noise=0.2)}, known=known) as server:
        settings.LLM_HOSTS = [server.host]
        judge = judges.add(
            project=project,
            name="plain",
            kind="llm",
            options={"models": ["steady"]},
            endpoint=factories.endpoint(project, base_url=server.url),
            by=None,
        )
        work_through(service.start(project=project, judge=judge, by=None), judging.judge)
    options = {"viewport": viewport} if viewport else {}
    page = open_page(alice, reverse("judge", args=["letters", judge.pk]), **options)
    limit = page.get_by_label("Accept while the upper bound")
    expect(limit).to_have_value("5")
    limit.fill("30")
    limit.blur()
    expect(page.get_by_text("limit 30", exact=False).first).to_be_visible()
    assert page.evaluate(OVERFLOW) <= 0
