"""Every format comes back through ``datasets`` as it was written, and by the lines on its card."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from annotator.exporters import EXPORTERS
from annotator.models import DatasetVersion, Project
from annotator.services import deliveries
from tests import factories
from tests.annotator.ballots import judged_pair, raters
from tests.annotator.exported import built, chat, paths_of, read
from tests.annotator.rewarding import approved, give_scores, make_model, scored
from tests.annotator.test_exports_containers import pictured
from tests.annotator.test_exports_judgments import ANSWERS, answer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when datasets is imported

TEXTS = [
    "naïve – “quotes” 🪨 عربي \u202e",
    "```python\ndef f(x):\n\treturn x  # {'a': [1]}\n```",
    'a "json" {"looking": [1]} \\n \\u0000, text',
    "line\u2028separator\u2029 and \x85 and \x1f\x7f",
    "tabs\tand\r\nreturns\rhere",
    "=HYPERLINK(1)",
    "'quoted'",
    "NA",
]
PLAIN = ("trl-preference", "trl-unpaired", "trl-prompt-only", "openrlhf", "trl-reward")


def world(*, is_flat: bool = False) -> tuple[Project, set[str]]:
    """Pairs of odd texts with rewards on some answers; the better ones, none of them empty."""
    project = factories.project()
    (rater,) = raters(project, 1)
    turns = [] if is_flat else [chat("one", "two\n", "three?")]
    system = [] if is_flat else [[{"role": "system", "content": ""}, *chat("empty system?")]]
    odd = [factories.prompt(project, messages=messages) for messages in (*turns, *system)]
    tasks = [
        judged_pair(
            project,
            [1],
            by=[rater],
            texts=(text, f"{text} "),
            of=odd.pop() if odd else factories.prompt(project, f"{text}?"),
        )
        for text in TEXTS
    ]
    judged_pair(
        project, [1], by=[rater], texts=("held", ""), of=factories.prompt(project, split="test")
    )
    give_scores(make_model(project), {pk: float(pk) for pk in tasks[0].response_ids})
    return project, {*TEXTS, "held"}


def loaded(version: DatasetVersion, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows by split as ``datasets`` gives them, from the files alone."""
    from datasets import load_dataset

    paths = paths_of(version)
    kind = {".parquet": "parquet", ".csv": "csv"}.get(paths["train"][0].suffix, "json")
    files = {split: [str(path) for path in some] for split, some in paths.items()}
    more = {"keep_default_na": False} if kind == "csv" else {}
    rows = load_dataset(kind, data_files=files, cache_dir=str(folder), **more)
    return {split: some.to_list() for split, some in rows.items()}


def strings(value: Any) -> list[str]:
    """All texts in a row."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return (
        [text for part in parts for text in strings(part)] if isinstance(value, dict | list) else []
    )


def rounded(value: Any) -> Any:
    """Numbers to twelve places: ``datasets`` reads some JSON by way of pandas, which loses the last."""
    if isinstance(value, float):
        return round(value, 12)
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value


def written(version: DatasetVersion) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [row for path in paths for row in read(path)]
        for split, paths in paths_of(version).items()
    }


CASES = [
    *((key, container) for key in EXPORTERS for container in ("jsonl", "jsonl.gz", "parquet")),
    *((key, "csv") for key in ("trl-preference", "trl-unpaired", "openrlhf")),
]
OFFERED = [
    (key, container)
    for key, container in CASES
    if getattr(EXPORTERS[key].load(), "reads", "") == "text"
    and container in str(EXPORTERS[key].load_options().model_fields["container"].annotation)  # type: ignore[union-attr]
    and (container != "jsonl.gz" or key in ("trl-preference", "ranked-lists"))
]


@pytest.mark.parametrize(("format", "container"), OFFERED)
def test_rows_come_back_through_datasets(format: str, container: str, tmp_path: Path) -> None:
    project, better = world(is_flat=container == "csv")
    ties = {} if format == "openai-preference" else {"ties": "soft"}
    scores = {} if format in ("nemo", "trl-unpaired") or container == "csv" else {"reward_model": 1}
    version = built(project, format, container=container, **ties, **scores)
    rows, kept = loaded(version, tmp_path / "cache"), written(version)
    assert set(rows) == set(kept) == {"train", "test"}
    if container == "csv":
        rows = {split: [_plain(row) for row in some] for split, some in rows.items()}
    assert rounded(rows) == rounded(kept)
    found = {text for some in rows.values() for row in some for text in strings(row)}
    if format == "trl-prompt-only":
        better = {f"{text}?" for text in TEXTS[2:]}
    for text in better:
        assert any(
            one == text or one.endswith(f": {text}") or one == f" {text}" for one in found
        ), text


def _plain(row: dict[str, Any]) -> dict[str, str]:
    """A row of CSV as its texts were, as the lines on the card make it."""
    return {
        name: cell.removeprefix("'") if isinstance(cell, str) else str(cell)
        for name, cell in row.items()
    }


# The lines on the card -------------------------------------------------------------------------


def snippet(version: DatasetVersion, folder: Path) -> tuple[str, Path]:
    """The card's Python, and the bundle as somebody has it who downloaded it."""
    target = folder / "bundle"
    deliveries.deliver(version, target)
    found = re.search(r"```python\n(.*?)```", (target / "README.md").read_text(), re.DOTALL)
    assert found
    compile(found[1], "README.md", "exec")
    return found[1], target


def run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the card says: run this
    return names


@pytest.mark.parametrize("container", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize("format", ["trl-preference", "trl-unpaired", "trl-prompt-only"])
def test_lines_that_load_texts_give_them_as_they_were(
    format: str, container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, better = world(is_flat=True)
    version = built(project, format, container=container)
    code, folder = snippet(version, tmp_path)
    loading = re.sub(r"^from trl .*\n", "", code.split("trainer = ")[0], flags=re.MULTILINE)
    rows = run(loading, folder, monkeypatch)["rows"]
    column = {"trl-unpaired": "completion", "trl-prompt-only": "prompt"}.get(format, "chosen")
    given = set(rows["train"][column]) | set(rows["test"][column])
    wanted = {f"{text}?" for text in TEXTS} if column == "prompt" else better
    assert wanted <= given


def test_lines_of_lists_give_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, _ = world()
    code, folder = snippet(built(project, "ranked-lists", reward_model=1), tmp_path)
    names = run(code, folder, monkeypatch)
    (row,) = names["rows"]["train"]
    targets = names["targets"](row["rewards"], alpha=0.5)
    assert targets.sum() == pytest.approx(1)
    assert (targets[0] > targets[1]) == (row["rewards"][0] > row["rewards"][1])


@pytest.mark.parametrize("format", ["llama-factory", "openrlhf", "nemo"])
def test_commands_name_files_that_are_there(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, _ = world()
    code, folder = snippet(built(project, format), tmp_path)
    told: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda args, check: told.append(args))
    run(code, folder, monkeypatch)
    (args,) = told
    if format == "llama-factory":
        info = orjson.loads((folder / "dataset_info.json").read_bytes())
        (name,) = args[args.index("--dataset") + 1].split(",")
        files = [info[name]["file_name"]]
    else:
        files = re.findall(r"\b(?:train|test|validation)\.jsonl", " ".join(args))
    assert files
    assert all((folder / file).is_file() for file in files)


def test_openai_lines_hand_over_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openai

    project, _ = world()
    judged_pair(
        project,
        [1],
        by=raters(project, 1, "more"),
        of=factories.prompt(project, split="validation"),
    )
    code, folder = snippet(built(project, "openai-preference"), tmp_path)
    sent: list[bytes] = []

    class Files:
        def create(self, *, file: Any, purpose: str) -> Any:
            assert purpose == "fine-tune"
            with file:
                sent.append(file.read())
            return type("File", (), {"id": f"file-{len(sent)}"})

    class Jobs:
        def create(self, **job: Any) -> None:
            assert (job["training_file"], job["validation_file"]) == ("file-1", "file-2")
            assert job["method"]["type"] == "dpo"

    class Client:
        files = Files()
        fine_tuning = type("Tuning", (), {"jobs": Jobs()})

    monkeypatch.setattr(openai, "OpenAI", Client)
    run(code, folder, monkeypatch)
    assert sent[0] == (folder / "train.jsonl").read_bytes()


def test_lines_of_pictures_open_the_better_one_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.annotator.ballots import task_of, vote

    project = factories.project(modality="image")
    (rater,) = raters(project, 1)
    red, blue, green = pictured(project, "train", "red", "blue", "green")
    vote(task_of(red.prompt, red, blue), rater, 0)
    vote(task_of(red.prompt, red, green), rater, -1)
    code, folder = snippet(built(project, "pick-a-pic", ties="soft"), tmp_path)
    names = run(code, folder, monkeypatch)
    assert names["decided"].num_rows == 1
    assert names["better"].convert("RGB").getpixel((5, 5))[1] > 100, "green won"


@pytest.mark.parametrize("format", ["judgments", "ratings", "rubric-rows"])
def test_lines_of_raw_formats_load_them(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = factories.project(settings={"attributes": ["zeal", "a"], "overlap": 1})
    task = factories.task_of(project, "rating", texts=TEXTS[:4])
    answer(project, task, ANSWERS["rating"])
    scored(approved(project))
    version = built(project, format)
    code, folder = snippet(version, tmp_path)
    rows = run(code, folder, monkeypatch)["rows"]
    assert sum(some.num_rows for some in rows.values()) == version.rows > 0
