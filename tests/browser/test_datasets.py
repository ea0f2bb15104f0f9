"""A dataset by browser: the recipe follows what is filled in, is saved, built, linked, compared."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import Page, expect

from annotator.jobs.exports import export
from annotator.models import Project, RecipeVersion, Role, Run, User
from annotator.services import exports, recipes
from tests import factories
from tests.annotator.ballots import judged_pair, raters
from tests.browser.working import work_through

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
GRAVE = ("serious", "critical")
PHONE = {"width": 420, "height": 800}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def world() -> tuple[Project, User]:
    """Six pairs that three people agree on, two ties."""
    project = factories.project("letters", name="Letters")
    people = raters(project, 3)
    for number in range(6):
        prompt = factories.prompt(project, split="test" if number == 5 else "train")
        texts = (f"A longer answer to number {number}", f"Short {number}")
        judged_pair(project, [1, 1, 1], by=people, of=prompt, texts=texts)
    for _ in range(2):
        judged_pair(project, [0, 0], by=people)
    return project, factories.member(project, Role.OWNER, name="Alice")


def built(project: Project, **options: object) -> None:
    run = exports.start(project=project, format="trl-preference", options=options, by=None)
    export(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == "done", run.error


def grave(page: Page) -> list[str]:
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:160]}"
        for one in Axe().run(page).response["violations"]
        if one["impact"] in GRAVE
    ]


def test_recipe_follows_what_is_filled_in_and_becomes_a_version(open_page: OpenPage) -> None:
    project, alice = world()
    page = open_page(alice, reverse("export", args=["letters"]))
    expect(page.locator("#rows-out")).to_have_text("6")
    expect(page.locator("#rows")).to_contain_text("A longer answer")
    expect(page.locator("#health-of-rows")).to_contain_text("Chosen is longer in 100.0 %")
    page.get_by_label("Ties, and no answer ahead:").select_option("soft")
    expect(page.locator("#rows-out")).to_have_text("8")
    page.get_by_role("radio", name="TRL unpaired, KTO").check()
    expect(page.get_by_text("Answers that won and lost")).to_be_visible()
    assert page.get_by_label("Ties, and no answer ahead:").input_value() == "soft"
    page.get_by_role("radio", name="TRL preference prompt, chosen").check()
    expect(page.get_by_text("Answers that won and lost")).to_have_count(0)
    assert not grave(page)
    page.set_viewport_size(PHONE)
    assert page.evaluate(OVERFLOW) <= 0
    page.get_by_label("Name of the recipe").fill("Soft ties")
    page.get_by_role("button", name="Save recipe").click()
    expect(page.get_by_role("main")).to_contain_text("From recipe Soft ties v1")
    saved = RecipeVersion.objects.get()
    assert saved.options["ties"] == "soft"
    page.get_by_role("button", name="Build").click()
    run = Run.objects.get(project=project)
    work_through(run, export)
    page.reload()
    page.get_by_role("link", name="Open the dataset").click()
    expect(page.get_by_role("heading", name="Dataset, version 1")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("Every file loads with datasets")
    expect(page.get_by_role("link", name="Soft ties v1")).to_be_visible()


def test_pages_of_versions_have_no_grave_fault_and_fit_a_phone(open_page: OpenPage) -> None:
    project, alice = world()
    built(project)
    built(project, ties="both")
    recipes.save(project=project, name="Plain", format="trl-preference", options={}, by=alice)
    addresses = [
        reverse("datasets", args=["letters"]),
        reverse("dataset", args=["letters", 2]),
        f"{reverse('dataset_compare', args=['letters'])}?a=1&b=2",
        reverse("recipes", args=["letters"]),
        reverse("dataset_delete", args=["letters", 1]),
    ]
    page = open_page(alice, addresses[0])
    for address in addresses:
        page.goto(re.sub(r"/p/.*", address, page.url))
        page.set_viewport_size({"width": 1280, "height": 800})
        assert not grave(page), address
        page.set_viewport_size(PHONE)
        assert page.evaluate(OVERFLOW) <= 0, address


def test_a_link_is_made_and_works_for_whoever_has_it(open_page: OpenPage) -> None:
    project, alice = world()
    built(project)
    page = open_page(alice, reverse("dataset", args=["letters", 1]))
    page.get_by_role("button", name="Make a link").click()
    link = page.locator("input[value*='/d/']").input_value()
    stranger = page.context.browser.new_context()  # type: ignore[union-attr]
    answer = stranger.request.get(link)
    assert answer.ok
    assert len(answer.text().splitlines()) == 5
    stranger.close()
