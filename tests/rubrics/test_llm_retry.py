"""How long to wait, and when to stop."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rubrics.llm.retry import LONGEST_WAIT, AttemptFailed, Patience, asked_wait

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Mon, 04 May 2026 03:02:31 GMT"}, 30),
        ({"retry-after": "Mon, 04 May 2026 03:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Mon, 99 May 99999999 03:00:00 GMT"}, None),
    ],
    ids=str,
)
def test_asked_wait_reads_both_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, now=NOW) == seconds


@given(st.text(max_size=40))
@example("Mon, 01 Jan 0000 00:00:00 +9999")
@example("9" * 400)
def test_asked_wait_survives_any_header(text: str) -> None:
    seconds = asked_wait({"retry-after": text, "retry-after-ms": text})
    assert seconds is None or seconds >= 0


@given(st.integers(1, 50), st.one_of(st.none(), st.floats(0, 1e9)), st.integers())
def test_pause_keeps_what_was_asked_and_has_an_end(
    attempts: int, wait: float | None, seed: int
) -> None:
    failed = AttemptFailed("rate-limited", wait=wait)
    patience, dice = Patience(), random.Random(seed)
    pause = patience.pause(failed, attempts=attempts, dice=dice)
    assert min(wait or 0, LONGEST_WAIT) <= pause <= 2 * LONGEST_WAIT
    assert 0 <= patience.shared_pause(failed, attempts=attempts) <= LONGEST_WAIT


def test_pause_doubles_and_is_spread() -> None:
    failed, patience, dice = AttemptFailed("server"), Patience(first=1), random.Random(1)
    drawn = {n: [patience.pause(failed, attempts=n, dice=dice) for _ in range(99)] for n in (1, 4)}
    assert 0.5 <= min(drawn[1]) < max(drawn[1]) <= 1
    assert 4 <= min(drawn[4]) < max(drawn[4]) <= 8


@pytest.mark.parametrize(
    ("kind", "attempts", "timeouts", "goes_on"),
    [
        ("server", 1, 0, True), ("connection", 7, 0, True), ("connection", 8, 0, False),
        ("timeout", 2, 2, True), ("timeout", 3, 3, False), ("refused", 1, 0, False),
        ("unreadable", 1, 0, True), ("rate-limited", 1, 0, True),
    ],
)  # fmt: skip
def test_may_retry_stops(kind: str, attempts: int, timeouts: int, goes_on: bool) -> None:
    failed = AttemptFailed(kind)
    assert Patience().may_retry(failed, attempts=attempts, timeouts=timeouts) is goes_on
