"""Review by keyboard alone and without JavaScript; correcting one's own; remarks on the desk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from annotator.models import Assignment, Comment, Judgment, Project, Rater, Role, Task, User
from annotator.services import review
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]


def world(tasks: int = 3) -> tuple[Project, User, list[Task], Rater]:
    """Flagged tasks with one vote each, the first flagged most, and a reviewer."""
    project = factories.project("court", settings={"overlap": 1})
    voter = factories.rater(project, name="Tom Abara")
    made = []
    for number in range(tasks):
        task = factories.pairwise_task(project, texts=(f"First {number}.", f"Second {number}."))
        factories.judgment(voter, task, "a1", rationale=f"Because {number}.")
        for _ in range(tasks - number):
            review.flag(task=task)
        made.append(task)
    return project, factories.member(project, Role.REVIEWER, name="Ravi Menon"), made, voter


def heading(page: Page, text: str) -> None:
    expect(page.locator("h1")).to_contain_text(text)


def test_review_by_keyboard_alone(open_page: OpenPage) -> None:
    _, reviewer, (first, second, third), voter = world()
    page = open_page(reviewer, "/p/court/review/")
    heading(page, "Flagged 1 of 3")
    page.keyboard.press("j")
    heading(page, "Flagged 2 of 3")
    page.keyboard.press("k")
    heading(page, "Flagged 1 of 3")
    expect(page.locator(".response .prose").first).to_have_text("First 0.")
    page.keyboard.press("4")
    page.keyboard.press("w")
    page.keyboard.type("Second is right.")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    heading(page, "Flagged 1 of 2")
    expect(page.locator(".response .prose").first).to_have_text("First 1.")
    decided = Judgment.objects.get(kind="adjudication", is_current=True)
    assert (decided.task_id, decided.ranks, decided.strength) == (first.pk, [2, 1], 1)
    assert decided.rationale == "Second is right."
    assert Judgment.objects.get(task=first, kind="vote").is_current

    page.keyboard.press("1")
    page.keyboard.press("o")
    expect(page.locator(".response .prose").first).to_have_text("First 2.")
    second.refresh_from_db()
    assert (second.is_gold, second.gold["ranks"]) == (True, [1, 2])

    page.get_by_label("Send back to Tom Abara").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Send back to 1 rater")).to_be_visible()
    page.keyboard.press("w")
    page.keyboard.type("Which one is true?")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    heading(page, "Review")
    expect(page.locator(".empty h2")).to_have_text("Nothing to review")
    held = Assignment.objects.get(task=third)
    assert (held.state, held.sent_back_note) == ("leased", "Which one is true?")

    desk = open_page(voter.user, "/p/court/annotate/")
    expect(desk.locator(".note")).to_contain_text("Which one is true?")
    desk.keyboard.press("5")
    desk.keyboard.press("Enter")
    expect(desk.locator("h1")).to_have_text("You are up to date")
    again = Judgment.objects.get(task=third, kind="vote", is_current=True)
    assert (again.revision, again.strength) == (3, 2)


def test_review_without_javascript(open_page: OpenPage) -> None:
    _, reviewer, (first, second, _), _ = world()
    page = open_page(reviewer, "/p/court/review/", java_script_enabled=False)
    heading(page, "Flagged 1 of 3")
    page.get_by_label("B much better").check()
    page.get_by_role("textbox", name="Your reason").fill("Plain HTML.")
    page.get_by_role("button", name="Decide and next").click()
    heading(page, "Flagged 1 of 2")
    expect(page.locator(".message")).to_have_text("Decided.")
    decided = Judgment.objects.get(kind="adjudication")
    assert (decided.task_id, decided.ranks, decided.strength) == (first.pk, [2, 1], 2)
    page.get_by_role("button", name="Send back").click()
    expect(page.get_by_role("alert")).to_contain_text("Say why it comes back")
    page.problems.clear()  # the browser's own note of the 422
    page.get_by_role("button", name="Set aside").click()
    heading(page, "Flagged 1 of 1")
    page.get_by_text("Add a remark").click()
    page.get_by_label("Remark", exact=True).fill("Seen by two.")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#remarks .plain")).to_have_text("Seen by two.")
    second.refresh_from_db()
    assert not second.is_settled


def test_correcting_own_judgment_adds_a_revision_that_says_what_was_shown(
    open_page: OpenPage,
) -> None:
    _, _, tasks, voter = world(tasks=2)
    Assignment.objects.filter(task=tasks[0]).update(shown_order=[1, 0])
    page = open_page(voter.user, "/p/court/judgments/?tab=submitted&q=because+0")
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator("td").first).to_contain_text("B better")
    row.get_by_role("button", name="Correct").click()
    expect(page.locator("[name=verdict][value=b1]")).to_be_checked()
    expect(page.locator("#why")).to_have_value("Because 0.")
    texts = page.locator(".response .prose").all_inner_texts()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("You are up to date")
    history = Judgment.objects.filter(task=tasks[0]).order_by("revision")
    assert [(one.kind, one.is_current) for one in history] == [
        ("vote", False),
        ("withdrawal", False),
        ("vote", True),
    ]
    newest = history[2]
    best = tasks[0].response_ids[newest.ranks.index(1)]
    assert tasks[0].prompt.responses.get(pk=best).text == texts[0].strip()
    assert (newest.strength, newest.rationale) == (2, "Because 0.")
    page.goto("/p/court/judgments/?tab=submitted&q=because+0")
    expect(row.locator("td").first).to_contain_text("A much better")
    expect(row.locator("td").first).to_contain_text("2 revisions")


def test_remark_from_the_desk_by_key_and_without_javascript(open_page: OpenPage) -> None:
    project = factories.project("court", settings={"overlap": 2})
    factories.pairwise_task(project)
    person = factories.member(project)
    page = open_page(person, "/p/court/annotate/")
    page.keyboard.press("4")
    page.keyboard.press("!")
    expect(page.locator("#remark")).to_be_focused()
    page.keyboard.type("1s this <b>safe</b>?")
    page.get_by_label("Flag this task").check()
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#remarks .plain")).to_contain_text("1s this <b>safe</b>?")
    expect(page.locator("[name=verdict][value=b1]")).to_be_checked()
    assert Comment.objects.get().is_flag

    plain = open_page(person, "/p/court/annotate/", java_script_enabled=False)
    plain.get_by_label("A much better").check()
    plain.get_by_role("button", name="Remark").click()
    plain.locator("#remark").fill("Second thought.")
    plain.get_by_role("button", name="Send").click()
    expect(plain.locator(".message")).to_have_text("Sent to the reviewers.")
    expect(plain.locator("[name=verdict][value=a2]")).to_be_checked()
    assert Comment.objects.count() == 2
