"""CSV that no spreadsheet runs, Parquet in several files, pictures byte for byte, raw tables."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from hypothesis import given
from hypothesis import strategies as st

from annotator.exporters import csv_files, files, parquet_files
from annotator.exporters.files import BadFile, open_file, verify
from annotator.models import CriterionVerdict, Project, Response, RunState
from annotator.services import deliveries, images
from tests import factories
from tests.annotator import pictures
from tests.annotator.ballots import judged_pair, raters, task_of, vote
from tests.annotator.exported import built, chat, paths_of, rows_by_split, rows_of, run_of
from tests.annotator.rewarding import approved, scored, world
from tests.annotator.test_exports_judgments import ANSWERS, SETTINGS, answer

DB = pytest.mark.django_db(transaction=True)
RUN = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\n=1", "＝1", "'quoted", "''"]


# CSV ------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_cell_is_never_a_formula_and_always_comes_back(text: str) -> None:
    cell = csv_files.escaped(text)
    assert csv_files.unescaped(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_cells_a_spreadsheet_would_run_stand_behind_an_apostrophe(tmp_path: Path) -> None:
    columns = {"prompt": "text", "margin": "float", "votes": "int"}
    rows = [{"prompt": text, "margin": -0.5, "votes": 3} for text in [*RUN, "plain - text", ""]]
    file = open_file(tmp_path, "train", columns, container="csv")
    file.write(rows[:4])
    file.write(rows[4:])
    (facts,) = file.close()
    with (tmp_path / "train.csv").open(newline="", encoding="utf-8") as read:
        cells = [row["prompt"] for row in csv.DictReader(read)]
    assert cells == [*(f"'{text}" for text in RUN), "plain - text", ""]
    first = verify(tmp_path, facts, columns, check=lambda: None)
    assert [row["prompt"] for row in first] == RUN[:5]
    assert first[0]["margin"] == "-0.5", "numbers are numbers"
    assert facts.rows == len(rows)


def test_a_torn_csv_does_not_pass(tmp_path: Path) -> None:
    columns = {"prompt": "text", "votes": "int"}
    file = open_file(tmp_path, "train", columns, container="csv")
    file.write([{"prompt": "a", "votes": 1}])
    (facts,) = file.close()
    path = tmp_path / "train.csv"
    path.write_bytes(path.read_bytes() + b"torn\r\n")
    torn = files.FileFacts(
        facts.name, 2, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    )
    with pytest.raises(BadFile, match="1 cells, not 2"):
        verify(tmp_path, torn, columns, check=lambda: None)


def test_lists_are_no_cells(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prompt"):
        open_file(tmp_path, "train", {"prompt": "messages"}, container="csv")


# Shards ---------------------------------------------------------------------------------------


def test_parquet_goes_on_in_another_file_from_a_size_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "ROW_GROUP", 2)
    monkeypatch.setattr(parquet_files, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(parquet_files, "MB", 1)
    columns = {"prompt": "text", "turns": "messages"}
    rows = [{"prompt": f"{n}", "turns": chat(f"{n}")} for n in range(5)]
    file = open_file(tmp_path, "train", columns, container="parquet", shard_mb=1)
    file.write(rows)
    written = file.close()
    names = [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    assert [facts.name for facts in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [facts.rows for facts in written] == [2, 2, 1]
    again = [row for facts in written for row in verify(tmp_path, facts, columns, check=int)]
    assert again == rows


@DB
def test_a_version_of_several_files_is_whole_and_loads_by_its_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parquet_files, "ROW_GROUP", 2)
    monkeypatch.setattr(parquet_files, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(parquet_files, "MB", 1)
    project = factories.project()
    people = raters(project, 1)
    for n in range(5):
        judged_pair(project, [1], by=people, texts=(f"good {n}", f"bad {n}"))
    judged_pair(project, [1], by=people, of=factories.prompt(project, split="test"))
    version = built(project, "trl-preference", container="parquet", shard_mb=1)
    assert {split: len(paths) for split, paths in paths_of(version).items()} == {
        "train": 3,
        "test": 1,
    }
    assert {split: len(rows) for split, rows in rows_by_split(version).items()} == {
        "train": 5,
        "test": 1,
    }
    sums = (deliveries.folder_of(version) / "SHA256SUMS").read_text().splitlines()
    assert len(sums) == 4
    paths = deliveries.deliver(version, tmp_path / "out")
    assert [path.name for path in paths] == [entry["name"] for entry in version.files]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "train-00002-of-00003.parquet" in card.split("---")[1], "the header names every file"
    assert '"train": ["train-00000-of-00003.parquet"' in card
    assert (
        version.checksum
        == built(project, "trl-preference", container="parquet", shard_mb=1).checksum
    )


# Pictures -------------------------------------------------------------------------------------


def pictured(project: Project, split: str, *colors: str) -> list[Response]:
    """A prompt with an answer for each color."""
    prompt = factories.prompt(project, f"A field of {colors[0]} 🪨", split=split)
    found = []
    for number, color in enumerate(colors):
        data = pictures.picture(color=color, kind="JPEG", exif=b"Exif\0\0secret place")
        image = images.ingest(project=project, data=data)
        response = factories.response(prompt, generator=f"g{number}")
        Response.objects.filter(pk=response.pk).update(text="", image=image)
        found.append(Response.objects.get(pk=response.pk))
    return found


def stored(response: Response) -> bytes:
    assert response.image is not None
    with default_storage.open(response.image.file.name) as file:
        data: bytes = file.read()
    return data


@DB
def test_pictures_go_out_as_the_bytes_that_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "PICTURES_AT_ONCE", 1)
    monkeypatch.setattr(parquet_files, "GROUP_BYTES", 1)
    project = factories.project(modality="image")
    (rater,) = raters(project, 1)
    red, blue, green = pictured(project, "train", "red", "blue", "green")
    vote(task_of(red.prompt, red, blue), rater, 1)
    vote(task_of(red.prompt, red, green), rater, -1)
    vote(task_of(red.prompt, blue, green), rater, 0)
    one, other = pictured(project, "test", "black", "white")
    vote(task_of(one.prompt, one, other), rater, 1)
    version = built(project, "pick-a-pic", ties="soft")
    rows = rows_by_split(version)
    assert [(row["label_0"], row["label_1"]) for row in rows["train"]] == [
        (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)
    ]  # fmt: skip
    pairs = [(red, blue), (red, green), (blue, green)]
    for row, sides in zip(rows["train"], pairs, strict=True):
        assert list(row)[:10] == [
            "jpg_0", "jpg_1", "label_0", "label_1", "caption", "are_different", "has_label",
            "image_0_uid", "image_1_uid", "num_example_per_prompt",
        ]  # fmt: skip
        for name, response in zip(("jpg_0", "jpg_1"), sides, strict=True):
            assert row[name] == stored(response)
            assert b"secret place" not in row[name]
            assert pictures.decoded(row[name]).size == (40, 30)
        assert (row["caption"], row["num_example_per_prompt"]) == ("A field of red 🪨", 3)
        assert row["are_different"] is row["has_label"] is True
    uids = [(row["image_0_uid"], row["image_1_uid"]) for row in rows["train"]]
    assert uids[0][0] == uids[1][0] != uids[0][1] == uids[2][0]
    assert len(rows["test"]) == 1
    dropped = built(project, "pick-a-pic").manifest["counts"]["dropped"]
    assert dropped == {"tie": 1}


@DB
def test_a_lost_picture_ends_the_build_in_words() -> None:
    project = factories.project(modality="image")
    (rater,) = raters(project, 1)
    red, blue = pictured(project, "train", "red", "blue")
    vote(task_of(red.prompt, red, blue), rater, 1)
    assert red.image is not None
    default_storage.delete(red.image.file.name)
    run = run_of(project, "pick-a-pic")
    assert run.state == RunState.FAILED
    assert "is not where pictures are kept" in run.error


# Raw tables -----------------------------------------------------------------------------------


def untyped(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in rows]


@DB
@pytest.mark.parametrize("kind", ["rating", "checklist"])
def test_ratings_are_one_row_per_judgment_response_and_attribute(kind: str) -> None:
    project = factories.project(settings=SETTINGS)
    task = factories.task_of(project, kind, texts=["one", "two", "three", "=four"])
    given = answer(project, task, ANSWERS[kind])
    version = built(project, "ratings", texts=True)
    rows = rows_of(version)
    assert given.ratings is not None
    assert {(row["attribute"], row["response_id"]): row["value"] for row in rows} == {
        (name, pk): value
        for name, values in given.ratings.items()
        for pk, value in zip(task.response_ids, values, strict=True)
    }
    assert len(rows) == 8
    assert {row["response"] for row in rows} == {"one", "two", "three", "=four"}
    assert {row["rater"] for row in rows} == {given.rater.name}
    counts = version.manifest["counts"]
    assert (counts["in"], counts["used"], counts["out"]) == (1, 1, 8)
    assert rows_of(built(project, "ratings", texts=True, container="parquet")) == rows
    assert rows_of(built(project, "ratings", texts=True, container="csv")) == untyped(rows)
    hidden = rows_of(built(project, "ratings", names="pseudonyms"))
    assert {row["rater"] for row in hidden} == {""}
    assert "response" not in hidden[0]


@DB
def test_pairs_without_ratings_give_no_row_of_ratings() -> None:
    project = factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    run = run_of(project, "ratings")
    assert (run.state, run.error) == (RunState.FAILED, "There are no judgments yet.")


@DB
def test_rubric_rows_say_who_found_what() -> None:
    project = world(2, test=1)
    version = approved(project)
    scored(version)
    person = factories.rater(project)
    criterion = version.criteria.get()
    judged = Response.objects.filter(project=project).first()
    assert judged is not None
    CriterionVerdict.objects.create(criterion=criterion, response=judged, rater=person, value=None)
    done = built(project, "rubric-rows", version=str(version).replace(" v", ":v"))
    rows = rows_of(done)
    assert len(rows) == CriterionVerdict.objects.filter(criterion=criterion).count() == 5
    assert {row["criterion"] for row in rows} == {criterion.text}
    by_program = [row for row in rows if row["verified_by"] == "program"]
    for row in by_program:
        assert row["verdict"] == ("one\n- two" in row["answer"]), row["answer"]
        assert (row["rater"], row["rater_id"]) == ("", "")
    (own,) = [row for row in rows if row["verified_by"] == "person"]
    assert (own["response_id"], own["verdict"], own["rater"]) == (judged.pk, None, person.name)
    assert own["prompt"] == judged.prompt.messages
    assert done.manifest["health"]["judgments_by_kind"] == {"program": 4, "person": 1}
    assert "verdicts in" in (deliveries.folder_of(done) / "README.md").read_text()
    flat = rows_of(built(project, "rubric-rows", container="csv"))
    last = [row | {"prompt": row["prompt"][-1]["content"]} for row in rows]
    assert flat == untyped(last)
    named = rows_of(built(project, "rubric-rows", raters="people"))
    assert [row["verified_by"] for row in named] == ["person"]
