"""A judge's run in a browser: figures that move, pausing, the list of what failed, phones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from annotator.models import Judge, JudgeOutcome, Project, Role, Run, RunState, User
from annotator.services import judging, runs
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
PHONE = {"width": 420, "height": 800}
USED = {
    "calls": 1_200, "cached": 34, "tokens_in": 400_000, "tokens_out": 50_000, "cost": 1.25,
    "judged": 600, "failed": 2, "failures": {"timeout": 1, "unreadable": 1},
    "errors": {"unreadable": 5, "timeout": 2}, "retries": {"rate-limited": 77, "timeout": 4},
}  # fmt: skip


def world() -> tuple[Project, User, Judge]:
    project = factories.project("letters", name="Discharge letters", question="Which is plainer?")
    alice = factories.member(project, Role.OWNER, name="Alice Aho")
    return project, alice, factories.judge(project, name="careful")


def begun(judge: Judge, **counters: Any) -> tuple[Run, runs.Work]:
    run = judging.start(project=judge.project, judge=judge, by=None)
    pen = runs.begin(run_id=run.pk, worker="llm-1:7")
    assert pen is not None
    pen.stage("judge", "Judge")
    pen.progress(602, 1_000, unit="tasks")
    pen.count(USED | counters)
    pen.flush()
    return run, pen


def test_figures_move_while_it_judges_and_it_can_be_paused(open_page: OpenPage) -> None:
    _, alice, judge = world()
    run, pen = begun(judge)
    page = open_page(alice, reverse("run", args=["letters", run.pk]))
    figures = page.locator("dl.figures")
    expect(figures).to_contain_text("1,200")
    pen.count(USED | {"calls": 1_300})
    pen.progress(700)
    pen.flush()
    expect(figures).to_contain_text("1,300")
    expect(page.locator("#live progress")).to_have_attribute("value", "700")
    page.locator("#pause").click()
    expect(page.get_by_text("It pauses after the tasks at hand")).to_be_visible()
    assert pen.should_stop()
    pen.canceled()
    expect(page.locator("#resume")).to_be_visible()
    expect(page.locator("#pause")).to_have_count(0)
    run.refresh_from_db()
    assert run.state == RunState.PAUSED


@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desk", "phone"])
def test_what_failed_is_listed_with_its_reason_and_fits(
    open_page: OpenPage, viewport: dict[str, int] | None
) -> None:
    project, alice, judge = world()
    run, pen = begun(judge)
    long = "the reply was “" + "no word of sense " * 15 + "”"
    for error in ("timeout", "unreadable"):
        task = factories.pairwise_task(project)
        JudgeOutcome.objects.create(judge=judge, task=task, run=run, error=error, detail=long)
    pen.finish({"run": run.pk, "judged": 600, "failed": 2, "stopped": ""})
    options = {"viewport": viewport} if viewport else {}
    page = open_page(alice, reverse("run", args=["letters", run.pk]), **options)
    expect(page.get_by_role("heading", name="What went wrong")).to_be_visible()
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) <= 0
    page.get_by_role("link", name="2 tasks without a verdict").click()
    expect(page.get_by_role("heading", name=f"Failures of run {run.pk}")).to_be_visible()
    expect(page.get_by_text("The endpoint did not answer in time")).to_be_visible()
    assert page.evaluate(overflow) <= 0
    page.get_by_role("button", name="Retry failed").click()
    expect(page.get_by_text("tries what failed again")).to_be_visible()
    assert Run.objects.get(retry_of=run).config["retry"] == "failed"
