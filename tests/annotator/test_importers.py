"""The import library by itself: readers, formats, labels, transcripts. No database."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.errors import AppError, Invalid
from annotator.importers import (
    IMPORTERS,
    checking,
    detection,
    labels,
    opening,
    readers,
    transcripts,
)
from annotator.importers.readers import Culprit
from annotator.importers.sources import open_source
from annotator.importers.types import BadRow, Options, Row
from rubrics.registry import pick
from tests.annotator.imported import jsonl, pair, zipped

Read = list[tuple[int, Row | str]]


def rows_of(path: Path, *, format: str = "", **options: Any) -> Read:
    """Every row of a file, or the code of the reason why it is none."""
    how = Options(**options)
    found: Read = []
    with open_source(path) as source:
        sample = source.sample()
        key = format or detection.detect(sample, mapped=list(how.mapping)).key
        read = pick(IMPORTERS, key)(how, sample)
        for number, raw in source.rows:
            try:
                if isinstance(raw, Culprit):
                    raise raw.bad
                row = read(raw)
                checking.check(row, how)
            except BadRow as bad:
                found.append((number, bad.code))
            else:
                found.append((number, row))
    return found


def one(path: Path, row: dict[str, Any], **options: Any) -> Row | str:
    return rows_of(jsonl(path / "one.jsonl", [row]), **options)[0][1]


# Containers ------------------------------------------------------------------------------------

ROWS = [pair(1, id="a"), pair(2, id="ü"), pair(3, id="c")]


def as_csv(rows: list[dict[str, Any]], *, joint: str = ",") -> bytes:
    import csv

    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), delimiter=joint)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


LINES = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in ROWS)
CONTAINERS: dict[str, bytes] = {
    "JSON Lines": LINES.encode(),
    "JSON Lines without a last newline": LINES.rstrip().encode(),
    "JSON Lines with a mark": b"\xef\xbb\xbf" + LINES.encode(),
    "UTF-16": LINES.encode("utf-16"),
    "UTF-32": LINES.encode("utf-32"),
    "Windows lines": LINES.replace("\n", "\r\n").encode(),
    "JSON": json.dumps(ROWS).encode(),
    "JSON over lines": json.dumps(ROWS, indent=2).encode(),
    "JSON in an object": json.dumps({"version": 1, "data": ROWS, "end": None}).encode(),
    "CSV": as_csv(ROWS),
    "semicolons": as_csv(ROWS, joint=";"),
    "TSV": as_csv(ROWS, joint="\t"),
    "Parquet": as_parquet(ROWS),
}


@pytest.mark.parametrize("is_gzip", [False, True])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_same_rows_come_out_of_every_container(tmp_path: Path, kind: str, is_gzip: bool) -> None:
    path = tmp_path / "file.anything"
    data = CONTAINERS[kind]
    path.write_bytes(gzip.compress(data) if is_gzip else data)
    found = [row for _, row in rows_of(path)]
    assert [row.messages[0]["content"] for row in found] == [row["prompt"] for row in ROWS]
    assert [row.replies[0].text for row in found] == [row["chosen"] for row in ROWS]
    assert [row.external_id for row in found] == ["a", "ü", "c"]


def test_gzip_of_several_members_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "two.gz"
    path.write_bytes(b"".join(gzip.compress(line.encode()) for line in LINES.splitlines(True)))
    assert len(rows_of(path)) == 3


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\n\n  \n", "no rows"),
        (b"[]", "no rows"),
        (b"just words\nand more\n", "No known file type"),
        (b"\x00\x01\x02\x03" * 100, "No known file type"),
        (LINES.encode("utf-16-le"), "not UTF-8"),
        (b"BZh91AY", "bzip2"),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "compressed twice"),
        (b"PAR1 and nothing", "Parquet file cannot be read"),
        (b"prompt,prompt\n1,2\n", "same name"),
        (b"pr\xe9mpt,b\n1,2\n", "not UTF-8"),
        (json.dumps(ROWS).encode()[:-30], "ends in the middle"),
        (b"[" * 100_000, "nested too deeply"),
        (json.dumps(ROWS).encode() + b"more", "follows the end"),
    ],
)
def test_file_that_cannot_be_read_says_why(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(AppError, match=said):
        rows_of(path)


def test_archives_and_sheets_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("rows.zip", "rows.xlsx"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("xl/sheet1.xml", LINES)
        with pytest.raises(Invalid, match="zip archive"):
            rows_of(tmp_path / name)
    with pytest.raises(Invalid, match="folder"):
        rows_of(tmp_path)
    with pytest.raises(Invalid, match="cannot be opened"):
        rows_of(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize("cut", [1, 5, 9, 11, 40, -9, -5, -1])
def test_truncated_gzip_is_refused(tmp_path: Path, cut: int) -> None:
    data = gzip.compress(LINES.encode())
    path = tmp_path / "cut.gz"
    path.write_bytes(data[:cut])
    with pytest.raises(Invalid):
        rows_of(path)


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(opening, "RATIO_FROM", 1 << 20)
    path = zipped(tmp_path / "bomb.gz", b'{"prompt": "' + b"a" * (8 << 20) + b'"}')
    with pytest.raises(Invalid, match="150 times its size"):
        rows_of(path)
    monkeypatch.setattr(opening, "MAX_BYTES", 2 << 20)
    with pytest.raises(Invalid, match="unpacks to more"):
        rows_of(path)


def test_bad_line_costs_only_itself(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(readers, "MAX_LINE", 1 << 20)
    good = json.dumps(pair(1)).encode()
    lines = {
        2: (b'{"prompt": "half', "not-json"),
        3: (b'{"prompt": "\xe9"}', "encoding"),
        4: (b'{"prompt": NaN}', "not-json"),
        5: (b"[1, 2]", "not-an-object"),
        6: (b'{"prompt": "\\ud800"}', "encoding"),
        7: (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested"),
        8: (json.dumps(pair(8, prompt="a\0b")).encode(), "nul"),
        9: (json.dumps(pair(9, chosen="x" * (1 << 20))).encode(), "line-too-long"),
        10: (json.dumps(pair(10, chosen="x" * 300_000)).encode(), "too-long"),
        11: (json.dumps(pair(11, chosen="Bad answer 11.")).encode(), "identical"),
        12: (json.dumps(pair(12, prompt=" \n")).encode(), "empty-prompt"),
        13: (b'{"prompt": "no answers"}', "missing"),
        14: (json.dumps(pair(14, chosen={"a": 1})).encode(), "role"),
        15: (json.dumps(pair(15, id="x" * 201)).encode(), "name-too-long"),
    }
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n".join([good, *(line for line, _ in lines.values()), good, b""]))
    found = dict(rows_of(path))
    assert {number: found[number] for number in lines} == {
        n: code for n, (_, code) in lines.items()
    }
    assert isinstance(found[1], Row)
    assert isinstance(found[16], Row)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"note": "a\0b"}, "nul"),
        ({"a\0b": 1}, "nul"),
        ({"id": "a\0b"}, "nul"),
        ({"rater": "a\0b"}, "nul"),
        ({"tags": ["a\0b"]}, "nul"),
        ({"rationale": "a\0b"}, "nul"),
        ({"model_a": "x"}, None),
        ({"big": 2**70, "float": 1e300}, None),
        ({"timestamp": "99999-01-01"}, "time"),
        ({"timestamp": 1e18}, "time"),
        ({"timestamp": "2026-01-31"}, None),
    ],
)
def test_every_stored_text_is_checked(tmp_path: Path, more: dict[str, Any], code: str) -> None:
    found = one(tmp_path, pair(1, **more))
    assert (found if isinstance(found, str) else None) == code


def test_nested_extra_column_is_a_bad_row(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    assert one(tmp_path, pair(1, extra=deep)) == "nested"


def test_csv_cell_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("prompt,chosen,rejected,note\na,b,c,d\nä,b,c,d\na,b,c,ä\n".encode("latin-1"))
    assert [code if isinstance(code, str) else None for _, code in rows_of(path)] == [
        None,
        "encoding",
        "encoding",
    ]


def test_csv_names_rows_by_the_line_they_begin_on(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,chosen,rejected\n"two\nlines",a,b\nq,a\nr,c,d\n')
    found = rows_of(path)
    assert [number for number, _ in found] == [2, 4, 5]
    assert found[1][1] == "fields"


def test_csv_with_a_missing_column_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,response_a,winner\nq,a,b\n")
    with pytest.raises(Invalid, match="columns"):
        rows_of(path)
    with pytest.raises(Invalid, match="no column “response_b”"):
        rows_of(
            path,
            mapping={
                "prompt": ["question"],
                "response_a": ["response_a"],
                "response_b": ["response_b"],
            },
        )


def test_memory_stays_flat_over_a_long_json_array(tmp_path: Path) -> None:
    import tracemalloc

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.json"
        path.write_text(json.dumps([pair(n) for n in range(count)]))
        tracemalloc.start()
        with open_source(path) as source:
            assert sum(1 for _ in source.rows) == count
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(40_000) < 1.5 * peak(8_000)


def test_memory_stays_flat_over_a_long_parquet_file(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [pair(n, note=f"{n} " * 40) for n in range(2000)]
    path = tmp_path / "long.parquet"
    table = pyarrow.Table.from_pylist(rows)
    with parquet.ParquetWriter(path, table.schema) as writer:
        for _ in range(30):
            writer.write_table(table)
    del table
    pool, most, last = pyarrow.default_memory_pool(), 0, 0
    before = pool.bytes_allocated()
    with open_source(path) as source:
        for number, _ in source.rows:
            last = number
            most = max(most, pool.bytes_allocated() - before)
    assert last == 60_000
    assert most < 0.1 * 30 * sum(len(json.dumps(row)) for row in rows)


# Formats ---------------------------------------------------------------------------------------


def test_responses_of_any_length_are_paired(tmp_path: Path) -> None:
    row = {"prompt": "q", "responses": ["a", {"text": "b", "model": "m"}, {"content": "c", "k": 1}]}
    found = one(tmp_path, row)
    assert isinstance(found, Row)
    assert [reply.text for reply in found.replies] == ["a", "b", "c"]
    assert found.replies[1].generator == "m"
    assert found.replies[2].extra == {"k": 1}
    assert checking.check(found, Options()) == [(0, 1), (0, 2), (1, 2)]
    assert checking.check(found, Options(pairs="ring")) == [(0, 1), (1, 2), (2, 0)]
    assert checking.check(found, Options(pairs="none")) == []


@pytest.mark.parametrize(
    ("responses", "code"),
    [
        ([], "no-responses"),
        (["a"] * 65, "too-many-responses"),
        ("a", "unsupported"),
        ([[]], "empty-answer"),
    ],
)
def test_bad_list_of_responses_is_a_bad_row(tmp_path: Path, responses: Any, code: str) -> None:
    assert one(tmp_path, {"prompt": "q", "responses": responses}) == code


def test_ranks_of_responses_become_votes(tmp_path: Path) -> None:
    found = one(tmp_path, {"prompt": "q", "responses": ["a", "b", "c"], "ranks": [2, 1, 2]})
    assert isinstance(found, Row)
    votes = {(vote.first, vote.second): vote.outcome for vote in found.votes}
    assert votes == {(0, 1): -1, (0, 2): 0, (1, 2): 1}


def test_messages_keep_their_turns(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}]
    row = {
        "chosen": [*chat, {"role": "assistant", "content": "Sure, yes."}],
        "rejected": [*chat, {"role": "assistant", "content": "Sure, no."}],
    }
    found = one(tmp_path, row)
    assert isinstance(found, Row)
    assert found.messages == chat
    # A shared opening stays in the answers: it is not the prompt's.
    assert [reply.text for reply in found.replies] == ["Sure, yes.", "Sure, no."]


def test_turns_that_do_not_alternate_are_a_bad_row(tmp_path: Path) -> None:
    user = {"role": "user", "content": "hi"}
    assert one(tmp_path, pair(1, prompt=[user, user])) == "turns"
    assert one(tmp_path, pair(1, prompt=[user, {"role": "robot", "content": "x"}])) == "role"


# Labels ----------------------------------------------------------------------------------------

A, B, TIE = 1, -1, 0


@pytest.mark.parametrize(
    ("scheme", "raw", "outcome", "strength"),
    [
        # HelpSteer2-Preference: negative means the first is better; 0 a tie.
        ("signed", -3, A, 3),
        ("signed", -1, A, 1),
        ("signed", 0, TIE, 0),
        ("signed", 2, B, 2),
        # Think-RM multiclass: the same sign, no zero.
        ("signed", -2, A, 2),
        ("signed", 3, B, 3),
        # PAL: +1 means the right one.
        ("signed", 1, B, 1),
        # Pick-a-Pic label_0: 1 means the first wins, 0.5 a tie.
        ("share-a", 1, A, 1),
        ("share-a", 0, B, 1),
        ("share-a", 0.5, TIE, 0),
        # AlpacaEval: 1 ... 2, 2 means the second wins; 0 and 1.5 are ties.
        ("one-two", 1.0, A, 1),
        ("one-two", 2.0, B, 1),
        ("one-two", 1.98, B, 1),
        ("one-two", 0, TIE, 0),
        ("one-two", 1.5, TIE, 0),
        ("zero-one", 0, A, 1),
        ("zero-one", "1", B, 1),
        ("words", "model_a", A, 1),
        ("words", " B ", B, 1),
        ("words", "tie", TIE, 0),
        ("words", "B>>A", B, 2),
    ],
)
def test_signs_of_every_convention(scheme: str, raw: Any, outcome: int, strength: int) -> None:
    assert labels.SCHEMES[scheme](raw)[:2] == (outcome, strength)


def test_rank_vector_is_not_an_ordering(tmp_path: Path) -> None:
    # ARR and OpenJudge: [2, 1] gives the places of the candidates, so the second is best.
    found = one(tmp_path, {"prompt": "q", "responses": ["a", "b"], "ranking": [2, 1]})
    assert isinstance(found, Row)
    assert [vote.outcome for vote in found.votes] == [B]


@pytest.mark.parametrize("scheme", labels.SCHEMES)
@given(value=st.one_of(st.floats(), st.text(), st.none(), st.integers(), st.lists(st.integers())))
def test_any_label_is_read_or_refused(scheme: str, value: Any) -> None:
    try:
        outcome, strength, both_bad = labels.SCHEMES[scheme](value)
    except BadRow:
        return
    assert outcome in (A, B, TIE)
    assert (strength == 0) == (outcome == TIE)
    assert strength <= labels.MAX_STRENGTH
    assert not (both_bad and outcome)


def test_zeros_and_ones_are_not_guessed(tmp_path: Path) -> None:
    row = {"prompt": "q", "response_a": "x", "response_b": "y", "winner": 1}
    path = jsonl(tmp_path / "a.jsonl", [row, {**row, "winner": 0}])
    with pytest.raises(Invalid, match="different ways"):
        rows_of(path)
    found = rows_of(path, labels="zero-one")
    assert [row.votes[0].outcome for _, row in found] == [B, A]


# Transcripts -----------------------------------------------------------------------------------

SAID = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(turns=st.lists(SAID, min_size=1, max_size=4), answers=st.tuples(SAID, SAID))
def test_transcript_comes_back_byte_for_byte(
    tmp_path_factory: Any, turns: list[str], answers: tuple[str, str]
) -> None:
    prompt = "".join(f"\n\nHuman: {turn}\n\nAssistant: reply" for turn in turns[:-1])
    prompt += f"\n\nHuman:{turns[-1]}\n\nAssistant:"
    row = {"chosen": f"{prompt} {answers[0]}", "rejected": f"{prompt}{answers[1]}"}
    found = one(tmp_path_factory.mktemp("t"), row, format="hh-rlhf")
    if isinstance(found, str):
        assert found in ("identical", "empty-prompt", "empty-answer", "no-common-prompt")
        return
    for reply, whole in zip(found.replies, row.values(), strict=True):
        begin = transcripts.render_prompt(found.messages, found.extra or {})
        end = transcripts.render_reply(reply.text, reply.messages, reply.extra or {})
        assert begin + end == whole
