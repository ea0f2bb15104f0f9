"""How far a judge agrees with people, beside people themselves, other judges and "longer wins"."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from annotator.models import Judge
from annotator.queries.judge_report import Agreement, Estimate, Measure, Row
from annotator.queries.quality_data import Codes
from annotator.services.judge_truth import (
    FAILED_CLASS,
    FEWEST,
    NONE,
    Ballots,
    Compared,
    Flags,
    estimate,
    share,
)
from models.agreement import measure
from models.paired_agreement import paired_agreement
from models.ratings import Ratings

MOST_JUDGES: Final = 20  # in the dot chart
FEWEST_SHARED: Final = 20  # pairs that another judge must share to stand beside
REPLICATES: Final = 200


def agreement(judge: Judge, compared: Compared) -> Agreement:
    """All of it, on the pairs that people have answered; there must be FEWEST."""
    known = compared.is_known
    truth, said = compared.truth[known], compared.classes[known]
    prompts = compared.said.verdicts.prompts[known]
    readable = said != FAILED_CLASS
    both = (truth != 0) & readable & (said != 1)
    table = np.zeros((3, 4), dtype=np.int64)
    np.add.at(table, (1 - truth, said), 1)
    return {
        "headline": "exact",
        "exact": _measure(judge, compared, is_strict=False),
        "strict": _measure(judge, compared, is_strict=True),
        "decided": share(1 - said[both] == truth[both], prompts[both]),
        "cohen": _paired(truth[readable], said[readable], prompts[readable], "cohen"),
        "alpha": _paired(truth[readable], said[readable], prompts[readable], "nominal"),
        "alpha_ordinal": _paired(truth[readable], said[readable], prompts[readable], "ordinal"),
        "alpha_people": _alpha_people(compared),
        "ties": {
            "both": int(table[1, 1]),
            "judge": int(table[0, 1] + table[2, 1]),
            "people": int(table[1, 0] + table[1, 2]),
        },
        "table": table.tolist(),
    }


def hits(truth: Codes, said: Codes) -> Flags:
    """Whether classes ``said`` are people's answers; an unreadable one is not."""
    right: Flags = said == 1 - truth
    return right


def _measure(judge: Judge, compared: Compared, *, is_strict: bool) -> Measure:
    kept = compared.is_known & ((compared.truth != 0) | (not is_strict))
    prompts = compared.said.verdicts.prompts[kept]
    own = share(hits(compared.truth[kept], compared.classes[kept]), prompts)
    ceiling = _ceiling(compared, is_strict=is_strict)
    gap = overlap = None
    if ceiling is not None and own["value"] is not None:
        gap = ceiling["value"] - own["value"]  # type: ignore[operator]
        overlap = _overlap(own, ceiling)
    return {
        "judge": own,
        "ceiling": ceiling,
        "gap": gap,
        "overlap": overlap,
        "like_for_like": _like_for_like(compared, is_strict=is_strict),
        "rows": _rows(judge, compared, kept, own, ceiling),
    }


def _overlap(one: Estimate, two: Estimate) -> bool | None:
    ends = (one["low"], one["high"], two["low"], two["high"])
    if any(end is None for end in ends):
        return None
    return bool(ends[0] <= ends[3] and ends[2] <= ends[1])  # type: ignore[operator]


def _shared(compared: Compared) -> Ballots:
    """People's votes on the pairs whose answer is their majority."""
    judged = np.zeros(compared.n_items, dtype=bool)
    judged[compared.items[compared.by_majority]] = True
    return compared.people.where(judged[compared.people.items])


def _ceiling(compared: Compared, *, is_strict: bool) -> Estimate | None:
    """One person beside the others of a pair, each in turn.

    The value of models.baselines.human_ceiling (strict) and models.agreement.leave_one_out
    (exact); the interval is over prompts as everywhere in the report, so that both compare.
    """
    people = _shared(compared)
    return _held_out(compared, people, 1 - people.outcome, is_strict=is_strict)


def _like_for_like(compared: Compared, *, is_strict: bool) -> Estimate | None:
    """The judge held against the others of each person, as that person is in the ceiling.

    Majorities of all are easier to agree with than those of all but one: this is the fair pair of
    the ceiling.
    """
    people = _shared(compared)
    answer = np.full(compared.n_items, FAILED_CLASS)
    answer[compared.items] = compared.classes
    return _held_out(compared, people, answer[people.items], is_strict=is_strict)


def _held_out(
    compared: Compared, people: Ballots, said: Codes, *, is_strict: bool
) -> Estimate | None:
    """Agreement of ``said``, a class per ballot, with the pair's ballots but that one.

    Strict: with the sign of their sum, where it has one. Exact: with the answer most of them gave;
    where several lead, agreeing with one of them counts in part.
    """
    counts = np.zeros((compared.n_items, 3))
    np.add.at(counts, (people.items, 1 - people.outcome), 1)
    others = counts[people.items]
    others[np.arange(len(people)), 1 - people.outcome] -= 1
    if is_strict:
        net = np.sign(others[:, 0] - others[:, 2])
        kept, credit = net != 0, (1 - said == net).astype(np.float64)
    else:
        top = others.max(axis=1, initial=0)
        kept = top > 0
        at_top = others == top[:, None]
        padded = np.column_stack([at_top, np.zeros(len(people), dtype=bool)])
        credit = padded[np.arange(len(people)), said] / at_top.sum(axis=1)
    if kept.sum() < FEWEST:
        return None
    return share(credit[kept], compared.prompt_of_items[people.items[kept]])


def _rows(
    judge: Judge, compared: Compared, kept: Flags, own: Estimate, ceiling: Estimate | None
) -> list[Row]:
    rows = []
    if ceiling is not None:
        rows.append(_row("people", "one person with another", "people", None, ceiling))
    judges = [
        _row("this", str(judge), "this", judge.pk, own),
        *_other_judges(compared, kept),
    ]
    rows += sorted(judges, key=lambda row: -(row["value"] or 0))
    longer = _longer(compared, kept)
    if longer is not None:
        rows.append(_row("longer", "longer answer wins", "baseline", None, longer))
    return rows


def _row(key: str, label: str, kind: str, judge: int | None, found: Estimate) -> Row:
    return {"key": key, "label": label, "kind": kind, "judge": judge, **found}


def _other_judges(compared: Compared, kept: Flags) -> list[Row]:
    """Other judges on those of the same pairs that they were asked about, the busiest ones.

    What they could not say readably is wrong, as it is for this judge.
    """
    items = np.unique(compared.items[kept])
    votes, failed = (
        one.where(np.isin(one.items, items)) for one in (compared.judges, compared.failed)
    )
    raters, n = np.unique(votes.raters, return_counts=True)
    crowd, rows = compared.said.crowd, []
    for rater in raters[np.argsort(-n, kind="stable")][:MOST_JUDGES].tolist():
        theirs = votes.where(votes.raters == rater)
        if len(theirs) < FEWEST_SHARED:
            break
        lost = failed.items[failed.raters == rater]
        right = theirs.outcome == compared.truth_of_items[theirs.items]
        prompts = compared.prompt_of_items[np.concatenate([theirs.items, lost])]
        found = share(np.concatenate([right, np.zeros(len(lost), dtype=bool)]), prompts)
        judge_id = crowd.judges.get(rater)
        rows.append(
            _row(f"judge:{judge_id or rater}", crowd.title(rater), "judge", judge_id, found)
        )
    return rows


def _longer(compared: Compared, kept: Flags) -> Estimate | None:
    """Always calling the longer one better; equal lengths are a tie."""
    low, high = (side[kept] for side in compared.lengths)
    written = (low > 0) | (high > 0)
    if written.sum() < FEWEST:
        return None
    right = np.sign(low - high)[written] == compared.truth[kept][written]
    return share(right, compared.said.verdicts.prompts[kept][written])


def _paired(truth: Codes, said: Codes, prompts: Codes, statistic: Any) -> Estimate | None:
    if len(truth) < FEWEST:
        return None
    found = paired_agreement(1 - truth, said, prompts, classes=3, statistic=statistic)
    method = "bootstrap over groups" if found.interval else ""
    return estimate(found.value, found.interval, found.n, found.groups, method)


def _alpha_people(compared: Compared) -> Estimate | None:
    people = _shared(compared)
    if not len(people):
        return None
    found = measure(
        Ratings(people.items, people.raters, people.outcome.astype(np.float64)),
        replicates=REPLICATES,
        groups=compared.prompt_of_items[people.items],
    )
    if found.value is None:
        return None
    return estimate(found.value, found.interval, found.n_units_paired, found.n_units, found.method)


def why_not(compared: Compared) -> str:
    """Why the judge cannot be compared with people."""
    if not len(compared):
        return "The judge has ordered no two answers yet."
    if not compared.has_people.any() and not compared.is_known.any():
        return "No person has judged any of its pairs, and no answer of them is known."
    known = int((compared.truth != NONE).sum())
    return (
        f"Only {known} of its {len(compared):,} pairs have an answer by people: a gold, a "
        f"reviewer's decision or a majority of at least {compared.min_people}."
    )
