"""Readings of a reply are those of the plain model, whatever the batch, padding and vocabulary."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from transformers import AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification

from models.errors import BadBackbone, OutOfMemory
from models.neural import causal
from models.neural.causal import CausalModel
from models.neural.likelihood import Limits, Splitter, read, read_next
from tests.models import tiny

pytestmark = pytest.mark.neural

CPU = torch.device("cpu")
CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "tell me about tea"},
    {"role": "assistant", "content": "for example bread"},
    {"role": "user", "content": "step by step"},
]
REPLIES = ["tea", "for example bread", "step by step, so", "whales " * 9, "", "to be honest"]
ASKED = [(CHAT[: 2 + i % 2 * 2], text) for i, text in enumerate(REPLIES)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: build(tmp_path_factory.mktemp(name) / "model")
        for name, build in tiny.FAMILIES.items()
    }


def load(folder):
    """A tiny model whose weights were made large enough for it to prefer something."""
    model = CausalModel.load(str(folder), device="cpu")
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


@pytest.fixture(scope="module", params=["llama", "qwen"])
def model(request, folders):
    return load(folders[request.param])


def log_probabilities(model, asked=ASKED, **given):
    return [r.log_probabilities for r in read(model, asked, limits=Limits(**given))[0]]


def close(one, other, tolerance=1e-5):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, abs=tolerance)


def test_the_first_token_of_a_reply_is_read_at_the_last_of_its_prompt(model):
    """Against the template and a plain forward pass, token by token, and no token beside."""
    readings, notes = read(model, ASKED)
    tokenizer = model.tokenizer
    for reading, (prompt, text) in zip(readings, ASKED, strict=True):
        head = tokenizer.apply_chat_template(
            prompt, tokenize=True, return_dict=False, add_generation_prompt=True
        )
        whole = [*prompt, {"role": "assistant", "content": text}]
        ids = tokenizer.apply_chat_template(whole, tokenize=True, return_dict=False)
        ends = [i for i in ids[len(head) :] if i in tokenizer.all_special_ids]
        ids = ids[: ids.index(ends[0], len(head)) + 1]
        assert reading.ids.tolist() == ids[len(head) :]
        with torch.no_grad():
            logits = model.module(torch.tensor([ids])).logits[0]  # (t, V)
        expected = [
            logits[at - 1].log_softmax(-1)[ids[at]].item() for at in range(len(head), len(ids))
        ]
        assert reading.log_probabilities == pytest.approx(expected, abs=1e-4)
        shifted = [logits[at].log_softmax(-1)[ids[at]].item() for at in range(len(head), len(ids))]
        assert reading.log_probabilities != pytest.approx(shifted, abs=1e-2)
    assert notes == {}


def test_readings_do_not_depend_on_the_batch(model):
    together = log_probabilities(model)
    for tokens in (16, 100, 10**6):
        close(log_probabilities(model, tokens_per_forward=tokens), together)
    order = np.random.default_rng(0).permutation(len(ASKED))
    mixed = log_probabilities(model, [ASKED[i] for i in order])
    close(mixed, [together[i] for i in order])


@pytest.mark.parametrize("side", ["left", "right"])
def test_readings_do_not_depend_on_the_padding_of_the_tokenizer(model, side):
    before = model.tokenizer.padding_side
    expected = [log_probabilities(model, [row])[0] for row in ASKED]
    try:
        model.tokenizer.padding_side = side
        close(log_probabilities(model), expected)
    finally:
        model.tokenizer.padding_side = before


def test_columns_that_pad_the_vocabulary_count_for_nothing(folders):
    plain, padded = load(folders["qwen"]), load(folders["qwen"])
    size = len(plain.tokenizer)
    padded.module.resize_token_embeddings(size + 56, mean_resizing=False)
    with torch.no_grad():
        padded.module.lm_head.weight[size:] = padded.module.lm_head.weight[:56] * 3
    padded = CausalModel(padded.module, plain.tokenizer, device=CPU)
    assert padded.columns == size
    close(log_probabilities(padded), log_probabilities(plain))
    with torch.no_grad():
        ids = torch.arange(5)[None]
        logits = padded.module(ids).logits[0].double()
    everything, tokens = logits.logsumexp(-1), logits[:, :size].logsumexp(-1)
    assert (everything - tokens).max() > 0.1, "the pads would have counted"
    for reading, other in zip(read(padded, ASKED)[0], read(plain, ASKED)[0], strict=True):
        assert reading.values == pytest.approx(other.values, abs=1e-4)


def test_pieces_of_the_vocabulary_and_whole_logits_give_the_same(model, monkeypatch):
    assert model.has_own_head
    expected = log_probabilities(model)
    monkeypatch.setattr(causal, "LOGITS_AT_ONCE", 3 * model.columns)
    close(log_probabilities(model), expected)
    monkeypatch.setattr(model, "has_own_head", False)
    close(log_probabilities(model), expected)


class Scaled(LlamaForCausalLM):
    """Changes its logits after the head, as some models do."""

    def forward(self, *given, **named):
        output = super().forward(*given, **named)
        output.logits = output.logits * 2
        return output


def test_a_model_that_bends_its_logits_is_not_read_past_it(folders):
    inner = Scaled.from_pretrained(folders["llama"])
    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])
    scaled = CausalModel(inner, tokenizer, device=CPU)
    assert not scaled.has_own_head
    plain = CausalModel.load(str(folders["llama"]), device="cpu")
    for twice, once in zip(read(scaled, ASKED)[0], read(plain, ASKED)[0], strict=True):
        assert twice.logits == pytest.approx(2 * once.logits, abs=1e-5)


@pytest.mark.parametrize("fits", [3, 1])
def test_a_batch_that_does_not_fit_is_halved(model, monkeypatch, fits):
    expected, tried = log_probabilities(model), []
    plain = model.logits_at

    def scarce(ids, *rest):
        tried.append(len(ids))
        if len(ids) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(ids, *rest)

    monkeypatch.setattr(model, "logits_at", scarce)
    close(log_probabilities(model), expected)
    assert tried[:3] == [6, 3, 1 if fits == 1 else tried[2]], tried


def test_a_single_text_that_does_not_fit_is_an_error_with_advice(model, monkeypatch):
    def never(*_):
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(model, "logits_at", never)
    with pytest.raises(OutOfMemory, match="single text") as caught:
        read(model, ASKED)
    assert caught.value.advice
    monkeypatch.setattr(model, "logits_at", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        read(model, ASKED)


def test_work_can_be_stopped_between_batches(model):
    class Asked(Exception):
        pass

    def stop():
        raise Asked

    with pytest.raises(Asked):
        read(model, ASKED, limits=Limits(check=stop))


def test_a_long_prompt_loses_its_start_and_keeps_the_system_message(folders):
    splitter = Splitter(load(folders["qwen"]).tokenizer, 64)
    prompt = [CHAT[0], {"role": "user", "content": "tea " * 200 + "step by step"}]
    (cut,), notes = splitter.split([(prompt, "for example bread")], count_end=True)
    text = splitter.tokenizer.decode(cut.ids)
    assert len(cut.ids) == 64
    assert notes["prompts_cut"] == 1
    assert text.startswith("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n")
    assert text.endswith(
        "step by step<|im_end|>\n<|im_start|>assistant\nfor example bread<|im_end|>"
    )
    assert splitter.tokenizer.decode(cut.ids[cut.start :]) == "for example bread<|im_end|>"


def test_a_long_reply_loses_its_end_and_its_stop(folders):
    splitter = Splitter(load(folders["qwen"]).tokenizer, 64)
    (cut,), notes = splitter.split([(CHAT, "tea " * 200)], count_end=True)
    assert len(cut.ids) == 64
    assert notes == {"answers_cut": 1, "prompts_cut": 1}
    assert 0 < cut.start <= 16
    assert "<|im_end|>" not in splitter.tokenizer.decode(cut.ids[cut.start :])


def test_what_the_template_writes_around_a_reply_is_told_apart(folders):
    """A generation prompt that the whole conversation lacks: tokenized apart, and said so."""
    model = load(folders["qwen"])
    thinking = tiny.CHATML.replace("assistant\n{%", "assistant\n<think>\n{%")
    model.tokenizer.chat_template = thinking
    readings, notes = read(model, ASKED)
    assert notes == {"tokenized_separately": len(ASKED)}
    texts = [model.tokenizer.decode(reading.ids) for reading in readings]
    assert texts == [f"{text}<|im_end|>" for text in REPLIES]
    splitter = Splitter(model.tokenizer, 4096)
    (split, *_), _ = splitter.split(ASKED[:1], count_end=True)
    assert splitter.tokenizer.decode(split.ids[: split.start]).endswith("assistant\n<think>\n")


def test_a_header_before_replies_is_no_part_of_them(folders):
    """A template that ignores add_generation_prompt."""
    model = load(folders["qwen"])
    model.tokenizer.chat_template = tiny.CHATML.partition("{% if add")[0]
    texts = [model.tokenizer.decode(reading.ids) for reading in read(model, ASKED)[0]]
    assert texts == [f"{text}<|im_end|>" for text in REPLIES]


def test_without_its_end_a_reply_is_its_text(model):
    texts = [
        model.tokenizer.decode(reading.ids).strip()
        for reading in read(model, ASKED, count_end=False)[0]
    ]
    assert texts == [text.strip() for text in REPLIES]


def test_the_next_token_is_read_after_the_whole_prompt(model):
    prompts = [prompt for prompt, _ in ASKED]
    shares, _ = read_next(model, prompts, [[5], [6, 7]], limits=Limits(tokens_per_forward=64))
    for prompt, share in zip(prompts, shares, strict=True):
        ids = model.tokenizer.apply_chat_template(
            prompt, tokenize=True, return_dict=False, add_generation_prompt=True
        )
        with torch.no_grad():
            p = model.module(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
        assert share == pytest.approx([p[5].log().item(), (p[6] + p[7]).log().item()], abs=1e-4)


text = st.text(st.characters(codec="utf-8", categories=None), max_size=60)
turn = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": text})


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(turn, max_size=3), text, st.booleans())
def test_any_text_fits_and_is_read(model, prompt, reply, count_end):
    splitter = Splitter(model.tokenizer, 48)
    (found,), _ = splitter.split([(prompt, reply)], count_end=count_end)
    assert 1 <= found.start <= len(found.ids) <= 48
    assert max(found.ids) < model.columns
    (asked,), _ = splitter.prompts([prompt])
    assert 1 <= len(asked.ids) <= 48
    (reading,), _ = read(model, [(prompt, reply)], count_end=count_end)
    assert np.isfinite(reading.log_probabilities).all()
    assert (reading.log_probabilities <= 1e-6).all()


def test_special_tokens_written_in_a_reply_are_only_text(model):
    specials = model.tokenizer.all_special_tokens
    (reading,), _ = read(model, [(CHAT, "so " + " ".join(specials))])
    kinds = set(model.tokenizer.all_special_ids)
    assert [i in kinds for i in reading.ids.tolist()].count(True) == 1, "its own end"


def test_what_is_no_causal_language_model_is_refused(folders, tmp_path):
    with pytest.raises(BadBackbone, match=r"reads ahead|is not a language model"):
        CausalModel.load(str(folders["bert"]), device="cpu")
    scorer = LlamaForSequenceClassification.from_pretrained(folders["llama"], num_labels=1)
    scorer.save_pretrained(tmp_path / "scorer")
    AutoTokenizer.from_pretrained(folders["llama"]).save_pretrained(tmp_path / "scorer")
    with pytest.raises(BadBackbone, match=r"lacks lm_head"):
        CausalModel.load(str(tmp_path / "scorer"), device="cpu")
    with pytest.raises(BadBackbone, match="cannot be loaded") as caught:
        CausalModel.load(str(tmp_path / "nowhere"), device="cpu")
    assert "folder" in caught.value.advice


def test_weights_that_could_run_code_are_refused(folders, tmp_path):
    model = LlamaForCausalLM.from_pretrained(folders["llama"])
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    AutoTokenizer.from_pretrained(folders["llama"]).save_pretrained(tmp_path)
    with pytest.raises(BadBackbone, match="safetensors"):
        CausalModel.load(str(tmp_path), device="cpu")


def test_code_that_comes_with_a_model_is_never_run(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\n")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadBackbone, match="cannot be loaded"):
        CausalModel.load(str(tmp_path), device="cpu")
    assert not ran.exists()


def test_a_tokenizer_of_another_model_is_refused(folders):
    model = load(folders["llama"])
    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])
    tokenizer.add_tokens(["unheard"])
    other = CausalModel(model.module, tokenizer, device=CPU)
    with pytest.raises(BadBackbone, match="more tokens than the model"):
        read(other, [(CHAT, "unheard")])


def test_damaged_weights_are_refused(folders):
    model = load(folders["llama"])
    with torch.no_grad():
        model.module.lm_head.weight.fill_(float("nan"))
    with pytest.raises(BadBackbone, match="not numbers"):
        CausalModel(model.module, model.tokenizer, device=CPU)
