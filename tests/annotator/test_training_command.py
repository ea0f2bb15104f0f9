"""``train_reward_model``: the contract of its last line, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotator.models import Project, RewardModel, Run, RunState
from tests.annotator import planted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return planted.preferences(120, raters=2, flips=0.1)


def command(*args: str) -> tuple[list[str], str]:
    """The lines on stdout, and stderr."""
    out, errors = io.StringIO(), io.StringIO()
    call_command("train_reward_model", *args, stdout=out, stderr=errors)
    return out.getvalue().splitlines(), errors.getvalue()


@pytest.mark.neural
def test_wait_trains_here_when_no_worker_answers(project: Project) -> None:
    lines, said = command(
        project.slug, "--option", "epochs=5", "--option", "seed=3", "--wait", "--json"
    )
    assert "working in this process" in said
    result: dict[str, Any] = json.loads(lines[-1])
    assert set(result) == {
        "run", "reward_model", "accuracy", "interval", "test_pairs", "baselines", "artifact"
    }  # fmt: skip
    model = RewardModel.objects.get()
    assert (result["run"], result["reward_model"]) == (model.run_id, model.number)
    low, high = result["interval"]
    assert low <= result["accuracy"] <= high
    assert result["test_pairs"] > 0
    assert set(result["baselines"]) == {"longer_wins", "human_ceiling"}
    assert (Path(result["artifact"]) / "model.safetensors").is_file()
    assert (model.options["epochs"], model.metrics["seed"]) == (5, 3)


@pytest.mark.neural
def test_words_give_every_number_an_interval(project: Project) -> None:
    lines, _ = command(project.slug, "--option", "epochs=2", "--wait")
    assert "test pairs" in lines[0]
    assert lines[0].count("[") == 1
    assert lines[1].startswith("  longer wins: ")
    assert lines[2].startswith("  people with people: ")


def test_without_wait_the_run_is_queued(project: Project) -> None:
    lines, _ = command(project.slug, "--json")
    run = Run.objects.get()
    assert json.loads(lines[-1]) == {"run": run.pk, "state": "queued"}
    assert run.state == RunState.QUEUED
    lines, _ = command(project.slug)
    assert lines == [f"Run {Run.objects.latest('pk').pk} is queued."]


@pytest.mark.neural
def test_failed_training_ends_with_its_reason(project: Project, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CommandError, match=r"cannot be loaded.* Check the id or path"):
        command(project.slug, "--backbone", f"hf:{tmp_path}", "--wait", "--json")
    assert Run.objects.get().state == RunState.FAILED


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--objective", "magic"], "magic"),
        (["--backbone", "magic"], "magic"),
        (["--backbone", "hf"], "needs a model"),
        (["--backbone", "hf:/no/such/folder"], "no folder"),
        (["--option", "epochs"], "NAME=VALUE"),
        (["--option", "epochs=0"], "greater than or equal to 1"),
        (["--option", "objective=x"], "no option"),
        (["--option", "magic=1"], "Known: weighting, ties, smoothing, center, word_ngrams"),
        (["--option", "max_length=64"], "no option"),
        (["--option", "epochs=1", "--option", "epochs=2"], "twice"),
    ],
)
def test_wrong_arguments_are_refused(project: Project, args: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        command(project.slug, *args)
    assert not Run.objects.exists()


def test_unknown_project_and_too_few_pairs_are_refused() -> None:
    with pytest.raises(CommandError, match="no project 'nowhere'"):
        command("nowhere")
    with pytest.raises(CommandError, match=r"4 preferences to train on.* Judge or import more"):
        command(planted.preferences(4).slug)
