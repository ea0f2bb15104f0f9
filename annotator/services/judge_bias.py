"""What moves a judge besides quality: the order of showing, length, its own family."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.models import Judge
from annotator.queries.judge_report import (
    Bucket,
    Estimate,
    Family,
    GeneratorRow,
    Length,
    Position,
    Strategy,
)
from annotator.queries.judge_votes import UNNAMED, Answers
from annotator.queries.quality_data import Codes, Floats
from annotator.services.judge_truth import FEWEST, NONE, Compared, Flags, estimate, share
from models.families import family_of
from models.length_control import FEWEST as FEWEST_ROWS
from models.length_control import Controlled, LengthBucket, by_length_ratio, plain
from models.position import SlotBias, slot_bias, slot_bias_gaussian
from models.resampling import mean_interval

ENOUGH: Final = 30  # pairs with people's answers, else lengths are looked at without people
MOST_GENERATORS: Final = 30
MOST_JUDGES: Final = 12
PRIOR: Final = 1.0  # wins and losses added to a difficulty, so that it stays finite


# Position -------------------------------------------------------------------------------------


def position(compared: Compared) -> Position | None:
    """From pairs with a readable answer in both orders; None for fewer than FEWEST."""
    orders = _both_orders(compared.said.answers)
    if orders is None:
        return None
    tasks, straight, turned, p_straight, p_turned = orders
    truth, prompts = _of_tasks(compared, tasks)
    same = straight == turned
    first = (straight == 1) & (turned == -1)
    second = (straight == -1) & (turned == 1)
    slots = np.concatenate([straight, -turned])  # 1 where what was shown first won
    twice, decided = np.tile(prompts, 2), slots != 0
    answers = _answers(straight, turned)
    return {
        "pairs": len(tasks),
        "same": share(same, prompts),
        "first_both": share(first, prompts),
        "second_both": share(second, prompts),
        "tie_once": share(~same & ~first & ~second, prompts),
        "first_slot": share(slots[decided] > 0, twice[decided]),
        "bias": _bias(slot_bias(*answers, clusters=twice), prompts),
        "bias_gaussian": _bias(slot_bias_gaussian(*answers, clusters=twice), prompts),
        "strategies": _strategies(truth, prompts, straight, turned, (p_straight + p_turned) / 2),
    }


def _both_orders(answers: Answers) -> tuple[Codes, Codes, Codes, Floats, Floats] | None:
    """Task, outcome shown straight, outcome shown turned, and both probabilities, per pair.

    A repeat, or a member of a jury, is a pair of answers of its own.
    """
    rows = ~answers.is_failed
    key = np.stack([answers.tasks, answers.models, answers.repeats.astype(np.int64)], axis=1)[rows]
    if not len(key):
        return None
    order = np.lexsort((answers.is_straight[rows], key[:, 2], key[:, 1], key[:, 0]))
    key, is_straight = key[order], answers.is_straight[rows][order]
    outcome = answers.outcome[rows][order].astype(np.int64)
    given = answers.probability[rows][order]
    probability = np.where(np.isfinite(given), given, (1 + outcome) / 2)
    at = np.flatnonzero((key[:-1] == key[1:]).all(axis=1) & ~is_straight[:-1] & is_straight[1:])
    if len(at) < FEWEST:
        return None
    return key[at, 0], outcome[at + 1], outcome[at], probability[at + 1], probability[at]


def _of_tasks(compared: Compared, tasks: Codes) -> tuple[Codes, Codes]:
    """People's answer in the order of the task's responses, NONE for none, and a cluster."""
    verdicts = compared.said.verdicts
    order = np.argsort(verdicts.tasks, kind="stable")
    at = np.minimum(np.searchsorted(verdicts.tasks[order], tasks), max(len(order) - 1, 0))
    if not len(order):
        return np.full(len(tasks), NONE), tasks
    row = order[at]
    there = verdicts.tasks[row] == tasks
    truth = np.where(there, compared.truth[row], NONE)
    turned = verdicts.is_turned[row] & (truth != NONE)
    return np.where(turned, -truth, truth), np.where(there, verdicts.prompts[row], -tasks)


def _answers(straight: Codes, turned: Codes) -> tuple[Codes, Codes, Codes]:
    """As models.position takes them: every pair is two items that nobody else meets."""
    at = 2 * np.arange(len(straight))
    return np.append(at, at + 1), np.append(at + 1, at), np.append(straight, -turned)


def _bias(found: SlotBias | None, prompts: Codes) -> Estimate | None:
    """``n`` counts the pairs that say something about it."""
    if found is None or found.informative < FEWEST:
        return None
    groups = min(found.informative, len(np.unique(prompts)))
    return estimate(found.b, found.interval, found.informative, groups, found.method)


def _strategies(
    truth: Codes, prompts: Codes, straight: Codes, turned: Codes, soft: Floats
) -> list[Strategy]:
    known = (truth != NONE) & (truth != 0)
    if known.sum() < FEWEST:
        return []
    truth, prompts, soft = truth[known], prompts[known], soft[known]
    straight, turned = straight[known], turned[known]
    agreed = np.where(straight == turned, straight, 0)
    both = np.concatenate([straight, turned])
    mean = np.sign(soft - 0.5).astype(np.int64)
    return [
        _strategy("single", "one order only", both, np.tile(truth, 2), np.tile(prompts, 2)),
        _strategy("agree-only", "where both orders agree", agreed, truth, prompts),
        _strategy("soft", "mean of both orders", mean, truth, prompts),
    ]


def _strategy(key: str, label: str, said: Codes, truth: Codes, prompts: Codes) -> Strategy:
    decided = said != 0
    return {
        "key": key,
        "label": label,
        "accuracy": share((said == truth)[decided], prompts[decided]) if decided.any() else None,
        "coverage": share(decided, prompts),
    }


# Length ---------------------------------------------------------------------------------------


def length(compared: Compared) -> Length | None:
    """On the pairs that people have answered where there are ENOUGH, else on all it has judged.

    None where answers are pictures, or too few are of different length.
    """
    verdicts = compared.said.verdicts
    low, high = compared.lengths
    rows = ~verdicts.is_failed & (low > 0) & (high > 0)
    with_people = rows & compared.by_majority
    has_people = bool(with_people.sum() >= ENOUGH)
    rows = with_people if has_people else rows
    if (rows & (low != high)).sum() < FEWEST_ROWS:
        return None
    low, high, prompts = low[rows], high[rows], verdicts.prompts[rows]
    own = (1 + verdicts.outcome[rows]) / 2
    people = (1 + compared.truth[rows]) / 2 if has_people else None
    found = plain(own, low, high, prompts)
    theirs = plain(people, low, high, prompts) if people is not None else None
    longer = _longer(own, low, high, prompts)
    longer_people = _longer(people, low, high, prompts) if people is not None else None
    return {
        "pairs": int(rows.sum()),
        "longer": longer,
        "longer_people": longer_people,
        "coefficient": _coefficient(found),
        "coefficient_people": _coefficient(theirs),
        "curve": _curve(own, people, low, high),
        "generators": generators(compared),
        "message": _sentence(longer, longer_people),
    }


def _longer(won: Floats, low: Codes, high: Codes, prompts: Codes) -> Estimate:
    decided = (won != 0.5) & (low != high)
    return share((won > 0.5)[decided] == (low > high)[decided], prompts[decided])


def _sentence(own: Estimate, people: Estimate | None) -> str:
    if own["value"] is None or own["low"] is None or own["high"] is None:
        return ""
    if people is None or people["low"] is None or people["high"] is None:
        if own["low"] > 0.5:
            return "It prefers the longer answer more often than not."
        return "It prefers the shorter answer." if own["high"] < 0.5 else "It is even about length."
    if own["low"] > people["high"]:
        return "It likes length more than people do."
    if own["high"] < people["low"]:
        return "It likes length less than people do."
    return "It likes length about as much as people do."


def _coefficient(found: Controlled | None) -> Estimate | None:
    if found is None:
        return None
    return estimate(
        found.coefficient,
        found.coefficient_interval,
        found.n,
        found.groups,
        "bootstrap over groups",
    )


def _curve(own: Floats, people: Floats | None, low: Codes, high: Codes) -> list[Bucket]:
    mine = by_length_ratio(own, low, high)
    theirs = by_length_ratio(people, low, high) if people is not None else [None] * len(mine)
    return [
        {
            "ratio": one.ratio,
            "low": one.low,
            "high": one.high,
            "judge": _bucket(one),
            "people": _bucket(two) if two is not None else None,
        }
        for one, two in zip(mine, theirs, strict=True)
    ]


def _bucket(one: LengthBucket) -> Estimate | None:
    return estimate(one.share, one.interval, one.n, one.n, "wilson") if one.n else None


def generators(compared: Compared) -> list[GeneratorRow]:
    """Each model that wrote answers against all others, as this judge sees it, best first."""
    verdicts, responses = compared.said.verdicts, compared.said.responses
    low, high = (responses.generators[side] for side in compared.sides)
    named = (low != UNNAMED) & (high != UNNAMED) & (low != high) & ~verdicts.is_failed
    games = np.bincount(np.concatenate([low[named], high[named]]), minlength=len(responses.names))
    hard = _Difficulty(compared)
    found = []
    for code in np.argsort(-games, kind="stable")[:MOST_GENERATORS].tolist():
        if games[code] < FEWEST_ROWS:
            break
        found.append(_generator(compared, code, named & ((low == code) | (high == code)), hard))
    return sorted(found, key=lambda row: -(row["raw"]["value"] or 0))


def _generator(compared: Compared, code: int, rows: Flags, hard: _Difficulty) -> GeneratorRow:
    verdicts, responses = compared.said.verdicts, compared.said.responses
    low, high = (side[rows] for side in compared.sides)
    is_low = responses.generators[low] == code
    own, other = np.where(is_low, low, high), np.where(is_low, high, low)
    won = (1 + np.where(is_low, verdicts.outcome[rows], -verdicts.outcome[rows])) / 2
    prompts = verdicts.prompts[rows]
    lengths, lengths_other = responses.lengths[own], responses.lengths[other]
    found = None
    if (lengths > 0).all() and (lengths_other > 0).all():
        found = plain(won, lengths, lengths_other, prompts, difficulty=hard.of(other, code))
    truth = compared.truth[rows]
    by_people = compared.by_majority[rows]
    theirs = (1 + np.where(is_low, truth, -truth)) / 2
    return {
        "name": responses.names[code],
        "raw": share(won, prompts),
        "controlled": (
            None
            if found is None
            else estimate(found.controlled, found.interval, found.n, found.groups, found.method)
        ),
        "people": share(theirs[by_people], prompts[by_people]) if by_people.any() else None,
        "warning": "" if found is None else found.warning,
    }


class _Difficulty:
    """How readily models beat a response, by everybody's votes but this judge's."""

    def __init__(self, compared: Compared) -> None:
        self._generators = compared.said.responses.generators
        low, high = np.zeros(compared.n_items, np.int64), np.zeros(compared.n_items, np.int64)
        low[compared.items], high[compared.items] = compared.sides
        parts = [compared.people, compared.judges]
        items = np.concatenate([one.items for one in parts])
        outcome = np.concatenate([one.outcome for one in parts])
        # Every vote from both sides: a response, who wrote its rival, and the rival's success.
        self._response = np.concatenate([low[items], high[items]])
        self._rival = self._generators[np.concatenate([high[items], low[items]])]
        self._beaten = (1 + np.concatenate([-outcome, outcome])) / 2

    def of(self, others: Codes, code: int) -> Floats:
        """Log-odds that models other than ``code`` beat each response, 0 where nobody said."""
        size = len(self._generators)
        rows = (self._rival != code) & (self._rival != UNNAMED)
        n = np.bincount(self._response[rows], minlength=size)
        beaten = np.bincount(self._response[rows], weights=self._beaten[rows], minlength=size)
        odds: Floats = np.log((beaten + PRIOR) / (n - beaten + PRIOR))
        return odds[others]


# Its own family -------------------------------------------------------------------------------


def family(judge: Judge, compared: Compared) -> Family | None:
    """What it gives to answers of its own family; None where no pair has just one of them."""
    name = family_of_judge(judge)
    responses, verdicts = compared.said.responses, compared.said.verdicts
    own = np.array([family_of(one) == name for one in responses.names] + [False], dtype=bool)
    low, high = (responses.generators[side] for side in compared.sides)
    known = (low != UNNAMED) & (high != UNNAMED) & ~verdicts.is_failed
    rows = known & (own[low] != own[high])
    if not name or rows.sum() < FEWEST:
        return None
    sign = np.where(own[low[rows]], 1, -1)
    given = (1 + sign * verdicts.outcome[rows]) / 2
    prompts, people = verdicts.prompts[rows], compared.by_majority[rows]
    theirs = (1 + sign * compared.truth[rows]) / 2
    has_people = people.sum() >= FEWEST
    return {
        "family": name,
        "generators": [one for one in responses.names if family_of(one) == name][:MOST_GENERATORS],
        "judge": share(given, prompts),
        "people": share(theirs[people], prompts[people]) if has_people else None,
        "difference": _difference((given - theirs)[people], prompts[people])
        if has_people
        else None,
        "others": _others(compared, rows, sign),
    }


def family_of_judge(judge: Judge) -> str:
    """By its model; an imported judge is known by its name alone, a program has no family."""
    if judge.kind == judge.IMPORTED:
        return family_of(judge.model or judge.name)
    return family_of(judge.model) if judge.model else ""


def _difference(gaps: Floats, prompts: Codes) -> Estimate:
    interval, groups = mean_interval(gaps, prompts), len(np.unique(prompts))
    method = "normal over groups" if interval else ""
    return estimate(float(gaps.mean()), interval, len(gaps), groups, method)


def _others(compared: Compared, rows: Flags, sign: NDArray[Any]) -> list[dict[str, Any]]:
    """Win share that other judges give to the same family on the same pairs."""
    favored = np.zeros(compared.n_items, dtype=np.int64)
    favored[compared.items[rows]] = sign
    votes = compared.judges.where(favored[compared.judges.items] != 0)
    raters, n = np.unique(votes.raters, return_counts=True)
    found = []
    for rater in raters[np.argsort(-n, kind="stable")][:MOST_JUDGES].tolist():
        theirs = votes.where(votes.raters == rater)
        if len(theirs) < FEWEST:
            break
        given = (1 + favored[theirs.items] * theirs.outcome) / 2
        found.append(
            {
                "title": compared.said.crowd.title(rater),
                "id": compared.said.crowd.judges.get(rater),
                **share(given, compared.prompt_of_items[theirs.items]),
            }
        )
    return found
