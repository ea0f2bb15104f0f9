"""How far a project's judgments can be trusted: computed in the background, as one report.

A quality run reads everything once, writes the consensus of every task, and keeps the figures of
agreement, raters and win rates as a QualityReport. Safe to run twice; it stops between stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import psycopg
from django.db import transaction
from django.utils import timezone

from annotator.errors import Conflict, NotFound
from annotator.models import (
    AuditEvent,
    Judge,
    Judgment,
    Project,
    QualityReport,
    Rater,
    Run,
    User,
)
from annotator.queries import quality_data as data
from annotator.queries.quality import VERSION, newer, report
from annotator.queries.runs import ACTIVE
from annotator.queries.snapshot import snapshot
from annotator.services import (
    acceptance,
    quality_agreement,
    quality_consensus,
    quality_figures,
    quality_opinions,
    quality_raters,
    queue,
    review,
    runs,
    trust,
)
from annotator.services.quality_agreement import Figure
from annotator.services.quality_opinions import Opinions

KEPT: Final = 20  # reports of a project, the newest
POOL: Final = 2_000_000  # ratings looked at together for the table of raters
TAGS: Final = 30
# A report is recomputed by itself once so many judgments are newer, or some after so long.
STALE_JUDGMENTS: Final = 50
STALE_AFTER: Final = timedelta(minutes=10)
MIN_GAP: Final = timedelta(minutes=1)


def start(*, project: Project, by: User | None) -> tuple[Run, bool]:
    """A queued run, or the one under way; the second value says whether it is new.

    The caller enqueues the job of a new one.
    """
    with transaction.atomic():
        Project.objects.select_for_update(no_key=True).only("pk").get(pk=project.pk)
        active = Run.objects.filter(project=project, kind=Run.Kind.QUALITY, state__in=ACTIVE)
        found = active.order_by("pk").first()
        if found is not None:
            return found, False
        config = {"aggregator": project.options.aggregator}
        return (
            runs.start(
                project=project,
                kind=Run.Kind.QUALITY,
                title="Measure quality",
                config=config,
                by=by,
            ),
            True,
        )


def start_if_stale(*, project: Project) -> Run | None:
    """A new run where the report is behind enough to matter; None where it is not.

    Called when a page of figures is looked at, never by a submit: nobody waits for it, and
    nothing is computed that nobody reads.
    """
    found = report(project)
    now = timezone.now()
    if found is not None:
        behind = newer(project, found)
        age = now - found.created_at
        waits_long = behind > 0 and age > STALE_AFTER
        if age < MIN_GAP or not (behind >= STALE_JUDGMENTS or waits_long):
            return None
    elif not Judgment.objects.filter(project=project, is_current=True).exists():
        return None
    last = Run.objects.filter(project=project, kind=Run.Kind.QUALITY).order_by("-pk").first()
    if last is not None and last.created_at > now - (STALE_AFTER if found is None else MIN_GAP):
        return None  # under way, or it just failed: a person presses the button
    run, is_new = start(project=project, by=None)
    return run if is_new else None


def perform(pen: runs.Work) -> dict[str, Any]:
    """The whole of a quality run; its result."""
    project = Project.objects.get(pk=pen.run.project_id)
    began = timezone.now()
    pen.stage("read", "Read")
    with snapshot() as raw:
        said = data.read(raw, project.pk)
        pen.progress(len(said.work), len(said.work), unit="judgments")
        computed = _Computation(pen, project, raw, said)
        figures = computed.figures()
        found = computed.found
    pen.check()
    pen.stage("write", "Write")
    tasks = quality_consensus.write(
        project.pk,
        quality_consensus.rows(found, aggregator=project.options.aggregator),
        at=timezone.now(),
    )
    pen.check()
    kept = _keep(project, pen.run, figures)
    pen.stage("after", "Review and order")
    _run_hooks(pen, project.pk)
    return {
        "report": kept.pk,
        "tasks": tasks,
        "judgments": figures["judgments"],
        "aggregator": figures["aggregator"],
        "alpha": figures["agreement"]["whole"]["alpha"] if figures["agreement"]["whole"] else None,
        "seconds": round((timezone.now() - began).total_seconds(), 2),
    }


class _Computation:
    """One pass over what was read, stage by stage."""

    def __init__(
        self, pen: runs.Work, project: Project, raw: psycopg.Connection, said: data.Said
    ) -> None:
        self._pen, self._project, self._raw, self._said = pen, project, raw, said
        self._aggregator = project.options.aggregator
        self.found = quality_consensus.Found(said)

    def figures(self) -> Figure:
        said = self._said
        self._stage("consensus", "Consensus")
        every = quality_opinions.of_pairs(said)
        pairs = every.counted(said)
        known = quality_figures.known_answers(said, pairs or every)
        pooled = quality_consensus.pool(pairs, self._aggregator, said.people.excluded)
        self.found.add_pairs(pairs, pooled)
        scale = quality_figures.scale(
            said, pairs, pooled if self._aggregator == "crowd-bt" else None
        )
        attributes: list[Figure] = []
        together = []
        for one in self._ratings():
            self._pen.check()
            counted = one.counted(said)
            self.found.add_ratings(counted, aggregator=self._aggregator)
            known += quality_figures.known_answers(said, counted or one)
            attributes += quality_agreement.questions(said, iter([one]))
            if one.is_classes and len(one) + sum(map(len, together)) <= POOL:
                together.append(one)
        verdicts = every.where(~said.tasks.is_rated[every.item_tasks[every.items]]).compact()
        rated = quality_opinions.pooled(together)
        main = verdicts
        if rated is not None and len(rated) and not len(verdicts):
            main = rated
        self._stage("agreement", "Agreement")
        agreement = self._agreement(verdicts, main, attributes)
        self._stage("raters", "Raters")
        return {
            "version": VERSION,
            "aggregator": self._aggregator,
            "judgments": len(said.work),
            "tasks": len(said.tasks.ids),
            "judged": said.people.judged,
            "question": main.name,
            "agreement": agreement,
            "known": known,
            "shared": quality_figures.shared(said, main),
            "distribution": quality_figures.distribution(said),
            "pace": quality_figures.pace(said),
            "win_rates": quality_figures.win_rates(
                said, pairs, *data.generators(self._raw, self._project.pk)
            ),
            "slices": quality_raters.slices(said, main, scale),
        }

    def _agreement(self, verdicts: Opinions, main: Opinions, attributes: list[Figure]) -> Figure:
        said = self._said
        rows = main.where(quality_agreement.counted_rows(said, main, judges=False)).compact()
        everyone = main.where(quality_agreement.counted_rows(said, main, judges=True)).compact()
        with_judges = len(everyone) > len(rows)
        kinds = verdicts.where(
            quality_agreement.counted_rows(said, verdicts, judges=False)
        ).compact()
        tags = data.tags(self._raw, self._project.pk, most=TAGS)
        return {
            "whole": quality_agreement.line("people", rows, whole=True) if len(rows) else None,
            "with_judges": (
                quality_agreement.line("with judges", everyone, whole=True) if with_judges else None
            ),
            "kinds": quality_agreement.by_kind(said, kinds),
            "attributes": attributes,
            "tags": quality_agreement.by_tag(said, rows, tags),
            "weeks": quality_agreement.by_week(said, rows),
            "cohen": quality_agreement.cohens(said, rows),
            "ceiling": quality_agreement.ceiling(rows),
        }

    def _ratings(self) -> Iterator[Opinions]:
        for name in self._said.attributes:
            values = data.ratings(self._raw, self._said, name)
            if len(values.values):
                yield quality_opinions.of_ratings(self._said, name, values)

    def _stage(self, key: str, label: str) -> None:
        self._pen.check()
        self._pen.stage(key, label)


def _keep(project: Project, run: Run, figures: Figure) -> QualityReport:
    """One report per run; an attempt that is done again replaces its own."""
    with transaction.atomic():
        QualityReport.objects.filter(run=run).delete()
        kept = QualityReport.objects.create(project=project, run=run, figures=figures)
        old = QualityReport.objects.filter(project=project).order_by("-pk")[KEPT:]
        QualityReport.objects.filter(pk__in=[one.pk for one in old.only("pk")]).delete()
    return kept


def _run_hooks(pen: runs.Work, project_id: int) -> None:
    """What follows from a new consensus: the list of reviews, trust and the order of tasks."""
    review.refresh(project_id)
    trust.enforce_all(project_id)
    pen.check()
    reorder: Callable[[int], object] | None = getattr(queue, "reorder", None)
    if reorder is not None:
        reorder(project_id)


def change_rater(*, project: Project, rater_id: int, action: str, by: User) -> Rater:
    """Pause or resume a rater, leave their votes out of estimates or count them again.

    Votes are kept either way. Raises NotFound for a rater of another project, Conflict for an
    action that this rater cannot take.
    """
    with transaction.atomic():
        rater = (
            Rater.objects.select_for_update(no_key=True)
            .filter(project=project, pk=rater_id)
            .first()
        )
        if rater is None:
            raise NotFound("There is no such rater in this project.")
        if action in ("pause", "resume"):
            if rater.kind == Rater.Kind.IMPORTED:
                raise Conflict("An imported rater gets no tasks: there is nothing to pause.")
            rater.paused_at = timezone.now() if action == "pause" else None
        elif action in ("exclude", "include"):
            rater.is_excluded = action == "exclude"
        else:
            raise NotFound("There is no such action.")
        rater.save(update_fields=["paused_at", "is_excluded"])
        AuditEvent.objects.create(
            project=project, actor=by, verb=f"rater.{action}", subject=f"rater {rater.pk}",
            data={"name": rater.name},
        )  # fmt: skip
    if action in ("exclude", "include"):
        _follow(rater, by)
    return rater


def _follow(rater: Rater, by: User) -> None:
    """What a judge was trusted with, now that somebody's votes count no more or count again.

    After the change is committed: whoever takes acceptances back locks tasks before raters.
    """
    judge = Judge.objects.filter(rater=rater).select_related("project", "rater").first()
    if judge is None:
        acceptance.follow_rater(rater.pk)
    elif rater.is_excluded and trust.is_in_use(judge):
        # Its tasks would be left without any vote that counts. A worker's watch finds the run.
        runs.postpone(run=trust.revoke(judge=judge, by=by))
