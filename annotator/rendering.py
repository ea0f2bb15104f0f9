"""Hostile text (model output, prompts, guidelines, rationales) as HTML that is safe to show.

Everything a model wrote stays visible: raw HTML, unsafe links and formulas that cannot be shown
appear as the text they are. Nothing is loaded from anywhere, nothing needs an inline style, and
any text takes bounded time. What is left at the end goes through an allow-list once more.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from html import escape
from threading import Lock
from time import monotonic
from typing import Any, Final, NamedTuple

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from annotator import rendering_code, rendering_math

logger = logging.getLogger(__name__)

MAX_CHARS: Final = 200_000
MAX_WORK: Final = 20_000  # marks and line ends: what parsing time grows with
LINE_WORK: Final = 2
BRACKET_WORK: Final = 6  # an opening bracket is looked at once for each level it may nest in
MAX_NESTING: Final = 40
MAX_TABLE_CELLS: Final = 10_000
MAX_PLAIN_CHARS: Final = 1_000_000
MAX_MESSAGES: Final = 200
MAX_URL_CHARS: Final = 2_000

_BLOCKS: Final = frozenset(["p", "h3", "h4", "h5", "h6", "ul", "ol", "blockquote", "table"])
_OTHERS: Final = "hr br li strong em del code pre span a div thead tbody tr th td"
_TAGS: Final = _BLOCKS.union(_OTHERS.split(), rendering_math.MATH_TAGS)
_SPAN_CLASSES: Final = {"k", "s", "s1", "c1", "image"}
_CLEANER: Final = nh3.Cleaner(
    tags=set(_TAGS),
    clean_content_tags={"script", "style"},
    attributes={
        "a": {"href", "title"},
        "ol": {"start"},
        **{tag: set(rendering_math.MATH_ATTRIBUTES) for tag in rendering_math.MATH_TAGS},
    },
    tag_attribute_values={
        **{tag: {"dir": {"auto"}} for tag in _BLOCKS},
        "pre": {"dir": {"ltr", "auto"}, "tabindex": {"0"}},
        "code": {"dir": {"ltr"}},
        "div": {"tabindex": {"0"}},
    },
    allowed_classes={
        "pre": {"code", "plain"},
        "code": {"math"},
        "span": _SPAN_CLASSES,
        "div": {"scroll"},
        "p": {"note"},
        "th": {"num"},
        "td": {"num"},
        **{tag: set(names) for tag, names in rendering_math.MATH_CLASSES.items()},
    },
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
)


class Message(NamedTuple):
    """One turn of a conversation, ready for a template."""

    role: str
    html: SafeString
    text: str


class TooComplex(Exception):
    """The text would lose content or take too long as Markdown."""


def render_markdown(text: str, *, math: bool = True, breaks: bool = True) -> SafeString:
    """Return a text's Markdown as safe HTML; never raises, whatever the text is.

    Headings move down two levels, so that they nest under the `h2` that names the answer and keep
    their use for people who jump by heading. With `breaks`, single line ends show, as in a chat;
    guidelines wrapped by an editor want False. A text over a limit comes back as plain text in
    ``<pre class="code plain">`` below a note that says why.
    """
    key = (text, math, breaks)
    cached = _CACHE.get(key)
    if cached is None:
        cached = _render(text, math=math, breaks=breaks)
        _CACHE.put(key, cached)
    return cached


def render_plain(text: str) -> SafeString:
    """Return a text as it was written, for the raw view: ``<pre class="source">``."""
    body = visible(text[:MAX_PLAIN_CHARS])[:MAX_PLAIN_CHARS]
    # HTML drops a newline right after <pre>.
    return mark_safe(f'<pre class="source" dir="auto" tabindex="0">\n{escape(body)}</pre>')


def render_messages(messages: Iterable[Any], *, math: bool = True) -> list[Message]:
    """Return chat messages rendered, each with its role and its text as written.

    A message is a mapping with `role` and `content`; the content is a text or a list of parts, as
    in the OpenAI format. Anything else is shown as the text of itself. Over `MAX_MESSAGES` the
    middle is left out, which a message of role "note" says.
    """
    turns = list(messages)
    left_out = len(turns) - MAX_MESSAGES
    if left_out > 0:
        half = MAX_MESSAGES // 2
        note = {"role": "note", "content": f"{left_out:,} messages are not shown here."}
        turns = [*turns[:half], note, *turns[-half:]]
    rendered = []
    for turn in turns:
        role, text = _turn(turn)
        rendered.append(Message(role, render_markdown(text, math=math), text))
    return rendered


def summary_line(text: str, limit: int = 80) -> str:
    """Return the start of a text as one unescaped line of at most `limit` characters."""
    start = visible(text[: 8 * limit + 400])
    words = _MARKS.sub("", _FENCES.sub(" ", start)).split()
    line = " ".join(words)
    if len(line) <= limit:
        return line if len(text) <= 8 * limit + 400 else f"{line[: limit - 1]}…"
    cut = line[: limit - 1]
    spaced = cut.rsplit(" ", 1)[0] if " " in cut[limit // 2 :] else cut
    return f"{spaced.rstrip(' ,;:.')}…"


_MARKS: Final = re.compile(r"^\s{0,3}(?:#{1,6}\s|>\s?|[-*+]\s)|[*`]|__", re.MULTILINE)
_FENCES: Final = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)

_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_SHOWN: Final[dict[int, str]] = {
    **dict.fromkeys((0, 0xFEFF), ""),
    **{code: chr(0x2400 + code) for code in range(1, 0x20) if chr(code) not in "\n\t"},
    0x7F: "\u2421",
    **{code: f"[U+{code:04X}]" for code in (*range(0x80, 0xA0), *range(0x202A, 0x202F))},
    **{code: f"[U+{code:04X}]" for code in range(0x2066, 0x206A)},
    **dict.fromkeys((0x85, 0x2028, 0x2029), "\n"),
    **dict.fromkeys((*range(0xD800, 0xE000), 0xFFFE, 0xFFFF), "\ufffd"),
}


def visible(text: str) -> str:
    """Return a text with line ends as \\n and what the eye cannot see made visible.

    NUL and byte order marks go, control characters become their pictures (␛), direction overrides
    their code points ([U+202E]): they can make code read differently from what it does. Lone
    surrogates, which no encoder takes, become U+FFFD.
    """
    if _UNSEEN.search(text) is None:
        return text
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_SHOWN)


# Rendering -----------------------------------------------------------------------------------


def _render(text: str, *, math: bool, breaks: bool) -> SafeString:
    if len(text) > MAX_CHARS:
        return _as_plain(text, f"{len(text):,} characters is over the limit of {MAX_CHARS:,}")
    shown = visible(text)
    if _work(shown) > MAX_WORK:
        return _as_plain(text, f"it has more than {MAX_WORK:,} marks and line ends")
    try:
        html = _PARSERS[math, breaks].render(shown, {})
        if not html and shown.strip():
            raise TooComplex("Markdown leaves nothing of it to see")
        return mark_safe(_CLEANER.clean(html))
    except TooComplex as reason:
        return _as_plain(text, str(reason))
    except Exception:
        # A fault in a parser must not take the page with it: the text shows, the log has the rest.
        logger.exception("text of %d characters could not be rendered", len(text))
        return _as_plain(text, "it could not be read as Markdown")


def _work(text: str) -> int:
    """Return an upper bound of what parsing costs, in marks; zero where it cannot matter."""
    if len(text) * (BRACKET_WORK + 1) <= MAX_WORK:
        return 0
    marks = sum(map(text.count, "]*_`<&|$!\\~>#-"))
    return marks + LINE_WORK * text.count("\n") + BRACKET_WORK * text.count("[")


def _as_plain(text: str, reason: str) -> SafeString:
    """Return a text escaped, below a note.

    Not in ``class="source"``: the stylesheet hides that one until the raw view is asked for.
    """
    note = f"Shown as plain text: {reason}."
    body = visible(text[:MAX_PLAIN_CHARS])[:MAX_PLAIN_CHARS]
    if len(text) > MAX_PLAIN_CHARS:
        note += f" These are the first {MAX_PLAIN_CHARS:,} characters."
    return mark_safe(
        f'<p class="note">{escape(note)}</p>\n'
        f'<pre class="code plain" dir="auto" tabindex="0"><code>{escape(body)}</code></pre>'
    )


def _turn(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict):
        return "unknown", str(turn)
    role = summary_line(str(turn.get("role") or turn.get("from") or "unknown"), 40)
    content = turn.get("content", turn.get("value", ""))
    if isinstance(content, list):
        content = "\n\n".join(map(_part, content))
    return role, "" if content is None else str(content)


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    if isinstance(part.get("text"), str):
        return str(part["text"])
    return f"[{part.get('type') or 'part'}]"


class _Parser(MarkdownIt):
    """markdown-it with links that go where they say, to three schemes only."""

    def validateLink(self, url: str) -> bool:
        if len(url) > MAX_URL_CHARS or _LINK.match(url) is None:
            return False
        # The sanitizer is stricter about hosts and ports: what it would drop stays text.
        return " href=" in _CLEANER.clean(f'<a href="{escape(url)}">')

    def normalizeLinkText(self, link: str) -> str:
        return link  # decoded punycode could pass one host off as another


_LINK: Final = re.compile(r"https?://[^\s/]|mailto:[^\s@]", re.IGNORECASE)


def _parser(*, math: bool, breaks: bool) -> MarkdownIt:
    md = _Parser("commonmark", {"html": False, "breaks": breaks, "maxNesting": MAX_NESTING})
    md.enable(["table", "strikethrough"])
    # A definition, used or not, would vanish from the text that is being judged.
    md.disable(["reference"])
    md.block.ruler.before("table", "guard", _guard)
    md.block.ruler.at("table", _small_table, {"alt": ["paragraph", "reference"]})
    md.core.ruler.push("arrange", _arrange)
    if math:
        rendering_math.install(md)
    for kind, rule in _RULES.items():
        md.add_render_rule(kind, rule)
    return md


def _guard(state: StateBlock, line: int, _end: int, _silent: bool) -> bool:
    """Stop before the parser drops what is nested too deeply, which it does without a word."""
    if state.level >= MAX_NESTING - 2:
        raise TooComplex("it is nested too deeply")
    return False


def _small_table(state: StateBlock, line: int, end: int, silent: bool) -> bool:
    """Refuse a table whose short rows the parser would fill up with a great many empty cells."""
    if line + 1 < end:
        columns = state.src.count("|", state.bMarks[line + 1], state.eMarks[line + 1]) + 1
        if columns > 12 and columns * (end - line) > MAX_TABLE_CELLS:
            return False
    return table(state, line, end, silent)


def _arrange(state: StateCore) -> None:
    """Set direction, heading level and column alignment on the parsed blocks."""
    for token in state.tokens:
        if token.level == 0 and token.nesting == 1:
            token.attrSet("dir", "auto")
        if token.tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
        elif token.type in ("th_open", "td_open"):
            style = token.attrs.pop("style", "")
            if style == "text-align:right":
                token.attrSet("class", "num")


def _table_open(self: Any, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
    columns = 0
    for token in tokens[idx : idx + 80]:
        columns += token.type == "th_open"
    focus = ' tabindex="0"' if columns > 4 else ""  # what scrolls must be reachable by key
    return f'<div class="scroll"{focus}>{self.renderToken(tokens, idx, options, env)}'


def _table_close(self: Any, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
    return "</table></div>\n"


def _fence(self: Any, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
    token = tokens[idx]
    until = env.setdefault("code_until", monotonic() + rendering_code.SECONDS)
    code = token.content.removesuffix("\n")
    body = rendering_code.highlight(code, rendering_code.language_of(token.info), until=until)
    return f'<pre class="code" dir="ltr" tabindex="0"><code>{body}</code></pre>\n'


def _code(self: Any, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
    return f'<code dir="ltr">{escape(tokens[idx].content)}</code>'


def _image(self: Any, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
    """Name an image instead of loading it: loading tells its host who is reading."""
    token = tokens[idx]
    alt = self.renderInlineAsText(token.children, options, env).strip()
    url = str(token.attrs.get("src", ""))
    shown = f"image: {alt} ({url})" if alt else f"image: ({url})"
    return f'<span class="image">{escape(shown)}</span>'


_RULES: Final = {
    "table_open": _table_open,
    "table_close": _table_close,
    "fence": _fence,
    "code_block": _fence,
    "code_inline": _code,
    "image": _image,
    "s_open": lambda *_: "<del>",
    "s_close": lambda *_: "</del>",
}
_PARSERS: Final = {
    (math, breaks): _parser(math=math, breaks=breaks)
    for math in (True, False)
    for breaks in (True, False)
}


# Cache ---------------------------------------------------------------------------------------


class _Cache:
    """Least recently used texts, bounded by number and by size; safe between threads."""

    def __init__(self, *, entries: int, chars: int, largest: int) -> None:
        self._entries, self._chars, self._largest = entries, chars, largest
        self._items: OrderedDict[tuple[str, bool, bool], SafeString] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: tuple[str, bool, bool]) -> SafeString | None:
        with self._lock:
            if key not in self._items:
                return None
            self._items.move_to_end(key)
            return self._items[key]

    def put(self, key: tuple[str, bool, bool], html: SafeString) -> None:
        size = len(key[0]) + len(html)
        if size > self._largest:
            return
        with self._lock:
            if key in self._items:
                return
            self._items[key] = html
            self._size += size
            while self._size > self._chars or len(self._items) > self._entries:
                (text, *_), oldest = self._items.popitem(last=False)
                self._size -= len(text) + len(oldest)


_CACHE: Final = _Cache(entries=2_048, chars=4_000_000, largest=100_000)
