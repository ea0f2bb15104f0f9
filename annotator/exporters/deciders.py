"""Who decides a pair: most votes, an aggregator that weighs raters, or scores.

A decider is asked once per pair, in the order of ``queries.pairs.chunks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any, Final, Protocol

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.exporters.recipe import ExportOptions
from annotator.exporters.verdicts import (
    Majority,
    Verdict,
    fate_of_counts,
    is_negative,
    kind_of,
    least,
)
from annotator.models import Project
from annotator.queries.columns import read_columns
from annotator.queries.pairs import Pair, counted
from models.aggregators import AGGREGATORS
from rubrics.registry import pick
from rubrics.rewards import EVEN


class Decider(Protocol):
    def of(self, pair: Pair, place: int, looked: Any) -> Verdict: ...


class Scores(Protocol):
    """Looked up scores of responses; None where there is none."""

    def score(self, looked: Any, response_id: int) -> float | None: ...


def decider_of(
    project: Project,
    options: ExportOptions,
    *,
    scores: Scores | None,
    connection: psycopg.Connection,
    prompts: Sequence[int] | None = None,
) -> Decider:
    """What the recipe asks for. ``scores``: of what decides, where that is not votes.

    ``prompts``: the stream holds only their pairs.
    """
    if options.decided_by != "votes":
        if scores is None:
            raise ValueError("scores decide, and there are none")
        return ByScore(options, scores)
    if options.aggregator == "majority":
        return Majority(options)
    return ByConsensus(options, posterior(project, options, connection=connection, prompts=prompts))


class ByScore:
    """The answer with the higher score. ``p`` is what Bradley-Terry makes of the difference."""

    def __init__(self, options: ExportOptions, scores: Scores) -> None:
        self._options, self._scores = options, scores

    def of(self, pair: Pair, place: int, looked: Any) -> Verdict:
        a, b = (self._scores.score(looked, pk) for pk in (pair.a_id, pair.b_id))
        delta = 0.0 if a is None or b is None else a - b
        is_tie = abs(delta) <= EVEN
        wins = pair.wins_a if delta > 0 else pair.wins_b
        p = 0.5 if is_tie else 1 / (1 + exp(-min(abs(delta), 500.0)))
        return Verdict(
            self._fate(pair, is_tie=is_tie, is_known=a is not None and b is not None),
            delta > 0,
            pair.votes,
            round(wins / pair.votes, 6) if pair.votes else 0.0,
            pair.is_contested,
            kind_of(pair, self._options, is_tie=is_tie),
            round(p, 6),
            round(p, 6),
        )

    def _fate(self, pair: Pair, *, is_tie: bool, is_known: bool) -> str:
        # Votes need not be there: who decides is the model. Known answers stay out all the same.
        if pair.golds and not pair.votes:
            return "control"
        if pair.votes and self._options.both_bad == "drop" and 2 * pair.both_bad > pair.votes:
            return "both_bad"
        if is_negative(pair, self._options):
            return ""
        if not is_known:
            return "no_score"
        return "tie" if is_tie and self._options.ties == "drop" else ""


class ByConsensus:
    """The likeliest verdict of an aggregator, learned from all votes of the selection.

    A pair whose votes were pooled with those of a repeat is decided by their majority: the
    aggregator has seen them as two questions. The share of the votes is then its certainty.
    """

    def __init__(self, options: ExportOptions, found: Posterior) -> None:
        self._options, self._found = options, found
        self._majority = Majority(options)

    def of(self, pair: Pair, place: int, looked: Any) -> Verdict:
        options = self._options
        if pair.votes != self._found.votes[place]:
            return self._of_pooled(pair)
        a, tie, b = self._found.values[place]
        best = max(a, tie, b)
        # Level with a tie, or with each other, nobody leads.
        is_tie = tie >= best - EVEN or abs(a - b) <= EVEN
        p_a = a + tie / 2
        wins = pair.ties if is_tie else pair.wins_a if a > b else pair.wins_b
        return Verdict(
            fate_of_counts(pair, options)
            or self._fate(pair, is_tie, best, wins / (pair.votes or 1)),
            bool(a > b),
            pair.votes,
            round(wins / pair.votes, 6) if pair.votes else 0.0,
            pair.is_contested,
            kind_of(pair, options, is_tie=is_tie),
            0.5 if is_tie else round(float(max(p_a, 1 - p_a)), 6),
            round(float(best), 6),
        )

    def _of_pooled(self, pair: Pair) -> Verdict:
        verdict = self._majority.of(pair)
        is_sure = verdict.p >= least(self._options.min_posterior)
        if verdict.fate or verdict.kind != "win" or is_sure:
            return verdict
        return verdict._replace(fate="low_posterior")

    def _fate(self, pair: Pair, is_tie: bool, best: float, share: float) -> str:
        options = self._options
        if is_negative(pair, options):
            return ""
        if is_tie:
            return "tie" if options.ties == "drop" else ""
        if share < least(options.min_agreement):
            return "low_agreement"
        return "low_posterior" if best < least(options.min_posterior) else ""


class Posterior:
    """``values`` (pairs, 3): a, tie, b; ``votes`` (pairs,): both in the order of the stream."""

    def __init__(self, values: NDArray[np.float64], votes: NDArray[np.int64]) -> None:
        self.values, self.votes = values, votes


# Every vote that counts on one of the pairs of the stream.
VOTES: Final = """
SELECT least(v.a_id, v.b_id) AS a_id, greatest(v.a_id, v.b_id) AS b_id, v.rater_id,
       (1 - CASE WHEN v.a_id < v.b_id THEN v.outcome ELSE -v.outcome END)::int AS label
FROM annotator_preference v JOIN annotator_prompt q ON q.id = v.prompt_id
WHERE v.project_id = %(project)s AND q.split = ANY(%(splits)s)
  AND NOT v.is_gold AND NOT v.is_overruled AND (NOT v.is_held OR %(with_held)s)
  AND (%(all_raters)s OR v.rater_id = ANY(%(raters)s))
"""
OF_PROMPTS: Final = "AND v.prompt_id = ANY(%(prompts)s)"
PAIR_COLUMNS: Final = {"prompt_id": "bigint", "a_id": "bigint", "b_id": "bigint"}
VOTE_COLUMNS: Final = {"a_id": "bigint", "b_id": "bigint", "rater_id": "bigint", "label": "integer"}


def posterior(
    project: Project,
    options: ExportOptions,
    *,
    connection: psycopg.Connection,
    prompts: Sequence[int] | None = None,
) -> Posterior:
    """What the named aggregator makes of the votes of the selection, or of those on ``prompts``.

    A rater who was asked about one pair twice counts with the last of what the table holds.
    """
    from models.consensus import TIE, Votes  # with the solvers behind it: pages start without

    sql, values = counted(project, options.selection(), prompts=prompts, connection=connection)
    ordered = f"SELECT v.prompt_id, v.a_id, v.b_id FROM ({sql}) v ORDER BY 1, 2, 3"
    pairs = read_columns(connection, ordered, values, PAIR_COLUMNS)
    votes = VOTES if prompts is None else f"{VOTES} {OF_PROMPTS}"
    said = read_columns(connection, votes, values, VOTE_COLUMNS)
    responses, sides = np.unique(
        np.concatenate([pairs["a_id"], pairs["b_id"]]), return_inverse=True
    )
    sides = sides.reshape(2, -1)
    keys = sides[0] * len(responses) + sides[1]  # (pairs,), each its own
    order = np.argsort(keys, kind="stable")
    a, b = (np.searchsorted(responses, said[name]) for name in ("a_id", "b_id"))
    items = order[np.searchsorted(keys[order], a * len(responses) + b)]
    _, raters = np.unique(said["rater_id"], return_inverse=True)
    size = int(raters.max(initial=-1)) + 1
    # One row per (item, rater): two tasks may ask the same person about the same two answers.
    _, first = np.unique((items * max(size, 1) + raters)[::-1], return_index=True)
    once = len(items) - 1 - first
    found = pick(AGGREGATORS, options.aggregator)(
        Votes(
            items[once],
            raters[once],
            said["label"][once].astype(np.int64),
            n_items=len(keys),
            n_raters=size,
            sides=sides,
        )
    )
    values_of = np.asarray(found.posterior, dtype=np.float64)
    values_of[:, TIE] = np.clip(values_of[:, TIE], 0, 1)
    return Posterior(values_of, np.bincount(items, minlength=len(keys)))
