"""How often a rubric is right: on held-out pairs, strict, beside the longer answer and people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.models import Criterion, Project
from annotator.queries import training as queries
from annotator.queries.snapshot import snapshot
from annotator.services.training_data import ceiling as human
from models.baselines import longer_wins
from models.intervals import Accuracy, estimate_accuracy
from rubrics.generators.types import PreferencePair
from rubrics.llm.types import Call, CallFailed
from rubrics.programs.evaluate import as_shares, evaluate
from rubrics.verifying import Response, VerifyOptions, score_matrix

Floats = NDArray[np.float64]
EVEN: Final = 1e-9  # a difference smaller than this is none


async def measure(
    criteria: Sequence[Criterion],
    pairs: Sequence[PreferencePair],
    *,
    call: Call | None,
    model: str,
) -> dict[str, Any]:
    """Accuracy of the criteria together on pairs that took no part in finding them; JSON-ready.

    Strict, as reward models are scored: a pair on which both sides are even is wrong. A criterion
    that does not apply to a side says nothing of the pair. Raises CallFailed("budget").
    """
    if not pairs:
        return nothing("No pair of the test split has a majority.")
    if not criteria:
        return nothing("There is no criterion to measure.")
    chosen = await _scores(criteria, [(one.messages, one.chosen) for one in pairs], call, model)
    rejected = await _scores(criteria, [(one.messages, one.rejected) for one in pairs], call, model)
    groups = np.array([one.group for one in pairs])
    differences = np.nan_to_num(chosen - rejected)  # (n, k)
    given = [one.weight for one in criteria]
    weights = np.array([one.polarity if one.weight is None else one.weight for one in criteria])
    signs = np.array([np.sign(weight) for weight in weights])
    lengths = np.array([[len(one.chosen.text), len(one.rejected.text)] for one in pairs])
    return {
        **_said(_accuracy(differences @ weights, groups)),
        "baselines": {
            "longer_wins": _said(longer_wins(lengths[:, 0], lengths[:, 1], groups)),
            "equal_weights": _said(_accuracy(differences @ signs, groups))
            if any(weight is not None for weight in given)
            else None,
        },
    }


def nothing(reason: str) -> dict[str, Any]:
    """What is said where nothing could be measured."""
    return {"accuracy": None, "interval": None, "n": 0, "reason": reason, "baselines": {}}


def ceiling(project: Project) -> dict[str, Any]:
    """How often a person agrees with the majority of the others, on the test split."""
    with snapshot() as raw:
        return human(queries.test_votes(project, connection=raw))


def _accuracy(differences: Floats, groups: NDArray[Any]) -> Accuracy | None:
    even = np.abs(differences) <= EVEN
    return estimate_accuracy(
        (differences > EVEN).astype(float), groups, seed=0, ties=int(even.sum())
    )


def _said(found: Accuracy | None) -> dict[str, Any]:
    return found.as_dict() if found is not None else {"accuracy": None, "interval": None, "n": 0}


async def _scores(
    criteria: Sequence[Criterion],
    sides: Sequence[tuple[Any, Any]],
    call: Call | None,
    model: str,
) -> Floats:
    """Share to which every side meets every criterion (n, k); NaN where that is not known."""
    scores = np.full((len(sides), len(criteria)), np.nan)
    programs = [at for at, one in enumerate(criteria) if one.program]
    if programs:
        keys = [criteria[at].program for at in programs]
        found = evaluate(
            [messages for messages, _ in sides], [candidate.text for _, candidate in sides], keys
        )
        scores[:, programs] = as_shares(found, keys)
    asked = [at for at, one in enumerate(criteria) if one.verifier == "llm"]
    if asked and call is not None:
        found_by_model = await score_matrix(
            [criteria[at].text for at in asked],
            [Response(messages, candidate) for messages, candidate in sides],
            call,
            options=VerifyOptions(model=model),
        )
        if found_by_model.stopped:
            raise CallFailed("budget")
        scores[:, asked] = found_by_model.scores
    return scores
