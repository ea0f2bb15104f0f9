"""The generator that asks nobody: which verifiable criteria explain the preferences.

Every program of rubrics.programs scores both sides of every pair; the l1 refiner (rubrics.l1)
chooses and weighs. Free, offline, the same tomorrow.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rubrics.asking import as_sentence
from rubrics.criterion_figures import CriterionFigures
from rubrics.generators.diverse import different
from rubrics.generators.program_options import ProgramGeneratorOptions
from rubrics.generators.types import (
    CandidateCriterion,
    Evidence,
    Generated,
    Journal,
    PreferencePair,
)
from rubrics.l1 import Floats, oriented
from rubrics.llm.types import Call
from rubrics.programs import PROGRAMS
from rubrics.programs.evaluate import as_shares, evaluate
from rubrics.refinement import (
    HeldOut,
    Refinement,
    Settings,
    cross_validated,
    held_out,
    hold_out,
    refine,
)

AT_ONCE: Final = 200  # pairs between two looks at the journal
LEAST_GROUPS: Final = 10  # prompts: fewer cannot be held out, folded and drawn from
SUPPORTING: Final = 3
CONTRADICTING: Final = 2
TOLD: Final = 1e-9  # a difference in score that tells two sides apart


@dataclass(frozen=True, slots=True)
class _Scored:
    """differences (pairs, keys), NaN where a program does not apply; longer (pairs,) characters."""

    pairs: list[PreferencePair]
    keys: list[str]
    differences: Floats
    longer: Floats
    groups: NDArray[np.int64]


class ProgramGenerator:
    """A Generator without calls. Held-out accuracy is of exactly the weights it gives."""

    def __init__(self, options: ProgramGeneratorOptions) -> None:
        self._options = options

    async def generate(
        self, pairs: Sequence[PreferencePair], *, call: Call | None = None, journal: Journal
    ) -> Generated:
        """Chosen programs with weights; see rubrics.generators.types.Generator.

        ``figures["held_out"]`` (of these weights) and ``["cross_validated"]`` (of the method, over
        all prompts, None where not asked for) are rubrics.refinement.HeldOut.as_dict,
        ``["refinement"]`` is Refinement.as_dict. Raises ValueError for fewer than ten prompts.
        """
        dropped: Counter[str] = Counter()
        read = [pair for pair in pairs if _is_text(pair)]
        dropped["a side without text"] = len(pairs) - len(read)
        groups = np.array([pair.group for pair in read], dtype=np.int64)
        found = len(np.unique(groups))
        if pairs and not read:
            raise ValueError(
                "programs read text and these answers are pictures; a method that asks a model "
                "which sees pictures can learn from them, such as autorubric-t2i, arr or autorule"
            )
        if found < LEAST_GROUPS:
            raise ValueError(
                f"there are pairs of text of {found} prompts, and some are held out: "
                f"{LEAST_GROUPS} are needed"
            )
        scored = await self._score(read, groups, journal)
        out = hold_out(groups, self._options.held_out, seed=self._options.seed)
        journal.stage("refine", "Choosing and weighing criteria")
        journal.check()
        used = self._used(scored, ~out, dropped)
        if not used:
            return _nothing(scored, dropped)
        journal.progress(0, 1, "fits")
        refined, tested, overall = await asyncio.to_thread(
            self._refine, scored, used, out, journal.check
        )
        journal.progress(1, 1, "fits")
        dropped["no weight"] = len(used) - len(refined.chosen)
        return self._generated(scored, used, ~out, refined, (tested, overall), dropped)

    async def _score(
        self, pairs: list[PreferencePair], groups: NDArray[np.int64], journal: Journal
    ) -> _Scored:
        left_out = set(self._options.leave_out)
        keys = [k for k, row in PROGRAMS.items() if not {k, row.group} & left_out]
        if not keys:
            raise ValueError("all programs are left out")
        journal.stage("evaluate", "Programs read both sides")
        parts = []
        for start in range(0, len(pairs), AT_ONCE):
            journal.check()
            parts.append(
                await asyncio.to_thread(_differences, pairs[start : start + AT_ONCE], keys)
            )
            journal.progress(min(start + AT_ONCE, len(pairs)), len(pairs), "pairs")
        lengths = [len(pair.chosen.text) - len(pair.rejected.text) for pair in pairs]
        return _Scored(pairs, keys, np.concatenate(parts), np.array(lengths, dtype=float), groups)

    def _used(self, scored: _Scored, fitted: NDArray[np.bool_], dropped: Counter[str]) -> list[int]:
        """Columns that tell enough fitted pairs apart."""
        told = (np.abs(np.nan_to_num(scored.differences[fitted])) > TOLD).mean(axis=0)
        used = [int(at) for at in np.flatnonzero((told > 0) & (told >= self._options.min_coverage))]
        dropped["tells too few pairs apart"] = len(scored.keys) - len(used)

        def words(at: int) -> str:
            return f"{PROGRAMS[scored.keys[at]].label}: {PROGRAMS[scored.keys[at]].summary}"

        return different(used, self._options.different, text=words, dropped=dropped)

    def _refine(
        self, scored: _Scored, used: list[int], out: NDArray[np.bool_], check: Callable[[], None]
    ) -> tuple[Refinement, HeldOut, HeldOut | None]:
        """Weights, their accuracy held out, and the method's over all prompts if asked for."""
        options, columns, longer = self._options, scored.differences[:, used], scored.longer
        settings = Settings(
            rule=options.rule,
            top=options.top,
            bootstraps=options.bootstraps,
            band=TOLD,
            seed=options.seed,
        )
        names = [scored.keys[at] for at in used]
        refined = refine(
            columns[~out],
            groups=scored.groups[~out],
            names=names,
            settings=settings,
            check=check,
        )
        baselines = {
            "longer wins": longer[out],
            # On people who prefer brevity, "longer wins" would be beaten by anything.
            "length, direction learned": longer[out] * np.sign(np.sign(longer[~out]).sum()),
        } | _equal_weights(columns, out, refined)
        tested = held_out(
            refined,
            columns[out],
            groups=scored.groups[out],
            baselines=baselines,
            seed=options.seed,
        )
        if options.outer_folds < 2:
            return refined, tested, None
        overall = cross_validated(
            columns,
            groups=scored.groups,
            baselines={"longer wins": longer, "shorter wins": -longer},
            folds=options.outer_folds,
            settings=settings,
            check=check,
        )
        return refined, tested, overall

    def _generated(
        self,
        scored: _Scored,
        used: list[int],
        fitted: NDArray[np.bool_],
        refined: Refinement,
        tests: tuple[HeldOut, HeldOut | None],
        dropped: Counter[str],
    ) -> Generated:
        tested, overall = tests
        places = np.flatnonzero(fitted)
        criteria = []
        for at in refined.chosen:
            weight = float(refined.weights[at])
            signed = np.nan_to_num(scored.differences[places, used[at]]) * np.sign(weight)
            row = PROGRAMS[refined.names[at]]
            criteria.append(
                CandidateCriterion(
                    text=f"Has many {row.label.lower()}."
                    if row.gives == "measure"
                    else as_sentence(row.label),
                    polarity=1 if weight > 0 else -1,
                    weight=weight,
                    verifier="program",
                    program=refined.names[at],
                    theme=row.group,
                    evidence=_evidence(scored.pairs, places, signed),
                    figures=_figures(refined.figures[at]),
                )
            )
        likeness = _likeness(refined.margins(scored.differences[:, used])[~fitted],
                             scored.longer[~fitted])  # fmt: skip
        return Generated(
            criteria=tuple(criteria),
            figures={
                "pairs": len(scored.pairs),
                "fitted": int(fitted.sum()),
                "calls_per_pair": 0,
                "held_out": tested.as_dict(),
                "cross_validated": overall.as_dict() if overall else None,
                "length_correlation": likeness,
                "refinement": refined.as_dict(),
            },
            dropped={reason: n for reason, n in dropped.items() if n},
            notes=_notes(criteria),
        )


def _is_text(pair: PreferencePair) -> bool:
    """Programs read text: a picture alone says nothing to them, an empty answer does."""
    return all(
        one.picture is None or bool(one.text.strip()) for one in (pair.chosen, pair.rejected)
    )


def _differences(pairs: Sequence[PreferencePair], keys: Sequence[str]) -> Floats:
    """Chosen minus rejected in shares, (pairs, keys)."""
    messages = [pair.messages for pair in pairs for _ in range(2)]
    texts = [one.text for pair in pairs for one in (pair.chosen, pair.rejected)]
    shares = as_shares(evaluate(messages, texts, keys), keys)
    found: Floats = shares[0::2] - shares[1::2]
    return found


def _equal_weights(
    columns: Floats, out: NDArray[np.bool_], refined: Refinement
) -> dict[str, Floats]:
    """Scores of held-out pairs where every criterion counts the same, spreads evened out.

    The direction of each is learned on fitted pairs: of its verdicts, or for chosen ones of
    its weight. Without that, "swears" would count like "names sources".
    """
    rows = oriented(columns)
    spread = np.array([one.spread for one in refined.figures])
    scaled = rows[out] / np.where(spread > 0, spread, np.inf)
    leaning = np.sign(np.sign(rows[~out]).sum(axis=0))
    return {
        "equal weights": scaled @ leaning,
        "chosen, equal weights": scaled @ np.sign(refined.weights),
    }


def _evidence(
    pairs: Sequence[PreferencePair], places: NDArray[np.int64], signed: Floats
) -> tuple[Evidence, ...]:
    """The fitted pairs that speak loudest for a criterion, then against it."""
    found = []
    order = np.argsort(-signed, kind="stable")
    for supports, some in ((True, order[:SUPPORTING]), (False, order[::-1][:CONTRADICTING])):
        for at in some.tolist():
            if (signed[at] > TOLD) if supports else (signed[at] < -TOLD):
                pair = pairs[int(places[at])]
                judgment = pair.judgments[0] if pair.judgments else None
                found.append(Evidence(pair.id, supports, judgment=judgment))
    return tuple(found)


def _figures(figures: CriterionFigures) -> dict[str, float | int | None]:
    """Flat, as candidates carry them; ``_low`` and ``_high`` are the ends of 95 % intervals."""
    precision, contribution = figures.precision, figures.contribution
    found: dict[str, float | int | None] = {
        "coverage": figures.coverage,
        "decisive": figures.decisive,
        "pairs": figures.n,
        "precision": precision.accuracy if precision else None,
        "contribution": contribution.value if contribution else None,
        "frequency": figures.frequency,
        "strength": figures.strength,
        "redundancy": figures.redundancy,
    }
    for name, interval in (
        ("precision", precision.interval if precision else None),
        ("contribution", contribution.interval if contribution else None),
        ("weight", figures.weight_interval),
    ):
        found[f"{name}_low"], found[f"{name}_high"] = interval or (None, None)
    return found


def _likeness(margins: Floats, longer: Floats) -> float | None:
    """Rank correlation around 0 of what the rubric says with which side is longer."""
    ranks = [
        np.sign(one) * (np.unique(np.abs(one), return_inverse=True)[1] + (np.abs(one) > 0))
        for one in (margins, longer)
    ]
    size = float(np.sqrt((ranks[0] ** 2.0).sum() * (ranks[1] ** 2.0).sum()))
    return float((ranks[0] * ranks[1]).sum()) / size if size > 0 else None


def _notes(criteria: Sequence[CandidateCriterion]) -> tuple[str, ...]:
    if not criteria:
        return ("No program explains these preferences.",)
    used = [PROGRAMS[one.program] for one in criteria]
    measures = [row.label.lower() for row in used if row.gives == "measure"]
    if not measures:
        return ()
    counted = " and ".join(measures)
    return (f"It counts {counted}: length, which may sway people who do not want it to.",)


def _nothing(scored: _Scored, dropped: Counter[str]) -> Generated:
    figures: dict[str, Any] = {"pairs": len(scored.pairs), "calls_per_pair": 0}
    return Generated(
        criteria=(),
        figures=figures,
        dropped={reason: n for reason, n in dropped.items() if n},
        notes=("No program tells enough of these pairs apart.",),
    )
