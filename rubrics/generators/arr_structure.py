"""Accepted criteria as one rubric: said once, in themes, with the pairs behind every line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rubrics.asking import ask
from rubrics.generators import arr_questions as questions
from rubrics.generators.arr_induction import Accepted
from rubrics.generators.arr_options import ArrOptions
from rubrics.generators.diverse import places
from rubrics.generators.types import CandidateCriterion, Evidence, PreferencePair
from rubrics.llm.types import Call

AT_ONCE: Final = 60  # criteria in one call
MAX_PASSES: Final = 4

# Places of the texts to keep, the best first; such as the coding rate's.
Select = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Line:
    """One criterion of the rubric and all that were accepted for it."""

    text: str
    sources: tuple[Accepted, ...]
    theme: str = ""

    @property
    def pairs(self) -> int:
        return len({one.pair for one in self.sources})


def said_once(accepted: Sequence[Accepted]) -> list[Line]:
    """Criteria of the same words as one, from the most pairs first, then as they came."""
    found: dict[str, list[Accepted]] = {}
    for one in accepted:
        found.setdefault(questions.folded(one.text), []).append(one)
    return ranked([Line(several[0].text, tuple(several)) for several in found.values()])


def ranked(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: -line.pairs)


def most_different(limit: int) -> Select:
    """Selection by coding rate, on wording."""
    return lambda texts: places(texts, limit)


def selected(lines: list[Line], select: Select | None, dropped: Counter[str]) -> list[Line]:
    """Those that ``select`` names. Raises ValueError for places that are not there, or twice."""
    if select is None or not lines:
        return lines
    places = list(select([line.text for line in lines]))
    if len(set(places)) < len(places) or not all(0 <= at < len(lines) for at in places):
        raise ValueError("select names places that are not there, or one twice")
    left_out = set(range(len(lines))) - set(places)
    dropped["not-selected"] += sum(len(lines[at].sources) for at in left_out)
    return [lines[at] for at in places]


async def themed(lines: list[Line], options: ArrOptions, call: Call) -> list[Line]:
    """Lines merged and sorted into themes by the model, AT_ONCE in a call, again while that leaves
    several calls' worth and makes it shorter. What no tip says stays a line of its own. Raises
    CallFailed."""
    for _ in range(MAX_PASSES):
        parts = [lines[at : at + AT_ONCE] for at in range(0, len(lines), AT_ONCE)]
        merged = [line for part in parts for line in await _sorted(part, options, call)]
        is_done = len(parts) == 1 or len(merged) == len(lines)
        lines = ranked(merged)
        if is_done:
            break
    return lines


async def _sorted(lines: list[Line], options: ArrOptions, call: Call) -> list[Line]:
    request = questions.structure([line.text for line in lines], options)
    read = partial(questions.read_themes, count=len(lines))
    tips, _ = await ask(call, request, read, repairs=options.repairs)
    merged = [
        Line(tip.text, tuple(one for at in tip.lines for one in lines[at].sources), tip.theme)
        for tip in tips
    ]
    said = {at for tip in tips for at in tip.lines}
    return merged + [line for at, line in enumerate(lines) if at not in said]


def supported(lines: Sequence[Line], options: ArrOptions, dropped: Counter[str]) -> list[Line]:
    """Lines from enough pairs, the most supported first."""
    few = (len(line.sources) for line in lines if line.pairs < options.support)
    dropped["few-pairs"] += sum(few)
    return ranked([line for line in lines if line.pairs >= options.support])


def limited(lines: Sequence[Line], options: ArrOptions, dropped: Counter[str]) -> list[Line]:
    """No more than wanted, theme by theme."""
    kept = list(lines)
    dropped["over-limit"] += sum(len(line.sources) for line in kept[options.max_criteria :])
    kept = kept[: options.max_criteria]
    themes = list(dict.fromkeys(line.theme for line in kept))
    return sorted(kept, key=lambda line: themes.index(line.theme))


def as_criterion(line: Line, pairs: dict[int, PreferencePair]) -> CandidateCriterion:
    """``figures``: pairs it came from, others it recovered and failed on, mean rounds it took."""
    others: dict[int, bool] = {}
    for source in line.sources:
        for check in source.checks[1:]:
            others[check.pair] = others.get(check.pair, False) or check.judgment.is_recovered
    rounds = [source.round for source in line.sources]
    own = list(dict.fromkeys(source.pair for source in line.sources))
    evidence = [
        Evidence(pair, True, judgment=judgment, role="source")
        for pair in own
        for judgment in pairs[pair].judgments or (None,)
    ]
    evidence += [Evidence(pair, held, role="check") for pair, held in others.items()]
    return CandidateCriterion(
        text=line.text,
        theme=line.theme,
        evidence=tuple(evidence),
        figures={
            "pairs": len(own),
            "checked": sum(others.values()),
            "failed": len(others) - sum(others.values()),
            "rounds": sum(rounds) / len(rounds),
        },
    )
