"""Judging images: zoom and place are one for all, flicker, keys alone, without scripts, on a phone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from PIL import Image as Pillow
from playwright.sync_api import Page, expect

from annotator.models import Image, Judgment, Project, Response, Task, User
from annotator.services import images
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
COLORS = ("#c02020", "#2040c0", "#20a040", "#c0a020")
DESKTOP = {"width": 1280, "height": 800}


def stored(project: Project, color: str, size: tuple[int, int] = (320, 320)) -> Image:
    """A picture with a spot in its upper left quarter, so that places can be told apart."""
    picture = Pillow.new("RGB", size, color)
    picture.paste("white", (size[0] // 8, size[1] // 8, size[0] // 4, size[1] // 4))
    target = io.BytesIO()
    picture.save(target, "PNG")
    return images.ingest(project=project, data=target.getvalue(), alt=f"a {color} field")


def task_of(project: Project, kind: str = "pairwise", k: int = 2, **prompt: Any) -> Task:
    of = factories.prompt(project, **prompt)
    task = factories.task_of(project, kind, k, of=of)
    for pk, color in zip(task.response_ids, COLORS, strict=False):
        Response.objects.filter(pk=pk).update(
            text="", image=stored(project, color), generator=f"secret-{color}"
        )
    return task


def world(
    kind: str = "pairwise", k: int = 2, tasks: int = 2, **settings: Any
) -> tuple[Project, User]:
    project = factories.project("pictures", settings=settings, modality="image")
    for number in range(tasks):
        task_of(project, kind, k, text=f"A field of one color, number {number}")
    return project, factories.member(project, name="Aiko Tanabe")


def open_desk(open_page: OpenPage, project: Project, person: User, **options: Any) -> Page:
    page = open_page(person, f"/p/{project.slug}/annotate/", **{"viewport": DESKTOP, **options})
    expect(page.locator(".window .frame").first).to_be_visible()
    for frame in page.locator(".frame").all():
        expect(frame).to_have_js_property("complete", True)
        expect(frame).not_to_have_js_property("naturalWidth", 0)
    return page


def shown_ids(page: Page) -> list[int]:
    """The images on the page, in the order shown."""
    sources = page.locator(".response .frame:not(.over)").evaluate_all("all => all.map(i => i.src)")
    return [int(re.search(r"/images/(\d+)/full$", source)[1]) for source in sources]


def transforms(page: Page) -> list[str]:
    return page.locator(".window > img:not(.over)").evaluate_all(
        "all => all.map(one => one.style.transform)"
    )


def image_of(task: Task, place: int) -> int:
    return Response.objects.get(pk=task.response_ids[place]).image_id


def saved(page: Page, count: int) -> Judgment:
    expect(page.locator(".taskbar b").first).to_have_text(str(count))
    return Judgment.objects.filter(is_current=True).latest("pk")


@pytest.mark.parametrize(("key", "winner"), [("1", 0), ("5", 1)])
def test_pair_of_images_is_judged_by_keyboard_alone(
    open_page: OpenPage, key: str, winner: int
) -> None:
    project, person = world()
    page = open_desk(open_page, project, person)
    ids, asked = shown_ids(page), page.locator(".prompt .prose").inner_text()
    page.keyboard.press("z")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("f")
    page.keyboard.press(key)
    page.keyboard.press("Enter")
    judgment = saved(page, 1)
    assert image_of(judgment.task, judgment.ranks.index(1)) == ids[winner]
    assert judgment.strength == 2
    expect(page.locator(".prompt .prose")).not_to_have_text(asked)
    assert set(transforms(page)) == {""}, "the next task begins fitted"
    page.keyboard.press("u")
    expect(page.locator(f"[name=verdict][data-key='{key}']")).to_be_checked()
    again = shown_ids(page)
    assert sorted(again) == sorted(ids)


def test_zoom_and_place_are_one_for_all(open_page: OpenPage) -> None:
    project, person = world()
    page = open_desk(open_page, project, person)
    zooms = []
    for _ in range(3):
        page.keyboard.press("z")
        zooms.append(page.locator("[name=zoom]:checked").get_attribute("value"))
        assert len(set(transforms(page))) == 1
    assert zooms == ["2", "4", "1"]
    page.keyboard.press("z")
    before = transforms(page)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    moved = transforms(page)
    assert moved[0] == moved[1] != before[0]
    assert "scale(2)" in moved[0]
    box = page.locator(".window").nth(1).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y - 40, steps=4)
    page.mouse.up()
    dragged = transforms(page)
    assert dragged[0] == dragged[1] != moved[0]
    page.mouse.wheel(0, -200)
    expect(page.locator("[name=zoom]:checked")).to_have_count(0)
    assert len(set(transforms(page))) == 1
    page.mouse.dblclick(x, y)
    expect(page.locator("[name=zoom][value='1']")).to_be_checked()


def test_looking_is_no_answer(open_page: OpenPage) -> None:
    """Zoom and flicker are neither drafted nor sent."""
    project, person = world()
    page = open_desk(open_page, project, person)
    posts: list[str] = []
    page.on("request", lambda one: posts.append(one.url) if one.method == "POST" else None)
    for key in ("z", "f", "z", "f"):
        page.keyboard.press(key)
    page.keyboard.press("3")
    expect(page.locator("#saved")).to_contain_text("Draft saved")
    assert len(posts) == 1, "the tie alone was drafted"


def test_flicker_shows_b_in_the_place_of_a(open_page: OpenPage) -> None:
    project, person = world()
    page = open_desk(open_page, project, person)
    first = page.locator(".window").first
    other = page.locator(".window .frame").nth(1).get_attribute("src")
    page.keyboard.press("f")
    over = first.locator(".over[data-on]")
    expect(over).to_be_visible()
    expect(over).to_have_attribute("src", other)
    expect(page.locator("[data-say]")).to_have_text("Image B is in the place of Image A.")
    boxes = [first.locator(".frame").nth(at).bounding_box() for at in (0, 1)]
    assert boxes[0] == boxes[1]
    page.keyboard.press("f")
    expect(over).to_have_count(0)


def test_flicker_goes_through_all_of_four(open_page: OpenPage) -> None:
    project, person = world("best-worst", 4)
    page = open_desk(open_page, project, person)
    said = page.locator("[data-say]")
    for name in ("B", "C", "D"):
        page.locator(".flicker").click()
        expect(said).to_have_text(f"Image {name} is in the place of Image A.")
    page.locator(".flicker").click()
    expect(said).to_contain_text("All images zoom and move together.")


def test_page_and_images_say_nothing_of_their_origin(open_page: OpenPage) -> None:
    project, person = world()
    page = open_desk(open_page, project, person)
    assert "secret-" not in page.content()
    alts = page.locator(".frame").evaluate_all("all => all.map(i => i.alt)")
    assert [alt.split(":")[0] for alt in alts] == ["Image A", "Image B"]
    answer = page.request.get(page.locator(".full").first.get_attribute("href"))
    assert answer.ok
    assert "secret" not in str(answer.headers)
    assert answer.headers["content-disposition"] == "inline"


def test_pair_is_in_view_between_prompt_and_scale(open_page: OpenPage) -> None:
    project, person = world()
    page = open_desk(open_page, project, person)
    frames = [page.locator(".frame").nth(at).bounding_box() for at in (0, 1)]
    prompt = page.locator(".prompt").bounding_box()
    scale = page.locator(".scale").bounding_box()
    for frame in frames:
        assert frame["y"] >= prompt["y"] + prompt["height"]
        assert frame["y"] + frame["height"] <= scale["y"]
    assert frames[0]["height"] > 300


def test_boxes_keep_their_size_while_images_load(open_page: OpenPage) -> None:
    project, person = world()
    page = open_desk(open_page, project, person)
    loaded = page.locator(".response").first.bounding_box()
    page.route("**/images/**", lambda route: route.abort())
    page.problems.clear()
    page.reload()
    expect(page.locator(".window").first).to_be_visible()
    assert page.locator(".response").first.bounding_box() == loaded
    page.problems.clear()  # the browser reports the images that this test kept away


def test_edit_stands_beside_its_source_with_the_mask_over_it(open_page: OpenPage) -> None:
    project = factories.project("edits", modality="image")
    source = stored(project, "#808080")
    mask = stored(project, "#000000")
    task_of(project, text="Make it night", source_image=source, mask_image=mask)
    person = factories.member(project)
    page = open_desk(open_page, project, person)
    original = page.locator(".original")
    expect(original.get_by_role("img", name="Source: a #808080 field")).to_be_visible()
    left, right = original.bounding_box(), page.locator(".responses").bounding_box()
    assert left["x"] + left["width"] <= right["x"]
    assert abs(left["y"] - right["y"]) < 2
    over = original.locator(".mask")
    expect(over).to_be_visible()
    assert over.bounding_box() == original.locator(".frame").bounding_box()
    page.keyboard.press("m")
    expect(over).to_be_hidden()
    page.keyboard.press("m")
    expect(over).to_be_visible()
    page.keyboard.press("z")
    assert len(set(transforms(page))) == 1, "source and mask move with the results"


def test_images_are_judged_without_javascript(open_page: OpenPage) -> None:
    project, person = world()
    page = open_page(person, f"/p/{project.slug}/annotate/", java_script_enabled=False)
    expect(page.locator(".frame")).to_have_count(2)
    expect(page.locator(".tools")).to_be_hidden()
    sources = [page.locator(".response .frame").nth(at).get_attribute("src") for at in (0, 1)]
    assert page.locator(".full").first.get_attribute("href") == sources[0]
    page.get_by_text("B better", exact=False).first.click()
    page.get_by_role("button", name="Save and next").click()
    judgment = saved(page, 1)
    assert f"/images/{image_of(judgment.task, judgment.ranks.index(1))}/full" in sources[1]


def test_images_fit_a_phone(open_page: OpenPage) -> None:
    project, person = world()
    page = open_desk(open_page, project, person, viewport={"width": 420, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    for frame in page.locator(".frame").all():
        box = frame.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 420
        assert box["width"] > 300


@pytest.mark.parametrize("kind", ["rating", "checklist", "ranking", "best-worst"])
def test_every_kind_shows_its_images_and_tools(open_page: OpenPage, kind: str) -> None:
    project, person = world(kind, 4, tasks=1, failures=["Wrong number of things"])
    page = open_desk(open_page, project, person)
    expect(page.locator(".response .frame")).to_have_count(4)
    expect(page.locator("[data-frames]")).to_be_visible()
    page.keyboard.press("z")
    assert transforms(page)[0].endswith("scale(2)")
    assert len(set(transforms(page))) == 1
    texts: Sequence[str] = page.locator(".response h2").all_inner_texts()
    assert all(text.startswith("Image") for text in texts)
