"""A judge's report: what it says of planted judges, of published ones, and of next to nothing."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from scipy.special import expit

from annotator.jobs.reports import report as report_job
from annotator.models import (
    Judge,
    JudgeAnswer,
    JudgeReport,
    Judgment,
    LlmCall,
    Preference,
    Project,
    Rater,
    Role,
    Run,
    RunState,
    Task,
)
from annotator.queries import judge_report as queries
from annotator.queries.judges import listing
from annotator.services import judge_report, runs, tokens
from models.agreement import Ratings, cohen_kappa, krippendorff_alpha, leave_one_out
from models.baselines import human_ceiling
from tests import factories
from tests.annotator.imported import read
from tests.annotator.judged import Said, imported, judge_says, pairs, vote

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project("letters", settings={"overlap": 3})


def three_people(
    project: Project, tasks: list[Task], truth: list[int], *, slips: float = 0.1
) -> Any:
    """Votes (3, n) of three raters who say otherwise than the truth now and then."""
    rng = np.random.default_rng(5)
    said = np.tile(truth, (3, 1))
    wrong = rng.random(said.shape) < slips
    said[wrong] = rng.choice([-1, 0, 1], wrong.sum())
    for rater, row in zip(imported(project, "ann", "bo", "cy"), said, strict=True):
        vote(rater, tasks, row.tolist())
    return said


def check_estimates(part: Any, path: str = "figures") -> int:
    """Every estimate has an interval around its value, in order; returns how many there are."""
    if isinstance(part, list):
        return sum(check_estimates(one, f"{path}[{at}]") for at, one in enumerate(part))
    if not isinstance(part, dict):
        return 0
    if {"value", "low", "high", "n"} <= set(part):
        if part["value"] is not None and part["low"] is not None:
            assert part["low"] - 1e-9 <= part["value"] <= part["high"] + 1e-9, (path, part)
        assert part["n"] > 0 or part["value"] is None, path
        return 1
    return sum(check_estimates(one, f"{path}.{name}") for name, one in part.items())


# Published verdicts ---------------------------------------------------------------------------


@pytest.mark.data
def test_pandalm_gives_the_published_agreement_with_the_human_majority(
    project: Project, data_dir: Path
) -> None:
    """A tie is an answer, a row that cannot be read is a wrong one, over all 999 pairs.

    The published .6927 takes the word "Tie" of 38 rows of GPT-3.5 for unreadable too: five of
    them were ties of the people, so that reading the word gives .6977.
    """
    folder = data_dir / "pandalm"
    read(project, folder / "testset-v1.json")
    tasks = list(Task.objects.filter(project=project).order_by("pk"))
    files = {
        "gpt-3.5-turbo": ("gpt-3.5-turbo-testset-v1.json", "gpt_result", {"1": 1, "2": -1}),
        "gpt-3.5, ties read": (
            "gpt-3.5-turbo-testset-v1.json", "gpt_result", {"1": 1, "2": -1, "Tie": 0},
        ),
        "pandalm-7b": ("pandalm-7b-testset-v1.json", "pandalm_result", {"1": 1, "2": -1, "0": 0}),
    }  # fmt: skip
    judges = {}
    for name, (file, column, words) in files.items():
        judges[name] = factories.judge(project, kind="imported", name=name)
        rows = json.loads((folder / file).read_text())
        judge_says(judges[name], tasks, [Said(words.get(str(row[column]))) for row in rows])
    found = {name: judge_report.compute(judge) for name, judge in judges.items()}
    shares = {name: one["agreement"]["exact"]["judge"] for name, one in found.items()}
    assert {name: round(one["value"], 4) for name, one in shares.items()} == {
        "gpt-3.5-turbo": 0.6927,
        "gpt-3.5, ties read": 0.6977,
        "pandalm-7b": 0.6677,
    }
    assert {one["n"] for one in shares.values()} == {999}
    assert found["gpt-3.5-turbo"]["counts"]["counted_wrong"] == 38 + 25
    assert found["gpt-3.5, ties read"]["counts"]["counted_wrong"] == 25
    assert found["pandalm-7b"]["agreement"]["alpha_people"]["value"] == pytest.approx(
        0.8645, abs=1e-4
    )
    rows = found["pandalm-7b"]["agreement"]["exact"]["rows"]
    assert [row["key"] for row in rows][0::4] == ["people", "longer"]
    assert len(rows) == 5
    beside = {row["label"]: row["value"] for row in rows}
    assert beside["pandalm-7b v1"] == shares["pandalm-7b"]["value"]
    assert beside["gpt-3.5-turbo v1"] == shares["gpt-3.5-turbo"]["value"]  # unreadable rows count
    assert found["gpt-3.5-turbo"]["family"] is None  # cerebras-gpt is no model of its family
    for one in found.values():
        assert check_estimates(one) > 40


@pytest.mark.data
def test_llmbar_judges_are_as_accurate_as_their_file_says(project: Project, data_dir: Path) -> None:
    subset = "LLMBar/Natural"
    with gzip.open(data_dir / "llmbar" / "judgments.jsonl.gz", "rt") as file:
        rows = [row for row in map(json.loads, file) if row["subset"] == subset]
    labels = {row["idx"]: row["label"] for row in rows}
    tasks = pairs(
        project, len(labels), gold=[1 if labels[at] == 1 else -1 for at in sorted(labels)]
    )
    runs_ = sorted(Counter((row["judge"], row["strategy"]) for row in rows))[:3]
    sign = {"1": 1, "2": -1}
    for name, strategy in runs_:
        own = {
            row["idx"]: row for row in rows if (row["judge"], row["strategy"]) == (name, strategy)
        }
        said = [
            Said(sign.get(str(own[at]["winner"])), straight=sign.get(str(own[at]["winner"])),
                 turned=sign.get(str(own[at]["winner_swapped"])))
            for at in sorted(own)
        ]  # fmt: skip
        judge = factories.judge(project, kind="imported", name=f"{name} {strategy}")
        judge_says(judge, tasks, said)
        right = [str(row["winner"]) == str(row["label"]) for row in own.values()]
        figures = judge_report.compute(judge)
        exact = figures["agreement"]["exact"]["judge"]
        assert exact["value"] == pytest.approx(np.mean(right))
        assert exact["n"] == len(labels)
        both = [
            row
            for row in own.values()
            if {str(row["winner"]), str(row["winner_swapped"])} <= {"1", "2"}
        ]
        same = np.mean([row["winner"] == row["winner_swapped"] for row in both])
        assert figures["position"]["same"]["value"] == pytest.approx(same)
        assert figures["counts"]["by_source"] == {"gold": len(labels), "reviewer": 0, "majority": 0}
        assert figures["agreement"]["exact"]["ceiling"] is None
        assert "no human ceiling" in figures["missing"]["ceiling"]


# Planted judges -------------------------------------------------------------------------------


def test_agreement_is_counted_as_it_says(project: Project) -> None:
    truth = [1, 1, -1, 0, 0, 1, -1, 1] * 10
    tasks = pairs(project, 80)
    people = three_people(project, tasks, truth, slips=0.0)
    judge = factories.judge(project)
    # of every eight: right, wrong, tie, tie (right), wrong, unreadable, right, no answer yet
    answers = [1, -1, 0, 0, 1, None, -1]
    said = [Said(answers[at % 8]) for at in range(80) if at % 8 < 7]
    judge_says(judge, [task for at, task in enumerate(tasks) if at % 8 < 7], said)
    figures = judge_report.compute(judge)
    exact, strict = figures["agreement"]["exact"], figures["agreement"]["strict"]
    assert (exact["judge"]["value"], exact["judge"]["n"]) == (pytest.approx(3 / 7), 70)
    assert (strict["judge"]["value"], strict["judge"]["n"]) == (pytest.approx(2 / 5), 50)
    assert figures["agreement"]["decided"]["value"] == pytest.approx(2 / 3)
    assert figures["agreement"]["ties"] == {"both": 10, "judge": 10, "people": 10}
    assert figures["agreement"]["table"] == [[10, 0, 10, 10], [10, 10, 0, 0], [0, 10, 10, 0]]
    assert exact["ceiling"]["value"] == 1.0
    assert exact["gap"] == pytest.approx(4 / 7)
    assert exact["overlap"] is False
    assert figures["counts"] | {"by_source": None} == {
        "judgments": 60, "tasks": 60, "failed": 10, "pairs": 60, "compared": 70,
        "counted_wrong": 10, "min_people": 2, "by_source": None, "no_majority": 0,
        "no_people": 0, "people": 3, "votes": 210,
    }  # fmt: skip
    assert figures["failures"] == [
        {
            "kind": "unreadable",
            "label": "the reply could not be read",
            "n": 10,
            "counted_wrong": True,
        }
    ]
    assert people.shape == (3, 80)


def test_coefficients_are_those_of_the_library(project: Project) -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([-1, 0, 1], 120, p=[0.4, 0.2, 0.4])
    tasks = pairs(project, 120, per_prompt=2)
    people = three_people(project, tasks, truth.tolist(), slips=0.2)
    own = np.where(rng.random(120) < 0.7, truth, rng.choice([-1, 0, 1], 120))
    judge = factories.judge(project)
    judge_says(judge, tasks, [Said(int(one)) for one in own])
    figures = judge_report.compute(judge)
    counts = np.stack([(people == value).sum(axis=0) for value in (-1, 0, 1)])
    majority = counts.argmax(axis=0) - 1
    known = np.sort(counts, axis=0)[-1] > np.sort(counts, axis=0)[-2]
    assert figures["counts"]["compared"] == known.sum()
    assert figures["counts"]["no_majority"] == (~known).sum()
    found = figures["agreement"]
    a, b = majority[known], own[known]
    both = Ratings.from_matrix(np.stack([a, b]).astype(float))
    assert found["cohen"]["value"] == pytest.approx(cohen_kappa(a, b))
    assert found["alpha"]["value"] == pytest.approx(krippendorff_alpha(both))
    assert found["alpha_ordinal"]["value"] == pytest.approx(krippendorff_alpha(both, "ordinal"))
    assert found["cohen"]["groups"] == len({tasks[at].prompt_id for at in np.flatnonzero(known)})
    units, raters = np.tile(np.flatnonzero(known), 3), np.repeat([0, 1, 2], known.sum())
    votes = people[:, known].ravel()
    one_out = leave_one_out(Ratings(units, raters, votes.astype(float)))
    assert found["exact"]["ceiling"]["value"] == pytest.approx(one_out.accuracy)
    assert found["strict"]["ceiling"]["value"] == pytest.approx(
        human_ceiling(units, raters, votes).accuracy
    )
    # Held against majorities of two rather than three, it does worse: that is the fair pair.
    assert found["exact"]["like_for_like"]["value"] < found["exact"]["judge"]["value"]


def test_what_is_right_is_a_gold_then_a_reviewer_then_the_majority(project: Project) -> None:
    tasks = pairs(project, 40, gold=[-1, None])
    three_people(project, tasks, [1] * 40, slips=0.0)
    (reviewer,) = imported(project, "rev")
    vote(reviewer, tasks[:20], [0] * 20, kind=Judgment.Kind.ADJUDICATION)
    judge = factories.judge(project)
    judge_says(judge, tasks, [Said(1)] * 40)
    figures = judge_report.compute(judge)
    assert figures["counts"]["by_source"] == {"gold": 20, "reviewer": 10, "majority": 10}
    assert figures["agreement"]["exact"]["judge"]["value"] == 10 / 40


def test_votes_of_raters_left_out_and_of_judges_are_not_people(project: Project) -> None:
    tasks = pairs(project, 40)
    three_people(project, tasks, [1] * 40, slips=0.0)
    for rater in imported(project, "x", "y", "z", "w"):
        vote(rater, tasks, [-1] * 40)
        Rater.objects.filter(pk=rater.pk).update(is_excluded=True)
    other = factories.judge(project, name="other")
    for judge in (other, *(factories.judge(project) for _ in range(4))):
        judge_says(judge, tasks, [Said(-1)] * 40)
    judge = factories.judge(project)
    judge_says(judge, tasks, [Said(1)] * 40)
    figures = judge_report.compute(judge)
    assert figures["agreement"]["exact"]["judge"]["value"] == 1.0
    row = next(row for row in figures["agreement"]["exact"]["rows"] if row["judge"] == other.pk)
    assert (row["value"], row["n"], row["label"]) == (0.0, 40, "other v1")


def test_the_same_pair_in_two_tasks_is_one_pair_whatever_the_order(project: Project) -> None:
    tasks = pairs(project, 40)
    turned = Task.objects.bulk_create(
        Task(project=project, prompt=task.prompt, response_ids=task.response_ids[::-1],
             content_hash=factories.digest("turned", str(task.pk)))
        for task in tasks
    )  # fmt: skip
    three_people(project, turned, [-1] * 40, slips=0.0)
    judge = factories.judge(project)
    judge_says(judge, tasks, [Said(1)] * 40)
    figures = judge_report.compute(judge)
    assert figures["agreement"]["exact"]["judge"]["value"] == 1.0
    assert figures["counts"]["compared"] == 40


def test_failures_of_the_endpoint_are_not_wrong_answers(project: Project) -> None:
    tasks = pairs(project, 60)
    three_people(project, tasks, [1] * 60, slips=0.0)
    judge = factories.judge(project)
    errors = ["timeout", "unreadable", "no such word in any table"]
    judge_says(
        judge, tasks, [Said(1)] * 30 + [Said(None, error=errors[at % 3]) for at in range(30)]
    )
    figures = judge_report.compute(judge)
    assert figures["agreement"]["exact"]["judge"]["value"] == 30 / 50
    wrong = {one["kind"]: one["counted_wrong"] for one in figures["failures"]}
    assert wrong == {"timeout": False, "unreadable": True, "no such word in any table": True}


def test_position_of_a_judge_that_likes_the_first_slot(project: Project) -> None:
    """Answers by logit = margin +- b: b is recovered, agree-only beats one order."""
    rng = np.random.default_rng(2)
    n, bias = 500, 0.8
    margin = rng.normal(0, 1.5, n)
    truth = np.where(margin > 0, 1, -1)
    straight = np.where(rng.random(n) < expit(margin + bias), 1, -1)
    turned = np.where(rng.random(n) < expit(margin - bias), 1, -1)
    tasks = pairs(project, n, gold=truth.tolist())
    judge = factories.judge(project)
    both = np.where(straight == turned, straight, 0)
    judge_says(
        judge, tasks,
        [Said(int(v), straight=int(s), turned=int(t)) for v, s, t in zip(both, straight, turned, strict=True)],
    )  # fmt: skip
    found = judge_report.compute(judge)["position"]
    assert found["pairs"] == n
    parts = [found[name]["value"] for name in ("same", "first_both", "second_both", "tie_once")]
    assert sum(parts) == pytest.approx(1)
    assert parts[0] == pytest.approx(np.mean(straight == turned))
    assert parts[1] == pytest.approx(np.mean((straight == 1) & (turned == -1)))
    assert found["first_slot"]["value"] == pytest.approx(
        (np.sum(straight == 1) + np.sum(turned == -1)) / (2 * n)
    )
    assert found["first_slot"]["groups"] == n
    assert found["bias"]["value"] == pytest.approx(bias, abs=0.2)
    assert found["bias"]["low"] < bias < found["bias"]["high"]
    ways = {way["key"]: way for way in found["strategies"]}
    assert ways["agree-only"]["accuracy"]["value"] > ways["single"]["accuracy"]["value"] + 0.05
    assert ways["agree-only"]["coverage"]["value"] == pytest.approx(parts[0])
    assert ways["single"]["coverage"]["value"] == 1.0


def test_answers_to_a_turned_task_are_read_in_its_own_order(project: Project) -> None:
    """Response ids fall here: what the task calls first is the higher id."""
    made = pairs(project, 40)
    tasks = Task.objects.bulk_create(
        Task(project=project, prompt=task.prompt, response_ids=task.response_ids[::-1],
             content_hash=factories.digest("turned", str(task.pk)),
             gold={"ranks": [1, 2], "strength": 1})
        for task in made
    )  # fmt: skip
    judge = factories.judge(project)
    judge_says(judge, tasks, [Said(1, probability=0.9, straight=1, turned=1)] * 40)
    figures = judge_report.compute(judge)
    assert figures["agreement"]["exact"]["judge"]["value"] == 1.0
    assert {way["accuracy"]["value"] for way in figures["position"]["strategies"]} == {1.0}
    assert figures["calibration"]["accuracy"] == 1.0


def test_length_and_own_family_beside_people(project: Project) -> None:
    """Equal models; this one likes length and its own family, people like neither."""
    rng = np.random.default_rng(8)
    n = 500
    lengths = [(int(a), int(b)) for a, b in rng.integers(50, 400, (n, 2))]
    tasks = pairs(
        project, n, lengths=lengths, generators=[("gpt-4o", "llama-3"), ("qwen2", "gpt-4")]
    )
    own = np.array([1 if at % 2 == 0 else -1 for at in range(n)])  # the side of its family
    delta = np.array([a - b for a, b in lengths])
    merit = rng.normal(0, 1, n)
    truth = np.where(rng.random(n) < expit(merit), 1, -1)
    logit = merit + 1.5 * np.tanh(delta / delta.std()) + 0.8 * own
    said = np.where(rng.random(n) < expit(logit), 1, -1)
    three_people(project, tasks, truth.tolist(), slips=0.0)
    judge = factories.judge(project, model="openai/gpt-4o-mini")
    judge_says(judge, tasks, [Said(int(one)) for one in said])
    figures = judge_report.compute(judge)
    family, length = figures["family"], figures["length"]
    assert family["family"] == figures["about"]["family"] == "gpt"
    assert sorted(family["generators"]) == ["gpt-4", "gpt-4o"]
    assert family["judge"]["value"] == pytest.approx(np.mean(said == own))
    assert family["people"]["value"] == pytest.approx(np.mean(truth == own))
    assert family["difference"]["low"] > 0
    assert family["difference"]["value"] == pytest.approx(
        family["judge"]["value"] - family["people"]["value"]
    )
    longer = said == np.sign(delta)
    assert length["longer"]["value"] == pytest.approx(longer[delta != 0].mean())
    assert length["coefficient"]["low"] > 0.5
    assert length["coefficient_people"]["low"] < 0 < length["coefficient_people"]["high"]
    assert length["message"] == "It likes length more than people do."
    assert len(length["curve"]) == 9
    assert length["curve"][-1]["judge"]["value"] > length["curve"][-1]["people"]["value"]
    row = next(row for row in length["generators"] if row["name"] == "gpt-4o")
    assert row["raw"]["n"] == n / 2
    assert row["raw"]["value"] == pytest.approx(np.mean(said[::2] == 1))
    assert row["controlled"]["low"] < row["controlled"]["value"] < row["controlled"]["high"]


def test_confidence_of_an_overconfident_judge(project: Project) -> None:
    rng = np.random.default_rng(4)
    n = 600
    confidence = rng.uniform(0.55, 0.99, n)
    right = rng.random(n) < 0.5 + (confidence - 0.5) / 2
    tasks = pairs(project, n, gold=[1])
    judge = factories.judge(project)
    judge_says(
        judge, tasks,
        [Said(1 if hit else -1, confidence=float(says)) for hit, says in zip(right, confidence, strict=True)],
    )  # fmt: skip
    figures = judge_report.compute(judge)
    found = figures["calibration"]
    assert (found["of"], found["n"]) == ("confidence", n)
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["ece"]["value"] == pytest.approx(np.mean((confidence - 0.5) / 2), abs=0.03)
    assert found["ece"]["low"] > found["ece_expected"]
    assert found["message"].startswith("Overconfident between")
    assert sum(one["people"]["n"] for one in found["equal_width"]) == n
    assert len(found["equal_mass"]) == 10
    table = {one["key"]: one for one in found["calibrators"]}
    assert list(table) == ["as-it-is", "temperature", "platt", "isotonic"]
    assert table["platt"]["ece"] < table["as-it-is"]["ece"] / 2
    # The same numbers as a probability of the first response: the larger side's is measured.
    other = factories.judge(project)
    sides = np.where(right, confidence, 1 - confidence)
    judge_says(
        other, tasks,
        [Said(1 if hit else -1, probability=float(p)) for hit, p in zip(right, sides, strict=True)],
    )  # fmt: skip
    again = judge_report.compute(other)["calibration"]
    assert again["of"] == "probability"
    assert again["ece"]["value"] == pytest.approx(found["ece"]["value"])


def test_slices_name_their_counts_and_pool_the_small(project: Project) -> None:
    tasks = pairs(project, 100, gold=[1], generators=[("a", "b")] * 9 + [("c", "d")])
    judge = factories.judge(project)
    judge_says(judge, tasks, [Said(1 if at % 2 else -1) for at in range(100)])
    found = judge_report.compute(judge)["slices"]
    tags = {row["name"]: (row["value"], row["n"], row["pooled"]) for row in found["tag"]}
    assert tags == {"even": (0.0, 50, 0), "odd": (1.0, 50, 0)}
    assert {row["name"]: row["n"] for row in found["split"]} == {"train": 50, "test": 50}
    generators = {row["name"]: (row["n"], row["pooled"]) for row in found["generator"]}
    assert generators == {"a": (90, 0), "b": (90, 0), "2 smaller": (10, 2)}
    assert [row["name"] for row in found["kind"]] == ["pairwise"]


def test_a_judge_alone_is_told_what_can_be_told(project: Project) -> None:
    """No person has said anything: no agreement, with its reason, and everything else."""
    tasks = pairs(project, 60, lengths=[(40 + at, 40) for at in range(60)])
    judge = factories.judge(project)
    judge_says(judge, tasks, [Said(1, straight=1, turned=1 if at % 3 else -1) for at in range(60)])
    figures = judge_report.compute(judge)
    assert figures["agreement"] is figures["calibration"] is None
    assert "No person has judged" in figures["missing"]["agreement"]
    assert figures["position"]["same"]["value"] == pytest.approx(2 / 3)
    assert figures["length"]["longer"]["value"] == 1.0
    assert figures["length"]["longer_people"] is None
    assert figures["counts"]["no_people"] == 60
    assert set(figures["missing"]) >= {"agreement", "calibration", "golds", "slices", "shared"}
    json.dumps(figures, allow_nan=False)


def test_a_judge_that_has_said_nothing_has_a_report_of_reasons(project: Project) -> None:
    figures = judge_report.compute(factories.judge(project))
    assert figures["counts"]["judgments"] == 0
    assert figures["missing"]["agreement"] == "The judge has ordered no two answers yet."
    parts = ("agreement", "position", "length", "family", "calibration", "cost", "shared", "golds")
    assert all(figures[part] is None for part in parts)
    assert set(parts) <= set(figures["missing"])
    json.dumps(figures, allow_nan=False)


def test_ratings_and_checks_beside_people(project: Project) -> None:
    rng = np.random.default_rng(1)
    judge, people = factories.judge(project), imported(project, "ann", "bo")
    for kind, name in (("rating", "helpfulness"), ("checklist", "cites a source")):
        for _ in range(40):
            task = factories.task_of(project, kind)
            level = rng.integers(0, 4, 2) if kind == "rating" else rng.integers(0, 2, 2)
            for rater, shift in ((people[0], 0), (people[1], 0), (judge.rater, 1)):
                values = level + shift if kind == "rating" else level
                Judgment.objects.create(
                    project=project, task=task, rater=rater, ranks=[1, 1],
                    ratings={name: [int(one) for one in values]}, submitted_at=timezone.now(),
                )  # fmt: skip
    figures = judge_report.compute(judge)
    checks, ratings = figures["questions"]
    assert (ratings["name"], ratings["kind"]) == ("helpfulness", "rating")
    assert ratings["exact"]["value"] == 0.0
    assert ratings["within_one"]["value"] == 1.0
    assert ratings["exact"]["n"] == 80
    assert ratings["correlation"]["value"] == pytest.approx(1.0)
    assert ratings["rank_correlation"]["value"] == pytest.approx(1.0)
    assert ratings["difference"]["value"] == pytest.approx(1.0)
    assert ratings["alpha_people"]["value"] == pytest.approx(1.0)
    assert ratings["alpha"]["value"] < 0.9
    assert (checks["kind"], checks["exact"]["value"], checks["kappa"]["value"]) == (
        "checklist", 1.0, 1.0,
    )  # fmt: skip


def test_a_ranking_is_its_pairs(project: Project) -> None:
    judge = factories.judge(project)
    people = imported(project, "ann", "bo", "cy")
    for _ in range(30):
        task = factories.ranking_task(project, 3)
        for rater, order in (*((one, [1, 2, 3]) for one in people), (judge.rater, [1, 3, 2])):
            made = Judgment.objects.create(
                project=project, task=task, rater=rater, ranks=order, strength=2,
                submitted_at=timezone.now(),
            )  # fmt: skip
            for i, j in ((0, 1), (0, 2), (1, 2)):
                Preference.objects.create(
                    project=project, judgment=made, task=task, prompt_id=task.prompt_id,
                    rater=rater, a_id=task.response_ids[i], b_id=task.response_ids[j],
                    outcome=1 if order[i] < order[j] else -1, strength=1,
                )  # fmt: skip
    figures = judge_report.compute(judge)
    found = figures["agreement"]["exact"]["judge"]
    assert (round(found["value"], 4), found["n"], found["groups"]) == (0.6667, 90, 30)
    assert figures["kinds"] == ["ranking"]
    assert figures["position"] is None


def test_judges_of_one_family_are_seen_to_share_their_errors(project: Project) -> None:
    rng = np.random.default_rng(9)
    truth = rng.choice([-1, 1], 250)
    tasks = pairs(project, 250)
    for rater in imported(project, *"abcdefgh"):
        vote(rater, tasks, np.where(rng.random(250) < 0.25, -truth, truth).tolist())
    wrong = rng.random(250) < 0.3
    common = np.where(wrong, -truth, truth)
    twin, judge, loner = (factories.judge(project, name=name) for name in ("twin", "this", "loner"))
    for one in (twin, judge):
        judge_says(one, tasks, [Said(int(v)) for v in common])
    own = np.where(rng.random(250) < 0.3, -truth, truth)
    judge_says(loner, tasks, [Said(int(v)) for v in own])
    found = judge_report.compute(judge)["shared"]
    assert found["is_warning"]
    assert [row["name"] for row in found["rows"]] == ["twin v1"]
    assert found["rows"][0]["judge"] == twin.pk
    assert found["rows"][0]["agreement"] == 1.0
    assert judge_report.compute(loner)["shared"]["is_warning"] is False


def test_costs_come_from_the_ledger(project: Project) -> None:
    tasks = pairs(project, 4)
    judge = factories.judge(project)
    judge_says(judge, tasks, [Said(1, straight=1, turned=1)] * 3 + [Said(None)])
    run = runs.start(
        project=project, kind=Run.Kind.JUDGE, title="", config={"judge": judge.pk}, by=None
    )
    other = runs.start(project=project, kind=Run.Kind.JUDGE, title="", config={"judge": 0}, by=None)
    for at, payer in enumerate((run, run, other, other)):
        LlmCall.objects.create(
            project=project, key=bytes([at]) * 32, endpoint=judge.endpoint, run=payer, model="m",
            request={}, reply="", tokens_in=1000, tokens_out=100, cost=0.5,
            latency_ms=1000 * (at + 1), attempts=1 + at,
        )  # fmt: skip
    said = list(JudgeAnswer.objects.filter(judge=judge).order_by("pk"))
    JudgeAnswer.objects.filter(pk=said[0].pk).update(call_key=bytes([0]) * 32, run=run)
    JudgeAnswer.objects.filter(pk=said[1].pk).update(call_key=bytes([2]) * 32, run=run)
    JudgeAnswer.objects.filter(pk=said[2].pk).update(error="unreadable", ranks=None)
    cost = judge_report.compute(judge)["cost"]
    # Two that its run paid for, one that another judge had paid for; the fourth is not its own.
    assert (cost["calls"], cost["cached"], cost["money"]) == (3, 1, 1.5)
    assert cost["paid"] == 2
    assert (cost["tokens_in"], cost["tokens_out"], cost["retries"]) == (3000, 300, 0 + 1 + 2)
    assert cost["per_1000"] == pytest.approx(1000 * 1.5 / 3)
    assert cost["latency_median_ms"] == 2000
    assert (cost["unreadable"]["value"], cost["unreadable"]["n"]) == (pytest.approx(1 / 6), 6)


# Runs, command, API ---------------------------------------------------------------------------


def small(project: Project) -> Judge:
    tasks = pairs(project, 40)
    three_people(project, tasks, [1, -1] * 20)
    judge = factories.judge(project, name="plain")
    judge_says(judge, tasks, [Said(1, straight=1, turned=1)] * 40)
    return judge


def test_a_run_keeps_one_report_however_often_it_is_done(project: Project) -> None:
    judge = small(project)
    run, is_new = judge_report.start(judge=judge, by=None)
    assert is_new
    assert judge_report.start(judge=judge, by=None) == (run, False)
    report_job(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE, (run.error, run.log)
    found = queries.report(judge)
    assert found is not None
    assert run.result["report"] == found.pk
    assert run.result["agreement"] == found.figures["agreement"]["exact"]["judge"]
    assert queries.newer(judge, found) == 0
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
    report_job(run_id=run.pk)
    assert JudgeReport.objects.filter(judge=judge).count() == 1
    [row] = [one for one in listing(project).rows if one.judge == judge]
    assert row.agreement == found.figures["agreement"]["exact"]["judge"]
    assert row.same is not None
    assert row.same["value"] == 1.0
    assert found.figures["cost"]["calls"] == 0
    assert row.cost == found.figures["cost"]["per_1000"]


def test_a_canceled_run_stops_between_parts(project: Project) -> None:
    judge = small(project)
    run, _ = judge_report.start(judge=judge, by=None)
    pen = runs.begin(run_id=run.pk, worker="here")
    assert pen is not None
    runs.cancel(run=run, by=None)
    with pytest.raises(runs.Stopped):
        judge_report.perform(pen)
    assert not JudgeReport.objects.filter(judge=judge).exists()


def test_old_reports_go(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_report, "KEPT", 2)
    judge = small(project)
    for _ in range(3):
        run, _ = judge_report.start(judge=judge, by=None)
        report_job(run_id=run.pk)
    assert JudgeReport.objects.filter(judge=judge).count() == 2


def test_a_report_is_renewed_only_where_it_is_behind(project: Project) -> None:
    judge = factories.judge(project)
    assert judge_report.start_if_stale(judge=judge) is None  # it has judged nothing
    tasks = pairs(project, 80)
    judge_says(judge, tasks[:10], [Said(1)] * 10)
    run = judge_report.start_if_stale(judge=judge)
    assert run is not None
    assert judge_report.start_if_stale(judge=judge) is None  # under way
    report_job(run_id=run.pk)
    old = timezone.now() - timedelta(minutes=2)
    JudgeReport.objects.filter(judge=judge).update(created_at=old)
    Run.objects.filter(pk=run.pk).update(created_at=old)
    assert judge_report.start_if_stale(judge=judge) is None  # nothing is newer
    (rater,) = imported(project, "ann")
    vote(rater, tasks[:60], [1] * 60)
    assert judge_report.start_if_stale(judge=judge) is not None


def test_command_says_the_report_in_words_and_in_json(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    small(project)
    call_command("report_judge", project.slug, "--judge", "plain", "--wait")
    text = capsys.readouterr().out
    assert "plain v1: 40 judgments" in text
    assert "agrees with people: 50.0%" in text
    call_command("report_judge", project.slug, "--judge", "plain@v1", "--wait", "--json")
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["report"]["version"] == queries.VERSION
    with pytest.raises(CommandError, match="no judge"):
        call_command("report_judge", project.slug, "--judge", "nobody")
    with pytest.raises(CommandError, match="no project"):
        call_command("report_judge", "nowhere", "--judge", "plain")


def test_api_gives_the_report_to_reviewers_of_its_project_only(
    project: Project, client: Client
) -> None:
    judge = small(project)
    reviewer = factories.member(project, Role.REVIEWER)
    annotator = factories.member(project, Role.ANNOTATOR)
    stranger = factories.member(factories.project(), Role.OWNER)
    address = f"/api/v1/projects/{project.slug}/judges/{judge.pk}/report"

    def ask(person: Any, method: str = "get", at: str = address) -> Any:
        _, token = tokens.create(user=person, name="t")
        return getattr(client, method)(at, headers={"authorization": f"Bearer {token}"})

    assert ask(reviewer).status_code == 404
    assert [ask(one).status_code for one in (annotator, stranger)] == [403, 404]
    made = ask(reviewer, "post")
    assert made.status_code == 200
    report_job(run_id=made.json()["id"])
    body = ask(reviewer).json()
    assert body["figures"]["about"]["title"] == "plain v1"
    assert (body["newer"], body["run"]) == (0, made.json()["id"])
    other = factories.judge(factories.project())
    assert ask(reviewer, at=address.replace(f"/{judge.pk}/", f"/{other.pk}/")).status_code == 404


def test_reading_takes_as_many_statements_for_many_verdicts_as_for_few(project: Project) -> None:
    judge = small(project)
    with CaptureQueriesContext(connection) as few:
        judge_report.compute(judge)
    more = factories.judge(project)
    judge_says(more, list(Task.objects.filter(project=project)), [Said(1)] * 40)
    with CaptureQueriesContext(connection) as many:
        judge_report.compute(more)
    assert len(many) <= len(few)
