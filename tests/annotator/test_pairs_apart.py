"""Pairs read by a process of their own: the same, from the same snapshot, or an end in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from annotator.errors import MethodFailed
from annotator.exporters import EXPORTERS
from annotator.exporters.build import LARGE, build
from annotator.exporters.types import Shape
from annotator.models import Project
from annotator.queries import pairs_apart
from annotator.queries.pair_texts import Batch, with_texts
from annotator.queries.pairs import Selection, chunks
from annotator.queries.snapshot import snapshot
from annotator.services.exports import read_options
from tests import factories, serving
from tests.annotator.ballots import judged_pair, raters, task_of, vote

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    """Prompts of one to three pairs; one holds the same texts twice, the other way round."""
    project = factories.project()
    people = raters(project, 3)
    for number in range(20):
        prompt = factories.prompt(project, f"Question “{number}” 🙂")
        answers = [factories.response(prompt, f"{number}.{n}\n") for n in range(3)]
        for a, b in [(0, 1), (1, 2), (2, 0)][: 1 + number % 3]:
            vote(task_of(prompt, answers[a], answers[b]), people[number % 3], (-1) ** number)
    prompt = factories.prompt(project, "Twice")
    for generator, outcome, texts in (("one", 1, ("yes", "no")), ("two", 1, ("no", "yes"))):
        pair = [factories.response(prompt, text, generator=generator) for text in texts]
        vote(task_of(prompt, *pair), people[0], outcome)
    return project


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started."""
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    return started


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("pool_repeats", [False, True])
def test_what_is_read_apart_is_what_is_read_here(
    project: Project, size: int, pool_repeats: bool
) -> None:
    with snapshot() as raw:
        here = with_texts(
            chunks(project, Selection(), connection=raw, size=size),
            connection=raw,
            pool_repeats=pool_repeats,
        )
        here_lists = [list(batch) for batch in here]
        apart = pairs_apart.batches(
            project, Selection(), connection=raw, pool_repeats=pool_repeats, size=size
        )
        assert [list(batch) for batch in apart] == here_lists
    assert sum(map(len, here_lists)) > 40
    assert any(one.is_repeat for some in here_lists for one in some)


def test_a_vote_after_the_snapshot_is_not_read(project: Project) -> None:
    with snapshot() as raw:
        before = sum(map(len, chunks(project, Selection(), connection=raw)))
        judged_pair(project, [1], by=[project.raters.first()])
        apart = pairs_apart.batches(project, Selection(), connection=raw)
        assert sum(map(len, apart)) == before
    assert sum(map(len, chunks(project, Selection()))) == before + 1


def test_a_large_build_gives_the_bytes_of_a_small_one(
    project: Project, readers: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    judged_pair(project, [0], by=[project.raters.first()])
    options = read_options("trl-preference", {"ties": "both"})
    sums = []
    for pairs in (0, LARGE):
        with snapshot() as raw:
            built = build(
                project,
                EXPORTERS["trl-preference"].load(),
                options,
                tmp_path / str(pairs),
                shape=Shape(),
                connection=raw,
                on_pairs=lambda _: None,
                pairs=pairs,
            )
        sums.append([facts.sha256 for files in built.files.values() for facts in files])
    assert sums[0] == sums[1]
    assert sums[0]
    assert len(readers) == 1, "of the large one"


def test_a_canceled_build_ends_its_reader(
    project: Project, readers: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    add_long_pair(project)

    class Canceled(Exception):
        pass

    def cancel(_: int) -> None:
        raise Canceled

    with snapshot() as raw, pytest.raises(Canceled):
        build(
            project,
            EXPORTERS["trl-preference"].load(),
            read_options("trl-preference", {}),
            tmp_path,
            shape=Shape(),
            connection=raw,
            on_pairs=cancel,
            pairs=LARGE,
        )
    assert [reader.returncode is None for reader in readers] == [False]


def add_long_pair(project: Project) -> None:
    """Six times what the pipe holds: who sends it cannot have ended before it was read."""
    prompt = factories.prompt(project, "Long")
    long = [factories.response(prompt, letter * 3_000_000) for letter in "ab"]
    vote(task_of(prompt, *long), project.raters.first(), 1)


@pytest.fixture
def begun(
    project: Project, readers: list[subprocess.Popen[bytes]]
) -> Iterator[tuple[Iterator[Batch], subprocess.Popen[bytes]]]:
    """A reading of which one list was taken, and its process, which has more to send."""
    add_long_pair(project)
    with snapshot() as raw:
        apart = pairs_apart.batches(project, Selection(), connection=raw, size=1)
        next(apart)
        yield apart, readers[0]


def test_who_stops_reading_leaves_no_process(begun: Any) -> None:
    apart, reader = begun
    assert reader.poll() is None
    apart.close()
    assert reader.poll() is not None


def test_a_killed_reader_ends_in_words(begun: Any) -> None:
    apart, reader = begun
    reader.kill()
    with pytest.raises(MethodFailed, match="ended with -9") as told:
        list(apart)
    assert "Resume" in told.value.advice


def test_a_signal_to_all_workers_does_not_reach_the_reader(begun: Any) -> None:
    apart, reader = begun
    assert os.getpgid(reader.pid) != os.getpgrp()
    assert sum(map(len, apart)) > 0


KILLED = """
import os, signal
os.environ["DJANGO_SETTINGS_MODULE"] = "annotator.settings"
import django
django.setup()
from annotator.models import Project
from annotator.queries import pairs_apart
from annotator.queries.pairs import Selection
from annotator.queries.snapshot import snapshot
started = pairs_apart.subprocess.Popen
def noted(*args, **kwargs):
    reader = started(*args, **kwargs)
    print(reader.pid, flush=True)
    return reader
pairs_apart.subprocess.Popen = noted
with snapshot() as raw:
    next(pairs_apart.batches(Project.objects.get(), Selection(), connection=raw, size=1))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_reader_ends_with_its_worker(project: Project) -> None:
    add_long_pair(project)
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        cwd=serving.ROOT,
        env=serving.child_env(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    reader = Path("/proc") / done.stdout.strip()
    for _ in range(600):
        if not reader.exists():
            break
        time.sleep(0.1)
    assert not reader.exists()


def test_the_same_server_is_asked_whatever_the_environment_says(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with snapshot() as raw:
        monkeypatch.setenv("PGPORT", "1")
        monkeypatch.setenv("PGHOST", "nowhere.invalid")
        monkeypatch.setenv("PGSSLMODE", "verify-full")
        assert sum(map(len, pairs_apart.batches(project, Selection(), connection=raw))) > 0


def test_nothing_is_said_for_long_and_the_snapshot_stays(project: Project) -> None:
    with snapshot() as raw:
        raw.execute("SET LOCAL idle_in_transaction_session_timeout = 2000")
        apart = pairs_apart.batches(project, Selection(), connection=raw)
        time.sleep(2.5)
        assert sum(map(len, apart)) > 0
        assert raw.execute("SELECT 1").fetchone() == (1,)


def test_a_reader_that_cannot_begin_ends_in_words(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with snapshot() as raw, pytest.raises(MethodFailed, match="ended with 1"):
        list(pairs_apart.batches(project, Selection(), connection=raw))


def test_what_the_database_says_is_passed_on(project: Project) -> None:
    with snapshot() as raw:
        apart = pairs_apart.batches(project, Selection(), connection=raw)
        raw.execute("ROLLBACK")  # the snapshot is gone before the other process asks for it
        with pytest.raises(MethodFailed, match=r"could not be read: .*snapshot"):
            list(apart)
