"""A reward model from a project's preferences: checked, queued, trained, recorded once."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from annotator.errors import Invalid
from annotator.jobs.training import train
from annotator.models import AuditEvent, Preference, Project, RewardModel, Run, RunPoint, RunState
from annotator.services import training
from models.gateway import load_reward_model
from models.training import read_metrics
from tests.annotator import planted

pytestmark = pytest.mark.django_db(transaction=True)


def start(project: Project, **fields: Any) -> Run:
    values = {"objective": "bradley-terry", "backbone": "hashing", "options": {}, "by": None}
    return training.start(project=project, **(values | fields))


def trained(project: Project, **fields: Any) -> Run:
    """A run trained in this process, as its worker would."""
    run = start(project, **fields)
    train(run_id=run.pk)
    run.refresh_from_db()
    return run


@pytest.mark.neural
def test_training_learns_the_planted_rule_and_records_everything() -> None:
    project = planted.preferences(300, raters=3, flips=0.15)
    run = trained(project)
    assert (run.state, run.error) == (RunState.DONE, "")
    check_model(run)
    check_baselines(run.result)
    check_record(run)


def check_model(run: Run) -> None:
    model, result = RewardModel.objects.get(run=run), run.result
    assert (model.number, model.objective, model.backbone) == (1, "bradley-terry", "hashing")
    assert model.options["epochs"] == 10, "every option is stored, defaults as well"
    assert (result["reward_model"], result["test_pairs"]) == (1, 30)
    assert result["accuracy"] > 0.8
    low, high = result["interval"]
    assert 0 < low < result["accuracy"] <= high <= 1
    assert result["artifact"] == str(training.artifact_folder(model))
    scores = load_reward_model(training.artifact_folder(model)).score(
        [([{"role": "user", "content": "?"}], text) for text in ("clear exact", "vague rude")]
    )
    assert scores[0] > scores[1]


def check_baselines(result: dict[str, Any]) -> None:
    longer, people = result["baselines"]["longer_wins"], result["baselines"]["human_ceiling"]
    assert longer["n"] == 30, "the very test pairs the model is measured on"
    # Of three votes two agree. A unanimous pair gives three votes that agree with the others; any
    # other pair gives one that does not, since the two of the majority face a split.
    agreeing = round(people["accuracy"] * people["n"])
    assert agreeing % 3 == 0
    assert people["n"] - agreeing == 30 - agreeing // 3
    assert people["groups"] == 30
    assert people["imported"] is True
    assert people["simulated"] is False
    low, high = people["interval"]
    assert 0 < low < people["accuracy"] < high < 1


def check_record(run: Run) -> None:
    assert [(stage["key"], stage["state"]) for stage in run.stages] == [
        (key, "done") for key, _ in training.STAGES
    ]
    assert run.progress == run.total == 80  # 240 pairs, batches of 32, 10 epochs
    points = RunPoint.objects.filter(run=run)
    last = points.filter(kind="step").order_by("step").last()
    assert last.step == 80
    assert {"loss", "margin", "grad_norm", "lr", "pairs_per_second"} <= set(last.values)
    evaluated = points.filter(kind="evaluate").last().values
    assert evaluated["split"] == "validation"
    low, high = evaluated["interval"]
    assert low <= evaluated["accuracy"] <= high
    assert "collected train: 240 preferences" in run.log
    assert "checkpoint step-80" in run.log


@pytest.mark.neural
def test_ceiling_without_overlap_is_absent_with_a_reason() -> None:
    people = trained(planted.preferences(120)).result["baselines"]["human_ceiling"]
    assert people["accuracy"] is None
    assert people["n"] == 0
    assert "two people" in people["reason"]


@pytest.mark.neural
def test_second_delivery_and_second_model() -> None:
    project = planted.preferences(120)
    run = trained(project)
    train(run_id=run.pk)
    assert RewardModel.objects.count() == 1
    trained(project, options={"seed": 1})
    assert list(RewardModel.objects.values_list("number", flat=True)) == [2, 1]
    assert AuditEvent.objects.filter(verb="reward_model.create").count() == 2


@pytest.mark.neural
def test_killed_between_artifact_and_row_makes_one_model() -> None:
    """The files are whole, the worker died before the row: the next attempt only writes it."""
    project = planted.preferences(120)
    run = trained(project)
    model = RewardModel.objects.get()
    made = (run.folder / "artifact" / "model.safetensors").stat().st_mtime_ns
    accuracy = model.metrics["accuracy"]
    model.delete()
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED, result={})
    train(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE
    assert RewardModel.objects.get().metrics["accuracy"] == accuracy
    assert (run.folder / "artifact" / "model.safetensors").stat().st_mtime_ns == made
    # Killed after the row, before the run was closed.
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED, result={})
    train(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.result["reward_model"]) == (
        RunState.DONE,
        RewardModel.objects.get().number,
    )


@pytest.mark.neural
def test_resumed_run_keeps_the_data_it_began_with() -> None:
    project = planted.preferences(120)
    run = trained(project)
    first = read_metrics(run.folder)["data_sha256"]
    Preference.objects.filter(project=project).update(outcome=1)
    Run.objects.filter(pk=run.pk).update(state=RunState.CANCELED)
    RewardModel.objects.all().delete()
    (run.folder / "metrics.json").unlink()
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
    train(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE
    assert read_metrics(run.folder)["data_sha256"] == first
    assert "are used again" in run.log


def test_half_written_data_is_collected_again(tmp_path: Any) -> None:
    """Without its marker nothing of an earlier collection counts."""
    from annotator.services import runs
    from annotator.services.training_data import collect

    project = planted.preferences(60)
    run = start(project)
    run.folder.mkdir(parents=True)
    (run.folder / "pairs-train.jsonl").write_text('{"half": ')
    work = runs.begin(run_id=run.pk, worker="here")
    collected = collect(work, training.stored_config(run))
    lines = (run.folder / "pairs-train.jsonl").read_bytes().splitlines()
    assert collected["splits"]["train"]["decided"] == len(lines) == 48
    assert {"prompt", "chosen", "rejected", "p", "prompt_id"} <= set(orjson.loads(lines[0]))
    assert not list(run.folder.glob("*.partial"))


@pytest.mark.parametrize(("pairs", "numbers"), [(0, "0 preferences"), (12, "9 preferences")])
def test_too_few_pairs_are_refused_with_their_number(pairs: int, numbers: str) -> None:
    project = planted.preferences(pairs, splits=("train",) * 9 + ("test",) * 3)
    with pytest.raises(Invalid, match=numbers) as refused:
        start(project)
    assert "10" in refused.value.message
    assert not Run.objects.exists()


def test_training_without_a_test_pair_is_refused() -> None:
    with pytest.raises(Invalid, match="0 to test on"):
        start(planted.preferences(40, splits=("train",)))


def test_ties_do_not_count_as_preferences() -> None:
    project = planted.preferences(100)
    Preference.objects.filter(project=project).update(outcome=0)
    with pytest.raises(Invalid, match="0 preferences to train on and 0 to test on"):
        start(project)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"objective": "magic"}, "magic"),
        ({"backbone": "magic"}, "magic"),
        ({"backbone": "hf"}, "needs a model"),
        ({"backbone": "hashing:x"}, "nothing after"),
        ({"options": {"epochs": 0}}, "epochs"),
        ({"options": {"epochs": "many"}}, "epochs"),
        ({"options": {"epoch": 3}}, "Known: "),
        ({"options": {"seed": -1}}, "seed"),
        ({"options": {"time_limit": 0}}, "time_limit"),
        ({"options": {"learning_rate": float("nan")}}, "learning_rate"),
    ],
)
def test_wrong_settings_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        start(planted.preferences(60), **fields)
