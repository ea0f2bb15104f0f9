"""Frozen embeddings and LoRA: learned, saved, kept on disk by content, safe for many at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from hashlib import blake2b

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from models import gateway
from models.errors import BadArtifact, BadBackbone, BadOptions
from models.neural.embeddings import EmbeddingCache
from models.neural.frozen import FrozenBackbone
from models.neural.transformer import TransformerBackbone
from models.pairs import as_messages
from models.training import TrainingConfig
from models.workdir import EMBEDDINGS
from tests.models import tiny
from tests.models.planted import make_world, write_run
from tests.models.test_artifact import initial_weights, train_here

pytestmark = pytest.mark.neural

CPU = torch.device("cpu")
WORLD, HELD = make_world(300, seed=3), make_world(150, seed=4)
CONVERSATIONS = [(pair.prompt, pair.chosen) for pair in HELD.pairs[:9]]
HEADS = {"linear": {}, "network": {"layers": 2, "width": 32, "l2": 1, "batch_size": 64}}


def nothing():
    return


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where embeddings are kept."""
    monkeypatch.setenv(EMBEDDINGS, str(tmp_path / "embeddings"))
    return tmp_path / "embeddings"


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_probe_learns_and_gives_its_scores_again(tmp_path, kept, family, head):
    base = tiny.FAMILIES[family](tmp_path / "base")
    write_run(
        tmp_path / "run",
        train=WORLD.pairs,
        test=HELD.pairs,
        backbone=f"frozen:{base}",
        options=HEADS[head],
    )
    before = initial_weights(tmp_path / "run")
    trainer = train_here(tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert metrics["interval"][0] > 0.5
    assert metrics["texts"]["train"]["embeddings_computed"] == 600
    for name, parameter in trainer.backbone.module.named_parameters():
        assert not torch.equal(parameter, before[name]) or name.endswith("bias"), name
    scores = gateway.load_reward_model(tmp_path / "run" / "artifact").score(CONVERSATIONS)
    assert scores == pytest.approx(plain_scores(base, trainer, family), abs=1e-4)
    assert not list((tmp_path / "run" / "artifact").glob("model*"))


def plain_scores(base, trainer, family):
    """The same by plain transformers, one text at a time."""
    from models.neural.conversations import prepare_tokenizer

    tokenizer, encoder = AutoTokenizer.from_pretrained(base), AutoModel.from_pretrained(base)
    prepare_tokenizer(tokenizer)
    trainer.backbone.module.eval()
    found = []
    for prompt, answer in CONVERSATIONS:
        ids = tokenizer.apply_chat_template(
            [*prompt, *as_messages(answer)], tokenize=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        with torch.no_grad():
            hidden = encoder.eval()(input_ids=ids).last_hidden_state[0]
            pooled = hidden.mean(dim=0) if family == "bert" else hidden[-1]
            found.append(float(trainer.backbone.module(pooled[None])))
    return found


def test_a_second_run_computes_nothing_and_loads_no_encoder(tmp_path, kept):
    base = tiny.bert(tmp_path / "base")
    for name, options in (("one", {}), ("two", {"layers": 1})):
        run = tmp_path / name
        write_run(run, train=WORLD.pairs[:60], backbone=f"frozen:{base}", options=options)
        trainer = train_here(run)
    assert metrics_of(run)["texts"]["train"]["embeddings_computed"] == 0
    assert trainer.backbone.encoder is None
    assert metrics_of(run)["accuracy"] is None


def test_embeddings_do_not_depend_on_company(tmp_path):
    base = tiny.llama(tmp_path / "base")
    options = TrainingConfig(backbone=f"frozen:{base}").backbone_options
    alone = FrozenBackbone.create(str(base), options, device=CPU)
    together = FrozenBackbone.create(str(base), options, device=CPU)
    one = np.concatenate([alone.encode([row]).values for row in CONVERSATIONS])
    assert one == pytest.approx(together.encode(CONVERSATIONS).values, abs=1e-5)


def test_an_encoder_that_changed_is_refused(tmp_path):
    base = tiny.bert(tmp_path / "base")
    write_run(tmp_path / "run", train=WORLD.pairs[:20], backbone=f"frozen:{base}")
    train_here(tmp_path / "run")
    weights = {k: v + 1 for k, v in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadArtifact, match="not the one"):
        gateway.load_reward_model(tmp_path / "run" / "artifact")
    (base / "config.json").unlink()
    with pytest.raises(BadArtifact, match="cannot be loaded"):
        gateway.load_reward_model(tmp_path / "run" / "artifact")


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(BadBackbone, match="cannot be loaded"):
        FrozenBackbone.create(
            str(tmp_path / "nowhere"),
            TrainingConfig(backbone="frozen:x").backbone_options,
            device=CPU,
        )


# The cache ---------------------------------------------------------------------------------------


def keys_of(*numbers):
    return [blake2b(b"%d" % number, digest_size=16).digest() for number in numbers]


def embed(cache, numbers, told=None):
    """Vectors (number, number + .5), and how many were computed."""

    def compute(places):
        if told is not None:
            told.extend(numbers[place] for place in places)
        return np.array([[numbers[p], numbers[p] + 0.5] for p in places], np.float32)

    return cache.embed(keys_of(*numbers), compute, check=nothing)


def test_each_content_is_computed_once_and_found_by_others(tmp_path):
    first = EmbeddingCache(tmp_path, "one", 2)
    told = []
    vectors, computed = embed(first, [*range(100), *range(50)], told)
    assert (computed, sorted(told)) == (100, list(range(100)))
    assert vectors[:, 0].tolist() == [*range(100), *range(50)]
    second = EmbeddingCache(tmp_path, "one", 2)
    again, computed = embed(second, list(range(99, -1, -1)))
    assert (computed, again[:, 1].tolist()) == (0, [n + 0.5 for n in range(99, -1, -1)])
    embed(first, list(range(200, 300)))
    assert embed(second, [250])[1] == 0, "what another process wrote meanwhile is found"
    assert embed(EmbeddingCache(tmp_path, "other", 2), [5])[1] == 1


def test_without_a_folder_embeddings_are_known_in_memory():
    cache = EmbeddingCache(None, "one", 2)
    assert embed(cache, [1, 2])[1] == 2
    assert embed(cache, [2, 1])[0][:, 0].tolist() == [2, 1]
    assert embed(cache, [2, 1])[1] == 0
    assert embed(cache, [])[0].shape == (0, 2)


def test_a_segment_without_its_other_half_is_computed_again(tmp_path):
    embed(EmbeddingCache(tmp_path, "one", 2), list(range(40)))
    [vectors] = (tmp_path / "one").glob("*.vectors")
    vectors.write_bytes(vectors.read_bytes()[:-4])
    cache = EmbeddingCache(tmp_path, "one", 2)
    found, computed = embed(cache, list(range(40)))
    assert (computed, found[:, 0].tolist()) == (40, list(range(40)))


def test_leftovers_and_unused_caches_are_removed(tmp_path):
    embed(EmbeddingCache(tmp_path, "old", 2), list(range(40)))
    (tmp_path / "one").mkdir()
    for name in ("a.vectors", "b.keys.9.partial", "fresh.vectors"):
        (tmp_path / "one" / name).write_bytes(b"x")
    long_ago = time.time() - 40 * 86_400
    for path in (tmp_path / "one" / "a.vectors", tmp_path / "one" / "b.keys.9.partial"):
        os.utime(path, (long_ago, long_ago))
    os.utime(tmp_path / "old", (long_ago, long_ago))
    EmbeddingCache(tmp_path, "one", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["fresh.vectors"]


def test_a_stop_keeps_what_was_computed(tmp_path):
    cache = EmbeddingCache(tmp_path, "one", 2)
    numbers = list(range(1500))
    calls = iter(range(3))

    def check():
        if next(calls) == 1:
            raise InterruptedError

    def compute(places):
        return np.array([[numbers[p]] * 2 for p in places], np.float32)

    with pytest.raises(InterruptedError):
        cache.embed(keys_of(*numbers), compute, check=check)
    _, computed = EmbeddingCache(tmp_path, "one", 2).embed(
        keys_of(*numbers), compute, check=nothing
    )
    assert computed == 1500 - 512


WRITER = """
import sys, numpy as np
from hashlib import blake2b
from pathlib import Path
from models.neural.embeddings import EmbeddingCache
cache = EmbeddingCache(Path(sys.argv[1]), "one", 8)
print("ready", flush=True)
for start in range(int(sys.argv[2]), 10**9, 80):
    keys = [blake2b(b"%d" % n, digest_size=16).digest() for n in range(start, start + 80)]
    def compute(places):
        return np.repeat(np.float32(start) + places[:, None].astype(np.float32), 8, axis=1)
    cache.embed(keys, compute, check=lambda: None)
    print(start, flush=True)
"""


def test_two_processes_killed_while_writing_leave_only_truth(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, str(first)], stdout=-1, text=True)
        # The same contents in other segments. What one finds done by the other it leaves out: the
        # half that remains, 40, is still worth a segment, whoever is ahead (FEWEST).
        for first in (0, 40)
    ]
    done = []
    for writer in writers:
        lines = [writer.stdout.readline() for _ in range(30)]
        done.append(int(lines[-1]))
        writer.kill()
        writer.communicate()
    cache = EmbeddingCache(tmp_path, "one", 8)
    numbers = list(range(min(done)))
    vectors, found = cache.find(
        np.frombuffer(b"".join(keys_of(*numbers)), np.uint64).reshape(-1, 2)
    )
    assert found.all()
    assert (vectors == np.array(numbers, np.float32)[:, None]).all()


# LoRA --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_low_rank_model_is_saved_as_a_plain_one(tmp_path, family):
    base = tiny.FAMILIES[family](tmp_path / "base")
    write_run(
        tmp_path / "run",
        train=WORLD.pairs[:120],
        test=HELD.pairs[:20],
        backbone=f"hf:{base}",
        options={"lora_rank": 4, "learning_rate": 3e-3, "max_length": 128, "lora_dropout": 0.1},
    )
    trainer = train_here(tmp_path / "run")
    artifact = tmp_path / "run" / "artifact"
    assert not list(artifact.glob("adapter*"))
    plain, report = AutoModelForSequenceClassification.from_pretrained(
        artifact, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    own = gateway.load_reward_model(artifact).score(CONVERSATIONS)
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    batch = tokenizer.apply_chat_template(
        [[*prompt, *as_messages(answer)] for prompt, answer in CONVERSATIONS],
        tokenize=True, padding=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        logits = plain.eval()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
    assert logits[:, 0].numpy() == pytest.approx(own, abs=1e-4)
    assert type(trainer.backbone.module).__name__.endswith("ForSequenceClassification")


def test_only_low_rank_matrices_and_the_head_are_trained(tmp_path):
    base = tiny.qwen(tmp_path / "base")
    options = TrainingConfig(
        backbone=f"hf:{base}", options={"lora_rank": 2, "lora_targets": "q_proj, v_proj"}
    ).backbone_options
    module = TransformerBackbone.create(str(base), options, device=CPU).module
    moving = {name for name, p in module.named_parameters() if p.requires_grad}
    layers = {part for name in moving for part in name.split(".") if part.endswith("_proj")}
    assert layers == {"q_proj", "v_proj"}
    assert all("lora_" in name or "score" in name for name in moving)


def test_layers_that_a_model_does_not_have_are_refused(tmp_path):
    base = tiny.bert(tmp_path / "base")
    options = TrainingConfig(
        backbone=f"hf:{base}", options={"lora_rank": 2, "lora_targets": "nonsense"}
    ).backbone_options
    with pytest.raises(BadOptions, match="LoRA cannot be set up"):
        TransformerBackbone.create(str(base), options, device=CPU)
