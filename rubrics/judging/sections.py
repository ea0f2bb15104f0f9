"""Foreign text inside a prompt: fenced so that nothing in it can pass for the prompt itself.

A section is a pair of tags that carry a nonce drawn from the text of all sections. An answer
that contains "</answer A>" closes nothing: it would need to contain the hash of itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

NONCE_CHARS: Final = 8
FENCED: Final = re.compile(
    r"<(?P<name>[a-z][a-z ]*(?: [A-Z])?) (?P<nonce>[0-9a-f]{8})>\n(?P<text>.*?)\n</(?P=name) (?P=nonce)>",
    re.DOTALL,
)


def nonce_of(sections: Mapping[str, str]) -> str:
    """Hex that no section contains, the same for the same sections, so that caches hold."""
    for turn in range(1_000):
        text = "\0".join([str(turn), *(part for pair in sections.items() for part in pair)])
        nonce = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:NONCE_CHARS]
        if not any(nonce in part for part in sections.values()):
            return nonce
    raise ValueError("no nonce: the text contains a thousand of its own hashes")


def fence(name: str, text: str, nonce: str) -> str:
    """One section. Names are lower-case words, answers end in their label: "answer A"."""
    return f"<{name} {nonce}>\n{text}\n</{name} {nonce}>"


def read_sections(text: str) -> dict[str, str]:
    """The sections of a prompt by name, of the first nonce met: what a judge would see."""
    found: dict[str, str] = {}
    nonce = ""
    for match in FENCED.finditer(text):
        nonce = nonce or match["nonce"]
        if match["nonce"] == nonce:
            found[match["name"]] = match["text"]
    return found
