"""The tone of a response: phrases of our own lists, found in its words without punctuation.

The lists are English and short on purpose: each phrase says one thing whatever stands around it.
"""

from __future__ import annotations

import re
from typing import Final

from rubrics.programs.case import Case, Value, listed
from rubrics.programs.wording import ABOUT_SENTENCE

OPENING: Final = 50  # words in which a refusal or apology comes


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(f" {line.strip()} " for line in text.splitlines() if line.strip())


REFUSALS: Final = _phrases("""
    i can't help
    i cannot help
    i can't assist
    i cannot assist
    i can't provide
    i cannot provide
    i can't do that
    i cannot do that
    i can't answer
    i cannot answer
    i can't tell you
    i won't be able to
    i will not help
    i won't help
    i'm not able to
    i am not able to
    i'm unable to
    i am unable to
    i'm not going to
    i am not going to
    i refuse to
    i'm not comfortable
    i am not comfortable
    i don't feel comfortable
    i must decline
    i have to decline
    i'd rather not
    i would rather not
    i don't want to help
    i'm not willing to
    not able to help
    cannot fulfill
    can't fulfill
    can't comply
    cannot comply
    i can't give you
    i cannot give you
    i can't support
    not appropriate for me to
""")
HEDGES: Final = _phrases("""
    i think
    i believe
    i guess
    i'm not sure
    i am not sure
    i'm not certain
    i don't know
    it seems
    it depends
    perhaps
    maybe
    might
    possibly
    probably
    in my opinion
    as far as i know
    to some extent
    sort of
    kind of
    it could be
    arguably
    it is possible that
    generally speaking
    may or may not
""")
APOLOGIES: Final = _phrases("""
    i'm sorry
    i am sorry
    i'm so sorry
    i'm afraid
    i apologize
    i apologise
    my apologies
    apologies for
    apologies but
    sorry for
    sorry but
    sorry about
    sorry i
    please forgive
""")
FLATTERIES: Final = _phrases("""
    great question
    good question
    excellent question
    fantastic question
    wonderful question
    interesting question
    thoughtful question
    what a great
    what an excellent
    what a wonderful
    what a fantastic
    what an interesting
    great idea
    excellent idea
    brilliant idea
    you're absolutely right
    you are absolutely right
    you're so right
    i love this question
    i love that question
    great choice
    excellent choice
    that's a great
    that is a great
    that's an excellent
""")
MACHINES: Final = _phrases("""
    as an ai
    as a language model
    as a large language model
    i'm an ai
    i am an ai
    i'm just an ai
    i'm only an ai
    i'm a language model
    i am a language model
    i'm just a language model
    i'm a chatbot
    i am a chatbot
    i'm an artificial intelligence
    my training data
    my knowledge cutoff
    i was trained on
    i was trained by
    i'm a virtual assistant
    as a virtual assistant
    i'm just a computer program
    as an artificial intelligence
""")
SWEARS: Final = frozenset(
    listed(
        "damn damned goddamn hell crap crappy shit shitty bullshit shitting fuck fucking fucked fucker"
        " motherfucker asshole assholes bastard bastards bitch bitches dick piss pissed dumbass"
    )
)
FLATTERY_WITHIN: Final = 12  # words
# The common blocks; skin tones and joiners belong to the sign before them.
EMOJI: Final = re.compile("[\U0001f300-\U0001f3fa\U0001f400-\U0001faff☀-➿]")
PLACEHOLDER: Final = re.compile(
    r"\[(?:insert|your|name|company|date|address|recipient|placeholder|enter|add|city|title|phone"
    r"|email|link|product|amount|number|todo|tbd|x{2,10}+)\b[^\[\]\n]{0,60}+\]"
    r"|\{\{[^{}\n]{1,60}+\}\}|<(?:your|insert|name)\b[^<>\n]{0,60}+>|\blorem ipsum\b"
    r"|\btodo:|\byour name here\b"
)
QUESTIONS: Final = "?？"


def _has(flow: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in flow for phrase in phrases)


def _if_said(case: Case, holds: bool) -> Value:
    return holds if case.words else None


def refusal(case: Case) -> Value:
    """Declines in its first words to do what was asked."""
    return _if_said(case, _has(case.opening(OPENING), REFUSALS))


def hedging(case: Case) -> Value:
    """Hedges per sentence, at most 1."""
    if not case.words:
        return None
    return min(1.0, sum(map(case.flow.count, HEDGES)) / max(1, case.sentences))


def apology(case: Case) -> Value:
    return _if_said(case, _has(case.opening(OPENING), APOLOGIES))


def flattery(case: Case) -> Value:
    """Opens by praising the question or the asker."""
    return _if_said(case, _has(case.opening(FLATTERY_WITHIN), FLATTERIES))


def machine(case: Case) -> Value:
    """Speaks of itself as an AI."""
    return _if_said(case, _has(case.flow, MACHINES))


def asks_back(case: Case) -> Value:
    """Ends with a question."""
    if not case.words:
        return None
    return case.bare.rstrip("\"'”’)*_ ")[-1:] in tuple(QUESTIONS)


def exclamations(case: Case) -> Value:
    """Exclamation marks per sentence, at most 1."""
    if not case.words:
        return None
    marks = sum(line.count("!") + line.count("！") for line in case.prose)
    return min(1.0, marks / max(1, case.sentences))


def emoji(case: Case) -> Value:
    return None if not case.bare else EMOJI.search(case.text) is not None


def shouting(case: Case) -> Value:
    """The share of longer words that are all capitals; where capitals were asked, none."""
    if " capital" in case.prompt.request or "uppercase" in case.prompt.request:
        return None
    words = [word for line in case.prose for word in line.split() if len(word) > 3]
    return sum(map(str.isupper, words)) / len(words) if words else None


def placeholder(case: Case) -> Value:
    """Holds text that somebody still has to fill in; where the prompt asks for that, none."""
    if not case.bare or "placeholder" in case.prompt.request or "template" in case.prompt.request:
        return None
    return any(PLACEHOLDER.search(line.lower()) for line in case.prose)


def profanity(case: Case) -> Value:
    """One of a few strong words of English."""
    return _if_said(case, not SWEARS.isdisjoint(case.words))


def restates(case: Case) -> Value:
    """Its first words are the prompt's: the question said again before the answer."""
    asked = case.prompt.words
    if len(asked) < ABOUT_SENTENCE or len(case.words) < ABOUT_SENTENCE:
        return None
    head = " ".join(case.words[:ABOUT_SENTENCE])
    return f" {head} " in f" {' '.join(asked)} "
