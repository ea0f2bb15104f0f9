"""The owner's pages in a browser: a run that renews itself, lost requests, no JavaScript, phones."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, expect

from annotator.models import Judgment, Membership, Project, Role, Run, RunPoint, User
from annotator.services import members, runs
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
PHONE = {"width": 420, "height": 800}


def world() -> tuple[Project, User]:
    project = factories.project("letters", name="Discharge letters", question="Which is plainer?")
    return project, factories.member(project, Role.OWNER, name="Alice Aho", is_staff=True)


def running(project: Project) -> tuple[Run, runs.Work]:
    run = runs.start(project=project, kind="train", title="Train a model", config={}, by=None)
    pen = runs.begin(run_id=run.pk, worker="gpu-1:7")
    assert pen is not None
    pen.stage("train", "Train")
    pen.progress(10, 40, unit="steps")
    pen.flush()
    return run, pen


def test_run_page_follows_the_worker_and_stops_asking_at_the_end(open_page: OpenPage) -> None:
    project, alice = world()
    run, pen = running(project)
    page = open_page(alice, reverse("run", args=[project.slug, run.pk]))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    expect(page.locator("#live progress")).to_have_attribute("value", "10")
    pen.progress(30)
    pen.log("step 30  loss 0.4")
    pen.flush()
    expect(page.locator("#live progress")).to_have_attribute("value", "30")
    expect(page.locator(".log")).to_contain_text("step 30 loss 0.4", use_inner_text=True)
    page.focus("#cancel")
    pen.points("step", [(step, {"loss": 1 / step}) for step in range(1, 31)])
    expect(page.locator("#live svg").first).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "cancel"
    pen.fail("The device caught fire.", advice="Put it out.")
    expect(page.locator("#status")).to_have_text(f"Run {run.pk} failed.")
    expect(page.get_by_text("Put it out.")).to_be_visible()
    expect(page.locator("#resume")).to_be_visible()
    count = len(asked)
    page.wait_for_timeout(2500)
    assert len(asked) == count


def test_poll_that_was_lost_asks_again_without_a_word(open_page: OpenPage) -> None:
    project, alice = world()
    run, pen = running(project)
    page = open_page(alice, reverse("run", args=[project.slug, run.pk]))
    page.context.set_offline(True)
    page.wait_for_timeout(1800)
    expect(page.locator("#offline")).to_be_hidden()
    page.context.set_offline(False)
    pen.progress(35)
    pen.flush()
    expect(page.locator("#live progress")).to_have_attribute("value", "35", timeout=9000)
    page.problems[:] = [one for one in page.problems if "INTERNET_DISCONNECTED" not in one
                        and "htmx:" not in one]  # fmt: skip
    pen.fail("over")


def test_verdict_that_was_lost_is_sent_again_on_demand(open_page: OpenPage) -> None:
    project, alice = world()
    task = factories.pairwise_task(project)
    page = open_page(alice, reverse("annotate", args=[project.slug]))
    page.context.set_offline(True)
    page.keyboard.press("1")
    page.get_by_role("button", name="Save and next").click()
    expect(page.locator("#offline")).to_be_visible()
    assert not Judgment.objects.exists()
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="You are up to date")).to_be_visible()
    expect(page.locator("#offline")).to_be_hidden()
    assert Judgment.objects.get().task == task
    page.problems[:] = [one for one in page.problems if "INTERNET_DISCONNECTED" not in one
                        and "htmx:" not in one]  # fmt: skip


def test_times_are_shown_where_the_reader_is(open_page: OpenPage) -> None:
    project, alice = world()
    run = Run.objects.create(project=project, kind="export", title="E", state="failed")
    today = timezone.now().astimezone(UTC).replace(hour=12, minute=30, second=0)
    Run.objects.filter(pk=run.pk).update(created_at=today)
    address = reverse("run", args=[project.slug, run.pk])
    page = open_page(alice, address, timezone_id="Asia/Tokyo")
    shown = page.locator("header.head time")
    expect(shown).to_contain_text("21:30")
    expect(shown).to_have_attribute("title", re.compile(rf"{today.day} \w+ {today.year}.*21:30"))


def test_invitation_link_is_copied_and_opened(open_page: OpenPage) -> None:
    project, alice = world()
    page = open_page(
        alice, reverse("members", args=[project.slug]),
        permissions=["clipboard-read", "clipboard-write"],
    )  # fmt: skip
    page.get_by_role("button", name="Make a link").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    nora = factories.user("Nora")
    guest = open_page(nora, link)
    guest.get_by_role("button", name="Accept").click()
    expect(guest.get_by_text("Welcome to Discharge letters")).to_be_visible()
    assert Membership.objects.get(user=nora).role == Role.ANNOTATOR


def test_owner_works_without_javascript(open_page: OpenPage) -> None:
    _, alice = world()
    page = open_page(alice, reverse("project_new"), java_script_enabled=False)
    page.get_by_label("Name").fill("Plain answers")
    page.locator("#id_guidelines").fill("Be **kind**.")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#rendered strong")).to_have_text("kind")
    page.get_by_role("button", name="Create the project").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Plain answers")
    page.get_by_role("link", name="Settings").first.click()
    page.get_by_label("Judgments per task").fill("4")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert Project.objects.get(slug="plain-answers").options.overlap == 4


def test_filter_without_javascript_has_a_button(open_page: OpenPage) -> None:
    project, alice = world()
    Run.objects.create(project=project, kind="export", title="Kept", state="done")
    Run.objects.create(project=project, kind="train", title="Dropped", state="failed")
    page = open_page(alice, reverse("runs", args=[project.slug]), java_script_enabled=False)
    page.get_by_label("State").select_option("done")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("Kept")).to_be_visible()
    expect(page.get_by_text("Dropped")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone(open_page: OpenPage, scheme: str) -> None:
    project, alice = world()
    run, _ = running(project)
    RunPoint.objects.bulk_create(
        RunPoint(run=run, kind="step", step=n, values={"loss": 0.5, "margin": 1.0})
        for n in range(1, 30)
    )
    for outcome in ("a1", "tie"):
        factories.judgment(factories.rater(project), factories.pairwise_task(project), outcome)
    invitation, token = members.invite(
        project=project, role=Role.REVIEWER, note="a note " * 10, places=3, days=3, by=alice
    )
    assert invitation.is_open
    page = open_page(alice, reverse("projects"), viewport=PHONE, color_scheme=scheme)
    slug = [project.slug]
    for address in (
        reverse("projects"),
        reverse("project_new"),
        reverse("preferences"),
        reverse("overview", args=slug),
        reverse("settings", args=slug),
        reverse("members", args=slug),
        reverse("runs", args=slug),
        reverse("run", args=[*slug, run.pk]),
        reverse("invitation", args=[token]),
        reverse("account_email"),
        reverse("mfa_index"),
        reverse("account_change_password"),
    ):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], address
        assert page.get_by_role("heading", level=1).count() == 1, address
        small = page.evaluate(
            "[...document.querySelectorAll('main button, main .button')]"
            ".filter(b => b.checkVisibility() && b.offsetHeight < 20).map(b => b.textContent)"
        )
        assert small == [], address


def test_every_field_has_a_name(open_page: OpenPage) -> None:
    """What a screen reader says: each control has a label, each help text is tied to its control."""
    project, alice = world()
    page = open_page(alice, reverse("projects"))
    slug = [project.slug]
    for address in (
        reverse("project_new"),
        reverse("settings", args=slug),
        reverse("members", args=slug),
        reverse("preferences"),
        reverse("account_change_password"),
        reverse("account_email"),
        reverse("runs", args=slug),
    ):
        page.goto(address)
        nameless = page.evaluate(
            """[...document.querySelectorAll('main :is(input, select, textarea)')]
               .filter(e => e.type !== 'hidden' && !e.labels?.length && !e.ariaLabel)
               .map(e => e.outerHTML)"""
        )
        assert nameless == [], address
        dangling = page.evaluate(
            """[...document.querySelectorAll('[aria-describedby]')]
               .filter(e => e.getAttribute('aria-describedby').split(' ')
                 .some(id => !document.getElementById(id))).map(e => e.outerHTML)"""
        )
        assert dangling == [], address
