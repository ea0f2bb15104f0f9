"""Simulated raters who judge the demo set, each with a known reliability.

A stand-in for people, so that agreement, reliability and learning methods have a known truth to
find again. Every vote is drawn from the hand-set qualities of two responses:

    latent = (quality_i - quality_j) / temperature + position_bias * side + Logistic(0, 1)

``side`` is +1 if response i is shown first, else -1. Response i wins if ``latent > tie_margin``,
j wins if ``latent < -tie_margin``, anything between is a tie: Bradley-Terry with the threshold
ties of Rao & Kupper (1967). With probability ``length_bias`` the rater takes the longer response
instead, and with probability ``flip`` presses the wrong button.

The same seed gives the same votes. Each pair draws from a generator of its own, so a prompt added
to the set leaves the verdicts on all others as they were. Nothing here knows of Django or tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

HERE: Final = Path(__file__).parent
PROMPTS: Final = HERE / "prompts.jsonl"
RATERS: Final = HERE / "raters.json"
GUIDELINES: Final = HERE / "guidelines.md"

ALL_PAIRS_UP_TO: Final = 3  # responses; above that, as many pairs as responses
VOTES_PER_SITTING: Final = 40
GAP_SECONDS: Final = (1.0, 6.0)  # between two votes of one rater
BREAK_SECONDS: Final = (3_600.0, 72_000.0)  # between two sittings
FIRST_SITTING_SECONDS: Final = 28_800.0  # raters begin within one working day
PACE_SPREAD: Final = 0.35  # sigma of the log-normal factor on the active time
LEAST_ACTIVE_MS: Final = 400

Outcome = Literal["a", "b", "tie"]
Pair = tuple[int, int]


@dataclass(frozen=True)
class DemoResponse:
    """One answer. ``quality`` in 0..1 is set by hand; ``flaw`` says what it was marked down for."""

    text: str
    generator: str
    sampling: Mapping[str, Any]
    quality: float
    flaw: str


@dataclass(frozen=True)
class DemoPrompt:
    """A conversation that ends with the user, and two to four answers to it."""

    id: str
    category: str
    messages: tuple[Mapping[str, str], ...]
    responses: tuple[DemoResponse, ...]


@dataclass(frozen=True)
class SimulatedRater:
    """How one simulated rater decides. Margins and ``position_bias`` are in logits."""

    name: str
    kind: str
    temperature: float  # quality difference worth one logit; small is discerning
    flip: float  # probability of pressing the opposite button
    position_bias: float  # logits in favor of what is shown first
    length_bias: float  # probability of taking the longer response unread
    tie_margin: float  # a weaker preference than this is a tie
    much_margin: float  # a stronger one than this is "much better"
    both_bad_below: float  # both bad if neither quality reaches this
    share: float  # relative share of the tasks this rater takes
    words_per_minute: float
    decision_ms: float  # median time to decide once everything is read
    rationale_rate: float  # probability of writing a reason


@dataclass(frozen=True)
class SimulatedVote:
    """One verdict on responses ``pair = (i, j)``, i < j: "a" prefers i, "b" prefers j.

    ``shown_order`` is (0, 1) if i was shown first, else (1, 0). ``strength`` is 0 for a tie, 1 for
    better, 2 for much better. ``seconds`` counts from the start of the study to the submit.
    """

    prompt_id: str
    pair: Pair
    rater: str
    shown_order: tuple[int, int]
    outcome: Outcome
    strength: int
    both_bad: bool
    active_ms: int
    rationale: str
    seconds: float


def load_prompts(path: Path = PROMPTS) -> list[DemoPrompt]:
    """Read prompts from JSON lines. Raises ValueError naming the line that does not fit."""
    prompts = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                prompts.append(_prompt(json.loads(line)))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, line {number}: {error!r}") from error
    return prompts


def load_raters(path: Path = RATERS) -> list[SimulatedRater]:
    """Read raters from a JSON list. Raises ValueError if one has unknown or missing parameters."""
    known = {field.name for field in fields(SimulatedRater)}
    raters = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        if set(row) != known:
            raise ValueError(f"{path.name}: {row.get('name')!r}: {sorted(set(row) ^ known)}")
        raters.append(SimulatedRater(**row))
    return raters


def pairs_of(prompt: DemoPrompt, *, seed: int) -> list[Pair]:
    """The pairs of a prompt that are judged, in order.

    All of them for two or three responses. For n > 3 responses, n pairs drawn by seed; with four
    responses these always connect all four, since three responses have only three pairs.
    """
    pairs = list(combinations(range(len(prompt.responses)), 2))
    wanted = len(prompt.responses)
    if wanted <= ALL_PAIRS_UP_TO:
        return pairs
    drawn = _generator(seed, prompt.id).choice(len(pairs), size=wanted, replace=False)
    return [pairs[index] for index in sorted(drawn)]


def simulate_votes(
    prompts: Iterable[DemoPrompt],
    raters: Sequence[SimulatedRater],
    *,
    overlap: int,
    seed: int,
) -> Iterator[SimulatedVote]:
    """Yield exactly ``overlap`` votes, by different raters, on every judged pair.

    Votes come pair by pair; ``seconds`` rises within each rater. Raises ValueError if there are
    fewer raters than ``overlap``.
    """
    if not 1 <= overlap <= len(raters):
        raise ValueError(f"overlap={overlap} needs 1 to {len(raters)} raters")
    shares = np.array([rater.share for rater in raters])
    clocks = [_Clock(_generator(seed, rater.name)) for rater in raters]
    for prompt in prompts:
        for pair in pairs_of(prompt, seed=seed):
            rng = _generator(seed, prompt.id, *pair)
            chosen = rng.choice(len(raters), size=overlap, replace=False, p=shares / shares.sum())
            for index in chosen:
                yield _vote(prompt, pair, raters[index], clocks[index], rng)


class _Clock:
    """When one rater submits: sittings of some forty votes, with breaks between them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._votes = 0
        self._seconds = float(rng.uniform(0, FIRST_SITTING_SECONDS))

    def submit(self, active_ms: int) -> float:
        """Work ``active_ms`` more; return the seconds since the start of the study."""
        after_a_break = self._votes > 0 and self._votes % VOTES_PER_SITTING == 0
        pause = BREAK_SECONDS if after_a_break else GAP_SECONDS
        self._votes += 1
        self._seconds += float(self._rng.uniform(*pause)) + active_ms / 1000
        return round(self._seconds, 3)


def _vote(
    prompt: DemoPrompt, pair: Pair, rater: SimulatedRater, clock: _Clock, rng: np.random.Generator
) -> SimulatedVote:
    first, second = (prompt.responses[index] for index in pair)
    shown_order = (0, 1) if rng.random() < 0.5 else (1, 0)
    latent = _latent(first, second, rater, first_is_shown_first=shown_order == (0, 1), rng=rng)
    outcome, strength = _verdict(latent, rater)
    both_bad = max(first.quality, second.quality) < rater.both_bad_below
    active_ms = _active_ms(prompt, first, second, rater, rng)
    says = rng.random() < rater.rationale_rate
    return SimulatedVote(
        prompt_id=prompt.id,
        pair=pair,
        rater=rater.name,
        shown_order=shown_order,
        outcome=outcome,
        strength=strength,
        both_bad=both_bad,
        active_ms=active_ms,
        rationale=_rationale(first, second, outcome, both_bad, rng) if says else "",
        seconds=clock.submit(active_ms),
    )


def _latent(
    first: DemoResponse,
    second: DemoResponse,
    rater: SimulatedRater,
    *,
    first_is_shown_first: bool,
    rng: np.random.Generator,
) -> float:
    """The felt preference for ``first`` over ``second``, in logits."""
    latent = (first.quality - second.quality) / rater.temperature + float(rng.logistic())
    latent += rater.position_bias if first_is_shown_first else -rater.position_bias
    longer = len(first.text) - len(second.text)
    if rng.random() < rater.length_bias and longer:
        latent = math.copysign(max(abs(latent), 2 * rater.tie_margin), longer)
    return -latent if rng.random() < rater.flip else latent


def _verdict(latent: float, rater: SimulatedRater) -> tuple[Outcome, int]:
    if abs(latent) <= rater.tie_margin:
        return "tie", 0
    return "a" if latent > 0 else "b", 2 if abs(latent) > rater.much_margin else 1


def _active_ms(
    prompt: DemoPrompt,
    first: DemoResponse,
    second: DemoResponse,
    rater: SimulatedRater,
    rng: np.random.Generator,
) -> int:
    """Time to read the conversation and both answers, and to decide; close pairs take longer."""
    texts = [message["content"] for message in prompt.messages] + [first.text, second.text]
    reading = 60_000 * sum(len(text.split()) for text in texts) / rater.words_per_minute
    closeness = 1 - abs(first.quality - second.quality)
    pace = math.exp(float(rng.normal(0, PACE_SPREAD)))
    return max(LEAST_ACTIVE_MS, round((reading + rater.decision_ms * (0.5 + closeness)) * pace))


def _rationale(
    first: DemoResponse,
    second: DemoResponse,
    outcome: Outcome,
    both_bad: bool,
    rng: np.random.Generator,
) -> str:
    """A short reason out of the flaw notes. It names no side: sides differ between raters."""
    if both_bad and first.flaw and second.flaw:
        return f"Neither will do. One: {first.flaw}. The other: {second.flaw}."
    if outcome == "tie":
        return str(rng.choice(["About equally good.", "I'd be happy with either.", "Too close."]))
    flaw = (second if outcome == "a" else first).flaw
    if not flaw:
        return str(rng.choice(["Reads better to me.", "Slightly more to the point.", "Clearer."]))
    opening = str(rng.choice(["The other one:", "Marked down:", "Against the other:"]))
    return f"{opening} {flaw}."


def _generator(seed: int, *key: str | int) -> np.random.Generator:
    """A generator of its own for every key, the same on every machine."""
    digest = sha256(json.dumps([seed, *key]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _prompt(row: Mapping[str, Any]) -> DemoPrompt:
    responses = tuple(DemoResponse(**response) for response in row["responses"])
    if not all(0 <= response.quality <= 1 for response in responses):
        raise ValueError("a quality lies outside 0..1")
    return DemoPrompt(
        id=row["id"],
        category=row["category"],
        messages=tuple(row["messages"]),
        responses=responses,
    )
