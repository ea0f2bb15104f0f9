"""What a causal language model thinks of a reply, token by token.

A prompt is rendered with the model's chat template and its generation prompt, a reply with the
turn's end. The reply's tokens are those of the whole conversation after those of the prompt, so
that they are the ones the model would write; the first one's logit stands at the last token of the
prompt. Where the prompt's tokens do not begin the whole's, or the template's tail does not end it
(some templates rewrite earlier turns, some tokenizers merge across the seam), prompt and reply are
tokenized apart and counted in ``tokenized_separately``.

Of what the template puts after a reply, the token that ends the turn is part of it unless
``count_end`` is off: a model chooses to stop. What follows that token never counts. A tokenizer
without a template reads "User: ...", "Assistant: ..." paragraphs and its own end of text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.errors import BadBackbone
from models.neural.causal import CausalModel
from models.neural.conversations import MARK, PROMPT_SHARE, Renderer
from models.neural.memory import in_batches
from models.pairs import Message, as_messages, clean_text

Floats = NDArray[np.float64]
Asked = tuple[list[Message], str]  # a prompt and one reply
FEWEST_TOKENS: Final = 4  # a shorter limit leaves no room for both


@dataclass(frozen=True)
class Tokens:
    """A conversation of t tokens, of which those from ``start`` are the reply's."""

    ids: list[int]
    start: int


@dataclass(frozen=True)
class Reading:
    """What a model says at each of the n tokens of a reply. s_h is all that precedes token h.

    ``logits`` (n,): raw Q(s_h, a_h) of the token that is there; ``values`` (n,):
    V(s_h) = alpha logsumexp(Q(s_h, .) / alpha) over the tokens of the vocabulary.
    """

    ids: NDArray[np.int64]
    logits: Floats
    values: Floats
    alpha: float = 1.0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def log_probabilities(self) -> Floats:
        """log pi(a_h | s_h) (n,) of the softmax at temperature alpha."""
        return (self.logits - self.values) / self.alpha


@dataclass(frozen=True)
class Limits:
    """How much is read at once. ``check`` is called between batches; what it raises ends it."""

    max_length: int = 4096
    tokens_per_forward: int = 16_384
    check: Callable[[], None] = lambda: None


DEFAULT: Final = Limits()


class Splitter(Renderer):
    """Turns prompts and replies into tokens of at most ``max_length``."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__(tokenizer, max(max_length, FEWEST_TOKENS))
        special = [at for at, i in enumerate(self.trailer) if i in tokenizer.all_special_ids]
        self.end = self.trailer[: special[0] + 1] if special else []
        self.header = self._header()

    def prompts(self, prompts: Sequence[list[Message]]) -> tuple[list[Tokens], Counter[str]]:
        """Tokens of prompts that a reply is to follow."""
        notes: Counter[str] = Counter()
        cleaned = [self._shorten((_clean(prompt), ""), notes)[0] for prompt in prompts]
        heads = self._tokens([self._opening(prompt) for prompt in cleaned])
        found = []
        for prompt, head in zip(cleaned, heads, strict=True):
            kept = self._keep(head, prompt, self.max_length, notes)
            found.append(Tokens(kept, len(kept)))
        return found, notes

    def split(
        self, asked: Sequence[Asked], *, count_end: bool
    ) -> tuple[list[Tokens], Counter[str]]:
        """Tokens of prompts with their replies. Counts prompts_cut, answers_cut and
        tokenized_separately."""
        notes: Counter[str] = Counter()
        cleaned = [
            self._shorten((_clean(prompt), clean_text(reply)), notes) for prompt, reply in asked
        ]
        openings = [self._opening(prompt) for prompt, _ in cleaned]
        wholes = [self.text(conversation) for conversation in cleaned]
        found = []
        for i, (head, whole) in enumerate(
            zip(self._tokens(openings), self._tokens(wholes), strict=True)
        ):
            body = self._between(head, whole)
            if body is None:
                notes["tokenized_separately"] += 1
                reply = as_messages(cleaned[i][1])[-1]["content"]
                body = self._body(openings[i], wholes[i], self._neutral(reply))
            end = self.end if count_end else []
            found.append(self._assemble(head, body, end, prompt=cleaned[i][0], notes=notes))
        return found, notes

    def _opening(self, prompt: list[Message]) -> str:
        return self._render(prompt, generation=True) + self.header

    def _between(self, head: list[int], whole: list[int]) -> list[int] | None:
        """The reply's tokens, where the prompt's begin the whole and the trailer ends it."""
        stop = len(whole) - len(self.trailer)
        if stop < len(head) or whole[: len(head)] != head or whole[stop:] != self.trailer:
            return None
        return whole[len(head) : stop]

    def _body(self, opening: str, whole: str, reply: str) -> list[int]:
        """The reply's tokens by themselves, as the template writes it where that can be told."""
        tail = self.tail
        if whole.startswith(opening) and whole.endswith(tail):
            reply = whole[len(opening) : len(whole) - len(tail)]
        ids: list[int] = self.tokenizer(reply, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _assemble(
        self,
        head: list[int],
        body: list[int],
        end: list[int],
        *,
        prompt: list[Message],
        notes: Counter[str],
    ) -> Tokens:
        """Fit: the prompt loses its start first, then the reply its end, and with it its stop."""
        room = self.max_length - min(len(head), self.max_length // PROMPT_SHARE)
        if len(body) + len(end) > room:
            body, end = body[:room], []
            notes["answers_cut"] += 1
        head = self._keep(head, prompt, self.max_length - len(body) - len(end), notes)
        return Tokens([*head, *body, *end], len(head))

    def _keep(
        self, head: list[int], prompt: list[Message], room: int, notes: Counter[str]
    ) -> list[int]:
        """The last ``room`` tokens of a prompt, after what opens it: BOS, the system message."""
        if len(head) <= room:
            return head
        notes["prompts_cut"] += 1
        system = [m for m in prompt[:1] if m["role"] == "system"]
        bare = self._render([*system, {"role": "user", "content": ""}], generation=True)
        lead = _common(head, self._tokens([bare])[0])[: room // 2]
        return [*lead, *head[len(head) - (room - len(lead)) :]]

    def _header(self) -> str:
        """What the template puts before a reply where it ignores ``add_generation_prompt``."""
        user = {"role": "user", "content": "?"}
        opening = self._render([user], generation=True)
        whole = self._render([user, {"role": "assistant", "content": MARK}], generation=False)
        before, _, self.tail = whole.rpartition(MARK)
        header = before[len(opening) :] if before.startswith(opening) else ""
        return header if header.strip() else ""


@torch.inference_mode()
def read(
    model: CausalModel,
    asked: Sequence[Asked],
    *,
    alpha: float = 1.0,
    count_end: bool = True,
    limits: Limits = DEFAULT,
) -> tuple[list[Reading], Counter[str]]:
    """One Reading per reply, in order, and what was done to the texts.

    Raises OutOfMemory where one text does not fit by itself, BadBackbone where the tokenizer
    knows tokens that the model does not.
    """
    splitter = Splitter(model.tokenizer, model.limit(limits.max_length))
    texts, notes = splitter.split(asked, count_end=count_end)
    require_known(model, texts)
    found: list[Reading | None] = [None] * len(texts)

    def run(batch: list[int]) -> None:
        readings = _read_batch(model, [texts[i] for i in batch], alpha)
        for i, reading in zip(batch, readings, strict=True):
            found[i] = reading

    in_batches(
        range(len(texts)),
        [len(text.ids) for text in texts],
        run,
        tokens=model.tokens_at_once(limits.tokens_per_forward),
        check=limits.check,
    )
    return [reading for reading in found if reading is not None], notes


@torch.inference_mode()
def read_next(
    model: CausalModel,
    prompts: Sequence[list[Message]],
    groups: Sequence[Sequence[int]],
    *,
    limits: Limits = DEFAULT,
) -> tuple[Floats, Counter[str]]:
    """log P(next token is one of group g) (m, groups) after each of m prompts."""
    splitter = Splitter(model.tokenizer, model.limit(limits.max_length))
    texts, notes = splitter.prompts(prompts)
    require_known(model, texts)
    found = np.empty((len(texts), len(groups)))

    def run(batch: list[int]) -> None:
        ids, mask = pad([texts[i] for i in batch], model.device)  # (b, t) each
        rows = torch.arange(len(batch), device=model.device)
        for piece, logits in model.logits_at(ids, mask, rows, mask.sum(1) - 1):  # (c, columns)
            whole = logits.logsumexp(1)  # (c,)
            for g, group in enumerate(groups):
                share = logits[:, list(group)].logsumexp(1) - whole  # (c,)
                found[batch[piece], g] = share.double().cpu().numpy()

    in_batches(
        range(len(texts)),
        [len(text.ids) for text in texts],
        run,
        tokens=model.tokens_at_once(limits.tokens_per_forward),
        check=limits.check,
    )
    return found, notes


def _read_batch(model: CausalModel, batch: list[Tokens], alpha: float) -> list[Reading]:
    ids, mask = pad(batch, model.device)  # (b, t) each
    counts = [len(text.ids) - text.start for text in batch]  # n_i reply tokens
    rows = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor(counts)).to(model.device)
    # The logit for the token at place h stands at h - 1.
    places = torch.cat([torch.arange(t.start - 1, len(t.ids) - 1) for t in batch])
    places = places.to(model.device)  # (n,)
    targets = ids[rows, places + 1]  # (n,)
    logits = torch.empty(len(rows), device=model.device)  # (n,)
    values = torch.empty(len(rows), device=model.device)  # (n,)
    for piece, all_logits in model.logits_at(ids, mask, rows, places):  # (c, columns) float32
        logits[piece] = all_logits.gather(1, targets[piece, None]).squeeze(1)
        values[piece] = alpha * (all_logits / alpha).logsumexp(1)
    ends = np.cumsum(counts)[:-1]
    parts = [np.split(x.double().cpu().numpy(), ends) for x in (logits, values)]
    tokens = np.split(targets.cpu().numpy(), ends)
    return [Reading(t, q, v, alpha) for t, q, v in zip(tokens, *parts, strict=True)]


def pad(batch: list[Tokens], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask (b, t), padded on the right whatever the tokenizer would do.

    A causal model never sees what comes later, so the padding is any token at all.
    """
    lengths = np.array([len(text.ids) for text in batch])
    mask = np.arange(lengths.max()) < lengths[:, None]  # (b, t)
    ids = np.zeros(mask.shape, dtype=np.int64)  # (b, t)
    ids[mask] = [i for text in batch for i in text.ids]
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).long().to(device)


def require_known(model: CausalModel, texts: Sequence[Tokens]) -> None:
    """Raise BadBackbone for tokens beyond the model's table: on a GPU they end the process."""
    largest = max((max(text.ids) for text in texts), default=0)
    if largest >= min(model.rows, model.columns):
        raise BadBackbone(
            f"The tokenizer of {model.name!r} has more tokens than the model.",
            advice="Its folder mixes the files of two models.",
        )


def _clean(prompt: list[Message]) -> list[Message]:
    """Fit for any tokenizer and template: some refuse to render no message at all."""
    prompt = prompt or [{"role": "user", "content": ""}]
    return [m | {"content": clean_text(m["content"])} for m in prompt]


def _common(one: list[int], other: list[int]) -> list[int]:
    """The tokens that both begin with."""
    same = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        same += 1
    return one[:same]
