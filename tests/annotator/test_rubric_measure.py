"""Measuring a version: what is planted is found, on prompts nothing was fitted on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from scipy.special import ndtr

from annotator.errors import Conflict, Invalid
from annotator.jobs.induction import induce as induce_job
from annotator.jobs.induction import measure as measure_job
from annotator.models import (
    Criterion,
    CriterionVerdict,
    Judge,
    LlmCall,
    Project,
    Prompt,
    Response,
    RewardModel,
    RewardScore,
    Rubric,
    RubricMeasurement,
    RubricVersion,
    Run,
    RunState,
    Task,
)
from annotator.services import induction, rubric_measure, rubrics, runs
from annotator.services.rubric_measuring import weighed
from rubrics.llm.budget import Budget
from rubrics.sheet import Sheet, held_accuracy
from rubrics.sheet_figures import Weighed
from tests import factories
from tests.annotator import judged
from tests.annotator.test_judging import judge_on
from tests.planted_world import CRITERIA, NAMES, PlantedWorld, planted_world
from tests.simulated import SimulatedServer, judge_server

__all__ = ["judge_server"]

pytestmark = pytest.mark.django_db(transaction=True)

TRAIN, TEST = 40, 30
PLANTED = {"citation": 1.0, "example": 0.8, "hedge": -0.7}
EXACT = {"slip": 0.0, "noise": 0.0, "tie_margin": 0.0}

Serve = Callable[..., SimulatedServer]


def planted(train: int = TRAIN, test: int = TEST, seed: int = 3) -> PlantedWorld:
    """Pairs of which one side is better."""
    world = planted_world(2 * (train + test), seed=seed, weights=PLANTED)
    unequal = [pair for pair in world.pairs if abs(pair.difference) > 1e-9]
    assert len(unequal) >= train + test
    return PlantedWorld(tuple(unequal[: train + test]), world.weights)


def stored(world: PlantedWorld, *, test: int = TEST, tags: Sequence[str] = ()) -> Project:
    """The world as a project; one rater prefers what is better. The last prompts are held out."""
    project = factories.project()
    first_held = len(world.pairs) - test
    prompts = Prompt.objects.bulk_create(
        Prompt(
            project=project,
            content_hash=factories.digest("prompt", str(project.pk), str(at)),
            messages=[{"role": "user", "content": pair.prompt}],
            split="test" if at >= first_held else ("train", "validation")[at % 2],
            tags=[tags[at % len(tags)]] if tags else [],
        )
        for at, pair in enumerate(world.pairs)
    )
    responses = Response.objects.bulk_create(
        Response(
            project=project,
            prompt=prompt,
            content_hash=factories.digest("reply", str(project.pk), answer.text),
            text=answer.text,
        )
        for prompt, pair in zip(prompts, world.pairs, strict=True)
        for answer in (pair.first, pair.second)
    )
    tasks = Task.objects.bulk_create(
        Task(
            project=project,
            prompt=prompt,
            response_ids=[responses[2 * at].pk, responses[2 * at + 1].pk],
            content_hash=factories.digest("task", str(project.pk), str(at)),
            position=at,
        )
        for at, prompt in enumerate(prompts)
    )
    judged.vote(factories.rater(project), tasks, [int(np.sign(d)) for d in world.differences])
    return project


def version_of(
    project: Project, weights: Mapping[str, float | None], *, judge: Judge | None = None, **more
) -> RubricVersion:
    """A draft that asks a language model for planted features."""
    rubric = Rubric.objects.filter(project=project).first()
    rubric = rubric or rubrics.create(project=project, name="House", by=None)
    version = rubrics.draft(rubric=rubric, by=None)
    for name, weight in weights.items():
        polarity = -1 if (weight or 1) < 0 else 1
        rubrics.add(
            version=version, by=None, text=CRITERIA[name], weight=weight, polarity=polarity, **more
        )
    RubricVersion.objects.filter(pk=version.pk).update(verifier=judge)
    version.refresh_from_db()
    return version


def measured(version: RubricVersion, **how: Any) -> tuple[Run, dict[str, Any], Sheet]:
    run = rubric_measure.start(version=version, by=None, **how)
    return done(run)


def done(run: Run) -> tuple[Run, dict[str, Any], Sheet]:
    measure_job(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE, run.error
    found = RubricMeasurement.objects.get(run=run)
    return run, found.figures, Sheet.from_bytes(bytes(found.sheet))


def truths(world: PlantedWorld, weights: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Differences of features, chosen minus rejected, (n, k), and their weighted sums (n,)."""
    phi = np.array([pair.first.phi - pair.second.phi for pair in world.pairs])
    phi *= np.sign(world.differences)[:, None]
    columns = phi[:, [NAMES.index(name) for name in weights]]
    return columns, columns @ np.array(list(weights.values()))


def test_figures_are_what_was_planted(judge_server: Serve, settings: Any) -> None:
    world = planted()
    server = judge_server(known=world.known, **EXACT)
    project = stored(world)
    weights = {"citation": 1.0, "hedge": -0.5}
    version = version_of(project, weights, judge=judge_on(server, project, settings))
    run, figures, sheet = measured(version)
    columns, margins = truths(world, weights)
    right = float((margins[TRAIN:] > 1e-9).mean())
    found = figures["held_out"]["rubric"]
    assert found["value"] == pytest.approx(right)
    assert found["n"] == TEST
    assert found["ties"] == int((np.abs(margins[TRAIN:]) < 1e-9).sum()) > 0
    assert found["low"] < right < found["high"]
    longer = np.sign(world.differences) * world.longer
    assert figures["held_out"]["length"]["value"] == pytest.approx((longer[TRAIN:] > 0).mean())
    assert figures["n_learned"], figures["n_held"] == (TRAIN, TEST)
    assert figures["prompts_held"] == TEST
    for at, criterion in enumerate(rubrics.in_force(version)):
        one = figures["criteria"][str(criterion.pk)]
        sign = np.sign(list(weights.values())[at])
        with_vote = int((columns[:TRAIN, at] * sign > 0).sum())
        against = int((columns[:TRAIN, at] * sign < 0).sum())
        assert (one["with_vote"], one["against"]) == (with_vote, against)
        assert one["support"] == with_vote + against == one["precision"]["n"]
        assert one["coverage"]["value"] == pytest.approx(one["support"] / TRAIN)
        without = margins - columns[:, at] * list(weights.values())[at]
        lost = right - float((without[TRAIN:] > 1e-9).mean())
        assert one["contribution"]["value"] == pytest.approx(lost)
        assert np.sign(one["fitted"]["weight"]) == sign
        assert one["fitted"]["low"] <= one["fitted"]["weight"] <= one["fitted"]["high"]
    assert len(figures["path"]["points"]) > 3
    assert figures["path"]["criteria"] == [one.pk for one in rubrics.in_force(version)]
    assert figures["calls"] == run.counters["calls"] == LlmCall.objects.count() > 0
    assert figures["missing"].keys() == {"parent", "reward-model", "human_ceiling"}
    assert sheet.votes.tolist() == [1] * (TRAIN + TEST)


def test_no_pair_that_was_fitted_is_measured_on(judge_server: Serve, settings: Any) -> None:
    world = planted()
    project = stored(world)
    server = judge_server(known=world.known, **EXACT)
    version = version_of(project, PLANTED, judge=judge_on(server, project, settings))
    _, figures, sheet = measured(version, held=20, learned=25)
    splits = dict(Prompt.objects.values_list("pk", "split"))
    assert {splits[pk] for pk in sheet.prompts[sheet.is_held]} == {"test"}
    assert {splits[pk] for pk in sheet.prompts[~sheet.is_held]} == {"train", "validation"}
    assert not set(sheet.prompts[sheet.is_held]) & set(sheet.prompts[~sheet.is_held])
    assert (figures["n_learned"], figures["n_held"]) == (25, 20)
    # The planted weights are all there is to the votes: nothing is above them.
    assert figures["held_out"]["rubric"]["value"] >= figures["held_out"]["equal"]["value"]
    ids = {one.pk: one.weight for one in rubrics.in_force(version)}
    again = held_accuracy(sheet, ids)
    assert again is not None
    assert again.accuracy == figures["held_out"]["rubric"]["value"]


def test_measured_again_it_costs_nothing_and_says_the_same(
    judge_server: Serve, settings: Any
) -> None:
    world = planted()
    project = stored(world)
    server = judge_server(known=world.known, slip=0.1)
    version = version_of(project, PLANTED, judge=judge_on(server, project, settings))
    _, figures, sheet = measured(version, judged=5)
    run, again, twice = measured(version, judged=5)
    assert figures["calls"] > 0
    assert again["calls"] == run.result["calls"] == 0
    assert run.counters["cached"] == figures["calls"]
    assert again | {"calls": 0} == figures | {"calls": 0}
    assert twice.to_bytes() == sheet.to_bytes()


def test_positional_gap_that_was_planted_is_recovered(judge_server: Serve, settings: Any) -> None:
    bias, noise, held = 0.8, 0.7, 150
    world = planted(4, held, seed=11)
    server = judge_server(
        known=world.known, position_bias=bias, noise=noise, tie_margin=0.0, slip=0.0,
        criteria_sensitivity=1.0,
    )  # fmt: skip
    project = stored(world, test=held)
    version = version_of(project, PLANTED, judge=judge_on(server, project, settings))
    _, figures, sheet = measured(version, held=held, judged=held)
    better = np.abs(world.differences[-held:])
    forward, reverse = ndtr((better + bias) / noise), ndtr((better - bias) / noise)
    found = figures["position"]["judge"]
    assert found["gap"]["value"] == pytest.approx(float((forward - reverse).mean()), abs=0.08)
    assert found["gap"]["low"] < float((forward - reverse).mean()) < found["gap"]["high"]
    assert found["forward"]["value"] == pytest.approx(float(forward.mean()), abs=0.08)
    assert found["forward"]["value"] - found["reverse"]["value"] == pytest.approx(
        found["gap"]["value"]
    )
    averaged = figures["held_out"]["judge"]["value"]
    assert averaged == pytest.approx((found["forward"]["value"] + found["reverse"]["value"]) / 2)
    # The criteria are all that counts; the judge that is given them has its bias left.
    assert figures["position"]["judge.rubric"]["gap"]["low"] > 0.1
    assert set(sheet.orders) == {"judge", "judge.rubric"}
    assert np.isnan(sheet.orders["judge"][~sheet.is_held]).all()


def test_replies_of_a_judge_that_cannot_be_read_are_wrong(
    judge_server: Serve, settings: Any
) -> None:
    world = planted(4, 8)
    project = stored(world, test=8)
    server = judge_server(known=world.known, malformed=1.0)
    version = version_of(project, {"citation": 1.0}, judge=judge_on(server, project, settings))
    _, figures, sheet = measured(version)
    assert figures["held_out"]["judge"]["value"] == 0
    assert figures["held_out"]["judge"]["n"] == 8
    assert figures["position"]["judge"]["gap"]["value"] == 0
    assert figures["held_out"]["rubric"]["n"] == len(sheet.held().prompts) == 8
    assert figures["held_out"]["rubric"]["ties"] == 8, "what says nothing is wrong"
    assert "the reply could not be read" in figures["missing"]["criteria"]


@pytest.mark.parametrize("calls", [1, 41, 130])
def test_budget_keeps_what_was_measured_and_says_where_it_ended(
    calls: int, judge_server: Serve, settings: Any
) -> None:
    world = planted()
    project = stored(world)
    server = judge_server(known=world.known, **EXACT)
    judge = judge_on(server, project, settings, concurrency=1)
    version = version_of(project, {"citation": 1.0, "hedge": -1.0}, judge=judge)
    run, figures, sheet = measured(version, judged=10, budget=Budget(calls=calls))
    assert run.counters["calls"] <= calls
    assert len(sheet.prompts) == figures["n_held"] + figures["n_learned"]
    assert not np.isnan(sheet.scores).any()
    assert figures["n_held"] == min(calls // 4, TEST)
    if figures["n_held"] < TEST:
        assert "the budget was spent" in figures["missing"]["rubric"]
        assert "the budget was spent" in figures["missing"]["judge"]
    else:
        assert 0 < figures["held_out"]["judge"]["n"] < 10
        assert figures["n_learned"] == 0
        assert "path" in figures["missing"]
    assert (figures["held_out"]["rubric"] is None) == (calls < 4)


def test_method_that_is_never_answered_fails_and_writes_no_draft(
    judge_server: Serve, settings: Any
) -> None:
    world = planted(12, 2)
    project = stored(world, test=2)
    server = judge_server(known=world.known, api_key="secret", **EXACT)  # it refuses us
    judge = judge_on(server, project, settings)
    run = induction.start(
        project=project, method="autorule", options={"verify_pairs": 0}, judge=judge, by=None
    )
    induce_job(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "questions was answered" in run.error
    assert "HTTP 401" in run.log
    assert not RubricVersion.objects.exists()
    server.app.api_key = ""
    runs.resume(run=run, by=None)
    induce_job(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE, run.error
    assert RubricVersion.objects.get().run == run


def test_endpoint_that_is_down_fails_the_run_which_can_go_on(
    judge_server: Serve, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotator.services.rubric_scoring.DOWN_AFTER", 3)
    world = planted(6, 6)
    project = stored(world, test=6)
    server = judge_server(known=world.known, api_key="secret", **EXACT)  # it refuses us
    judge = judge_on(server, project, settings)
    run = rubric_measure.start(version=version_of(project, PLANTED, judge=judge), by=None)
    measure_job(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "answers nothing more" in run.error
    told = [line for line in run.log.splitlines() if "A call failed" in line]
    assert len(told) == 1, "each kind of failure once"
    assert "refused the request: HTTP 401" in told[0]
    server.app.api_key = ""
    runs.resume(run=run, by=None)
    _, figures, _ = done(run)
    assert figures["n_held"] == 6


def test_narrower_criterion_says_nothing_of_other_prompts(
    judge_server: Serve, settings: Any
) -> None:
    world = planted(8, 8)
    project = stored(world, test=8, tags=("cats", "dogs"))
    server = judge_server(known=world.known, **EXACT)
    judge = judge_on(server, project, settings)
    version = version_of(project, {"citation": 1.0}, judge=judge, scope="group", group="cats")
    prompt = Prompt.objects.filter(split="test").order_by("pk").first()
    rubrics.add(
        version=version, by=None, text="Is short", scope="prompt", group=str(prompt.pk),
        verifier="program", program="words",
    )  # fmt: skip
    run, _, sheet = measured(version, judged=1)
    tags = dict(Prompt.objects.values_list("pk", "tags"))
    is_cats = np.array([tags[pk] == ["cats"] for pk in sheet.prompts])
    assert np.isnan(sheet.scores[~is_cats, :, 0]).all()
    assert not np.isnan(sheet.scores[is_cats, :, 0]).any()
    assert (~np.isnan(sheet.scores[:, 0, 1])).nonzero()[0].tolist() == [
        sheet.prompts.tolist().index(prompt.pk)
    ]
    # Nobody was asked of other prompts; the judge once in both orders: it takes over neither.
    assert run.counters["calls"] == 2 * is_cats.sum() + 2


def test_people_and_reward_models_check_what_they_are_to_check() -> None:
    world = planted(6, 6)
    project = stored(world, test=6)
    version = version_of(project, {})
    person = rubrics.add(version=version, by=None, text="Is kind", verifier="person")
    model = reward_model(project)
    scored = rubrics.add(
        version=version, by=None, text="Scores high", verifier="reward-model", program="1"
    )
    ids = list(Response.objects.order_by("pk").values_list("pk", flat=True))
    one, two = factories.rater(project), factories.rater(project)
    for rater, value in ((one, 1), (two, 0)):
        CriterionVerdict.objects.create(
            criterion=person, response_id=ids[0], rater=rater, value=value
        )
    RewardScore.objects.bulk_create(
        RewardScore(project=project, response_id=pk, reward_model=model, mean=float(at))
        for at, pk in enumerate(ids[:20])
    )
    _, figures, sheet = measured(version)
    sides = {int(pk): at for at, pk in enumerate(sheet.chosen)}
    row, side = (sides[ids[0]], 0) if ids[0] in sides else (list(sheet.rejected).index(ids[0]), 1)
    column = sheet.places([person.pk])[0]
    assert sheet.scores[row, side, column] == 0.5, "the mean over people"
    assert np.isnan(sheet.scores[:, :, column]).sum() == 2 * len(sheet.prompts) - 1
    shares = {}
    for row in range(len(sheet.prompts)):
        for side, pk in enumerate((sheet.chosen[row], sheet.rejected[row])):
            shares[int(pk)] = sheet.scores[row, side, sheet.places([scored.pk])[0]]
    for at, pk in enumerate(ids):
        assert shares[pk] == pytest.approx(at / 20) if at < 20 else np.isnan(shares[pk])
    assert "start a score run" in figures["missing"]["reward-model"]


def reward_model(project: Project) -> RewardModel:
    run = runs.start(project=project, kind=Run.Kind.TRAIN, title="t", config={}, by=None)
    return RewardModel.objects.create(
        project=project, run=run, number=1, objective="bradley-terry", backbone="hf:someone/large",
        artifact="models/1",
    )  # fmt: skip


def test_newest_reward_model_stands_beside_it_where_it_has_scored() -> None:
    world = planted(6, 10)
    project = stored(world, test=10)
    model = reward_model(project)
    utility = {answer.text: answer.utility for pair in world.pairs
               for answer in (pair.first, pair.second)}  # fmt: skip
    RewardScore.objects.bulk_create(
        RewardScore(project=project, response=one, reward_model=model, mean=utility[one.text])
        for one in Response.objects.all()
    )
    version = version_of(project, {})
    rubrics.add(version=version, by=None, text="Has words", verifier="program", program="sources")
    run, figures, _ = measured(version)
    found = figures["held_out"]["reward-model"]
    assert (found["value"], found["n"], found["number"]) == (1.0, 10, 1)
    assert run.result["held_out"]["baselines"]["reward_model"]["accuracy"] == 1.0


def test_version_before_is_measured_on_the_same_pairs(judge_server: Serve, settings: Any) -> None:
    world = planted(10, 20)
    project = stored(world, test=20)
    server = judge_server(known=world.known, **EXACT)
    judge = judge_on(server, project, settings)
    old = version_of(project, {"citation": 1.0, "flattery": 1.0}, judge=judge)
    rubrics.approve(version=old, by=None)
    version = version_of(project, {"citation": 1.0, "hedge": -0.7}, judge=judge)
    run, figures, _ = measured(version, judged=1)
    _, margins = truths(world, {"citation": 1.0, "flattery": 1.0})
    found = figures["held_out"]["parent"]
    assert found["value"] == pytest.approx((margins[-20:] > 1e-9).mean())
    assert (found["number"], found["n"]) == (1, 20)
    assert run.counters["calls"] == 2 * (30 * 2 + 20) + 4, "what both ask is asked once"
    assert len(figures["criteria"]) == 2


def test_run_that_is_done_again_leaves_one_measurement() -> None:
    project = stored(planted(6, 6), test=6)
    version = version_of(project, {})
    rubrics.add(version=version, by=None, text="Cites", verifier="program", program="sources")
    run = rubric_measure.start(version=version, by=None)
    done(run)
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
    done(run)
    assert RubricMeasurement.objects.count() == 1
    assert [stage["key"] for stage in run.stages] == ["read", "held", "count"]
    missing = RubricMeasurement.objects.get().figures["missing"]
    assert missing["judge"] == "No judge is named whose model could be asked."


def test_start_is_refused_with_the_reason() -> None:
    project = factories.project()
    version = version_of(project, {})
    with pytest.raises(Invalid, match="no criterion"):
        rubric_measure.start(version=version, by=None)
    version = version_of(project, {"citation": 1.0})
    with pytest.raises(Invalid, match="1 to"):
        rubric_measure.start(version=version, by=None, held=0)
    other = factories.judge(factories.project(), options={"models": ["m"]})
    with pytest.raises(Invalid, match="of this project"):
        rubric_measure.start(version=version, by=None, verify_with=other)
    gone = factories.judge(project, options={"models": ["m"]})
    gone.archived_at = gone.created_at
    gone.save()
    with pytest.raises(Conflict, match="archived"):
        rubric_measure.start(version=version, by=None, verify_with=gone)


def test_weights_of_one_size_are_equal_weights_whatever_their_sign() -> None:
    def of(*weights: float | None) -> Weighed:
        return weighed([Criterion(pk=at, weight=one) for at, one in enumerate(weights)])

    assert not of(None, None).is_fitted
    assert not of(1 / 9, -1 / 9, 1 / 9).is_fitted
    assert of(0.5, 0.0).is_fitted
    assert of(0.5, -0.2, 0.0).signs == {0: 1, 1: -1, 2: 1}
    assert of(None, 2.0).weights == {0: 1.0, 1: 2.0}
    assert not of().is_fitted


def test_draft_discarded_meanwhile_fails_the_run() -> None:
    project = stored(planted(4, 4), test=4)
    version = version_of(project, {"citation": 1.0})
    run = rubric_measure.start(version=version, by=None)
    rubrics.discard(version=version, by=None)
    measure_job(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "not there any more" in run.error


def test_command_measures_the_newest_version() -> None:
    project = stored(planted(6, 6), test=6)
    version = version_of(project, {})
    rubrics.add(version=version, by=None, text="Cites", verifier="program", program="sources")
    out = StringIO()
    call_command(
        "measure_rubric", project.slug, "House", wait=True, json=True, stdout=out, stderr=StringIO()
    )
    result = json.loads(out.getvalue().splitlines()[-1])
    assert result["version"] == version.number
    assert set(result["held_out"]["baselines"]) >= {
        "longer_wins", "equal_weights", "judge", "judge_with_rubric", "reward_model",
        "human_ceiling", "position",
    }  # fmt: skip
    assert result["held_out"]["n"] == 6
    with pytest.raises(CommandError, match="no rubric"):
        call_command("measure_rubric", project.slug, "Nobody", stdout=out)


def test_criteria_of_prompts_that_are_not_held_out_have_no_accuracy(
    judge_server: Serve, settings: Any
) -> None:
    """As ARR writes them from prompts alone: of each prompt that was learned from its own."""
    world = planted(8, 8)
    project = stored(world, test=8)
    server = judge_server(known=world.known, **EXACT)
    judge = judge_on(server, project, settings)
    group = str(Prompt.objects.filter(split="train").earliest("pk").pk)
    version = version_of(project, {"citation": 1.0}, judge=judge, scope="prompt", group=group)
    run, figures, _ = measured(version, judged=3)
    assert figures["held_out"]["rubric"] is figures["held_out"]["equal"] is None
    assert "about prompts of its own" in figures["missing"]["rubric"]
    assert "about prompts of its own" in run.result["held_out"]["reason"]
    # A judge takes over what holds for every prompt, so there is nothing it could read.
    assert figures["held_out"]["judge"]["n"] == 3
    assert figures["held_out"]["judge.rubric"] is None
    assert "holds for every prompt" in figures["missing"]["judge.rubric"]


def test_rubric_that_wants_it_concise_is_measured_so(judge_server: Serve, settings: Any) -> None:
    world = planted(4, 4)
    project = stored(world, test=4)
    judge = judge_on(judge_server(known=world.known, **EXACT), project, settings)
    version = version_of(project, {"citation": 1.0}, judge=judge)
    measured(version, judged=1)
    before = LlmCall.objects.count()
    RubricVersion.objects.filter(pk=version.pk).update(options={"concise": True})
    version.refresh_from_db()
    measured(version, judged=1)
    assert LlmCall.objects.count() == before + 16  # other questions: two sides of eight pairs


def test_people_who_say_that_it_does_not_apply_say_half() -> None:
    """As the reward and the try have it: neither for the answer nor against it."""
    project = stored(planted(4, 4), test=4)
    version = version_of(project, {"citation": None}, verifier="person")
    (criterion,) = rubrics.in_force(version)
    rater = factories.rater(project)
    for at, response in enumerate(Response.objects.filter(prompt__split="test").order_by("pk")):
        CriterionVerdict.objects.create(
            criterion=criterion, response=response, rater=rater, value=None if at % 2 else 0
        )
    _, _, sheet = measured(version)
    assert sorted(set(sheet.held().scores.ravel().tolist())) == [0.0, 0.5]
