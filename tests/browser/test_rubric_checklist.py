"""A rubric's checklist in a browser, by keyboard alone: its themes, its keys, its verdicts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from annotator.models import CriterionVerdict, Response
from annotator.services import rubrics
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
CRITERIA = [
    {"text": "It is short.", "theme": "Form"},
    {"text": "It is rude.", "polarity": -1},
    {"text": "It names the steps.", "theme": "Content"},
    {"text": "It has no headings.", "theme": "Form"},
]


def press(page: Page, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def said() -> dict[tuple[str, str], int | None]:
    """(criterion, the answer's text) -> value."""
    rows = CriterionVerdict.objects.select_related("criterion")
    texts = dict(Response.objects.values_list("pk", "text"))
    return {(one.criterion.text, texts[one.response_id]): one.value for one in rows}


def test_rubric_is_checked_by_keyboard_alone(open_page: OpenPage) -> None:
    project = factories.project("checks", settings={"criteria": ["Polite"]})
    rubric = rubrics.create(project=project, name="Letters", by=None)
    version = rubrics.draft(rubric=rubric, by=None)
    for values in CRITERIA:
        rubrics.add(version=version, by=None, **values)
    rubrics.approve(version=version, by=None)
    for number in range(2):
        texts = [f"Letter {number}.", f"Note {number}."]
        factories.task_of(project, "checklist", texts=texts, rubric_version_id=version.pk)
    page = open_page(factories.member(project, name="Aiko Tanabe"), "/p/checks/annotate/")
    expect(page.locator("h1")).to_have_text("What holds for each answer?")
    expect(page.locator(".ratings h2")).to_have_text(["Form", "Content", "What went wrong?"])
    expect(page.locator(".ratings h3")).to_have_text(
        ["It is short.", "It has no headings.", "It names the steps.", "It is rude."]
    )
    cells = page.locator(".cells")
    left = {round(cells.nth(at).bounding_box()["x"]) for at in range(4)}
    assert len(left) == 1, "the cells of all themes stand in one column"
    a, b = (text.strip() for text in page.locator(".response .prose").all_inner_texts())
    press(page, "y n y y - y Shift+N Enter")
    expect(page.locator(".taskbar b").first).to_have_text("1")
    assert said() == {
        ("It is short.", a): 1, ("It is short.", b): 0,
        ("It has no headings.", a): 1, ("It has no headings.", b): 1,
        ("It names the steps.", a): None, ("It names the steps.", b): 1,
        ("It is rude.", a): 0, ("It is rude.", b): 0,
    }  # fmt: skip
    page.keyboard.press("u")
    expect(page.locator(".notice")).to_have_text("Reopened with your answers.")
    assert said() == {}
    expect(page.locator("[data-grid] input:checked")).to_have_count(8)
    page.get_by_role("radiogroup", name="It is short., answer B").get_by_label("n/a").check()
    page.keyboard.press("Enter")
    expect(page.locator(".taskbar b").first).to_have_text("1")
    assert said()["It is short.", b] is None
