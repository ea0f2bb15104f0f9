"""The pages of imports: upload, what arrived, bad rows, taking one back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from annotator.errors import Conflict
from annotator.jobs import base
from annotator.kinds.pairwise import pairwise_verdict
from annotator.models import (
    Assignment,
    AssignmentState,
    AuditEvent,
    ImportIssue,
    Judgment,
    Project,
    Prompt,
    Rater,
    Response,
    Role,
    Run,
    RunState,
    Task,
    User,
)
from annotator.services import import_undo, imports, judgments, queue
from annotator.views.imports import harmless
from tests import factories
from tests.annotator.imported import counts, jsonl, last_run, pair, read

pytestmark = pytest.mark.django_db(transaction=True)

SCRIPT = "<script>window.ran = 1</script>"


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


@pytest.fixture
def project() -> Project:
    return factories.project()


@pytest.fixture
def owner(project: Project) -> Client:
    return signed_in(factories.member(project, Role.OWNER))


def at(project: Project, page: str = "") -> str:
    return f"/p/{project.slug}/imports/{page}"


def lines(rows: list[Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def upload(
    client: Client, project: Project, content: bytes, *, name: str = "pairs.jsonl", **fields: Any
) -> Any:
    file = SimpleUploadedFile(name, content)
    return client.post(at(project, "new/"), {"file": file, **fields})


def work(project: Project) -> Run:
    """What the worker does with the newest run."""
    run = last_run(project)
    base.perform(run.pk, imports.perform)
    run.refresh_from_db()
    return run


def test_pages_are_for_owners_only(project: Project, tmp_path: Path) -> None:
    read(project, jsonl(tmp_path / "a.jsonl", [pair(1), {"chosen": 1}]))
    number = last_run(project).pk
    for page in ("", "new/", f"{number}/bad-rows.csv", f"{number}/undo/"):
        url = at(project, page)
        assert Client().get(url).status_code == 302
        assert signed_in(factories.user()).get(url).status_code == 404
        assert signed_in(factories.member(project, Role.ANNOTATOR)).get(url).status_code == 403
        assert signed_in(factories.member(project, Role.REVIEWER)).get(url).status_code == 403
        assert signed_in(factories.member(project, Role.OWNER)).get(url).status_code == 200
    for page in ("new/", f"{number}/undo/"):
        url = at(project, page)
        before = counts(project), Run.objects.count()
        assert signed_in(factories.user()).post(url).status_code == 404
        assert signed_in(factories.member(project, Role.REVIEWER)).post(url).status_code == 403
        assert (counts(project), Run.objects.count()) == before


def test_run_of_another_project_is_not_found(project: Project, owner: Client) -> None:
    other = factories.project()
    run = Run.objects.create(
        project=other, kind=Run.Kind.IMPORT, title="Import", state=RunState.DONE
    )
    assert owner.get(at(project, f"{run.pk}/bad-rows.csv")).status_code == 404
    assert owner.post(at(project, f"{run.pk}/undo/")).status_code == 404
    assert owner.get(at(project, f"new/?again={run.pk}")).status_code == 404


def test_upload_becomes_a_run_that_imports(project: Project, owner: Client) -> None:
    sent = upload(owner, project, lines([pair(1), pair(2)]), rater="Ann", simulated="on")
    run = last_run(project)
    assert sent.status_code == 302
    assert sent.url == f"/p/{project.slug}/runs/{run.pk}/"
    assert run.state == RunState.QUEUED
    assert run.title == "Import pairs.jsonl"
    run = work(project)
    assert run.state == RunState.DONE, run.error
    assert run.result["tasks"] == 2
    assert run.result["judgments"] == 2
    rater = Rater.objects.get(project=project)
    assert (rater.name, rater.is_simulated) == ("Ann", True)
    assert "pairs.jsonl" in owner.get(at(project)).content.decode()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\up.jsonl", "hf://a/b", ""]
)
def test_name_of_an_upload_never_becomes_a_path(project: Project, owner: Client, name: str) -> None:
    upload(owner, project, lines([pair(1)]), name=name or "x")
    run = last_run(project)
    assert Path(imports.path_of(run)) == run.folder / "upload"
    assert "/" not in run.config["filename"]
    assert work(project).result["tasks"] == 1


def test_path_in_the_sent_form_is_ignored(project: Project, owner: Client, tmp_path: Path) -> None:
    secret = jsonl(tmp_path / "secret.jsonl", [pair(99)])
    upload(owner, project, lines([pair(1)]), path=str(secret), absolute="1", config="{}")
    run = work(project)
    assert run.config["path"] == "upload"
    assert run.config["absolute"] is False
    assert Prompt.objects.get(project=project).last_message == "Question 1?"


def test_file_of_a_command_cannot_be_read_again_from_the_page(
    project: Project, owner: Client, tmp_path: Path
) -> None:
    read(project, jsonl(tmp_path / "a.jsonl", [pair(1)]))
    assert owner.get(at(project, f"new/?again={last_run(project).pk}")).status_code == 404


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"columns": "prompt question"}, "is not “field = column”"),
        ({"columns": "answer = a"}, "there is no field “answer”"),
        ({"columns": "prompt = a\nprompt = b"}, "is there twice"),
        ({"columns": f"{SCRIPT} = a"}, "&lt;script&gt;"),
        ({"format": "nonsense"}, "Select a valid choice"),
        ({"labels": "nonsense"}, "Select a valid choice"),
        ({"rater": "x" * 121}, "at most 120"),
        ({"file": ""}, "Choose a file"),
        ({"file": SimpleUploadedFile("a.jsonl", b"")}, "The file is empty"),
    ],
)
def test_bad_form_is_shown_again_with_its_reason(
    project: Project, owner: Client, fields: dict[str, Any], said: str
) -> None:
    sent = {"file": SimpleUploadedFile("a.jsonl", lines([pair(1)])), **fields}
    answer = owner.post(at(project, "new/"), sent)
    page = answer.content.decode()
    assert answer.status_code == 422
    assert said in page
    assert SCRIPT not in page
    assert not Run.objects.filter(project=project).exists()


def test_upload_over_the_limit_is_refused_with_the_limit(
    project: Project, owner: Client, settings: Any
) -> None:
    settings.MAX_UPLOAD_BYTES = 10_000
    assert upload(owner, project, b"x" * 9_999).status_code == 302
    answer = upload(owner, project, b"x" * 10_001)
    assert answer.status_code == 422
    assert "larger than" in answer.content.decode()
    assert Run.objects.filter(project=project).count() == 1


def test_form_with_javascript_off_has_everything(project: Project, owner: Client) -> None:
    page = owner.get(at(project, "new/")).content.decode()
    assert 'enctype="multipart/form-data"' in page
    assert 'type="file"' in page
    assert "onclick" not in page
    assert "style=" not in page


def test_failed_import_is_read_again_with_a_mapping(project: Project, owner: Client) -> None:
    rows = [{"q": "What?", "one": "This.", "two": "That."}]
    upload(owner, project, lines(rows))
    failed = work(project)
    assert failed.state == RunState.FAILED
    assert "No known format" in failed.error
    page = owner.get(f"/p/{project.slug}/runs/{failed.pk}/").content.decode()
    assert f"new/?again={failed.pk}" in page
    mapping = "prompt = q\nresponse_a = one\nresponse_b = two"
    sent = owner.post(at(project, f"new/?again={failed.pk}"), {"columns": mapping})
    assert sent.status_code == 302
    again = work(project)
    assert again.state == RunState.DONE
    assert again.retry_of_id == failed.pk
    assert again.result["tasks"] == 1
    shown = owner.get(at(project, f"new/?again={again.pk}")).content.decode()
    assert "response_a = one" in shown


def test_retry_reads_the_file_of_the_first_run(project: Project, owner: Client) -> None:
    upload(owner, project, lines([pair(1)]))
    first = work(project)
    owner.post(f"/p/{project.slug}/runs/{first.pk}/retry/")
    again = work(project)
    assert again.pk != first.pk
    assert again.state == RunState.DONE
    assert again.result["tasks"] == 0
    assert again.result["skipped_duplicates"] == 1


def test_missing_upload_fails_with_a_reason(project: Project, owner: Client) -> None:
    upload(owner, project, lines([pair(1)]))
    (last_run(project).folder / "upload").unlink()
    run = work(project)
    assert run.state == RunState.FAILED
    assert "no longer on the server" in run.error


def test_result_shows_figures_and_escaped_bad_rows(project: Project, owner: Client) -> None:
    rows = [
        pair(1),
        pair(1),
        pair(2, prompt=SCRIPT),
        {"prompt": SCRIPT, "chosen": SCRIPT, "rejected": SCRIPT},
        {"prompt": "no answers", SCRIPT: SCRIPT},
    ]
    upload(owner, project, lines(rows) + b"{" + SCRIPT.encode() + b"\n", name=f"{SCRIPT[8:]}")
    run = work(project)
    page = owner.get(f"/p/{project.slug}/runs/{run.pk}/").content.decode()
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page
    assert "3 bad lines" in page
    assert "2 of 6 lines kept, 1 already here, 3 bad." in page
    for title in ("The two answers are identical", "A field is missing", "Not JSON"):
        assert f"<b>{title}</b>" in page
    assert "train" in page


def test_reviewer_sees_the_result_without_what_changes_it(project: Project, owner: Client) -> None:
    upload(owner, project, lines([pair(1), {"a": 1}]))
    run = work(project)
    reviewer = signed_in(factories.member(project, Role.REVIEWER))
    page = reviewer.get(f"/p/{project.slug}/runs/{run.pk}/").content.decode()
    assert "1 bad line" in page
    assert "bad-rows.csv" not in page
    assert "undo/" not in page
    assert "again=" not in page


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1"])
def test_cell_that_a_spreadsheet_would_run_is_text(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


def test_bad_rows_are_downloaded_with_their_reasons(project: Project, owner: Client) -> None:
    run = Run.objects.create(
        project=project, kind=Run.Kind.IMPORT, title="Import", state=RunState.DONE
    )
    ImportIssue.objects.bulk_create(
        ImportIssue(run=run, line=n, code="missing", reason="=cmd()", excerpt='@x,"y"\n')
        for n in range(1, 1202)
    )
    answer = owner.get(at(project, f"{run.pk}/bad-rows.csv"))
    assert answer.streaming
    assert "attachment" in answer["Content-Disposition"]
    text = b"".join(answer.streaming_content).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["line", "reason", "text"]
    assert len(rows) == 1202
    assert rows[1201] == ["1201", "'=cmd()", '\'@x,"y"\n']


def test_undo_removes_what_the_import_added(project: Project, owner: Client) -> None:
    kept = factories.pairwise_task(project)
    before = counts(project)
    upload(owner, project, lines([pair(n) for n in range(20)]))
    run = work(project)
    page = owner.get(at(project, f"{run.pk}/undo/")).content.decode()
    assert "20 removed" in page
    assert counts(project)["Task"] == 21
    assert owner.post(at(project, f"{run.pk}/undo/")).status_code == 302
    assert counts(project) == before
    assert Task.objects.filter(pk=kept.pk).exists()
    assert AuditEvent.objects.filter(project=project, verb="import.undo").count() == 1
    assert "Undone" in owner.get(f"/p/{project.slug}/runs/{run.pk}/").content.decode()
    assert owner.post(at(project, f"{run.pk}/undo/")).status_code == 409
    upload(owner, project, lines([pair(n) for n in range(20)]))
    assert work(project).result["tasks"] == 20


def test_undo_keeps_what_a_person_judged_or_holds(project: Project, tmp_path: Path) -> None:
    people = [factories.rater(project) for _ in range(3)]
    read(project, jsonl(tmp_path / "a.jsonl", [pair(n) for n in range(4)]))
    run = last_run(project)
    judged, held, skipped = (queue.claim_next(project=one.project, rater=one) for one in people)
    judgments.submit(
        assignment_id=judged.assignment_id,
        rater=people[0],
        options=project.options,
        verdict=lambda _, order: pairwise_verdict(choice="a1", shown_order=order),
    )
    judgments.skip(assignment_id=skipped.assignment_id, rater=people[2], reason="unclear")
    assert import_undo.foretell(run) == {"tasks": 2, "kept": 2}
    done = import_undo.undo(run=run, by=None)
    assert (done["tasks"], done["kept"], done["judgments"]) == (2, 2, 4)
    assert set(Task.objects.values_list("pk", flat=True)) == {judged.task_id, held.task_id}
    assert Response.objects.count() == 4
    assert Prompt.objects.count() == 2
    assert Judgment.objects.get().rater == people[0]
    people[2].refresh_from_db()
    assert people[2].skipped == 0
    assert not Rater.objects.filter(kind=Rater.Kind.IMPORTED).exists()
    assert Assignment.objects.get(state=AssignmentState.LEASED).task_id == held.task_id


def test_undo_keeps_tasks_that_another_import_voted_on(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [pair(1), pair(2)])
    read(project, path)
    first = last_run(project)
    read(project, jsonl(tmp_path / "b.jsonl", [pair(2)]), options={"rater": "Bo"})
    done = import_undo.undo(run=first, by=None)
    assert (done["tasks"], done["kept"]) == (1, 1)
    assert Judgment.objects.get(project=project).rater.name == "Bo"
    assert Task.objects.get(project=project).prompt.last_message == "Question 2?"


def test_undo_of_a_run_that_is_not_done_is_refused(project: Project) -> None:
    run = Run.objects.create(project=project, kind=Run.Kind.IMPORT, title="x")
    with pytest.raises(Conflict):
        import_undo.undo(run=run, by=None)
