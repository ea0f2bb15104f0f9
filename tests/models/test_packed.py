"""Packed texts, with what answers share read once, give what padded ones do; memory that runs out."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, MistralConfig

from models.neural import packed
from models.neural.loop import Trainer
from models.neural.packed import lay_out
from models.neural.process import Events, Stop
from models.neural.store import pack
from models.neural.train import work
from models.neural.transformer import TransformerBackbone
from models.pairs import Pair
from models.supervision import EXIT_DONE, EXIT_FAILED
from models.training import TrainingConfig
from tests.models import tiny
from tests.models.planted import make_world, write_run

pytestmark = pytest.mark.neural

CPU = torch.device("cpu")
WORLD = make_world(40, seed=8)
TURNS = [
    {"role": "user", "content": "Question 0: tell me about tea and so on and so on."},
    {"role": "assistant", "content": "so so so"},
    {"role": "user", "content": "And then?"},
]
PAIRS = [
    *WORLD.pairs[:6],
    Pair(TURNS, "so", "so and so"),
    Pair(TURNS, "", "so"),
    Pair(TURNS, "so", "so"),
    Pair([], "a", "something else entirely " * 9),
]
BOTH = [(pair.prompt, side) for pair in PAIRS for side in pair.answers]


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def base(request, tmp_path_factory):
    return tiny.FAMILIES[request.param](tmp_path_factory.mktemp(request.param) / "base")


def backbone(base, **options):
    config = TrainingConfig(backbone=f"hf:{base}", options={"max_length": 120} | options)
    torch.manual_seed(0)
    made = TransformerBackbone.create(str(base), config.backbone_options, device=CPU)
    with torch.no_grad():  # new weights give all but equal numbers: nothing to compare
        for p in made.module.parameters():
            if p.ndim == 2:
                p.mul_(5) if p.any() else p.normal_(std=0.01)  # one half of new adapters is zero
    return made


def rewards_and_gradients(model):
    store = pack(model.encode(BOTH))
    model.module.train()
    found = model.forward(store, np.arange(len(BOTH)))  # (m, 1)
    torch.nn.functional.softplus(found.view(-1, 2).diff(dim=1)).sum().backward()
    return found.detach(), {n: p.grad for n, p in model.module.named_parameters()}


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("recomputed", [False, True])
def test_packed_texts_give_the_rewards_and_gradients_of_padded_ones(base, recomputed, rank):
    plain, packed_one = (
        backbone(base, packing=on, gradient_checkpointing=recomputed, lora_rank=rank)
        for on in (False, True)
    )
    assert plain.packing is None
    assert packed_one.packing is not None
    expected, gradients = rewards_and_gradients(plain)
    found, own = rewards_and_gradients(packed_one)
    assert expected.std() > 1e-3, "texts must differ by far more than the tolerance"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert own.keys() == gradients.keys()
    moving = {name for name, gradient in gradients.items() if gradient is not None}
    assert {name for name, gradient in own.items() if gradient is not None} == moving
    assert any("lora_A" in name for name in moving) == bool(rank)
    for name in moving:
        gradient = gradients[name]
        torch.testing.assert_close(own[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_recomputing_keeps_less_of_every_token_and_is_begun_by_need(base):
    def kept(model):
        model.fit(pack(model.encode(BOTH)), np.arange(len(BOTH)), seed=0)
        return model.memory.activations / model.memory.tokens

    plain, recomputed = backbone(base), backbone(base, gradient_checkpointing=True)
    assert kept(recomputed) < 0.7 * kept(plain)
    least = 50
    while plain.read_less(tokens=1000, least=least) and not plain.recomputes:
        assert plain.options.tokens_per_forward < 16_384
    assert plain.recomputes
    assert not plain.read_less(tokens=least, least=least), "there is nothing left to do"
    assert kept(plain) == pytest.approx(kept(recomputed), rel=0.05)


def test_a_prompt_is_read_once_by_decoders_and_by_each_answer_in_encoders(base):
    model = backbone(base)
    store = pack(model.encode([(TURNS, "so"), (TURNS, "so and so")]))
    starts, lengths = store.offsets[:-1], store.lengths
    layout = lay_out(store.ids, starts, lengths, causal=model.packing.causal, device=CPU)
    tokens, whole = len(layout.source), int(lengths.sum())
    if model.packing.causal:
        assert len(layout.queries) == 3
        assert tokens == whole - layout.queries[0]
        assert layout.queries[0] > lengths.min() / 2
    else:
        assert tokens == whole


texts = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), min_size=1, max_size=9)


@settings(deadline=None)
@given(texts=texts, prompt=st.lists(st.integers(2, 3), max_size=40))
def test_every_layout_gives_each_text_its_own_tokens_in_order(texts, prompt):
    texts = [[*prompt, *text] if i % 3 else text for i, text in enumerate(texts)]
    lengths = np.array([len(text) for text in texts])
    ids = np.concatenate(texts).astype(np.int32)
    layout = lay_out(ids, np.cumsum(lengths) - lengths, lengths, causal=True, device=CPU)
    tokens = ids[layout.source]
    taken = np.arange(len(tokens)) if layout.taken is None else layout.taken
    assert len(taken) == sum(layout.keys)
    assert len(tokens) == sum(layout.queries)
    ends = dict(zip(np.cumsum(layout.queries) - 1, np.cumsum(layout.keys), strict=True))
    sizes = dict(zip(np.cumsum(layout.queries) - 1, layout.keys, strict=True))
    for text, place in zip(texts, layout.read, strict=True):
        seen = taken[ends[place] - sizes[place] : ends[place]]  # what its last token attends to
        assert tokens[seen].tolist() == text
        assert layout.positions[seen].tolist() == list(range(len(text)))


def test_a_model_that_looks_at_a_window_only_is_padded():
    config = MistralConfig(
        vocab_size=300, **tiny.DECODER, sliding_window=16, pad_token_id=0, num_labels=1
    )
    module = AutoModelForSequenceClassification.from_config(config)
    assert packed.prepare(module, offset=0) is None
    assert module.config._attn_implementation == "sdpa"


class Limited:
    """Makes a model's embeddings run out of memory over so many tokens, as a GPU would."""

    def __init__(self, most):
        self.most, self.refused, self.largest = most, 0, 0

    def __call__(self, module, inputs):
        tokens = inputs[0].numel()
        if tokens > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.largest = max(self.largest, tokens)


def train_limited(folder, monkeypatch, base, most):
    """(exit code, events, limit) of a run in which more than ``most`` tokens do not fit."""
    limit, load = Limited(most), Trainer.load

    def limited(trainer):
        load(trainer)
        trainer.backbone.module.get_input_embeddings().register_forward_pre_hook(limit)

    monkeypatch.setattr(Trainer, "load", limited)
    options = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 64}
    pairs = WORLD.pairs
    write_run(folder, train=pairs[:24], test=pairs[24:], backbone=f"hf:{base}", options=options)
    told = io.BytesIO()
    code = work(folder, emit=Events(told), stop=Stop(), lock_wait=0)
    monkeypatch.setattr(Trainer, "load", load)
    return code, [json.loads(line) for line in told.getvalue().splitlines()], limit


def logged(events):
    return [e["message"] for e in events if e["event"] == "log"]


def test_a_batch_that_does_not_fit_is_halved_and_teaches_the_same(base, tmp_path, monkeypatch):
    """With 8 pairs of about 30 tokens a side in a batch, 130 tokens are two or three pairs."""
    whole, events, _ = train_limited(tmp_path / "whole", monkeypatch, base, 10**9)
    assert whole == EXIT_DONE, events[-1]
    assert any("Memory, estimated" in message for message in logged(events))
    code, events, limit = train_limited(tmp_path / "halved", monkeypatch, base, 130)
    assert code == EXIT_DONE, events[-1]
    assert limit.refused
    assert 0 < limit.largest <= 130
    assert any("Memory ran out: going on with" in message for message in logged(events))
    first, second = (
        load_file(tmp_path / name / "artifact" / "model.safetensors")
        for name in ("whole", "halved")
    )
    for name, weights in first.items():
        torch.testing.assert_close(second[name], weights, atol=2e-5, rtol=1e-4, msg=name)


def test_a_pair_that_does_not_fit_ends_the_run_with_what_to_do(base, tmp_path, monkeypatch):
    code, events, limit = train_limited(tmp_path / "run", monkeypatch, base, 20)
    assert code == EXIT_FAILED
    assert 0 < limit.refused < 20
    failed = events[-1]
    assert (failed["event"], failed["kind"]) == ("failed", "out-of-memory")
    assert "longest text" in failed["advice"]
    assert any("activations recomputed" in message for message in logged(events))
