"""Rewards that need no training find a planted truth: the method, its honest baseline, the oracle."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

torch = pytest.importorskip("torch")

from models.errors import BadBackbone
from models.neural.causal import CausalModel
from models.neural.likelihood import Limits, read, read_next
from models.neural.training_free import (
    density_ratio,
    endogenous,
    likelihoods,
    token_rewards,
    variants,
    yes_no,
)
from tests.models import tiny
from tests.models.languages import LETTERS, NO, YES, Letters, tokenizer_of, written

pytestmark = pytest.mark.neural

PROMPT = [{"role": "user", "content": "q"}]
STRINGS = [y for k in range(1, 4) for y in product(LETTERS, repeat=k)]


def accuracy(score, truth, pairs):
    """Share of pairs (a, b) that score orders as truth does; equal scores are half right."""
    right = [np.sign(score[a] - score[b]) * np.sign(truth[a] - truth[b]) for a, b in pairs]
    return (1 + np.mean(right)) / 2


def some_pairs(truth, count, seed=0):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(truth), size=(count * 2, 2))
    return [(a, b) for a, b in drawn if truth[a] != truth[b]][:count]


# 2.4: density ratio


@pytest.fixture(scope="module")
def tilted():
    rng = np.random.default_rng(4)
    weak = Letters({y: rng.gamma(1.0) for y in STRINGS})
    utility = {y: float(u) for y, u in zip(STRINGS, rng.normal(size=len(STRINGS)), strict=True)}
    return weak, utility, weak.tilted(utility, beta=0.5)


def test_density_ratio_is_the_utility_of_an_exactly_tilted_model(tilted):
    weak, utility, strong = tilted
    asked = [(PROMPT, " ".join(y)) for y in STRINGS]
    models = strong.model(seed=1), weak.model(seed=2)
    ratio, notes = density_ratio(*models, asked)
    u = np.array([utility[y] for y in STRINGS])
    log_z = np.log(sum(p * np.exp(utility[y] / 0.5) for y, p in weak.p.items()))
    assert ratio == pytest.approx(u / 0.5 - log_z, abs=1e-4)
    assert not notes["tokenized_separately"]
    pairs = some_pairs(u, 500)
    likelihood = likelihoods(read(models[0], asked)[0])
    told = (
        f"density ratio {accuracy(ratio, u, pairs):.3f}, likelihood by the strong model alone "
        f"{accuracy(likelihood, u, pairs):.3f}, oracle {accuracy(u, u, pairs):.3f}, n=500"
    )
    assert spearmanr(ratio, u).statistic == pytest.approx(1), told
    assert accuracy(likelihood, u, pairs) < 0.9, told


def test_density_ratio_without_the_end_misses_what_stopping_says(tilted):
    """The end of the turn carries a part of the preference: it counts unless it is turned off."""
    weak, utility, strong = tilted
    asked = [(PROMPT, " ".join(y)) for y in STRINGS]
    models = strong.model(seed=1), weak.model(seed=2)
    cut, _ = density_ratio(*models, asked, count_end=False)
    assert spearmanr(cut, [utility[y] for y in STRINGS]).statistic < 0.95


def test_identical_models_give_exactly_zero(folders, qwen):
    asked = [(PROMPT, text) for text in ("tea", "for example bread", "so " * 30)]
    assert density_ratio(qwen, qwen, asked)[0].tolist() == [0, 0, 0]
    again = CausalModel.load(str(folders["qwen"]), device="cpu")
    assert density_ratio(qwen, again, asked)[0].tolist() == [0, 0, 0]
    assert density_ratio(qwen, again, asked, average=True)[0].tolist() == [0, 0, 0]


def test_each_model_reads_by_its_own_tokenizer_and_averages_by_its_own_count(qwen, llama):
    asked = [(PROMPT, text) for text in ("tea", "for example bread", "step by step, so")]
    one, other = read(qwen, asked)[0], read(llama, asked)[0]
    expected = [
        a.log_probabilities.mean() - b.log_probabilities.mean()
        for a, b in zip(one, other, strict=True)
    ]
    assert density_ratio(qwen, llama, asked, average=True)[0] == pytest.approx(expected, abs=1e-9)


# 2.5: yes or no

ANSWERS = [f"w{i}" for i in range(1200)]
U = np.random.default_rng(5).normal(size=len(ANSWERS))


def classifier(noise):
    """Finds the one answer in a text; its logit of each yes is u + noise (answers, variants)."""
    tokenizer = tokenizer_of([*ANSWERS, *YES, *NO])
    vocabulary = tokenizer.get_vocab()
    first = vocabulary[ANSWERS[0]]
    columns = [vocabulary[word] for word in YES]
    others = [vocabulary[word] for word in NO]

    def logits(ids):
        # Only the last place is read; answers are single tokens.
        found = torch.zeros(len(ids), len(tokenizer))
        answer = next((i - first for i in ids if first <= i < first + len(ANSWERS)), None)
        if answer is not None:
            found[:, columns] = torch.tensor(U[answer] + noise[answer], dtype=torch.float32)
            found[:, others] = 0
        return found

    return written(logits, tokenizer)


QUESTIONS = [[{"role": "user", "content": f"answer\n{text}\nis it good"}] for text in ANSWERS]
PAIRS = [(i, i + 1) for i in range(0, len(ANSWERS), 2)]


def test_yes_no_reaches_the_analytic_accuracy_of_a_noisy_classifier():
    rng = np.random.default_rng(6)
    noise = rng.normal(scale=0.8, size=(len(ANSWERS), 1)).repeat(len(YES), axis=1)
    scores, _ = yes_no(classifier(noise), QUESTIONS, limits=Limits(tokens_per_forward=512))
    assert scores == pytest.approx(U + noise[:, 0], abs=1e-4)
    gaps = np.array([abs(U[a] - U[b]) for a, b in PAIRS])
    expected = norm.cdf(gaps / (0.8 * np.sqrt(2))).mean()
    spread = np.sqrt(
        (norm.cdf(gaps / (0.8 * np.sqrt(2))) * norm.sf(gaps / (0.8 * np.sqrt(2)))).sum()
    )
    spread /= len(PAIRS)
    measured = accuracy(scores, U, PAIRS)
    told = f"yes-no {measured:.3f}, analytic {expected:.3f} ± {spread:.3f}, chance 0.5, oracle 1.0"
    assert abs(measured - expected) < 3 * spread, told
    assert measured > 0.6, told


def test_summing_all_variants_beats_any_single_one():
    """Which variant a model prefers is noise; what it says by all of them together is less so."""
    rng = np.random.default_rng(7)
    model = classifier(rng.normal(scale=1.5, size=(len(ANSWERS), len(YES))))
    summed = accuracy(yes_no(model, QUESTIONS)[0], U, PAIRS)
    vocabulary = model.tokenizer.get_vocab()
    groups = [[vocabulary[word]] for word in (*YES, *NO)]
    shares, _ = read_next(model, QUESTIONS, groups)
    single = [accuracy(shares[:, i] - shares[:, len(YES) + i], U, PAIRS) for i in range(len(YES))]
    told = f"summed {summed:.3f}, single {np.round(single, 3).tolist()}, oracle 1.0, n={len(PAIRS)}"
    assert summed > max(single) + 0.02, told


def test_variants_are_all_surface_forms_and_a_label_is_only_itself(qwen):
    model = classifier(np.zeros((len(ANSWERS), len(YES))))
    vocabulary = model.tokenizer.get_vocab()
    assert variants(model, "yes") == sorted(vocabulary[word] for word in YES)
    letters = [qwen.tokenizer.decode([i]) for i in variants(qwen, "A")]
    assert "A" in letters
    assert {text.strip() for text in letters} == {"A"}


def test_a_vocabulary_without_yes_is_refused():
    model = Letters({("a",): 1.0, ("b",): 1.0}).model(seed=0)
    with pytest.raises(BadBackbone, match="no token for 'yes'"):
        yes_no(model, [PROMPT])


# 2.8: endogenous reward


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: tiny.FAMILIES[name](tmp_path_factory.mktemp(name) / "model")
        for name in ("llama", "qwen")
    }


def loud(folder):
    """A tiny model whose weights were made large enough for it to prefer something."""
    model = CausalModel.load(str(folder), device="cpu")
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


@pytest.fixture(scope="module")
def qwen(folders):
    return CausalModel.load(str(folders["qwen"]), device="cpu")


@pytest.fixture(scope="module")
def llama(folders):
    return loud(folders["llama"])


REPLIES = ["tea", "for example bread", "step by step, so", "whales " * 9, "to be honest, comets"]
ASKED = [(PROMPT, text) for text in REPLIES]


@pytest.mark.parametrize("alpha", [1.0, 0.5, 3.0])
def test_token_rewards_telescope(llama, alpha):
    """Their sum is alpha log pi(y|x) + V(s_1), with both computed here from plain logits."""
    readings, _ = read(llama, ASKED, alpha=alpha)
    outcome, _ = endogenous(llama, ASKED, alpha=alpha)
    for reading, (prompt, text), score in zip(readings, ASKED, outcome, strict=True):
        ids, start = by_hand(llama.tokenizer, prompt, text)
        with torch.no_grad():
            logits = llama.module(torch.tensor([ids])).logits[0].double()  # (t, V)
        log_pi = (logits / alpha).log_softmax(-1)[range(start - 1, len(ids) - 1), ids[start:]]
        value = alpha * (logits[start - 1] / alpha).logsumexp(-1)
        assert token_rewards(reading).shape == (len(ids) - start,)
        expected = (alpha * log_pi.sum() + value).item()
        assert token_rewards(reading).sum() == pytest.approx(expected, abs=1e-4)
        assert score == pytest.approx(expected, abs=1e-4)


def by_hand(tokenizer, prompt, text):
    """Tokens of a conversation by the template alone, and where the reply begins."""
    whole = [*prompt, {"role": "assistant", "content": text}]
    head, ids = (
        tokenizer.apply_chat_template(m, tokenize=True, return_dict=False, add_generation_prompt=g)
        for m, g in ((prompt, True), (whole, False))
    )
    assert ids[: len(head)] == head
    return ids, len(head)


def test_outcome_ranks_replies_to_one_prompt_as_likelihood_does(llama):
    outcome, _ = endogenous(llama, ASKED)
    likelihood = likelihoods(read(llama, ASKED)[0])
    assert np.argsort(outcome).tolist() == np.argsort(likelihood).tolist()
    assert np.ptp(outcome - likelihood) < 1e-4
    assert outcome[3] == min(outcome), "the longest loses"


def styled():
    """Likes some words for no reason; words of a style more where the style was asked for."""
    rng = np.random.default_rng(8)
    words = [f"▁w{i}" for i in range(40)]
    tokenizer = tokenizer_of(["Assistant:", "System:", "User:", "▁brief", *words])
    vocabulary = tokenizer.get_vocab()
    liked = torch.tensor(rng.normal(scale=2.0, size=len(tokenizer)), dtype=torch.float32)
    style = torch.zeros(len(tokenizer))
    style[[vocabulary[word] for word in words[:20]]] = 1.0
    asked = vocabulary["▁brief"]

    def logits(ids):
        said = torch.tensor(ids).eq(asked).cumsum(0).gt(0)  # (t,)
        return liked + 1.2 * style * said[:, None]  # (t, V)

    replies, truth = [], []
    for _ in range(300):
        count, length = rng.integers(0, 5), rng.integers(7, 11)
        drawn = [*rng.integers(0, 20, size=count), *rng.integers(20, 40, size=length - count)]
        replies.append((PROMPT, " ".join(f"w{i}" for i in rng.permutation(drawn))))
        truth.append(count / length)
    return written(logits, tokenizer), replies, np.array(truth)


def test_the_difference_recovers_what_was_asked_for_and_the_outcome_does_not():
    model, replies, truth = styled()
    criteria = [[{"role": "system", "content": "be brief"}]] * len(replies)
    pairs = some_pairs(truth, 600)
    measured = {
        form: accuracy(endogenous(model, replies, form=form, criteria=criteria)[0], truth, pairs)
        for form in ("difference", "average", "outcome")
    }
    told = f"{measured}, oracle 1.0, n={len(pairs)}"
    assert measured["difference"] > 0.9, told
    assert measured["average"] < measured["difference"] - 0.1, told
    assert measured["outcome"] < 0.65, told


def test_log_probabilities_in_place_of_logits_are_refused(llama):
    class Normalized(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.config, self.base_model = inner, inner.config, None

        def get_input_embeddings(self):
            return self.inner.get_input_embeddings()

        def get_output_embeddings(self):
            return None

        def forward(self, **given):
            output = self.inner(**given)
            output.logits = output.logits.log_softmax(-1)
            return output

    model = CausalModel(Normalized(llama.module), llama.tokenizer, device=torch.device("cpu"))
    readings, _ = read(model, ASKED)
    assert np.abs(readings[1].values).max() < 1e-4
    with pytest.raises(BadBackbone, match="log-probabilities, not logits"):
        endogenous(model, ASKED)
    with pytest.raises(BadBackbone, match="log-probabilities, not logits"):
        token_rewards(readings[1])
    ratio, _ = density_ratio(model, llama, ASKED)
    assert ratio == pytest.approx(0, abs=1e-4), "sums of log-probabilities are the same either way"


def test_a_reply_without_tokens_has_no_score(qwen):
    empty = [(PROMPT, ""), (PROMPT, "tea")]
    outcome, _ = endogenous(qwen, empty, count_end=False)
    assert np.isnan(outcome).tolist() == [True, False]
    assert np.isfinite(endogenous(qwen, empty)[0]).all(), "its end of turn is a token"
