"""The training scripts of a bundle: they run on it as it is, and the columns change the loss."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.models import DatasetVersion, Judgment, Task
from annotator.services import deliveries
from models.margins import logistic
from tests import factories
from tests.annotator.planted_pairs import planted, scored_by, votes
from tests.annotator.test_exports import rows_of, version_of
from tests.annotator.test_exports_trl import tiny as tiny  # noqa: PLC0414 - a fixture
from tests.annotator.test_exports_trl import trl

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.neural, trl]

ROWS = 6
SCRIPTS = ("preference_losses", "train_dpo", "train_weighted_dpo")


@pytest.fixture
def bundle() -> DatasetVersion:
    """Six rows of one split with every column; the third lacks a score."""
    rng = np.random.default_rng(1)
    of = planted(ROWS, by=2, splits=("train",))
    votes(of, [(n, 0, 1, rater, 1) for n in range(ROWS) for rater in (0, 1)])
    scores = rng.normal(size=(ROWS, 2)) * 2
    scores[2, 0] = np.nan
    scored_by(of, scores)
    said = Judgment.objects.first()
    for n in range(ROWS):
        task = Task.objects.create(
            project=of.project, prompt=of.prompts[n], kind="rating", judged=1,
            response_ids=of.responses[n].tolist(), content_hash=factories.digest("r", str(n)),
        )  # fmt: skip
        Judgment.objects.create(
            project=of.project, task=task, rater=of.by[0], ranks=[1, 2],
            ratings={"help": [n, 1], "care": [2, n]}, submitted_at=said.submitted_at,
        )  # fmt: skip
    return version_of(
        of.project, reward_model=1, ties="soft", columns=["p_chosen", "prompt_id"],
        variants=["reward01", "madpo-weight", "flip-rate", "ratings"],
    )  # fmt: skip


@pytest.fixture
def scripts(bundle: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The bundle's folder, from which the scripts are imported as python would run them there."""
    folder = deliveries.folder_of(bundle)
    monkeypatch.syspath_prepend(str(folder))
    for name in SCRIPTS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield folder
    for name in SCRIPTS:
        sys.modules.pop(name, None)


def run(name: str, tiny: Any, folder: Path, out: Path, *more: str) -> list[float]:
    """The losses that two steps on all rows log."""
    module = importlib.import_module(name)
    assert Path(module.__file__).parent == folder
    trainer = module.main(
        [
            "--model", tiny[0], "--out", str(out), "--steps", "2", "--batch", str(ROWS), "--cpu",
            "--learning-rate", "1e-2", *more,
        ]
    )  # fmt: skip
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_the_stock_script_trains_two_steps(scripts: Path, tiny: Any, tmp_path: Path) -> None:
    first, second = run("train_dpo", tiny, scripts, tmp_path)
    assert first == pytest.approx(np.log(2), abs=1e-3), "at its own reference"
    assert second < first
    assert (tmp_path / "config.json").exists()


def test_columns_change_the_loss_as_the_formulas_say(
    bundle: DatasetVersion, scripts: Path, tiny: Any, tmp_path: Path, capsys: Any
) -> None:
    """At the reference h is 0, and what is left of a loss is what the columns make of it."""
    rows = rows_of(bundle)["train"]
    scored = [row for row in rows if row["chosen_reward"] is not None]
    assert (len(rows), len(scored)) == (ROWS, ROWS - 1)
    gap = np.array([row["chosen_reward"] - row["rejected_reward"] for row in scored])
    weights = np.array([row["madpo_weight"] for row in scored])
    others = np.array(
        [
            0.3 * (row["chosen_ratings"]["help"] - row["rejected_ratings"]["help"])
            - 0.1 * (row["chosen_ratings"]["care"] - row["rejected_ratings"]["care"])
            for row in rows
        ]
    )
    p = logistic(gap)
    plain = run("train_weighted_dpo", tiny, scripts, tmp_path / "dpo")
    assert plain == pytest.approx(run("train_dpo", tiny, scripts, tmp_path / "stock"), abs=2e-3)
    expected = {
        "madpo": (float(weights.mean() * np.log(2)), []),
        "rpo": (float((p * np.log(2 * p) + (1 - p) * np.log(2 - 2 * p)).mean()), []),
        "modpo": (
            float(np.logaddexp(0, others / 0.5).mean()),
            ["--first", "0.5", "--objective", "help=0.3", "--objective", "care=-0.1"],
        ),
    }
    capsys.readouterr()
    for loss, (value, more) in expected.items():
        found = run("train_weighted_dpo", tiny, scripts, tmp_path / loss, "--loss", loss, *more)
        assert found[0] == pytest.approx(value, abs=2e-3), loss
        assert found[1] != pytest.approx(plain[1], abs=1e-4), loss
        said = capsys.readouterr().out
        assert ("1 of 6 rows lack" in said) == (loss in ("madpo", "rpo"))
    for loss in ("cdpo", "mappo"):
        found = run("train_weighted_dpo", tiny, scripts, tmp_path / loss, "--loss", loss)
        assert found[0] == pytest.approx(np.log(2), abs=1e-3)
        assert np.isfinite(found[1])


def test_rows_without_the_column_end_the_script_with_words(
    bundle: DatasetVersion, scripts: Path, tiny: Any, tmp_path: Path
) -> None:
    module = importlib.import_module("train_weighted_dpo")
    bare = tmp_path / "bare"
    bare.mkdir()
    lines = [
        json.dumps({name: row[name] for name in ("prompt", "chosen", "rejected")})
        for row in rows_of(bundle)["train"]
    ]
    (bare / "train.jsonl").write_text("\n".join(lines) + "\n")
    common = ["--model", tiny[0], "--out", str(tmp_path / "out"), "--data", str(bare), "--cpu"]
    with pytest.raises(SystemExit, match="no row has it"):
        module.main([*common, "--loss", "madpo"])
    with pytest.raises(SystemExit, match="needs --objective"):
        module.main([*common, "--loss", "modpo"])
    assert not (tmp_path / "out").exists()


def test_scores_that_contradict_a_label_are_clipped_and_unbounded_ones_refused(
    scripts: Path,
) -> None:
    module = importlib.import_module("train_weighted_dpo")
    args = module.options().parse_args(["--model", "m"])
    row = {"chosen_reward01": 0.2, "rejected_reward01": 0.7}
    assert module.bounded_margin(row, args) == {"margin": 0.0}
    with pytest.raises(SystemExit, match=r"not in \[0, 1\]"):
        module.bounded_margin({"chosen_reward01": 3.0, "rejected_reward01": 0.1}, args)
    p = module.label_by_reward(row | {"p_chosen": None}, args)["p"]
    assert p == pytest.approx(float(logistic(-5.0)))
    assert module.soft_label({"flip_rate": 0.2}, args) == {"p": 0.8}
