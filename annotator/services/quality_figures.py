"""Figures beside agreement and raters: known answers, shared errors, distributions, win rates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from annotator.queries.columns import Columns
from annotator.queries.quality_data import Codes, Said
from annotator.services import quality_consensus
from annotator.services.quality_agreement import Figure, estimate
from annotator.services.quality_opinions import Opinions
from models import ranking
from models.aggregators import AGGREGATORS
from models.consensus import Pooled, accuracy, dawid_skene
from models.crowd import CrowdBradleyTerry
from models.raters import UNKNOWN, DawidSkene
from models.shared_errors import shared_errors

CROWD_VOTES: Final = 200_000  # CrowdBT beside another aggregator reads so many votes at most
PACE_DAYS: Final = 60
MOST_GENERATORS: Final = 60
NAMED: Final = 5  # pairs of raters in the warning of shared errors


def known_answers(said: Said, opinions: Opinions) -> list[Figure]:
    """Every aggregator against the golds of one question: fitted without them, then compared.

    Of the opinions that count; where only judges spoke, of theirs: what is held is measured.
    """
    known = opinions.truth != UNKNOWN
    if not known.any() or not len(opinions) or not opinions.is_classes:
        return []
    counted = ~said.people.excluded[opinions.raters]
    voted = np.bincount(opinions.items[counted], minlength=len(known)) > 0
    truth = np.where(voted, opinions.truth, UNKNOWN)
    found = []
    for key, method in AGGREGATORS.items():
        rows, answers = opinions, truth
        if key == "crowd-bt":
            if not opinions.is_pairs:
                continue
            part = sample(opinions, CROWD_VOTES)
            rows = part.compact()
            answers = truth[np.bincount(part.items, minlength=len(truth)) > 0]
        pooled = quality_consensus.pool(rows, key, said.people.excluded, clamped=False)
        right = accuracy(pooled.posterior, answers, rows.item_tasks)
        if right is not None:
            low, high = right.interval
            found.append(
                {
                    "question": opinions.name,
                    "key": key,
                    "label": method.label,
                    **estimate(right.accuracy, low, high, n=right.n),
                }
            )
    return found


def sample(opinions: Opinions, most: int) -> Opinions:
    """The opinions themselves, or those on a part of the tasks drawn by a fixed seed."""
    if len(opinions) <= most:
        return opinions
    tasks, n = np.unique(opinions.item_tasks[opinions.items], return_counts=True)
    order = np.random.default_rng(0).permutation(len(tasks))
    kept = tasks[order[np.cumsum(n[order]) <= most]]
    return opinions.where(np.isin(opinions.item_tasks[opinions.items], kept))


def scale(said: Said, pairs: Opinions, pooled: Pooled | None) -> Figure:
    """CrowdBT reliability by rater id; of a part of the votes where there are very many."""
    if pooled is None:
        if not len(pairs):
            return {}
        rows = sample(pairs, CROWD_VOTES).compact()
        pooled = quality_consensus.pool(rows, "crowd-bt", said.people.excluded)
    if not isinstance(pooled.fitted, CrowdBradleyTerry):
        return {}
    return {
        str(said.people.ids[code]): estimate(
            pooled.reliability[code], pooled.low[code], pooled.high[code]
        )
        for code in np.flatnonzero(np.isfinite(pooled.reliability)).tolist()
    }


def shared(said: Said, main: Opinions) -> Figure | None:
    """Whether raters share errors, with the names of the pairs that do most."""
    rows = main.where(~said.people.excluded[main.raters]).compact()
    if not len(rows) or not rows.is_classes:
        return None
    fitted = dawid_skene(rows.votes(said.people.excluded)).fitted
    if not isinstance(fitted, DawidSkene):
        return None
    found = shared_errors(rows.items, rows.raters, rows.labels, fitted)
    names = said.people.names
    return {
        "is_warning": found.is_warning,
        "message": found.message,
        "pairs": found.n_pairs,
        "alike": found.n_alike,
        "worst": [
            {
                "first": names[one.first],
                "second": names[one.second],
                "shared": one.shared,
                "agreement": one.agreement,
                "expected": one.expected,
            }
            for one in found.worst[:NAMED]
        ],
    }


def distribution(said: Said) -> Figure:
    """How verdicts and strengths fall: of judgments on the order of responses, by slot shown."""
    work = said.work
    ordered = ~said.tasks.is_rated[work.tasks] & ~said.tasks.is_gold[work.tasks] & said.is_counted
    first = work.first[ordered]
    tie, bad = work.is_tie[ordered], work.both_bad[ordered]
    strength = np.bincount(work.strength[ordered].clip(0, 3), minlength=4)
    outcomes = said.edges.outcomes[ordered[said.edges.judgments]]
    return {
        "verdicts": [
            ["first response", int((outcomes > 0).sum())],
            ["tie", int((outcomes == 0).sum())],
            ["second response", int((outcomes < 0).sum())],
        ],
        "shown": [
            ["shown first", int((first > 0).sum())],
            ["shown last", int((first < 0).sum())],
        ],
        "strength": strength.tolist(),
        "ties": int(tie.sum()),
        "both_bad": int(bad.sum()),
        "judgments": int(ordered.sum()),
    }


def pace(said: Said) -> list[list[Any]]:
    """Judgments of people and imports per day, the last PACE_DAYS days with a judgment in them."""
    day = said.work.at[~said.people.is_judge[said.work.raters]] // 86_400
    if not len(day):
        return []
    last = int(day.max())
    begin = max(int(day.min()), last - PACE_DAYS + 1)
    counts = np.bincount(day[day >= begin] - begin, minlength=last - begin + 1)
    first = datetime.fromtimestamp(begin * 86_400, UTC).date()
    return [[(first + timedelta(days=n)).isoformat(), int(one)] for n, one in enumerate(counts)]


def win_rates(said: Said, pairs: Opinions, names: list[str], responses: Columns) -> Figure | None:
    """Win share of each named model against the others, from the counted votes."""
    if len(names) < 2 or not len(pairs) or pairs.sides is None:
        return None
    tasks = pairs.item_tasks[pairs.items]
    kept = ~said.people.excluded[pairs.raters] & ~said.tasks.is_gold[tasks]
    a, b = (_generators(side[pairs.items], responses) for side in pairs.sides)
    kept &= (a != UNKNOWN) & (b != UNKNOWN) & (a != b)
    games = np.bincount(np.concatenate([a[kept], b[kept]]), minlength=len(names))
    busiest = np.sort(np.argsort(-games, kind="stable")[:MOST_GENERATORS])
    busiest = busiest[games[busiest] > 0]
    place = np.full(len(names), UNKNOWN)
    place[busiest] = np.arange(len(busiest))
    kept[kept] = (place[a[kept]] != UNKNOWN) & (place[b[kept]] != UNKNOWN)
    if not kept.any():
        return None
    found = ranking.win_rates(
        place[a[kept]],
        place[b[kept]],
        1 - pairs.labels[kept],
        n_items=len(busiest),
        clusters=said.tasks.prompts[tasks[kept]],
    )
    order = np.argsort(-found.share, kind="stable")
    return {
        "message": found.ranking.message,
        "is_connected": found.ranking.is_connected,
        "left_out": int((games > 0).sum()) - len(busiest),
        "votes": int(kept.sum()),
        "rows": [
            {
                "name": names[busiest[at]],
                **estimate(found.share[at], found.low[at], found.high[at]),
                "wins": int(found.wins[at]),
                "ties": int(found.ties[at]),
                "losses": int(found.losses[at]),
                "group": int(found.ranking.components[at]),
            }
            for at in order.tolist()
        ],
    }


def _generators(ids: Codes, responses: Columns) -> Codes:
    """The code of the model behind each response, UNKNOWN where none is named."""
    known = responses["id"]
    if not len(known):
        return np.full(len(ids), UNKNOWN)
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[at] == ids, responses["generator"][at].astype(np.int64), UNKNOWN)
