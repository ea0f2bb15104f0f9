"""What a checkpoint holds: all that training changes, and of a model on loan nothing but a digest."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file

from models.neural.checkpoint import STATE
from models.neural.process import Events, Stop
from models.neural.train import work
from models.supervision import EXIT_DONE, EXIT_STOPPED
from models.training import read_events, read_metrics
from tests.models import tiny
from tests.models.planted import make_world, write_run

pytestmark = pytest.mark.neural

PAIRS = make_world(110, seed=6).pairs
OPTIONS = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "max_length": 64, "lora_rank": 2}


class StopAt(Events):
    """Asks for a stop at the checkpoint of a step."""

    def __init__(self, step, stop):
        super().__init__(None)
        self.step, self.asked = step, stop

    def __call__(self, event, **fields):
        super().__call__(event, **fields)
        if event == "checkpoint" and fields["step"] == self.step:
            self.asked.event.set()


@pytest.fixture
def prepare(tmp_path):
    def prepare(name, **options):
        base = tmp_path / "base"
        write_run(
            tmp_path / name,
            train=PAIRS[:40],
            validation=PAIRS[40:95],
            test=PAIRS[95:],
            backbone=f"hf:{base if base.exists() else tiny.llama(base)}",
            options=OPTIONS | options,
            evaluate_every=3,
        )
        return tmp_path / name

    torch.set_num_threads(1)
    return prepare


def finish(run):
    assert work(run, emit=Events(None), stop=Stop()) == EXIT_DONE, read_events(run)[-1]
    return load_file(run / "artifact" / "model.safetensors")


def stop_at(run, step):
    stop = Stop()
    assert work(run, emit=StopAt(step, stop), stop=stop) == EXIT_STOPPED
    assert read_metrics(run) is None
    folder = run / "checkpoints" / f"step-{step}"
    return torch.load(folder / STATE, weights_only=True)


def size(weights):
    return sum(weight.numel() for weight in weights.values())


def test_a_checkpoint_of_adapters_holds_them_the_head_and_their_optimizer_alone(prepare):
    run = prepare("run")
    state = stop_at(run, 3)
    model = state["model"]
    assert {name.split(".")[-3] for name in model if "lora_" in name} == {"lora_A", "lora_B"}
    others = [name for name in model if "lora_" not in name]
    assert len(others) == 1, others
    assert "score" in others[0]
    moments = [
        value
        for values in state["optimizer"]["state"].values()
        for name, value in values.items()
        if name != "step"
    ]
    assert sum(value.numel() for value in moments) == 2 * size(model), "of Adam, twice each"
    base = load_file(run.parent / "base" / "model.safetensors")
    assert size(model) < size(base) / 4
    assert state["frozen"]

    whole = stop_at(prepare("whole", lora_rank=0), 3)
    assert size(whole["model"]) > 4 * size(model)
    assert not whole["frozen"]


def test_adapters_go_on_from_a_checkpoint_to_the_same_weights(prepare):
    expected = finish(prepare("whole"))
    broken = prepare("broken")
    stop_at(broken, 6)
    found = finish(broken)
    (resumed,) = [e["step"] for e in read_events(broken) if e["event"] == "resumed"]
    assert 6 <= resumed < read_metrics(broken)["steps"]
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
    assert read_metrics(broken)["kept"] == read_metrics(prepare("whole"))["kept"]


def test_adapters_of_another_model_are_not_gone_on_with(prepare):
    run = prepare("run")
    stop_at(run, 3)
    path = run.parent / "base" / "model.safetensors"
    changed = {name: weight * 1.01 for name, weight in load_file(path).items()}
    save_file(changed, path, metadata={"format": "pt"})
    finish(run)
    events = read_events(run)
    assert not [e for e in events if e["event"] == "resumed"]
    told = [e["message"] for e in events if e["event"] == "log"]
    assert any("step-3 is beside other pretrained weights" in message for message in told)
