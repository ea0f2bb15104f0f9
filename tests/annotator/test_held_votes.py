"""What a judge says counts nowhere until it is accepted, and is measured all the same."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from annotator.jobs.quality import measure
from annotator.models import (
    Consensus,
    DatasetVersion,
    Judge,
    Project,
    QualityReport,
    ReviewItem,
    Run,
    RunState,
    Task,
)
from annotator.queries import figures, quality_data, steps
from annotator.queries.snapshot import snapshot
from annotator.services import acceptance, quality, review, tasks
from annotator.services.tasks import Change
from tests import factories
from tests.annotator.imported import jsonl, read
from tests.annotator.trusting import held, rule, says, waiting_tasks

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project(settings={"overlap": 2})


@pytest.fixture
def judge(project: Project) -> Judge:
    return factories.judge(project, kind="program")


def computed(project: Project) -> QualityReport:
    run, _ = quality.start(project=project, by=None)
    measure(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE, (run.error, run.log)
    return QualityReport.objects.get(run=run)


def test_consensus_hears_a_judge_only_where_it_was_accepted(project: Project, judge: Judge) -> None:
    (alone,) = waiting_tasks(judge, 1)
    beside = factories.pairwise_task(project)
    factories.judgment(factories.rater(project), beside, "b1")
    says(judge, beside, first=True, confidence=0.99)
    computed(project)
    (found,) = Consensus.objects.all()
    assert (found.task_id, found.votes, found.ranks) == (beside.pk, 1, [2, 1])
    rule(judge)
    acceptance.apply(judge=judge)
    computed(project)
    accepted = Consensus.objects.get(task=alone)
    assert (accepted.votes, accepted.ranks) == (1, [1, 2])
    assert Consensus.objects.get(task=beside).votes == 1, "a person has judged this one"


def test_agreement_measures_held_votes_and_the_rest_does_not(
    project: Project, judge: Judge
) -> None:
    people = [factories.rater(project) for _ in range(2)]
    for number in range(6):
        task = factories.pairwise_task(project)
        for person in people:
            factories.judgment(person, task, "a1")
        says(judge, task, first=number > 0, confidence=0.9)
    found = computed(project).figures
    agreement = found["agreement"]
    assert agreement["whole"]["raters"] == 2
    assert agreement["with_judges"]["raters"] == 3
    assert agreement["with_judges"]["percent"]["value"] < agreement["whole"]["percent"]["value"]
    assert found["distribution"]["judgments"] == 12
    assert sum(count for _, count in found["pace"]) == 12
    assert all(one.votes == 2 for one in Consensus.objects.all())


def test_ratings_of_judges_are_held_too(judge: Judge) -> None:
    project = judge.project
    task = factories.pairwise_task(project)
    says(judge, task, first=True, confidence=0.9)
    factories.judgment(factories.rater(project), task)
    with snapshot() as raw:
        said = quality_data.read(raw, project.pk)
    counted = dict(zip(said.work.raters.tolist(), said.is_counted.tolist(), strict=True))
    codes = {int(pk): code for code, pk in enumerate(said.people.ids)}
    assert counted == {code: pk != judge.rater_id for pk, code in codes.items()}


def test_overview_counts_what_is_accepted_and_never_as_peoples_work(
    project: Project, judge: Judge
) -> None:
    waiting_tasks(judge, 3)

    def now() -> figures.Figures:
        figures.forget(project.pk)
        return figures.figures([project.pk])[project.pk]

    before = now()
    assert (before.edges, before.recent, before.open) == (0, 0, 6)
    rule(judge)
    acceptance.apply(judge=judge)
    after = now()
    assert (after.edges, after.decided, after.recent, after.open) == (3, 3, 0, 0)


def test_a_dataset_is_behind_by_what_was_accepted_since(project: Project, judge: Judge) -> None:
    run = Run.objects.create(project=project, kind="export", title="Export")
    built = DatasetVersion.objects.create(project=project, number=1, run=run, rows=0)
    DatasetVersion.objects.filter(pk=built.pk).update(
        created_at=timezone.now() - timedelta(minutes=1)
    )
    waiting_tasks(judge, 2)
    assert steps.facts([project.pk])[project.pk].new_votes == 0
    rule(judge)
    acceptance.apply(judge=judge)
    assert steps.facts([project.pk])[project.pk].new_votes == 2


def test_judges_do_not_make_a_task_a_gold(project: Project, judge: Judge) -> None:
    other = factories.judge(project, kind="program")
    task = factories.pairwise_task(project)
    for one in (judge, other):
        says(one, task, first=True, confidence=0.99)
    done = tasks.change(project=project, task_ids=[task.pk], change=Change("gold"), by=None)
    assert (done.changed, done.refused) == (0, {tasks.NO_VERDICT: 1})
    for person in (factories.rater(project), factories.rater(project)):
        factories.judgment(person, task, "b1")
    done = tasks.change(project=project, task_ids=[task.pk], change=Change("gold"), by=None)
    assert done.changed == 1, "people agree, whatever judges say"
    assert Task.objects.get(pk=task.pk).gold["ranks"] == [2, 1]


def test_a_judges_vote_reopens_no_review(project: Project, judge: Judge) -> None:
    task = factories.pairwise_task(project)
    for person, said in ((factories.rater(project), "a1"), (factories.rater(project), "b1")):
        factories.judgment(person, task, said)
    computed(project)
    assert ReviewItem.objects.filter(task=task, closed_at=None).count() == 1
    review.close(task=task, by=factories.member(project), decision=review.DISMISSED)
    says(judge, task, first=True, confidence=0.9)
    assert review.refresh(project.pk) == review.Refreshed(opened=0, closed=0)


def test_labels_that_are_imported_onto_an_accepted_task_come_first(
    project: Project, judge: Judge, tmp_path: Path
) -> None:
    asked = {"prompt": "Why?", "responses": ["Because.", "No."]}
    read(project, jsonl(tmp_path / "asked.jsonl", [asked]))
    task = Task.objects.filter(project=project).get()
    says(judge, task, first=True, confidence=0.9)
    rule(judge)
    acceptance.apply(judge=judge)
    assert held(judge) == [False]
    labeled = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
    assert read(project, jsonl(tmp_path / "labeled.jsonl", [labeled]))["judgments"] == 1
    assert held(judge) == [True]
