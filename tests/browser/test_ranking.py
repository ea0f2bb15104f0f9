"""Ranking and best-worst at the desk: by keys, by dragging, as a plain form, on a phone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.urls import reverse
from playwright.sync_api import Locator, Page, expect

from annotator.models import Assignment, Judgment, Preference, Project, User
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
PHONE = {"viewport": {"width": 420, "height": 800}, "has_touch": True}


def world(
    kind: str = "ranking", k: int = 4, *, tasks: int = 2, **settings: object
) -> tuple[Project, User]:
    project = factories.project("order", settings=settings)
    for number in range(tasks):
        texts = [f"Answer {number}{letter}." for letter in "stuvwxyzpq"[:k]]
        factories.task_of(project, kind, k, texts=texts)
    return project, factories.member(project, name="Aiko Tanabe")


def at_desk(open_page: OpenPage, world: tuple[Project, User], **options: object) -> Page:
    project, person = world
    return open_page(person, f"/p/{project.slug}/annotate/", **options)


def press(page: Page, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def expect_list(page: Page, wanted: str) -> None:
    """``1 C | 2= A B | × D``: what the list shows, from the top."""
    lines = []
    for group in wanted.split(" | "):
        place, *labels = group.split()
        lines.append((place, labels))
    expect(page.locator(".ranking > li")).to_have_count(len(lines))
    for line, (place, labels) in zip(page.locator(".ranking > li").all(), lines, strict=True):
        expect(line.locator(".place")).to_contain_text(place)
        shown = line.locator(".item")
        expect(shown).to_have_count(len(labels))
        for item, label in zip(shown.all(), labels, strict=True):
            expect(item).to_have_attribute("data-label", label)


def text_of(page: Page, label: str) -> str:
    """The answer shown under a letter."""
    article = page.locator(f"article[aria-labelledby=answer-{label.lower()}] .prose")
    return article.inner_text().strip()


def saved(page: Page, count: int) -> Judgment:
    expect(page.locator(".taskbar b").first).to_have_text(str(count))
    return Judgment.objects.filter(is_current=True).latest("pk")


def refused(page: Page) -> Locator:
    """What the page says it misses. Chromium reports the 422 that brings it; so it should."""
    note = page.get_by_role("alert")
    expect(note).to_contain_text("Not saved yet")
    assert all("422" in problem for problem in page.problems)
    page.problems.clear()
    return note


def ranks_by_text(judgment: Judgment) -> dict[str, int]:
    texts = dict(judgment.task.prompt.responses.values_list("pk", "text"))
    ids = judgment.task.response_ids
    return {texts[pk]: rank for pk, rank in zip(ids, judgment.ranks, strict=True)}


def grip(page: Page, label: str) -> Locator:
    return page.locator(f".item[data-label={label}] .grip")


def drag(page: Page, label: str, onto: str, share: float) -> None:
    """Drag one answer's grip to ``share`` of the height of another, as it is while dragging."""
    grip(page, label).scroll_into_view_if_needed()
    start = grip(page, label).bounding_box()
    page.mouse.move(start["x"] + 8, start["y"] + 8)
    page.mouse.down()
    expect(page.locator(".ranking")).to_have_attribute("data-dragging", "")
    box = page.locator(f".item[data-label={onto}]").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + share * box["height"], steps=4)
    expect(page.locator(f".item[data-label={onto}][data-drop]")).to_have_count(1)
    page.mouse.up()
    expect(page.locator(".ranking[data-dragging]")).to_have_count(0)


def test_whole_session_by_keyboard_alone(open_page: OpenPage) -> None:
    page = at_desk(open_page, world(tasks=3))
    expect_list(page, "– A | – B | – C | – D")
    press(page, "c 1 a 2 b 2")
    expect_list(page, "1 C | 2= A B | – D")
    expect(page.locator("#status")).to_have_text("Answer B, place 2, tied with A")
    press(page, "d 0")
    expect_list(page, "1 C | 2= A B | × D")
    wanted = {text_of(page, label): rank for label, rank in zip("ABCD", (2, 2, 1, 0), strict=True)}
    press(page, "w")
    page.keyboard.type("C is plain.")
    press(page, "Escape Enter")
    first = saved(page, 1)
    assert ranks_by_text(first) == wanted
    assert first.rationale == "C is plain."
    outcomes = Preference.objects.filter(judgment=first).values_list("outcome", flat=True)
    assert sorted(map(abs, outcomes)) == [0, 1, 1]

    press(page, "u")
    expect_list(page, "1 C | 2= A B | × D")
    expect(page.locator("#why")).to_have_value("C is plain.")
    press(page, "d 4 a ArrowUp")  # out of the tie, above it
    expect_list(page, "1 C | 2 A | 3 B | 4 D")
    press(page, "ArrowUp")
    expect_list(page, "1 A | 2 C | 3 B | 4 D")
    expect(page.locator("#status")).to_have_text("Answer A, place 1")
    wanted = {text_of(page, label): rank for label, rank in zip("ACBD", (1, 2, 3, 4), strict=True)}
    press(page, "Enter")
    again = saved(page, 1)
    assert (again.task_id, ranks_by_text(again)) == (first.task_id, wanted)

    press(page, "n x")
    expect_list(page, "× A | × B | × C | × D")
    press(page, "Enter")
    none = saved(page, 2)
    assert (none.ranks, none.both_bad) == ([0] * 4, True)
    press(page, "u")
    expect(page.locator("[name=none_ranked]")).to_be_checked()
    expect(page.locator("[name=both_bad]")).to_be_checked()


def test_two_keys_swap_two_answers_and_gaps_close(open_page: OpenPage) -> None:
    page = at_desk(open_page, world())
    press(page, "a 1 b 2 c 3 d 4")
    press(page, "a 2")
    expect_list(page, "2= A B | 3 C | 4 D")
    press(page, "b 1")
    expect_list(page, "1 B | 2 A | 3 C | 4 D")
    press(page, "c 2")
    expect_list(page, "1 B | 2= A C | 4 D")
    press(page, "b 4")
    expect_list(page, "2= A C | 4= B D")
    press(page, "Enter")
    assert sorted(saved(page, 1).ranks) == [1, 1, 2, 2]
    press(page, "u")
    expect_list(page, "1= A C | 3= B D")


def test_keys_go_to_the_answer_that_has_the_focus(open_page: OpenPage) -> None:
    page = at_desk(open_page, world(reasons=["Wrong", "Unclear"]))
    press(page, "1")
    expect(page.locator("#task :checked")).to_have_count(0)
    press(page, "b")
    expect(page.locator(".item[data-label=B]")).to_be_focused()
    press(page, "2")
    expect(page.locator(".item[data-label=B] [value='2']")).to_be_focused()
    press(page, "ArrowRight")  # along the places, taking none
    expect(page.locator(".item[data-label=B] [value='3']")).to_be_focused()
    expect_list(page, "2 B | – A | – C | – D")
    press(page, "Space")
    expect_list(page, "3 B | – A | – C | – D")
    press(page, "r 1")
    expect(page.locator("[name=reason-0]")).to_be_checked()
    expect_list(page, "3 B | – A | – C | – D")


def test_order_left_as_shown_is_asked_about_once(open_page: OpenPage) -> None:
    page = at_desk(open_page, world())
    shown = [text_of(page, label) for label in "ABCD"]
    press(page, "Enter")
    question = refused(page)
    expect(question).to_contain_text(
        "This is the order in which they were shown: is it your ranking?"
    )
    expect(question).to_be_focused()
    expect_list(page, "1 A | 2 B | 3 C | 4 D")
    assert not Judgment.objects.exists()
    press(page, "Enter")
    kept = saved(page, 1)
    assert ranks_by_text(kept) == dict(zip(shown, (1, 2, 3, 4), strict=True))
    press(page, "u")
    expect_list(page, "1 A | 2 B | 3 C | 4 D")
    press(page, "Enter")
    assert saved(page, 1).pk > kept.pk, "asked once, not again after undo"


def test_question_can_be_answered_by_another_order(open_page: OpenPage) -> None:
    page = at_desk(open_page, world())
    press(page, "a 1 b 2 c 3 d 4 Enter")
    refused(page)
    press(page, "d ArrowUp Enter")
    judgment = saved(page, 1)
    assert [judgment.ranks[place] for place in judgment.shown_order] == [1, 2, 4, 3]


def test_missing_places_are_named_and_nothing_is_lost(open_page: OpenPage) -> None:
    page = at_desk(open_page, world())
    press(page, "c 1 a 2 Enter")
    expect(refused(page)).to_contain_text("Give a place to B and D")
    expect_list(page, "1 C | 2 A | – B | – D")
    assert not Judgment.objects.exists()


def test_dragging_orders_and_ties(open_page: OpenPage) -> None:
    page = at_desk(open_page, world())
    drag(page, "D", "A", 0.05)
    expect_list(page, "1 D | 2 A | 3 B | 4 C")
    drag(page, "A", "C", 0.5)
    expect_list(page, "1 D | 2 B | 3= A C")
    drag(page, "C", "B", 0.95)
    expect_list(page, "1 D | 2 B | 3 C | 4 A")
    expect(page.locator("#saved")).to_contain_text("Draft saved")
    wanted = {text_of(page, label): rank for label, rank in zip("DBCA", (1, 2, 3, 4), strict=True)}
    press(page, "Enter")
    assert ranks_by_text(saved(page, 1)) == wanted
    drag(page, "B", "A", 0.5)  # the task that was swapped in
    expect_list(page, "1= A B | 3 C | 4 D")


def test_escape_gives_a_drag_up(open_page: OpenPage) -> None:
    page = at_desk(open_page, world())
    box = grip(page, "A").bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 8, box["y"] + 200, steps=3)
    expect(page.locator("[data-drop]")).to_have_count(1)
    press(page, "Escape")
    expect(page.locator("[data-drop], [data-dragged], [data-dragging]")).to_have_count(0)
    page.mouse.up()
    expect_list(page, "– A | – B | – C | – D")


def test_finger_drags_and_buttons_move_on_a_phone(open_page: OpenPage) -> None:
    page = at_desk(open_page, world(), **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.get_by_role("button", name="Move answer B up").tap()
    expect_list(page, "1 B | 2 A | 3 C | 4 D")
    grip(page, "B").scroll_into_view_if_needed()
    box = grip(page, "B").bounding_box()
    x, y = box["x"] + 8, box["y"] + 8
    finger = page.context.new_cdp_session(page)

    def touch(kind: str, *points: dict[str, float]) -> None:
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    touch("touchStart", {"x": x, "y": y})
    expect(page.locator(".ranking")).to_have_attribute("data-dragging", "")
    target = page.locator(".item[data-label=C]").bounding_box()
    touch("touchMove", {"x": x, "y": y + 20})
    touch("touchMove", {"x": x, "y": target["y"] + target["height"] / 2})
    expect(page.locator(".item[data-label=C]")).to_have_attribute("data-drop", "tie")
    touch("touchEnd")
    expect_list(page, "1 A | 2= B C | 4 D")
    # Clicked: a tap that follows within milliseconds of a made-up swipe only ends the swipe.
    page.get_by_role("button", name="Save and next").click()
    judgment = saved(page, 1)
    assert [judgment.ranks[place] for place in judgment.shown_order] == [1, 2, 2, 3]


def test_works_without_javascript(open_page: OpenPage) -> None:
    page = at_desk(open_page, world(tasks=1), java_script_enabled=False)
    expect(page.locator(".moves").first).to_be_hidden()
    save = page.get_by_role("button", name="Save and next")
    save.click()
    expect(refused(page)).to_contain_text("is it your ranking?")
    expect_list(page, "1 A | 2 B | 3 C | 4 D")
    for label, place in zip("ABCD", ("2", "1", "2", "0"), strict=True):
        page.locator(f"[name=place-{label}][value='{place}']").check()
    wanted = {text_of(page, label): rank for label, rank in zip("ABCD", (2, 1, 2, 0), strict=True)}
    save.click()
    expect(page.get_by_role("heading", name="You are up to date")).to_be_visible()
    assert ranks_by_text(Judgment.objects.get()) == wanted
    page.goto(reverse("history", args=["order"]))
    expect(page.locator("tbody")).to_contain_text("B, then A and C; D not ranked")
    page.get_by_role("button", name="Correct").click()
    expect_list(page, "1 B | 2= A C | × D")
    page.locator("[name=place-D][value='1']").check()
    save.click()
    expect(page.get_by_role("heading", name="You are up to date")).to_be_visible()
    edited = Judgment.objects.get(is_current=True)
    assert edited.revision == 3
    assert sorted(edited.ranks) == [1, 1, 2, 2]


def test_draft_comes_back_as_it_stood(open_page: OpenPage) -> None:
    page = at_desk(open_page, world())
    with page.expect_response("**/draft/"):
        press(page, "c 3 a 1")
    expect(page.locator("#saved")).to_contain_text("Draft saved")
    page.reload()
    expect_list(page, "1 A | 3 C | – B | – D")


def test_without_ties_a_taken_place_is_swapped(open_page: OpenPage) -> None:
    page = at_desk(open_page, world(allow_tie=False))
    press(page, "a 1 b 2 c 3 d 4 d 1")
    expect_list(page, "1 D | 2 B | 3 C | 4 A")
    drag(page, "C", "D", 0.4)
    expect_list(page, "1 C | 2 D | 3 B | 4 A")


def test_ten_answers_have_a_key_each_and_the_guide_lends_its_own(open_page: OpenPage) -> None:
    page = at_desk(open_page, world(k=10))
    press(page, "j 1 g 2 a t b 3 c 4 d 5 e 6 f 7 h 8 i 9")
    expect_list(
        page, "1 J | 2 G | 3 B | 4 C | 5 D | 6 E | 7 F | 8 H | 9 I | 10 A"
    )  # the guide stayed shut
    expect(page.locator(".guide")).not_to_have_attribute("open", "")
    press(page, "Enter")
    judgment = saved(page, 1)
    by_slot = [judgment.ranks[place] for place in judgment.shown_order]
    assert by_slot == [10, 3, 4, 5, 6, 7, 2, 8, 9, 1]


def test_another_rater_sees_another_order_and_means_the_same(open_page: OpenPage) -> None:
    project, first = world(tasks=1, overlap=2)
    second = factories.member(project)
    best_first = ["Answer 0v.", "Answer 0s.", "Answer 0u.", "Answer 0t."]
    for person in (first, second):
        page = open_page(person, f"/p/{project.slug}/annotate/")
        turned = [0, 1, 3, 2] if person == first else [2, 0, 1, 3]
        Assignment.objects.filter(rater__user=person).update(shown_order=turned)
        page.reload()
        labels = {text_of(page, label): label.lower() for label in "ABCD"}
        for place, text in enumerate(best_first, start=1):
            press(page, f"{labels[text]} {place}")
        press(page, "Enter")
        expect(page.locator("#done-h")).to_be_visible()
    one, other = Judgment.objects.order_by("pk")
    assert one.ranks == other.ranks
    assert ranks_by_text(one) == dict(zip(best_first, (1, 2, 3, 4), strict=True))
    assert one.shown_order != other.shown_order


def test_best_and_worst_by_keyboard_alone(open_page: OpenPage) -> None:
    page = at_desk(open_page, world("best-worst", k=5))
    press(page, "b Shift+D")
    expect(page.locator("#status")).to_have_text("Answer D is the worst, answer B is the best")
    press(page, "d")  # onto the worst, which is none then
    expect(page.locator("[name=worst]:checked")).to_have_count(0)
    expect(page.locator("#status")).to_have_text("Answer D is the best, no worst yet")
    press(page, "Shift+A")
    wanted = {
        text_of(page, label): rank for label, rank in zip("ABCDE", (3, 2, 2, 1, 2), strict=True)
    }
    press(page, "Enter")
    judgment = saved(page, 1)
    assert ranks_by_text(judgment) == wanted
    assert Preference.objects.filter(judgment=judgment).count() == 7
    press(page, "u")
    expect(page.locator("[name=best][value=D]")).to_be_checked()
    expect(page.locator("[name=worst][value=A]")).to_be_checked()
    press(page, "Shift+E Enter")
    edited = saved(page, 1)
    assert edited.pk > judgment.pk
    assert [edited.ranks[place] for place in edited.shown_order] == [2, 2, 2, 1, 3]


def test_caps_lock_does_not_turn_best_into_worst(open_page: OpenPage) -> None:
    page = at_desk(open_page, world("best-worst"))
    page.keyboard.press("B")  # a capital without Shift
    expect(page.locator("[name=best][value=B]")).to_be_checked()
    expect(page.locator("[name=worst]:checked")).to_have_count(0)


def test_best_and_worst_without_javascript_on_a_phone(open_page: OpenPage) -> None:
    options = {"viewport": {"width": 420, "height": 800}, "java_script_enabled": False}
    page = at_desk(open_page, world("best-worst", tasks=1), **options)
    page.get_by_label("Answer C is the best").check()
    page.get_by_label("Answer C is the worst").check()
    save = page.get_by_role("button", name="Save and next")
    save.click()
    expect(refused(page)).to_contain_text("cannot be the same answer")
    page.get_by_label("Answer A is the worst").check()
    save.click()
    expect(page.get_by_role("heading", name="You are up to date")).to_be_visible()
    judgment = Judgment.objects.get()
    assert [judgment.ranks[place] for place in judgment.shown_order] == [3, 2, 1, 2]


@pytest.mark.parametrize(("kind", "k"), [("ranking", 7), ("best-worst", 7), ("ranking", 10)])
def test_key_list_names_every_key_of_the_page(open_page: OpenPage, kind: str, k: int) -> None:
    page = at_desk(open_page, world(kind, k=k))
    on_page = page.eval_on_selector_all(
        "[data-key]", "all => all.filter(e => !e.closest('[popover]')).map(e => e.dataset.key)"
    )
    listed = set(page.eval_on_selector_all("#keys kbd", "all => all.map(e => e.textContent)"))
    letters = "abcdefghij"[:k]
    ranges = set(letters + letters.upper() + "123456789")  # "a to g" names them all
    assert {letters[0], letters[-1]} <= listed
    assert set(on_page) - ranges <= listed


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ten_answers_never_scroll_a_phone_sideways(open_page: OpenPage, scheme: str) -> None:
    page = at_desk(open_page, world(k=10), **PHONE, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
