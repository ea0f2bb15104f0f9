"""Judging pairs: by keyboard alone, without JavaScript, on a phone, with hostile answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from annotator.models import Assignment, Judgment, Project, Task, User
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]


def world(tasks: int = 3, **settings: object) -> tuple[Project, User]:
    project = factories.project(
        "desk", settings=settings, guidelines="Prefer the **right** answer."
    )
    for number in range(tasks):
        factories.pairwise_task(
            project, texts=(f"First answer {number}.", f"Second answer {number}.")
        )
    return project, factories.member(project, name="Aiko Tanabe")


def desk_of(project: Project) -> str:
    return f"/p/{project.slug}/annotate/"


def shown_texts(page: Page) -> list[str]:
    return [text.strip() for text in page.locator(".response .prose").all_inner_texts()]


def text_of(task: Task, place: int) -> str:
    return task.prompt.responses.get(pk=task.response_ids[place]).text


def saved(page: Page, count: int) -> Judgment:
    """The newest judgment, once the page has moved on to the next task."""
    expect(page.locator(".taskbar b").first).to_have_text(str(count))
    return Judgment.objects.filter(is_current=True).latest("pk")


@pytest.mark.parametrize(
    ("key", "winner", "strength"), [("1", 0, 2), ("2", 0, 1), ("4", 1, 1), ("5", 1, 2)]
)
def test_key_records_the_answer_that_was_shown(
    open_page: OpenPage, key: str, winner: int, strength: int
) -> None:
    project, person = world()
    page = open_page(person, desk_of(project))
    texts = shown_texts(page)
    page.keyboard.press(key)
    page.keyboard.press("Enter")
    judgment = saved(page, 1)
    best = judgment.ranks.index(1)
    assert text_of(judgment.task, best) == texts[winner]
    assert judgment.strength == strength
    assert shown_texts(page) != texts, "the next task is on the desk"


def test_whole_session_by_keyboard_alone(open_page: OpenPage) -> None:
    project, person = world(tasks=4)
    page = open_page(person, desk_of(project))
    page.keyboard.press("3")
    page.keyboard.press("x")
    page.keyboard.press("w")
    page.keyboard.type("1s is text here? yes")
    expect(page.locator("#why")).to_have_value("1s is text here? yes")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    tie = saved(page, 1)
    assert (tie.ranks, tie.strength, tie.both_bad) == ([1, 1], 0, True)
    assert tie.rationale == "1s is text here? yes"

    page.keyboard.press("s")
    expect(page.locator("#skip")).to_be_visible()
    page.keyboard.press("4")  # the fourth reason, not the fourth step of the scale
    expect(page.locator("#skip")).to_be_hidden()
    skipped = Assignment.objects.get(state="skipped")
    assert skipped.skip_reason == project.options.skip_reasons[3]

    page.keyboard.press("u")
    expect(page.locator(".notice")).to_have_text("Reopened with your answers.")
    assert Assignment.objects.get(pk=skipped.pk).state == "leased"
    page.keyboard.press("u")
    expect(page.locator("#why")).to_have_value("1s is text here? yes")
    expect(page.locator("[name=verdict][value=tie]")).to_be_checked()
    expect(page.locator("[name=both_bad]")).to_be_checked()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator(".taskbar b").first).to_have_text("1")
    edited = Judgment.objects.get(is_current=True)
    assert edited.task_id == tie.task_id
    assert edited.strength == 2

    page.keyboard.press("g")
    expect(page.locator(".guidelines strong")).to_have_text("right")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("1")
    expect(page.locator("[name=verdict]:checked")).to_have_count(0)


@pytest.mark.parametrize(
    ("of", "keys"),
    [
        ({"steps": 3}, {"1": ("a", 1), "2": ("tie", 0), "3": ("b", 1)}),
        ({"steps": 3, "allow_tie": False, "allow_both_bad": False}, {"1": ("a", 1), "2": ("b", 1)}),
        ({"steps": 7}, {"1": ("a", 3), "4": ("tie", 0), "5": ("b", 1), "7": ("b", 3)}),
        ({"steps": 7, "allow_tie": False}, {"3": ("a", 1), "4": ("b", 1), "6": ("b", 3)}),
    ],
    ids=["three", "two", "seven", "six"],
)
def test_scales_of_every_length_by_key(open_page: OpenPage, of: dict, keys: dict) -> None:
    project, person = world(tasks=5, **of)
    page = open_page(person, desk_of(project))
    for count, (key, (side, strength)) in enumerate(keys.items(), start=1):
        texts = shown_texts(page)
        page.keyboard.press(key)
        said = page.locator("label:has([name=verdict]:checked)").inner_text()
        page.keyboard.press("Enter")
        judgment = saved(page, count)
        assert judgment.strength == strength
        if side == "tie":
            assert judgment.ranks == [1, 1]
            assert said.startswith("Tie")
        else:
            assert text_of(judgment.task, judgment.ranks.index(1)) == texts["ab".index(side)]
            words = {1: "better", 2: "much better", 3: "very much better"}[strength]
            assert said.startswith(f"{side.upper()} {words}")
    page.keyboard.press("8")
    expect(page.locator("[name=verdict]:checked")).to_have_count(0)
    both_bad = of.get("allow_both_bad", True)
    expect(page.locator("[name=both_bad]")).to_have_count(int(both_bad))


@pytest.mark.parametrize("width", [420, 1280])
def test_seven_steps_fit_the_screen(open_page: OpenPage, width: int) -> None:
    project, person = world(steps=7)
    page = open_page(person, desk_of(project), viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    steps = page.locator(".scale .choice:has([type=radio])")
    boxes = steps.evaluate_all("all => all.map(one => one.getBoundingClientRect().top)")
    assert len(boxes) == 7
    assert len(set(boxes)) == 1, "one line from A to B"
    overflowing = steps.evaluate_all("all => all.filter(e => e.scrollWidth > e.clientWidth).length")
    assert overflowing == 0


REASONS = ["Wrong result", "Padding", "Unsafe"]


def test_reasons_have_keys_of_their_own(open_page: OpenPage) -> None:
    project, person = world(reasons=REASONS)
    page = open_page(person, desk_of(project))
    press = page.keyboard.press
    press("2")
    press("r")
    press("1")
    press("3")
    expect(page.locator("[name=verdict][value=a1]")).to_be_checked()
    press("Escape")
    press("5")
    expect(page.locator("[name=verdict][value=b2]")).to_be_checked()
    press("r")
    press("1")
    press("2")
    press("x")
    press("Enter")
    judgment = saved(page, 1)
    assert judgment.reasons == ["Padding", "Unsafe"]
    assert (judgment.strength, judgment.both_bad) == (2, True)
    press("u")
    expect(page.locator(".notice")).to_be_visible()
    ticked = page.locator(".reasons label:has(:checked)")
    assert [one.split("\n")[0].strip() for one in ticked.all_inner_texts()] == REASONS[1:]
    press("?")
    expect(page.locator("#keys")).to_contain_text("to the reasons")


def test_reasons_without_javascript(open_page: OpenPage) -> None:
    project, person = world(reasons=REASONS)
    page = open_page(person, desk_of(project), java_script_enabled=False)
    page.get_by_label("A better").check()
    page.get_by_role("group", name="Because").get_by_label("Unsafe").check()
    page.get_by_role("button", name="Save and next").click()
    expect(page.locator(".taskbar b").first).to_have_text("1")
    assert Judgment.objects.get().reasons == ["Unsafe"]


def test_key_list_names_every_key_of_the_page(open_page: OpenPage) -> None:
    project, person = world()
    page = open_page(person, desk_of(project))
    keys = page.eval_on_selector_all(
        "[data-key]", "all => all.filter(e => !e.closest('[popover]')).map(e => e.dataset.key)"
    )
    listed = set(page.eval_on_selector_all("#keys kbd", "all => all.map(e => e.textContent)"))
    spelled = {"1", "5", "x", "w", "↵", "s", "u", "!", "g", "?"}
    assert spelled <= listed | {"Esc"}
    assert set(keys) == {"1", "2", "3", "4", "5", "x", "w", "s", "u", "!", "g", "?"}
    hinted = page.eval_on_selector_all(
        "[data-key]", "all => all.every(e => e.getAttribute('aria-keyshortcuts') == e.dataset.key)"
    )
    assert hinted


def test_single_keys_can_be_switched_off(open_page: OpenPage) -> None:
    project, person = world()
    person.single_keys = False
    person.save()
    page = open_page(person, desk_of(project))
    page.keyboard.press("1")
    expect(page.locator("[name=verdict]:checked")).to_have_count(0)
    page.get_by_label("A better").check()
    page.keyboard.press("Enter")
    assert saved(page, 1).strength == 1, "Enter is no single-character key: it always saves"


def test_modified_keys_and_keys_on_buttons_are_left_alone(open_page: OpenPage) -> None:
    project, person = world()
    page = open_page(person, desk_of(project))
    page.keyboard.press("Control+1")
    expect(page.locator("[name=verdict]:checked")).to_have_count(0)
    page.keyboard.press("1")
    page.get_by_role("button", name="Keys").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#keys")).to_be_visible()
    assert not Judgment.objects.exists(), "Enter on another button does not save"


def test_draft_is_kept_and_comes_back(open_page: OpenPage) -> None:
    project, person = world()
    page = open_page(person, desk_of(project))
    page.keyboard.press("4")
    page.keyboard.press("w")
    page.keyboard.type("not finished")
    expect(page.locator("#saved")).to_contain_text("Draft saved")
    expect(page.locator("#saved time")).to_be_visible()
    page.wait_for_timeout(1300)  # typing is saved a second after it stops
    page.reload()
    expect(page.locator("#why")).to_have_value("not finished")
    expect(page.locator("[name=verdict][value=b1]")).to_be_checked()


def test_save_is_not_lost_to_a_draft_under_way(open_page: OpenPage) -> None:
    """On a slow network the draft of a choice is still being sent when Enter follows."""
    project, person = world()
    page = open_page(person, desk_of(project))
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 600, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    with page.expect_request("**/draft/"):
        page.keyboard.press("4")
    page.keyboard.press("Enter")
    assert saved(page, 1).strength == 1


def test_control_enter_saves_from_the_reason(open_page: OpenPage) -> None:
    project, person = world(rationale="required")
    page = open_page(person, desk_of(project))
    page.keyboard.press("1")
    page.keyboard.press("w")
    page.keyboard.type("right")
    page.keyboard.press("Control+Enter")
    assert saved(page, 1).rationale == "right"


def test_enter_without_a_verdict_says_so(open_page: OpenPage) -> None:
    project, person = world(rationale="required")
    page = open_page(person, desk_of(project))
    page.keyboard.press("Enter")
    assert page.eval_on_selector("#task", "form => form.checkValidity()") is False
    assert not Judgment.objects.exists()


def test_works_without_javascript(open_page: OpenPage) -> None:
    project, person = world()
    page = open_page(person, desk_of(project), java_script_enabled=False)
    texts = shown_texts(page)
    page.get_by_label("B much better").check()
    page.locator("#why").fill("B is right")
    page.get_by_role("button", name="Save and next").click()
    judgment = Judgment.objects.get()
    assert text_of(judgment.task, judgment.ranks.index(1)) == texts[1]
    assert judgment.rationale == "B is right"
    page.get_by_role("button", name="Skip").click()
    page.get_by_role("button", name="I cannot tell").click()
    assert Assignment.objects.filter(state="skipped").count() == 1
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Reopened with your answers.")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#why")).to_have_value("B is right")
    assert not Judgment.objects.filter(is_current=True).exists()


def test_end_of_the_queue_says_so(open_page: OpenPage) -> None:
    project, person = world(tasks=1)
    page = open_page(person, desk_of(project))
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="You are up to date")).to_be_focused()
    page.get_by_role("link", name="My judgments").first.click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody")).to_contain_text("A much better")
    page.get_by_role("button", name="Correct").click()
    expect(page.locator("[name=verdict][value=a2]")).to_be_checked()


HOSTILE = """<script>window.pwned = 1</script>
<img src=x onerror="window.pwned = 2">
<svg onload="window.pwned = 3"><animate onbegin="window.pwned = 4" attributeName=x dur=1s></svg>
[a link](javascript:window.pwned=5) <a href="javascript:window.pwned=6">another</a>
![picture](http://192.0.2.1/pixel.png)
<iframe src="javascript:parent.pwned=7"></iframe>
<form action="http://192.0.2.1/"><button>Save and next</button></form>
$\\href{javascript:window.pwned=8}{x}$
"""


def test_hostile_answer_runs_nothing(open_page: OpenPage) -> None:
    project = factories.project("hostile", guidelines=HOSTILE)
    of = factories.prompt(project, HOSTILE)
    factories.pairwise_task(project, texts=(HOSTILE, f"```html\n{HOSTILE}\n```"), of=of)
    person = factories.member(project)
    page = open_page(person, desk_of(project))
    page.keyboard.press("g")
    for link in page.locator("main a[href]").all():
        assert link.get_attribute("href").startswith(("http", "mailto:", "/"))
    for toggle in page.locator(".raw input").all():
        toggle.check()
    expect(page.locator(".source").first).to_contain_text("<script>window.pwned = 1</script>")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main :is(script, img, iframe, object, embed, style)").count() == 0
    assert page.locator(".response form, .prompt form").count() == 0
    policy = page.request.get(desk_of(project)).headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy


def test_generators_are_never_on_the_page(open_page: OpenPage) -> None:
    project = factories.project("blind")
    of = factories.prompt(project)
    task = factories.pairwise_task(project, of=of)
    of.responses.update(generator="secret-model-9b")
    person = factories.member(project)
    page = open_page(person, desk_of(project))
    assert page.locator(".response").count() == len(task.response_ids)
    assert "secret-model-9b" not in page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_never_scrolls_sideways(open_page: OpenPage, scheme: str) -> None:
    project = factories.project("phone")
    wide = "| a | b | c |\n|---|---|---|\n" + "| " + " | ".join(["word" * 20] * 3) + " |\n"
    code = "```python\n" + "x = '" + "y" * 300 + "'\n```"
    factories.pairwise_task(project, texts=(wide, code))
    person = factories.member(project, name="Annabelle Longname-Annotator")
    page = open_page(
        person, desk_of(project), viewport={"width": 420, "height": 800}, color_scheme=scheme
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.get_by_label("A much better").check()
    page.get_by_role("button", name="Save and next").click()
    expect(page.get_by_role("heading", name="You are up to date")).to_be_visible()


def test_side_stays_when_the_page_is_opened_again(open_page: OpenPage) -> None:
    project, person = world()
    page = open_page(person, desk_of(project))
    first = shown_texts(page)
    for _ in range(5):
        page.reload()
        assert shown_texts(page) == first


def test_undo_from_the_end_of_the_queue_reopens_the_last_task(open_page: OpenPage) -> None:
    project, person = world(tasks=1)
    page = open_page(person, desk_of(project))
    texts = shown_texts(page)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="You are up to date")).to_be_visible()
    page.keyboard.press("u")
    expect(page.locator(".notice")).to_have_text("Reopened with your answers.")
    assert shown_texts(page) == texts
    expect(page.get_by_label("A much better")).to_be_checked()
