"""Reward models in a browser: no page has a serious fault, trying one needs neither mouse nor script,
a training's page moves by itself."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from django.db import connection
from django.urls import reverse
from playwright.sync_api import Page, expect

from annotator.celery import app
from annotator.jobs.reward_asks import ask
from annotator.models import Project, RewardModel, Role, Run, RunPoint, RunState, User
from annotator.services import images, runs, workers
from models import gateway
from tests import factories
from tests.annotator.asking import BAD_TEXT, EVEN_TEXT, GOOD_TEXT, model_of
from tests.annotator.evaluating import evaluated, plant, world
from tests.annotator.pictures import picture
from tests.annotator.rewarding import give_scores, make_model
from tests.browser.test_axe import faults
from tests.browser.working import work_through

pytestmark = pytest.mark.django_db(transaction=True)

OpenPage = Callable[..., Page]
PHONE = {"width": 420, "height": 800}
LOOKS = (("light", 1280), ("dark", 420))


@pytest.fixture(autouse=True, scope="module")
def _no_child_is_left() -> Any:
    yield
    gateway.release()


@pytest.fixture(autouse=True)
def _nobody_takes_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "send_task", lambda name, kwargs, queue="": None)


def owner_of(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Olga Ode")


def looked_at(page: Page, addresses: list[str]) -> list[str]:
    """Faults of every page at a desk and on a phone, and what is wider than the window."""
    found = []
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        for address in addresses:
            page.goto(address)
            page.evaluate(
                "document.querySelectorAll('main details').forEach((one) => { one.open = true })"
            )
            found += faults(page)
            if page.evaluate("document.documentElement.scrollWidth") > width:
                found.append(f"{address} is wider than {width}")
    return found


def trained(model: RewardModel, steps: int = 40) -> None:
    """The run that made a model, with its curves."""
    estimate = {"accuracy": 0.7, "interval": [0.6, 0.8], "n": 120, "groups": 120, "ties": 0}
    metrics = estimate | {
        "test_pairs": 120, "prompts": 120, "loss": 0.6, "steps": steps, "train_pairs": 900,
        "seconds": 12.0, "baselines": {"longer_wins": estimate, "human_ceiling": estimate},
    }  # fmt: skip
    Run.objects.filter(pk=model.run_id).update(
        state=RunState.DONE, total=steps, progress=steps, unit="steps",
        result=metrics | {"reward_model": model.number},
        config={"objective": "bradley-terry", "backbone": "hashing", "options": {"epochs": 7}},
    )  # fmt: skip
    RewardModel.objects.filter(pk=model.pk).update(metrics=metrics)
    RunPoint.objects.bulk_create(
        RunPoint(run_id=model.run_id, kind="step", step=n, values=values(n)) for n in range(steps)
    )
    for step in (20, 40):
        point(model.run_id, "evaluate", step, accuracy=0.6 + step / 400)


def values(step: int) -> dict[str, float]:
    return {"loss": 0.7 - step / 200, "margin": step / 40, "grad_norm": 1.0,
            "pairs_per_second": 900.0, "memory_mb": 300.0}  # fmt: skip


def point(run_id: int, kind: str, step: int, **more: float) -> None:
    measured = {"accuracy": 0.6, "interval": [0.5, 0.7], "n": 120, "loss": 0.65,
                "split": "validation"}  # fmt: skip
    of = measured | more if kind == "evaluate" else values(step) | more
    RunPoint.objects.create(run_id=run_id, kind=kind, step=step, values=of)


def test_pages_of_reward_models(open_page: OpenPage) -> None:
    made = world()
    other = make_model(made.project, 2)
    plant(made, other, right=20)
    for model in (made.model, other):
        trained(model)
    evaluation = evaluated(made.model)
    assert evaluation.state == RunState.DONE, evaluation.error
    waiting = runs.start(
        project=made.project, kind=Run.Kind.TRAIN, title="Train", config={}, by=None
    )
    workers.beat(hostname="gpu@here", queues=["gpu"], started=1.0)
    slug = made.project.slug
    addresses = [
        reverse(name, args=[slug, *rest])
        for name, *rest in (
            ("reward_models",), ("reward_model", 1), ("reward_model", 2),
            ("reward_model_evaluate", 1), ("reward_try", 1), ("train",), ("workers",),
            ("run", made.model.run_id), ("run", evaluation.pk), ("run", waiting.pk), ("runs",),
        )
    ]  # fmt: skip
    addresses += [
        f"{addresses[1]}?beside=rm-2",
        reverse("reward_compare", args=[slug]) + f"?a={made.model.run_id}&b={other.run_id}",
    ]
    page = open_page(owner_of(made.project), addresses[0])
    assert looked_at(page, addresses) == []
    page.goto(reverse("run", args=[slug, made.model.run_id]))
    config = page.locator("section", has=page.get_by_role("heading", name="Configuration"))
    expect(config).to_contain_text("Hashed n-grams")
    expect(config).to_contain_text("Epochs")
    expect(config).not_to_contain_text("bradley-terry")


def test_pages_of_a_model_of_pictures(open_page: OpenPage) -> None:
    project = factories.project("pictured", modality="image")
    prompt = factories.prompt(project, split="test")
    model = make_model(project)
    RewardModel.objects.filter(pk=model.pk).update(backbone="pixels")
    trained(model)
    answers = [
        factories.response(prompt, image=images.ingest(project=project, data=picture(color=color)))
        for color in ("red", "blue")
    ]
    give_scores(model, {one.pk: float(at) for at, one in enumerate(answers)})
    address = reverse("reward_try", args=[project.slug, 1])
    page = open_page(owner_of(project), address)
    shown = [
        address,
        f"{address}?prompt={prompt.pk}",
        reverse("reward_model", args=["pictured", 1]),
    ]
    assert looked_at(page, shown) == []
    page.goto(shown[1])
    expect(page.get_by_role("img", name="Answer A")).to_be_visible()
    expect(page.locator("#result-title")).to_have_text("Answer B comes out first")


def in_a_thread(run_id: int) -> None:
    """What a worker does, beside the browser's event loop."""

    def work() -> None:
        try:
            ask(run_id=run_id)
        finally:
            connection.close()

    thread = Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.neural
def test_a_model_is_tried_by_keyboard(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    project = factories.project("tried")
    model_of(project)
    monkeypatch.setattr(
        app, "send_task", lambda name, kwargs, queue="": in_a_thread(kwargs["run_id"])
    )
    page = open_page(owner_of(project), reverse("reward_try", args=["tried", 1]))
    page.get_by_label("Prompt").focus()
    page.keyboard.type("Which?")
    page.keyboard.press("Tab")
    page.keyboard.type(BAD_TEXT)
    page.keyboard.press("Tab")
    page.keyboard.type(GOOD_TEXT)
    page.keyboard.press("Tab")
    expect(page.locator("summary", has_text="More answers")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Answer C")).to_be_focused()
    page.keyboard.type(EVEN_TEXT)
    button = page.get_by_role("button", name="Score them")
    for _ in range(6):
        page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.set_default_timeout(60_000)
    page.keyboard.press("Enter")
    expect(page.locator("#result-title")).to_have_text("Answer B comes out first", timeout=60_000)
    assert [one.inner_text() for one in page.locator("#result tbody th").all()] == ["B", "C", "A"]
    expect(page.get_by_label("Prompt")).to_have_value("Which?")
    assert faults(page) == []
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.neural
def test_a_model_is_tried_without_a_script(open_page: OpenPage) -> None:
    project = factories.project("tried")
    model_of(project)
    address = reverse("reward_try", args=["tried", 1])
    page = open_page(owner_of(project), address, java_script_enabled=False)
    page.get_by_label("Prompt").fill("Which?")
    page.get_by_label("Answer A").fill(GOOD_TEXT)
    page.get_by_label("Answer B").fill(BAD_TEXT)
    page.get_by_role("button", name="Score them").click()
    expect(page.locator("#result-title")).to_have_text("Waits for a gpu worker")
    run = Run.objects.get(kind=Run.Kind.ASK)
    work_through(run, ask)
    page.get_by_role("link", name="Look again").click()
    expect(page.locator("#result-title")).to_have_text("Answer A comes out first")
    expect(page.get_by_label("Answer B")).to_have_value(BAD_TEXT)


def test_a_trainings_page_moves_until_it_has_ended(open_page: OpenPage) -> None:
    project = factories.project("moving")
    run = runs.start(
        project=project, kind=Run.Kind.TRAIN, title="Train Bradley–Terry, Hashed n-grams",
        config={"objective": "bradley-terry", "backbone": "hashing"}, by=None,
    )  # fmt: skip
    pen = runs.begin(run_id=run.pk, worker="gpu-1:7")
    assert pen is not None
    pen.stage("train", "Train")
    pen.progress(2, 40, unit="steps")
    pen.flush()
    for step in (1, 2):
        point(run.pk, "step", step)
    page = open_page(owner_of(project), reverse("run", args=["moving", run.pk]))
    figures, charts = page.locator("dl.figures"), page.locator("figure.chart")
    expect(figures).to_contain_text("of 40")
    expect(charts).to_have_count(4)
    numbers = charts.first.locator("details")
    numbers.locator("summary").click()
    for step in (3, 4, 20):
        point(run.pk, "step", step)
    point(run.pk, "evaluate", 20, accuracy=0.731)
    pen.progress(20, 40, unit="steps")
    pen.flush()
    expect(figures).to_contain_text("73.1")
    expect(charts).to_have_count(5)
    expect(page.locator("#live progress")).to_have_attribute("value", "20")
    pen.finish({})
    expect(page.locator("#status")).to_have_text(f"Run {run.pk} done.")
    expect(page.locator("#live[hx-get]")).to_have_count(0)
    expect(page.locator("#retry")).to_be_visible()
