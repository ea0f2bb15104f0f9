"""Ratings and checklists in a browser: by keyboard alone, without JavaScript, on a phone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from annotator.models import Judgment, Preference, Project, Response, Task, User
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
PHONE = {"width": 420, "height": 800}
HELPFUL, CLEAR = "helpfulness", "clarity"
RATING = {"kind": "rating", "attributes": [HELPFUL, CLEAR]}
CHECKS = {
    "kind": "checklist",
    "criteria": ["is red", "is round"],
    "failures": ["blurred", "cut off"],
}


def world(settings: dict, *, k: int = 2, tasks: int = 2) -> tuple[Project, User]:
    project = factories.project("grid", settings=settings)
    for number in range(tasks):
        texts = [f"Answer {number} {place}." for place in range(k)]
        factories.task_of(project, settings["kind"], k, texts=texts)
    return project, factories.member(project, name="Aiko Tanabe")


def desk_of(project: Project) -> str:
    return f"/p/{project.slug}/annotate/"


def shown_texts(page: Page) -> list[str]:
    return [text.strip() for text in page.locator(".response .prose").all_inner_texts()]


def on_screen(page: Page) -> dict[str, str]:
    """Field -> value of everything that is chosen."""
    chosen = page.locator("[data-grid] input:checked")
    return dict(chosen.evaluate_all("all => all.map(one => [one.name, one.value])"))


def saved(page: Page, count: int) -> Judgment:
    expect(page.locator(".taskbar b").first).to_have_text(str(count))
    return Judgment.objects.filter(is_current=True).latest("pk")


def by_text(judgment: Judgment, line: str) -> dict[str, int | None]:
    """What the verdict in the database says of each answer, by the answer's own text."""
    task: Task = judgment.task
    texts = dict(task.prompt.responses.values_list("pk", "text"))
    return {
        texts[pk]: value
        for pk, value in zip(task.response_ids, judgment.ratings[line], strict=True)
    }


def preferred() -> tuple[str, int]:
    """The text of the answer that the one edge there is prefers, and how strongly."""
    edge = Preference.objects.get()
    better = Response.objects.get(pk=edge.a_id if edge.outcome == 1 else edge.b_id)
    return better.text, edge.strength


def press(page: Page, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.name ?? ''")


# Rating -----------------------------------------------------------------------------------------


def test_ratings_by_keyboard_alone_are_what_the_database_holds(open_page: OpenPage) -> None:
    project, person = world(RATING)
    page = open_page(person, desk_of(project))
    a, b = shown_texts(page)
    press(page, "4 1 - 2")
    assert on_screen(page) == {
        "rate-0-A": "4", "rate-0-B": "1", "rate-1-A": "na", "rate-1-B": "2"
    }  # fmt: skip
    page.keyboard.press("Enter")
    judgment = saved(page, 1)
    assert by_text(judgment, HELPFUL) == {a: 4, b: 1}
    assert by_text(judgment, CLEAR) == {a: None, b: 2}
    assert preferred() == (a, 3)
    assert on_screen(page) == {}, "the next task starts empty"
    press(page, "3")
    assert on_screen(page) == {"rate-0-A": "3"}, "and with its own first cell"


def test_undo_brings_ratings_back_and_an_edit_is_recorded(open_page: OpenPage) -> None:
    project, person = world(RATING)
    page = open_page(person, desk_of(project))
    a, b = shown_texts(page)
    press(page, "4 1 3 2 Enter")
    saved(page, 1)
    page.keyboard.press("u")
    expect(page.locator(".notice")).to_have_text("Reopened with your answers.")
    assert shown_texts(page) == [a, b]
    assert on_screen(page) == {"rate-0-A": "4", "rate-0-B": "1", "rate-1-A": "3", "rate-1-B": "2"}
    assert not Preference.objects.exists()
    press(page, "j 0")
    expect(page.locator("[name=rate-0-A][value='0']")).to_be_checked()
    page.keyboard.press("Enter")
    edited = saved(page, 1)
    assert by_text(edited, HELPFUL) == {a: 0, b: 1}
    assert by_text(edited, CLEAR) == {a: 3, b: 2}
    assert edited.revision == 3


def test_another_order_on_screen_is_the_same_verdict(open_page: OpenPage) -> None:
    """Every order that turns up is recorded by answer, not by place."""
    project, person = world(RATING, k=3, tasks=6)
    page = open_page(person, desk_of(project))
    for count in range(1, 7):
        texts = shown_texts(page)
        press(page, "4 2 0 3 - 1 Enter")
        judgment = saved(page, count)
        assert by_text(judgment, HELPFUL) == dict(zip(texts, [4, 2, 0], strict=True))
        assert by_text(judgment, CLEAR) == dict(zip(texts, [3, None, 1], strict=True))
    orders = {tuple(j.shown_order) for j in Judgment.objects.all()}
    assert len(orders) > 1, "six tasks of three answers were all shown in one order"


def test_moving_in_the_grid(open_page: OpenPage) -> None:
    project, person = world(RATING)
    page = open_page(person, desk_of(project))
    assert focused(page) == "", "reading comes first: the page does not start in the grid"
    page.keyboard.press("j")
    assert focused(page) == "rate-0-A"
    page.keyboard.press("j")
    assert focused(page) == "rate-0-B"
    page.keyboard.press("ArrowDown")
    assert focused(page) == "rate-1-B"
    page.keyboard.press("k")
    assert focused(page) == "rate-1-A"
    page.keyboard.press("ArrowUp")
    assert focused(page) == "rate-0-A"
    page.keyboard.press("ArrowUp")
    assert focused(page) == "rate-0-A"
    assert on_screen(page) == {}, "moving rates nothing"
    expect(page.locator(".cell[data-at] legend")).to_have_text(f"{HELPFUL}, answer A")
    page.keyboard.press("7")
    assert on_screen(page) == {}, "no such rating"
    page.keyboard.press("2")
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    assert on_screen(page) == {"rate-0-A": "3"}, "left and right are the browser's own"
    assert focused(page) == "rate-0-A"


def test_what_is_missing_is_named_and_gets_the_focus(open_page: OpenPage) -> None:
    project, person = world(RATING)
    page = open_page(person, desk_of(project))
    press(page, "4 j 3 Enter")
    page.problems.clear()  # Chromium's console tells of every answer 422
    note = page.locator("#task [role=alert]")
    expect(note).to_contain_text(f"Still to rate: {HELPFUL} of B, {CLEAR} of B.")
    expect(page.locator("[name=rate-0-B]").first).to_be_focused()
    expect(page.locator("[name=rate-0-B]").first).to_be_in_viewport()
    expect(page.locator("[aria-invalid]")).to_have_count(2)
    assert on_screen(page) == {"rate-0-A": "4", "rate-1-A": "3"}
    press(page, "1")
    expect(page.locator("[aria-invalid]")).to_have_count(1)
    press(page, "j 2 Enter")
    assert saved(page, 1).ratings is not None
    page.problems.clear()


def test_ratings_without_javascript(open_page: OpenPage) -> None:
    project, person = world(RATING)
    page = open_page(person, desk_of(project), java_script_enabled=False)
    a, b = shown_texts(page)

    def rate(line: str, label: str, value: str) -> None:
        group = page.get_by_role("radiogroup", name=f"{line}, answer {label}", exact=True)
        group.get_by_label(value, exact=True).check()

    rate(HELPFUL, "A", "2")
    rate(HELPFUL, "B", "3")
    rate(CLEAR, "B", "n/a")
    page.get_by_role("button", name="Save and next").click()
    expect(page.get_by_text(f"Still to rate: {CLEAR} of A.")).to_be_visible()
    expect(page.locator("[name=rate-1-A]").first).to_be_focused()
    page.problems.clear()
    rate(CLEAR, "A", "0")
    page.get_by_role("button", name="Save and next").click()
    judgment = saved(page, 1)
    assert by_text(judgment, HELPFUL) == {a: 2, b: 3}
    assert by_text(judgment, CLEAR) == {a: 0, b: None}
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("[name=rate-0-B][value='3']")).to_be_checked()


def test_single_keys_off_leave_the_grid_to_the_browser(open_page: OpenPage) -> None:
    project, person = world(RATING)
    person.single_keys = False
    person.save()
    page = open_page(person, desk_of(project))
    press(page, "4 j")
    assert on_screen(page) == {}
    page.locator("[name=rate-0-A]").first.focus()
    press(page, "Space Tab ArrowDown Space")
    assert on_screen(page) == {"rate-0-A": "0", "rate-1-B": "0"}


def test_half_done_ratings_are_kept(open_page: OpenPage) -> None:
    project, person = world(RATING)
    page = open_page(person, desk_of(project))
    with page.expect_response("**/draft/"):
        press(page, "4 1")
    expect(page.locator("#saved")).to_contain_text("Draft saved")
    page.reload()
    assert on_screen(page) == {"rate-0-A": "4", "rate-0-B": "1"}
    press(page, "3")
    assert on_screen(page)["rate-1-A"] == "3", "goes on at the first that is open"


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_shows_grids_as_blocks(open_page: OpenPage, k: int, scheme: str) -> None:
    wide = {"rating_low": 0, "rating_high": 10, "attributes": ["x" * 120, CLEAR]}
    project, person = world(RATING | wide, k=k, tasks=1)
    page = open_page(person, desk_of(project), viewport=PHONE, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    cells = page.locator(".cell")
    assert cells.count() == 2 * k
    lefts = cells.evaluate_all("all => [...new Set(all.map(c => c.getBoundingClientRect().left))]")
    assert len(lefts) == 1, "one under another"
    for cell in cells.all():
        cell.locator(".choice", has_text="10").click()
    page.get_by_role("button", name="Save and next").click()
    expect(page.get_by_role("heading", name="You are up to date")).to_be_visible()
    assert Judgment.objects.get().ratings[CLEAR] == [10] * k


# Checklist --------------------------------------------------------------------------------------


def test_checks_by_keyboard_alone_are_what_the_database_holds(open_page: OpenPage) -> None:
    project, person = world(CHECKS)
    page = open_page(person, desk_of(project))
    a, b = shown_texts(page)
    press(page, "y n - y y Shift+N")
    assert on_screen(page) == {
        "check-0-A": "yes", "check-0-B": "no", "check-1-A": "na", "check-1-B": "yes",
        "check-2-A": "yes", "check-2-B": "no", "check-3-A": "no", "check-3-B": "no",
    }  # fmt: skip
    page.keyboard.press("Enter")
    judgment = saved(page, 1)
    assert by_text(judgment, "is red") == {a: 1, b: 0}
    assert by_text(judgment, "is round") == {a: None, b: 1}
    assert by_text(judgment, "blurred") == {a: 1, b: 0}
    assert by_text(judgment, "cut off") == {a: 0, b: 0}
    assert preferred() == (b, 1), "b passed 3 of 4; of a 2 of 3 held, and one does not apply"
    page.keyboard.press("u")
    expect(page.locator(".notice")).to_be_visible()
    assert on_screen(page)["check-2-A"] == "yes"
    press(page, "ArrowDown j n Enter")
    edited = saved(page, 1)
    assert by_text(edited, "is red") == {a: 0, b: 0}


def test_nothing_else_leaves_what_was_ticked_and_what_was_asked(open_page: OpenPage) -> None:
    project, person = world(CHECKS)
    page = open_page(person, desk_of(project))
    page.locator("[name=check-3-B][value=yes]").check()
    page.get_by_role("button", name="Nothing else").click()
    assert on_screen(page) == {
        "check-2-A": "no", "check-2-B": "no", "check-3-A": "no", "check-3-B": "yes"
    }  # fmt: skip
    assert focused(page) == "check-0-A", "on to what is still open"


def test_checks_without_javascript(open_page: OpenPage) -> None:
    project, person = world(CHECKS)
    page = open_page(person, desk_of(project), java_script_enabled=False)
    a, b = shown_texts(page)
    expect(page.get_by_role("button", name="Nothing else")).to_have_count(0)
    for line, label, said in [
        ("is red", "A", "No"), ("is red", "B", "Yes"), ("is round", "A", "Yes"),
        ("is round", "B", "n/a"), ("blurred", "A", "No"), ("blurred", "B", "No"),
        ("cut off", "A", "No"), ("cut off", "B", "Yes"),
    ]:  # fmt: skip
        group = page.get_by_role("radiogroup", name=f"{line}, answer {label}", exact=True)
        group.get_by_label(said, exact=True).check()
    page.get_by_role("button", name="Save and next").click()
    judgment = saved(page, 1)
    assert by_text(judgment, "is red") == {a: 0, b: 1}
    assert by_text(judgment, "is round") == {a: 1, b: None}
    assert by_text(judgment, "cut off") == {a: 0, b: 1}


def test_checklist_fits_a_phone(open_page: OpenPage) -> None:
    project, person = world(CHECKS | {"criteria": ["x" * 200]}, k=4, tasks=1)
    page = open_page(person, desk_of(project), viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    for cell in page.locator(".cell").all():
        cell.locator(".choice").first.click()
    page.get_by_role("button", name="Save and next").click()
    expect(page.get_by_role("heading", name="You are up to date")).to_be_visible()
    assert set(map(tuple, Judgment.objects.get().ratings.values())) == {(1, 1, 1, 1)}


@pytest.mark.parametrize("of", [RATING, CHECKS], ids=["rating", "checklist"])
def test_key_list_of_a_grid_names_its_keys(open_page: OpenPage, of: dict) -> None:
    project, person = world(of | {"reasons": ["Padding"]})
    page = open_page(person, desk_of(project))
    keys = set(page.locator("[data-answer]").evaluate_all("all => all.map(e => e.dataset.answer)"))
    page.keyboard.press("?")
    listed = set(page.locator("#keys kbd").all_inner_texts())
    assert {"j", "k", "↓", "↑", "r", "-"} <= listed
    assert keys - listed <= {"1", "2", "3"}, "0 to 4 names those between"
    before = on_screen(page)
    press(page, "4 y")
    assert on_screen(page) == before, "an open list of keys is no grid"


# The owner's side -------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [True, False])
def test_owner_sets_up_a_checklist(open_page: OpenPage, script: bool) -> None:
    person = factories.user("Alice Aho", may_create_projects=True)
    page = open_page(person, "/projects/new/", java_script_enabled=script)
    page.get_by_label("Name").fill("Street scenes")
    page.get_by_label("Checklist").check()
    page.get_by_role("button", name="Create the project").click()
    expect(page.get_by_text("Nothing to check yet")).to_be_visible()
    page.get_by_role("button", name="Add where text-to-image models fail").click()
    failures = page.get_by_label("Failures to look for")
    expect(failures).to_be_focused()
    assert failures.input_value().startswith("Wrong number of things\n")
    page.get_by_label("Criteria that should hold").fill("Wrong number of things")
    page.get_by_role("button", name="Save", exact=True).click()
    note = page.locator(".refused")
    expect(note).to_be_focused()
    page.problems.clear()
    note.get_by_role("link", name="Failures to look for").click()
    page.get_by_label("Criteria that should hold").fill("The bicycle is red")
    page.get_by_label("Name", exact=True).press("Enter")  # saves; it does not preview
    expect(page.get_by_text("Saved.")).to_be_visible()
    options = Project.objects.get().options
    assert (options.kind, options.criteria) == ("checklist", ["The bicycle is red"])
    assert len(options.failures) == 12
