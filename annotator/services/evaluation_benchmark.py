"""Pairs that came with subsets, scored as RewardBench scores them (models.reward_bench)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from annotator.queries.evaluation_pairs import NAMELESS, Pairs
from annotator.queries.quality_data import Codes
from models.intervals import Accuracy, estimate_accuracy
from models.reward_bench import TIES, Answers, Section, Ties, best_of, overall, sections, ties
from models.rm_evaluation import Flags, Floats, strict

Json = dict[str, Any]

REPLICATES: Final = 200
LEAST_REJECTED: Final = 2  # of one chosen answer: the subset is of best-of-k


def benchmark(pairs: Pairs, margins: Floats, scores: Floats | None) -> Json | None:
    """Subsets, sections, overall; None where no pair has a subset.

    ``margins`` (n,); ``scores`` (n, 2), or None of a model that only compares: the subset of ties,
    which asks how far right answers are from each other, is then counted by pairs.
    """
    named = pairs.subset != NAMELESS
    if not named.any():
        return None
    accuracies: dict[str, Accuracy] = {}
    subsets: list[Json] = []
    section_of: dict[str, str] = {}
    tied: Section | None = None
    for code in np.unique(pairs.subset[named]).tolist():
        rows, name = pairs.subset == code, pairs.subsets[code]
        is_ties = scores is not None and name.lower() == TIES
        if is_ties and (found := _ties(pairs, scores, rows)) is not None:
            tied = Section(name, found[0].score, found[1], found[0].n, (name,))
            subsets.append(_row(tied, "ties") | {"parts": _parts(found[0])})
            continue
        one, kind = _accuracy(pairs, margins, rows)
        accuracies[name] = one
        section = pairs.sections[_common(pairs.section[rows])]
        section_of[name] = section
        subsets.append(
            {"name": name, "kind": kind, "value": one.accuracy, "low": one.interval[0],
             "high": one.interval[1], "n": one.n}
        )  # fmt: skip
    found_sections = sections(accuracies, section_of) + ([tied] if tied else [])
    whole = overall(found_sections)
    assert whole is not None, "there is a subset"
    return {
        "subsets": subsets,
        "sections": [
            _row(one, "section") | {"subsets": list(one.subsets)} for one in found_sections
        ],
        "overall": _row(whole, "overall"),
        "without": int((~named).sum()),
    }


def _row(one: Section, kind: str) -> Json:
    low, high = one.interval
    return {
        "name": one.name, "kind": kind, "value": one.value, "low": low, "high": high, "n": one.n,
    }  # fmt: skip


def _common(codes: Codes) -> int:
    values, counts = np.unique(codes, return_counts=True)
    return int(values[counts.argmax()])


def _accuracy(pairs: Pairs, margins: Floats, rows: Flags) -> tuple[Accuracy, str]:
    """Of pairs; or of prompts, where most have one right answer among three and more."""
    prompts, chosen = pairs.prompts[rows], pairs.chosen[rows]
    credits_, several = [], 0
    _, begins = np.unique(prompts, return_index=True)  # pairs come by prompt
    for start, end in zip(begins, [*begins[1:], len(prompts)], strict=True):
        is_one = len(np.unique(chosen[start:end])) == 1
        several += is_one and end - start >= LEAST_REJECTED
        if is_one:
            behind = -margins[rows][start:end]  # the wrong ones, where the right one is at 0
            credits_.append(best_of(np.concatenate([[0.0], behind])))
    if 2 * several > len(begins) and len(credits_) == len(begins):
        found = estimate_accuracy(credits_, seed=0)
        kind = "best-of"
    else:
        found = strict(margins[rows], prompts)
        kind = "pairs"
    assert found is not None, "no subset is empty"
    return found, kind


def _ties(pairs: Pairs, scores: Floats, rows: Flags) -> tuple[Ties, tuple[float, float]] | None:
    """Of prompts called ref:ID and tied:ID, with an interval over ids."""
    grouped: dict[str, dict[str, Answers]] = {"ref": {}, "tied": {}}
    names = pairs.items.texts
    for prompt in np.unique(pairs.prompts[rows]).tolist():
        own = rows & (pairs.prompts == prompt)
        code = _common(pairs.item[own])
        kind, _, key = (names[code] if code != NAMELESS else "").partition(":")
        if kind in grouped and key:
            grouped[kind][key] = Answers(scores[own, 0], scores[own, 1])
    found = ties(grouped["ref"], grouped["tied"])
    if found is None:
        return None
    rng = np.random.default_rng(0)
    keys = sorted(grouped["ref"].keys() | grouped["tied"].keys())
    drawn = []
    for _ in range(REPLICATES):
        ids = rng.integers(len(keys), size=len(keys)).tolist()
        again = {
            kind: {f"{at}": of[keys[i]] for at, i in enumerate(ids) if keys[i] in of}
            for kind, of in grouped.items()
        }
        one = ties(again["ref"], again["tied"])
        drawn += [one.score] if one else []
    low, high = np.quantile(drawn, [0.025, 0.975])
    return found, (float(min(low, found.score)), float(max(high, found.score)))


def _parts(found: Ties) -> Json:
    return {
        "reference_accuracy": found.reference_accuracy,
        "tied_accuracy": found.tied_accuracy,
        "preferred": found.preferred,
        "preferred_hard": found.preferred_hard,
        "margin_score": found.margin_score,
    }
