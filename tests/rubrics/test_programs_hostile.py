"""Programs read hostile text: bounded work, no crash, the same answer twice."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pkgutil import iter_modules
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rubrics import programs
from rubrics.programs import PROGRAMS
from rubrics.programs.evaluate import evaluate, value

LARGE = 200_000
MOST_WORK = 2_000  # steps of a pattern from one place in the text
HOSTILE = {
    "brackets": "[" * 1000,
    "braces": "{" * 500 + "}" * 500,
    "spaces": " " * 1000,
    "newlines": "\n" * 1000,
    "marks": "!" * 999 + "a",
    "stars": "**a" * 333,
    "backticks": "`" * 999 + "a",
    "fences": "```python\n(((((\n" * 60,
    "one word": "a" * 1000,
    "quotes": "'\"“" * 333,
    "angles": "<<a" * 333,
    "dots": "a." * 500,
    "tabs and digits": "1.\t" * 333,
    "words": "include the word ".ljust(20) * 50,
    "never": "do not use the words '" * 45,
    "limits": "at least 99999 " * 66,
    "emoji": "👩‍👩‍👧‍👦" * 140,
    "combining": "ก็" * 500,
    "surrogates": "\ud83d" * 1000,
    "nul": "a\0" * 500,
    "right to left": "\u202eابجد " * 166,
    "table": "|-" * 500,
    "table rows": "|-\n" * 333,
    "cjk": "。你" * 500,
    "json": '{"a":' * 200,
    "xml": "```xml\n" + "<a>" * 300 + "\n```",
    "python": "```python\n" + "(-" * 490 + "\n```",
    "minus": "```python\n" + "-" * 990 + "1\n```",
}
TEXTS = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="ab.!?,'\"`*#|-[]{}()<>\n\t 1:/\\_~…“”é你", max_size=400),
    st.sampled_from(list(HOSTILE.values())),
)


def patterns() -> list[Any]:
    found = []
    for module in iter_modules(programs.__path__):
        names = vars(import_module(f"rubrics.programs.{module.name}"))
        found += [
            pytest.param(one, id=f"{module.name}-{name}")
            for name, one in sorted(names.items())
            if isinstance(one, re.Pattern)
        ]
    return found


def paths(parsed: Any) -> int:
    """How many ways a pattern may match from one place: what backtracking may try."""
    product = 1
    for kind, what in parsed:
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            low, high, inner = what
            assert high is not op.MAXREPEAT, "an unbounded repeat"
            ways = paths(inner)
            product *= (high - low + 1) if ways == 1 else sum(ways**n for n in range(low, high + 1))
        elif kind is op.BRANCH:
            product *= _branches(what[1])
        elif kind is op.SUBPATTERN:
            product *= paths(what[3])
        elif kind is op.POSSESSIVE_REPEAT:
            assert what[1] is not op.MAXREPEAT, "an unbounded repeat"
    return product


def _branches(options: list[Any]) -> int:
    """Ways through alternatives; those that are plain text exclude each other but for prefixes."""
    plain = [one for one in options if all(kind is op.LITERAL for kind, _ in one)]
    others = [paths(one) for one in options if one not in plain]
    texts = ["".join(chr(code) for _, code in one) for one in plain]
    deepest = max((sum(text.startswith(one) for one in texts) for text in texts), default=0)
    return max(1, deepest + sum(others))


def is_one_class(parsed: Any) -> bool:
    """``[class]+``: what it starts on it matches, and nothing is read twice."""
    if len(parsed) == 1 and parsed[0][0] is op.BRANCH:
        return all(is_one_class(one) or len(one) == 1 for one in parsed[0][1][1])
    if len(parsed) != 1 or parsed[0][0] is not op.MAX_REPEAT:
        return False
    inner = list(parsed[0][1][2])
    if inner and inner[0][0] is op.SUBPATTERN:
        inner = list(inner[0][1][3])
    return [kind for kind, _ in inner if kind not in (op.ASSERT, op.ASSERT_NOT)] == [op.IN]


@pytest.mark.parametrize("pattern", patterns())
def test_pattern_does_bounded_work_from_each_place(pattern: re.Pattern[str]) -> None:
    parsed = _parser.parse(pattern.pattern, pattern.flags)
    if not is_one_class(parsed):
        assert paths(parsed) <= MOST_WORK


@pytest.mark.parametrize("bad", [r"(a+)+b", r"a*b", r"\s+$", r"(?:a{0,99}){0,99}b", r"(a|ab|.)*c"])
def test_check_of_patterns_finds_bad_ones(bad: str) -> None:
    parsed = _parser.parse(bad)
    assert not is_one_class(parsed)
    with pytest.raises(AssertionError):
        assert paths(parsed) <= MOST_WORK


def lines_run(key: str, prompt: str, text: str) -> int:
    """Lines of this library that one program runs."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        if "programs" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        value(key, [{"role": "user", "content": prompt}], text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("name", HOSTILE)
def test_four_times_the_text_is_four_times_the_work(name: str) -> None:
    text = HOSTILE[name]
    for key in PROGRAMS:
        value(key, [], "warm")
        small = lines_run(key, text, text)
        assert lines_run(key, text * 4, text * 4) <= 5 * small + 400, key


@pytest.mark.parametrize("name", HOSTILE)
def test_large_hostile_text_is_read_to_its_end(name: str) -> None:
    text = (HOSTILE[name] * (LARGE // len(HOSTILE[name]) + 1))[:LARGE]
    messages = [{"role": "user", "content": text}]
    values = evaluate([messages, []], [text, ""], list(PROGRAMS))
    for key, found in zip(PROGRAMS, values[0], strict=True):
        if np.isnan(found):
            continue
        gives = PROGRAMS[key].gives
        assert found >= 0
        assert gives == "measure" or found <= 1
        assert gives != "yes-no" or found in (0, 1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(prompt=TEXTS, text=TEXTS)
def test_programs_are_pure_and_in_their_range(prompt: str, text: str) -> None:
    messages = [{"role": "user", "content": prompt}]
    keys = list(PROGRAMS)
    first = evaluate([messages], [text], keys)
    np.testing.assert_equal(evaluate([messages], [text], keys), first)
    np.testing.assert_equal(evaluate([[*messages]], [text], keys[::-1])[:, ::-1], first)
    assert messages == [{"role": "user", "content": prompt}]
    for key, found in zip(keys, first[0].tolist(), strict=True):
        assert np.isnan(found) or found >= 0
        assert PROGRAMS[key].gives == "measure" or not found > 1


def test_code_that_nests_deeply_is_not_judged() -> None:
    for body in ("(" * 5000, "-" * 5000 + "1", "not " * 4000 + "x", "x" + ".a" * 9000):
        assert value("python-parses", [], f"```python\n{body}\n```") is None


def test_code_is_never_run(tmp_path: Any) -> None:
    trap = tmp_path / "trap"
    text = f"```python\nopen({str(trap)!r}, 'w').write('x')\n```"
    assert value("python-parses", [], text) == 1
    assert not trap.exists()
