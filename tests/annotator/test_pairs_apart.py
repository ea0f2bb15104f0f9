"""Pairs read by a process of their own: the same, from the same snapshot, or an end in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from annotator.errors import MethodFailed
from annotator.exporters import EXPORTERS
from annotator.exporters.build import LARGE, build
from annotator.exporters.types import Shape
from annotator.models import Project
from annotator.queries import pairs_apart
from annotator.queries.pair_texts import with_texts
from annotator.queries.pairs import Selection, chunks
from annotator.queries.snapshot import snapshot
from annotator.services.exports import read_options
from tests import factories
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


def test_a_large_build_gives_the_bytes_of_a_small_one(project: Project, tmp_path: Path) -> None:
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


def test_who_stops_reading_leaves_no_process(
    project: Project, readers: list[subprocess.Popen[bytes]]
) -> None:
    with snapshot() as raw:
        apart = pairs_apart.batches(project, Selection(), connection=raw, size=1)
        next(apart)
        assert readers[0].poll() is None
        apart.close()  # type: ignore[attr-defined]
    assert readers[0].poll() is not None


def test_a_killed_reader_ends_in_words(
    project: Project, readers: list[subprocess.Popen[bytes]]
) -> None:
    # What it had sent is still read: so much that some of it was not.
    prompt = factories.prompt(project, "Long")
    long = [factories.response(prompt, letter * 3_000_000) for letter in "ab"]
    vote(task_of(prompt, *long), project.raters.first(), 1)
    with snapshot() as raw:
        apart = pairs_apart.batches(project, Selection(), connection=raw, size=1)
        next(apart)
        readers[0].kill()
        with pytest.raises(MethodFailed, match="was stopped") as told:
            list(apart)
    assert "Resume" in told.value.advice


def test_a_reader_that_cannot_begin_ends_in_words(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with snapshot() as raw, pytest.raises(MethodFailed, match="was stopped"):
        list(pairs_apart.batches(project, Selection(), connection=raw))


def test_what_the_database_says_is_passed_on(project: Project) -> None:
    with snapshot() as raw:
        apart = pairs_apart.batches(project, Selection(), connection=raw)
        raw.execute("ROLLBACK")  # the snapshot is gone before the other process asks for it
        with pytest.raises(MethodFailed, match=r"could not be read: .*snapshot"):
            list(apart)
