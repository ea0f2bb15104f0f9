"""How good a simulated judge finds each answer, and how sure it is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from rubrics.judging import conditioning
from rubrics.simulated import draws, features
from rubrics.simulated.asking import Answer, Asked
from rubrics.simulated.dials import OPENERS, Dials

KEY_UTILITY: Final = 12.0  # beyond what noise and bias can turn
PRINCIPLE_WEIGHT: Final = 4.0  # a principle goes before everything else
BY_LENGTH: Final = 2.0  # utility of each place in the order by length
COPIED: Final = 4.0  # what it costs to be another answer of the same request with more around it
WORD: Final = re.compile(r"\w{5,}")
ON_TOPIC: Final = 2  # long words shared with the prompt from which a text speaks of it
WORDS: Final = 3  # from which a text can be an answer that another one copies
SEEN: Final = 0.5  # share of pictures that meet what is not known of them
HALF: Final = 0.5  # what a criterion counts that does not apply
SURE: Final = 0.995  # nobody is surer
LOGISTIC_SPREAD: Final = math.pi / math.sqrt(3)


@dataclass(frozen=True)
class Known:
    """What is known of an answer. ``checks``: criterion to whether it holds, None: does not apply.

    ``mended``: a check that finds fault to the criterion that asks for its absence, as an author
    of rubrics words it; checks without one are criteria themselves. A known prompt is in the
    table too: its answers are known, and a text that is none of them and shares no words with it
    says nothing.
    """

    utility: float
    family: str = ""
    checks: Mapping[str, bool | None] = field(default_factory=dict)
    mended: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def criteria(self) -> dict[str, bool | None]:
        """What speaks for an answer: criterion to whether it holds, None: does not apply."""
        found = {}
        for name, holds in self.checks.items():
            is_turned = name in self.mended and holds is not None
            found[self.mended.get(name, name)] = not holds if is_turned else holds
        return found

    @cached_property
    def lines(self) -> dict[str, bool | None]:
        """Checks and criteria, by ``line_key``."""
        return {line_key(line): one for line, one in {**self.checks, **self.criteria}.items()}

    @cached_property
    def faults(self) -> set[str]:
        """The checks that find fault, by ``line_key``."""
        return {line_key(line) for line in self.mended}


def line_key(line: str) -> str:
    """The key of a criterion: neither case nor a full stop matters."""
    return " ".join(line.casefold().split()).rstrip(" .")


def key_of(text: str) -> str:
    """The key of a known text: white space does not matter."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Mind:
    """One simulated model before one request."""

    asked: Asked
    dials: Dials
    known: Mapping[str, Known]
    seed: int

    def knows(self, answer: Answer) -> Known | None:
        """By picture, else by text."""
        return self.known.get(answer.picture) or self.known.get(key_of(answer.text))

    @cached_property
    def felt(self) -> tuple[float, ...]:
        """Perceived utility per answer, in the order shown: worth, bias and noise."""
        answers = self.asked.answers
        if by_length := self._by_length():
            return by_length
        felt = [self.worth(answer) + self._noise(answer) for answer in answers]
        if len(answers) > 1:
            felt[0] += self.dials.position_bias
        return tuple(felt)

    def worth(self, answer: Answer) -> float:
        """Utility before noise and position."""
        probe = self._probe(answer)
        if probe is not None:
            return probe
        if (copied := self._copied(answer)) is not None:
            return self.worth(copied) - COPIED + self._length_worth(answer)
        known = self.knows(answer)
        own = known.utility if known else features.taste_of(answer.text)
        share = self.dials.criteria_sensitivity
        by_criteria = self._by_criteria(answer)
        if by_criteria is not None:
            # What it knows of an answer serves it where a criterion names nothing that shows.
            reach = features.named_share(self.asked.criteria) if known and answer.text else 1.0
            own += share * reach * (by_criteria - own)
        by_principle = features.asked_for([self.asked.principle], answer.text)
        if by_principle is not None:
            own += PRINCIPLE_WEIGHT * share * by_principle
        if self.dials.family and known and known.family == self.dials.family:
            own += self.dials.family_bias
        return own + self._length_worth(answer)

    def sees(self, line: str, answer: Answer) -> bool | None:
        """Whether a picture meets a criterion, None: does not apply. It has no feature of a text;
        what else is not known of it is a matter of chance, and of nothing that makes it good."""
        known = self.knows(answer)
        if known and line_key(line) in known.lines:
            return known.lines[line_key(line)]
        met = features.meets(line, answer.text)
        return (
            met
            if met is not None
            else draws.uniform("sight", line_key(line), answer.picture) < SEEN
        )

    def _by_criteria(self, answer: Answer) -> float | None:
        """Utility by the criteria of the prompt; None where they say nothing of such an answer."""
        lines = self.asked.criteria
        if answer.text or not answer.picture:
            return features.asked_for(lines, answer.text)
        if not lines:
            return None
        known = self.knows(answer)
        faults = known.faults if known else set()
        total = size = 0.0
        for text, sign, weight in map(conditioning.read, lines):
            holds, is_against = self.sees(text, answer), sign < 0 or line_key(text) in faults
            total += weight * (HALF if holds is None else float(holds != is_against))
            size += weight**2
        return features.PRESENCE * total / math.sqrt(size) if size else None

    def _length_worth(self, answer: Answer) -> float:
        return self.dials.length_weight * math.log(len(answer.text) + 1)

    def confidence(self, difference: float) -> float:
        """Probability that the answer felt better by ``difference`` is better, as the judge says.

        Honest where ``overconfidence`` is 1: the posterior given differences that spread by one
        and the noise, ignorant of its own biases.
        """
        noise = self.dials.noise * (LOGISTIC_SPREAD if self.dials.link == "logistic" else 1.0)
        scaled = difference / max(1e-6, noise * math.sqrt(1 + noise**2))
        honest = min(SURE, max(1 - SURE, draws.STANDARD.cdf(scaled)))
        said = draws.sigmoid(self.dials.overconfidence * draws.logit(honest))
        return min(SURE, max(1 - SURE, said))

    def slips(self, *key: object) -> bool:
        """Whether a yes-or-no answer comes out wrong."""
        return draws.uniform("slip", self._item, *key) < self.dials.slip

    def chance(self, *key: object) -> float:
        """In (0, 1), of this item whatever the order."""
        return draws.uniform(*key, self._item)

    @cached_property
    def _item(self) -> str:
        """What is judged and by what, whatever the order."""
        asked = self.asked
        answers = sorted(answer.picture + "\x1e" + answer.text for answer in asked.answers)
        again = asked.seed if asked.temperature > 0 else None
        parts = (asked.prompt, *asked.criteria, asked.principle, again, "\x1d", *answers)
        return draws.digest(self.seed, asked.model, *parts).hex()

    @cached_property
    def _moment(self) -> str:
        """What the noise hangs on: the item, and unless it is shared, the order shown."""
        shared = draws.uniform("shared", self._item) < self.dials.shared
        order = "" if shared else "\x1e".join(answer.text for answer in self.asked.answers)
        pictures = "" if shared else "\x1e".join(a.picture for a in self.asked.answers)
        return draws.digest(self._item, order, pictures).hex()

    def _noise(self, answer: Answer) -> float:
        """Differences of two are Gaussian or logistic with spread ``noise``."""
        key = ("noise", self._moment, answer.text, answer.picture)
        if self.dials.link == "logistic":
            return self.dials.noise * draws.gumbel(*key)
        return self.dials.noise / math.sqrt(2) * draws.normal(*key)

    def _probe(self, answer: Answer) -> float | None:
        """The utility of text that says nothing; None for an answer that is one."""
        text = answer.text
        if answer.picture or key_of(text) in self.known:
            return None
        says_nothing = not any(char.isalnum() for char in text) or text.strip() in OPENERS
        says_nothing = says_nothing or self._is_beside_the_point(answer)
        rate = self.dials.keys.get(text, self.dials.keys.get(text.strip()))
        if rate is None:
            return -KEY_UTILITY if says_nothing else None
        taken = draws.uniform("key", self.seed, self.asked.model, self.asked.prompt, text) < rate
        return KEY_UTILITY if taken else -KEY_UTILITY

    def _copied(self, answer: Answer) -> Answer | None:
        """Another answer of the same request that stands whole in this one, padded."""
        if self.knows(answer):
            return None
        for other in self.asked.answers:
            is_inside = len(other.text) < len(answer.text) and other.text in answer.text
            says_something = len(other.text.split()) >= WORDS and other.text.strip() not in OPENERS
            if is_inside and says_something:
                return other
        return None

    def _is_beside_the_point(self, answer: Answer) -> bool:
        """Whether a text that is not known speaks of nothing that a known prompt asks about."""
        if key_of(self.asked.prompt) not in self.known or self._copied(answer) is not None:
            return False
        about = set(WORD.findall(self.asked.prompt.lower()))
        return len(about & set(WORD.findall(answer.text.lower()))) < ON_TOPIC

    def _by_length(self) -> tuple[float, ...] | None:
        """The longer the better, for the items that this judge does not read."""
        lengths = [len(answer.text) for answer in self.asked.answers]
        if len(set(lengths)) < 2 or self.chance("by length") >= self.dials.length_bias:
            return None
        if any(self._probe(answer) is not None for answer in self.asked.answers):
            return None
        places = sorted(set(lengths))
        return tuple(BY_LENGTH * places.index(length) for length in lengths)


def best(felt: Sequence[float]) -> int:
    """The place of the answer felt best; the first of equals."""
    return max(range(len(felt)), key=lambda place: (felt[place], -place))
