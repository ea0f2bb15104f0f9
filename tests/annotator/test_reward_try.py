"""The page to try a reward model, and trainings side by side."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from annotator.celery import app
from annotator.jobs.reward_asks import ask
from annotator.models import Project, Rater, RewardModel, Role, Run, RunPoint, RunState, Task, User
from annotator.queries import reward_asks as queries
from annotator.services import reward_asks, training
from annotator.views import reward_try_table
from models import gateway
from models.transforms import Reference
from tests import factories
from tests.annotator.asking import (
    BAD_TEXT,
    EVEN_TEXT,
    GOOD_TEXT,
    answers_of,
    model_of,
    stored_prompt,
)
from tests.annotator.rewarding import give_scores, make_model

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script> [x](javascript:alert(2))"


@pytest.fixture(autouse=True, scope="module")
def _no_child_is_left() -> Any:
    yield
    gateway.release()


@pytest.fixture
def project() -> Project:
    return factories.project("tried")


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER)


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(
        app, "send_task", lambda name, kwargs, queue="": found.append(kwargs["run_id"])
    )
    return found


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def address(model: RewardModel, query: str = "") -> str:
    return reverse("reward_try", args=[model.project.slug, model.number]) + query


def with_folder(model: RewardModel) -> RewardModel:
    training.artifact_folder(model).mkdir(parents=True)
    return model


def pasted(**fields: str) -> dict[str, str]:
    return {"prompt": "Which?", "a": BAD_TEXT, "b": GOOD_TEXT} | fields


def judged(project: Project, *texts: str, votes: tuple[str, ...] = ("a1",)) -> Any:
    """A held-out prompt the first two answers of which people compared."""
    prompt = stored_prompt(project, "Which?", *texts)
    ids = [one.pk for one in answers_of(prompt)]
    task = factories.pairwise_task(project, of=prompt, texts=("x", "y"))
    Task.objects.filter(pk=task.pk).update(response_ids=ids[:2], free=len(votes))
    prompt.responses.filter(text__in=["x", "y"]).delete()
    task.refresh_from_db()
    for choice in votes:
        factories.judgment(factories.rater(project), task, choice)
    return prompt


# Trying -------------------------------------------------------------------------------------------


@pytest.mark.neural
def test_pasted_answers_are_put_in_order_with_what_people_said(
    project: Project, owner: User
) -> None:
    model, client = model_of(project), client_of(owner)
    judged(project, GOOD_TEXT, BAD_TEXT, votes=("a1", "a2", "b1"))
    answer = client.post(address(model), pasted(c=EVEN_TEXT, d=" "))
    run = Run.objects.get(kind=Run.Kind.ASK)
    assert answer["Location"] == address(model, f"?run={run.pk}")
    waiting = client.get(answer["Location"]).content.decode()
    assert 'hx-trigger="load delay:1s"' in waiting
    assert "<noscript>" in waiting
    assert GOOD_TEXT in waiting  # the form is as it was sent
    ask(run_id=run.pk)
    page = client.get(answer["Location"])
    table = page.context["table"]
    assert [row.name for row in table.rows] == ["B", "C", "A"]
    assert table.finding == "Answer B comes out first"
    raw = {row.name: row for row in table.rows}
    assert raw["B"].better > "50"
    text = page.content.decode()
    assert "hx-trigger" not in text.partition('id="result"')[2]
    assert "2 answers of the project" in text  # what the scale is of
    part = client.get(answer["Location"], headers={"HX-Request": "true"}).content.decode()
    assert part.lstrip().startswith('<section class="block" id="result"')
    assert "<html" not in part


def test_stored_prompt_shows_stored_scores_at_once(
    project: Project, owner: User, sent: list[int]
) -> None:
    model, client = make_model(project), client_of(owner)
    prompt = judged(project, "Short.", "Long answer.", votes=("b1", "b2", "a1", "tie"))
    first, second = answers_of(prompt)
    give_scores(model, {first.pk: 0.0, second.pk: 1.0})
    reward_asks.keep_reference(model, Reference(0.0, 2.0, 12))
    found = client.get(address(model, "?pick=random"))
    assert found["Location"] == address(model, f"?prompt={prompt.pk}")
    page = client.get(found["Location"])
    rows = page.context["table"].rows
    assert [(row.name, row.score) for row in rows] == [("B", "0.50"), ("A", "0.00")]
    assert rows[0].better.startswith("73.1")
    assert rows[0].people == "2 of 4 prefer it, 1 see no difference"
    assert rows[0].agrees is True
    assert not sent


def test_judges_and_excluded_raters_are_no_people(project: Project) -> None:
    prompt = judged(project, "One.", "Two.", votes=("a1",))
    ids = [one.pk for one in answers_of(prompt)]
    assert queries.votes_among(project.pk, ids)[tuple(ids)].total == 1
    Rater.objects.update(is_excluded=True)
    assert queries.votes_among(project.pk, ids) == {}


def test_stored_prompt_is_asked_about_by_its_answers(
    project: Project, owner: User, django_capture_on_commit_callbacks: Any, sent: list[int]
) -> None:
    model, client = with_folder(make_model(project)), client_of(owner)
    prompt = judged(project, "One.", HOSTILE)
    page = client.get(address(model, f"?prompt={prompt.pk}")).content.decode()
    assert "<script>alert" not in page
    assert 'href="javascript' not in page
    with django_capture_on_commit_callbacks(execute=True):
        client.post(address(model), {"stored": prompt.pk})
    run = Run.objects.get(kind=Run.Kind.ASK)
    assert sent == [run.pk]
    assert run.config["request"]["answers"] == [one.pk for one in answers_of(prompt)]
    page = client.get(address(model, f"?run={run.pk}")).content.decode()
    assert "<script>alert" not in page
    assert "Waits for a gpu worker" in page


def test_failed_try_says_why(project: Project, owner: User) -> None:
    model, client = with_folder(make_model(project)), client_of(owner)
    client.post(address(model), pasted())
    run = Run.objects.get(kind=Run.Kind.ASK)
    Run.objects.filter(pk=run.pk).update(state="failed", error="No memory.", advice="Less text.")
    page = client.get(address(model, f"?run={run.pk}")).content.decode()
    assert "No memory." in page
    assert "Less text." in page
    assert 'hx-trigger="load delay:1s"' not in page


@pytest.mark.parametrize(
    "fields",
    [{"prompt": ""}, {"a": ""}, {"a": "x" * 50_001}, {"prompt": "\0"}, {"b": ""}],
    ids=["no prompt", "no answer", "long", "nothing left", "one answer"],
)
def test_what_cannot_be_tried_is_told_on_the_form(
    project: Project, owner: User, fields: dict[str, str], sent: list[int]
) -> None:
    model = with_folder(make_model(project))
    assert client_of(owner).post(address(model), pasted(**fields)).status_code == 422
    assert not Run.objects.filter(kind=Run.Kind.ASK).exists()


def test_foreign_prompts_and_runs_are_not_found(project: Project, owner: User) -> None:
    model, client = with_folder(make_model(project)), client_of(owner)
    other = make_model(factories.project(), 1)
    prompt = stored_prompt(other.project, "Secret?", "one", "two")
    foreign = Run.objects.create(
        project=other.project, kind=Run.Kind.ASK, title="T", config={"reward_model": other.pk}
    )
    for query in (f"?prompt={prompt.pk}", f"?run={foreign.pk}", f"?run={model.run_id}"):
        assert client.get(address(model, query)).status_code == 404, query
    for query in ("?run=x", "?prompt=-1", "?run=99999999999999999999", "?pick=none"):
        assert client.get(address(model, query)).status_code == 200, query
    for value in ("", "x", "9" * 30, str(prompt.pk)):
        assert client.post(address(model), {"stored": value}).status_code == 404, value


def test_table_says_nothing_that_scores_do_not_say() -> None:
    table = reward_try_table.table(
        ["a", "b", "c"], [1.0, None, 1.0], objective="regression", reference=None
    )
    assert [row.name for row in table.rows] == ["A", "C"]
    assert table.finding.startswith("No answer comes out first")
    assert not table.has_chances  # a difference of ratings is no log-odds
    assert table.unscored == ["B"]
    assert table.scale.startswith("Raw scores")


# Side by side -------------------------------------------------------------------------------------


def trained(project: Project, number: int, *, steps: int = 40, **options: Any) -> Run:
    config = {"objective": "bradley-terry", "backbone": "hashing", "seed": 0, "options": options}
    result = {
        "accuracy": 0.7, "interval": [0.65, 0.75], "test_pairs": 400, "prompts": 400,
        "baselines": {},
    }  # fmt: skip
    run = Run.objects.create(
        project=project, kind=Run.Kind.TRAIN, title="Train", state=RunState.DONE,
        config=config, result=result, unit="steps", total=steps,
    )  # fmt: skip
    RunPoint.objects.bulk_create(
        RunPoint(
            run=run, kind="step", step=step,
            values={"loss": 0.7 - 0.001 * step * number, "margin": 0.1, "grad_norm": 1.0,
                    "pairs_per_second": 100.0, "memory_mb": 300.0},
        )
        for step in range(0, steps, 5)
    )  # fmt: skip
    values = {"accuracy": 0.68, "interval": [0.6, 0.75], "n": 200, "split": "validation"}
    RunPoint.objects.create(run=run, kind="evaluate", step=steps, values=values)
    RewardModel.objects.create(
        project=project, run=run, number=number, objective="bradley-terry", backbone="hashing",
        options=options, metrics=result | {"train_pairs": 100 * number}, artifact="x",
    )  # fmt: skip
    return run


def compared(user: User, project: Project, *runs: Any) -> Any:
    query = "&".join(f"{name}={run}" for name, run in zip("abcd", runs, strict=False))
    return client_of(user).get(reverse("reward_compare", args=[project.slug]) + f"?{query}")


def test_trainings_stand_side_by_side(project: Project, owner: User) -> None:
    runs = [trained(project, 1, epochs=3, l2=1.0), trained(project, 2, epochs=9, l2=1.0)]
    page = compared(owner, project, *[run.pk for run in runs])
    text = page.content.decode()
    rows = {row.name: row.values for row in page.context["differences"]}
    assert rows == {"Epochs": ("3", "9"), "Pairs trained on": ("100", "200")}
    titles = [chart.title for chart in page.context["charts"]]
    assert titles == [
        "Validation accuracy, %, with 95 % interval", "Training loss",
        "Margin, chosen minus rejected", "Gradient norm", "Pairs a second", "Peak memory, MB",
    ]  # fmt: skip
    for chart in page.context["charts"]:
        assert "rm-1" in chart.label
        assert "rm-2" in chart.label
    assert "70.0 %" in text.replace("\u202f", " ").replace("\xa0", " ")
    assert "[65.0," in text


def test_comparison_takes_four_at_most_and_any_nonsense(project: Project, owner: User) -> None:
    runs = [trained(project, n) for n in range(1, 6)]
    foreign = trained(factories.project(), 1)
    page = compared(owner, project, *[run.pk for run in runs[:4]])
    assert len(page.context["found"]) == 4
    page = compared(owner, project, runs[0].pk, runs[0].pk, foreign.pk, "x" * 50)
    assert [one.run.pk for one in page.context["found"]] == [runs[0].pk]
    assert "is no training of this project" in page.content.decode()
    assert compared(owner, project).status_code == 200
    assert (
        "No training yet"
        in compared(
            factories.member(other := factories.project(), Role.OWNER), other
        ).content.decode()
    )


def test_comparison_costs_the_same_with_more_points(
    project: Project, owner: User, django_assert_max_num_queries: Any
) -> None:
    runs = [trained(project, n, steps=400 * n) for n in (1, 2, 3, 4)]
    client = client_of(owner)
    query = "&".join(f"{name}={run.pk}" for name, run in zip("abcd", runs, strict=True))
    with django_assert_max_num_queries(30):
        client.get(reverse("reward_compare", args=[project.slug]) + f"?{query}")


def test_training_under_way_without_a_curve_can_be_compared(project: Project, owner: User) -> None:
    run = Run.objects.create(project=project, kind=Run.Kind.TRAIN, title="Train")
    page = compared(owner, project, run.pk).content.decode()
    assert f"Run {run.pk}" in page
    assert "None of them has written a curve yet." in page
