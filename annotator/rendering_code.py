"""Fenced code from hostile text as HTML with three classes: keyword, string, comment."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from html import escape
from time import monotonic
from typing import Any, Final

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, String, Token

MAX_BLOCK_CHARS: Final = 10_000
SECONDS: Final = 0.15  # for all code of one text; a typical block takes a thousandth of it

# Only lexers whose worst step was measured: the name of the language comes from the model, and
# some backtrack without end (Scala's on a quote and backslashes, C's on a long run of blanks).
_LONG_BLANK: Final = re.compile(r"\s{80}")
_LANGUAGES: Final[dict[str, str]] = {
    **dict.fromkeys(("python", "py", "python3"), "python"),
    **dict.fromkeys(("javascript", "js", "jsx", "mjs", "node"), "javascript"),
    **dict.fromkeys(("typescript", "ts", "tsx"), "typescript"),
    **dict.fromkeys(("bash", "sh", "shell", "zsh"), "bash"),
    **dict.fromkeys(("sql", "postgres", "postgresql", "mysql", "sqlite"), "sql"),
    **dict.fromkeys(("cpp", "c++", "cc", "cxx"), "cpp"),
    **dict.fromkeys(("rust", "rs"), "rust"),
    **dict.fromkeys(("ruby", "rb"), "ruby"),
    **dict.fromkeys(("kotlin", "kt"), "kotlin"),
    **dict.fromkeys(("go", "golang"), "go"),
    **dict.fromkeys(("yaml", "yml"), "yaml"),
    **dict.fromkeys(("haskell", "hs"), "haskell"),
    **{
        name: name
        for name in ["c", "java", "json", "swift", "r", "lua", "html", "xml", "css", "toml", "diff"]
    },
}
_CLASSES: Final = ((Keyword, "k"), (String, "s"), (Comment, "c1"))


def language_of(info: str) -> str:
    """Return the lexer's name for a fence's info string, or an empty string."""
    words = info.strip().lower()[:80].split(maxsplit=1)
    return _LANGUAGES.get(words[0].strip("{}."), "") if words else ""


def highlight(code: str, language: str, *, until: float | None = None) -> str:
    """Return escaped HTML whose text is exactly `code`, with classed spans where known.

    `until` is the `time.monotonic()` at which coloring stops: the rest then has none.
    """
    if not language or len(code) > MAX_BLOCK_CHARS or _LONG_BLANK.search(code):
        return escape(code, quote=False)
    deadline = monotonic() + SECONDS if until is None else until
    out: list[str] = []
    run: list[str] = []
    current = ""
    for start, kind, value in _lexer(language).get_tokens_unprocessed(code):
        if monotonic() > deadline:
            _close(out, run, current)
            return "".join(out) + escape(code[start:], quote=False)
        found = _class_of(kind)
        if found != current:
            _close(out, run, current)
            run, current = [], found
        run.append(value)
    _close(out, run, current)
    return "".join(out)


def _close(out: list[str], run: list[str], name: str) -> None:
    text = escape("".join(run), quote=False)
    if text:
        out.append(f'<span class="{name}">{text}</span>' if name else text)


@lru_cache(maxsize=256)
def _class_of(kind: Any) -> str:
    if kind is Token.Literal.String.Single:
        return "s1"
    return next((name for parent, name in _CLASSES if kind in parent), "")


@cache  # one for each language in the table
def _lexer(language: str) -> Lexer:
    return get_lexer_by_name(language)
