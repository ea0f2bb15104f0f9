"""Before a dataset is offered it is loaded, rendered and preprocessed as its readers would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from django.conf import LazySettings

from annotator.exporters import EXPORTERS
from annotator.jobs import exports as jobs
from annotator.models import DatasetVersion, Project, Run, RunState
from annotator.services import deliveries, export_checks, exports, runs
from models import gateway
from tests import factories
from tests.annotator.ballots import judged_pair, raters
from tests.annotator.test_exports import HOSTILE, chat, leftovers

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.neural]


@pytest.fixture(autouse=True)
def _checked(settings: LazySettings) -> None:
    settings.DATASET_CHECKS = True


def build(project: Project, key: str = "trl-preference", **options: Any) -> Run:
    run = exports.start(project=project, format=key, options=options, by=None)
    jobs.export(run_id=run.pk)
    run.refresh_from_db()
    return run


def version_of(project: Project, key: str = "trl-preference", **options: Any) -> DatasetVersion:
    run = build(project, key, **options)
    assert (run.state, run.error, run.advice) == (RunState.DONE, "", ""), run.log
    return run.dataset_version


def talked(*, turns: bool = True) -> Project:
    """Hostile texts, code, several turns and a system message without words."""
    project = factories.project()
    people = raters(project, 2)
    for number, text in enumerate([*HOSTILE, "```py\nprint('x')\n```", " leading", "<|end|>"]):
        messages = [
            {"role": "system", "content": ""},
            *chat(f"{number} hello", "hi", f"and {text}?"),
        ]
        prompt = (
            factories.prompt(project, messages=messages, split=("train", "test")[number % 2])
            if turns
            else factories.prompt(project, f"{number} {text}?")
        )
        judged_pair(project, [1, 1], by=people, texts=(text, f"no: {text}"), of=prompt)
    return project


def keys_of(version: DatasetVersion) -> dict[str, Any]:
    return {one["key"]: one["ok"] for one in version.manifest["checked"]}


@pytest.mark.parametrize(
    ("key", "container"),
    [
        (key, container)
        for key in sorted(set(EXPORTERS) - {"pick-a-pic", "ratings", "rubric-rows"})
        for container in ("jsonl", "parquet")
        if container in get_args(EXPORTERS[key].load_options().model_fields["container"].annotation)
    ],
)
def test_every_format_holds_what_it_promises(key: str, container: str) -> None:
    version = version_of(talked(), key, container=container)
    found = keys_of(version)
    assert set(found.values()) == {True}
    assert {"load", "rows"} <= set(found)
    assert ("trainer" in found) == key.startswith("trl-")
    for one in version.manifest["checked"]:
        assert one["rows"] == one["of"] == version.rows
        assert one["with"]
    text = deliveries.path_of(version, "README.md").read_text()
    assert "every file loads with datasets" in text


@pytest.mark.parametrize("key", ["trl-preference", "trl-reward", "trl-unpaired", "trl-prompt-only"])
def test_plain_texts_pass_the_trainers_too(key: str) -> None:
    version = version_of(talked(turns=False), key, container="jsonl.gz", style="explicit-standard")
    assert keys_of(version)["trainer"]


def damaged(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    key: str = "trl-preference",
    **options: Any,
) -> Run:
    """A build whose rows are changed on the disk between writing and checking."""
    check = export_checks.check

    def changed(folder: Path, *args: Any, **kwargs: Any) -> Any:
        path = folder / "train.jsonl"
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        change(rows)
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        return check(folder, *args, **kwargs)

    monkeypatch.setattr(export_checks, "check", changed)
    return build(project, key, **options)


def same(rows: list[dict[str, Any]]) -> None:
    rows[2]["rejected"] = rows[2]["chosen"]


def nothing(rows: list[dict[str, Any]]) -> None:
    rows[1]["chosen"] = []


def nobody(rows: list[dict[str, Any]]) -> None:
    rows[1]["prompt"][0] = {"role": None, "content": "x"}


def mixed(rows: list[dict[str, Any]]) -> None:
    rows[3]["prompt"] = "a text among conversations"


def fewer(rows: list[dict[str, Any]]) -> None:
    del rows[-1]


def other(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["surprise"] = 1


def turned(rows: list[dict[str, Any]]) -> None:
    rows[0]["chosen"] = [{"role": "user", "content": "I am no answer"}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (same, "train.jsonl, line 3: chosen and rejected are equal"),
        (nothing, "train.jsonl, line 2: chosen has no message"),
        (nobody, "train.jsonl, line 2: prompt has a message without role"),
        (mixed, "train.jsonl, line 4: prompt is str, which is no messages"),
        (fewer, "4 rows load, 5 were written"),
        (other, "train.jsonl, line 1: the columns are"),
        (turned, "train.jsonl, line 1: the template writes the prompt otherwise when chosen"),
    ],
    ids=lambda value: getattr(value, "__name__", "said"),
)
def test_a_row_that_breaks_the_promise_is_named_and_nothing_is_published(
    change: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = damaged(talked(), monkeypatch, change)
    assert run.state == RunState.FAILED
    assert said in run.error
    assert "Nothing was published" in run.advice
    assert leftovers(run) == []
    assert not DatasetVersion.objects.exists()


def test_rows_that_a_trainer_stumbles_over_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(rows: list[dict[str, Any]]) -> None:
        # Two texts that differ, and of which the trainer makes the same tokens.
        rows[4]["chosen"], rows[4]["rejected"] = "same", "same<|end|>"

    project = talked(turns=False)
    run = damaged(project, monkeypatch, ends, style="explicit-standard")
    assert "train.jsonl, line 5: DPOTrainer makes the same tokens of both answers" in run.error


def test_a_column_that_is_empty_in_one_split_alone_loads() -> None:
    project = factories.project()
    for split, kind in (("train", "imported"), ("test", "human")):
        people = raters(project, 1, kind)
        prompt = factories.prompt(project, split=split)
        judged_pair(project, [1], by=people, of=prompt, texts=("", "1"))
    for container in ("jsonl", "csv"):
        version = version_of(project, "openrlhf", container=container, style="explicit-standard")
        assert keys_of(version)["load"]


def test_what_is_not_installed_is_not_checked_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    project = talked()
    monkeypatch.setattr(export_checks, "_is_installed", lambda package: False)
    (one,) = version_of(project).manifest["checked"]
    assert (one["ok"], one["rows"]) == (None, 0)
    assert one["note"] == "not checked: datasets is not installed"


def test_a_server_can_do_without(settings: LazySettings) -> None:
    settings.DATASET_CHECKS = False
    version = version_of(talked())
    (one,) = version.manifest["checked"]
    assert "switched off" in one["note"]
    assert "switched off" in deliveries.path_of(version, "README.md").read_text()


def test_a_tokenizer_of_the_operator_is_tried_beside(
    settings: LazySettings, tmp_path: Path
) -> None:
    settings.DATASET_CHECK_TOKENIZER = str(tmp_path / "none")
    lines = [one for one in version_of(talked()).manifest["checked"] if one["key"] == "template"]
    assert [one["ok"] for one in lines] == [None, True]
    assert lines[0]["note"].startswith("not checked: ")


def test_a_checker_that_dies_fails_the_build_and_the_next_one_has_another() -> None:
    project = talked()
    version_of(project)
    child = gateway._checker().child
    assert child is not None

    def killed() -> None:
        os.kill(child.pid, 9)

    run = exports.start(project=project, format="trl-preference", options={}, by=None)
    work = runs.begin(run_id=run.pk, worker="test")
    assert work is not None
    killed()
    child.wait()
    assert exports.perform(work)["rows"] == version_of(project).rows
