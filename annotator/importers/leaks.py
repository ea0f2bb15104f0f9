"""Responses that give their model away, which makes a vote on them less than blind.

Conservative: a name counts only where the text speaks of itself ("As ChatGPT, I ...", "I am
Claude, made by Anthropic", "I was trained by OpenAI"), or where it is the very name of its
generator and that name is no ordinary word. Talking *about* a model is no leak, nor is a name
that the prompt has already given. Names that people, signs and birds have too (Claude, Gemini,
Falcon) need a word of machines or their maker close by.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from annotator.importers import transcripts
from annotator.importers.types import Reply, Row

TOKEN: Final = "[model]"
ORIGINAL: Final = "unredacted"  # in Response.extra: the text before it was redacted
NEAR: Final = 80  # characters after an ambiguous name in which the machine must show
MAX_LEAK: Final = 80

# No person, sign, bird or place is called so.
PLAIN: Final = (
    r"ChatGPT(?:[- ]?\d(?:\.\d)?)?|Instruct ?GPT|GPT[- ]?[2345](?:\.\d)?(?:[- ]?turbo|o)?"
    r"|Open ?Assistant|Deep ?Seek(?:[- ][\w.]+)?|Qwen[\d.]*|Vicuna(?:[- ]\d+b)?|Baichuan\d*"
    r"|ChatGLM\d*|InternLM\d*|WizardLM|StableLM|Mixtral|LLaMA[- ]?\d(?:\.\d)?|PaLM[- ]?2"
    r"|Tongyi Qianwen|ERNIE Bot|Bing Chat|(?:Microsoft|GitHub) Copilot|Google (?:Bard|Gemini)"
    r"|Claude[- ](?:[\d.]+|Instant|Opus|Sonnet|Haiku)|Gemini[- ](?:[\d.]+|Pro|Ultra|Flash|Nano)"
)
# Also people, signs and birds: only beside a machine.
SHARED: Final = (
    "Claude|Gemini|Bard|Falcon|Alpaca|Koala|Llama|LLaMA|Mistral|Grok|Copilot|Nova|Dolly|Zephyr"
    "|Command R|Pi|Phi|Titan|Aya|Tulu|Hermes|Kimi"
)
VENDORS: Final = (
    "OpenAI|Open AI|Anthropic|Google(?: DeepMind| AI)?|DeepMind|Meta(?: AI)?|Microsoft"
    "|Mistral AI|Cohere|Alibaba(?: Cloud)?|Baidu|xAI|LMSYS|EleutherAI|Stability AI|DeepSeek"
    "|Inflection(?: AI)?|Databricks|Zhipu AI|Moonshot AI|Tsinghua|Nous Research|LAION"
)
MACHINE: Final = re.compile(
    rf"\b(?:AI|A\.I\.|artificial intelligence|(?:language|AI) model|LLM|assistant|chat ?bot"
    rf"|(?:{VENDORS}))\b"
)
SELF: Final = (
    r"\b(?:I am|I['’]m|I was|[Mm]y name is|[Mm]y name['’]s|[Cc]all me|[Tt]his is|I go by"
    r"|[Yy]ou can call me|known as)"
)
ARTICLE: Final = r"(?:\s+(?:called|named|just|actually|simply|also))?\s+(?:an?\s+|the\s+)?"
# A name ends a phrase; "I am Claude Monet" and "I am Gemini-born" go on.
END: Final = r"(?![\w-])(?!\s+[A-Z])"
BY_NAME: Final = re.compile(
    rf"(?:{SELF}{ARTICLE}|\b[Aa]s\s+(?:an?\s+)?)"
    rf"(?P<name>(?:{PLAIN})|(?P<shared>{SHARED})){END}"
)
# "I am a large language model, trained by Google"; "As an AI developed by OpenAI".
BY_VENDOR: Final = re.compile(
    r"(?:\b(?:I am|I['’]m|I was|I have been|I['’]ve been)|\b[Aa]s an? (?:AI|large|language|virtual))"
    r"[^.!?\n]{0,80}?\b(?:created|made|developed|trained|built|designed|fine-tuned|powered)"
    rf"\s+by\s+(?:a team (?:at|of)\s+|the\s+)?(?P<name>{VENDORS})\b"
)
# A generator's name that is no ordinary word: letters with a digit or a joint among them.
DISTINCT: Final = re.compile(r"(?=.*[A-Za-z]{3})(?=.*(?:\d|[-_.])).{5,}\Z")


@dataclass(frozen=True)
class Leak:
    """The name given away and the words around it."""

    name: str
    quote: str


def find(text: str, *, generator: str = "", prompt: str = "") -> Leak | None:
    """The first name by which a response gives its model away."""
    # Without one of these nothing can match. Spelled out: a loop over them took a fifth of an
    # import's time.
    if (
        "I " in text
        or "I'" in text
        or "I’" in text
        or "As " in text
        or "as " in text
        or "y name" in text
        or "all me" in text
        or "his is" in text
    ):
        for match in BY_NAME.finditer(text):
            near = text[match.end() : match.end() + NEAR]
            if match["shared"] is None or MACHINE.search(near):
                return _leak(text, match)
        match = BY_VENDOR.search(text)
        if match is not None:
            return _leak(text, match)
    return _own_name(text, generator, prompt) if generator else None


def _own_name(text: str, generator: str, prompt: str) -> Leak | None:
    """The generator's own name, where it is distinctive and the prompt has not given it."""
    if DISTINCT.match(generator) is None:
        return None
    low = generator.lower()
    if low not in text.lower() or low in prompt.lower():
        return None
    match = re.search(rf"(?<![\w-])(?P<name>{re.escape(generator)})(?![\w-])", text, re.IGNORECASE)
    return _leak(text, match) if match else None


def _leak(text: str, match: re.Match[str]) -> Leak:
    begin = max(0, match.start() - 20)
    return Leak(match["name"][:MAX_LEAK], text[begin : match.end() + 40])


def redact(text: str, *, generator: str = "", prompt: str = "") -> tuple[str, list[Leak]]:
    """The text with every name it gives itself replaced, and those names."""
    leaks: list[Leak] = []
    while (leak := find(text, generator=generator, prompt=prompt)) is not None:
        leaks.append(leak)
        text = re.sub(rf"(?<!\w){re.escape(leak.name)}(?!\w)", TOKEN, text)
    return text, leaks


def check(row: Row, *, mode: str) -> list[Leak]:
    """Mark the replies of a row that give their model away; ``redact`` also replaces the names.

    ``row`` is changed: ``Reply.leak`` holds the name, ``extra["unredacted"]`` the first text.
    """
    found: list[Leak] = []
    prompt = ""
    for reply in row.replies:
        if reply.generator and not prompt:
            prompt = "\n".join(message["content"] for message in row.messages)
        leak = find(reply.text, generator=reply.generator, prompt=prompt)
        if leak is None:
            continue
        found.append(leak)
        reply.leak = leak.name
        if mode == "redact":
            _redact(reply, prompt)
    return found


def _redact(reply: Reply, prompt: str) -> None:
    kept: Any = reply.messages or reply.text
    reply.text, _ = redact(reply.text, generator=reply.generator, prompt=prompt)
    if reply.messages:
        reply.messages = _clean(reply.messages, reply.generator, prompt)
    reply.extra = {**(reply.extra or {}), ORIGINAL: kept}
    reply.extra.pop(transcripts.RAW, None)  # would give the name back in an export


def _clean(messages: Sequence[dict[str, str]], generator: str, prompt: str) -> list[dict[str, str]]:
    return [
        {**turn, "content": redact(turn["content"], generator=generator, prompt=prompt)[0]}
        if turn["role"] == "assistant"
        else turn
        for turn in messages
    ]
