"""The simulated author of criteria: what it proposes for a pair, refines and sorts into themes.

It knows which features count (``Dials.planted``, else its own taste) and names one that sets the
preferred answer apart with probability ``Dials.proposal``; what else it writes is beside the
point. Asked again with feedback it is right more often and repeats nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

from rubrics.simulated import draws, features
from rubrics.simulated.asking import Answer
from rubrics.simulated.features import LENGTH
from rubrics.simulated.mind import Mind, key_of
from rubrics.simulated.rules import AGAINST, AVOIDED, SENTENCE, WANTED, felt
from rubrics.simulated.tokens import Said

TASTE: Final = 0.3  # weight from which a feature counts for its own taste
APART: Final = 0.2  # difference in length that sets two answers apart
REFINED: Final = 0.5  # share of its failures that feedback mends
USUAL_COUNT: Final = 5
MOST_LINES: Final = 20
MADE_UP: Final = (
    "Mentions the harvest moon",
    "Would please a lighthouse keeper",
    "Rhymes with the season",
)
OF_PICTURES: Final = (
    "Has a plain background",
    "Uses few colors",
    "Leaves room around what it shows",
    "Is drawn with thick outlines",
    "Shows everything at the same size",
    "Fills the frame",
    "Has bright colors",
    "Is the same on the left and on the right",
)
THEMES: Final = {
    "Evidence": ("citation", "example", "numbers"),
    "Form": ("list", "heading", "bold", "code"),
    "Manner": ("polite", "flattery", "exclamation", "hedge"),
    "Substance": ("steps", LENGTH, "refusal", "question"),
}
OTHER: Final = "Other"


def wording(name: str, sign: int, *key: object) -> str:
    """One of the ways to ask for a feature (sign +1), or for its absence."""
    ways = (WANTED if sign > 0 else AVOIDED)[name]
    return ways[int(draws.uniform("wording", name, *key) * len(ways))]


def propose(mind: Mind) -> Said:
    """Criteria for a labeled pair; for a prompt alone, where there are no answers."""
    return _rubric(mind, set(), mind.dials.proposal)


def refine(mind: Mind) -> Said:
    """Better ones: the more often right, and never a line that was there before."""
    odds = 1 - (1 - mind.dials.proposal) * (1 - REFINED)
    return _rubric(mind, set(mind.asked.lines("previous")), odds)


def structure(mind: Mind) -> Said:
    """Lines that name the same features become one tip; themes are families of features."""
    tips: dict[tuple[tuple[str, int], ...], list[int]] = {}
    lines = mind.asked.lines("accepted")
    for at, line in enumerate(lines):
        key = tuple(sorted(features.named_in(line).items()))
        tips.setdefault(key or ((line, 0),), []).append(at)
    themes: dict[str, list[dict[str, object]]] = {}
    for key, places in tips.items():
        family = next((name for name, ones in THEMES.items() if key[0][0] in ones), OTHER)
        tip: dict[str, object] = {"text": lines[places[0]], "from": [at + 1 for at in places]}
        themes.setdefault(family, []).append(tip)
    said = [{"theme": theme, "tips": some} for theme, some in themes.items()]
    return Said(json.dumps({"themes": said}, ensure_ascii=False))


def planted(mind: Mind) -> dict[str, int]:
    """Feature that counts to +1, or -1 where its absence does."""
    named = [one.strip() for one in mind.dials.planted.split(",") if one.strip()]
    if named:
        pairs = ((one.removeprefix("-"), -1 if one.startswith("-") else 1) for one in named)
        return {name: sign for name, sign in pairs if name in WANTED}
    liked = {name: one.taste for name, one in features.FEATURES.items() if abs(one.taste) >= TASTE}
    return {name: 1 if taste > 0 else -1 for name, taste in liked.items()}


def _rubric(mind: Mind, before: set[str], odds: float) -> Said:
    count = _count(mind)
    key = ("arr", len(before), *sorted(before))
    told = _fresh(_said(mind), before)  # people have said it: no luck is needed
    true = _shuffled(mind, _explaining(mind), *key, "true")
    lines: list[str] = told[:1]
    if true and not lines and mind.chance(*key, "right") < odds:
        lines += _fresh([true[0]], before)
    beside = _fresh(_shuffled(mind, _distractors(mind), *key, "beside"), before)
    for at in range(len(beside)):
        if mind.chance(*key, "made up", at) < mind.dials.hallucination:
            beside[at] = MADE_UP[at % len(MADE_UP)]
    lines += list(dict.fromkeys(beside))[: count - len(lines)]
    said: dict[str, object] = {}
    if mind.asked.wants("reasoning"):
        said["reasoning"] = "(Simulated.) These tell the answers apart."
    said["rubric"] = _shuffled(mind, lines, *key, "order")
    return Said(json.dumps(said, ensure_ascii=False))


def _explaining(mind: Mind) -> list[str]:
    """Planted criteria that the preferred answer meets better; all of them without answers."""
    counts = planted(mind)
    both = _preferred_first(mind)
    if both is None and (lines := _of_known_prompt(mind)):
        return lines
    if both is None:
        return [wording(name, sign, mind.seed, mind.asked.prompt) for name, sign in counts.items()]
    good, bad = both
    known, rival = mind.knows(good), mind.knows(bad)
    if known and rival and (known.criteria or good.picture):
        met = rival.criteria
        return [line for line, holds in known.criteria.items() if holds and not met.get(line)]
    seen, other = features.features_of(good.text), features.features_of(bad.text)
    apart = {LENGTH: APART}
    return [
        wording(name, sign, mind.seed, good.text)
        for name, sign in counts.items()
        if sign * (seen[name] - other[name]) > apart.get(name, 0)
    ]


def _said(mind: Mind) -> list[str]:
    """Criteria that people's reasons name, if there are any."""
    label = mind.asked.sections.get("preferred", "").strip().removeprefix("answer ")
    lines = []
    for reason in mind.asked.lines("reasons"):
        for sentence in SENTENCE.findall(reason):
            rows = felt(mind, sentence.strip(), winner=label)
            lines += [row["principle"] for row in rows]
            if not rows and not AGAINST.match(sentence):
                named = features.named_in(sentence)
                lines += [wording(name, sign) for name, sign in named.items() if name in WANTED]
    return list(dict.fromkeys(lines))


def _of_known_prompt(mind: Mind) -> list[str]:
    """The criteria that answers to this prompt have to meet, where they are known."""
    known = mind.known.get(key_of(mind.asked.prompt))
    return [line for line, holds in known.criteria.items() if holds] if known else []


def _preferred_first(mind: Mind) -> tuple[Answer, Answer] | None:
    answers = {answer.label: answer for answer in mind.asked.answers}
    label = mind.asked.sections.get("preferred", "").strip().removeprefix("answer ")
    if len(answers) != 2 or label not in answers:
        return None
    good = answers.pop(label)
    return good, next(iter(answers.values()))


def _distractors(mind: Mind) -> list[str]:
    """Criteria that count for nothing, of as many features as the dial says."""
    has_pictures = any(answer.picture and not answer.text for answer in mind.asked.answers)
    if has_pictures or _of_known_prompt(mind):
        return list(OF_PICTURES[: mind.dials.distractors])
    beside = [name for name in WANTED if name not in planted(mind)][: mind.dials.distractors]
    return [wording(name, 1, mind.seed, mind.asked.text) for name in beside]


def _fresh(lines: Iterable[str], before: set[str]) -> list[str]:
    return [line for line in lines if line not in before]


def _shuffled(mind: Mind, lines: Sequence[str], *key: object) -> list[str]:
    return sorted(lines, key=lambda line: mind.chance(*key, line))


def _count(mind: Mind) -> int:
    """How many are asked for: the first number after "exactly"."""
    before, _, after = mind.asked.instructions.partition("exactly ")
    number = after.partition(" ")[0] if before else ""
    return min(int(number), MOST_LINES) if number.isdecimal() and number.isascii() else USUAL_COUNT
