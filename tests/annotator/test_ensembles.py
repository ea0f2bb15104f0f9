"""Ensembles on the web side: trained, scored, tried, evaluated, told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse

from annotator.celery import app
from annotator.errors import Conflict, Invalid
from annotator.jobs.reward_asks import ask
from annotator.jobs.scoring import score
from annotator.models import Project, Response, RewardModel, RewardScore, Role, Run, RunState, User
from annotator.queries import run_comparison
from annotator.queries.curves import curves
from annotator.services import (
    ensembles,
    evaluation_figures,
    model_cards,
    reward_asks,
    reward_evaluation,
    reward_scores,
    reward_transforms,
    tokens,
    training,
)
from annotator.services.ensembles import Way
from annotator.services.evaluation_figures import Candidates
from annotator.services.training_events import Reporter
from annotator.views import reward_try_table
from annotator.views.run_charts import charts
from models import gateway, transforms
from models.training import TrainingConfig
from models.transforms import COMBINATIONS, Reference
from tests import factories
from tests.annotator import planted
from tests.annotator.asking import BAD_TEXT, EVEN_TEXT, GOOD_TEXT, model_of, stored_prompt
from tests.annotator.evaluating import evaluated
from tests.annotator.rewarding import give_scores, make_model

pytestmark = pytest.mark.django_db(transaction=True)

ENSEMBLE = {"members": 3, "unit": 2.0}
ITEMS = [("Which?", GOOD_TEXT), ("Which?", BAD_TEXT), ("Which?", EVEN_TEXT)]


@pytest.fixture(autouse=True, scope="module")
def _no_child_is_left() -> Any:
    yield
    gateway.release()


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(
        app, "send_task", lambda name, kwargs, queue="": found.append(kwargs["run_id"])
    )
    return found


@pytest.fixture
def project() -> Project:
    return factories.project("whole")


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER)


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def planted_model(project: Project, **metrics: Any) -> RewardModel:
    """An ensemble by its metrics alone, without files."""
    model = make_model(project)
    model.metrics = {"ensemble": ENSEMBLE, **metrics}
    model.save()
    return model


def done(run: Run, work: Any = score) -> Run:
    work(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.DONE, ""), run.log
    return run


def members_say(model: RewardModel, conversations: list[Any]) -> np.ndarray:
    loaded = gateway.load_reward_model(training.artifact_folder(model), device="cpu")
    return loaded.score_members([([{"role": "user", "content": p}], a) for p, a in conversations])


# Ways ---------------------------------------------------------------------------------------------


def test_a_way_is_checked_and_says_what_it_is() -> None:
    assert Way.checked() == Way("mean") == Way.from_json(None)
    assert Way.checked("worst", 3.0) == Way("worst"), "a penalty that matters to nothing"
    assert Way.from_json(Way("penalized", 0.1).as_json()) == Way("penalized", 0.1)
    assert str(Way("penalized", 0.1)).endswith("less 0.1 times their variance")
    for combine, penalty in (("best", None), ("penalized", -1.0), ("penalized", float("nan"))):
        with pytest.raises(Invalid):
            Way.checked(combine, penalty)


def test_one_model_has_no_members_to_combine(project: Project) -> None:
    model = make_model(project)
    asked = reward_asks.make([reward_asks.Item([{"role": "user", "content": "?"}], "a")])
    training.artifact_folder(model).mkdir(parents=True)
    with pytest.raises(Invalid, match="no members to combine by worst"):
        reward_asks.begin(model=model, asked=replace(asked, combine="worst"), by=None)
    with pytest.raises(Invalid, match="no members"):
        reward_scores.start(reward_model=model, by=None, combine="penalized")
    with pytest.raises(Invalid, match="Combine members by mean, worst, penalized"):
        reward_scores.start(reward_model=model, by=None, combine="nonsense")


def test_scores_of_another_way_go_before_the_first_of_a_new_one(project: Project) -> None:
    model = planted_model(project)
    prompt = stored_prompt(project, "Which?", "a", "b")
    give_scores(model, {one.pk: 1.0 for one in Response.objects.filter(prompt=prompt)})
    assert not ensembles.settle(model, Way())
    assert RewardScore.objects.count() == 2
    assert ensembles.settle(model, Way("worst"))
    assert RewardScore.objects.count() == 0
    model.refresh_from_db()
    assert ensembles.way_of(model) == Way("worst")
    assert model.metrics["ensemble"] == ENSEMBLE
    ensembles.hold(model.pk, Way("worst"))
    with pytest.raises(Conflict, match="another way"):
        ensembles.hold(model.pk, Way())


def test_bounded_transforms_count_in_log_odds() -> None:
    raw, others = np.array([1.0, 0.0]), [np.array([0.0]), np.array([1.0])]
    found = reward_transforms.apply("par", raw, reference=None, references=others, unit=2.0)
    assert found == pytest.approx(1 / (1 + np.exp([-2.0, 2.0])))
    logs = reward_transforms.apply("log-sigmoid", raw, reference=None, references=others, unit=2.0)
    assert logs == pytest.approx(np.log(found))


# Trained, scored, told ----------------------------------------------------------------------------


@pytest.mark.neural
def test_a_training_with_members_makes_one_model_that_scores_with_variance() -> None:
    from annotator.jobs.training import train

    project = planted.preferences(60, raters=1)
    run = training.start(
        project=project, objective="bradley-terry", backbone="hashing", by=None,
        options={"epochs": 1, "members": 2, "prior_scale": 0.5},
    )  # fmt: skip
    assert run.title.endswith("2 members")
    done(run, train)
    model = RewardModel.objects.get(run=run)
    told = model.metrics["ensemble"]
    assert (model.members, ensembles.unit_of(model)) == (2, told["unit"])
    assert [one["seed"] for one in told["each"]] == [
        training.stored_config(run).member(n).seed for n in range(2)
    ]
    assert "member 2 of 2, step" in run.log
    assert run.progress == run.total == model.metrics["steps"]
    found = curves(run)
    assert list(found.members) == [1, 2]
    assert "member" not in found.series
    assert "member 2" in str(charts(found).large[0])
    assert [one.member for one in found.evaluations] == sorted(
        one.member for one in found.evaluations
    )
    assert found.latest is not None
    assert found.latest.member == 2
    scored = done(reward_scores.start(reward_model=model, by=None))
    rows = RewardScore.objects.filter(reward_model=model).select_related("response__prompt")
    assert scored.result["scored"] == rows.count() == Response.objects.count()
    some = list(rows[:5])
    loaded = gateway.load_reward_model(training.artifact_folder(model))
    said = loaded.score_members([(r.response.prompt.messages, r.response.text) for r in some])
    assert [r.mean for r in some] == pytest.approx(said.mean(axis=0), abs=1e-5)
    assert [r.variance for r in some] == pytest.approx(said.var(axis=0), abs=1e-5)
    assert min(r.variance for r in some) > 0


@pytest.mark.neural
def test_a_run_scores_in_the_way_it_was_asked_and_goes_on_in_it(project: Project) -> None:
    model = model_of(project, members=3)
    stored_prompt(project, "Which?", *(text for _, text in ITEMS))
    expected = members_say(model, ITEMS)
    done(reward_scores.start(reward_model=model, by=None))
    rows = RewardScore.objects.order_by("response_id")
    assert [one.mean for one in rows] == pytest.approx(expected.mean(axis=0), abs=1e-5)
    run = done(reward_scores.start(reward_model=model, by=None, combine="penalized", penalty=2.0))
    assert "those made in another way are gone" in run.log
    wanted = transforms.ensemble_penalized(expected, penalty=2.0)
    assert [one.mean for one in rows.all()] == pytest.approx(wanted, abs=1e-5)
    assert [one.variance for one in rows.all()] == pytest.approx(expected.var(axis=0), abs=1e-5)
    stored_prompt(project, "Another?", GOOD_TEXT)
    model.refresh_from_db()
    again = done(reward_scores.start(reward_model=model, by=None))
    assert again.config[ensembles.WAY] == {"combine": "penalized", "penalty": 2.0}
    assert again.result["scored"] == 4


@pytest.mark.neural
def test_a_request_is_answered_in_its_way_with_variance(project: Project) -> None:
    model = model_of(project, members=3)
    expected, rows = members_say(model, ITEMS), [0, 1, 2, 0]
    items = [reward_asks.Item([{"role": "user", "content": p}], a) for p, a in [*ITEMS, ITEMS[0]]]
    for combine in COMBINATIONS:
        asked = reward_asks.make(items, combine=combine)
        run = done(reward_asks.begin(model=model, asked=asked, by=None), ask)
        wanted = transforms.combine(expected, combine)[rows]
        assert run.result["scores"] == pytest.approx(wanted, abs=1e-5)
        assert run.result["variance"] == pytest.approx(expected.var(axis=0)[rows], abs=1e-5)
        assert run.result["combined"]["combine"] == combine
        assert reward_asks.Asked.from_json(run.config["request"]).way == Way(combine)


@pytest.mark.neural
def test_an_evaluation_takes_it_as_one_model_and_compares_ways() -> None:
    project = planted.preferences(24, raters=1, splits=("test",), seed=3)
    model = model_of(project, members=3)
    run = evaluated(model, gold=reward_evaluation.PEOPLE)
    assert (run.state, run.error) == (RunState.DONE, ""), run.log
    found = run.result["figures"]
    means = dict(RewardScore.objects.values_list("response__text", "mean"))
    assert len(means) == 48
    assert found["accuracy"]["n"] == 24
    assert "the mean of its members" in " ".join(found["notes"])
    assert RewardScore.objects.filter(reward_model=model, variance__gt=0).exists()
    ways = {one["key"]: one for one in found["best_of_n"]["ways"]}
    assert list(ways) == list(COMBINATIONS)
    assert ways["mean"]["gain"] is None
    assert ways["worst"]["gain"]["n"] == found["best_of_n"]["prompts"] == 24
    assert ways["mean"]["gold"]["value"] == found["best_of_n"]["points"][-1]["gold"]["value"]


def test_best_of_n_shows_which_way_is_gamed_less() -> None:
    """Of each prompt one answer is overrated by the mean and seen through by the worst member."""
    prompts = np.repeat(np.arange(30), 4)
    golds = np.tile([0.0, 0.2, 0.4, 1.0], 30)
    mean = np.tile([9.0, 0.2, 0.4, 1.0], 30)
    candidates = Candidates(prompts, mean, golds, "people", {"mean": mean, "worst": golds})
    ways = {one["key"]: one for one in evaluation_figures._best_of_n(candidates)["ways"]}
    assert ways["mean"]["gold"]["value"] == 0.0
    assert ways["worst"]["gold"]["value"] == 1.0
    assert ways["worst"]["gain"]["value"] == 1.0
    assert (ways["mean"]["is_gamed"], ways["worst"]["is_gamed"]) == (True, False)


def test_only_whole_prompts_are_asked_of_members() -> None:
    prompts = np.array([7, 3, 3, 7, 9, 9, 9])
    assert reward_evaluation.whole_prompts(prompts, most=4).tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert reward_evaluation.whole_prompts(prompts, most=1).sum() == 0


def test_programs_ask_for_a_way_and_read_variances(
    project: Project, owner: User, settings: Any
) -> None:
    settings.SCORE_WAIT_SECONDS, settings.SCORE_REQUESTS_PER_MINUTE = 0, 0
    model = planted_model(project, combined=Way("worst").as_json())
    training.artifact_folder(model).mkdir(parents=True)
    prompt = stored_prompt(project, "Which?", "a")
    RewardScore.objects.create(
        project=project, response=prompt.responses.get(), reward_model=model, mean=1, variance=0.25
    )
    _, secret = tokens.create(user=owner, name="test")
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    address = f"/api/v1/reward-models/{model.pk}"
    stored = client.get(f"{address}/scores").json()
    assert stored["combined"] == {"combine": "worst", "penalty": 0.5}
    assert [(one["score"], one["variance"]) for one in stored["scores"]] == [(1, 0.25)]

    def ask_for(**how: Any) -> Any:
        body = {"items": [{"prompt": "Which?", "response": "a"}], **how}
        return client.post(f"{address}/score", body, content_type="application/json")

    assert ask_for(combine="penalized", penalty=0.1).status_code == 202
    run = Run.objects.get(kind=Run.Kind.ASK)
    assert reward_asks.Asked.from_json(run.config["request"]).way == Way("penalized", 0.1)
    for how in ({"combine": "best"}, {"penalty": -1}, {"penalty": 1e9}):
        assert ask_for(**how).status_code == 422
    assert Run.objects.filter(kind=Run.Kind.ASK).count() == 1


# Pages and words ----------------------------------------------------------------------------------


@pytest.mark.neural
def test_pages_show_members_and_ask_for_a_way(project: Project, owner: User) -> None:
    model = model_of(project, members=3)
    client = client_of(owner)
    page = client.get(reverse("reward_model", args=[project.slug, model.number]))
    text = page.content.decode()
    assert page.status_code == 200
    assert "3 models that differ by seed" in text
    models = client.get(reverse("reward_models", args=[project.slug])).content.decode()
    assert "Hashed n-grams, 3 members" in models
    assert "the mean of its members" in text
    tried = reverse("reward_try", args=[project.slug, model.number])
    assert 'name="combine"' in client.get(tried).content.decode()
    body = {"prompt": "Which?", "a": GOOD_TEXT, "b": BAD_TEXT, "combine": "worst", "penalty": ".5"}
    answer = client.post(tried, body)
    assert answer.status_code == 302
    run = Run.objects.get(kind=Run.Kind.ASK)
    done(run, ask)
    shown = client.get(answer["Location"]).content.decode()
    assert "its least convinced member" in shown
    assert "Members</th>" in shown
    assert '<option value="worst" selected>' in shown
    bad = client.post(tried, body | {"combine": "nonsense"})
    assert bad.status_code == 422
    assert Run.objects.filter(kind=Run.Kind.ASK).count() == 1
    scoring = reverse("reward_model_score", args=[project.slug, model.number])
    stored_prompt(project, "Which?", GOOD_TEXT)
    client.post(scoring, {"combine": "penalized", "penalty": "0.1"})
    run = Run.objects.get(kind=Run.Kind.SCORE)
    assert run.config[ensembles.WAY] == {"combine": "penalized", "penalty": 0.1}


def test_a_table_shows_how_far_members_lie_apart() -> None:
    members = reward_try_table.Members(4, [0.09, 0.0], "the mean of its members", 2.0)
    found = reward_try_table.table(
        ["one", "two"], [1.0, 0.5], objective="bradley-terry",
        reference=Reference(0.0, 0.5, 10), members=members,
    )  # fmt: skip
    assert [row.spread for row in found.rows] == ["0.60", "0.00"], "in the unit of the score"
    assert found.rows[0].better.startswith("73.1"), "of a difference of 2 x 0.5 log-odds"
    assert "± is the standard deviation of the members" in found.scale
    alone = reward_try_table.table(["a"], [1.0], objective="bradley-terry", reference=None)
    assert not alone.has_members


@pytest.mark.neural
def test_the_card_tells_of_members_and_how_to_combine_them(project: Project) -> None:
    model = model_of(project, members=3)
    text = model_cards.card(model, folder=training.artifact_folder(model))
    assert "## Members" in text
    assert "3 models that differ by seed" in text
    assert 'combine(members, "worst")' in text
    assert "blind spots" in text
    assert "AutoModelForSequenceClassification" not in text
    single = model_cards.card(make_model(project, 2), folder=training.artifact_folder(model))
    assert "## Members" not in single


def test_a_prior_needs_members_and_gpm_has_none() -> None:
    project = planted.preferences(60, raters=1)
    given = {"project": project, "backbone": "hashing", "by": None}
    with pytest.raises(Invalid, match="tells members apart"):
        training.start(objective="bradley-terry", options={"prior_scale": 1}, **given)
    with pytest.raises(Invalid, match="compares two answers directly"):
        training.start(objective="gpm", options={"members": 2}, **given)
    with pytest.raises(Invalid, match="members"):
        training.start(objective="bradley-terry", options={"members": 0}, **given)


def test_the_form_asks_for_members(project: Project, owner: User) -> None:
    text = client_of(owner).get(reverse("train", args=[project.slug])).content.decode()
    assert 'name="members"' in text
    assert 'name="prior_scale"' in text


def test_a_point_of_a_curve_is_of_one_member(project: Project) -> None:
    written: list[tuple[str, int, dict[str, Any]]] = []

    class Work:
        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    reporter = Reporter(Work(), labels={})  # type: ignore[arg-type]
    reporter.point = lambda kind, step, values: written.append((kind, step, values))  # type: ignore[method-assign]
    for step in range(1, 6001):
        values = dict.fromkeys(("margin", "grad_norm", "lr", "pairs_per_second", "memory_mb"), 1.0)
        member = 1 if step <= 3001 else 2
        reporter({
            "event": "step", "step": step, "total_steps": 6000, "loss": float(member),
            "epoch": 1.0, "member": member, "members": 2, **values,
        })  # fmt: skip
    assert all(values["loss"] == values["member"] for _, _, values in written)
    assert len(written) <= 1001
    assert [values["member"] for _, _, values in written] == sorted(
        values["member"] for _, _, values in written
    )


def test_trainings_side_by_side_differ_in_their_members(project: Project) -> None:
    single, several = (
        Run.objects.create(
            project=project, kind=Run.Kind.TRAIN, title="T",
            config=TrainingConfig(members=members).model_dump(mode="json"),
        )
        for members in (1, 4)
    )  # fmt: skip
    found = run_comparison.differences(run_comparison.find(project, [single.pk, several.pk]))
    assert {one.name: one.values for one in found} == {"Members": ("1", "4")}
