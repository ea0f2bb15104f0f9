"""The command: options, delivery, and who does the work: a worker, this process, a second worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from annotator.celery import app
from annotator.exporters.trl import Options
from annotator.jobs import base
from annotator.jobs import exports as jobs
from annotator.management import waiting
from annotator.management.options import describe, parse_options
from annotator.models import DatasetVersion, Project, Run, RunState
from annotator.services import exports, recipes
from tests import factories, serving
from tests.annotator.ballots import judged_pair, raters
from tests.bench.bench_export import fill

pytestmark = pytest.mark.django_db(transaction=True)

STALE_SECONDS = 12


@pytest.fixture
def project() -> Project:
    project = factories.project()
    people = raters(project, 3)
    judged_pair(project, [1, 1, -1], by=people)
    judged_pair(project, [0], by=people)
    return project


def command(*args: str, capsys: Any) -> tuple[dict[str, Any], str]:
    """The JSON of the last line, and what was said on stderr."""
    call_command("export_dataset", *args, "--json")
    out, err = capsys.readouterr()
    return json.loads(out.splitlines()[-1]), err


def test_out_puts_the_files_there_and_says_what_they_hold(
    project: Project, tmp_path: Path, capsys: Any
) -> None:
    said, err = command(project.slug, "--out", str(tmp_path / "out"), "--wait", capsys=capsys)
    assert "No worker answers" in err, "it says that it works in the foreground"
    (file,) = said["files"]
    assert Path(file["path"]) == tmp_path / "out" / "train.jsonl"
    assert (said["rows"], said["version"], said["dropped"]) == (1, 1, {"tie": 1})
    facts = json.loads(Path(said["manifest"]).read_text())
    assert facts["counts"] == {
        "in": 2,
        "used": 1,
        "out": 1,
        "dropped": {"tie": 1},
        "rows": {"train": 1},
    }
    assert len(Path(file["path"]).read_text().splitlines()) == file["rows"] == 1
    assert Path(said["manifest"]).parent == tmp_path / "out"


def test_options_reach_the_build(project: Project, tmp_path: Path, capsys: Any) -> None:
    said, _ = command(
        project.slug,
        *("--option", "container=parquet", "--option", "columns=margin,votes"),
        *("--option", "style=explicit-conversational", "--out", str(tmp_path / "out")),
        capsys=capsys,
    )
    version = DatasetVersion.objects.get()
    assert said["files"][0]["name"] == "train.parquet"
    assert version.recipe["columns"] == ["margin", "votes"]
    assert version.manifest["style"] == "explicit-conversational"


def test_a_recipe_is_a_file_or_a_name_and_options_override_it(
    project: Project, tmp_path: Path, capsys: Any
) -> None:
    recipes.save(
        project=project,
        name="Two",
        format="trl-preference",
        options={"min_votes": 2, "container": "parquet"},
        by=None,
    )
    said, _ = command(project.slug, "--recipe", "Two", "--wait", capsys=capsys)
    assert (said["recipe"], said["files"][0]["name"]) == ("Two:v1", "train.parquet")
    assert said["dropped"] == {"few_votes": 1}
    assert said["health"]["prompts"] == 1
    assert set(said) >= {"checked", "checksum", "pairs", "manifest"}
    said, _ = command(
        *(project.slug, "--recipe", "Two:v1", "--option", "container=jsonl", "--wait"),
        capsys=capsys,
    )
    assert (said["recipe"], said["files"][0]["name"]) == (None, "train.jsonl")
    assert said["dropped"] == {"few_votes": 1}
    file = tmp_path / "recipe.toml"
    file.write_text('format = "judgments"\n[options]\ncontainer = "jsonl"\n')
    said, _ = command(project.slug, "--recipe", str(file), "--wait", capsys=capsys)
    assert (said["recipe"], said["rows"]) == (None, 4)
    said, _ = command(
        project.slug, "--recipe", str(file), "--format", "trl-preference", "--wait", capsys=capsys
    )
    assert said["rows"] == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--recipe", "Nothing"], "no recipe 'Nothing'"),
        (["--recipe", "missing.json"], "No such file"),
        (["--option", "min_votes"], "not NAME=VALUE"),
        (["--option", "min_votes=many"], "min_votes=many"),
        (["--option", "min_votes=0"], "greater than or equal to 1"),
        (["--option", "speed=9"], "no option 'speed'. Known: raters"),
        (["--option", "min_votes=1", "--option", "min-votes=2"], "given twice"),
        (["--option", "style=implicit"], "explicit-standard"),
        (["--option", "raters=named"], "needs names"),
        (["--option", "raters=named", "--option", "rater_names=Nobody"], "Nobody"),
        (["--format", "csv"], "Known: trl-preference"),
        (["--option", "min_votes=9", "--wait"], "No pair gives a row"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    project: Project, args: list[str], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("export_dataset", project.slug, *args)
    assert not DatasetVersion.objects.exists()


def test_an_unknown_project_and_a_file_for_a_folder_are_refused(
    project: Project, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match="no project 'nowhere'"):
        call_command("export_dataset", "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="not a folder"):
        call_command("export_dataset", project.slug, "--out", str(tmp_path / "file"))
    assert not Run.objects.exists()


def test_without_out_or_wait_it_is_only_queued(project: Project, capsys: Any) -> None:
    said, _ = command(project.slug, capsys=capsys)
    assert said == {"run": Run.objects.get().pk, "state": "queued"}


def test_every_option_is_described() -> None:
    text = describe(Options)
    assert "container=jsonl|jsonl.gz|parquet" in text
    assert all(f"  {name}=" in text for name in Options.model_fields)


def test_options_are_read_as_their_fields_say() -> None:
    given = ["min_agreement=0.67", "splits=train, test", "columns=", "raters=people"]
    assert parse_options(given, Options) == {
        "min_agreement": 0.67,
        "splits": ["train", "test"],
        "columns": [],
        "raters": "people",
    }


def test_ctrl_c_cancels_what_is_done_here(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exports, "build", interrupted)
    with pytest.raises(CommandError, match="canceled") as caught:
        call_command("export_dataset", project.slug, "--wait")
    assert caught.value.returncode == 130
    assert Run.objects.get().state == RunState.CANCELED


def test_a_run_that_someone_else_does_is_waited_for(project: Project) -> None:
    """A worker that takes the queue but answers nothing, since it works on another run."""
    busy = exports.start(project=project, format="trl-preference", options={}, by=None)
    Run.objects.filter(pk=busy.pk).update(state=RunState.RUNNING)
    run = exports.start(project=project, format="trl-preference", options={}, by=None)
    assert waiting.worker_answers(run)

    def later() -> None:
        time.sleep(1)
        jobs.export(run_id=run.pk)
        connection.close()

    thread = threading.Thread(target=later)
    thread.start()
    said: list[str] = []
    ended = waiting.see_through(run, work=lambda _: said.append("here"), say=said.append)
    thread.join()
    assert (ended.state, said) == (RunState.DONE, [])


# Real workers -----------------------------------------------------------------------------------


@contextmanager
def worker(log: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    words = ["celery", "-A", "annotator", "worker", "-Q", "default", "--pool=solo"]
    words += ["--without-gossip", "--without-mingle", "-n", f"{name}@%h", "--loglevel=INFO"]
    env = serving.child_env(
        QUEUE_PREFIX=app.conf.broker_transport_options["global_keyprefix"],
        RUN_STALE_SECONDS=str(STALE_SECONDS),
    )
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=serving.ROOT, env=env, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(seen: Callable[[], object], log: Path, *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{list(Run.objects.values())}\n{log.read_text()}")
        time.sleep(0.005)


@pytest.mark.slow
def test_a_worker_that_answers_does_the_work(project: Project, tmp_path: Path, capsys: Any) -> None:
    log = tmp_path / "worker.log"
    run = exports.start(project=project, format="trl-preference", options={}, by=None)
    with worker(log, "one"):
        wait_until(lambda: waiting.worker_answers(run), log)
        said, err = command(project.slug, "--out", str(tmp_path / "out"), capsys=capsys)
    assert err == ""
    done = Run.objects.get(pk=said["run"])
    assert done.worker != base.worker_name()
    assert (tmp_path / "out" / "train.jsonl").exists()


@pytest.mark.slow
def test_a_build_whose_worker_was_killed_is_begun_again_and_offers_nothing_until_then(
    tmp_path: Path,
) -> None:
    log = tmp_path / "worker.log"
    fill(pairs=20_000)
    run = exports.start(
        project=Project.objects.get(slug="bench"),
        format="trl-preference",
        options={"container": "jsonl.gz"},
        by=None,
    )
    base.send(run)

    def half_written() -> bool:
        return any(path.stat().st_size for path in run.folder.glob("build-*.tmp/*"))

    with worker(log, "first") as process:
        wait_until(half_written, log)
        process.kill()
        process.wait()
    run.refresh_from_db()
    assert run.state == RunState.RUNNING, "nobody could say that it was killed"
    assert half_written()
    assert not DatasetVersion.objects.exists()
    with worker(log, "second"):
        wait_until(lambda: Run.objects.get(pk=run.pk).state == RunState.DONE, log)
    version = DatasetVersion.objects.get()
    assert (version.rows, Run.objects.get(pk=run.pk).attempt) == (20_000, 2)
    assert not list(run.folder.glob("build-*.tmp"))
    assert sum(entry["rows"] for entry in version.files) == 20_000
