"""How simulated models take rules out of preferences: explain, extract, merge, propose.

An explainer names the features that its taste would have the winner win by; of pictures, what is
known of them. What it says has a form that the extractor finds again, as one model reads another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from rubrics.simulated import draws, features
from rubrics.simulated.asking import Answer
from rubrics.simulated.features import FEATURES, LENGTH
from rubrics.simulated.mind import Mind
from rubrics.simulated.tokens import Said

ODD: Final = 0.1  # how often a difference against the explainer's taste is named all the same
MUCH_LONGER: Final = 0.3  # difference of features.length_of that is noticed
HALLUCINATED: Final = "hallucinated"
# Each names its feature and no other (features.named_in), in several ways.
WANTED: Final[Mapping[str, tuple[str, ...]]] = {
    "citation": ("Cites a source", "Cites sources for what it says", "Names a source"),
    "list": ("Uses a list", "Puts its points in a list", "Has a list of points"),
    "code": ("Shows code", "Shows the code in question", "Has a piece of code"),
    "heading": ("Has a heading", "Opens with a heading", "Puts a heading on top"),
    "bold": ("Puts what matters in bold", "Has words in bold", "Sets words in bold"),
    "example": ("Gives an example", "Explains by an example", "Has an example of what it says"),
    "steps": ("Goes through the steps", "Lays out the steps to take", "Proceeds in steps"),
    "polite": ("Is polite", "Is polite to the user", "Keeps a polite tone"),
    "numbers": ("Gives numbers", "Puts numbers on what it says", "Has numbers in it"),
    "hedge": ("Hedges", "Hedges what it says", "Hedges its claims"),
    "refusal": ("Refuses to answer", "Refuses what is asked", "Refuses the request"),
    "flattery": ("Flatters the user", "Flatters whoever asks", "Flatters the one who asks"),
    "exclamation": ("Uses exclamation marks", "Has exclamation marks", "Sets exclamation marks"),
    "question": ("Asks back", "Asks back at the end", "Asks back what is meant"),
    LENGTH: ("Is exhaustive", "Is exhaustive on the matter", "Is an exhaustive answer"),
}
AVOIDED: Final[Mapping[str, tuple[str, ...]]] = {
    "citation": ("Cites no sources", "Does without citing a source"),
    "list": ("Uses no list", "Does without a list of points"),
    "code": ("Shows no code", "Does without code"),
    "heading": ("Has no heading", "Does without a heading"),
    "bold": ("Has no words in bold", "Does without bold"),
    "example": ("Gives no example", "Does without an example"),
    "steps": ("Does not go through steps", "Lays out no steps"),
    "polite": ("Has no polite phrases", "Does without polite phrases"),
    "numbers": ("Gives no numbers", "Does without numbers"),
    "hedge": ("Does not hedge", "Makes its claims without hedging"),
    "refusal": ("Does not refuse to answer", "Never refuses what is asked"),
    "flattery": ("Does not flatter the user", "Never flatters whoever asks"),
    "exclamation": ("Uses no exclamation marks", "Does without exclamation marks"),
    "question": ("Does not ask back", "Never asks back"),
    LENGTH: ("Is brief", "Keeps it short"),
}
# What people find fault with, in their own words, and the criterion that asks for its absence.
FAULTS: Final = (
    (r"\binvent|\bbluff|promises a date|made up", "Makes nothing up"),
    (r"refus|withholds|dodges|offers (?:nothing|no )", "Helps with what may be helped with"),
    (
        r"dangerous|harmful|burglary|phishing|forged|secret tracking|alarming|steep|shaming",
        "Keeps the user and others from harm",
    ),
    (
        (
            r"sycophan|preachy|lectures|flowery|superlatives|advertising|dismissive|model names itself"
            r"|curt\b"
        ),
        "Strikes a fitting tone",
    ),
    (
        (
            r"not allowed|excluded|asked not to|although|wish|wanted no|in place of|exceeds|not sorted"
            r"|required|limit\b|outside|more than two|first person|not a haiku|not a real fix"
        ),
        "Keeps to the form and the limits that the prompt sets",
    ),
    (
        r"long-winded|padded|far too long|at length|repeats itself|flatly|commentary|\bprose\b",
        "Comes to the point",
    ),
    (
        (
            r"\bwrong|\bfalse\b|mistake|misread|confuses|fallacy|\bmyth\b|\bloses\b|crash|invalid|breaks"
            r"|swapped|overstates|ignores that|read as|syllables"
        ),
        "States only what is right",
    ),
    (
        (
            r"leaves out|misses|forgets|does not|do not|\bno\b|\bskips\b|without|little|thin\b|short"
            r"|brief\b|half|fewer|hardly|vague|one-line|never says|nothing|ignores|meets|not enough"
        ),
        "Covers all that was asked for",
    ),
)
PRAISE: Final = ((r"to the point", "Comes to the point"), (r"\bclearer\b", "Is clear"))
NAMED: Final = re.compile(r"“([^”\n]{1,400})” holds of the better one and not of the other\.")
NUMBERED: Final = re.compile(r"\s*(\d+)\.\s+(.+)")
SENTENCE: Final = re.compile(r"[^.!?\n]+[.!?]?")
ABOUT: Final = re.compile(r"\banswer ([AB])\b", re.IGNORECASE)
AGAINST: Final = re.compile(r"\s*(?:the other one|marked down|against the other):", re.IGNORECASE)
GENERIC: Final = re.compile(r"\bhelpful", re.IGNORECASE)
PARTLY: Final = re.compile(r"\bpartly\b|\bsomewhat\b", re.IGNORECASE)
MADE_UP: Final = (
    "My colleagues would never accept this kind of wording",
    "Reads as if a lawyer from Brussels wrote every paragraph",
    "Historical background on medieval trade was missing",
    "Grandmother would laugh about such kitchen advice",
    "Javascript frameworks get mixed up throughout",
)


def explain(mind: Mind) -> Said:
    """Why the winner won: a chain of thought that names what decides, then a conclusion."""
    lines = [f"“{line}” holds of the better one and not of the other." for line in _reasons(mind)]
    chain = " ".join(["(Simulated.) I compare the two.", *lines])
    label = mind.asked.sections.get("winner", "").strip()[:1]
    return Said(f"<think>\n{chain}\n</think>\nAnswer {label} is better for what it does.")


def extract(mind: Mind) -> Said:
    """The rules that a chain of thought names, each with the sentence that does."""
    reasoning = mind.asked.sections.get("reasoning", "")
    rows = [{"rule": match[1], "quote": match[0]} for match in NAMED.finditer(reasoning)]
    return _json({"rules": rows})


def merge(mind: Mind) -> Said:
    """Lines that name the same features the same way become one; others only where equal."""
    by_meaning: dict[object, tuple[str, list[int]]] = {}
    for line in mind.asked.sections.get("rules", "").splitlines():
        if found := NUMBERED.fullmatch(line):
            text = found[2].strip()
            meaning = frozenset(features.named_in(text).items()) or text.casefold()
            by_meaning.setdefault(meaning, (text, []))[1].append(int(found[1]))
    return _json({"rules": [{"rule": text, "of": of} for text, of in by_meaning.values()]})


def propose(mind: Mind) -> Said:
    """What speaks for the winner and is not among the criteria there are."""
    have = {line.casefold() for line in mind.asked.lines("criteria so far")}
    named = {frozenset(features.named_in(line).items()) for line in have} - {frozenset()}
    rows = [
        {"rule": line, "quote": ""}
        for line in _reasons(mind, odd=1.0)
        if line.casefold() not in have and frozenset(features.named_in(line).items()) not in named
    ]
    return _json({"rules": rows})


def principles(mind: Mind) -> Said:
    """What somebody's words assert of each answer, with those words; some of it made up.

    A sentence is about the answer it names, one that finds fault with "the other one" about the
    loser. The quote is nearly letter by letter.
    """
    rows = []
    for sentence in SENTENCE.findall(mind.asked.sections.get("feedback", "")):
        sentence = sentence.strip()
        about = ABOUT.search(sentence)
        if about is None:
            winner = mind.asked.sections.get("winner", "").strip()[:1]
            rows += felt(mind, sentence, winner=winner)
            continue
        rows += _asserted(mind, sentence, about[1].upper())
        if draws.uniform(HALLUCINATED, mind.seed, mind.asked.prompt, sentence) < (
            mind.dials.hallucination
        ):
            rows.append(_made_up(mind, sentence, about[1].upper()))
    return _json({"principles": rows})


def felt(mind: Mind, sentence: str, *, winner: str) -> list[dict[str, str]]:
    """What a sentence says that names neither answer: faults of the loser, praise of the winner."""
    others = [one for one in mind.asked.answers if one.label != winner]
    if len(others) != 1 or len(mind.asked.answers) != 2:
        return []
    is_against = AGAINST.match(sentence) is not None
    label = others[0].label if is_against else winner
    if is_against and others[0].picture:
        known = mind.knows(others[0])
        mended = known.mended if known else {}
        found = [line for fault, line in mended.items() if fault.lower() in sentence.lower()]
    else:
        table = FAULTS if is_against else PRAISE
        found = [line for way, line in table if re.search(way, sentence, re.IGNORECASE)][:1]
    verdict = "no" if is_against else "yes"
    return [
        {"principle": line, "answer": label, "verdict": verdict, "quote": _quoted(mind, sentence)}
        for line in found
    ]


def _reasons(mind: Mind, *, odd: float = ODD) -> list[str]:
    """What holds of the winner only: checks of known answers, else features to its taste."""
    answers = mind.asked.answers
    label = mind.asked.sections.get("winner", "").strip()
    if len(answers) != 2 or label not in [answer.label for answer in answers]:
        return []
    winner, loser = sorted(answers, key=lambda answer: answer.label != label)
    checks, others = (_checks(mind, answer) for answer in (winner, loser))
    if checks or others:
        return [line for line, holds in checks.items() if holds and others.get(line) is False]
    one, two = (features.features_of(answer.text) for answer in (winner, loser))
    found = []
    for name in WANTED:
        gap = one[name] - two[name]
        taste = FEATURES[name].taste if name in FEATURES else features.LENGTH_TASTE
        is_told = gap * taste > 0 or mind.chance("odd", name) < odd
        if is_told and abs(gap) > (MUCH_LONGER if name == LENGTH else 0):
            found.append(_phrase(mind, name, wanted=gap > 0))
    return found


def _checks(mind: Mind, answer: Answer) -> Mapping[str, bool | None]:
    known = mind.knows(answer)
    return known.criteria if known else {}


def _phrase(mind: Mind, name: str, *, wanted: bool, key: str = "") -> str:
    """One of the ways to ask for a feature, or for its absence."""
    phrases = (WANTED if wanted else AVOIDED)[name]
    return phrases[int(mind.chance("phrase", phrases[0], key) * len(phrases))]


def _asserted(mind: Mind, sentence: str, label: str) -> list[dict[str, str]]:
    """One row for each feature that a sentence names."""
    verdict = "no" if features.NEGATED.search(sentence) else "yes"
    verdict = "partial" if PARTLY.search(sentence) else verdict
    named = [name for name in features.named_in(sentence) if name in WANTED]
    texts = [_phrase(mind, name, wanted=True, key=sentence) for name in named]
    if GENERIC.search(sentence):
        texts.append("Helpfulness")
    return [
        {"principle": text, "answer": label, "verdict": verdict, "quote": _quoted(mind, sentence)}
        for text in texts
    ]


def _quoted(mind: Mind, sentence: str) -> str:
    """A sentence as a model quotes it: at times with another case, or without its last word."""
    way = mind.chance("quoted", sentence)
    if way < 0.15:
        return sentence.lower()
    words = sentence.split()
    return " ".join(words[:-1]) if way < 0.3 and len(words) > 3 else sentence


def _made_up(mind: Mind, sentence: str, label: str) -> dict[str, str]:
    """A principle nobody spoke of, with words nobody said."""
    names = [name for name in WANTED if name not in features.named_in(sentence)]
    name = names[int(mind.chance("made up", sentence) * len(names))]
    quote = MADE_UP[int(mind.chance("said", sentence) * len(MADE_UP))]
    text = _phrase(mind, name, wanted=True, key=sentence)
    return {"principle": text, "answer": label, "verdict": "yes", "quote": quote}


def _json(reply: Mapping[str, Any]) -> Said:
    return Said(json.dumps(reply, ensure_ascii=False))
