"""The life of a rubric: proposed, worked on as a draft, approved, and never changed again.

One draft per rubric. Whatever changes a draft locks its version first, so that two people who
work on it do not lose each other's decisions, and an approval never misses one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from annotator.errors import Conflict, Invalid, NotFound
from annotator.models import (
    AuditEvent,
    Criterion,
    CriterionEvidence,
    Project,
    Rubric,
    RubricVersion,
    Run,
    User,
)
from annotator.queries.criteria import ASKED, FIELDS, IN_FORCE, digest
from rubrics.generators.types import CandidateCriterion, Generated
from rubrics.programs import PROGRAMS

MAX_NAME: Final = Rubric._meta.get_field("name").max_length
MAX_TEXT: Final = Criterion._meta.get_field("text").max_length
MAX_CRITERIA: Final = 200
NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
DECISIONS: Final = (
    Criterion.Decision.PROPOSED, Criterion.Decision.ACCEPTED, Criterion.Decision.REJECTED
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """The rows behind a pair of a generator."""

    prompt_id: int
    chosen_id: int
    rejected_id: int


def create(*, project: Project, name: str, by: User | None) -> Rubric:
    """A rubric without versions. Raises Invalid, Conflict where the name is taken."""
    name = " ".join(name.replace("\0", "").split())
    if not name or len(name) > MAX_NAME:
        raise Invalid(f"A rubric needs a name of 1 to {MAX_NAME} characters.")
    with transaction.atomic():
        rubric, is_new = Rubric.objects.get_or_create(
            project=project, name=name, defaults={"created_by": by}
        )
        if not is_new:
            raise Conflict(f"There is a rubric “{name}” already.")
        _note(rubric, by, "create", name=name)
    return rubric


def propose(
    *,
    rubric: Rubric,
    generated: Generated,
    pairs: Mapping[int, Pair],
    method: str,
    options: dict[str, Any],
    run: Run | None,
    by: User | None,
) -> RubricVersion:
    """A draft of what a generator found; the draft there was is replaced where nobody touched it.

    A run that is done again replaces its own draft. Raises Conflict for a draft with decisions.
    """
    with transaction.atomic():
        hold(rubric)
        old = rubric.versions.filter(state=RubricVersion.State.DRAFT).first()
        if old is not None and (run is None or old.run_id != run.pk) and _is_touched(old):
            raise Conflict(
                f"{old} is a draft that somebody works on.", advice="Approve or discard it first."
            )
        if old is not None:
            old.delete()
        version = _new(rubric, method=method, options=options, run=run, by=by)
        version.figures = {**generated.figures, "dropped": generated.dropped}
        version.save(update_fields=["figures"])
        _write(version, generated.criteria[:MAX_CRITERIA], pairs)
        _note(rubric, by, "propose", version=version.number, method=method)
    return version


def draft(*, rubric: Rubric, by: User | None, like: RubricVersion | None = None) -> RubricVersion:
    """A draft to work on, with the criteria of another version or empty; the open one, if any."""
    with transaction.atomic():
        hold(rubric)
        found = rubric.versions.filter(state=RubricVersion.State.DRAFT).first()
        if found is not None:
            return found
        version = _new(rubric, parent=like, by=by, options=like.options if like else None)
        if like is not None:
            # Who is asked, and how, stays; figures are its parent's, not of what it will become.
            version.verifier_id = like.verifier_id
            version.save(update_fields=["verifier"])
            _copy(like, version)
        _note(rubric, by, "draft", version=version.number)
    return version


def archive(*, rubric: Rubric, by: User | None, is_archived: bool = True) -> None:
    """Take a rubric out of the list, or back into it. What was made of it stays."""
    with transaction.atomic():
        hold(rubric)
        at = timezone.now() if is_archived else None
        Rubric.objects.filter(pk=rubric.pk).update(archived_at=at)
        _note(rubric, by, "archive" if is_archived else "restore")


def discard(*, version: RubricVersion, by: User | None) -> None:
    """Delete a draft. Raises Conflict for an approved version."""
    with transaction.atomic():
        held = _held(version)
        number, rubric = held.number, held.rubric
        held.delete()
        _note(rubric, by, "discard", version=number)


def add(*, version: RubricVersion, by: User | None, **values: Any) -> Criterion:
    """A criterion written by hand: it needs nobody to accept it. Raises Invalid, Conflict."""
    checked = _checked(values)
    with transaction.atomic():
        held = _held(version)
        last = held.criteria.aggregate(last=Max("position"))["last"]
        position = 0 if last is None else last + 1
        if position >= MAX_CRITERIA:
            raise Invalid(f"A rubric has {MAX_CRITERIA} criteria at most.")
        made = Criterion.objects.create(
            version=held, position=position, decision=Criterion.Decision.ACCEPTED, is_edited=True,
            **checked,
        )  # fmt: skip
        _note(held.rubric, by, "criterion.add", version=held.number, criterion=made.pk)
    return made


def edit(*, criterion: Criterion, by: User | None, **values: Any) -> Criterion:
    """Change a criterion of a draft. Its evidence stays; what was measured of its text does not.

    Another verifier has no use for the program of the one before, unless one is named.
    """
    with transaction.atomic():
        fresh = _held_criterion(criterion)
        before = {name: getattr(fresh, name) for name in FIELDS}
        if values.get("verifier", fresh.verifier) != fresh.verifier:
            values.setdefault("program", "")
        checked = _checked({**before, **values})
        changed = {name for name in FIELDS if checked[name] != before[name]}
        for name in changed:
            setattr(fresh, name, checked[name])
        if changed & set(ASKED):
            fresh.figures = {}
        fresh.is_edited = fresh.is_edited or "text" in changed
        fresh.save()
        _note(
            fresh.version.rubric, by, "criterion.edit", version=fresh.version.number,
            criterion=fresh.pk, fields=sorted(changed),
        )  # fmt: skip
    return fresh


def decide(*, criterion: Criterion, decision: str, by: User | None) -> Criterion:
    """Accept or reject a criterion of a draft, or leave it open again."""
    if decision not in DECISIONS:
        raise Invalid("Accept it, reject it or leave it open.")
    with transaction.atomic():
        fresh = _held_criterion(criterion)
        if fresh.decision == Criterion.Decision.MERGED:
            raise Conflict("It was merged into another.", advice="Decide about that one.")
        fresh.decision = decision
        fresh.save(update_fields=["decision"])
        _note(
            fresh.version.rubric, by, f"criterion.{decision}", version=fresh.version.number,
            criterion=fresh.pk,
        )  # fmt: skip
    return fresh


def accept_rest(*, version: RubricVersion, by: User | None) -> int:
    """Accept every criterion of a draft that is not decided on; how many there were."""
    with transaction.atomic():
        held = _held(version)
        rows = held.criteria.filter(decision=Criterion.Decision.PROPOSED)
        found = rows.update(decision=Criterion.Decision.ACCEPTED)
        if found:
            _note(held.rubric, by, "accept_rest", version=held.number, criteria=found)
    return found


def weigh(*, version: RubricVersion, weights: Mapping[int, float] | None, by: User | None) -> None:
    """Give the criteria of a draft these weights, by id, or take all weights away (None).

    A criterion that is not named weighs nothing beside those that are. Its polarity is left.
    """
    with transaction.atomic():
        held = _held(version)
        rows = list(held.criteria.all())
        for one in rows:
            one.weight = None if weights is None else float(weights.get(one.pk, 0.0))
        Criterion.objects.bulk_update(rows, ["weight"])
        _note(held.rubric, by, "weigh", version=held.number, is_fitted=weights is not None)


def merge(*, criteria: Sequence[Criterion], text: str, by: User | None) -> Criterion:
    """Make several criteria of a draft one, of this text, with the evidence of all.

    The first one stays, accepted; the others are kept as merged into it. Weights of the same sign
    are added up: each was fitted beside the others. Raises Invalid, Conflict.
    """
    ids = list(dict.fromkeys(one.pk for one in criteria))
    if len(ids) < 2:
        raise Invalid("Choose two criteria or more to merge.")
    with transaction.atomic():
        held = _held(criteria[0].version)
        found = {one.pk: one for one in held.criteria.filter(pk__in=ids)}
        if len(found) < len(ids):
            raise NotFound("Not all of these criteria are in this draft.")
        rows = [found[pk] for pk in ids]
        if any(one.decision == Criterion.Decision.MERGED for one in rows):
            raise Conflict("One of them was merged already.")
        if len({one.polarity for one in rows}) > 1:
            raise Invalid("One speaks for an answer and one against it: they are not the same.")
        first, others = rows[0], rows[1:]
        weights = [one.weight for one in rows if one.weight is not None]
        values = {name: getattr(first, name) for name in FIELDS} | {
            "text": text, "weight": sum(weights) if weights else None
        }  # fmt: skip
        for name, value in _checked(values).items():
            setattr(first, name, value)
        first.figures, first.is_edited = {}, True
        first.decision = Criterion.Decision.ACCEPTED
        first.save()
        gone = [one.pk for one in others]
        Criterion.objects.filter(merged_into__in=gone).update(merged_into=first)
        Criterion.objects.filter(pk__in=gone).update(
            decision=Criterion.Decision.MERGED, merged_into=first
        )
        CriterionEvidence.objects.filter(criterion__in=gone).update(criterion=first)
        _note(
            held.rubric, by, "criterion.merge", version=held.number, criterion=first.pk, merged=gone
        )
    return first


def approve(*, version: RubricVersion, by: User | None) -> RubricVersion:
    """Make a draft the rubric's newest version: what was not accepted is left out of it for good.

    Raises Conflict for one without an accepted criterion, or with some that nobody decided on.
    """
    with transaction.atomic():
        held = _held(version)
        decisions = list(held.criteria.values_list("decision", flat=True))
        open_ = decisions.count(Criterion.Decision.PROPOSED)
        if open_:
            raise Conflict(
                f"{open_:,} criteri{'on is' if open_ == 1 else 'a are'} not decided on.",
                advice="Accept or reject each one first.",
            )
        if Criterion.Decision.ACCEPTED not in decisions:
            raise Conflict("There is no accepted criterion in it.", advice="Accept one at least.")
        held.state = RubricVersion.State.APPROVED
        held.digest = digest(in_force(held))
        held.approved_by, held.approved_at = by, timezone.now()
        held.save(update_fields=["state", "digest", "approved_by", "approved_at"])
        _note(held.rubric, by, "approve", version=held.number, digest=held.digest)
    return held


def in_force(version: RubricVersion) -> list[Criterion]:
    """The criteria that count: of a draft those not rejected, of an approved one those accepted."""
    decisions = IN_FORCE if version.is_draft else (Criterion.Decision.ACCEPTED,)
    return list(version.criteria.filter(decision__in=decisions).order_by("position"))


def is_concise(version: RubricVersion) -> bool:
    """Whether its criteria are met only by an answer that meets them concisely (AutoRule)."""
    return bool(version.options.get("concise"))


def hold(rubric: Rubric) -> None:
    """One writer per rubric: its row is the lock of its versions and their criteria."""
    if not Rubric.objects.select_for_update(no_key=True).filter(pk=rubric.pk).exists():
        raise NotFound("This rubric is not there any more.")


def _held(version: RubricVersion) -> RubricVersion:
    """The draft, locked for the caller's transaction."""
    rubric_id = version.rubric_id
    Rubric.objects.select_for_update(no_key=True).filter(pk=rubric_id).first()
    found = RubricVersion.objects.select_related("rubric").filter(pk=version.pk).first()
    if found is None:
        raise NotFound("This version is not there any more.")
    if not found.is_draft:
        raise Conflict(
            f"{found} is approved and never changes.", advice="Begin a new draft from it."
        )
    return found


def _held_criterion(criterion: Criterion) -> Criterion:
    held = _held(criterion.version)
    found = Criterion.objects.filter(pk=criterion.pk, version=held).first()
    if found is None:
        raise NotFound("This criterion is not there any more.")
    found.version = held
    return found


def has_work(rubric: Rubric) -> bool:
    """Whether the rubric has a draft that a generator may not replace."""
    found = rubric.versions.filter(state=RubricVersion.State.DRAFT).first()
    return found is not None and _is_touched(found)


def _is_touched(version: RubricVersion) -> bool:
    rows = version.criteria
    return (
        version.run_id is None
        or rows.exclude(decision=Criterion.Decision.PROPOSED).exists()
        or rows.filter(is_edited=True).exists()
    )


def _new(
    rubric: Rubric,
    *,
    by: User | None,
    method: str = "",
    options: dict[str, Any] | None = None,
    run: Run | None = None,
    parent: RubricVersion | None = None,
) -> RubricVersion:
    last = rubric.versions.aggregate(last=Max("number"))["last"] or 0
    if parent is None:
        parent = rubric.versions.filter(state=RubricVersion.State.APPROVED).first()
    return RubricVersion.objects.create(
        rubric=rubric, number=last + 1, parent=parent, method=method, options=options or {},
        run=run, created_by=by,
    )  # fmt: skip


def _write(
    version: RubricVersion, criteria: Sequence[CandidateCriterion], pairs: Mapping[int, Pair]
) -> None:
    rows = [
        Criterion(
            version=version,
            position=position,
            figures=dict(one.figures),
            **_checked(
                {
                    "text": one.text,
                    "polarity": one.polarity,
                    "weight": one.weight,
                    "scope": one.scope,
                    "group": "" if one.group is None else str(one.group),
                    "verifier": one.verifier,
                    "program": one.program,
                    "theme": one.theme,
                }
            ),
        )
        for position, one in enumerate(criteria)
    ]
    made = Criterion.objects.bulk_create(rows)
    CriterionEvidence.objects.bulk_create(
        [
            CriterionEvidence(
                criterion=row,
                prompt_id=pairs[piece.pair].prompt_id,
                chosen_id=pairs[piece.pair].chosen_id,
                rejected_id=pairs[piece.pair].rejected_id,
                judgment_id=piece.judgment,
                rater_id=piece.rater,
                supports=piece.supports,
                quote=piece.quote.replace("\0", ""),
            )
            for row, one in zip(made, criteria, strict=True)
            for piece in one.evidence
            if piece.pair in pairs
        ],
        batch_size=1_000,
    )


def _copy(from_: RubricVersion, to: RubricVersion) -> None:
    """The criteria in force with their evidence, all accepted: somebody did, in the last version."""
    for position, one in enumerate(in_force(from_)):
        evidence = list(one.evidence.all())
        one.pk, one.version, one.position = None, to, position
        one.merged_into, one.decision = None, Criterion.Decision.ACCEPTED
        one._state.adding = True
        one.save()
        for piece in evidence:
            piece.pk, piece.criterion = None, one
            piece._state.adding = True
        CriterionEvidence.objects.bulk_create(evidence, batch_size=1_000)


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a criterion, in their types. Raises Invalid, and for unknown ones."""
    unknown = set(values) - set(FIELDS)
    if unknown:
        raise Invalid(f"A criterion has no {min(unknown)}.")
    text = " ".join(str(values.get("text") or "").replace("\0", "").split())
    if not text or len(text) > MAX_TEXT:
        raise Invalid(f"A criterion is a sentence of 1 to {MAX_TEXT} characters.")
    polarity, weight = values.get("polarity", 1), values.get("weight")
    if polarity not in (1, -1) or isinstance(polarity, bool):
        raise Invalid("A criterion speaks for an answer (1) or against it (-1).")
    if weight is not None and (
        isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < 1e6
    ):
        raise Invalid("A weight is a number, or empty.")
    scope = values.get("scope") or Criterion.Scope.PROJECT
    verifier = values.get("verifier") or Criterion.Verifier.LLM
    if scope not in Criterion.Scope.values or verifier not in Criterion.Verifier.values:
        raise Invalid("There is no such scope or verifier.")
    program = str(values.get("program") or "")
    group = str(values.get("group") or "").replace("\0", "")
    _check_program(verifier, program)
    if (scope == Criterion.Scope.PROJECT) == bool(group) or len(group) > 100:
        raise Invalid("A narrower scope names its tag or prompt, and only a narrower one does.")
    theme = " ".join(str(values.get("theme") or "").replace("\0", "").split())[:200]
    return {
        "text": text, "polarity": polarity, "weight": None if weight is None else float(weight),
        "scope": scope, "group": group, "verifier": verifier, "program": program, "theme": theme,
    }  # fmt: skip


def _check_program(verifier: str, program: str) -> None:
    if verifier == Criterion.Verifier.PROGRAM and program not in PROGRAMS:
        raise Invalid("A criterion that a program checks names one that there is.")
    if verifier == Criterion.Verifier.REWARD_MODEL and not NUMBER.fullmatch(program):
        raise Invalid("A criterion that a reward model scores names the model's number.")
    if verifier in (Criterion.Verifier.LLM, Criterion.Verifier.PERSON) and program:
        raise Invalid("Only what a program or a reward model checks names one.")


def _note(rubric: Rubric, by: User | None, verb: str, **data: Any) -> None:
    AuditEvent.objects.create(
        project_id=rubric.project_id,
        actor=by,
        verb=f"rubric.{verb}",
        subject=f"rubric {rubric.pk}",
        data=data,
    )
