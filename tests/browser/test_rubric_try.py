"""Trying a rubric in a browser: pasted, asked of a model, and the answer comes by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from annotator.jobs.rubric_tries import try_rubric
from annotator.models import Criterion, Project, Role, Rubric, RubricVersion, Run
from tests import factories
from tests.browser.test_axe import faults
from tests.browser.working import work_through
from tests.simulated import simulated

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
PHONE = {"width": 420, "height": 800}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def version_of(project: Project, *rows: dict[str, Any]) -> RubricVersion:
    rubric = Rubric.objects.create(project=project, name="Plain letters")
    version = RubricVersion.objects.create(rubric=rubric, number=1)
    for position, row in enumerate(rows):
        Criterion.objects.create(version=version, position=position, **row)
    return version


def test_pasted_pair_is_asked_of_a_model_and_answered_where_it_was_asked(
    open_page: OpenPage, settings: Any
) -> None:
    project = factories.project("letters")
    alice = factories.member(project, Role.OWNER, name="Alice Aho")
    version = version_of(
        project,
        {"text": "Is polite"},
        {"text": "As short as asked", "verifier": "program", "program": "asked-words"},
    )
    with simulated() as server:
        settings.LLM_HOSTS = [server.host]
        at = factories.endpoint(project, base_url=server.url, has_logprobs=True)
        factories.judge(project, name="careful", endpoint=at, options={"models": ["sim"]})
        page = open_page(alice, reverse("rubric_try", args=["letters", version.rubric_id, 1]))
        page.get_by_label("Prompt").fill("Say hello in at most 3 words.")
        page.get_by_label("Answer A").fill("Hello, and thank you.")
        page.get_by_label("Answer B").fill("Hi there!")
        page.get_by_label("Asked of the model of").select_option(label="careful v1")
        page.get_by_role("button", name="Try it").click()
        expect(page.get_by_role("heading", name="Waits for a free worker")).to_be_visible()
        work_through(Run.objects.get(kind=Run.Kind.TRY), try_rubric)
        table = page.locator("table.trial")
        expect(table).to_contain_text("4 words; at most 3 asked")
    expect(table).to_contain_text("(Simulated.)")
    expect(page.get_by_role("heading", name="comes out first")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("comes out first")
    expect(page.get_by_label("Answer B")).to_have_value("Hi there!")
    assert page.locator("#result[hx-trigger]").count() == 0
    found = faults(page)
    task = factories.pairwise_task(project, texts=("# One\n\n`code`", "Two"))
    first, second = task.response_ids
    page.goto(f"{page.url.partition('?')[0]}?chosen={first}&rejected={second}")
    expect(page.get_by_role("heading", name="Answer B")).to_be_visible()
    assert found + faults(page) == []


def test_programs_answer_on_a_phone_without_a_script(open_page: OpenPage) -> None:
    project = factories.project("letters")
    alice = factories.member(project, Role.OWNER, name="Alice Aho")
    version = version_of(
        project, {"text": "As short as asked", "verifier": "program", "program": "asked-words"}
    )
    address = reverse("rubric_try", args=["letters", version.rubric_id, 1])
    page = open_page(alice, address, viewport=PHONE, java_script_enabled=False)
    page.get_by_label("Prompt").fill("Say hello in at most 3 words.")
    page.get_by_label("Answer A").fill("Hello, and thank you." + "x" * 200)
    page.get_by_label("Answer B").fill("Hi there!")
    page.get_by_role("button", name="Try it").click()
    expect(page.get_by_role("heading", name="B comes out first")).to_be_visible()
    assert page.evaluate(OVERFLOW) <= 0
