"""A judge's report: computed in the background from one snapshot, kept as a JudgeReport.

What the parts mean is in queries.judge_report. Every part stands by itself: where one cannot be
said, the report holds None for it and says why.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import numpy as np
import psycopg
from django.db import transaction
from django.utils import timezone

from annotator.errors import NotFound
from annotator.models import Judge, JudgeOutcome, JudgeReport, Run, User
from annotator.queries import judge_ledger, judge_votes, quality_data
from annotator.queries.judge_report import (
    VERSION,
    About,
    Cost,
    Counts,
    Failure,
    Figures,
    counters,
    newer,
    report,
)
from annotator.queries.judge_votes import KIND_KEYS, NOT_ITS_FAULT
from annotator.queries.judging import judge_of, reason
from annotator.queries.runs import ACTIVE
from annotator.queries.snapshot import snapshot
from annotator.services import (
    judge_agreement,
    judge_bias,
    judge_confidence,
    judge_questions,
    judge_shared,
    runs,
)
from annotator.services.judge_truth import FEWEST, SOURCES, Compared, compare, estimate, share
from models.intervals import wilson

KEPT: Final = 20  # reports of a judge, the newest
TAGS: Final = 30
# Computed anew by itself once so many judgments are newer, or some after so long.
STALE_JUDGMENTS: Final = 50
STALE_AFTER: Final = timedelta(minutes=10)
MIN_GAP: Final = timedelta(minutes=1)

Stage = Callable[[str, str], None]


def start(*, judge: Judge, by: User | None) -> tuple[Run, bool]:
    """A queued run, or the one under way; the second value says whether it is new.

    The caller enqueues the job of a new one.
    """
    with transaction.atomic():
        Judge.objects.select_for_update(no_key=True).only("pk").get(pk=judge.pk)
        found = _runs(judge).filter(state__in=ACTIVE).order_by("pk").first()
        if found is not None:
            return found, False
        run = runs.start(
            project=judge.project,
            kind=Run.Kind.REPORT,
            title=f"Report on {judge}",
            config={"judge": judge.pk},
            by=by,
        )
        return run, True


def start_if_stale(*, judge: Judge) -> Run | None:
    """A new run where the report is behind enough to matter; None where it is not.

    Called when the judge's page is looked at: nothing is computed that nobody reads.
    """
    found, now = report(judge), timezone.now()
    if found is not None:
        behind, age = newer(judge, found), now - found.created_at
        waits_long = behind > 0 and age > STALE_AFTER
        if age < MIN_GAP or not (behind >= STALE_JUDGMENTS or waits_long):
            return None
    elif not _has_begun(judge):
        return None
    last = _runs(judge).order_by("-pk").first()
    if last is not None and last.created_at > now - (STALE_AFTER if found is None else MIN_GAP):
        return None  # under way, or it just failed: a person presses the button
    run, is_new = start(judge=judge, by=None)
    return run if is_new else None


def _runs(judge: Judge) -> Any:
    return Run.objects.filter(
        project_id=judge.project_id, kind=Run.Kind.REPORT, config__judge=judge.pk
    )


def _has_begun(judge: Judge) -> bool:
    if JudgeOutcome.objects.filter(judge=judge).exists():
        return True
    return bool(judge.rater.judgments.filter(is_current=True).exists())


def perform(pen: runs.Work) -> dict[str, Any]:
    """The whole of a report run; its result."""
    judge = judge_of(pen.run)
    if judge is None:
        raise NotFound("The judge of this run is gone.")

    def stage(key: str, label: str) -> None:
        pen.check()
        pen.stage(key, label)

    return record(judge, pen.run, stage=stage)


def record(judge: Judge, run: Run, *, stage: Stage) -> dict[str, Any]:
    """Compute the report and keep it as this run's; returns its headlines."""
    began = timezone.now()
    figures = compute(judge, stage=stage)
    stage("write", "Write")
    kept = _keep(judge, run, figures)
    agreement = figures["agreement"]
    return {
        "report": kept.pk,
        "judge": judge.pk,
        "judgments": figures["counts"]["judgments"],
        "pairs": figures["counts"]["pairs"],
        "compared": figures["counts"]["compared"],
        "agreement": agreement["exact"]["judge"] if agreement else None,
        "ceiling": agreement["exact"]["ceiling"] if agreement else None,
        "seconds": round((timezone.now() - began).total_seconds(), 2),
    }


def _keep(judge: Judge, run: Run, figures: Figures) -> JudgeReport:
    """One report per run; an attempt that is done again replaces its own."""
    with transaction.atomic():
        JudgeReport.objects.filter(run=run).delete()
        kept = JudgeReport.objects.create(judge=judge, run=run, figures=figures)
        old = JudgeReport.objects.filter(judge=judge).order_by("-pk")[KEPT:]
        JudgeReport.objects.filter(pk__in=[one.pk for one in old.only("pk")]).delete()
    return kept


def compute(judge: Judge, *, stage: Stage = lambda key, label: None) -> Figures:
    """The report as of now. ``stage`` is told what is being worked on, and may raise to stop."""
    stage("read", "Read")
    now = counters(judge)
    with snapshot() as raw:
        compared = compare(said := judge_votes.read(raw, judge))
        tags = quality_data.tags(raw, judge.project_id, most=TAGS)
        stage("questions", "Ratings and checks")
        questions = judge_questions.questions(raw, judge, said.crowd)
        totals, failures = judge_ledger.totals(raw, judge), judge_ledger.failures(raw, judge)
        cost, golds = _cost(raw, judge, totals), judge_ledger.gold_hits(raw, judge)
    stage("agreement", "Agreement")
    known = compared.is_known.sum() >= FEWEST
    agreement = judge_agreement.agreement(judge, compared) if known else None
    slices = judge_confidence.slices(compared, tags)
    stage("bias", "Position, length, family")
    position = judge_bias.position(compared)
    length, family = judge_bias.length(compared), judge_bias.family(judge, compared)
    stage("confidence", "Confidence")
    figures: Figures = {
        "version": VERSION,
        "about": _about(judge),
        "kinds": [KIND_KEYS[code] for code in np.unique(said.verdicts.kinds).tolist()],
        "counts": _counts(compared, totals),
        "agreement": agreement,
        "position": position,
        "length": length,
        "family": family,
        "calibration": judge_confidence.calibration(compared),
        "slices": slices,
        "golds": share(golds["hit"], golds["prompt_id"]) if len(golds["hit"]) else None,
        "failures": [_failure(error, n) for error, n in failures],
        "questions": questions,
        "cost": cost,
        "shared": judge_shared.shared(judge, compared),
        "missing": {},
        "judged": now,
    }
    figures["missing"] = _missing(judge, compared, figures)
    return figures


def _about(judge: Judge) -> About:
    return {
        "id": judge.pk,
        "name": judge.name,
        "version": judge.version,
        "title": str(judge),
        "kind": judge.kind,
        "model": judge.model,
        "template_hash": judge.template_hash,
        "family": judge_bias.family_of_judge(judge),
        "is_simulated": judge.is_simulated,
    }


def _counts(compared: Compared, totals: judge_ledger.Totals) -> Counts:
    known, failed = compared.is_known, compared.said.verdicts.is_failed
    open_ = ~known & ~failed
    return {
        "judgments": totals.judgments,
        "tasks": totals.tasks,
        "failed": totals.failed,
        "pairs": int((~failed).sum()),
        "compared": int(known.sum()),
        "counted_wrong": int((known & failed).sum()),
        "min_people": compared.min_people,
        "by_source": {
            name: int((compared.source == code).sum()) for code, name in enumerate(SOURCES)
        },
        "no_majority": int((open_ & compared.has_people).sum()),
        "no_people": int((open_ & ~compared.has_people).sum()),
        "people": len(np.unique(compared.people.raters)),
        "votes": len(compared.people),
    }


def _failure(error: str, n: int) -> Failure:
    wrong = error not in NOT_ITS_FAULT
    return {"kind": error, "label": reason(error), "n": n, "counted_wrong": wrong}


def _cost(raw: psycopg.Connection, judge: Judge, totals: judge_ledger.Totals) -> Cost | None:
    spent = judge_ledger.spent(raw, judge)
    if not spent and not totals.answers:
        return None
    money = sum(one.money for one in spent)
    unreadable = None
    if totals.answers:
        n, none = totals.answers, totals.unreadable
        unreadable = estimate(none / n, wilson(none, n), n, n, "wilson")
    return {
        "calls": sum(one.calls for one in spent),
        "cached": totals.cached,
        "paid": totals.paid,
        "tokens_in": sum(one.tokens_in for one in spent),
        "tokens_out": sum(one.tokens_out for one in spent),
        "money": money,
        "per_1000": 1000 * money / totals.judgments if totals.judgments else None,
        "latency_median_ms": totals.latency_median_ms,
        "latency_p95_ms": totals.latency_p95_ms,
        "retries": sum(one.retries for one in spent),
        "answers": totals.answers,
        "unreadable": unreadable,
        "models": [one._asdict() for one in spent],
    }


def _missing(judge: Judge, compared: Compared, figures: Figures) -> dict[str, str]:
    """Why a part is not there, in words for the page."""
    no_answers = judge_agreement.why_not(compared)
    reasons = {
        "agreement": no_answers,
        "slices": no_answers,
        "position": "No pair has a readable answer of this judge in both orders.",
        "length": "Too few of its pairs are of two texts of different length.",
        "family": (
            f"No pairs set an answer of the family “{figures['about']['family']}” against another."
            if figures["about"]["family"]
            else "The judge is no language model, or its model has no known family."
        ),
        "calibration": (
            "Too few of its verdicts have both a confidence and an answer by people."
            if figures["agreement"]
            else no_answers
        ),
        "golds": "It was asked about no task with a known answer.",
        "questions": "It has rated or checked nothing that people have rated or checked too.",
        "cost": "It makes no calls.",
        "shared": "Fewer than four raters judged its pairs.",
    }
    found: dict[str, Any] = dict(figures)
    missing = {part: text for part, text in reasons.items() if not found[part]}
    agreement = figures["agreement"]
    if agreement is not None and agreement["exact"]["ceiling"] is None:
        missing["ceiling"] = "No two persons judged the same pair: there is no human ceiling."
    return missing
