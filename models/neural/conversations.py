"""Conversations as text and tokens, the same way in training, in scoring and outside.

A tokenizer without a chat template is given a plain one, saved with it, so that
``tokenizer.apply_chat_template(messages, tokenize=True)`` on a saved model yields exactly the
tokens it was trained on, special ones included.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

import numpy as np
from jinja2.exceptions import TemplateError
from numpy.typing import NDArray

from models.errors import BadData
from models.neural.store import Conversation, Encoded
from models.pairs import Message, as_messages

PAD: Final = "<|pad|>"
MARK: Final = "touchstone"
CHARACTERS_PER_TOKEN: Final = (
    32  # texts are cut to this many per allowed token before they are read
)
PROMPT_SHARE: Final = 4  # an answer that is too long still leaves 1/4 of the room to its prompt
RENDER_VERSION: Final = 1  # of what follows; part of the encoding's fingerprint


def prepare_tokenizer(tokenizer: Any) -> None:
    """Give the tokenizer what a reward model needs: right padding, a pad token, a template.

    A pad token that is also the end token would hide the end of every text from models that read
    the reward at the last token that is not padding, so such a tokenizer gets one of its own.
    """
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.add_special_tokens({"pad_token": PAD})
    if not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = plain_template(tokenizer)


def plain_template(tokenizer: Any) -> str:
    """Role-prefixed turns, with the special tokens this tokenizer has."""
    begin, end = "cls_token", "sep_token"  # encoders
    if tokenizer.cls_token is None:  # decoders; where one token is both, it is the end
        begin = "bos_token" if tokenizer.bos_token != tokenizer.eos_token else ""
        end = "eos_token"
    opening = f"{{{{ {begin} }}}}" if getattr(tokenizer, begin or "_", None) else ""
    closing = f"{{{{ {end} }}}}" if getattr(tokenizer, end, None) else ""
    return (
        opening + "{% for message in messages %}"
        "{{ message['role'] | capitalize }}: {{ message['content'] }}"
        "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% else %}" + closing + "{% endif %}"
    )


class Renderer:
    """Turns conversations into token ids of at most ``max_length``."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        special = sorted(set(tokenizer.all_special_tokens), key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        self.trailer = self._trailer()

    def text(self, conversation: Conversation) -> str:
        """The whole conversation as one string, special tokens written out."""
        prompt, answer = conversation
        return self._render([*prompt, *as_messages(answer)], generation=False)

    def encode(self, conversations: list[Conversation]) -> Encoded:
        """Tokens of every conversation. Counts prompts_cut and answers_cut."""
        notes: Counter[str] = Counter()
        shortened = [self._shorten(conversation, notes) for conversation in conversations]
        tokens = self._tokens([self.text(conversation) for conversation in shortened])
        for i, ids in enumerate(tokens):
            if len(ids) > self.max_length:
                tokens[i] = self._fit(ids, shortened[i][0], notes)
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        flat: NDArray[np.int32] = np.fromiter(
            (i for ids in tokens for i in ids), dtype=np.int32, count=int(lengths.sum())
        )
        return Encoded(ids=flat, values=None, lengths=lengths, notes=notes)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        tokens: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=False, verbose=False, return_attention_mask=False
        )["input_ids"]
        # A model reads at least one token: a template may render an empty answer as nothing.
        return [ids or [self._filler()] for ids in tokens]

    def _filler(self) -> int:
        ids = [self.tokenizer.eos_token_id, self.tokenizer.sep_token_id, 0]
        return next(i for i in ids if i is not None)

    def _render(self, messages: list[Message], *, generation: bool) -> str:
        safe = [{"role": m["role"], "content": self._neutral(m["content"])} for m in messages]
        safe = merge_turns(safe)
        for attempt in (safe, _strict(safe)):
            try:
                rendered: str = self.tokenizer.apply_chat_template(
                    attempt, tokenize=False, add_generation_prompt=generation
                )
            except TemplateError as error:
                reason = str(error)
            else:
                return rendered
        roles = ", ".join(m["role"] for m in messages)
        raise BadData(
            f"The model's chat template refuses a conversation of the roles {roles}: {reason}",
            advice="Choose another backbone, or leave such conversations out.",
        )

    def _neutral(self, content: str) -> str:
        """Special tokens written in a text, broken by a zero-width space: text is only text."""
        return self.special.sub(lambda m: m[0][:1] + "\u200b" + m[0][1:], content)

    def _shorten(self, conversation: Conversation, notes: Counter[str]) -> Conversation:
        """Cut what cannot fit by far, so that a huge text costs no more than a long one."""
        room = self.max_length * CHARACTERS_PER_TOKEN
        prompt, answer = conversation
        if sum(len(message["content"]) for message in prompt) > room:
            prompt = [m | {"content": m["content"][-room:]} for m in prompt]
        messages = as_messages(answer)
        if sum(len(message["content"]) for message in messages) > room:
            messages = [m | {"content": m["content"][:room]} for m in messages]
            notes["answers_shortened"] += 1
        return prompt, messages

    def _fit(self, ids: list[int], prompt: list[Message], notes: Counter[str]) -> list[int]:
        """Drop tokens from the start of the prompt, then from the end of the answer.

        What opens the text ([CLS], BOS) and what closes it (EOS, the end of turn) stay.
        """
        opening = {self.tokenizer.cls_token_id, self.tokenizer.bos_token_id} - {None}
        lead = ids[:1] if ids[0] in opening else []
        ends = bool(self.trailer) and ids[-len(self.trailer) :] == self.trailer
        trailer = self.trailer[-(self.max_length // 2) :] if ends else []
        body = ids[len(lead) : len(ids) - (len(self.trailer) if ends else 0)]
        head = self._tokens([self._render(prompt, generation=True)])[0] if prompt else []
        before = min(max(len(head) - len(lead), 0), len(body))
        room = self.max_length - len(lead) - len(trailer)
        answer = min(len(body) - before, room - min(before, room // PROMPT_SHARE))
        kept = room - answer
        notes["prompts_cut"] += kept < before
        notes["answers_cut"] += answer < len(body) - before
        start = max(before - kept, 0)
        return [*lead, *body[start : before + answer], *trailer]

    def _trailer(self) -> list[int]:
        """The tokens that the template puts after an answer."""
        text = self._render(
            [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}],
            generation=False,
        )
        after = text.rpartition(MARK)[2]
        ids: list[int] = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        return ids if after else []


def merge_turns(messages: list[Message]) -> list[Message]:
    """Messages with neighbors of one role joined by a blank line, as most templates demand."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            joined = f"{merged[-1]['content']}\n\n{message['content']}"
            merged[-1] = {"role": message["role"], "content": joined}
        else:
            merged.append(message)
    return merged


def _strict(messages: list[Message]) -> list[Message]:
    """For templates that know only user and assistant, in turn, starting with the user."""
    known = [m if m["role"] == "assistant" else m | {"role": "user"} for m in messages]
    if not known or known[0]["role"] == "assistant":
        known = [{"role": "user", "content": ""}, *known]
    return merge_turns(known)
