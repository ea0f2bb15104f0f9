"""LaTeX in hostile text: Markdown rules that find it, and MathML that is safe to show.

``latex2mathml`` builds an element tree and then serializes it with XML escaping undone, so its own
string output can carry ``<script>`` from ``\\text{...}``. Only its tree is used here; this module
writes the markup itself from an allow-list of elements and attributes.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any, Final
from xml.etree.ElementTree import Element

from latex2mathml.converter import Converter
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

logger = logging.getLogger(__name__)

MAX_FORMULA_CHARS: Final = 1_500
MAX_FORMULA_DEPTH: Final = 40
MAX_FORMULA_ELEMENTS: Final = 3_000
MAX_BLOCK_LINES: Final = 60
MAX_FORMULAS: Final = 300
MAX_MATH_CHARS: Final = 10_000

_CORE: Final = (
    "math mrow mi mn mo mtext mspace ms mfrac msqrt mroot msub msup msubsup munder mover munderover"
    " mmultiscripts mprescripts mtable mtr mtd mstyle mpadded mphantom"
)
MATH_TAGS: Final = frozenset(_CORE.split())
_CHILDREN: Final = {
    **dict.fromkeys(("mfrac", "mroot", "msub", "msup", "munder", "mover"), 2),
    **dict.fromkeys(("msubsup", "munderover"), 3),
}
_SWITCH: Final = re.compile(r"true|false")
_LENGTH: Final = re.compile(r"([+-]?\d*\.?\d+)(em|ex|px|pt)?")
_PIXELS: Final = {"em": 16.0, "ex": 8.0, "px": 1.0, "pt": 1.34, None: 1.0}
_NARROWEST: Final = -20.0  # enough for kerning, too little to lay one formula over another text
_WIDEST: Final = 320.0
_VALUES: Final[dict[str, re.Pattern[str]]] = {
    "display": re.compile(r"inline|block"),
    "form": re.compile(r"prefix|infix|postfix"),
    "scriptlevel": re.compile(r"[+-]?\d"),
    "mathvariant": re.compile(r"normal"),
    **dict.fromkeys(
        ("stretchy", "fence", "accent", "accentunder", "largeop", "movablelimits", "displaystyle"),
        _SWITCH,
    ),
}
_SIZES: Final = "width height depth lspace rspace voffset minsize maxsize linethickness"
_LENGTHS: Final = frozenset(_SIZES.split())
MATH_ATTRIBUTES: Final = frozenset({*_VALUES, *_LENGTHS})
MATH_CLASSES: Final = {
    "mtd": frozenset({"start", "end"}),
    "mrow": frozenset({"boxed", "canceled"}),
}

# A definition can double with every use: twenty short ones expand to a million tokens.
_DEFINES: Final = re.compile(
    r"\\(?:re|provide)?newcommand|\\providecommand|\\[egx]?def\b|\\let\b|\\DeclareMathOperator"
    r"|\\(?:re)?newenvironment"
)
_ENVIRONMENT: Final = re.compile(r"\\(begin|end)\s*\{([a-zA-Z]+\*?)\}(\{\d+\})?")
_SAME_AS: Final = {
    "aligned": "align*",
    "alignedat": "align*",
    "alignat": "align*",
    "alignat*": "align*",
    "align": "align*",
    "eqnarray": "align*",
    "eqnarray*": "align*",
    "gather": "matrix",
    "gather*": "matrix",
    "gathered": "matrix",
    "multline": "matrix",
    "multline*": "matrix",
    "dcases": "cases",
}
_PLAIN: Final = frozenset({"equation", "equation*", "displaymath", "math"})
_REFERENCE: Final = re.compile(r"&#x([0-9A-Fa-f]{1,6});")
_VARIANTS: Final = {
    "bold": ("MATHEMATICAL BOLD",),
    "bold-italic": ("MATHEMATICAL BOLD ITALIC",),
    "double-struck": ("MATHEMATICAL DOUBLE-STRUCK", "DOUBLE-STRUCK"),
    "script": ("MATHEMATICAL SCRIPT", "SCRIPT"),
    "fraktur": ("MATHEMATICAL FRAKTUR", "BLACK-LETTER"),
    "sans-serif": ("MATHEMATICAL SANS-SERIF",),
    "monospace": ("MATHEMATICAL MONOSPACE",),
}


class MathRefused(Exception):
    """The formula is over a limit or not in the part of LaTeX that can be shown."""


@lru_cache(maxsize=512)
def formula(latex: str, *, block: bool) -> str | None:
    """Return MathML for a formula without its delimiters, or None where it cannot be shown."""
    try:
        return _convert(latex, block=block)
    except MathRefused:
        return None
    except Exception:
        # The converter raises whatever its tree walk trips over (IndexError, StopIteration, ...):
        # the reader sees the source instead. Ordinary enough in model output to be debug only.
        logger.debug("formula of %d characters not shown", len(latex), exc_info=True)
        return None


def _convert(latex: str, *, block: bool) -> str:
    if len(latex) > MAX_FORMULA_CHARS:
        raise MathRefused("too long")
    if _DEFINES.search(latex):
        raise MathRefused("defines macros")
    source = _ENVIRONMENT.sub(_known_environment, latex)
    root = Converter(display="block" if block else "inline").convert_to_element(source)
    out: list[str] = []
    _write(root, out, 0)
    return "".join(out)


def _known_environment(match: re.Match[str]) -> str:
    side, name = match[1], match[2]
    if name in _PLAIN:
        return ""
    if name in _SAME_AS:
        return f"\\{side}{{{_SAME_AS[name]}}}"
    return match[0]


def _write(element: Element, out: list[str], depth: int) -> None:
    """Append the markup of an element whose every part came from hostile text."""
    if depth > MAX_FORMULA_DEPTH or len(out) > 3 * MAX_FORMULA_ELEMENTS:
        raise MathRefused("too deep or too large")
    tag, attributes = _portable(element)
    if tag not in MATH_TAGS or len(element) != _CHILDREN.get(tag, len(element)):
        raise MathRefused(f"element {tag} with {len(element)} children")
    text = _text(element.text or "", element.get("mathvariant", ""))
    if tag == "mi" and (text == "&" or (text[:1] == "\\" and len(text) > 1)):
        raise MathRefused("unknown command")
    out.append(f"<{tag}{attributes}>")
    out.append(escape(text, quote=False))
    for child in element:
        _write(child, out, depth + 1)
    out.append(f"</{tag}>")


def _portable(element: Element) -> tuple[str, str]:
    """Return the element's name and attributes in the part of MathML that browsers draw.

    MathML Core has neither ``menclose`` nor ``columnalign``: both become classes.
    """
    tag, classes = element.tag, ""
    if tag == "menclose":
        tag, classes = "mrow", "boxed" if element.get("notation") == "box" else "canceled"
    elif tag == "mtd":
        classes = {"left": "start", "right": "end"}.get(element.get("columnalign", ""), "")
    kept = [f' class="{classes}"'] if classes else []
    for name, value in element.attrib.items():
        if _allowed(name, value):
            kept.append(f' {name}="{value}"')
    return tag, "".join(kept)


def _allowed(name: str, value: str) -> bool:
    if name in _LENGTHS:
        match = _LENGTH.fullmatch(value) if len(value) < 12 else None
        return match is not None and _NARROWEST <= _pixels(match) <= _WIDEST
    pattern = _VALUES.get(name)
    return pattern is not None and pattern.fullmatch(value) is not None


def _pixels(length: re.Match[str]) -> float:
    return float(length[1]) * _PIXELS[length[2]]


def _text(text: str, variant: str) -> str:
    decoded = _REFERENCE.sub(_character, text)
    if variant in _VARIANTS:
        return "".join(_styled(char, variant) for char in decoded)
    return decoded


def _character(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    visible = 0x20 < code < 0x7F or 0xA0 <= code < 0xD800 or 0xE000 <= code < 0xFFFE
    if visible or 0x1D400 <= code < 0x20000:
        return chr(code)
    return "\ufffd"


@lru_cache(maxsize=1024)
def _styled(char: str, variant: str) -> str:
    """Return the mathematical alphanumeric of a letter: browsers ignore ``mathvariant``."""
    name = unicodedata.name(char, "")
    letter = re.sub(r"^(?:LATIN|GREEK) | ?\bLETTER\b", "", name).strip()
    for prefix in _VARIANTS[variant]:
        try:
            return unicodedata.lookup(f"{prefix} {letter}")
        except KeyError:
            continue
    return char


# Markdown rules. Written here instead of taken from mdit-py-plugins because those look for a
# missing closing mark to the end of the text, once for every opening one: quadratic in the input.

_BODY: Final = rf"((?:[^$\\]|\\.){{1,{MAX_FORMULA_CHARS}}}+)"
# Not money: no blank inside next to a dollar, no digit right behind the closing one.
_DOLLAR: Final = re.compile(rf"\$(?![\s$]){_BODY}(?<!\s)\$(?!\d)", re.DOTALL)
_DOUBLE: Final = re.compile(rf"\$\${_BODY}\$\$", re.DOTALL)
_CLOSING: Final = {"$$": "$$", "\\[": "\\]"}


def install(md: MarkdownIt) -> None:
    """Teach a parser ``$a$``, ``$$a$$``, ``\\(a\\)`` and ``\\[a\\]``."""
    md.inline.add_terminator_char("$")
    md.inline.ruler.before("escape", "math_inline", _inline_rule)
    interrupts = ["paragraph", "reference", "blockquote", "list"]
    md.block.ruler.before("fence", "math_block", _block_rule, {"alt": interrupts})
    md.add_render_rule("math_inline", _render)
    md.add_render_rule("math_block", _render)


def _inline_rule(state: StateInline, silent: bool) -> bool:
    start = state.src[state.pos]
    found = None
    if start == "$":
        found = _dollars(state)
    elif start == "\\" and state.pos + 1 < state.posMax:
        found = _brackets(state)
    if found is None:
        return False
    content, markup, end = found
    if end > state.posMax or not content.strip():
        return False
    if not silent:
        token = state.push("math_inline", "math", 0)
        token.content, token.markup = content, markup
    state.pos = end
    return True


def _dollars(state: StateInline) -> tuple[str, str, int] | None:
    src, pos = state.src, state.pos
    if src.startswith("$$", pos):
        match = _DOUBLE.match(src, pos)
        return (match[1], "$$", match.end()) if match else None
    if pos and src[pos - 1].isdigit():
        return None  # "5$ and 6$" is money
    match = _DOLLAR.match(src, pos)
    return (match[1], "$", match.end()) if match else None


def _brackets(state: StateInline) -> tuple[str, str, int] | None:
    opening = state.src[state.pos : state.pos + 2]
    closing = {"\\(": "\\)", "\\[": "\\]"}.get(opening)
    if closing is None:
        return None
    start = state.pos + 2
    end = state.src.find(closing, start, start + MAX_FORMULA_CHARS)
    return None if end < 0 else (state.src[start:end], opening, end + 2)


def _block_rule(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    if state.is_code_block(start_line):
        return False
    begin = state.bMarks[start_line] + state.tShift[start_line]
    opening = state.src[begin : begin + 2]
    closing = _CLOSING.get(opening)
    if closing is None:
        return False
    first = state.src[begin + 2 : state.eMarks[start_line]]
    if closing in first:
        if first.strip().find(closing) != len(first.strip()) - 2:
            return False  # text follows: the inline rule takes it
        lines, last = [first], start_line
    else:
        body = _rest_of_block(state, (start_line, end_line), closing)
        if body is None:
            return False
        lines, last = [first, *body], start_line + len(body)
    if silent:
        return True
    token = state.push("math_block", "math", 0)
    token.block, token.map = True, [start_line, last + 1]
    token.content, token.markup = "\n".join(lines).rstrip()[:-2], opening
    state.line = last + 1
    return True


def _rest_of_block(state: StateBlock, lines: tuple[int, int], closing: str) -> list[str] | None:
    """Return the lines after the first up to the one that ends the block, or None."""
    start, end = lines
    body: list[str] = []
    for line in range(start + 1, min(end, start + MAX_BLOCK_LINES)):
        if state.isEmpty(line) or state.sCount[line] < state.blkIndent:
            return None
        text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
        body.append(text)
        if text.rstrip().endswith(closing):
            return body
        if closing in text:
            return None
    return None


def _render(
    renderer: RendererProtocol,
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,
    env: EnvType,
) -> str:
    token = tokens[index]
    display = token.markup in _CLOSING
    mathml = formula(token.content.strip(), block=display) if _afford(token, env) else None
    if mathml is None:
        closing = {"\\(": "\\)", "\\[": "\\]"}.get(token.markup, token.markup)
        mathml = f'<code class="math">{escape(token.markup + token.content + closing)}</code>'
    if token.type == "math_block":
        return f'<div class="scroll">{mathml}</div>\n'
    return mathml


def _afford(token: Token, env: Any) -> bool:
    """Count one formula against the text's budget; False once it is spent."""
    count, chars = env.get("math", (0, 0))
    env["math"] = (count + 1, chars + len(token.content))
    return bool(count < MAX_FORMULAS and chars + len(token.content) <= MAX_MATH_CHARS)
