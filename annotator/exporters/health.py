"""What a reader should know about the rows of a dataset before training on them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.exporters.verdicts import Verdict
from annotator.queries.pair_texts import ResponseText
from models.intervals import estimate_accuracy, wilson

SEED: Final = 0


# (prompt's id, verdict, strength, chosen, rejected)
Counted = tuple[int, Verdict, float, ResponseText, ResponseText]


class Health:
    """Gathers facts, in a few bytes a row."""

    def __init__(self) -> None:
        self.empty_chosen = 0
        self.empty_rejected = 0
        self._verdicts: Counter[Verdict] = Counter()
        self._strengths: Counter[float] = Counter()
        self._longer, self._equal = array("b"), 0
        self._prompts = array("q")
        self._chosen_characters = self._rejected_characters = 0

    def add(self, rows: list[Counted]) -> None:
        """Count some rows. Rows of one prompt come one after the other."""
        if not rows:
            return
        prompts, verdicts, strengths, chosen, rejected = zip(*rows, strict=True)
        self._prompts.extend(prompts)
        self._verdicts.update(verdicts)
        self._strengths.update(strengths)
        a, b = _lengths(chosen), _lengths(rejected)
        self._longer.frombytes((a > b).astype(np.int8).tobytes())
        self._equal += int((a == b).sum())
        self._chosen_characters += int(a.sum())
        self._rejected_characters += int(b.sum())
        self.empty_chosen += _empties(chosen)
        self.empty_rejected += _empties(rejected)

    def as_dict(self) -> dict[str, Any]:
        rows = len(self._prompts)
        if not rows:
            return {"prompts": 0}
        votes: Counter[int] = Counter()
        for verdict, count in self._verdicts.items():
            votes[verdict.votes] += count
        sizes = [sum(1 for _ in same) for _, same in groupby(self._prompts)]
        return {
            "prompts": len(sizes),
            "most_rows_of_one_prompt": max(sizes),
            "contradictions_resolved": sum(
                count for verdict, count in self._verdicts.items() if verdict.is_contested
            ),
            "empty_chosen": self.empty_chosen,
            "empty_rejected": self.empty_rejected,
            "chosen_longer": self._share(self._longer, equal=self._equal),
            "mean_characters": {
                "chosen": round(self._chosen_characters / rows, 1),
                "rejected": round(self._rejected_characters / rows, 1),
            },
            "mean_agreement": round(
                sum(one.agreement * count for one, count in self._verdicts.items()) / rows, 4
            ),
            "rows_by_strength": _histogram(self._strengths),
            "rows_by_votes": _histogram(votes),
        }

    def _share(self, of: array[int], *, equal: int = 0) -> dict[str, Any]:
        """A share of the rows with its 95 % interval; rows of one prompt go together."""
        hits, prompts = np.frombuffer(of, np.int8), np.frombuffer(self._prompts, np.int64)
        n = len(hits)
        # Each prompt's rows are neighbors, so this tells whether any has two.
        if (prompts[1:] == prompts[:-1]).any():
            found = estimate_accuracy(hits, prompts, seed=SEED)
            assert found is not None
            interval, method = found.interval, found.method
        else:  # the same interval without the arrays of clusters
            interval, method = wilson(float(hits.sum()), n), "wilson"
        return {
            "share": round(float(hits.mean()), 4),
            "interval": [round(end, 4) for end in interval],
            "interval_method": method,
            "rows": n,
            "equal": equal,
        }


def _lengths(responses: Sequence[ResponseText]) -> NDArray[np.int64]:
    """Characters of each (n,)."""
    return np.array([len(one.text) if one.source is None else one.length for one in responses])


def _empties(responses: Sequence[ResponseText]) -> int:
    return sum(one.is_empty for one in responses if not one.text or one.text.isspace())


def _histogram(of: Counter[Any]) -> dict[str, int]:
    """Whole numbers, as text for JSON; strengths in between are rounded."""
    result: Counter[int] = Counter()
    for value, count in of.items():
        result[round(value)] += count
    return {str(key): result[key] for key in sorted(result)}
