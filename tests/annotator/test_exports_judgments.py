"""Raw judgments: what was given on the desk is what the file says, for every kind of task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from django.core.management import call_command
from django.urls import reverse
from pyarrow import parquet

from annotator.jobs import exports as jobs
from annotator.models import DatasetVersion, Judgment, Project, Role, Task
from annotator.services import acceptance, deliveries, exports, judgments, queue
from tests import factories
from tests.annotator.imported import jsonl, read
from tests.annotator.trusting import rule, says, waiting_tasks

pytestmark = pytest.mark.django_db(transaction=True)

SETTINGS: dict[str, Any] = {
    "attributes": ["zeal", "a"],
    "criteria": ["It is short", "It is true"],
    "reasons": ["Clear"],
    "overlap": 1,
}
ANSWERS: dict[str, dict[str, str]] = {
    "pairwise": {"verdict": "a2", "both_bad": "on"},
    "ranking": {"place-A": "2", "place-B": "1", "place-C": "2", "place-D": "0"},
    "rating": {f"rate-{at}-{label}": str((at + n) % 5) for at in (0, 1) for n, label in
               enumerate("ABCD")},
    "best-worst": {"best": "C", "worst": "A"},
    "checklist": {f"check-{at}-{label}": "yes" if at else "na" for at in (0, 1)
                  for label in "ABCD"},
}  # fmt: skip


def build(project: Project, **options: Any) -> DatasetVersion:
    run = exports.start(project=project, format="judgments", options=options, by=None)
    jobs.export(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == "done", run.error
    return DatasetVersion.objects.get(run=run)


def rows_of(version: DatasetVersion) -> list[dict[str, Any]]:
    folder = deliveries.folder_of(version)
    return [
        orjson.loads(line)
        for entry in version.files
        for line in (folder / entry["name"]).read_bytes().splitlines()
    ]


def answer(project: Project, task: Task, answers: dict[str, str]) -> Judgment:
    """A verdict given as a page sends it."""
    rater = factories.rater(project)
    lease = queue.claim_next(project=project, rater=rater)
    assert lease is not None
    done = judgments.answer(
        assignment_id=lease.assignment_id,
        rater=rater,
        answers={**answers, "why": 'Because ,{"judgment_id": 1}', "reason-0": "on"},
        options=project.options,
    )
    return Judgment.objects.get(pk=done.judgment_id)


@pytest.mark.parametrize("kind", ANSWERS)
def test_row_is_the_verdict_given_on_the_desk(kind: str) -> None:
    project = factories.project(settings=SETTINGS)
    task = factories.task_of(
        project, kind, texts=["one", "two", "three", "four"][: 2 if kind == "pairwise" else 4]
    )
    given = answer(project, task, ANSWERS[kind])
    (row,) = rows_of(build(project))
    said = judgments.as_verdict(given)
    assert (row["ranks"], row["strength"], row["both_bad"]) == (
        said.ranks,
        said.strength,
        said.both_bad,
    )
    assert (row["ratings"], row["reasons"], row["rationale"]) == (
        said.ratings,
        ["Clear"],
        'Because ,{"judgment_id": 1}',
    )
    assert row["kind"] == kind
    assert [one["id"] for one in row["responses"]] == task.response_ids
    assert row["shown_order"] == given.shown_order
    assert row["prompt"] == task.prompt.messages
    assert (row["rater"], row["rater_kind"]) == (given.rater.name, "human")
    assert row["submitted_at"] == given.submitted_at.isoformat()
    assert (row["is_counted"], row["is_current"], row["source"]) == (True, True, "vote")


def test_verdicts_of_judges_are_marked_while_nothing_has_accepted_them() -> None:
    project = factories.project(settings={"overlap": 2})
    judge = factories.judge(project, kind="program")
    says(judge, factories.pairwise_task(project), first=True, confidence=0.5)
    waiting_tasks(judge, 1)
    factories.judgment(factories.rater(project), factories.pairwise_task(project))
    rule(judge)
    assert acceptance.apply(judge=judge).accepted == 1
    rows = rows_of(build(project))
    assert [(row["rater_kind"], row["is_held"]) for row in rows] == [
        ("judge", True), ("judge", False), ("human", False)
    ]  # fmt: skip


def test_parquet_holds_the_same_rows() -> None:
    project = factories.project(settings=SETTINGS)
    for kind in ("rating", "ranking"):
        answer(project, factories.task_of(project, kind, 4), ANSWERS[kind])
    plain = rows_of(build(project, splits=["train"]))
    version = build(project, container="parquet", splits=["train"])
    found = parquet.read_table(deliveries.folder_of(version) / "train.parquet").to_pylist()
    for row in plain:
        row["ratings"] = row["ratings"] and orjson.dumps(row["ratings"]).decode()
    assert found == plain


def test_revisions_and_names_are_as_asked() -> None:
    project = factories.project(settings=SETTINGS)
    given = answer(project, factories.pairwise_task(project), ANSWERS["pairwise"])
    judgments.undo(rater=given.rater, options=project.options)
    answer(project, factories.pairwise_task(project), {"verdict": "tie"})
    assert [row["source"] for row in rows_of(build(project))] == ["vote"]
    rows = rows_of(build(project, revisions="all", names="pseudonyms"))
    assert sorted(row["source"] for row in rows) == ["vote", "vote", "withdrawal"]
    assert {row["rater"] for row in rows} == {""}
    assert len({row["rater_id"] for row in rows}) == 2


def test_imported_labels_and_known_answers_come_back(tmp_path: Path) -> None:
    project = factories.project()
    labels = [{"item": "i", "rater": "ann", "value": "yes", "gold": "no"}]
    read(project, jsonl(tmp_path / "rows.jsonl", labels))
    (row,) = rows_of(build(project, raters="imported"))
    assert (row["ratings"], row["gold"]["ratings"]) == ({"value": [1]}, {"value": [0]})
    assert (row["rater"], row["source"], row["is_gold"]) == ("ann", "imported", False)


def test_command_and_page_build_it(client: Any, tmp_path: Path) -> None:
    project = factories.project(settings=SETTINGS)
    answer(project, factories.task_of(project, "rating", 4), ANSWERS["rating"])
    call_command("export_dataset", project.slug, "--format", "judgments", "--out", str(tmp_path))
    assert "1 judgments" in (tmp_path / "README.md").read_text()
    client.force_login(factories.member(project, Role.OWNER))
    shown = client.get(f"{reverse('export', args=[project.slug])}?format=judgments")
    assert b"Judgments of" in shown.content
    assert b"Revisions" in shown.content
    page = client.get(reverse("dataset", args=[project.slug, 1])).content.decode()
    assert "Every judgment of the recipe is a row" in page
    assert "1 rating" in page


def test_simulated_raters_mark_the_version_whatever_they_judged(tmp_path: Path) -> None:
    project = factories.project()
    rows = [{"item": "i", "rater": "bot", "value": n} for n in (3,)]
    read(project, jsonl(tmp_path / "rows.jsonl", rows), is_simulated=True)
    facts = build(project).manifest
    assert (facts["is_simulated"], facts["votes"], facts["simulated_votes"]) == (True, 1, 1)
