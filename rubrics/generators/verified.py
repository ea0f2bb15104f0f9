"""Criteria as verdicts on pairs: what rubrics.verifying says of both sides, and what that makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rubrics.generators.rules import MAX_EVIDENCE
from rubrics.generators.types import CandidateCriterion, Evidence, PreferencePair
from rubrics.intervals import estimate_accuracy
from rubrics.llm.types import Call
from rubrics.margins import is_right, is_tie
from rubrics.verifying import Response, ScoreMatrix, VerifyOptions, score_matrix

Array = NDArray[np.float64]

MET: Final = 0.5  # P(yes) from which a criterion counts as met


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores of both sides of pairs, (pairs, criteria) each, NaN where there is no verdict."""

    chosen: Array
    rejected: Array
    failures: dict[str, int]
    stopped: str = ""

    @property
    def differences(self) -> Array:
        """Chosen minus rejected, (pairs, criteria); NaN where a side has no verdict."""
        found: Array = self.chosen - self.rejected
        return found

    @property
    def votes(self) -> Array:
        """1 where only the chosen side meets a criterion, -1 where only the other does, else 0."""
        known = ~np.isnan(self.differences)
        votes = (self.chosen >= MET).astype(float) - (self.rejected >= MET)
        return np.where(known, votes, 0.0)


async def score_pairs(
    criteria: Sequence[str],
    pairs: Sequence[PreferencePair],
    call: Call,
    *,
    options: VerifyOptions,
    tick: Callable[[int], Any] | None = None,
) -> PairScores:
    """2 * pairs * criteria calls, pair by pair."""
    responses = [
        Response(pair.messages, side) for pair in pairs for side in (pair.chosen, pair.rejected)
    ]
    found: ScoreMatrix = await score_matrix(criteria, responses, call, options=options, tick=tick)
    return PairScores(found.scores[::2], found.scores[1::2], found.failures, found.stopped)


def with_verdicts(
    criterion: CandidateCriterion, votes: Array, pairs: Sequence[PreferencePair]
) -> CandidateCriterion:
    """Coverage, precision and evidence of one criterion from its votes (pairs,).

    ``decisive`` of ``verified`` pairs have a verdict on one side only; ``precision`` is the share
    of those in which that is the chosen side (the rejected, for a polarity of -1).
    """
    signed = votes * criterion.polarity
    decisive = int((signed != 0).sum())
    right = int((signed > 0).sum())
    shown = np.flatnonzero(signed)[:MAX_EVIDENCE]
    evidence = tuple(Evidence(pairs[at].id, bool(signed[at] > 0), role="check") for at in shown)
    figures = {
        "verified": len(pairs),
        "decisive": decisive,
        "coverage": decisive / len(pairs) if pairs else None,
        "precision": right / decisive if decisive else None,
    }
    return replace(
        criterion,
        evidence=(*criterion.evidence, *evidence),
        figures={**criterion.figures, **figures},
    )


def accuracies(
    margins: Array, pairs: Sequence[PreferencePair], *, seed: int
) -> dict[str, Any] | None:
    """Accuracy of score differences (pairs,) beside "longer wins"; None for no pairs.

    A tie is wrong and counted, and so is a pair without a verdict (NaN).
    """
    groups = np.array([pair.group for pair in pairs])
    longer = np.array([len(p.chosen.text) - len(p.rejected.text) for p in pairs], dtype=float)
    found = {}
    for name, values in (("accuracy", np.nan_to_num(margins)), ("longer wins", longer)):
        told = estimate_accuracy(
            is_right(values), groups, seed=seed, ties=int(is_tie(values).sum())
        )
        if told is None:
            return None
        found[name] = told.as_dict()
    return {**found["accuracy"], "baselines": {"longer wins": found["longer wins"]}}
