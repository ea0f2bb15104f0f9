"""Runs: the list, the page that renews itself while there is something to wait for, the buttons."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotator.celery import app
from annotator.models import AuditEvent, Project, Role, Run, RunPoint, RunState, User
from annotator.queries import curves, run_commands
from annotator.queries import runs as queries
from annotator.services import imports
from annotator.services import runs as service
from annotator.views.run_charts import charts
from tests import factories

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}


@pytest.fixture
def project() -> Project:
    return factories.project("letters")


@pytest.fixture
def alice(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Alice")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the runs whose message reached the queue."""
    found: list[int] = []

    def send_task(name: str, kwargs: dict[str, int]) -> None:
        found.append(kwargs["run_id"])

    monkeypatch.setattr(app, "send_task", send_task)
    return found


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def make(project: Project, **fields: object) -> Run:
    values = {"kind": "train", "title": "Train a model", "state": "running"} | fields
    return Run.objects.create(project=project, **values)


def running(project: Project, **fields: object) -> Run:
    now = timezone.now()
    values = {
        "started_at": now - timedelta(minutes=20), "heartbeat_at": now, "attempt": 1,
        "progress": 1240, "total": 2070, "unit": "steps", "worker": "gpu-1:7",
    }  # fmt: skip
    return make(project, **(values | fields))


def add_points(run: Run, *, steps: int = 40, evaluations: int = 3) -> None:
    for step in range(1, steps + 1):
        values = {"loss": 0.7 - step / 200, "margin": step / 50, "grad_norm": 1.0,
                  "pairs_per_second": 7.5, "memory_mb": 512.0}  # fmt: skip
        RunPoint.objects.create(run=run, kind="step", step=step * 10, values=values)
    for number in range(1, evaluations + 1):
        accuracy = 0.6 + number / 50
        RunPoint.objects.create(
            run=run, kind="evaluate", step=number * 100,
            values={"accuracy": accuracy, "interval": [accuracy - 0.04, accuracy + 0.04],
                    "n": 460, "loss": 0.6, "split": "validation"},
        )  # fmt: skip


def page(user: User, run: Run, **headers: str) -> str:
    url = reverse("run", args=[run.project.slug, run.pk])
    response = client_of(user).get(url, headers=headers)
    assert response.status_code == 200
    return response.content.decode()


def assert_no_whole_log(queries_: CaptureQueriesContext) -> None:
    """A log is up to 60 kB; pages that poll every second read its end, lists read none."""
    for one in queries_.captured_queries:
        columns = one["sql"].replace('RIGHT("annotator_run"."log"', "")
        assert '"annotator_run"."log"' not in columns


# The page ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(RunState))
def test_page_asks_for_itself_only_while_there_is_something_to_wait_for(
    project: Project, alice: User, state: RunState
) -> None:
    run = running(project, state=state)
    waits = state in (RunState.QUEUED, RunState.RUNNING, RunState.STOPPING)
    text = page(alice, run, **HTMX) if state != RunState.DONE else ""
    assert ("hx-get" in text) is waits


def test_poll_gets_the_fragment_and_the_page_gets_all(project: Project, alice: User) -> None:
    run = running(project)
    part, whole = page(alice, run, **HTMX), page(alice, run)
    assert "<html" not in part
    assert part.strip().startswith('<div id="live"')
    assert "<html" in whole
    # What differs between two answers a moment apart: tokens, and how long ago things were.
    moving = re.compile(
        r'name="csrfmiddlewaretoken" value="\w+"|\d+(\.\d)?\s(ms|s|min)\b( ago)?|now'
    )
    assert moving.sub("", part).strip() in moving.sub("", whole)


def test_end_is_announced_once(project: Project, alice: User) -> None:
    run = running(project, state="failed", error="Out of memory.", advice="Smaller batches.")
    part = page(alice, run, **HTMX)
    assert 'hx-swap-oob="innerHTML"' in part
    assert f"Run {run.pk} failed." in part
    assert "Out of memory." in part
    assert "Smaller batches." in part
    assert "hx-swap-oob" not in page(alice, run)


def test_end_brings_the_header_s_count_up_to_date(project: Project, alice: User) -> None:
    run = running(project, state="done")
    assert re.search(r'id="active-runs"[^>]* hx-swap-oob="delete"', page(alice, run, **HTMX))
    running(project)
    assert re.search(
        r'id="active-runs"[^>]* hx-swap-oob="true">1 run active<', page(alice, run, **HTMX)
    )
    aside = running(project, state="done", kind=Run.Kind.ASK)
    assert "active-runs" not in page(alice, aside, **HTMX).partition('id="status"')[2]


def test_page_shows_figures_with_intervals(project: Project, alice: User) -> None:
    run = running(project)
    add_points(run)
    text = page(alice, run)
    assert "66.0\u00a0%" in text
    assert "[62.0,\u00a070.0] on 460 pairs, step 300" in text
    assert "Validation accuracy" in text
    assert text.count("<svg") >= 5


def test_page_of_a_resumed_run_says_from_where(project: Project, alice: User) -> None:
    run = running(project, attempt=2, resumed_from="step 1,080")
    assert "picked up again at step 1,080" in page(alice, run)
    assert "picked up again" not in page(alice, running(project))


def test_lost_worker_is_told_on_the_page(project: Project, alice: User) -> None:
    """The story of a kill -9: heartbeat stops, the run is queued again, another resumes it."""
    run = running(project, heartbeat_at=timezone.now() - timedelta(hours=1))
    assert [again.pk for again in service.reap()] == [run.pk]
    text = page(alice, run)
    assert "its worker was lost; picked up again" in text
    pen = service.begin(run_id=run.pk, worker="gpu-2:1")
    assert pen is not None
    pen.resumed("step 1,200")
    pen.flush()
    text = page(alice, run)
    assert "Attempt 2" in text
    assert "step 1,200" in text
    assert "was lost; queued again" in text


def test_figures_of_finished_chunks_give_way_to_the_result(project: Project, alice: User) -> None:
    run = running(project, kind="export", unit="rows")
    assert "rows a second" in page(alice, run)
    run.state, run.finished_at = RunState.CANCELED, run.started_at + timedelta(minutes=3)
    run.save()
    text = page(alice, run)
    assert "1,240" in text
    assert "3\u00a0min" in text


def test_stages_of_a_training_do_not_count_pairs_as_steps(project: Project, alice: User) -> None:
    run = running(
        project, progress=5000, total=2070, unit="pairs", message="Evaluate: 5,000 test pairs",
        stages=[{"key": "evaluate", "label": "Evaluate", "state": "running", "seconds": None}],
    )  # fmt: skip
    text = page(alice, run)
    assert "Evaluate: 5,000 test pairs" in text
    assert "100 %" not in text
    assert "<progress" not in text


def test_everything_a_run_says_is_shown_as_text(project: Project, alice: User) -> None:
    payload = "<script>alert(1)</script>"
    run = running(
        project, state="failed", title=payload, error=payload, advice=payload, log=f"{payload}\n",
        config={"objective": payload, payload: payload}, worker=payload, message=payload,
        stages=[{"key": "a", "label": payload, "state": "failed", "seconds": 1.0}],
    )  # fmt: skip
    assert payload not in page(alice, run)
    runs = client_of(alice).get(reverse("runs", args=[project.slug]))
    assert payload not in runs.content.decode()


@pytest.mark.parametrize(
    ("points", "large", "small"), [((0, 0), 0, 0), ((1, 0), 0, 0), ((0, 1), 1, 0), ((40, 3), 2, 3)]
)
def test_charts_are_drawn_of_what_there_is(
    project: Project, points: tuple[int, int], large: int, small: int
) -> None:
    run = running(project)
    add_points(run, steps=points[0], evaluations=points[1])
    drawn = charts(curves.curves(run))
    assert (len(drawn.large), len(drawn.small)) == (large, small)


def test_evaluation_without_a_preference_is_left_out(project: Project, alice: User) -> None:
    run = running(project)
    RunPoint.objects.create(run=run, kind="evaluate", step=5, values={"accuracy": None, "n": 0})
    assert curves.curves(run).evaluations == []
    assert "accuracy" not in page(alice, run)


def test_test_accuracy_stands_apart_from_the_curve(project: Project) -> None:
    run = running(project)
    add_points(run)
    values = {"accuracy": 0.9, "interval": [0.8, 0.95], "n": 50, "split": "test"}
    RunPoint.objects.create(run=run, kind="evaluate", step=400, values=values)
    found = curves.curves(run)
    assert found.test is not None
    assert found.test.accuracy == 0.9
    assert [one.split for one in found.evaluations] == ["validation"] * 3


def test_no_time_is_left_where_all_is_counted_and_more_is_done(project: Project) -> None:
    run = running(project, kind="export", progress=206, total=206, unit="pairs")
    assert queries.seconds_left(run) is None
    run.progress = 103
    assert queries.seconds_left(run) == pytest.approx(1200, rel=0.01)


def test_time_left_follows_the_last_points(project: Project) -> None:
    run = running(project, total=1000)
    now = timezone.now()
    for place, ago in enumerate((1000, 20, 10, 0)):
        point = RunPoint.objects.create(run=run, kind="step", step=place * 100, values={"loss": 1})
        RunPoint.objects.filter(pk=point.pk).update(at=now - timedelta(seconds=ago))
    found = curves.curves(run)
    # 300 steps in 1,000 s, the pause of a lost worker included: 700 are left.
    assert found.seconds_left == pytest.approx(700 / 0.3, rel=0.01)


def test_page_costs_the_same_with_more_points_and_a_longer_log(
    project: Project, alice: User
) -> None:
    run = running(project, log="x" * 50_000)
    add_points(run, steps=10)
    client, url = client_of(alice), reverse("run", args=[project.slug, run.pk])
    client.get(url)

    def cost() -> int:
        with CaptureQueriesContext(connection) as found:
            client.get(url, headers=HTMX)
        assert_no_whole_log(found)
        return len(found)

    few = cost()
    RunPoint.objects.filter(run=run).delete()
    add_points(run, steps=100, evaluations=30)
    assert cost() == few <= 10


# The log ----------------------------------------------------------------------------------------


def test_log_is_streamed_as_text(project: Project, alice: User) -> None:
    text = "".join(f"2026-01-01T00:00:00Z line {n} <b> ü\n" for n in range(3000))
    run = make(project, log=text)
    response = client_of(alice).get(reverse("run_log", args=[project.slug, run.pk]))
    assert response.streaming
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert b"".join(response.streaming_content).decode() == text


def test_log_tail_starts_with_a_whole_line(project: Project, alice: User) -> None:
    lines = [f"2026-01-01T00:00:{n % 60:02}Z line {n}" for n in range(400)]
    run = running(project, log="\n".join(lines) + "\n")
    shown = queries.detail(queries.find(project, run.pk)).log
    assert len(shown) == queries.TAIL_LINES
    assert shown[-1].text == "line 399"
    assert all(one.text.startswith("line ") and one.at for one in shown)


@pytest.mark.parametrize(
    ("line", "level"),
    [("warning  3 pairs cut", "warn"), ("Error: no", "bad"), ("ValueError: x", "bad"),
     ("RuntimeError: CUDA", "bad"), ("Traceback (most recent call last):", "bad"),
     ("step 1 error 0.3", ""), ("errors: none", ""), ("", "")],
)  # fmt: skip
def test_log_marks_what_went_wrong(line: str, level: str) -> None:
    found = queries.log_lines(f"2026-01-01T00:00:00Z {line}\n", cut=False)
    assert [one.level for one in found] == [level]


# The list ---------------------------------------------------------------------------------------


def test_list_filters_by_kind_and_state(project: Project, alice: User) -> None:
    train = make(project, kind="train", state="failed", title="A")
    export = make(project, kind="export", state="done", title="B", result={"rows": 5})
    active = make(project, kind="import", state="queued", title="C")
    make(factories.project(), kind="train", state="failed", title="Elsewhere")

    def shown(**filters: str) -> list[int]:
        return [line.id for line in queries.runs(project, **filters).rows]

    assert shown() == [active.pk, export.pk, train.pk]
    assert shown(kind="export") == [export.pk]
    assert shown(state="active") == [active.pk]
    assert shown(kind="train", state="done") == []
    url = reverse("runs", args=[project.slug])
    client = client_of(alice)
    part = client.get(url, {"state": "failed"}, headers=HTMX).content.decode()
    assert "<html" not in part
    assert ">A</th>" in part
    assert ">B</th>" not in part
    assert "No run is like that" in client.get(url, {"state": "canceled"}).content.decode()
    assert client.get(url, {"state": "x", "kind": "'"}).status_code == 200


def test_list_goes_on_after_the_last_row(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGE", 3)
    made = [make(project, title=str(n)).pk for n in range(8)]
    seen, after = [], None
    while True:
        found = queries.runs(project, after=after)
        seen += [line.id for line in found.rows]
        if found.next is None:
            break
        after = found.next
    assert seen == made[::-1]


def test_list_costs_the_same_for_many_runs(project: Project, alice: User) -> None:
    client, url = client_of(alice), reverse("runs", args=[project.slug])

    def cost() -> int:
        with CaptureQueriesContext(connection) as found:
            client.get(url)
        assert_no_whole_log(found)
        return len(found)

    for _ in range(3):
        make(project, created_by=factories.user(), log="x" * 1000)
    cost()
    few = cost()
    for _ in range(12):
        make(project, created_by=factories.user(), log="x" * 1000)
    assert cost() == few


def test_empty_list_offers_the_step_that_fills_it(project: Project, alice: User) -> None:
    url = reverse("runs", args=[project.slug])
    assert reverse("import_new", args=[project.slug]) in client_of(alice).get(url).content.decode()
    bob = factories.member(project, Role.REVIEWER)
    text = client_of(bob).get(url).content.decode()
    assert "No runs yet" in text
    assert reverse("import_new", args=[project.slug]) not in text


@pytest.mark.parametrize(
    ("fields", "outcome", "word"),
    [
        ({"state": "queued"}, "waits for a free worker", "queued"),
        ({"state": "running", "progress": 3, "total": 9, "unit": "rows"}, "3 of 9 rows", "running"),
        ({"state": "failed", "error": "Out of memory at step 2. More text."},
         "out of memory at step 2", "failed"),
        ({"state": "failed", "error": "CUDA broke"}, "CUDA broke", "failed"),
        ({"state": "failed", "error": ""}, "", "failed"),
        ({"state": "done", "kind": "import",
          "result": {"tasks": 1080, "judgments": 3, "bad_rows": [{"line": 1, "reason": "x"}]}},
         "1,080 tasks, 3 judgments", "done, 1 bad row"),
        ({"state": "done", "kind": "import", "result": {"tasks": 0, "skipped_duplicates": 7}},
         "nothing new, 7 there already", "done"),
        ({"state": "done", "kind": "train", "result": {"accuracy": 0.741, "interval": [0.7, 0.78]}},
         "test accuracy 74.1 % [70.0, 78.0]", "done"),
        ({"state": "done", "kind": "train", "result": {"accuracy": None, "interval": None}}, "", "done"),
        ({"state": "done", "kind": "export", "result": {"rows": 1}}, "1 row", "done"),
        ({"state": "done", "kind": "export", "result": {}}, "", "done"),
    ],
)  # fmt: skip
def test_line_says_what_came_out(project: Project, fields: dict, outcome: str, word: str) -> None:
    found = queries.line(make(project, **fields))
    assert (found.outcome, found.word) == (outcome, word)


# The buttons ------------------------------------------------------------------------------------


def test_cancel_stops_a_queued_run_at_once_and_a_running_one_soon(
    project: Project, alice: User
) -> None:
    client = client_of(alice)
    for before, after in (("queued", "canceled"), ("running", "stopping"), ("done", "done")):
        run = make(project, kind="export", state=before)
        response = client.post(reverse("run_cancel", args=[project.slug, run.pk]))
        assert response.status_code == 302
        run.refresh_from_db()
        assert run.state == after


def test_resume_queues_the_same_run(
    project: Project, alice: User, sent: list[int], django_capture_on_commit_callbacks: object
) -> None:
    run = make(project, state="failed", error="x")
    with django_capture_on_commit_callbacks(execute=True):
        client_of(alice).post(reverse("run_resume", args=[project.slug, run.pk]))
    run.refresh_from_db()
    assert (run.state, run.error) == ("queued", "")
    assert sent == [run.pk]


def test_resume_of_a_run_under_way_changes_nothing(
    project: Project, alice: User, sent: list[int], django_capture_on_commit_callbacks: object
) -> None:
    run = make(project, state="running")
    with django_capture_on_commit_callbacks(execute=True):
        response = client_of(alice).post(
            reverse("run_resume", args=[project.slug, run.pk]), follow=True
        )
    assert "Only a run that was paused, canceled or failed" in response.content.decode()
    run.refresh_from_db()
    assert run.state == "running"
    assert sent == []


def test_retry_is_a_new_run_with_the_same_configuration(
    project: Project, alice: User, sent: list[int], django_capture_on_commit_callbacks: object
) -> None:
    run = make(project, state="failed", config={"objective": "bradley-terry", "options": {"a": 1}})
    with django_capture_on_commit_callbacks(execute=True):
        response = client_of(alice).post(reverse("run_retry", args=[project.slug, run.pk]))
    fresh = Run.objects.get(retry_of=run)
    assert response["Location"] == reverse("run", args=[project.slug, fresh.pk])
    assert (fresh.config, fresh.kind, fresh.title) == (run.config, run.kind, run.title)
    assert (fresh.state, fresh.created_by, fresh.attempt) == ("queued", alice, 0)
    assert sent == [fresh.pk]
    assert AuditEvent.objects.filter(verb="train.start", subject=f"run {fresh.pk}").exists()
    text = page(alice, run)
    assert f'retried as <a href="{response["Location"]}">run {fresh.pk}</a>' in text
    assert "Resume</button>" not in text


def test_retry_of_an_upload_reads_the_same_file(
    project: Project, alice: User, sent: list[int]
) -> None:
    config = {"path": "upload", "absolute": False, "filename": "d.csv"}
    run = make(project, kind="import", state="failed", config=config)
    url = reverse("run_retry", args=[project.slug, run.pk])
    assert client_of(alice).post(url).status_code == 410
    assert Run.objects.count() == 1
    run.folder.mkdir(parents=True)
    (run.folder / "upload").write_text("prompt,a,b\n")
    assert client_of(alice).post(url).status_code == 302
    fresh = Run.objects.get(retry_of=run)
    assert imports.path_of(fresh) == str(run.folder / "upload")


def test_retry_waits_for_the_end(project: Project, alice: User, sent: list[int]) -> None:
    run = make(project, state="running")
    response = client_of(alice).post(reverse("run_retry", args=[project.slug, run.pk]))
    assert response.status_code == 409
    assert Run.objects.count() == 1


def test_reviewer_looks_but_does_not_act(project: Project) -> None:
    bob = factories.member(project, Role.REVIEWER)
    run = running(project, state="failed")
    text = page(bob, run)
    for word in ("Cancel</button>", "Resume</button>", "Retry"):
        assert word not in text


# As a command -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("train",
         {"objective": "bradley-terry", "backbone": "hf:a b", "seed": 0, "time_limit": None,
          "options": {"weighting": True, "lr": 0.1}},
         ["train_reward_model", "letters", "--objective", "bradley-terry", "--backbone", "hf:a b",
          "--option", "lr=0.1", "--option", "seed=0", "--option", "weighting=true"]),
        ("import",
         {"path": "a'b; rm -rf.jsonl", "format": "table", "strict": True, "simulated": False,
          "options": {"mapping": {"prompt": ["Question 1"], "label": ["x", "y"]}, "rater": "crowd"}},
         ["import_dataset", "letters", "a'b; rm -rf.jsonl", "--format", "table", "--map",
          "label=x,y", "--map", "prompt=Question 1", "--rater", "crowd", "--strict"]),
        ("import", {"path": "upload", "absolute": False, "filename": "data.csv"},
         ["import_dataset", "letters", "data.csv"]),
        ("export", {"format": "trl-preference", "options": {"ties": "drop", "splits": ["a", "b"]}},
         ["export_dataset", "letters", "--format", "trl-preference", "--option", "splits=a,b",
          "--option", "ties=drop"]),
    ],
)  # fmt: skip
def test_command_can_be_pasted_into_a_shell(
    project: Project, kind: str, config: dict, expected: list[str]
) -> None:
    line = run_commands.command(make(project, kind=kind, config=config))
    assert shlex.split(line) == ["python", "manage.py", *expected]


def test_ledger_puts_first_what_says_most() -> None:
    rows = run_commands.ledger(
        {"seed": 20260915, "batch": 20480, "options": {"lr": 1e-4, "on": False}, "objective": "bt",
         "empty": "", "none": None, "list": [1, 2]}
    )  # fmt: skip
    assert rows == [
        ("Objective", "bt"), ("Lr", "0.0001"), ("On", "no"), ("Batch", "20,480"), ("List", "1, 2"),
        ("Seed", "20260915"),
    ]  # fmt: skip
