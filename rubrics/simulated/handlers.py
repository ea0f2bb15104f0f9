"""What a simulated judge answers, as a table: one handler per kind of question.

A handler is chosen by the title of the schema, else by what the prompt holds. A new kind of
question is a new row of ``HANDLERS``: what it is called, how it is recognized without a schema,
and a function from a ``Mind`` to what is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rubrics.simulated import arr, draws, features, rules
from rubrics.simulated.asking import Answer, Asked
from rubrics.simulated.mind import Mind, best, line_key
from rubrics.simulated.tokens import Said, Spread

MUCH: Final = (0.8, 1.6)  # differences from which a preference is clear, and strong
TIE_SHARE: Final = 0.6  # probability of the word "tie" where a tie is said
NEAR_TIE: Final = 0.1  # and where it is not, of a difference of nothing
STEEP: Final = 1.2  # how soon scores saturate
YES: Final = (("Yes", 0.7), ("yes", 0.2), (" Yes", 0.06), ("YES", 0.04))
NO: Final = (("No", 0.7), ("no", 0.2), (" No", 0.06), ("NO", 0.04))
NEITHER: Final = (("n/a", 0.9), ("N/A", 0.1))
CONCISE: Final = 0.5  # features.length_of above which nothing is met concisely
MOST_WORDS: Final = 3  # features named in a reason


@dataclass(frozen=True)
class Handler:
    """``fits``: whether a request without a schema of this title asks this."""

    fits: Callable[[Asked], bool]
    answer: Callable[[Mind], Said]


def handler_of(asked: Asked) -> Handler:
    """By the schema's title, else the first row that fits."""
    named = HANDLERS.get(asked.title)
    return named or next(handler for handler in HANDLERS.values() if handler.fits(asked))


def _pairwise(mind: Mind) -> Said:
    if len(mind.asked.answers) != 2:
        return NOTHING_TO_JUDGE
    first, second = mind.asked.answers
    difference = mind.felt[0] - mind.felt[1]
    tie = _allows_tie(mind.asked) and abs(difference) <= mind.dials.tie_margin
    winner = first if difference >= 0 else second
    verdict = "tie" if tie else winner.label
    sure = mind.confidence(abs(difference))
    reply = {
        "verdict": verdict,
        "strength": 1 + sum(abs(difference) > least for least in MUCH),
        "confidence": round(100 * max(0.5, 1 - sure / 2 if tie else sure)),
    }
    probability = mind.confidence(difference)
    spread = _spread(mind, first.label, second.label, probability, tie=tie)
    return _said(mind, reply, {"verdict": spread})


def _allows_tie(asked: Asked) -> bool:
    values = asked.properties.get("verdict", {})
    if isinstance(values, dict) and isinstance(values.get("enum"), list):
        return "tie" in values["enum"]
    return "tie" in asked.instructions.lower()


def _spread(mind: Mind, first: str, second: str, probability: float, *, tie: bool) -> Spread:
    """The verdict said is always the likeliest of its three words."""
    share = 0.0
    if tie:
        share = TIE_SHARE
    elif mind.dials.tie_margin and _allows_tie(mind.asked):
        share = NEAR_TIE * (1 - abs(2 * probability - 1))
    spread = [(first, (1 - share) * probability), (second, (1 - share) * (1 - probability))]
    return sorted([*spread, ("tie", share)] if share else spread, key=lambda pair: -pair[1])


def _pointwise(mind: Mind) -> Said:
    if len(mind.asked.answers) != 1:
        return NOTHING_TO_JUDGE
    low, high = _bounds(mind.asked.properties.get("score"), mind.asked.scale(1, 10))
    score = _score(mind.felt[0], low, high)
    return _said(mind, {"score": score}, {"score": _around(mind.felt[0], low, high)})


def _rating(mind: Mind) -> Said:
    """Each attribute by the features its name asks for, else by worth alone."""
    if len(mind.asked.answers) != 1:
        return NOTHING_TO_JUDGE
    scores = mind.asked.properties.get("scores")
    each = scores.get("properties") if isinstance(scores, dict) else None
    each = each if isinstance(each, dict) else {}
    names = list(each) or [
        line.partition(":")[0].strip() for line in mind.asked.lines("attributes")
    ]
    usual = mind.asked.scale(0, 4)
    text = mind.asked.answers[0].text
    reply = {}
    for name in names:
        asked_for = features.asked_for([name], text)
        worth = mind.felt[0] if asked_for is None else (mind.felt[0] + asked_for) / 2
        reply[name] = _score(worth, *_bounds(each.get(name), usual))
    return _said(mind, {"scores": reply})


def _listwise(mind: Mind) -> Said:
    answers, felt = mind.asked.answers, mind.felt
    if not answers:
        return NOTHING_TO_JUDGE
    low, high = mind.asked.scale(1, 10)
    order = sorted(range(len(answers)), key=lambda place: (-felt[place], place))
    scores = {answer.label: _score(felt[at], low, high) for at, answer in enumerate(answers)}
    return _said(mind, {"scores": scores, "ranking": [answers[place].label for place in order]})


def _checklist(mind: Mind) -> Said:
    if len(mind.asked.answers) != 1:
        return NOTHING_TO_JUDGE
    answers = {}
    for number, line in enumerate(mind.asked.lines("checklist"), start=1):
        holds = _holds(mind, mind.asked.answers[0], line)
        answers[str(number)] = "n/a" if holds is None else "yes" if holds else "no"
    return _said(mind, {"answers": answers})


def _yes_no(mind: Mind) -> Said:
    """One criterion, one answer: one word, its probability spread over the ways to write it."""
    if not mind.asked.answers:
        return NOTHING_TO_JUDGE
    line = " ".join(mind.asked.sections.get("criterion", "").split())
    holds = _holds(mind, mind.asked.answers[-1], line)
    if "concisely" in mind.asked.instructions and holds:
        holds = features.length_of(mind.asked.answers[-1].text) <= CONCISE
    doubt = min(0.49, 0.02 + mind.dials.slip * mind.chance("doubt", line))
    said: Spread = YES if holds else NO
    otherwise = NO if holds else YES
    if holds is None and '"n/a"' in mind.asked.instructions:
        said = NEITHER
    spread = [(word, (1 - doubt) * share) for word, share in said]
    spread += [(word, doubt * share) for word, share in otherwise]
    spread.sort(key=lambda pair: -pair[1])
    if not mind.asked.properties:
        return Said(spread[0][0], {0: spread})
    key = next(name for name in mind.asked.properties if name not in ("reasoning", "reason"))
    reply = {key: spread[0][0].lower()}
    if mind.asked.wants("reason"):
        reply["reason"] = _reason(mind)
    return _said(mind, reply, {key: spread})


def _holds(mind: Mind, answer: Answer, line: str) -> bool | None:
    """Whether a criterion holds of an answer; None where it is known not to apply.

    What is not known of a text and names no feature is met the likelier the better it is.
    """
    known = mind.knows(answer)
    is_picture = bool(answer.picture) and not answer.text
    if is_picture or (known and line_key(line) in known.lines):
        seen = mind.sees(line, answer)
        if seen is None:
            return None
        truth = seen
    else:
        met = features.meets(line, answer.text)
        hurdle = draws.normal("hurdle", line)
        truth = mind.worth(answer) > hurdle if met is None else met
    return truth != mind.slips(line)


def _chat(mind: Mind) -> Said:
    return Said("I am a simulated judge: I was asked nothing that I know how to answer.")


def _bounds(schema: Any, usual: tuple[int, int]) -> tuple[int, int]:
    """The range of a whole number in a schema, by its bounds or its enum."""
    if not isinstance(schema, dict):
        return usual
    values = [value for value in schema.get("enum") or () if isinstance(value, int)]
    low = schema.get("minimum", min(values, default=usual[0]))
    high = schema.get("maximum", max(values, default=usual[1]))
    fits = isinstance(low, int) and isinstance(high, int) and low < high
    return (low, high) if fits else usual


def _score(felt: float, low: int, high: int) -> int:
    return low + round((high - low) * draws.sigmoid(STEEP * felt))


def _around(felt: float, low: int, high: int) -> Spread:
    """Probability of each score, falling off with its distance."""
    center = low + (high - low) * draws.sigmoid(STEEP * felt)
    chances = {value: 0.3 ** abs(value - center) for value in range(low, high + 1)}
    total = sum(chances.values())
    ranked = sorted(chances.items(), key=lambda pair: -pair[1])
    return [(str(value), chance / total) for value, chance in ranked]


def _said(
    mind: Mind, reply: Mapping[str, Any], spreads: Mapping[str, Spread] | None = None
) -> Said:
    """The reply as JSON, reasoning first, with the decisions found again in the text."""
    whole: dict[str, Any] = {"reasoning": _reason(mind)} if mind.asked.wants("reasoning") else {}
    text = json.dumps(whole | dict(reply), ensure_ascii=False)
    places = {}
    for key, spread in (spreads or {}).items():
        opening = f'"{key}": ' + ('"' if isinstance(reply[key], str) else "")
        at = text.index(opening) + len(opening)
        if text[at - 1] == " ":  # a token takes the space before it along
            spread, at = [(f" {token}", chance) for token, chance in spread], at - 1
        places[at] = spread
    return Said(text, places)


def _reason(mind: Mind) -> str:
    """A reason out of what shows: it names features, and that it is simulated."""
    sentences = []
    for answer in mind.asked.answers:
        name = f"Answer {answer.label}".strip()
        found = features.features_of(answer.text)
        seen = [word for word in features.FEATURES if found[word]][:MOST_WORDS]
        what = f"shows {', '.join(seen)}" if seen else "is plain"
        sentences.append(f"{name} {what}." if answer.text else f"{name} is a picture.")
    if len(mind.asked.answers) > 1:
        label = mind.asked.answers[best(mind.felt)].label
        sentences.append(f"On the whole answer {label} comes out ahead.")
    return " ".join(["(Simulated.)", *sentences])


NOTHING_TO_JUDGE: Final = Said("I was not shown what I am to judge.")

# The first that fits is taken: what is most particular stands first.
HANDLERS: Final[dict[str, Handler]] = {
    "arr-refine": Handler(lambda asked: "previous" in asked.sections, arr.refine),
    "arr-propose": Handler(lambda asked: "preferred" in asked.sections, arr.propose),
    "arr-structure": Handler(lambda asked: "accepted" in asked.sections, arr.structure),
    "arr-prompt": Handler(lambda asked: not asked.answers and asked.wants("rubric"), arr.propose),
    "principles": Handler(lambda asked: "feedback" in asked.sections, rules.principles),
    "propose-rules": Handler(lambda asked: "criteria so far" in asked.sections, rules.propose),
    "explain": Handler(lambda asked: "winner" in asked.sections, rules.explain),
    "extract-rules": Handler(lambda asked: "reasoning" in asked.sections, rules.extract),
    "merge-rules": Handler(lambda asked: "rules" in asked.sections, rules.merge),
    "yes-no": Handler(lambda asked: "criterion" in asked.sections, _yes_no),
    "checklist": Handler(lambda asked: "checklist" in asked.sections, _checklist),
    "rating": Handler(lambda asked: "attributes" in asked.sections, _rating),
    "listwise": Handler(
        lambda asked: len(asked.answers) > 2 or (bool(asked.answers) and asked.wants("ranking")),
        _listwise,
    ),
    "pairwise": Handler(lambda asked: len(asked.answers) == 2, _pairwise),
    "pointwise": Handler(lambda asked: len(asked.answers) == 1, _pointwise),
    "chat": Handler(lambda asked: True, _chat),
}
