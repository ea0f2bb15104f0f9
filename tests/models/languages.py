"""Small language models whose probabilities are known exactly, with the transformers interface."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from models.neural.causal import CausalModel

LETTERS = ("a", "b", "c")
END = "</s>"
YES = ("yes", "Yes", "YES", "▁yes", "▁Yes", "▁YES")
NO = ("no", "No", "NO", "▁no", "▁No", "▁NO")


def tokenizer_of(words: list[str]) -> PreTrainedTokenizerFast:
    """One token per word, with ▁ for a space before it; lines are split, the rest is <unk>."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", END, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never"),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token=END)


class Written(torch.nn.Module):
    """A language model given by a function: ids (t,) -> raw logits (t, columns)."""

    def __init__(self, logits: Callable[[list[int]], torch.Tensor], columns: int) -> None:
        super().__init__()
        self.of = logits
        self.config = SimpleNamespace(vocab_size=columns, max_position_embeddings=4096)
        self.base_model = None

    def get_input_embeddings(self) -> SimpleNamespace:
        return SimpleNamespace(num_embeddings=self.config.vocab_size)

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids, attention_mask, use_cache):
        return SimpleNamespace(logits=torch.stack([self.of(row) for row in input_ids.tolist()]))


def written(
    logits: Callable[[list[int]], torch.Tensor],
    tokenizer: PreTrainedTokenizerFast,
    *,
    pads: int = 0,
) -> CausalModel:
    module = Written(logits, len(tokenizer) + pads)
    return CausalModel(module, tokenizer, device=torch.device("cpu"))


class Letters:
    """A distribution over all strings of up to ``longest`` letters, and the model that has it."""

    def __init__(self, masses: dict[tuple[str, ...], float]) -> None:
        total = sum(masses.values())
        self.p = {string: mass / total for string, mass in masses.items()}
        self.longest = max(map(len, masses))

    def tilted(self, utility: dict[tuple[str, ...], float], beta: float) -> Letters:
        return Letters({y: p * np.exp(utility[y] / beta) for y, p in self.p.items()})

    def model(self, seed: int) -> CausalModel:
        """Its raw logits are log-probabilities plus an arbitrary constant per state."""
        tokenizer = tokenizer_of(["Assistant:", "User:", "▁q", *(f"▁{x}" for x in LETTERS)])
        vocabulary = tokenizer.get_vocab()
        opening, letters = vocabulary["Assistant:"], {vocabulary[f"▁{x}"]: x for x in LETTERS}

        def after(prefix: tuple[str, ...]) -> torch.Tensor:
            found = torch.full((len(tokenizer),), -torch.inf)
            for i, x in letters.items():
                found[i] = np.log(self._mass((*prefix, x)) or 1e-300)
            found[vocabulary[END]] = np.log(self.p.get(prefix) or 1e-300)
            constant = np.random.default_rng([seed, len(prefix), *map(ord, prefix)]).normal(3, 2)
            return found + constant

        def logits(ids: list[int]) -> torch.Tensor:
            start = max((at for at, i in enumerate(ids) if i == opening), default=len(ids))
            rows = []
            for at in range(len(ids)):
                said = tuple(letters.get(i, "?") for i in ids[start + 1 : at + 1])
                is_state = at >= start and all(x in LETTERS for x in said)
                known = is_state and len(said) <= self.longest
                rows.append(after(said) if known else torch.zeros(len(tokenizer)))
            return torch.stack(rows)

        return written(logits, tokenizer)

    def _mass(self, prefix: tuple[str, ...]) -> float:
        return sum(p for y, p in self.p.items() if y[: len(prefix)] == prefix)
