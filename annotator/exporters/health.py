"""What a reader should know about the rows of a dataset before training on them."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import groupby
from typing import Any, Final

import numpy as np

from annotator.exporters.recipe import Verdict
from annotator.queries.pair_texts import ResponseText
from models.intervals import estimate_accuracy

SEED: Final = 0


class Health:
    """Gathers facts row by row, in a few bytes a row. ``flush`` after every list of rows."""

    def __init__(self) -> None:
        self.empty_chosen = 0
        self.empty_rejected = 0
        self._verdicts: Counter[Verdict] = Counter()
        self._strengths: Counter[float] = Counter()
        self._longer, self._equal = array("b"), 0
        self._prompts = array("q")
        self._chosen_characters = self._rejected_characters = 0
        self._waiting: list[tuple[int, Verdict, float, int, int]] = []

    def add(
        self,
        prompt_id: int,
        verdict: Verdict,
        strength: float,
        chosen: ResponseText,
        rejected: ResponseText,
    ) -> None:
        """Count one row. Rows of one prompt come one after the other."""
        a = len(chosen.text) if chosen.messages is None else chosen.length
        b = len(rejected.text) if rejected.messages is None else rejected.length
        self._waiting.append((prompt_id, verdict, strength, a, b))
        if (not a or chosen.text.isspace()) and chosen.is_empty:
            self.empty_chosen += 1
        if (not b or rejected.text.isspace()) and rejected.is_empty:
            self.empty_rejected += 1

    def flush(self) -> None:
        if not self._waiting:
            return
        prompts, verdicts, strengths, chosen, rejected = zip(*self._waiting, strict=True)
        self._waiting.clear()
        self._prompts.extend(prompts)
        self._verdicts.update(verdicts)
        self._strengths.update(strengths)
        a, b = np.array(chosen), np.array(rejected)
        self._longer.frombytes((a > b).astype(np.int8).tobytes())
        self._equal += int((a == b).sum())
        self._chosen_characters += int(a.sum())
        self._rejected_characters += int(b.sum())

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
        found = estimate_accuracy(
            np.frombuffer(of, dtype=np.int8), np.frombuffer(self._prompts, np.int64), seed=SEED
        )
        assert found is not None
        low, high = found.interval
        return {
            "share": round(found.accuracy, 4),
            "interval": [round(low, 4), round(high, 4)],
            "interval_method": found.method,
            "rows": found.n,
            "equal": equal,
        }


def _histogram(of: Counter[Any]) -> dict[str, int]:
    """Whole numbers, as text for JSON; strengths in between are rounded."""
    result: Counter[int] = Counter()
    for value, count in of.items():
        result[round(value)] += count
    return {str(key): result[key] for key in sorted(result)}
