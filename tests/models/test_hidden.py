"""CHES: its identities on planted states, what it ranks highest, and what it foretells of DPO."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

torch = pytest.importorskip("torch")

from models.errors import BadBackbone
from models.neural.answers import Models, answer
from models.neural.causal import CausalModel
from models.neural.hidden import mean_states, products
from models.neural.likelihood import Limits, Splitter, read
from models.neural.shipped.preference_losses import dpo
from tests.models import tiny
from tests.models.planted import FILLER

pytestmark = pytest.mark.neural

PROMPT = [{"role": "user", "content": "tell me about tea"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.qwen(tmp_path_factory.mktemp("ches") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> CausalModel:
    return CausalModel.load(str(folder), device="cpu")


def ches(found: np.ndarray) -> np.ndarray:
    """Where the first answer is chosen."""
    return found[:, 0] - found[:, 1]


def words(rng: np.random.Generator, count: int) -> str:
    return " ".join(rng.choice(FILLER, size=count))


def some_pairs(rng: np.random.Generator, count: int) -> list[tuple[Any, str, str]]:
    """Pairs of unlike answers of 4 to 24 words."""
    return [(PROMPT, *(words(rng, int(rng.integers(4, 25))) for _ in "ab")) for _ in range(count)]


def test_identical_answers_score_zero_exactly(model: CausalModel) -> None:
    rng = np.random.default_rng(1)
    same = [(PROMPT, text, text) for text in (words(rng, 7), "so", "x " * 40)]
    found, _ = products(model, same + some_pairs(rng, 5))
    assert (ches(found)[:3] == 0).all()
    assert (ches(found)[3:] != 0).all()


def test_orthogonal_answers_score_minus_the_square_of_chosen(model: CausalModel) -> None:
    """A model whose states are its embeddings: of answers without a common token orthogonal."""
    bare = copy.deepcopy(model.module)
    bare.model.layers = torch.nn.ModuleList()
    pair = (PROMPT, "aabb", "ccdd")
    (one, other), _ = Splitter(model.tokenizer, 256).split(
        [(PROMPT, pair[1]), (PROMPT, pair[2])], count_end=True
    )
    letters = [*one.ids[one.start : -1], *other.ids[other.start : -1]]
    assert not {*one.ids[one.start : -1]} & {*other.ids[other.start : -1]}
    with torch.no_grad():
        bare.model.embed_tokens.weight.zero_()  # what ends the prompt is nothing
        for place, token in enumerate(dict.fromkeys(letters)):
            bare.model.embed_tokens.weight[token, place] = 1.0
    found, _ = products(CausalModel(bare, model.tokenizer, device=model.device), [pair])
    assert found[0, 0] == 0
    assert ches(found)[0] == -found[0, 1] < 0


def test_means_are_over_states_that_predict_the_answer_and_its_end(model: CausalModel) -> None:
    text = words(np.random.default_rng(2), 9)
    (tokens,), _ = Splitter(model.tokenizer, 256).split([(PROMPT, text)], count_end=True)
    ids = torch.tensor([tokens.ids])
    with torch.inference_mode():
        whole = model.module(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    aim = whole[0, tokens.start - 1 : -1].double().mean(0).numpy()
    found, _ = mean_states(model, [(PROMPT, text)])
    np.testing.assert_allclose(found[0], aim, rtol=1e-5, atol=1e-6)


def test_padding_and_batches_change_nothing(model: CausalModel) -> None:
    pairs = some_pairs(np.random.default_rng(3), 12)
    together, _ = products(model, pairs)
    alone = np.concatenate([products(model, [pair])[0] for pair in pairs])
    split, _ = products(model, pairs, limits=Limits(tokens_per_forward=128))
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    np.testing.assert_allclose(together, split, rtol=1e-4)


def test_near_duplicates_are_in_the_top_decile(model: CausalModel) -> None:
    rng = np.random.default_rng(4)
    pairs = some_pairs(rng, 190)
    for _ in range(10):
        text = words(rng, 20)
        pairs.append((PROMPT, text, f"{text} {rng.choice(FILLER)}"))
    scores = ches(products(model, pairs)[0])
    assert set(range(190, 200)) <= set(np.argsort(scores)[-20:].tolist())


def test_high_scores_foretell_that_the_chosen_answer_falls(model: CausalModel) -> None:
    """A step of DPO on each pair alone: the higher its score, the less chosen gains. Raw length
    says nothing of the kind: answers are equally long."""
    rng = np.random.default_rng(5)
    pairs = []
    for _ in range(36):
        one = rng.choice(FILLER, size=10)
        other = one.copy()
        changed = rng.choice(10, size=int(rng.integers(1, 11)), replace=False)
        other[changed] = rng.choice(FILLER, size=len(changed))
        pairs.append((PROMPT, " ".join(one), " ".join(other)))
    scores = ches(products(model, pairs)[0])
    before = np.array([gain_of_a_step(model, pair) for pair in pairs])
    assert spearmanr(scores, before).statistic < -0.3


def gain_of_a_step(model: CausalModel, pair: tuple[Any, str, str]) -> float:
    """How much one step of DPO on a pair changes the log-probability of its chosen answer."""
    stepped = CausalModel(
        copy.deepcopy(model.module), model.tokenizer, device=model.device, name="copy"
    )
    prompt, chosen, rejected = pair
    (before,), _ = read(model, [(prompt, chosen)])
    texts, _ = Splitter(model.tokenizer, 256).split(
        [(prompt, chosen), (prompt, rejected)], count_end=True
    )
    logs = []
    for text in texts:
        ids = torch.tensor([text.ids])
        logits = stepped.module(input_ids=ids).logits[0, text.start - 1 : -1].log_softmax(-1)
        logs.append(logits.gather(1, ids[0, text.start :, None]).sum())
    # At the reference the log-ratios are 0, and only their gradients matter.
    loss = dpo(*(one - one.detach() for one in logs))
    loss.backward()
    with torch.no_grad():
        for parameter in stepped.module.parameters():
            if parameter.grad is not None:
                parameter -= 1e-2 * parameter.grad
    (after,), _ = read(stepped, [(prompt, chosen)])
    return float(after.log_probabilities.sum() - before.log_probabilities.sum())


def test_a_process_answers_with_three_numbers_a_pair(folder: Path, model: CausalModel) -> None:
    pairs = some_pairs(np.random.default_rng(6), 3)
    request = {
        "method": "hidden-products",
        "models": [str(folder)],
        "precision": "fp32",
        "pairs": pairs,
        "max_length": 256,
        "tokens_per_forward": 4096,
    }
    reply = answer(request, Models(), lambda: None)
    np.testing.assert_allclose(np.reshape(reply["scores"], (3, 3)), products(model, pairs)[0])


def test_no_pairs_and_models_that_show_no_states(model: CausalModel) -> None:
    found, notes = products(model, [])
    assert found.shape == (0, 3)
    assert not notes

    class Silent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = model.module.config
            self.inner = model.module

        @property
        def base_model(self) -> Any:
            return self

        def get_input_embeddings(self) -> Any:
            return self.inner.get_input_embeddings()

        def get_output_embeddings(self) -> None:
            return None

        def forward(self, *, output_hidden_states: bool = False, **given: Any) -> Any:
            return self.inner(**given)

    silent = CausalModel(Silent(), model.tokenizer, device=model.device, name="silent")
    with pytest.raises(BadBackbone, match="no hidden states"):
        products(silent, some_pairs(np.random.default_rng(7), 1))
