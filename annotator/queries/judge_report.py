"""The shape of a judge's report, and the newest one: the JSON in ``JudgeReport.figures``.

Shares and probabilities are in 0..1. Every number is an ``Estimate`` with a 95 % interval, or a
count. A part that cannot be said is None, and ``missing`` gives the reason under the part's name.
"""

from __future__ import annotations

from typing import Any, Final, TypedDict

from django.db.models import Sum
from django.db.models.fields.json import KeyTransform

from annotator.models import Judge, JudgeReport, Rater

VERSION: Final = 1


class Estimate(TypedDict):
    """A number with its interval and the cases it was counted on."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # pairs, answers or whatever the part counts
    groups: int  # independent clusters among them: prompts, nearly always
    method: str  # of the interval: "wilson", "bootstrap over groups", ...; "" where there is none


class About(TypedDict):
    """Who was measured."""

    id: int
    name: str
    version: int
    title: str  # "rubric-judge v3"
    kind: str  # key of rubrics.judging.JUDGES, or "imported"
    model: str
    template_hash: str
    family: str  # of its model, "" where none is known; see models.families.family_of
    is_simulated: bool


class Counts(TypedDict):
    """What there was to compare."""

    judgments: int  # verdicts in force of this judge
    tasks: int  # with a verdict
    failed: int  # tasks that ended without one
    pairs: int  # that its verdicts order, ties included
    compared: int  # of them with an answer by people; failed ones that count as wrong included
    counted_wrong: int  # of ``compared``: the judge's answer could not be read
    min_people: int  # a majority is of at least so many people
    by_source: dict[str, int]  # of ``compared``: "gold", "reviewer", "majority"
    no_majority: int  # pairs with people's votes, but too few or evenly split
    no_people: int  # pairs on which no person has said anything
    people: int  # raters (persons and imported ones) behind the votes
    votes: int  # of theirs


class Row(TypedDict):
    """One line of the dot chart: somebody beside the people's answers on the same pairs."""

    key: str  # "people", "this", "judge:ID" or "longer"
    label: str
    kind: str  # "people" (the ceiling), "this", "judge", "baseline"
    judge: int | None  # id, to link to
    value: float | None
    low: float | None
    high: float | None
    n: int
    groups: int
    method: str


class Measure(TypedDict):
    """Agreement with people in one way of counting.

    ``exact``: a, b or tie must be the same. ``strict``: only pairs on which people prefer one; a
    tie of the judge is wrong. In both an unreadable answer of the judge is wrong.
    """

    judge: Estimate
    ceiling: Estimate | None  # one person beside the others, same pairs, same counting
    gap: float | None  # ceiling - judge
    overlap: bool | None  # whether the two intervals overlap
    like_for_like: Estimate | None  # the judge beside what each person was held against
    rows: list[Row]  # the ceiling first, then judges from the best down, "longer wins" last


class Agreement(TypedDict):
    """The judge beside people."""

    headline: str  # which measure the page leads with: "exact"
    exact: Measure
    strict: Measure
    decided: Estimate  # both prefer one: is it the same one?
    cohen: Estimate | None  # kappa, judge and people's answer as two raters of a, tie, b
    alpha: Estimate | None  # Krippendorff, nominal, likewise
    alpha_ordinal: Estimate | None  # with tie between a and b
    alpha_people: Estimate | None  # of the people among themselves, nominal, same pairs
    ties: dict[str, int]  # "both", "judge" (people prefer one), "people" (the judge prefers one)
    table: list[list[int]]  # rows people's a, tie, b; columns judge's a, tie, b, unreadable


class Strategy(TypedDict):
    """One way of making a verdict of the two orders, on pairs that people decided."""

    key: str  # "single", "agree-only", "soft"
    label: str
    accuracy: Estimate | None  # of those it decides
    coverage: Estimate  # share of pairs it decides: read accuracy beside it


class Position(TypedDict):
    """What the order of showing does, from pairs that were asked in both orders."""

    pairs: int
    same: Estimate  # the same answer in both orders
    first_both: Estimate  # whatever was shown first won both times
    second_both: Estimate
    tie_once: Estimate  # a tie in one of the orders only: all four add up to 1
    first_slot: Estimate  # share of single answers for the response shown first, ties left out
    bias: Estimate | None  # b in log-odds, positive for the first slot: models.position
    bias_gaussian: Estimate | None  # b in standard deviations of how far apart two answers are
    strategies: list[Strategy]


class Bucket(TypedDict):
    """One point of the length chart."""

    ratio: float  # center: 0.25, 0.35, 0.5, 0.71, 1, ... 4; the outermost hold all beyond
    low: float
    high: float
    judge: Estimate | None  # share of wins of the answer whose length is ratio times the other's
    people: Estimate | None  # ties count half in both


class GeneratorRow(TypedDict):
    """One model that wrote answers, against all others, as this judge sees it."""

    name: str
    raw: Estimate
    controlled: Estimate | None  # win rate at equal lengths
    people: Estimate | None  # raw, of people on the same pairs
    warning: str  # where raw and controlled differ more than the method bears


class Length(TypedDict):
    """Whether it likes length, and more than people do."""

    pairs: int
    longer: Estimate  # share of its preferences for the longer answer
    longer_people: Estimate | None  # of people, on the same pairs
    coefficient: Estimate | None  # of tanh(standardized difference); positive: longer is preferred
    coefficient_people: Estimate | None
    curve: list[Bucket]
    generators: list[GeneratorRow]
    message: str  # one sentence


class Family(TypedDict):
    """What it gives to models of its own family, on pairs with just one such answer."""

    family: str
    generators: list[str]
    judge: Estimate  # win share of its family, ties half
    people: Estimate | None  # the same pairs by people
    difference: Estimate | None  # judge - people, positive: it favors its own
    others: list[dict[str, Any]]  # [{"title", "id", **Estimate}]: other judges on the same pairs


class Bin(TypedDict):
    """One bin of the reliability curve."""

    low: float
    high: float
    says: float  # mean confidence
    people: Estimate  # share on which people agree


class Calibrator(TypedDict):
    """Confidence mended on some prompts and measured on others."""

    key: str  # "as it is", "temperature", "platt", "isotonic"
    label: str
    ece: float
    brier: float
    log_loss: float


class Calibration(TypedDict):
    """Whether its confidence is worth what it says; pairs on which both prefer one."""

    of: str  # "probability" (the larger side's) or "confidence" (as the judge says it)
    n: int
    ties_left_out: int
    mean_confidence: float
    accuracy: float
    equal_width: list[Bin]
    equal_mass: list[Bin]
    ece: Estimate  # ten bins of equal width
    ece_equal_mass: Estimate
    ece_expected: float  # what a perfectly calibrated judge would show at this n
    ece_debiased: float
    brier: Estimate
    log_loss: Estimate
    calibrators: list[Calibrator]
    message: str  # such as "Overconfident between 65 and 85 %."


class Slice(TypedDict):
    """Agreement (exact) on one part of the pairs. ``pooled`` parts too small to stand alone."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    groups: int
    method: str
    pooled: int


class Failure(TypedDict):
    """Tasks that ended without a verdict, by reason."""

    kind: str  # key of rubrics.llm.types.FAILURES, or an importer's word
    label: str
    n: int
    counted_wrong: bool  # the judge's own fault: a wrong answer wherever people have one


class Cost(TypedDict):
    """What its verdicts took. Money in the unit of the endpoint's prices."""

    calls: int  # in the ledger
    cached: int  # answers that needed none
    tokens_in: int
    tokens_out: int
    money: float
    per_1000: float | None  # money per 1,000 judgments
    latency_median_ms: float | None
    latency_p95_ms: float | None
    retries: int  # attempts beyond the first
    answers: int  # single answers, one per order and repeat
    unreadable: Estimate | None  # share of answers that could not be read
    models: list[dict[str, Any]]  # [{"model", "calls", "tokens_in", "tokens_out", "money"}]


class Question(TypedDict):
    """One attribute of a rating, or one criterion of a checklist: judge beside people's mean."""

    name: str
    kind: str  # "rating" or "checklist"
    exact: Estimate  # the same value as the people's median (rating) or majority (checklist)
    within_one: Estimate | None  # rating only
    correlation: Estimate | None  # Pearson with the people's mean; rating only
    rank_correlation: Estimate | None  # Spearman
    difference: Estimate | None  # mean of judge - people
    alpha: Estimate | None  # Krippendorff of judge and people: interval (rating), nominal
    kappa: Estimate | None  # Cohen; checklist only
    alpha_people: Estimate | None  # people among themselves


class Shared(TypedDict):
    """Whether it makes the same mistakes as others: see models.shared_errors."""

    is_warning: bool
    message: str
    pairs: int  # pairs of raters looked at
    rows: list[dict[str, Any]]  # [{"name", "judge", "shared", "agreement", "expected", "excess"}]


class Figures(TypedDict):
    """The whole report."""

    version: int
    about: About
    kinds: list[str]  # kinds of task among its judgments
    counts: Counts
    agreement: Agreement | None
    position: Position | None
    length: Length | None
    family: Family | None
    calibration: Calibration | None
    slices: dict[str, list[Slice]]  # "kind", "split", "tag", "generator", "length", "strength"
    golds: Estimate | None  # share of known answers that it meets
    failures: list[Failure]
    cost: Cost | None  # None for a judge that makes no calls
    questions: list[Question]
    shared: Shared | None
    missing: dict[str, str]  # part -> why it is None or empty
    judged: dict[str, int]  # raters' own counters as of now: "own", "all"; see ``newer``


def report(judge: Judge) -> JudgeReport | None:
    """The newest report whose figures this version of the product understands."""
    found = (
        JudgeReport.objects.filter(judge=judge, figures__version=VERSION)
        .select_related("run")
        .defer("run__log")
        .order_by("-created_at", "-pk")
        .first()
    )
    return found


def at(path: tuple[str, ...]) -> Any:
    """``figures`` at a path; "exact" between double underscores would be a lookup."""
    found: Any = "figures"
    for name in path:
        found = KeyTransform(name, found)
    return found


def counters(judge: Judge) -> dict[str, int]:
    """How much the judge and everybody has judged, from the raters' own counters: costs nothing."""
    rows = Rater.objects.filter(project_id=judge.project_id)
    everybody = rows.aggregate(total=Sum("judged"))["total"] or 0
    own = rows.filter(pk=judge.rater_id).aggregate(total=Sum("judged"))["total"] or 0
    return {"own": int(own), "all": int(everybody)}


def newer(judge: Judge, found: JudgeReport) -> int:
    """How many more judgments there are in the project than when the report was computed."""
    return max(0, counters(judge)["all"] - int(found.figures.get("judged", {}).get("all", 0)))
