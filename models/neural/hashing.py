"""The hashing backbone: a linear reward on hashed n-grams of the response, given its prompt.

Nothing is fitted before training, nothing is downloaded. Hashes are CRC-32 of the words mixed in
64-bit arithmetic, so a model gives the same scores in every process and on every machine.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.backbones import HashingOptions
from models.errors import BadArtifact
from models.neural import priors
from models.neural.store import Conversation, Encoded, Store
from models.pairs import Message, answer_text, require_texts

# One token per word or punctuation mark; scripts without spaces are taken character by character.
UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD: Final = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")
DIGIT: Final = re.compile(r"\d")
CHARACTERS_PER_WORD: Final = 32  # a text is cut to this many per allowed word before it is read
FEATURES_VERSION: Final = 1  # of the encoding below; stored with every model
DENSE: Final = 16  # the first places are for whole-response features, hashes start after them

WORDS, CHARACTERS, SHARED = 1, 2, 3  # kinds of hashed feature
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
MIX: Final = np.uint64(0xBF58476D1CE4E5B9)


class LinearBackbone:
    """Sparse features in buckets and a linear head: r(x, y) = W f(x, y), d numbers.

    Subclasses say what the features are: ``encode``, ``fingerprint`` and ``versions``.
    """

    group_by_length = False
    clip = math.inf
    evaluations = 10  # per run, where the configuration does not say; they are cheap here
    cpu_threads = 1  # the arrays are too small to share out, which costs tenfold on a busy machine

    def __init__(self, options: Any, *, device: torch.device, outputs: int = 1) -> None:
        self.options, self.device, self.outputs = options, device, outputs
        self.check: Callable[[], None] = lambda: None
        self.module = nn.EmbeddingBag(2**options.buckets_log2, outputs, mode="sum").to(device)
        nn.init.zeros_(self.module.weight)

    @classmethod
    def create(cls, argument: str, options: Any, *, device: torch.device, outputs: int = 1) -> Self:
        """A new model; ``argument`` is empty for this backbone."""
        return cls(options, device=device, outputs=outputs)

    @classmethod
    def load(cls, folder: Path, options: Any, *, device: torch.device, outputs: int = 1) -> Self:
        """A saved model. Raises BadArtifact."""
        backbone = cls(options, device=device, outputs=outputs)
        try:
            backbone.module.load_state_dict(load_file(folder / "model.safetensors"))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise BadArtifact(f"{folder.name}: the weights cannot be read ({error}).") from error
        return backbone

    def save(self, folder: Path) -> None:
        """Write the weights into ``folder``."""
        save_file({"weight": self.module.weight.detach().cpu()}, folder / "model.safetensors")

    def fit(self, store: Store, rows: NDArray[np.int64], *, seed: int) -> None:
        """Nothing is measured before training."""

    def optimizer(self, train_pairs: int) -> torch.optim.Optimizer:
        """Adam on loss + l2 / (2n) |w|²: a Gaussian prior, so n pairs outweigh it as n grows."""
        return torch.optim.Adam(
            self.module.parameters(),
            lr=self.options.learning_rate,
            weight_decay=self.options.l2 / train_pairs,
            fused=True,
        )

    def attach_prior(self, generator: torch.Generator) -> priors.Prior:
        """Add a random prior (models.neural.priors)."""
        return priors.attach(self.module, generator)

    def schedule(self, progress: float) -> float:
        """Share of the peak learning rate at ``progress`` in 0..1: straight down to zero."""
        return 1 - progress

    def parts(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """How to split a batch for memory; features are small, so not at all."""
        return [np.arange(len(lengths))]

    def forward(self, store: Store, sequences: NDArray[np.int64]) -> Tensor:
        """Outputs (m, d) fp32 of the given sequences of a store."""
        positions, lengths = store.gather(sequences)
        assert store.values is not None
        ids = torch.from_numpy(store.ids[positions].astype(np.int64)).to(self.device)  # (nnz,)
        values = torch.from_numpy(np.array(store.values[positions])).to(self.device)  # (nnz,)
        offsets = torch.from_numpy(np.cumsum(lengths) - lengths).to(self.device)  # (m,)
        return self.module(ids, offsets, per_sample_weights=values)  # (m, d)


class HashingBackbone(LinearBackbone):
    """Hashed n-grams of the answer, and what it shares with its prompt."""

    options: HashingOptions

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes the encoding."""
        o = self.options
        return f"{FEATURES_VERSION}-{o.word_ngrams}-{o.char_ngrams}-{o.buckets_log2}-{o.max_words}"

    @property
    def versions(self) -> dict[str, str]:
        return {"features": str(FEATURES_VERSION)}

    def encode(self, conversations: list[Conversation]) -> Encoded:
        """Sparse features of every conversation, indices sorted within each."""
        require_texts(answer for _, answer in conversations)
        return encode(conversations, self.options)


def encode(conversations: list[Conversation], options: HashingOptions) -> Encoded:
    """Features of m conversations at once: no Python loop over words beyond splitting them.

    Counted: n-grams of the response's words and characters, and its words that the last user turn
    has too, each with the square root of its count. Measured: length, emptiness, share of words
    shared with the last turn and with the whole prompt, variety, question, lines, digits, and how
    many different words are shared with the last turn.
    """
    notes: Counter[str] = Counter()
    limit = options.max_words
    prompts = list({id(prompt): prompt for prompt, _ in conversations}.values())
    row = {id(prompt): i for i, prompt in enumerate(prompts)}  # both sides of a pair share one
    shared = np.array([row[id(prompt)] for prompt, _ in conversations], dtype=np.int64)  # (m,)
    answers = [_opening(answer_text(answer), limit, notes) for _, answer in conversations]
    words, document = _flat(answers)
    keys = _keyed(words, shared[document])
    in_turn = np.isin(keys, _keyed(*_flat([_closing(p[-1:], limit) for p in prompts])))
    in_prompt = in_turn | np.isin(keys, _keyed(*_flat([_closing(p[:-1], limit) for p in prompts])))

    hashed = [
        (document[: len(grams)][valid], grams[valid])
        for grams, valid in _ngrams(words, document, 1, options.word_ngrams, WORDS)
    ]
    hashed.append((document[in_turn], _mix(words[in_turn], SHARED)))
    if options.char_ngrams >= 3:
        letters, of_letter = _letters(answers)
        hashed += [
            (of_letter[: len(grams)][valid], grams[valid])
            for grams, valid in _ngrams(letters, of_letter, 3, options.char_ngrams, CHARACTERS)
        ]
    dense = _dense(conversations, words, document, in_turn, in_prompt)  # (m, 9)
    return _csr(hashed, dense, buckets=2**options.buckets_log2, notes=notes)


def _opening(text: str, limit: int, notes: Counter[str]) -> list[str]:
    """The first ``limit`` lower-case words of a response; a cut one is counted."""
    cut = text[: limit * CHARACTERS_PER_WORD]
    words = WORD.findall(cut.lower())
    notes["answers_cut"] += len(cut) < len(text) or len(words) > limit
    return words[:limit]


def _closing(messages: list[Message], limit: int) -> list[str]:
    """The last ``limit`` lower-case words of some messages."""
    text = "\n".join(message["content"] for message in messages)
    return WORD.findall(text[-limit * CHARACTERS_PER_WORD :].lower())[-limit:]


@lru_cache(maxsize=2**18)
def _hash_word(word: str) -> int:
    return crc32(word.encode())


def _flat(documents: list[list[str]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash and document of every word, (t,) each."""
    hashes = np.fromiter((_hash_word(w) for d in documents for w in d), dtype=np.uint64)
    return hashes, np.repeat(np.arange(len(documents)), [len(d) for d in documents])


def _letters(documents: list[list[str]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Code point and document of every character, words joined by single spaces, (t,) each."""
    texts = [" ".join(words) for words in documents]
    points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    return points.astype(np.uint64), np.repeat(np.arange(len(texts)), [len(t) for t in texts])


def _keyed(hashes: NDArray[np.uint64], document: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One number per (document, word): words hash to 32 bits."""
    return (document.astype(np.uint64) << np.uint64(32)) | hashes


def _mix(hashes: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """Spread the bits (the splitmix64 step), differently for every kind of feature."""
    h = (hashes + np.uint64(salt)) * GOLDEN
    h = (h ^ (h >> np.uint64(30))) * MIX
    return h ^ (h >> np.uint64(27))


def _ngrams(
    items: NDArray[np.uint64], document: NDArray[np.int64], shortest: int, longest: int, kind: int
) -> list[tuple[NDArray[np.uint64], NDArray[np.bool_]]]:
    """Hashes (t - n + 1,) of all runs of n items, and which of them stay in one document."""
    found = []
    grams = _mix(items, kind)
    for n in range(1, min(longest, len(items)) + 1):
        if n > 1:  # grams of n - 1 items, extended by the item after them
            grams = _mix(grams[:-1] * GOLDEN + items[n - 1 :], kind)
        if n >= shortest:
            found.append((grams, document[: len(grams)] == document[n - 1 :]))
    return found


def _dense(
    conversations: list[Conversation],
    words: NDArray[np.uint64],
    document: NDArray[np.int64],
    in_turn: NDArray[np.bool_],
    in_prompt: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Whole-response features, (m, up to DENSE), of about unit size."""
    m = len(conversations)
    count = np.bincount(document, minlength=m)
    some = np.maximum(count, 1)
    first = np.unique(_keyed(words, document), return_index=True)[1]  # of each different word
    different = np.bincount(document[first], minlength=m)
    shared = np.bincount(document[first], weights=in_turn[first], minlength=m)
    texts = [answer_text(answer) for _, answer in conversations]
    return np.stack(
        [
            np.log1p(count) / 4,
            count == 0,
            np.bincount(document, weights=in_turn, minlength=m) / some,
            np.bincount(document, weights=in_prompt, minlength=m) / some,
            different / some,
            np.array([text.rstrip().endswith("?") for text in texts]),
            np.log1p([text.count("\n") for text in texts]) / 2,
            np.array([DIGIT.search(text) is not None for text in texts]),
            np.log1p(shared),
        ],
        axis=1,
    )


def _csr(
    hashed: list[tuple[NDArray[np.int64], NDArray[np.uint64]]],
    dense: NDArray[np.float64],
    *,
    buckets: int,
    notes: Counter[str],
) -> Encoded:
    """Count hashed features per document and put the dense ones before them."""
    room = np.uint64(buckets - DENSE)
    keys = [
        document * buckets + DENSE + (grams % room).astype(np.int64) for document, grams in hashed
    ]
    found, counts = np.unique(np.concatenate(keys), return_counts=True)
    row, column = np.nonzero(dense)
    places = np.concatenate([row * buckets + column, found])
    values = np.concatenate([dense[row, column], np.sqrt(counts)])
    order = np.argsort(places, kind="stable")
    places = places[order]
    return Encoded(
        ids=(places % buckets).astype(np.int32),
        values=values[order].astype(np.float32),
        lengths=np.bincount(places // buckets, minlength=len(dense)).astype(np.int64),
        notes=notes,
    )
