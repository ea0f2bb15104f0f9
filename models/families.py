"""Which family a model is of, by its name: a judge may favor its own."""

from __future__ import annotations

import re
from typing import Final

# First words of names that belong together; any other name is of the family of its first word.
ALIASES: Final[dict[str, str]] = {
    "chatgpt": "gpt",
    "davinci": "gpt",
    "text-davinci": "gpt",
    "o1": "gpt",
    "o3": "gpt",
    "o4": "gpt",
    "bard": "gemini",
    "palm": "gemini",
    "codellama": "llama",
    "meta-llama": "llama",
    "mixtral": "mistral",
    "ministral": "mistral",
    "codestral": "mistral",
    "qwq": "qwen",
    "chatglm": "glm",
    "c4ai": "command",
}
WORD: Final = re.compile(r"[a-z]+")


def family_of(name: str) -> str:
    """``gpt``, ``claude``, ``llama``, ...; "" for a name without a letter.

    The name's organization ("meta-llama/") and provider ("openai:") are dropped; what counts is
    the word it begins with, so a model fine-tuned from another and renamed is of its own family.
    """
    stem = re.split(r"[/:]", name.lower().strip())[-1] or name.lower()
    for alias, family in ALIASES.items():
        if stem == alias or re.match(rf"{re.escape(alias)}[^a-z]", stem):
            return family
    found = WORD.search(stem)
    return ALIASES.get(found[0], found[0]) if found else ""
