"""What a reader should know about the rows of a dataset before training on them.

A row is a pair here, whatever the format makes of it. Facts are gathered in some 40 bytes a row;
what follows from them is in ``health_figures``.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter, xor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.exporters import health_figures as figures
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.verdicts import Decided, Verdict
from annotator.queries.pair_texts import ResponseText
from annotator.queries.pairs import Pair
from models.vote_noise import VoteAgreement, disagreement, vote_agreement

MOST_GENERATORS: Final = 5_000  # told apart; whoever comes later is counted with the others
# Taken in C: a million rows pass here.
_fell = itemgetter(*map(Pair._fields.index, ("wins_a", "ties", "wins_b")))
_prompt = itemgetter(Pair._fields.index("prompt_id"))
_generator = itemgetter(ResponseText._fields.index("generator"))
_leak = itemgetter(ResponseText._fields.index("leak"))
_told = itemgetter(*map(Verdict._fields.index, ("votes", "agreement", "is_contested")))
_p = itemgetter(Verdict._fields.index("p"))
UNNAMED, OTHERS = -1, -2
AT_ONCE: Final = 65_536  # numbers looked at together
P_PLACES: Final = 5  # scores and aggregators are sure of every row in another way

Ints = NDArray[np.int64]


class _Falls:
    """How the votes on pairs fell: a kind per pair, and where a new prompt begins."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, int, int], int] = {}
        self._kinds, self._news = array("i"), array("b")
        self._last = -1

    def add(self, pairs: Sequence[Pair]) -> None:
        known = self.known
        fell = list(map(_fell, pairs))
        for kind in set(fell) - known.keys():
            known[kind] = len(known)
        self._kinds.extend(map(known.__getitem__, fell))
        prompts = np.fromiter(map(_prompt, pairs), np.int64, len(pairs))
        news = np.diff(prompts, prepend=self._last) != 0
        self._last = int(prompts[-1])
        self._news.frombytes(news.astype(np.int8).tobytes())

    def __len__(self) -> int:
        return len(self._kinds)

    @property
    def counts(self) -> NDArray[np.float64]:
        """Votes for a, for a tie and for b of each kind (k, 3)."""
        return np.array(list(self.known), dtype=np.float64).reshape(-1, 3)

    @property
    def kinds(self) -> NDArray[np.int32]:
        return np.frombuffer(self._kinds, np.int32)

    @property
    def groups(self) -> NDArray[np.int32]:
        """The prompt of each pair as a code that never falls."""
        return np.cumsum(np.frombuffer(self._news, np.int8), dtype=np.int32)

    def agreement(self) -> VoteAgreement:
        return vote_agreement(self.counts, self.kinds, self.groups)


class Health:
    """Gathers facts of a pass: of every pair it reads, and of those that become rows."""

    def __init__(self) -> None:
        self.empty_chosen = 0
        self.empty_rejected = 0
        self.heard, self.rows = _Falls(), _Falls()
        self._verdicts: Counter[tuple[int, float, bool]] = Counter()
        self._certain = array("f")  # the probability of each verdict
        self._strengths: Counter[float] = Counter()
        self.leads: Counter[int] = Counter()  # votes for chosen less votes for rejected
        self._chosen_lengths, self._rejected_lengths = array("i"), array("i")
        self._answers = array("q")  # a hash of the two answers, the same in both directions
        self._leaks, self._ties = array("b"), array("b")
        self._names: dict[str, int] = {"": UNNAMED}
        self._chosen_by, self._rejected_by = array("i"), array("i")

    def hear(self, pairs: Sequence[Pair]) -> None:
        """Every pair that the recipe's raters were asked about, in order of prompt."""
        if pairs:
            self.heard.add(pairs)

    def add(self, rows: Sequence[Decided]) -> None:
        """Count some rows. Rows of one prompt come one after the other."""
        if not rows:
            return
        _, pairs, verdicts, chosen, rejected, strengths = zip(*rows, strict=True)
        self.rows.add(pairs)
        self._verdicts.update(map(_told, verdicts))
        self._certain.extend(map(_p, verdicts))
        self._strengths.update(strengths)
        self.leads.update(_leads(pairs, chosen))
        self._chosen_lengths.extend(_lengths(chosen))
        self._rejected_lengths.extend(_lengths(rejected))
        self._answers.extend(map(xor, _hashes(chosen), _hashes(rejected)))
        self._leaks.extend(
            [bool(a or b) for a, b in zip(map(_leak, chosen), map(_leak, rejected), strict=True)]
        )
        self._ties.extend([verdict.kind == "tie" for verdict in verdicts])
        self._chosen_by.extend(self._generators_of(chosen))
        self._rejected_by.extend(self._generators_of(rejected))
        self.empty_chosen += _empties(chosen)
        self.empty_rejected += _empties(rejected)

    def _generators_of(self, responses: Sequence[ResponseText]) -> Iterable[int]:
        names, known = list(map(_generator, responses)), self._names
        for name in set(names) - known.keys():
            if len(known) > MOST_GENERATORS:
                return [known.get(name, OTHERS) for name in names]
            known[name] = len(known) - 1  # the first stands for no name
        return map(known.__getitem__, names)

    def as_dict(self) -> dict[str, Any]:
        """Everything that the pass alone can tell, ready for JSON."""
        rows = len(self.rows)
        if not rows:
            return {"prompts": 0}
        groups = self.rows.groups
        a, b = (
            np.frombuffer(lengths, np.int32)
            for lengths in (self._chosen_lengths, self._rejected_lengths)
        )
        return {
            **figures.per_prompt(groups),
            **self._of_verdicts(rows),
            "empty_chosen": self.empty_chosen,
            "empty_rejected": self.empty_rejected,
            "chosen_longer": figures.share(a > b, groups) | {"equal": int((a == b).sum())},
            "mean_characters": {
                "chosen": round(float(a.mean()), 1),
                "rejected": round(float(b.mean()), 1),
            },
            "lengths": figures.lengths(a, b, groups),
            "agreement": {
                "rows": self.rows.agreement().as_dict(),
                "all": self.heard.agreement().as_dict(),
            },
            "generators": self._generators(groups),
            "duplicates": figures.duplicates(np.frombuffer(self._answers, np.int64), groups),
            "leaks": figures.leaks(np.frombuffer(self._leaks, np.int8), groups),
        }

    def _of_verdicts(self, rows: int) -> dict[str, Any]:
        votes: Counter[int] = Counter()
        agreement, contested = 0.0, 0
        for (voted, share, is_contested), count in self._verdicts.items():
            votes[voted] += count
            agreement += share * count
            contested += count * is_contested
        return {
            "contradictions_resolved": contested,
            "mean_agreement": round(agreement / rows, 4),
            "rows_by_strength": _histogram(self._strengths),
            "rows_by_votes": _histogram(votes),
        }

    def _generators(self, groups: NDArray[np.int32]) -> dict[str, Any]:
        chosen, rejected = (
            np.frombuffer(codes, np.int32) for codes in (self._chosen_by, self._rejected_by)
        )
        ties = np.frombuffer(self._ties, np.int8)
        named = [name for name, code in self._names.items() if code >= 0]
        return figures.generators(named, chosen, rejected, ties=ties, groups=groups)

    def noise(
        self, options: ExportOptions, *, golds: tuple[NDArray[np.int8], Ints] | None
    ) -> dict[str, Any]:
        """How often a row's label is wrong, and how that is known.

        ``golds``: whether each vote of the recipe's raters on a control question was right, and
        the question, in order of question.
        """
        certain: Counter[float] = Counter()
        all_ps = np.frombuffer(self._certain, np.float32)
        for start in range(0, len(all_ps), AT_ONCE):
            some = np.round(all_ps[start : start + AT_ONCE].astype(np.float64), P_PLACES)
            ps, counts = np.unique(some, return_counts=True)
            certain.update(dict(zip(ps.tolist(), counts.tolist(), strict=True)))
        disagrees = disagreement(self.heard.counts, self.heard.kinds, self.heard.groups)
        return figures.noise(
            options,
            leads=self.leads,
            certain=certain,
            disagrees=disagrees,
            golds=golds,
            prompts=int(self.rows.groups[-1]) if len(self.rows) else 0,
        )


def _leads(pairs: Sequence[Pair], chosen: Sequence[ResponseText]) -> list[int]:
    """Votes for the chosen answer less those for the other."""
    return [
        pair.wins_a - pair.wins_b if one.id == pair.a_id else pair.wins_b - pair.wins_a
        for pair, one in zip(pairs, chosen, strict=True)
    ]


def _lengths(responses: Sequence[ResponseText]) -> list[int]:
    """Characters."""
    return [len(one.text) if one.source is None else one.length for one in responses]


def _hashes(responses: Sequence[ResponseText]) -> list[int]:
    return [hash(one.picture or one.source or one.text) for one in responses]


def _empties(responses: Sequence[ResponseText]) -> int:
    return sum(one.is_empty for one in responses if not one.text or one.text.isspace())


def _histogram(of: Counter[Any]) -> dict[str, int]:
    """Whole numbers, as text for JSON; strengths in between are rounded."""
    result: Counter[int] = Counter()
    for value, count in of.items():
        result[round(value)] += count
    return {str(key): result[key] for key in sorted(result)}
