"""Three rewards that need no training: what a language model says when it is read, not asked to write.

Scores compare replies to one prompt, never prompts. NaN where a reply has no token to read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from models.errors import BadBackbone
from models.neural.causal import CausalModel
from models.neural.likelihood import DEFAULT, Asked, Floats, Limits, Reading, read, read_next
from models.pairs import Message

Scores = tuple[Floats, Counter[str]]
Context = list[list[Message]]  # messages to put before each prompt, one list per reply


def yes_no(
    model: CausalModel,
    questions: Sequence[list[Message]],
    words: tuple[str, str] = ("yes", "no"),
    *,
    limits: Limits = DEFAULT,
) -> Scores:
    """Log-odds (m,) of the first word against the second as the next token after each question.

    P(yes) / (P(yes) + P(no)) is their sigmoid. Each word stands for all its surface variants.
    Implicit preference optimization (the language model as a preference classifier), 2025.
    """
    groups = [variants(model, word) for word in words]
    for word, group in zip(words, groups, strict=True):
        if not group:
            raise BadBackbone(
                f"The tokenizer of {model.name!r} has no token for {word!r}.",
                advice="Choose a model whose vocabulary holds whole words.",
            )
    shares, notes = read_next(model, questions, groups, limits=limits)  # (m, 2)
    return shares[:, 0] - shares[:, 1], notes


def variants(model: CausalModel, word: str) -> list[int]:
    """Tokens that are ``word`` and nothing else: in small letters, capitalized, in capitals,
    each with and without a space before it. A letter is a label: a small "a" is an article."""
    found = set()
    for form in {word.lower(), word.capitalize(), word.upper()} if len(word) > 1 else {word}:
        for text in (form, f" {form}"):
            ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
            # Some tokenizers put the space into a token of its own.
            while len(ids) > 1 and not model.tokenizer.decode(ids[:1]).strip():
                ids = ids[1:]
            if len(ids) == 1 and ids[0] != model.tokenizer.unk_token_id:
                found.add(ids[0])
    return sorted(found)


def density_ratio(
    strong: CausalModel,
    weak: CausalModel,
    asked: Sequence[Asked],
    *,
    average: bool = False,
    count_end: bool = True,
    limits: Limits = DEFAULT,
) -> Scores:
    """Sum over a reply's tokens of log pi_strong - log pi_weak (m,).

    Each model has its own tokenizer and template. ``average``: the mean per token, by each
    model's own count. If pi_strong is pi_weak tilted by exp(u / beta), as DPO makes it, this is
    u / beta less a constant of the prompt. Dr. SoW, ACL 2025.
    """
    readings, notes = read(strong, asked, count_end=count_end, limits=limits)
    if weak is strong:  # the same numbers by definition, whatever the hardware rounds
        others, more = readings, Counter[str]()
    else:
        others, more = read(weak, asked, count_end=count_end, limits=limits)
    ratios = likelihoods(readings, average=average) - likelihoods(others, average=average)
    return ratios, notes + more


def endogenous(
    model: CausalModel,
    asked: Sequence[Asked],
    *,
    form: str = "outcome",
    criteria: Context | None = None,
    alpha: float = 1.0,
    count_end: bool = True,
    limits: Limits = DEFAULT,
) -> Scores:
    """The reward (m,) that a model's own logits imply, read as soft Q. arXiv 2506.23235.

    ``outcome``: the sum of ``token_rewards``, which telescopes to alpha log pi(y|x) + V(s_1): it
    ranks the replies to one prompt exactly by likelihood, and so prefers short ones. ``average``:
    alpha log pi(y|x) per token, without V(s_1), which over a length is no constant.
    ``difference``: alpha (log pi(y|x, criteria) - log pi(y|x)), where ``criteria`` are the
    messages put before each prompt: what following them adds; replies likely in themselves gain
    nothing.
    """
    require_logits(model)
    criteria = criteria or [[] for _ in asked]
    conditioned = [
        (before + prompt, y) for before, (prompt, y) in zip(criteria, asked, strict=True)
    ]
    readings, notes = read(model, conditioned, alpha=alpha, count_end=count_end, limits=limits)
    if form == "outcome":
        return np.array([_total(token_rewards(reading)) for reading in readings]), notes
    if form == "average":
        return alpha * likelihoods(readings, average=True), notes
    plain, more = read(model, asked, alpha=alpha, count_end=count_end, limits=limits)
    return alpha * (likelihoods(readings) - likelihoods(plain)), notes + more


def token_rewards(reading: Reading) -> Floats:
    """Rewards (n,) of the tokens of a reply: alpha log pi(a_h|s_h) + V(s_h) - V(s_{h+1}).

    V after the last token is 0: the reply is over. Raises BadBackbone where all V are 0, which
    only log-probabilities give: then nothing is left but the likelihood.
    """
    if len(reading) and np.abs(reading.values).max() < 1e-4 and reading.alpha == 1:
        raise BadBackbone(
            "The values of all states are 0: these are log-probabilities, not logits."
        )
    following = np.append(reading.values[1:], 0.0)  # (n,)
    return reading.alpha * reading.log_probabilities + reading.values - following


def likelihoods(readings: Sequence[Reading], *, average: bool = False) -> Floats:
    """log pi(y|x) (m,) at the readings' temperature, or its mean per token."""
    totals = np.array([_total(reading.log_probabilities) for reading in readings])
    return totals / np.array([max(len(r), 1) for r in readings]) if average else totals


def require_logits(model: CausalModel) -> None:
    """Raise BadBackbone for a model that gives log-probabilities: its every V would be 0."""
    if model.is_normalized:
        raise BadBackbone(
            f"The model {model.name!r} gives log-probabilities, not logits: every value would be 0.",
            advice="Choose a model whose logits are raw.",
        )


def _total(values: Floats) -> float:
    return float(values.sum()) if len(values) else float("nan")
