"""Imports into real tables: real sets, hostile files, kills, cancels, two at once."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.errors import AppError, Invalid
from annotator.importers import opening, readers, transcripts
from annotator.jobs import base
from annotator.models import (
    ImportIssue,
    Judgment,
    Preference,
    Project,
    Prompt,
    Rater,
    Response,
    RunState,
    Task,
)
from annotator.services import import_reading, import_rows, imports, runs
from tests import factories
from tests.annotator.imported import counts, jsonl, last_run, pair, read, zipped
from tests.serving import ROOT, child_env

pytestmark = pytest.mark.django_db(transaction=True)

NOTHING = {"Prompt": 0, "Response": 0, "Task": 0, "Judgment": 0, "Preference": 0, "Rater": 0}
HOSTILE = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def project() -> Project:
    return factories.project(settings={"overlap": 3})


# Real sets -------------------------------------------------------------------------------------


def test_hh_transcripts_come_back_byte_for_byte(project: Project, data_dir: Path) -> None:
    path = data_dir / "hh_rlhf" / "harmless-base-test.jsonl.gz"
    result = read(project, path)
    assert result["format"] == "hh-rlhf"
    assert result["lines"] == 2312
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    stored = {side: _transcripts(project, side) for side in ("chosen", "rejected")}
    good = [row for row in rows if row["chosen"] != row["rejected"]]
    assert result["bad_rows_total"] == len(rows) - len(good) == len(result["bad_rows"])
    for side, found in stored.items():
        assert {row[side] for row in good} == found
    again = read(project, path)
    assert [again[name] for name in ("prompts", "responses", "tasks", "judgments")] == [0] * 4
    assert again["rows_known"] == len(good)


def _transcripts(project: Project, side: str) -> set[str]:
    """What a transcript of every preferred (or other) response is, from the tables alone."""
    found = set()
    edges = Preference.objects.filter(project=project).select_related("task__prompt")
    texts = Response.objects.in_bulk()
    for edge in edges:
        wins = edge.a_id if edge.outcome == 1 else edge.b_id
        loses = edge.b_id if edge.outcome == 1 else edge.a_id
        reply = texts[wins if side == "chosen" else loses]
        prompt = edge.task.prompt
        found.add(
            transcripts.render_prompt(prompt.messages, prompt.extra)
            + transcripts.render_reply(reply.text, reply.messages, reply.extra)
        )
    return found


def test_pandalm_brings_three_raters_with_their_ties(project: Project, data_dir: Path) -> None:
    path = data_dir / "pandalm" / "testset-v1.json"
    result = read(project, path)
    assert (result["tasks"], result["judgments"]) == (999, 2997)
    assert result["raters"] == {f"annotator{number}": 999 for number in (1, 2, 3)}
    rows = json.loads(path.read_text())
    ties = sum(row[f"annotator{number}"] == 0 for row in rows for number in (1, 2, 3))
    assert Preference.objects.filter(project=project, outcome=0).count() == ties > 0
    assert Judgment.objects.filter(project=project, ranks=[1, 1], strength=0).count() == ties
    for row in rows[::97]:
        task, first = _task_of(project, row)
        for judgment in task.judgments.select_related("rater"):
            said = row[judgment.rater.name]
            expected = [1, 1] if said == 0 else [1, 2] if (said == 1) == first else [2, 1]
            assert judgment.ranks == expected
    assert read(project, path)["skipped_duplicates"] == 2997
    assert Rater.objects.get(project=project, name="annotator1").judged == 999


def _task_of(project: Project, row: dict[str, Any]) -> tuple[Task, bool]:
    """The task of a PandaLM row, and whether its first response is the task's first."""
    more = f"\n\n{row['input']}" if row["input"].strip() else ""
    messages = [{"role": "user", "content": row["instruction"] + more}]
    for task in Task.objects.filter(project=project, prompt__messages=messages):
        texts = Response.objects.in_bulk(task.response_ids)
        listed = [texts[pk].text for pk in task.response_ids]
        if listed in (sides := [row["response1"], row["response2"]], sides[::-1]):
            return task, listed == sides
    raise AssertionError(f"row {row['idx']} is not there")


def test_every_llmbar_file_is_read(project: Project, data_dir: Path) -> None:
    paths = sorted((data_dir / "llmbar").glob("*.json"))
    assert len(paths) == 13
    for path in paths:
        rows = json.loads(path.read_text())
        result = read(project, path, options={"rater": path.stem})
        assert result["lines"] == len(rows)
        assert result["judgments"] + result["skipped_duplicates"] + result["bad_rows_total"] == len(
            rows
        ), path.name
        assert result["bad_rows_total"] <= 0.05 * len(rows), result["bad_rows"]
    before = counts(project)
    for path in paths:
        assert read(project, path, options={"rater": path.stem})["judgments"] == 0
    assert counts(project) == before


# What a row becomes ----------------------------------------------------------------------------


def test_sides_exchanged_in_other_rows_end_in_one_order(project: Project, tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "response_a": "x", "response_b": "y", "winner": "a", "rater": "Ann"},
        {"prompt": "q", "response_a": "y", "response_b": "x", "winner": "a", "rater": "Bo"},
        {"prompt": "q", "response_a": "y", "response_b": "x", "winner": "b", "rater": "Cy"},
        {"prompt": "q", "response_a": "y", "response_b": "x", "winner": "tie", "rater": "Di"},
    ]
    for chunk in (rows[:2], rows[2:]):
        read(project, jsonl(tmp_path / "rows.jsonl", chunk))
    task = Task.objects.get(project=project)
    texts = [Response.objects.get(pk=pk).text for pk in task.response_ids]
    assert texts == ["x", "y"]
    edges = {edge.rater.name: edge for edge in Preference.objects.select_related("rater")}
    assert {name: edge.outcome for name, edge in edges.items()} == {
        "Ann": 1, "Bo": -1, "Cy": 1, "Di": 0
    }  # fmt: skip
    assert {(edge.a_id, edge.b_id) for edge in edges.values()} == {tuple(task.response_ids)}
    ranks = {one.rater.name: one.ranks for one in Judgment.objects.select_related("rater")}
    assert ranks == {"Ann": [1, 2], "Bo": [2, 1], "Cy": [1, 2], "Di": [1, 1]}


def test_second_vote_of_a_rater_on_a_pair_is_skipped(project: Project, tmp_path: Path) -> None:
    rows = [pair(1), {**pair(1), "chosen": "Bad answer 1.", "rejected": "Good answer 1."}]
    result = read(project, jsonl(tmp_path / "a.jsonl", rows))
    assert (result["judgments"], result["skipped_duplicates"]) == (1, 1)
    edge = Preference.objects.get(project=project)
    assert Response.objects.get(pk=edge.a_id).text == "Good answer 1."
    assert edge.outcome == 1


def test_lists_of_responses_become_a_task_per_pair(project: Project, tmp_path: Path) -> None:
    rows = [
        {"prompt": "three", "responses": ["a", "b", "c"]},
        {"prompt": "six", "responses": list("abcdef")},
        {"prompt": "ranked", "responses": ["a", "b", "c"], "ranks": [1, 3, 1]},
    ]
    result = read(project, jsonl(tmp_path / "a.jsonl", rows))
    assert (result["responses"], result["tasks"], result["judgments"]) == (12, 3 + 6 + 3, 3)
    assert Task.objects.filter(project=project, overlap=3, free=3, judged=0).count() == 12


def test_split_depends_on_nothing_but_the_prompt(tmp_path: Path) -> None:
    rows = [pair(number) for number in range(200)]
    splits = []
    for shuffled in (False, True):
        project = factories.project()
        random.Random(1).shuffle(rows) if shuffled else None
        more = {"chosen": "other"} if shuffled else {}
        read(project, jsonl(tmp_path / "a.jsonl", [{**row, **more} for row in rows]))
        found = Prompt.objects.filter(project=project)
        splits.append({prompt.last_message: prompt.split for prompt in found})
    assert splits[0] == splits[1]
    assert set(splits[0].values()) == {"train", "validation", "test"}


def test_rows_far_apart_meet_in_one_prompt(
    project: Project, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(import_reading, "CHUNK", 7)
    rows = [{"prompt": f"q{n % 3}", "chosen": f"a{n % 6}", "rejected": "b"} for n in range(60)]
    read(project, jsonl(tmp_path / "a.jsonl", rows))
    assert counts(project) == {
        "Prompt": 3, "Response": 9, "Task": 6, "Judgment": 6, "Preference": 6, "Rater": 1
    }  # fmt: skip


def test_id_of_another_prompt_is_a_bad_row(
    project: Project, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(import_reading, "CHUNK", 3)
    rows = [pair(1, id="x"), pair(2, id="y"), pair(3, id="x"), pair(4), pair(5, id="y"), pair(6)]
    rows += [pair(1, id="x", chosen="A third."), pair(7, id="z"), pair(8, id="z")]
    path = jsonl(tmp_path / "a.jsonl", rows)
    result = read(project, path)
    assert [bad["line"] for bad in result["bad_rows"]] == [3, 5, 9]
    assert result["reasons"] == {"duplicate-id": 3}
    assert (result["prompts"], result["tasks"]) == (5, 6)
    assert read(project, path)["bad_rows"] == result["bad_rows"]


# Files that are refused, rows that are -----------------------------------------------------------

LINES = "".join(f"{json.dumps(pair(n))}\n" for n in range(5)).encode()


def bad_files() -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "latin-1 header", b"pr\xf6mpt,chosen,rejected\na,b,c\n"
    yield "all latin-1", b'{"prompt": "\xe9", "chosen": "a", "rejected": "b"}\n'
    yield "UTF-16 cut in the middle", LINES.decode().encode("utf-16")[:-1]
    yield "missing column", b"question,answer_a\nq,a\n"
    yield "NUL", b"\0" * 100
    yield "zip", b"PK\x03\x04rest"
    yield "0 responses", b'{"prompt": "q", "responses": []}\n'
    yield "deep", b'{"prompt": ' + b"[" * 3000
    yield "foreign column names", b'{"a\\u0000": 1, "\\u2603": 2}\n'
    for cut in (3, 10, 30, -8, -1):
        yield f"gzip cut at {cut}", gzip.compress(LINES, mtime=0)[:cut]


@pytest.mark.parametrize(("name", "data"), list(bad_files()))
def test_refused_file_changes_nothing_and_says_why(
    project: Project, tmp_path: Path, name: str, data: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(AppError) as caught:
        read(project, path)
    assert len(caught.value.message) > 10
    assert counts(project) == NOTHING
    run = last_run(project)
    assert (run.state, run.error) == (RunState.FAILED, caught.value.message)


def test_utf16_and_one_megabyte_lines_are_read(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LINES.decode().encode("utf-16"))
    assert read(project, path)["tasks"] == 5
    long = "word " * 200_000
    found = read(
        project,
        jsonl(path, [pair(9, chosen=long)]),
        options={"max_characters": 2_000_000},
    )
    assert found["tasks"] == 1
    assert Response.objects.filter(text=long).exists()


def test_good_rows_are_kept_and_bad_ones_listed(project: Project, tmp_path: Path) -> None:
    rows = [
        pair(1),
        {"prompt": "a\0b", "chosen": "x", "rejected": "y"},
        pair(3),
        pair(4, chosen=[]),
    ]
    path = jsonl(tmp_path / "a.jsonl", rows)
    path.write_bytes(path.read_bytes() + b'{"prompt": "\xff\xfe"}\n')
    result = read(project, path)
    assert (result["tasks"], result["bad_rows_total"]) == (2, 3)
    assert [bad["line"] for bad in result["bad_rows"]] == [2, 4, 5]
    issues = ImportIssue.objects.order_by("line")
    assert [issue.code for issue in issues] == ["nul", "empty-answer", "encoding"]
    assert "a␀b" in issues[0].excerpt or "u0000" in issues[0].excerpt


def test_strict_refuses_the_whole_file(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [pair(n) for n in range(3000)] + [{"prompt": 1}])
    with pytest.raises(Invalid, match="1 of 3,001 rows are bad") as caught:
        read(project, path, strict=True)
    assert "line 3001" in caught.value.advice
    assert counts(project) == NOTHING
    assert read(project, path)["tasks"] == 3000


def test_bomb_is_refused_with_nothing_left(
    project: Project, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(opening, "RATIO_FROM", 1 << 20)
    rows = b"".join(json.dumps(pair(n)).encode() + b"\n" for n in range(2000))
    path = zipped(tmp_path / "bomb.gz", rows + b" " * (64 << 20) + b"\n" + LINES)
    with pytest.raises(Invalid, match="times its size"):
        read(project, path)
    assert counts(project) == NOTHING


def test_line_over_the_limit_is_one_bad_row(
    project: Project, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(readers, "MAX_LINE", 10_000)
    path = jsonl(tmp_path / "a.jsonl", [pair(1), pair(2, chosen="x" * 50_000), pair(3)])
    result = read(project, path)
    assert result["tasks"] == 2
    assert result["bad_rows"] == [{"line": 2, "reason": "The line is too long"}]


def test_damage_in_the_middle_of_parquet_leaves_nothing(project: Project, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [pair(n, note=random.Random(n).randbytes(40).hex()) for n in range(5000)]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1000)
    whole = path.read_bytes()
    for at in range(len(whole) // 3, len(whole), len(whole) // 5):
        path.write_bytes(
            whole[:at] + bytes(byte ^ 255 for byte in whole[at : at + 64]) + whole[at + 64 :]
        )
        other = factories.project()
        try:
            read(other, path)
        except AppError:
            assert counts(other) == NOTHING


# Anything at all -------------------------------------------------------------------------------


def survives(project: Project, path: Path, **how: Any) -> None:
    """A result or an AppError; after an error, the tables as they were."""
    before = counts(project)
    try:
        result = read(project, path, **how)
    except AppError:
        assert counts(project) == before
    else:
        added = counts(project)
        assert added["Task"] - before["Task"] == result["tasks"]
        assert added["Judgment"] - before["Judgment"] == result["judgments"]
        assert added["Preference"] == added["Judgment"]


@HOSTILE
@given(data=st.binary(max_size=400))
def test_random_bytes_are_refused_or_read(project: Project, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    survives(project, path)


NAMES = st.sampled_from(
    ["prompt", "chosen", "rejected", "responses", "messages", "response_a", "response_b",
     "winner", "label", "rater", "strength", "rationale", "timestamp", "id", "tags", "system",
     "input", "ranks", "model_a", "model_b", "instruction", "response1", "response2",
     "annotator1", "cmp_key", "role", "content", "text", "sampling", "generator"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=8),
    st.sampled_from(
        ["user", "assistant", "a", "tie", "\0", "\ud800", "\\", "\t", "\n", "\\N", "\r"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@HOSTILE
@given(rows=st.lists(st.dictionaries(NAMES | st.text(max_size=4), VALUES, max_size=8), max_size=6))
def test_random_json_rows_are_refused_or_read(
    project: Project, tmp_path: Path, rows: list[Any]
) -> None:
    survives(project, jsonl(tmp_path / "file", rows))


@HOSTILE
@given(
    format=st.sampled_from(["trl-preference", "responses", "table", "hh-rlhf"]),
    prompt=VALUES,
    one=VALUES,
    other=VALUES,
    more=st.dictionaries(NAMES, VALUES, max_size=4),
)
def test_random_cells_of_every_format_are_refused_or_read(
    project: Project, tmp_path: Path, format: str, prompt: Any, one: Any, other: Any, more: Any
) -> None:
    columns = {
        "responses": {"responses": [one, other]},
        "table": {"response_a": one, "response_b": other},
    }.get(format, {"chosen": one, "rejected": other})
    rows = [pair(1), {**more, "prompt": prompt, **columns}]
    survives(project, jsonl(tmp_path / "file", rows), format=format)


def _whole_file(kind: str) -> bytes:
    rows = [pair(n, rater="Ann", id=str(n), note={"k": [n]}) for n in range(4)]
    if kind == "json":
        return json.dumps(rows, indent=1).encode()
    if kind == "csv":
        head = ",".join(rows[0])
        cells = (",".join(f'"{value}"' for value in row.values()) for row in rows)
        return "\n".join([head, *cells]).encode()
    lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    return gzip.compress(lines, mtime=0) if kind == "gzip" else lines


FILES = {kind: _whole_file(kind) for kind in ("jsonl", "json", "csv", "gzip")}


@HOSTILE
@given(
    kind=st.sampled_from(sorted(FILES)),
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=6)), max_size=4
    ),
)
def test_mutated_files_are_refused_or_read(
    project: Project, tmp_path: Path, kind: str, changes: list[tuple[float, int, bytes]]
) -> None:
    data = FILES[kind]
    for place, cut, new in changes:
        at = int(place * len(data))
        data = data[:at] + new + data[at + cut :]
    path = tmp_path / "file"
    path.write_bytes(data)
    survives(project, path)


# At once, killed, canceled -----------------------------------------------------------------------


def test_two_imports_at_once_add_each_row_once(project: Project, tmp_path: Path) -> None:
    rows = [pair(n, rater=f"rater {n % 3}") for n in range(2500)]
    paths = [
        jsonl(tmp_path / "forward.jsonl", rows),
        jsonl(tmp_path / "backward.jsonl", rows[::-1]),
    ]
    results: list[Any] = []

    def work(path: Path) -> None:
        try:
            results.append(read(project, path))
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(result["tasks"] for result in results) == [0, 2500]
    assert counts(project) == {
        "Prompt": 2500, "Response": 5000, "Task": 2500, "Judgment": 2500, "Preference": 2500,
        "Rater": 3,
    }  # fmt: skip
    positions = Task.objects.filter(project=project).values_list("position", flat=True)
    assert len(set(positions)) == 2500


def test_killed_command_leaves_nothing(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "slow.jsonl"
    os.mkfifo(path)
    command = [sys.executable, "manage.py", "import_dataset", project.slug, str(path)]
    child = subprocess.Popen(command, cwd=ROOT, env=child_env(), stderr=subprocess.PIPE)
    with path.open("wb", buffering=0) as pipe:
        number = 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and _rows_in_flight() < 2000:
            pipe.write(b"".join(json.dumps(pair(number + n)).encode() + b"\n" for n in range(1000)))
            number += 1000
        assert child.poll() is None, child.stderr.read()
        assert _rows_in_flight() >= 2000, "rows were on their way into the tables"
        child.send_signal(signal.SIGKILL)
        child.wait()
    child.stderr.close()
    assert counts(project) == NOTHING
    path.unlink()
    assert read(project, jsonl(path, [pair(1)]))["tasks"] == 1


def _rows_in_flight() -> int:
    """Ids that were drawn for prompts: sequences do not wait for a commit."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value - 1 FROM annotator_prompt_id_seq")
        last = cursor.fetchone()[0]
    return (
        last - (Prompt.objects.order_by("-pk").values_list("pk", flat=True).first() or 0) - _START
    )


_START = 0


@pytest.fixture(autouse=True)
def _start_of_ids() -> None:
    global _START
    _START = 0
    _START = _rows_in_flight()


def test_cancel_in_the_middle_leaves_nothing(
    project: Project, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(import_reading, "CHUNK", 100)
    path = jsonl(tmp_path / "a.jsonl", [pair(n) for n in range(1000)])
    run = imports.start(project=project, name="a", config={"path": str(path)}, by=None)
    add = import_rows.Loader.add
    added = []

    def add_and_cancel(loader: Any, rows: Any) -> None:
        add(loader, rows)
        added.append(len(rows))
        if len(added) == 3:
            run.refresh_from_db()
            runs.cancel(run=run, by=None)

    monkeypatch.setattr(import_rows.Loader, "add", add_and_cancel)
    base.perform(run.pk, imports.perform)
    run.refresh_from_db()
    assert run.state == RunState.CANCELED
    assert sum(added) == 300
    assert counts(project) == NOTHING
    runs.resume(run=run, by=None)
    base.perform(run.pk, imports.perform)
    run.refresh_from_db()
    assert (run.state, run.result["tasks"]) == (RunState.DONE, 1000)


def test_worker_lost_after_the_commit_is_not_done_twice(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [pair(1)])
    run = imports.start(project=project, name="a", config={"path": str(path)}, by=None)
    pen = runs.begin(run_id=run.pk, worker="first")
    first = imports.perform(pen)  # and the worker dies before it says so
    type(run).objects.filter(pk=run.pk).update(heartbeat_at=None)
    assert base.perform(run.pk, imports.perform)
    run.refresh_from_db()
    assert (run.state, run.result["tasks"]) == (RunState.DONE, first["tasks"])


# The command -----------------------------------------------------------------------------------


def test_command_prints_its_contract(project: Project, tmp_path: Path, capsys: Any) -> None:
    path = jsonl(tmp_path / "a.jsonl", [pair(1), {"prompt": 1}])
    call_command("import_dataset", project.slug, str(path), "--rater", "Ann", "--json")
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    contract = {"prompts": 1, "responses": 2, "tasks": 1, "judgments": 1, "skipped_duplicates": 0}
    assert {name: said[name] for name in contract} == contract
    assert [bad["line"] for bad in said["bad_rows"]] == [2]
    assert Rater.objects.get(project=project).name == "Ann"


def test_command_says_what_is_wrong(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"x": 1}])
    with pytest.raises(CommandError, match="No known format"):
        call_command("import_dataset", project.slug, str(path))
    with pytest.raises(CommandError, match="no project"):
        call_command("import_dataset", "nothing", str(path))
    with pytest.raises(CommandError, match="there is no field"):
        call_command("import_dataset", project.slug, str(path), "--map", "answer=x")
