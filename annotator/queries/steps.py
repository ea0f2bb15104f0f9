"""What to do next in a project: read off its figures, its runs and what it has made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connection
from django.urls import reverse

from annotator.queries.figures import Figures

ENOUGH_TO_TRAIN: Final = 50  # votes that are not ties; fewer give an interval of no use
NEW_VOTES_COUNTED: Final = 1_000


@dataclass(frozen=True)
class Facts:
    """What a project has besides its rows. ``new_votes`` stop at ``NEW_VOTES_COUNTED``."""

    helpers: int = 0  # members who are not owners
    active_run: int | None = None
    training_run: int | None = None
    latest_run: int | None = None
    latest_state: str = ""
    latest_title: str = ""
    model: int | None = None
    dataset: int | None = None
    dataset_rows: int = 0
    dataset_at: datetime | None = None
    new_votes: int = 0
    rubric_run: int | None = None
    rubrics: int = 0  # in use or in work
    draft: int | None = None  # the rubric of the newest draft, its version, what waits in it
    draft_number: int = 0
    draft_waiting: int = 0

    @property
    def behind(self) -> str:
        """How far the latest dataset is behind, as a sentence."""
        more = " or more" if self.new_votes >= NEW_VOTES_COUNTED else ""
        noun = "judgment" if self.new_votes == 1 else "judgments"
        return f"{self.new_votes:,}{more} {noun} came in since version {self.dataset}."


FACTS_SQL: Final = """
    SELECT p.id,
           (SELECT count(*) FROM annotator_membership m
            WHERE m.project_id = p.id AND m.role <> 'owner'),
           (SELECT max(r.id) FROM annotator_run r WHERE r.project_id = p.id
            AND r.state IN ('queued', 'running', 'stopping')),
           (SELECT max(r.id) FROM annotator_run r WHERE r.project_id = p.id AND r.kind = 'train'
            AND r.state IN ('queued', 'running', 'stopping')),
           latest.id, COALESCE(latest.state, ''), COALESCE(latest.title, ''),
           (SELECT max(m.number) FROM annotator_rewardmodel m WHERE m.project_id = p.id),
           built.number, COALESCE(built.rows, 0), built.created_at,
           (SELECT count(*) FROM (
                SELECT 1 FROM annotator_judgment j
                WHERE j.project_id = p.id AND j.is_current AND j.submitted_at > built.created_at
                  AND j.rater_id NOT IN (SELECT r.id FROM annotator_rater r
                                         WHERE r.project_id = p.id AND r.kind = 'judge')
                LIMIT %(most)s) newer)
           -- what a judge said is new when it is accepted
           + (SELECT count(*) FROM (
                SELECT 1 FROM annotator_judge g JOIN annotator_acceptance c ON c.judge_id = g.id
                WHERE g.project_id = p.id AND c.revoked_at IS NULL
                  AND c.accepted_at > built.created_at LIMIT %(most)s) accepted),
           (SELECT max(r.id) FROM annotator_run r WHERE r.project_id = p.id AND r.kind = 'rubric'
            AND r.state IN ('queued', 'running', 'stopping')),
           (SELECT count(*) FROM annotator_rubric u
            WHERE u.project_id = p.id AND u.archived_at IS NULL),
           draft.rubric_id, COALESCE(draft.number, 0),
           (SELECT count(*) FROM annotator_criterion c
            WHERE c.version_id = draft.id AND c.decision = 'proposed')
    FROM unnest(%(ids)s::bigint[]) AS p(id)
    LEFT JOIN LATERAL (SELECT r.id, r.state, r.title FROM annotator_run r
                       WHERE r.project_id = p.id ORDER BY r.id DESC LIMIT 1) latest ON true
    LEFT JOIN LATERAL (SELECT d.number, d.rows, d.created_at FROM annotator_datasetversion d
                       WHERE d.project_id = p.id ORDER BY d.number DESC LIMIT 1) built ON true
    LEFT JOIN LATERAL (SELECT v.id, v.rubric_id, v.number FROM annotator_rubricversion v
                       JOIN annotator_rubric u ON u.id = v.rubric_id
                       WHERE u.project_id = p.id AND u.archived_at IS NULL AND v.state = 'draft'
                       ORDER BY v.id DESC LIMIT 1) draft ON true
"""


def facts(project_ids: Iterable[int]) -> dict[int, Facts]:
    """Facts of each project in one statement, by index alone."""
    with connection.cursor() as cursor:
        cursor.execute(FACTS_SQL, {"ids": list(project_ids), "most": NEW_VOTES_COUNTED})
        return {pk: Facts(*values) for pk, *values in cursor.fetchall()}


@dataclass(frozen=True)
class Step:
    """One thing to do: a link with a verb, and why now."""

    label: str
    why: str
    stage: str
    url: str
    is_for_all: bool = False  # else for owners


def _step(stage: str, label: str, why: str, name: str, *args: Any) -> Step:
    return Step(label, why, stage, reverse(name, args=args), is_for_all=name == "annotate")


def collect(slug: str, figures: Figures, known: Facts) -> Step | None:
    if not figures.tasks:
        why = "Prompts with two or more answers each. Rows that cannot be read are reported."
        return _step("collect", "Import prompts and answers", why, "import_new", slug)
    if not figures.open:
        return None
    if not figures.judged and not known.helpers:
        why = f"{figures.open:,} judgments to go, and nobody but you to give them."
        return _step("collect", "Invite people", why, "members", slug)
    why = f"{figures.open:,} judgment{'' if figures.open == 1 else 's'} to go."
    return _step("collect", "Annotate", why, "annotate", slug)


def explain(slug: str, figures: Figures, known: Facts) -> Step | None:
    if known.rubric_run:
        why = "Its criteria come as a draft, measured on the test split."
        return _step("explain", f"Watch run {known.rubric_run}", why, "run", slug, known.rubric_run)
    if known.draft:
        waiting, at = known.draft_waiting, (slug, known.draft, known.draft_number)
        if not waiting:
            why = "All of its criteria are decided on."
            return _step("explain", "Approve the draft", why, "rubric_version", *at)
        noun = "criterion waits" if waiting == 1 else "criteria wait"
        return _step(
            "explain", "Decide on criteria", f"{waiting:,} {noun} for you.", "rubric_version", *at
        )
    if known.rubrics or figures.decided < ENOUGH_TO_TRAIN:
        return None
    why = "What the votes say, as criteria that people can read and judges can check."
    return _step("explain", "Induce a rubric", why, "rubric_induce", slug)


def learn(slug: str, figures: Figures, known: Facts) -> Step | None:
    if known.training_run:
        why = "Its accuracy on the test split is measured when it ends."
        return _step(
            "learn", f"Watch run {known.training_run}", why, "run", slug, known.training_run
        )
    if known.model or figures.decided < ENOUGH_TO_TRAIN:
        return None
    why = f"{figures.decided:,} votes for one answer or the other are enough for a first estimate."
    return _step("learn", "Train a reward model", why, "train", slug)


def export(slug: str, figures: Figures, known: Facts) -> Step | None:
    if not figures.decided:
        return None
    if known.dataset is None:
        why = "One row per pair, contradictory votes settled by majority, ties dropped."
        return _step("export", "Export a dataset", why, "export", slug)
    if not known.new_votes:
        return None
    return _step("export", f"Build version {known.dataset + 1}", known.behind, "export", slug)


def best(slug: str, figures: Figures, known: Facts) -> Step | None:
    """The one next sensible action of an owner; None when there is nothing to do.

    Votes first until there are enough to learn from, then each thing the project has not made
    yet, then the votes that are still missing.
    """
    if known.latest_state == "failed":
        why = known.latest_title
        return _step(
            "runs",
            f"Look at run {known.latest_run}, which failed",
            why,
            "run",
            slug,
            known.latest_run,
        )
    first, second, third, fourth = (
        make(slug, figures, known) for make in (collect, learn, export, explain)
    )
    if first and figures.decided < ENOUGH_TO_TRAIN:
        return first
    if second and not known.training_run:
        return second
    if fourth and not third and not known.rubric_run:
        return fourth
    return third or first or second or fourth
