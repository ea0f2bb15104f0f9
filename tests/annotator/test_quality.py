"""Quality runs: what they compute, what they write, what they leave alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotator.jobs.quality import measure
from annotator.models import (
    AuditEvent,
    Consensus,
    Judgment,
    Preference,
    Project,
    QualityReport,
    Rater,
    ReviewItem,
    Role,
    Run,
    RunState,
    Task,
)
from annotator.queries import quality as queries
from annotator.queries.columns import read_columns
from annotator.queries.snapshot import current
from annotator.services import quality, quality_consensus, runs
from annotator.services.quality_consensus import ranks
from tests import factories
from tests.annotator import planted
from tests.annotator.imported import jsonl, read

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project("letters", settings={"overlap": 3})


def compute(project: Project) -> dict[str, Any]:
    """Run a quality run here and now; its figures."""
    run, is_new = quality.start(project=project, by=None)
    assert is_new
    measure(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE, (run.error, run.log)
    return QualityReport.objects.get(run=run).figures


def start_slice(figures: dict[str, Any]) -> dict[str, Any]:
    return queries.chosen(figures, since="start", kind="all")


def votes(project: Project, *said: str) -> tuple[Task, list[Rater]]:
    """One task and one judgment per choice, each by a person of their own."""
    people = [factories.rater(project) for _ in said]
    task = factories.pairwise_task(project, overlap=len(said))
    for person, choice in zip(people, said, strict=True):
        factories.judgment(person, task, choice)
    return task, people


# Consensus ----------------------------------------------------------------------------------------


def test_consensus_is_what_most_say(project: Project) -> None:
    for _ in range(6):
        votes(project, "a1", "a1", "a1")
    task, _ = votes(project, "a1", "a2", "b1")
    compute(project)
    found = Consensus.objects.get(task=task)
    a, b = task.response_ids
    assert found.ranks == [1, 2]
    assert found.pairs[0][:2] == [a, b]
    assert sum(found.pairs[0][2:]) == pytest.approx(1, abs=1e-3)
    assert found.posterior == pytest.approx(max(found.pairs[0][2:]), abs=1e-4)
    assert (found.votes, found.aggregator) == (3, "dawid-skene")
    assert found.agreement == pytest.approx(1 / 3)


@pytest.mark.parametrize("aggregator", ["majority", "dawid-skene", "crowd-bt"])
def test_every_aggregator_finds_the_planted_truth(aggregator: str) -> None:
    owner = factories.project(settings={"aggregator": aggregator})
    planted.preferences(60, in_project=owner, raters=5, flips=0.1)
    figures = compute(owner)
    assert figures["aggregator"] == aggregator
    good = {
        pk: set(text.split()) & set(planted.GOOD)
        for pk, text in owner.responses.values_list("pk", "text")
    }
    rows = Consensus.objects.filter(project=owner).select_related("task")
    right = [row.ranks == ([1, 2] if good[row.task.response_ids[0]] else [2, 1]) for row in rows]
    assert len(right) == 60
    assert np.mean(right) > 0.93


def test_ties_and_rankings_have_places_without_gaps() -> None:
    pair = quality_consensus._Pair
    won, tie, lost = [0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]
    assert ranks(2, [pair(1, 2, 0, 1, tie)]) == [1, 1]
    three = [pair(1, 2, 0, 1, lost), pair(1, 3, 0, 2, tie), pair(2, 3, 1, 2, won)]
    assert ranks(3, three) == [2, 1, 2]
    assert ranks(3, [pair(1, 2, 0, 1, won)]) == [1, 2, 0]
    assert ranks(4, []) == [1, 1, 1, 1]


def test_a_decision_wins_over_the_votes(project: Project) -> None:
    task, _ = votes(project, "a1", "a1", "a1")
    reviewer = factories.rater(project, Role.REVIEWER)
    Judgment.objects.create(
        project=project, task=task, rater=reviewer, kind=Judgment.Kind.ADJUDICATION,
        ranks=[2, 1], strength=1, submitted_at=timezone.now(), is_counted=False,
    )  # fmt: skip
    Task.objects.filter(pk=task.pk).update(is_settled=True)
    figures = compute(project)
    found = Consensus.objects.get(task=task)
    assert (found.ranks, found.posterior, found.aggregator) == ([2, 1], 1, "adjudication")
    assert figures["judgments"] == 3


def test_a_decision_made_while_votes_were_read_is_not_overwritten(project: Project) -> None:
    task, _ = votes(project, "a1", "a1", "a1")
    Task.objects.filter(pk=task.pk).update(is_settled=True)
    row = quality_consensus.Row(task.pk, "majority", [1, 2], None, [], 1.0, 3, 1.0)
    assert quality_consensus.write(project.pk, iter([row]), at=timezone.now()) == 1
    assert not Consensus.objects.filter(task=task).exists()


def test_running_twice_changes_no_row_and_drops_what_is_gone(project: Project) -> None:
    kept, _ = votes(project, "a1", "a1", "b1")
    gone, people = votes(project, "a1", "b1", "b1")
    compute(project)
    before = Consensus.objects.get(task=kept).computed_at
    Preference.objects.filter(task=gone).delete()
    Judgment.objects.filter(task=gone).update(is_current=False)
    Rater.objects.filter(pk__in=[one.pk for one in people]).update(is_excluded=False)
    compute(project)
    assert not Consensus.objects.filter(task=gone).exists()
    kept_row = Consensus.objects.get(task=kept)
    assert kept_row.votes == 3
    compute(project)
    assert Consensus.objects.get(task=kept).computed_at == kept_row.computed_at >= before


def test_excluded_votes_are_shown_and_not_counted(project: Project) -> None:
    people = [factories.rater(project) for _ in range(3)]
    for _ in range(8):
        task = factories.pairwise_task(project)
        for person, choice in zip(people, ["a1", "b1", "b1"], strict=True):
            factories.judgment(person, task, choice)
    Rater.objects.filter(pk__in=[people[1].pk, people[2].pk]).update(is_excluded=True)
    figures = compute(project)
    assert list(Consensus.objects.values_list("ranks", "votes").distinct()) == [([1, 2], 1)]
    assert figures["agreement"]["whole"]["alpha"]["value"] is None
    rows = {row["id"]: row for row in start_slice(figures)["raters"]}
    assert rows[people[1].pk]["judgments"] == 8
    assert rows[people[1].pk]["others"]["value"] == 0
    assert rows[people[1].pk]["others"]["n"] == 8


def test_ratings_have_a_consensus_per_attribute_and_response(tmp_path: Path) -> None:
    owner = factories.project(settings={"kind": "rating", "attributes": ["clarity"]})
    people = [factories.rater(owner) for _ in range(3)]
    tasks = [factories.task_of(owner, "rating", 2, overlap=3) for _ in range(12)]
    for task in tasks:
        for person, value in zip(people, (3, 3, 1), strict=True):
            Judgment.objects.create(
                project=owner, task=task, rater=person, ranks=[1, 2], strength=1,
                ratings={"clarity": [value, None]}, submitted_at=timezone.now(),
            )  # fmt: skip
    Project.objects.filter(pk=owner.pk).update(settings=owner.settings | {"aggregator": "majority"})
    figures = compute(owner)
    found = Consensus.objects.get(task=tasks[0])
    assert found.ratings == {"clarity": [pytest.approx(7 / 3, abs=1e-3), None]}
    assert found.posterior == pytest.approx(2 / 3, abs=1e-3)
    assert [one["name"] for one in figures["agreement"]["attributes"]] == ["clarity"]
    assert figures["question"] == "ratings"


# Figures ------------------------------------------------------------------------------------------


def test_control_tasks_are_not_part_of_agreement(project: Project) -> None:
    votes(project, "a1", "b1")
    task, _ = votes(project, "a1", "a1")
    gold = {"ranks": [1, 2], "strength": 1, "both_bad": False, "ratings": None}
    Task.objects.filter(pk=task.pk).update(is_gold=True, gold=gold)
    Judgment.objects.filter(task=task).update(is_hit=True)
    figures = compute(project)
    assert figures["agreement"]["whole"]["percent"]["value"] == 0
    assert figures["agreement"]["whole"]["percent"]["units"] == 1
    headline = start_slice(figures)["headline"]
    assert (headline["gold"]["hits"], headline["gold"]["n"]) == (2, 2)


def test_position_bias_is_found_in_the_order_that_was_shown(project: Project) -> None:
    person, other = factories.rater(project), factories.rater(project)
    for number in range(40):
        task = factories.pairwise_task(project, overlap=2)
        order = [0, 1] if number % 2 else [1, 0]
        for one in (person, other):
            first = one == person or number % 4 < 2
            ranks_ = [1, 2] if (order[0] == 0) == first else [2, 1]
            Judgment.objects.create(
                project=project, task=task, rater=one, ranks=ranks_, strength=1,
                shown_order=order, submitted_at=timezone.now(),
            )  # fmt: skip
    rows = {row["id"]: row for row in start_slice(compute(project))["raters"]}
    assert rows[person.pk]["first"]["value"] == 1
    assert "first" in rows[person.pk]["flags"]
    assert rows[other.pk]["first"]["value"] == pytest.approx(0.5)
    assert "first" not in rows[other.pk]["flags"]


def test_the_same_two_again_tell_how_consistent_a_rater_is(project: Project) -> None:
    person = factories.rater(project)
    for same in (True, True, False):
        task = factories.pairwise_task(project)
        again = Task.objects.create(
            project=project, prompt=task.prompt, response_ids=task.response_ids[::-1],
            content_hash=factories.digest("again", str(task.pk)),
        )  # fmt: skip
        factories.judgment(person, task, "a1")
        factories.judgment(person, again, "b1" if same else "a1")
    row = start_slice(compute(project))["raters"][0]
    assert (row["again"]["n"], row["again"]["value"]) == (3, pytest.approx(2 / 3))


def test_filters_keep_what_is_recent(project: Project) -> None:
    old, _ = votes(project, "a1", "a1")
    votes(project, "a1", "b1")
    long_ago = timezone.now() - timedelta(days=20)
    Judgment.objects.filter(task=old).update(submitted_at=long_ago)
    figures = compute(project)
    counts = {
        since: queries.chosen(figures, since=since, kind="all")["judgments"]
        for since in ("start", "7", "30")
    }
    assert counts == {"start": 4, "7": 2, "30": 4}
    assert len(figures["agreement"]["weeks"]) == 2
    assert queries.chosen(figures, since="never", kind="x")["judgments"] == 4


def test_models_are_ranked_by_who_wins(project: Project) -> None:
    person = factories.rater(project)
    for _ in range(12):
        prompt = factories.prompt(project)
        best = factories.response(prompt, generator="cedar")
        worst = factories.response(prompt, generator="elm")
        task = Task.objects.create(
            project=project, prompt=prompt, response_ids=[best.pk, worst.pk],
            content_hash=factories.digest("task", str(prompt.pk)),
        )  # fmt: skip
        factories.judgment(person, task, "a1")
    found = compute(project)["win_rates"]
    assert [row["name"] for row in found["rows"]] == ["cedar", "elm"]
    assert found["rows"][0]["wins"] == found["rows"][1]["losses"] == 12
    assert "never lost" in found["message"]


def test_an_empty_project_has_an_empty_report(project: Project) -> None:
    figures = compute(project)
    assert figures["judgments"] == 0
    assert figures["agreement"]["whole"] is None
    assert start_slice(figures)["raters"] == []


def test_hostile_ratings_and_tags_do_not_stop_a_run(project: Project) -> None:
    person = factories.rater(project)
    tags = ["a'b", "%s", "{}", 5]
    for number, ratings in enumerate(
        [[], "x", {"a": 3}, {"a": ["x", None, True]}, {"a": [1e308, 2]}, {"%s": [1, 2]}]
    ):
        of = factories.prompt(project, tags=tags if number % 2 else "nonsense")
        task = factories.task_of(project, "rating", 2, of=of)
        Judgment.objects.create(
            project=project, task=task, rater=person, ranks=[1, 2], strength=1,
            ratings=ratings, submitted_at=timezone.now(),
        )  # fmt: skip
    assert compute(project)["judgments"] == 6


def test_columns_say_where_a_null_is() -> None:
    with pytest.raises(ValueError, match="NULL"):
        read_columns(current(), "SELECT NULL::bigint AS a", {}, {"a": "bigint"})
    found = read_columns(
        current(),
        "SELECT n AS a, n / 2.0 AS b FROM generate_series(1, %(most)s) n",
        {"most": 300_000},
        {"a": "integer", "b": "double precision"},
    )
    assert found["a"].sum() == 300_000 * 300_001 // 2
    assert found["b"][-1] == 150_000


# Runs ---------------------------------------------------------------------------------------------


def test_one_run_at_a_time(project: Project) -> None:
    first, is_new = quality.start(project=project, by=None)
    second, again = quality.start(project=project, by=None)
    assert (first.pk, is_new, again) == (second.pk, True, False)


def test_a_run_stops_when_asked_and_writes_nothing(project: Project) -> None:
    votes(project, "a1", "b1")
    run, _ = quality.start(project=project, by=None)
    Run.objects.filter(pk=run.pk).update(cancel_requested_at=timezone.now())
    measure(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.CANCELED
    assert not Consensus.objects.exists()
    assert not QualityReport.objects.exists()
    runs.resume(run=run, by=None)
    measure(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE
    assert QualityReport.objects.filter(run=run).count() == 1


def test_reviewers_get_what_raters_disagree_on(project: Project) -> None:
    task, _ = votes(project, "a1", "a1", "b1")
    compute(project)
    assert ReviewItem.objects.filter(task=task, closed_at=None).exists()


def test_a_report_is_made_anew_once_enough_is_newer(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quality.start_if_stale(project=project) is None  # nobody has judged
    votes(project, "a1", "b1")
    compute(project)
    found = queries.report(project)
    assert found is not None
    assert queries.newer(project, found) == 0
    votes(project, "a1", "b1")
    assert queries.newer(project, found) == 2
    assert quality.start_if_stale(project=project) is None  # computed a moment ago
    before = timezone.now() - timedelta(minutes=11)
    QualityReport.objects.update(created_at=before)
    Run.objects.update(created_at=before)
    run = quality.start_if_stale(project=project)
    assert run is not None
    assert quality.start_if_stale(project=project) is None  # it is under way


def test_a_failed_first_run_is_not_started_again_and_again(project: Project) -> None:
    votes(project, "a1", "b1")
    run = quality.start_if_stale(project=project)
    assert run is not None
    Run.objects.filter(pk=run.pk).update(state=RunState.FAILED)
    assert quality.start_if_stale(project=project) is None


def test_changes_of_a_rater_are_noted_and_can_be_taken_back(project: Project) -> None:
    person, owner = factories.rater(project), factories.member(project, Role.OWNER)
    for action in ("pause", "exclude"):
        quality.change_rater(project=project, rater_id=person.pk, action=action, by=owner)
    person.refresh_from_db()
    assert person.paused_at is not None
    assert person.is_excluded
    for action in ("resume", "include"):
        quality.change_rater(project=project, rater_id=person.pk, action=action, by=owner)
    person.refresh_from_db()
    assert person.paused_at is None
    assert not person.is_excluded
    assert AuditEvent.objects.filter(project=project, verb__startswith="rater.").count() == 4


def test_command_measures_and_says_how_well(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(4):
        votes(project, "a1", "a1", "b1")
    call_command("measure_quality", "letters", wait=True)
    text = capsys.readouterr().out
    assert "Consensus of 4 tasks from 12 judgments by dawid-skene" in text
    assert "Krippendorff's alpha" in text


def test_statements_do_not_grow_with_the_judgments(project: Project) -> None:
    def statements() -> int:
        run, _ = quality.start(project=project, by=None)
        with CaptureQueriesContext(
            connection,
        ) as seen:
            measure(run_id=run.pk)
        return len([one for one in seen if "heartbeat" not in one["sql"]])

    planted.preferences(20, in_project=project, raters=3, seed=1)
    few = statements()
    planted.preferences(60, in_project=project, raters=3, seed=2)
    assert statements() <= few


def test_imported_votes_count_like_others(project: Project, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Question {n}?", "chosen": "Yes.", "rejected": "No.", "rater": f"r{n % 3}"}
        for n in range(6)
    ]
    read(project, jsonl(tmp_path / "pairs.jsonl", rows))
    figures = compute(project)
    assert figures["judgments"] == Judgment.objects.filter(project=project).count()
