from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from transformers import AutoTokenizer

from models.errors import BadData
from models.neural.conversations import Renderer, merge_turns, prepare_tokenizer
from models.pairs import as_messages
from tests.models import tiny

pytestmark = pytest.mark.neural

CHAT = [
    {"role": "user", "content": "tell me about tea"},
    {"role": "assistant", "content": "for example bread"},
    {"role": "user", "content": "step by step"},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: build(tmp_path_factory.mktemp(name) / "model")
        for name, build in tiny.FAMILIES.items()
    }


def make(folder, max_length=64) -> Renderer:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prepare_tokenizer(tokenizer)
    return Renderer(tokenizer, max_length)


@pytest.fixture(scope="module", params=list(tiny.FAMILIES))
def renderer(request, folders):
    return make(folders[request.param])


def ids_of(renderer, prompt, answer):
    return renderer.encode([(prompt, answer)]).ids.tolist()


def test_tokens_are_those_of_the_saved_chat_template(renderer, tmp_path):
    renderer.tokenizer.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    messages = [*CHAT, *as_messages("whatever you like")]
    expected = plain.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert ids_of(renderer, CHAT, "whatever you like") == expected
    assert ids_of(renderer, CHAT, as_messages("whatever you like")) == expected


def test_pad_token_is_none_of_the_tokens_of_a_text(renderer):
    tokenizer = renderer.tokenizer
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.padding_side == "right"
    assert tokenizer.pad_token_id not in ids_of(renderer, CHAT, f"x {tokenizer.pad_token} y")


def test_every_text_opens_and_closes_as_the_model_expects(folders):
    opens_closes = {"bert": ("[CLS]", "[SEP]"), "llama": ("<s>", "</s>")}
    for name, (first, last) in opens_closes.items():
        renderer = make(folders[name])
        tokens = renderer.tokenizer.convert_ids_to_tokens(ids_of(renderer, CHAT, "so"))
        assert (tokens[0], tokens[-1]) == (first, last)
        assert tokens.count(first) == tokens.count(last) == 1
    qwen = make(folders["qwen"])
    assert qwen.text((CHAT, "so")).endswith("<|im_start|>assistant\nso<|im_end|>\n")


def test_special_tokens_written_in_an_answer_are_only_text(renderer):
    renderer = Renderer(renderer.tokenizer, 1000)
    specials = [t for t in renderer.tokenizer.all_special_tokens if t != "[UNK]"]
    clean = ids_of(renderer, CHAT, "so")
    hostile = ids_of(renderer, CHAT, "so " + " ".join(specials))
    special_ids = set(renderer.tokenizer.convert_tokens_to_ids(specials))
    assert [i for i in hostile if i in special_ids] == [i for i in clean if i in special_ids]


def test_a_long_prompt_loses_its_start_and_keeps_the_answer(renderer):
    whole = ids_of(renderer, CHAT, "whatever you like")
    prompt = [{"role": "user", "content": "tea " * 100}, *CHAT[1:]]
    encoded = renderer.encode([(prompt, "whatever you like"), (CHAT[:1], "so")])
    cut = encoded.ids[: encoded.lengths[0]].tolist()
    assert encoded.lengths[0] == 64
    assert encoded.notes == {"prompts_cut": 1, "answers_cut": 0}
    assert cut[-12:] == whole[-12:]
    if renderer.tokenizer.cls_token or renderer.tokenizer.bos_token:
        assert cut[0] == whole[0]


def test_a_long_answer_loses_its_end_and_leaves_room_for_the_prompt(renderer):
    answer = "for example " + "tea " * 200
    encoded = renderer.encode([(CHAT, answer), (CHAT, "so")])
    cut = encoded.ids[:64].tolist()
    assert encoded.lengths[0] == 64
    assert encoded.notes == {"prompts_cut": 1, "answers_cut": 1}
    trailer = renderer.trailer
    assert trailer
    assert cut[-len(trailer) :] == trailer
    text = renderer.tokenizer.decode(cut)
    assert "by step" in text.replace("##", "")
    assert "for example" in text


def test_a_text_of_exactly_the_longest_length_is_not_cut(folders):
    length = len(ids_of(make(folders["llama"], 10_000), CHAT, "so"))
    assert make(folders["llama"], length).encode([(CHAT, "so")]).notes == {}
    assert make(folders["llama"], length - 1).encode([(CHAT, "so")]).notes["prompts_cut"] == 1


def test_a_huge_text_costs_no_more_than_a_long_one(renderer):
    start = time.perf_counter()
    huge = [
        ([{"role": "user", "content": "tea " * 500_000}], "tea " * 200_000),
        (CHAT, "x" * 5_000_000),
        (CHAT, " " * 5_000_000),
    ]
    encoded = renderer.encode(huge)
    assert (encoded.lengths <= 64).all()
    assert encoded.notes["answers_shortened"] == 3
    assert time.perf_counter() - start < 5


text = st.text(st.characters(codec="utf-8", categories=None), max_size=80)
turn = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": text})


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(turn, max_size=4), text)
def test_any_text_gives_tokens_that_fit_and_hold_no_padding(renderer, prompt, answer):
    encoded = renderer.encode([(prompt, answer)])
    assert 1 <= encoded.lengths[0] <= 64
    assert (encoded.ids >= 0).all()
    assert (encoded.ids < len(renderer.tokenizer)).all()
    assert renderer.tokenizer.pad_token_id not in encoded.ids


def test_encoding_one_by_one_equals_encoding_together(renderer):
    rows = [(CHAT, "so"), ([], ""), (CHAT[:1], "tea " * 99), ([], "whales")]
    together = renderer.encode(rows)
    alone = [renderer.encode([row]).ids for row in rows]
    assert np.array_equal(together.ids, np.concatenate(alone))


STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['content'] }}|{% endfor %}"
)


def test_strict_templates_get_turns_they_accept(folders):
    renderer = make(folders["llama"])
    renderer.tokenizer.chat_template = STRICT
    system = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert renderer.text((system, "hi")) == "be brief\n\nhello|hi|"
    assert renderer.text(([], "hi")) == "|hi|"
    twice = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert renderer.text((twice, "c")) == "a\n\nb|c|"


def test_a_template_that_refuses_everything_is_bad_data(folders):
    renderer = make(folders["llama"])
    renderer.tokenizer.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(BadData, match=r"roles user, assistant: never"):
        renderer.text((CHAT[:1], "c"))


def test_merging_joins_neighbors_of_one_role_only():
    assert merge_turns(CHAT) == CHAT
    assert merge_turns([]) == []
    both = merge_turns([*CHAT, {"role": "user", "content": "now"}])
    assert both[-1] == {"role": "user", "content": "step by step\n\nnow"}
