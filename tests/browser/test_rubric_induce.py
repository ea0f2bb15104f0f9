"""Inducing a rubric by browser: what it takes follows the form, and the run leads to the draft."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import Page, expect

from annotator.jobs.induction import induce
from annotator.models import Criterion, Project, Prompt, Role, RubricVersion, Run, User
from tests import factories
from tests.browser.working import work_through

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
GRAVE = ("serious", "critical")
PHONE = {"width": 420, "height": 800}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def world() -> tuple[Project, User]:
    """People prefer the list."""
    project = factories.project("letters", name="Letters")
    alice, rater = factories.member(project, Role.OWNER, name="Alice"), factories.rater(project)
    for number in range(24):
        texts = (f"Steps of {number}:\n\n- one\n- two", f"First one, and then two, of {number}.")
        task = factories.pairwise_task(project, texts=texts)
        if number >= 18:
            Prompt.objects.filter(pk=task.prompt_id).update(split="test")
        factories.judgment(rater, task, "a1")
    endpoint = factories.endpoint(project, prices={"sim": [1, 1]})
    factories.judge(project, name="careful", endpoint=endpoint, options={"models": ["sim"]})
    return project, alice


def test_estimate_follows_what_is_filled_in(open_page: OpenPage) -> None:
    _, alice = world()
    page = open_page(alice, reverse("rubric_induce", args=["letters"]))
    told = page.locator("#estimate")
    expect(told).to_contain_text("18 pairs of 18 prompts")
    expect(told).to_contain_text("Explain pairs, take rules")
    page.get_by_role("radio", name="ARR").check()
    expect(page.get_by_label("Criteria come from")).to_be_visible()
    expect(told).to_contain_text("Verify in both orders")
    page.get_by_label("Calls", exact=True).fill("20")
    page.get_by_label("Tokens", exact=True).focus()
    expect(told).to_contain_text("The budget would end it early")
    page.get_by_role("radio", name="Programs").check()
    expect(page.get_by_label("Calls", exact=True)).to_have_count(0)
    expect(told).to_contain_text("No model is asked")
    assert "csrfmiddlewaretoken" not in page.url
    found = [one for one in Axe().run(page).response["violations"] if one["impact"] in GRAVE]
    assert not found
    page.set_viewport_size(PHONE)
    assert page.evaluate(OVERFLOW) <= 0


def test_run_leads_to_a_draft_that_is_decided_on(open_page: OpenPage) -> None:
    _, alice = world()
    page = open_page(alice, reverse("rubric_induce", args=["letters"]) + "?method=program")
    page.get_by_label("Rubric", exact=True).fill("Lists")
    page.get_by_label("Criteria at most").fill("3")
    page.get_by_role("button", name="Induce").click()
    expect(page.get_by_role("heading", name="induce “Lists” by Programs")).to_be_visible()
    work_through(Run.objects.get(), induce)
    link = page.get_by_role("link", name="Decide on its criteria")
    expect(link).to_be_visible()
    expect(page.get_by_role("row", name="Longer answer wins")).to_be_visible()
    page.set_viewport_size(PHONE)
    assert page.evaluate(OVERFLOW) <= 0
    link.click()
    version = RubricVersion.objects.get()
    expect(page).to_have_url(re.compile(rf"/rubrics/{version.rubric_id}/v1/$"))
    assert version.criteria.filter(decision=Criterion.Decision.PROPOSED).exists()
