"""A saved model gives the same scores again, here and in plain transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from models import gateway
from models.errors import BadArtifact, BadBackbone
from models.neural.loop import Trainer
from models.neural.process import Events, Stop
from models.neural.transformer import TransformerBackbone
from models.pairs import as_messages
from models.training import TrainingConfig
from tests.models import tiny
from tests.models.planted import make_world, write_run

pytestmark = pytest.mark.neural

CPU = torch.device("cpu")
WORLD = make_world(48, seed=5)
CONVERSATIONS = [(pair.prompt, pair.chosen) for pair in WORLD.pairs[:9]]


def train_here(workdir):
    """A run in this process; returns its trainer."""
    config = TrainingConfig.read(workdir)
    trainer = Trainer(workdir, config, device=CPU, emit=Events(None), stop=Stop())
    trainer.run()
    return trainer


@pytest.fixture(scope="module", params=["hashing", *tiny.FAMILIES])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    backbone, options = "hashing", {"epochs": 2, "buckets_log2": 12}
    if request.param in tiny.FAMILIES:
        model = tiny.FAMILIES[request.param](folder / "base")
        backbone = f"hf:{model}"
        options = {"epochs": 1, "learning_rate": 1e-3, "max_length": 250, "batch_size": 8}
    write_run(
        folder / "run",
        train=WORLD.pairs,
        test=WORLD.pairs[:10],
        backbone=backbone,
        options=options,
    )
    before = initial_weights(folder / "run")
    return folder / "run", before, train_here(folder / "run")


def initial_weights(workdir):
    config = TrainingConfig.read(workdir)
    trainer = Trainer(workdir, config, device=CPU, emit=Events(None), stop=Stop())
    trainer.load()
    return {name: p.detach().clone() for name, p in trainer.backbone.module.named_parameters()}


def test_training_moves_every_parameter(trained):
    _, before, trainer = trained
    for name, parameter in trainer.backbone.module.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_saved_model_gives_the_scores_of_the_trained_one(trained):
    workdir, _, trainer = trained
    encoded = trainer.backbone.encode(CONVERSATIONS)
    model = gateway.load_reward_model(workdir / "artifact")
    scores = model.score(CONVERSATIONS)
    assert scores.dtype == np.float64
    assert scores.shape == (9,)
    assert len(set(scores.tolist())) == 9
    assert encoded.lengths.shape == (9,)
    trainer.backbone.module.eval()
    expected = np.concatenate([_reward_alone(trainer.backbone, row) for row in CONVERSATIONS])
    assert scores == pytest.approx(expected, abs=1e-5)
    assert model.about["metrics"]["objective"] == "bradley-terry"


def test_scores_do_not_depend_on_company_or_order(trained):
    model = gateway.load_reward_model(trained[0] / "artifact")
    scores = model.score(CONVERSATIONS)
    order = np.random.default_rng(0).permutation(9)
    assert model.score([CONVERSATIONS[i] for i in order]) == pytest.approx(scores[order], abs=1e-5)
    assert model.score(CONVERSATIONS[3:4]) == pytest.approx(scores[3:4], abs=1e-5)
    assert model.score([]).shape == (0,)


@pytest.mark.parametrize("trained", list(tiny.FAMILIES), indirect=True)
def test_plain_transformers_gives_the_same_scores(trained):
    workdir, _, _ = trained
    expected = gateway.load_reward_model(workdir / "artifact").score(CONVERSATIONS)
    model = AutoModelForSequenceClassification.from_pretrained(workdir / "artifact").eval()
    tokenizer = AutoTokenizer.from_pretrained(workdir / "artifact")
    assert model.config.num_labels == 1
    batch = tokenizer.apply_chat_template(
        [[*prompt, *as_messages(answer)] for prompt, answer in CONVERSATIONS],
        tokenize=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
    )
    names = ("input_ids", "attention_mask")
    with torch.no_grad():
        logits = model(**{name: batch[name] for name in names}).logits.squeeze(1)
    assert batch["attention_mask"].min() == 0, "the batch must need padding"
    assert logits.double().numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("trained", list(tiny.FAMILIES), indirect=True)
def test_trl_gives_the_same_scores(trained, tmp_path):
    """What its RewardTrainer measures before any training follows from our own scores."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    workdir, _, _ = trained
    pairs = WORLD.pairs[:9]
    model = gateway.load_reward_model(workdir / "artifact")
    scores = model.score([(pair.prompt, side) for pair in pairs for side in pair.answers])
    rows = [
        {
            "prompt": pair.prompt,
            "chosen": as_messages(pair.chosen),
            "rejected": as_messages(pair.rejected),
        }
        for pair in pairs
    ]
    trainer = trl.RewardTrainer(
        model=str(workdir / "artifact"),
        args=trl.RewardConfig(
            output_dir=str(tmp_path),
            per_device_eval_batch_size=len(pairs),
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        eval_dataset=datasets.Dataset.from_list(rows),
    )
    found = trainer.evaluate()
    margins = scores[::2] - scores[1::2]
    expected = {
        "eval_loss": np.logaddexp(0, -margins).mean(),
        "eval_margin": margins.mean(),
        "eval_min_reward": scores.min(),
        "eval_mean_reward": scores.mean(),
        "eval_max_reward": scores.max(),
        "eval_accuracy": (margins > 0).mean(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("trained", list(tiny.FAMILIES), indirect=True)
def test_a_transformer_without_our_file_beside_it_is_read_too(trained, tmp_path):
    workdir, _, _ = trained
    (workdir / "artifact" / "touchstone.json").rename(tmp_path / "about.json")
    try:
        plain = gateway.load_reward_model(workdir / "artifact")  # as from anywhere else
    finally:
        (tmp_path / "about.json").rename(workdir / "artifact" / "touchstone.json")
    own = gateway.load_reward_model(workdir / "artifact")
    assert plain.score(CONVERSATIONS) == pytest.approx(own.score(CONVERSATIONS), abs=1e-5)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"{"), "cannot be read"),
        (lambda folder: (folder / "touchstone.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "touchstone.json").write_text('{"format": 99}'), "a format"),
        (lambda folder: (folder / "touchstone.json").write_text('{"format": 1}'), "cannot be used"),
    ],
)
def test_a_damaged_model_is_refused_with_a_reason(tmp_path, break_it, message):
    write_run(tmp_path / "run", train=WORLD.pairs[:4], options={"epochs": 1, "buckets_log2": 10})
    train_here(tmp_path / "run")
    break_it(tmp_path / "run" / "artifact")
    with pytest.raises(BadArtifact, match=message):
        gateway.load_reward_model(tmp_path / "run" / "artifact")


def test_models_that_do_not_exist_are_refused_with_a_reason(tmp_path):
    with pytest.raises(BadArtifact, match="There is no reward model"):
        gateway.load_reward_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadArtifact, match="cannot be loaded"):
        gateway.load_reward_model(tmp_path / "empty")
    with pytest.raises(BadBackbone, match="cannot be loaded"):
        TransformerBackbone.create(
            str(tmp_path / "empty"),
            TrainingConfig(backbone="hf:x").backbone_options,
            device=CPU,
        )


def test_the_door_to_torch_says_its_version_without_importing_it():
    assert gateway.torch_version() == torch.__version__.split("+")[0] or torch.__version__


def test_a_hashing_model_says_what_it_is(tmp_path):
    write_run(tmp_path / "run", train=WORLD.pairs[:4], options={"epochs": 1, "buckets_log2": 10})
    train_here(tmp_path / "run")
    about = json.loads((tmp_path / "run" / "artifact" / "touchstone.json").read_text())
    assert about["config"]["backbone"] == "hashing"
    assert about["metrics"]["train_pairs"] == 4
    assert (tmp_path / "run" / "artifact" / "model.safetensors").stat().st_mode & 0o044


def _reward_alone(backbone, conversation):
    from models.neural.store import pack

    with torch.no_grad():
        found = backbone.forward(pack(backbone.encode([conversation])), np.array([0]))
        return found[:, 0].numpy()
