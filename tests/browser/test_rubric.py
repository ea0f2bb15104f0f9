"""From preferences to an approved rubric, a judge conditioned on it and its report, by browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Locator, Page, expect

from annotator.demo import scenes, simulate
from annotator.jobs import induction as induction_jobs
from annotator.jobs import judging
from annotator.models import (
    Criterion,
    Judge,
    JudgeOutcome,
    Membership,
    Project,
    Prompt,
    Role,
    RubricVersion,
    Run,
    RunState,
    User,
)
from annotator.services import demo, demo_judges, rubrics
from rubrics.simulated.dials import named
from tests import factories
from tests.annotator import measured
from tests.browser.test_axe import faults
from tests.browser.working import work_through
from tests.simulated import SimulatedServer, simulated

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
PROMPTS, HELD_OUT = 18, 4
ASKED = "sim-careful v1: sim-careful at simulated"
PHONE = {"width": 420, "height": 900}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
Decision = Criterion.Decision


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedServer]:
    """The simulated judge of a demo of few prompts."""
    some = simulate.load_prompts()[:PROMPTS]
    monkeypatch.setattr(simulate, "load_prompts", lambda: some)
    monkeypatch.setattr(scenes, "SCENES", ())
    with simulated(models=named()) as found:
        found.app.known = demo_judges.known()
        settings.SIMULATED_JUDGE, settings.LLM_HOSTS = found.host, [found.host]
        yield found


def world() -> tuple[Project, User]:
    """The demo, some of whose prompts nothing is learned from."""
    project = demo.load().project
    demo_judges.add_judges(project)
    ids = list(project.prompts.order_by("pk").values_list("pk", flat=True))
    Prompt.objects.filter(pk__in=ids).update(split="train")
    Prompt.objects.filter(pk__in=ids[:HELD_OUT]).update(split="test")
    return project, Membership.objects.get(project=project, role=Role.OWNER).user


def open_line(page: Page) -> Locator:
    return page.locator(".proposal.open")


def by_keys(page: Page) -> None:
    """Every criterion of the draft: one rejected and opened again, two made one, one reworded."""
    lines, opened = page.locator("a.criterion b"), open_line(page)
    heard = opened.locator("a.criterion b")
    page.wait_for_load_state("load")  # else nobody hears the keys yet
    first, second = lines.all_inner_texts()[:2]
    for key, text in (("j", first), ("j", second), ("k", first), ("r", second), ("k", first)):
        page.keyboard.press(key)
        expect(heard).to_have_text(text)
    expect(opened.locator(".state")).to_have_text("rejected")
    page.keyboard.press("u")
    expect(heard).to_have_text(second)
    expect(page.locator(".state", has_text="rejected")).to_have_count(0)
    page.keyboard.press("m")
    tick = opened.get_by_label(first)
    tab_to(page, tick)
    if not tick.is_checked():  # it is where the two go together
        page.keyboard.press("Space")
    tab_to(page, opened.get_by_role("button", name="Merge"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("merged into others")).to_be_visible()
    accept_what_is_left(page)
    page.keyboard.press("e")
    tab_to(page, opened.get_by_label("Criterion", exact=True))
    page.keyboard.press("Control+A")
    page.keyboard.type("It says how sure it is.")
    tab_to(page, opened.get_by_role("button", name="Save"))
    page.keyboard.press("Enter")
    expect(heard).to_have_text("It says how sure it is.")


def tab_to(page: Page, wanted: Locator) -> None:
    """As somebody goes there without a mouse."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if wanted.evaluate("one => one === document.activeElement"):
            return
    raise AssertionError("it is not reached by Tab")


def accept_what_is_left(page: Page) -> None:
    """From a criterion that is decided: its key leads on to the next."""
    waiting = Criterion.objects.filter(decision=Decision.PROPOSED).count()
    status, again = page.locator("#left"), page.get_by_role("button", name="Open again")
    page.keyboard.press("a")
    for left in range(waiting, 0, -1):
        expect(status).to_contain_text(f"{left} to go")
        expect(again).to_have_count(0)
        page.keyboard.press("a")
    expect(status).not_to_contain_text("to go")


def test_owner_goes_from_preferences_to_a_judge_conditioned_on_its_rubric(
    open_page: OpenPage, server: SimulatedServer
) -> None:
    project, owner = world()
    page = open_page(owner, reverse("rubrics", args=[project.slug]))
    page.get_by_role("link", name="Induce a rubric").click()
    page.get_by_role("radio", name="AutoRule").check()
    page.get_by_label("Whose endpoint and model are asked").select_option(label=ASKED)
    page.get_by_label("At most pairs").fill("12")
    page.get_by_label("Rules kept").fill("5")
    page.get_by_label("Held-out pairs to verify on").fill("4")
    page.get_by_label("Calls", exact=True).fill("900")
    page.get_by_role("button", name="Induce").click()
    expect(page.get_by_role("heading", name="induce “AutoRule” by AutoRule")).to_be_visible()
    work_through(Run.objects.get(kind=Run.Kind.RUBRIC), induction_jobs.induce)
    page.get_by_role("link", name="Decide on its criteria").click()
    expect(page.get_by_role("heading", name="AutoRule v1")).to_be_visible()
    expect(page.get_by_role("button", name="Approve v1")).to_be_disabled()
    by_keys(page)
    page.get_by_role("button", name="Approve v1").click()
    expect(page.get_by_text("AutoRule v1 is approved")).to_be_visible()
    page.get_by_role("link", name="Use it").click()
    page.get_by_label("Name").fill("ruled")
    page.get_by_label("Endpoint").select_option(label="simulated")
    page.get_by_label("Model", exact=True).fill("sim-careful")
    page.get_by_role("button", name="Make the judge").click()
    expect(page.get_by_role("heading", name="ruled v1")).to_be_visible()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Starts as soon as a worker is free")).to_be_visible()
    work_through(Run.objects.get(kind=Run.Kind.JUDGE), judging.judge)
    page.get_by_role("link", name="Open the report").click()
    figures = page.locator("dl.figures").first
    expect(figures).to_contain_text("Agrees with people")
    expect(figures).to_contain_text("%")
    expect(page.locator("header.head").get_by_role("link", name="AutoRule v1")).to_be_visible()
    expect(page.get_by_text("Agreement, beside the human ceiling")).to_be_visible()
    version = RubricVersion.objects.get()
    assert version.approved_by == owner
    assert version.criteria.filter(text="It says how sure it is.", is_edited=True).exists()
    assert version.criteria.filter(decision=Decision.MERGED).exists()
    judge = Judge.objects.get(name="ruled")
    assert judge.rubric_version == version
    judged = JudgeOutcome.objects.filter(judge=judge, error="").count()
    assert judged == Run.objects.get(kind=Run.Kind.JUDGE).total > PROMPTS
    assert not Run.objects.exclude(state=RunState.DONE).exists()


def decided(project: Project) -> RubricVersion:
    """A draft that was measured, and the approved version that it goes on from."""
    first = measured.version_of(project)
    measured.measure(first)
    rubrics.accept_rest(version=first, by=None)
    rubrics.approve(version=first, by=None)
    draft = rubrics.draft(rubric=first.rubric, like=first, by=None)
    rubrics.edit(criterion=draft.criteria.first(), by=None, text="It names what it assumes.")
    rubrics.add(version=draft, by=None, text="It is kind.", polarity=-1)
    measured.measure(draft)
    return draft


def test_draft_is_decided_on_without_scripts_on_a_phone(open_page: OpenPage) -> None:
    project = factories.project("letters", name="Discharge letters")
    owner = factories.member(project, Role.OWNER, name="Olive Owner")
    version = measured.version_of(project)
    measured.measure(version)
    address = reverse("rubric_version", args=["letters", version.rubric_id, version.number])
    page = open_page(owner, address, viewport=PHONE, java_script_enabled=False)
    opened, status = open_line(page), page.locator("#left")
    n = version.criteria.count()
    page.get_by_role("link", name="Next").click()
    opened.get_by_role("button", name="Reject").click()
    expect(status).to_contain_text(f"1 of {n} decided")
    opened.get_by_text("Edit", exact=False).first.click()
    opened.get_by_label("Criterion", exact=True).fill("It says how sure it is.")
    opened.get_by_role("button", name="Save").click()
    expect(opened.locator("a.criterion b")).to_have_text("It says how sure it is.")
    opened.get_by_text("Merge", exact=False).first.click()
    opened.get_by_label("It has a list.").check()
    opened.get_by_role("button", name="Merge").click()
    expect(page.get_by_text("1 merged into others")).to_be_visible()
    page.get_by_role("link", name="It apologizes.").click()
    opened.get_by_role("button", name="Accept").click()
    expect(status).not_to_contain_text("to go")
    expect(page.locator(".state", has_text="rejected")).to_have_count(1)
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("link", name="Use it")).to_be_visible()
    version.refresh_from_db()
    assert not version.is_draft
    told = dict(version.criteria.values_list("text", "decision"))
    assert told == {
        "It names a source.": "rejected", "It says how sure it is.": "accepted",
        "It apologizes.": "accepted", "It has a list.": "merged",
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desk", "phone"])
def test_pages_of_rubrics_have_no_serious_fault_and_fit(
    open_page: OpenPage, scheme: str, viewport: dict[str, int] | None
) -> None:
    project = factories.project("letters", name="Discharge letters")
    owner = factories.member(project, Role.OWNER, name="Olive Owner")
    draft = decided(project)
    endpoint = factories.endpoint(project, prices={"sim": [1, 1]})
    factories.judge(project, name="careful", endpoint=endpoint, options={"models": ["sim"]})
    of = ["letters", draft.rubric_id]
    opened = f"?criterion={draft.criteria.order_by('pk').first().pk}"
    addresses = [
        reverse("rubrics", args=of[:1]),
        reverse("rubric_version", args=[*of, 2]) + opened,
        reverse("rubric_version", args=[*of, 1]),
        reverse("rubric_induce", args=of[:1]) + "?method=arr",
        reverse("rubric_compare", args=[*of, 2, 1]),
        reverse("rubric_use", args=[*of, 1]),
        reverse("rubric_gaps", args=[*of, 2]),
        reverse("rubric_gaps", args=[*of, 2]) + "?kind=criteria",
    ]
    options = {"viewport": viewport} if viewport else {}
    page = open_page(owner, addresses[0], color_scheme=scheme, **options)
    found, wide = [], []
    for address in addresses:
        page.goto(address)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.evaluate(
            "document.querySelectorAll('main details').forEach((one) => { one.open = true })"
        )
        found += faults(page)
        if page.evaluate(OVERFLOW) > 0:
            wide.append(address)
    assert (found, wide) == ([], [])
