"""Evaluating a reward model as a run: planted figures, comparisons, kills."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from annotator.errors import Conflict, Invalid
from annotator.models import (
    Judgment,
    Preference,
    Prompt,
    Rater,
    Response,
    RewardModel,
    RewardScore,
    Run,
    RunState,
    Task,
)
from annotator.queries import evaluations
from annotator.queries.evaluation_pairs import Data, read_pairs
from annotator.queries.snapshot import snapshot
from annotator.services import groups, reward_evaluation, runs
from tests import factories
from tests.annotator.evaluating import PAIRS, RIGHT, World, evaluated, name_generators, plant, world
from tests.annotator.rewarding import approved, make_model

pytestmark = pytest.mark.django_db(transaction=True)


def done(run: Run) -> dict[str, Any]:
    assert (run.state, run.error) == (RunState.DONE, ""), run.log
    return run.result["figures"]


def test_planted_accuracy_and_its_parts_are_found() -> None:
    made = world()
    name_generators(made, "big", "small")
    found = done(evaluated(made.model))
    accuracy = found["accuracy"]
    assert (accuracy["value"], accuracy["n"], accuracy["groups"]) == (RIGHT / PAIRS, PAIRS, PAIRS)
    assert accuracy["low"] < 0.75 < accuracy["high"]
    assert found["counts"] | {} == {
        "total": 40, "decided": 40, "undecided": 0, "unscored": 0, "pairs": 40, "prompts": 40,
    }  # fmt: skip
    assert found["longer"]["value"] == pytest.approx(0.75)  # by construction of the texts
    assert (found["ceiling"]["value"], found["ceiling"]["n"]) == (1.0, 20)
    tags = {one["name"]: one for one in found["slices"].get("tag", [])}
    assert tags == {}  # one tag alone divides nothing
    strengths = {one["name"]: (one["n"], one["pooled"]) for one in found["slices"]["strength"]}
    assert strengths == {"much better": (26, 0), "1 smaller": (14, 1)}
    agreement = [(one["name"], one["n"]) for one in found["slices"]["agreement"]]
    assert agreement == [("one vote", 30), ("1 smaller", 10)]
    assert found["splits"] == {"train": 0, "validation": 0, "test": 40}
    assert found["calibration"]["rm-1"]["bins"][0]["n"] == PAIRS  # all margins are 1
    says = 1 / (1 + np.exp(-1))
    assert found["calibration"]["rm-1"]["ece"]["value"] == pytest.approx(abs(0.75 - says))


def test_the_ceiling_counts_pairs_on_which_people_are_even() -> None:
    made = world(pairs=12, right=12)
    for task in made.tasks[1:4]:  # one vote each so far
        factories.judgment(made.raters[1], task, "b2" if task.pk != made.tasks[3].pk else "a2")
    Preference.objects.filter(task__in=made.tasks[1:3]).update(strength=1)
    found = done(evaluated(made.model))
    assert found["counts"]["undecided"] == 2
    ceiling = found["ceiling"]
    assert (ceiling["n"], ceiling["groups"]) == (12, 6)
    assert ceiling["value"] == pytest.approx(8 / 12)


def test_another_model_is_compared_on_the_same_pairs() -> None:
    made = world()
    other = make_model(made.project, 2)
    plant(made, other, right=20)
    RewardScore.objects.filter(reward_model=other, response_id=made.chosen(0)).delete()
    found = done(evaluated(made.model))
    rival = next(one for one in found["rivals"] if one["key"] == "rm-2")
    assert (rival["model"]["n"], rival["rival"]["n"]) == (39, 39)
    assert (rival["model_only"], rival["rival_only"]) == (10, 0)
    assert rival["difference"]["value"] == pytest.approx(10 / 39)
    assert rival["difference"]["low"] > 0
    together = found["together"]
    assert together["n"] == 39
    assert [one["key"] for one in together["rows"]] == ["rm-1", "length", "rm-2"]
    assert {one["n"] for one in together["rows"]} == {39}
    assert found["calibration"]["rm-2"] is not None
    assert all("rm-2" in one["beside"] for one in found["slices"]["length"] if not one["pooled"])


def test_a_judge_is_compared_by_its_votes_and_is_no_truth() -> None:
    made = world()
    judge = factories.judge(made.project)
    for at, task in enumerate(made.tasks[:30]):
        said = Judgment.objects.create(
            project=made.project, task=task, rater=judge.rater, kind="vote", ranks=[2, 1],
            strength=1, is_counted=False, submitted_at=timezone.now(),
        )  # fmt: skip
        Preference.objects.create(
            project=made.project, judgment=said, task=task, prompt_id=task.prompt_id,
            rater=judge.rater, a_id=task.response_ids[0], b_id=task.response_ids[1],
            outcome=1 if at < 12 else -1 if at < 27 else 0, strength=1,
        )  # fmt: skip
    found = done(evaluated(made.model))
    rival = next(one for one in found["rivals"] if one["kind"] == "judge")
    assert rival["rival"]["value"] == pytest.approx(12 / 30)
    assert (rival["rival"]["n"], rival["rival"]["ties"]) == (30, 3)
    assert found["accuracy"]["n"] == PAIRS  # its votes outvote nobody
    assert found["accuracy"]["value"] == RIGHT / PAIRS
    gold = done(evaluated(made.model, gold=rival["key"]))["best_of_n"]
    assert gold["gold"] == str(judge)
    assert [point["n"] for point in gold["points"]] == [1, 2]
    # The model and the judge agree on the first 12 pairs; three ties are half.
    assert gold["points"][1]["gold"]["value"] == pytest.approx((12 + 1.5) / 30)


def test_a_rubric_with_scores_is_compared_and_its_ties_are_wrong() -> None:
    made = world()
    version = approved(made.project)
    RewardScore.objects.bulk_create(
        RewardScore(project=made.project, response_id=pk, rubric_version=version, mean=mean)
        for at in range(PAIRS)
        for pk, mean in ((made.chosen(at), 1.0), (made.rejected(at), 1.0 if at % 2 else 0.0))
    )
    found = done(evaluated(made.model, against=[f"rubric-{version.pk}"]))
    rival = next(one for one in found["rivals"] if one["kind"] == "rubric")
    assert (rival["rival"]["value"], rival["rival"]["ties"]) == (0.5, 20)
    assert [one["key"] for one in found["rivals"]] == ["length", f"rubric-{version.pk}"]


def test_groups_of_raters_have_their_own_truth() -> None:
    made = world()
    lone = factories.rater(made.project)
    for task in made.tasks[:24]:
        Task.objects.filter(pk=task.pk).update(overlap=3, free=1)
        factories.judgment(lone, task, "b2")
    # Two of three, or the stronger side where there are only two, still decide for the first.
    group = groups.create(project=made.project, name="Dissenters", by=None)
    groups.set_raters(group=group, raters=[lone], by=None)
    found = done(evaluated(made.model))
    raters = {one["name"]: one for one in found["slices"]["raters"]}
    known = raters["Dissenters"]
    decided = sum(1 for at in range(24) if at % 4 == 0)  # pairs that stay decided
    assert (known["n"], known["value"]) == (decided, 0.0)
    assert raters["people here"]["value"] > 0.5


def test_held_out_gold_shows_what_choosing_by_the_model_gives() -> None:
    made = world(pairs=12, right=12)
    gold = make_model(made.project, 2)
    rng = np.random.default_rng(0)
    rows = []
    for task in made.tasks:
        prompt = Prompt.objects.get(pk=task.prompt_id)
        for at in range(6):
            rows.append((factories.response(prompt, f"Another {task.pk} {at}"), at))
    for one, at in rows:
        RewardScore.objects.create(
            project=made.project, response=one, reward_model=made.model, mean=2.0 + at
        )
        RewardScore.objects.create(
            project=made.project, response=one, reward_model=gold, mean=-float(at)
        )
    for task in made.tasks:
        for pk in task.response_ids:
            RewardScore.objects.create(
                project=made.project, response_id=pk, reward_model=gold,
                mean=-5.5 - rng.random(),
            )  # fmt: skip
    found = done(evaluated(made.model, gold="rm-2"))["best_of_n"]
    assert [point["n"] for point in found["points"]] == [1, 2, 4, 8]
    assert found["points"][-1]["model"]["value"] == pytest.approx(1)
    assert found["points"][-1]["gold"]["value"] == pytest.approx(2 / 7)  # the sixth of eight
    assert found["is_gamed"]
    assert "gamed" in found["message"]


def test_missing_scores_without_files_are_counted_and_said() -> None:
    made = world()
    RewardScore.objects.filter(response_id__in=made.tasks[0].response_ids).delete()
    run = evaluated(made.model)
    found = done(run)
    assert (found["counts"]["unscored"], found["accuracy"]["n"]) == (1, PAIRS - 1)
    assert "files of rm-1 are gone; 2 answers" in found["notes"][0]
    assert found["order"] is None
    RewardScore.objects.all().delete()
    failed = evaluated(made.model)
    assert failed.state == RunState.FAILED
    assert "has no score" in failed.error


def test_no_pair_ends_with_advice() -> None:
    made = world(pairs=3)
    run = evaluated(made.model, splits=["validation"])
    assert run.state == RunState.FAILED
    assert "No pair" in run.error
    assert run.advice


def test_pairs_of_the_train_split_are_said_to_have_been_seen() -> None:
    made = world(pairs=12, right=12, split="train")
    found = done(evaluated(made.model, splits=["train", "test"]))
    assert found["splits"]["train"] == 12
    assert "12 of these pairs are of the train split" in found["notes"][0]


def test_tag_import_and_sample_choose_the_pairs() -> None:
    made = world()
    assert done(evaluated(made.model, tag="code"))["accuracy"]["n"] == 20
    brought = Run.objects.create(
        project=made.project, kind=Run.Kind.IMPORT, title="I", state=RunState.DONE
    )
    ids = [made.chosen(at) for at in range(8)]
    Response.objects.filter(pk__in=ids).update(import_run_id=brought.pk)
    assert done(evaluated(made.model, import_run=brought.pk))["accuracy"]["n"] == 8
    small = done(evaluated(made.model, most=10))
    assert (small["accuracy"]["n"], small["counts"]["total"]) == (10, 40)
    with snapshot() as raw:
        ten = read_pairs(raw, made.project.pk, Data(most=10))
        twenty = read_pairs(raw, made.project.pk, Data(most=20))
    assert set(ten.prompts.tolist()) < set(twenty.prompts.tolist())


@pytest.mark.parametrize(
    "how",
    [
        {"splits": ["none"]}, {"splits": []}, {"import_run": 10**9}, {"most": 0},
        {"most": 10**9}, {"against": ["rm-9"]}, {"gold": "judge-1"}, {"tag": "x" * 500},
    ],
    ids=lambda how: "-".join(map(str, how)) + str(len(str(how))),
)  # fmt: skip
def test_nonsense_is_refused_before_it_is_queued(how: dict[str, Any]) -> None:
    model = make_model(factories.project())
    with pytest.raises(Invalid):
        reward_evaluation.start(reward_model=model, by=None, **how)
    assert not Run.objects.filter(kind=Run.Kind.EVALUATE).exists()


def test_one_evaluation_of_a_model_at_a_time_and_the_newest_is_found() -> None:
    made = world(pairs=12, right=12)
    first = evaluated(made.model)
    run = reward_evaluation.start(reward_model=made.model, by=None)
    with pytest.raises(Conflict):
        reward_evaluation.start(reward_model=made.model, by=None)
    assert evaluations.active(made.model) == run
    assert evaluations.newest(made.model) == first
    assert evaluations.newest_and_active(made.model) == (first, run)
    runs.cancel(run=run, by=None)
    second = evaluated(made.model)
    assert evaluations.newest(made.model) == second
    assert evaluations.newest_and_active(made.model) == (second, None)
    head = evaluations.headlines(made.project, [1])[1]
    assert (head.run_id, head.length["n"], head.ece, head.speed) == (second.pk, 12, None, None)


def test_overruled_votes_golds_and_excluded_raters_count_nowhere() -> None:
    made = world(pairs=12, right=12)
    Preference.objects.filter(task=made.tasks[1]).update(is_gold=True)
    Preference.objects.filter(task=made.tasks[2]).update(is_overruled=True)
    stranger = factories.rater(made.project)
    Task.objects.filter(pk=made.tasks[3].pk).update(overlap=3, free=1)
    factories.judgment(stranger, made.tasks[3], "b3")
    Rater.objects.filter(pk=stranger.pk).update(is_excluded=True)
    found = done(evaluated(made.model))
    assert found["accuracy"]["n"] == 10
    assert found["accuracy"]["value"] == 1.0
    assert found["accuracy"]["low"] < 1


@pytest.mark.neural
def test_a_trained_model_is_scored_by_the_child_and_a_killed_run_goes_on() -> None:
    from annotator.jobs.training import train
    from annotator.services import training

    made = _trainable()
    trained = training.start(
        project=made.project, objective="bradley-terry", backbone="hashing",
        options={"epochs": 2}, by=None,
    )  # fmt: skip
    train(run_id=trained.pk)
    trained.refresh_from_db()
    assert trained.state == RunState.DONE, (trained.error, trained.log)
    model = RewardModel.objects.get(run=trained)
    found = done(evaluated(model))
    assert found["accuracy"]["n"] == 12
    assert found["accuracy"]["value"] == trained.result["accuracy"]
    assert found["order"]["is_invariant"]
    assert (found["order"]["n"], found["order"]["flips"]["value"]) == (12, 0)
    scored = dict(RewardScore.objects.filter(reward_model=model).values_list("response_id", "mean"))
    assert len(scored) == 24  # the test split and nothing else
    # A worker dies half-way: what it wrote stands, the next attempt asks for the rest.
    half = sorted(scored)[:7]
    RewardScore.objects.filter(response_id__in=half).delete()
    run = reward_evaluation.start(reward_model=model, by=None)
    pen = runs.begin(run_id=run.pk, worker="dead")
    assert pen is not None
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
    again = evaluated_again(run)
    assert done(again)["accuracy"] == found["accuracy"]
    assert again.attempt == 2
    assert "resumed from 7 scores to go" in again.log
    after = dict(RewardScore.objects.filter(reward_model=model).values_list("response_id", "mean"))
    assert after == pytest.approx(scored)


def evaluated_again(run: Run) -> Run:
    from annotator.jobs.evaluations import evaluate

    evaluate(run_id=run.pk)
    run.refresh_from_db()
    return run


def _trainable() -> World:
    made = world(pairs=40)
    Prompt.objects.filter(pk__in=[task.prompt_id for task in made.tasks[12:]]).update(split="train")
    RewardScore.objects.all().delete()
    return made
