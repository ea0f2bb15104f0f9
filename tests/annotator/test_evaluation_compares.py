"""Evaluating a model that compares two answers: a circle that no single score can hold."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from annotator.models import Project, RewardModel, RewardScore, Role, Run, RunState
from models import gateway
from models.pairs import Pair
from models.training import supervise
from models.workdir import ARTIFACT
from tests import factories
from tests.annotator.evaluating import evaluated
from tests.annotator.rewarding import give_scores, make_model
from tests.models.planted import write_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.neural]

ITEMS = ("tea", "chess", "bread")  # each is beaten by the next, the last by the first
PAIRS = 60
WRONG = 6  # pairs on which people go against the circle
ASKED = [{"role": "user", "content": "Which?"}]


@pytest.fixture(autouse=True, scope="module")
def _no_child_is_left():
    yield
    gateway.release()


def said(item: str, number: int = 0) -> str:
    return f"so much for {item}" + " again" * (number % 3)


@lru_cache(maxsize=1)
def _trained() -> Path:
    """A general preference model of the circle, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="circle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    dice = np.random.default_rng(0)

    def pairs(n: int) -> list[Pair]:
        losers = dice.integers(3, size=n).tolist()
        return [
            Pair(ASKED, said(ITEMS[(one + 1) % 3], at), said(ITEMS[one], at // 3), prompt_id=at)
            for at, one in enumerate(losers)
        ]

    write_run(
        folder, train=pairs(600), validation=pairs(60), test=pairs(60), objective="gpm",
        backbone="hashing", options={"buckets_log2": 12},
    )  # fmt: skip
    ended = supervise(folder, on_event=lambda _: None, should_stop=lambda: False)
    assert ended.outcome == "done", ended
    return folder / ARTIFACT


def circle_model(project: Project, number: int = 1) -> RewardModel:
    model = make_model(project, number)
    Run.objects.filter(pk=model.run_id).update(state=RunState.DONE)
    model.objective, model.artifact = "gpm", f"runs/{model.run_id}/artifact"
    model.save()
    shutil.copytree(_trained(), Path(settings.WORK_ROOT) / model.artifact)
    return model


@pytest.fixture
def project() -> Project:
    """Pairs of the circle, the winner first; on a few people say the opposite."""
    found = factories.project()
    rater = factories.rater(found)
    for number in range(PAIRS):
        loser = number % 3
        texts = said(ITEMS[(loser + 1) % 3], number), said(ITEMS[loser], number + 1)
        task = factories.task_of(
            found, of=factories.prompt(found, split="test"), texts=texts, overlap=1
        )
        factories.judgment(rater, task, "b1" if number < WRONG else "a1")
    return found


def test_a_circle_is_measured_pair_by_pair(project: Project) -> None:
    model = circle_model(project)
    run = evaluated(model)
    assert (run.state, run.error) == (RunState.DONE, ""), run.log
    found = run.result["figures"]
    accuracy = found["accuracy"]
    assert (accuracy["value"], accuracy["n"]) == (1 - WRONG / PAIRS, PAIRS)
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    # What a score says of a circle: three chances that are nearly alike.
    assert not RewardScore.objects.filter(reward_model=model).exists(), "no score was needed"
    chances = gateway.score_here({
        "method": "reward-model", "folder": str(_trained()),
        "asked": [(ASKED, said(item)) for item in ITEMS],
    })["scores"]  # fmt: skip
    assert max(chances) - min(chances) < 0.2, chances
    bins = found["calibration"][model.name]["bins"]
    assert sum(one["n"] for one in bins) == PAIRS
    assert bins[-1]["says"] > 0.7, "margins are log-odds of the pair, not differences of chances"
    assert (found["order"]["n"], found["order"]["flips"]["value"]) == (PAIRS, 0.0)
    assert found["order"]["is_invariant"], found["order"]
    assert {one["name"]: one["n"] for one in found["slices"]["raters"]} == {"people here": PAIRS}
    assert found["best_of_n"] is None
    assert "no single score" in found["missing"]["best_of_n"]
    assert not any("compares two answers" in note for note in found["notes"])
    assert run.result["answers_per_second"] is not None


def test_its_page_says_what_it_says_of_two_answers(project: Project) -> None:
    model = circle_model(project)
    evaluated(model)
    client = Client()
    client.force_login(factories.member(project, Role.OWNER))
    page = client.get(reverse("reward_model", args=[project.slug, 1])).content.decode()
    assert "model.margins([(prompt, *answers)])" in page
    assert "No best-of-n curve. This model compares two answers" in page


def test_margins_are_antisymmetric_and_as_the_objective_says() -> None:
    model = gateway.load_reward_model(_trained())
    pairs = [(ASKED, said(one), said(other)) for one in ITEMS for other in ITEMS]
    margins = np.asarray(model.margins(pairs)).reshape(3, 3)
    assert np.array_equal(margins, -margins.T)
    assert (margins[[1, 2, 0], [0, 1, 2]] > 0.5).all(), margins
    asked = {"method": "pair-margins", "folder": str(_trained()), "pairs": pairs}
    assert gateway.score_here(asked)["scores"] == margins.ravel().tolist()


def test_beside_a_score_it_is_asked_where_it_is_named(project: Project) -> None:
    plain, circle = make_model(project), circle_model(project, 2)
    ids = [pk for task in project.tasks.all() for pk in task.response_ids]
    give_scores(plain, {pk: float(at % 7) for at, pk in enumerate(ids)})
    found = evaluated(plain, against=["rm-2"]).result["figures"]
    rival = next(one for one in found["rivals"] if one["key"] == "rm-2")
    assert (rival["rival"]["value"], rival["rival"]["n"]) == (1 - WRONG / PAIRS, PAIRS)
    give_scores(circle, dict.fromkeys(ids, 0.5))
    found = evaluated(plain).result["figures"]
    rival = next(one for one in found["rivals"] if one["key"] == "rm-2")
    assert rival["rival"]["value"] == 0.0, "even scores are wrong"
    assert any("rm-2 compares two answers directly" in note for note in found["notes"])


def test_without_its_files_it_says_what_is_needed(project: Project) -> None:
    model = make_model(project)
    RewardModel.objects.filter(pk=model.pk).update(objective="gpm")
    run = evaluated(model)
    assert run.state == RunState.FAILED
    assert "Train it again" in run.advice


def test_a_benchmark_is_counted_by_pairs_and_by_wins_over_all(project: Project) -> None:
    """A right answer against several wrong ones: it has to beat each."""
    rater = factories.rater(project)
    for number in range(30):
        loser = number % 3
        texts = (
            said(ITEMS[(loser + 1) % 3]), said(ITEMS[loser]),
            said(ITEMS[loser], 1) if number < 20 else said(ITEMS[(loser + 2) % 3]),
        )  # fmt: skip
        prompt = factories.prompt(project, split="test", extra={"subset": "Four"})
        right, *wrong = (factories.response(prompt, text) for text in texts)
        for other in wrong:
            task = factories.task_of(project, of=prompt, texts=("", ""), overlap=1)
            task.response_ids = [right.pk, other.pk]
            task.save()
            factories.judgment(rater, task, "a1")
    found = evaluated(circle_model(project)).result["figures"]["benchmark"]
    (subset,) = found["subsets"]
    # In the last ten the other wrong answer beats the right one: once round the circle.
    assert (subset["kind"], subset["n"], subset["value"]) == ("best-of", 30, pytest.approx(20 / 30))
