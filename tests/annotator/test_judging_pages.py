"""Judges' runs as pages, commands and API show and start them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse

from annotator.celery import app
from annotator.models import (
    Endpoint,
    Judge,
    JudgeOutcome,
    Project,
    Role,
    Run,
    RunState,
    User,
)
from annotator.queries import run_commands
from annotator.queries import runs as run_queries
from annotator.queries.judging import find_judge
from annotator.services import judges, judging, tokens
from rubrics.llm.budget import Budget
from tests import factories
from tests.simulated import simulated

pytestmark = pytest.mark.django_db

USED = {
    "calls": 1_200, "cached": 34, "tokens_in": 400_000, "tokens_out": 50_000, "cost": 1.25,
    "judged": 600, "failed": 2, "failures": {"timeout": 1, "unreadable": 1},
    "errors": {"unreadable": 5, "timeout": 2}, "retries": {"rate-limited": 77},
}  # fmt: skip


@pytest.fixture
def project() -> Project:
    return factories.project("letters")


@pytest.fixture
def alice(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Alice")


@pytest.fixture
def judge(project: Project) -> Judge:
    return factories.judge(project, name="sim")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """Task, run and queue of the messages that were sent."""
    found: list[tuple[str, int, str]] = []

    def send_task(name: str, kwargs: dict[str, int], queue: str = "") -> None:
        found.append((name, kwargs["run_id"], queue))

    monkeypatch.setattr(app, "send_task", send_task)
    return found


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def run_of(judge: Judge, **fields: Any) -> Run:
    run = judging.start(project=judge.project, judge=judge, by=None)
    values = {"state": "running", "counters": USED, "progress": 602, "total": 1_000, "attempt": 1}
    Run.objects.filter(pk=run.pk).update(**(values | fields))
    run.refresh_from_db()
    return run


def address(name: str, run: Run) -> str:
    return reverse(name, args=[run.project.slug, run.pk])


def page(user: User, run: Run, name: str = "run") -> str:
    response = client_of(user).get(address(name, run))
    assert response.status_code == 200
    return response.content.decode()


# Pages --------------------------------------------------------------------------------------------


def test_run_page_shows_what_was_used_and_what_went_wrong(judge: Judge, alice: User) -> None:
    text = page(alice, run_of(judge))
    for shown in ("600", "of 1,000", "2 failed", "1,200", "34 more from the cache", "1.25"):
        assert shown in text
    assert "The endpoint asked to wait, again and again" in text
    assert "2 tasks without a verdict" in text
    assert 'id="pause"' in text
    assert 'id="retry-failed"' not in text, "not while it works"


def test_ended_run_offers_to_retry_what_failed(judge: Judge, alice: User) -> None:
    result = {"run": 1, "judged": 600, "failed": 2, "stopped": "budget"}
    run = run_of(judge, state="done", result=result)
    text = page(alice, run)
    assert 'id="retry-failed"' in text
    assert 'id="pause"' not in text
    line = run_queries.line(run)
    assert line.outcome == "600 judged, 2 failed, its budget is spent"
    assert (line.mark, line.word) == ("warn", "done, 2 failed")


def test_run_that_met_nothing_shows_no_table(judge: Judge, alice: User) -> None:
    clean = USED | {"failed": 0, "failures": {}, "errors": {}, "retries": {}}
    assert "What went wrong" not in page(alice, run_of(judge, counters=clean))
    assert "What went wrong" not in page(alice, run_of(judge, counters={}, state="queued"))


def test_pause_and_resume_by_the_owner(judge: Judge, alice: User, sent: list[Any]) -> None:
    run = run_of(judge)
    client_of(alice).post(address("run_pause", run))
    run.refresh_from_db()
    assert (run.state, run.is_pausing) == (RunState.STOPPING, True)
    queued = run_of(judge, state="queued")
    client_of(alice).post(address("run_pause", queued))
    queued.refresh_from_db()
    assert queued.state == RunState.PAUSED
    assert 'id="resume"' in page(alice, queued)


def test_only_judging_can_be_paused(project: Project, alice: User) -> None:
    run = Run.objects.create(project=project, kind="train", title="Train", state="running")
    client_of(alice).post(address("run_pause", run))
    run.refresh_from_db()
    assert run.state == RunState.RUNNING


def test_failures_are_listed_page_by_page(
    judge: Judge, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotator.queries.judging.PAGE", 2)
    run = run_of(judge, state="done")
    tasks = [factories.pairwise_task(judge.project) for _ in range(4)]
    for task, error in zip(tasks, ["timeout", "unreadable", "", "picture"], strict=True):
        JudgeOutcome.objects.create(
            judge=judge, task=task, run=run, error=error, detail="<b>why</b>"
        )
    first = page(alice, run, "run_failures")
    assert "The endpoint did not answer in time" in first
    assert "&lt;b&gt;why" in first
    assert f">{tasks[3].pk}</a>" not in first
    after = JudgeOutcome.objects.get(task=tasks[1]).pk
    second = client_of(alice).get(address("run_failures", run), {"after": after}).content.decode()
    assert "A picture of the task cannot be sent" in second
    assert f">{tasks[2].pk}</a>" not in first + second, "that one was judged"


def test_retry_failed_queues_a_run_over_them(
    judge: Judge, alice: User, sent: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    run = run_of(judge, state="done")
    with django_capture_on_commit_callbacks(execute=True):
        client_of(alice).post(address("run_retry_failed", run))
    fresh = Run.objects.get(retry_of=run)
    assert fresh.config["retry"] == "failed"
    assert fresh.config["tasks"] == "all"
    assert sent == [("annotator.jobs.judging.judge", fresh.pk, "llm")]
    under_way = run_of(judge)
    client_of(alice).post(address("run_retry_failed", under_way))
    assert not Run.objects.filter(retry_of=under_way).exists()


@pytest.mark.parametrize("name", ["run_pause", "run_retry_failed"])
def test_reviewers_look_and_do_not_touch(judge: Judge, name: str) -> None:
    reviewer = factories.member(judge.project, Role.REVIEWER)
    run = run_of(judge, state="done")
    assert client_of(reviewer).post(address(name, run)).status_code in (403, 404)
    assert not Run.objects.filter(retry_of=run).exists()
    assert 'id="retry-failed"' not in page(reviewer, run)
    page(reviewer, run, "run_failures")
    stranger = factories.member(factories.project(), Role.OWNER)
    assert client_of(stranger).get(address("run_failures", run)).status_code == 404


def test_failures_are_of_judges_runs_only(project: Project, alice: User) -> None:
    run = Run.objects.create(project=project, kind="train", title="Train", state="done")
    assert client_of(alice).get(address("run_failures", run)).status_code == 404


# Starting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({"tasks": "everything"}, "selects no tasks"),
        ({"limit": 0}, "Limit"),
        ({"budget": Budget(calls=-1)}, "Calls"),
        ({"budget": {"money": float("nan")}}, "Money"),
        ({"retry": "all"}, "can be tried again"),
    ],
    ids=["tasks", "limit", "calls", "money", "retry"],
)
def test_nonsense_is_refused_before_anything_is_queued(
    judge: Judge, how: dict[str, Any], part: str
) -> None:
    with pytest.raises(Exception, match=part):
        judging.start(project=judge.project, judge=judge, by=None, **how)
    assert not Run.objects.exists()


def test_judges_that_cannot_be_asked_are_refused(project: Project) -> None:
    archived, imported = factories.judge(project), factories.judge(project, kind="imported")
    judges.archive(judge=archived, by=None)
    closed = factories.judge(project)
    Endpoint.objects.filter(pk=closed.endpoint_id).update(archived_at="2026-01-01T00:00Z")
    closed = Judge.objects.get(pk=closed.pk)
    for one, why in ((archived, "archived"), (imported, "came with a file"), (closed, "archived")):
        with pytest.raises(Exception, match=why):
            judging.start(project=project, judge=one, by=None)
    with pytest.raises(Exception, match="another project"):
        judging.start(project=factories.project(), judge=factories.judge(project), by=None)


def test_command_of_a_run_starts_the_same(judge: Judge) -> None:
    run = judging.start(
        project=judge.project, judge=judge, by=None, tasks="unlabeled,tag=a b", limit=5,
        budget=Budget(calls=10, money=0.5), retry="failed",
    )  # fmt: skip
    words = shlex.split(run_commands.command(run))
    assert words[:4] == ["python", "manage.py", "run_judge", "letters"]
    call_command(*words[2:], "--json")
    other = Run.objects.exclude(pk=run.pk).get()
    assert other.config == run.config
    shown = dict(run_commands.ledger(run.config))
    assert shown["Tasks"] == "unlabeled,tag=a b"
    assert "Judge" not in shown, "a number of the database"


# Judges --------------------------------------------------------------------------------------------


def add(project: Project, **how: Any) -> Judge:
    values = {"name": "sim", "kind": "llm", "options": {"models": ["m"]}, "by": None} | how
    return judges.add(project=project, **values)


def test_same_settings_are_the_same_version_and_others_the_next(project: Project) -> None:
    endpoint = factories.endpoint(project, is_simulated=True)
    first = add(project, endpoint=endpoint)
    assert (first.version, first.rater.name, first.rater.kind) == (1, "sim v1", "judge")
    assert first.is_simulated is first.rater.is_simulated is True
    assert first.template == "pairwise"
    assert len(first.template_hash) == 64
    assert first.template_text
    assert first.options["tie_band"] == 0.05, "every value is filled in"
    assert add(project, endpoint=endpoint) == first
    second = add(project, endpoint=endpoint, options={"models": ["m"], "temperature": "0.5"})
    assert (second.version, second.rater.name) == (2, "sim v2")
    assert add(project, endpoint=endpoint).version == 3, "back to the old ones is a change too"
    other = add(project, endpoint=endpoint, name="other")
    assert other.version == 1
    assert other.digest == first.digest
    moved = factories.endpoint(project, base_url="http://127.0.0.1:8790/v2")
    assert add(project, endpoint=moved, name="other").version == 2


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({"kind": "oracle"}, "oracle"),
        ({"options": {"models": []}}, "at least one model"),
        ({"options": {"models": ["m", "m"]}}, "twice"),
        ({"options": {"models": ["m"], "repeats": 99}}, "repeats"),
        ({"options": {"models": ["m"], "surprise": 1}}, "surprise"),
        ({"options": {"models": ["m"], "template": "../../etc/passwd"}}, "template"),
        ({"name": " "}, "needs a name"),
        ({"name": "a@v1"}, "without an @"),
        ({"endpoint": None}, "endpoint"),
        ({"kind": "program", "options": {}}, "asks no endpoint"),
        ({"kind": "reward-model", "options": {}, "endpoint": None}, "reward model"),
        ({"kind": "yes-no", "options": {"model": "/etc"}, "endpoint": None}, "neither a model id"),
        ({"kind": "yes-no", "options": {}, "endpoint": None}, "Name a model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_judge_is_refused(project: Project, how: dict[str, Any], part: str) -> None:
    with pytest.raises(Exception, match=part):
        add(project, **({"endpoint": factories.endpoint(project)} | how))
    assert not Judge.objects.exists()


def test_endpoint_of_another_project_is_refused(project: Project) -> None:
    with pytest.raises(Exception, match="of this project"):
        add(project, endpoint=factories.endpoint(factories.project()))


def test_newest_version_in_use_is_found_by_name(project: Project) -> None:
    one, two = (factories.judge(project, name="a@b", version=version) for version in (1, 2))
    assert find_judge(project, "a@b") == two
    assert find_judge(project, "a@b@v1") == one
    judges.archive(judge=two, by=None)
    assert find_judge(project, "a@b") == one
    assert find_judge(project, "a@b@v3") is None
    assert find_judge(project, "c") is None


# Commands ------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_commands_from_endpoint_to_verdicts(
    project: Project, settings: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factories.pairwise_task(project)
    factories.pairwise_task(project, of=factories.prompt(project, split="test"))
    key = tmp_path / "key"
    key.write_text("sk-planted-0123456789\n")

    def said(*words: str) -> dict[str, Any]:
        call_command(*words, "--json")
        out = capsys.readouterr().out
        assert "sk-planted" not in out
        return json.loads(out.strip().splitlines()[-1])

    with simulated(api_key="sk-planted-0123456789") as server:
        settings.LLM_HOSTS = [server.host]
        said(
            "add_endpoint", "letters", "--name", "e", "--url", server.url, "--key-file", str(key),
            "--price", "*=1,2", "--concurrency", "4",
        )  # fmt: skip
        made = said(
            "add_judge", "letters", "--name", "j", "--kind", "llm", "--endpoint", "e",
            "--option", "models=sim", "--option", "reasoning=false",
        )  # fmt: skip
        assert (made["name"], made["version"]) == ("j", 1)
        done = said("run_judge", "letters", "--judge", "j@v1", "--tasks", "split=test", "--wait")
    assert (done["judged"], done["failed"], done["cached"]) == (1, 0, 0)
    assert done["tokens"] > 0
    assert done["cost"] > 0
    assert Run.objects.get(pk=done["run"]).state == RunState.DONE


def test_commands_name_what_is_missing(project: Project, tmp_path: Path) -> None:
    factories.judge(project, name="sim")
    for words, part in (
        (("run_judge", "nowhere", "--judge", "sim"), "no project"),
        (("run_judge", "letters", "--judge", "gpt"), "Known: sim"),
        (("run_judge", "letters", "--judge", "sim", "--tasks", "odd"), "selects no tasks"),
        (("add_judge", "letters", "--name", "x", "--kind", "llm", "--endpoint", "e"), "endpoint"),
        (
            ("add_judge", "letters", "--name", "x", "--kind", "llm", "--option", "odd=1"),
            "no option",
        ),
        (
            ("add_endpoint", "letters", "--name", "x", "--url", "http://evil.example/v1"),
            "may not call",
        ),
        (
            ("add_endpoint", "letters", "--name", "x", "--url", "http://127.0.0.1:8790/v1",
             "--key-file", str(tmp_path / "none")),
            "cannot be read",
        ),
        (
            ("add_endpoint", "letters", "--name", "x", "--url", "http://127.0.0.1:8790/v1",
             "--price", "m=cheap"),
            "MODEL=IN,OUT",
        ),
    ):  # fmt: skip
        with pytest.raises(CommandError, match=part):
            call_command(*words)


# API -----------------------------------------------------------------------------------------------


def api_of(user: User) -> Client:
    _, secret = tokens.create(user=user, name="test")
    return Client(headers={"Authorization": f"Bearer {secret}"})


def test_api_lists_judges_and_starts_a_run(
    judge: Judge, alice: User, sent: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    api = api_of(alice)
    (listed,) = api.get("/api/v1/projects/letters/judges").json()
    assert (listed["id"], listed["name"], listed["kind"]) == (judge.pk, "sim", "llm")
    assert "secret" not in json.dumps(listed)
    path = f"/api/v1/projects/letters/judges/{judge.pk}/runs"
    with django_capture_on_commit_callbacks(execute=True):
        body = {"tasks": "unlabeled", "limit": 3, "calls": 9}
        started = api.post(path, body, content_type="application/json").json()
    run = Run.objects.get(pk=started["id"])
    assert (run.config["tasks"], run.config["limit"]) == ("unlabeled", 3)
    assert run.config["budget"] == {"calls": 9, "tokens": None, "money": None}
    assert sent == [("annotator.jobs.judging.judge", run.pk, "llm")]
    Run.objects.filter(pk=run.pk).update(counters=USED)
    state = api.get(f"/api/v1/projects/letters/runs/{run.pk}").json()
    assert state["counters"]["calls"] == 1_200
    refused = api.post(path, {"tasks": "odd"}, content_type="application/json")
    assert refused.status_code == 422


def test_api_lets_reviewers_read_only(judge: Judge) -> None:
    api = api_of(factories.member(judge.project, Role.REVIEWER))
    assert len(api.get("/api/v1/projects/letters/judges").json()) == 1
    path = f"/api/v1/projects/letters/judges/{judge.pk}/runs"
    assert api.post(path, {}, content_type="application/json").status_code in (403, 404)
    assert not Run.objects.exists()
    other = factories.judge(factories.project())
    owner = api_of(factories.member(judge.project, Role.OWNER))
    path = f"/api/v1/projects/letters/judges/{other.pk}/runs"
    assert owner.post(path, {}, content_type="application/json").status_code == 404
