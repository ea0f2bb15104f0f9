"""Trust by evidence: judges' votes that count without a person, and how that trust is kept.

A judge earns it with pairs that it and people have both judged (``measure``): from a confidence
on, at most ``limit`` of its verdicts are wrong, with probability 1 - ``risk``
(models.selective). The owner turns the rule on; nobody can for a judge that has not passed the
attack battery. ``services.acceptance`` then accepts its votes, and a part of them, drawn by hash,
still goes to people: where these say that the limit does not hold, the rule turns itself off.

Which cases count: pairs only, no control tasks, one pair per prompt. A judge that takes a side
where people tie or disagree is wrong; a judge's tie is never accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from django.db import transaction

from annotator.errors import Conflict, Invalid
from annotator.models import AcceptRule, AuditEvent, Judge, Run, User
from annotator.queries import trust as queries
from annotator.queries.snapshot import snapshot
from annotator.queries.trust import Cases
from annotator.services import runs
from models import selective

LIMIT, RISK, AUDIT_SHARE = 0.05, 0.05, 0.05
# What may be asked: (lowest, highest, what it is).
BOUNDS: Final = {
    "limit": (0.001, 0.5, "The limit on the share of wrong labels"),
    "risk": (0.001, 0.5, "The risk that the limit does not hold"),
    "audit_share": (0.01, 1.0, "The share of accepted pairs that people judge all the same"),
}
# Fewer unlabeled pairs than this fix no grid: their confidences are then taken with the known ones.
LEAST_POOL: Final = 100
ACCEPT, REVOKE = "accept", "revoke"
TITLES: Final = {ACCEPT: "Accept votes of {}", REVOKE: "Take back accepted votes of {}"}


@dataclass(frozen=True)
class Obstacle:
    """Why a judge's votes cannot be accepted, and what helps. ``key`` for pages and tests."""

    key: str
    message: str
    advice: str


def check(*, limit: float, risk: float, audit_share: float) -> None:
    """Raises Invalid for what cannot be asked."""
    given = {"limit": limit, "risk": risk, "audit_share": audit_share}
    for name, (low, high, what) in BOUNDS.items():
        if not low <= given[name] <= high:  # also not a number
            raise Invalid(f"{what} is between {100 * low:g} % and {100 * high:g} %.")


def measure(
    judge: Judge,
    *,
    limit: float = LIMIT,
    risk: float = RISK,
    audit_share: float = AUDIT_SHARE,
) -> dict[str, Any]:
    """What the rule would be and do now, JSON-ready; docs/judging.md says what each figure is.

    Reads every verdict of the judge on pairs once. Raises Invalid.
    """
    check(limit=limit, risk=risk, audit_share=audit_share)
    with snapshot() as raw:
        cases = queries.cases(judge, raw=raw)
    usable = np.flatnonzero(cases.is_known & cases.is_decided)
    used = usable[selective.one_per_group(cases.prompts[usable], cases.tasks[usable])]
    confidence, wrong = cases.confidence[used], cases.is_wrong[used]
    thresholds, pool = _grid(cases, used, limit=limit, risk=risk)
    choice = selective.fixed_sequence(
        confidence, wrong, thresholds=thresholds, limit=limit, risk=risk
    )
    rule = _reaching(choice.rule, confidence)
    plain = selective.naive(confidence, wrong, limit=limit, risk=risk)
    share = len(used) / len(usable) if len(usable) else 0.0
    every = round(int(cases.is_known.sum()) * share)  # judge's ties included, one per prompt
    return {
        "limit": limit,
        "risk": risk,
        "audit_share": audit_share,
        "checked": int(cases.is_known.sum()),
        "ties": int((cases.is_known & (cases.says == 0)).sum()),
        "no_confidence": int((cases.is_known & (cases.says != 0) & ~cases.is_decided).sum()),
        "used": len(used),
        "least": selective.least_cases(limit, risk),
        "grid": pool,
        "rule": rule.as_dict() if rule else None,
        "tried": [step.as_dict() for step in choice.tried],
        "naive": plain.as_dict() if plain else None,
        "curve": [
            [one.coverage, one.share, one.low, one.high, one.threshold]
            for one in selective.curve(confidence, wrong, cases=max(every, len(used)))
        ],
        "chance_right": selective.chance_right(confidence, wrong),
        "waiting": _waiting(cases, rule, audit_share=audit_share),
        "on_average": _on_average(cases, confidence, wrong, limit=limit),
    }


def _grid(cases: Cases, used: Any, *, limit: float, risk: float) -> tuple[Any, str]:
    """Thresholds to try and where they are from: pairs that nobody has judged, if there are any."""
    others = cases.confidence[~cases.is_known & cases.is_decided]
    name = "waiting" if len(others) >= LEAST_POOL else "all"
    if name == "all":
        others = np.concatenate([others, cases.confidence[used]])
    return selective.grid(others, cases=len(used), limit=limit, risk=risk), name


def _reaching(rule: selective.Step | None, confidence: Any) -> selective.Step | None:
    """The rule no lower than the least sure known case that it accepts.

    Below it nothing was seen: where the others are not drawn quite like the known cases, that is
    where it would show.
    """
    if rule is None:
        return None
    return replace(rule, threshold=float(confidence[confidence >= rule.threshold].min()))


def _waiting(cases: Cases, rule: selective.Step | None, *, audit_share: float) -> dict[str, Any]:
    """Pairs with a verdict of the judge that nobody has judged, and what the rule would settle."""
    waiting = cases.is_open & (cases.accepted == queries.NOT_ACCEPTED)
    settled = waiting & cases.is_decided & (cases.confidence >= (rule.threshold if rule else 2.0))
    places = int(cases.free[settled].astype(np.int64).clip(0).sum())
    return {
        "tasks": int(waiting.sum()),
        "accepted": int(settled.sum()),
        "places": places,
        "saved": round((1 - audit_share) * places),
    }


def _on_average(cases: Cases, confidence: Any, wrong: Any, *, limit: float) -> int:
    """Waiting pairs that conformal selection would take: a weaker promise, shown beside the rule."""
    waiting = cases.is_open & cases.is_decided & (cases.accepted == queries.NOT_ACCEPTED)
    taken = selective.conformal_selection(confidence, wrong, cases.confidence[waiting], limit=limit)
    return int(taken.sum())


def obstacles(judge: Judge, figures: dict[str, Any]) -> list[Obstacle]:
    """What stands in the way of accepting this judge's votes, given what ``measure`` found."""
    found = [*_of_judge(judge), *_of_battery(judge)]
    if figures["no_confidence"] and not figures["used"]:
        found.append(
            Obstacle(
                "no-confidence",
                "This judge does not say how sure it is.",
                "Choose one that does: no part of its verdicts can be told from the rest.",
            )
        )
    elif figures["used"] < figures["least"]:
        found.append(
            Obstacle(
                "few",
                f"{figures['used']:,} pairs of different prompts were judged by people and by this"
                f" judge; {figures['least']:,} is the fewest that can show this limit.",
                "Let people judge more of the pairs that this judge has judged, or raise the limit.",
            )
        )
    elif figures["rule"] is None:
        found.append(
            Obstacle(
                "no-threshold",
                f"However sure it is, its verdicts are not shown to be at most"
                f" {100 * figures['limit']:g} % wrong.",
                "Raise the limit, let people judge more pairs, or improve the judge.",
            )
        )
    return found


def _of_judge(judge: Judge) -> list[Obstacle]:
    if judge.archived_at is not None:
        return [Obstacle("archived", "This judge is archived.", "Choose a version in use.")]
    if judge.rater.is_excluded:
        return [
            Obstacle(
                "excluded",
                "The votes of this judge are left out of the project.",
                "Count its votes again on the page of raters.",
            )
        ]
    return []


def _of_battery(judge: Judge) -> list[Obstacle]:
    battery = queries.latest_battery(judge)
    if battery is None:
        return [
            Obstacle(
                "no-battery",
                "This judge has not been through the attack battery.",
                "Run the battery first.",
            )
        ]
    if not battery.is_passed:
        failed = [probe["label"] for probe in battery.probes if not probe["is_passed"]]
        return [
            Obstacle(
                "battery",
                f"It fails the attack battery: {', '.join(failed[:5])}.",
                "Make a version that resists, such as one with another template or model.",
            )
        ]
    return []


def turn_on(
    *,
    judge: Judge,
    limit: float = LIMIT,
    risk: float = RISK,
    audit_share: float = AUDIT_SHARE,
    by: User | None,
) -> Run:
    """Accept this judge's votes from now on; returns the run that goes through what it has judged.

    The threshold is computed now and stays until the rule is turned on again; what was accepted
    below a new, higher one is taken back. The caller enqueues the run. Raises Invalid, and
    Conflict with the reason where the judge has not earned it.
    """
    figures = measure(judge, limit=limit, risk=risk, audit_share=audit_share)
    with transaction.atomic():
        # The rule first: who accepts holds it and waits for tasks, whose writer waits for the rater.
        AcceptRule.objects.select_for_update(no_key=True).filter(judge=judge).first()
        # Nobody leaves the judge out, or finds it weak, between the look and the rule.
        judge = (
            Judge.objects.select_for_update(of=("self", "rater"), no_key=True)
            .select_related("rater", "project")
            .get(pk=judge.pk)
        )
        for one in obstacles(judge, figures):
            raise Conflict(one.message, advice=one.advice)
        rule, _ = AcceptRule.objects.update_or_create(
            judge=judge,
            defaults={
                "limit": limit,
                "risk": risk,
                "audit_share": audit_share,
                "is_on": True,
                "figures": figures,
                "changed_by": by,
                "off_reason": "",
            },
        )
        _note(judge, by, "on", limit=limit, risk=risk, threshold=rule.figures["rule"]["threshold"])
        return _start(judge, ACCEPT, by)


def turn_off(*, judge: Judge, by: User | None, reason: str = "") -> bool:
    """Accept nothing more; what is accepted stays so until ``revoke``. False if it was off."""
    with transaction.atomic():
        changed = AcceptRule.objects.filter(judge=judge, is_on=True).update(
            is_on=False, off_reason=reason[:200], changed_by=by
        )
        if changed:
            _note(judge, by, "off", reason=reason)
    return bool(changed)


def revoke(*, judge: Judge, by: User | None) -> Run:
    """Turn the rule off and take back what it accepted: places go to people again.

    Returns the run that does it; the caller enqueues it.
    """
    with transaction.atomic():
        turn_off(judge=judge, by=by, reason="Everything it accepted was taken back.")
        _note(judge, by, "revoke")
        return _start(judge, REVOKE, by)


def is_in_use(judge: Judge) -> bool:
    """Whether the rule is on or anything it accepted is in force."""
    rule = queries.rule_of(judge)
    return (rule is not None and rule.is_on) or queries.acceptances(judge).exists()


def _start(judge: Judge, action: str, by: User | None) -> Run:
    return runs.start(
        project=judge.project,
        kind=Run.Kind.TASKS,
        title=TITLES[action].format(judge),
        config={"action": action, "judge": judge.pk},
        by=by,
    )


def _note(judge: Judge, by: User | None, verb: str, **data: Any) -> None:
    AuditEvent.objects.create(
        project_id=judge.project_id,
        actor=by,
        verb=f"trust.{verb}",
        subject=f"judge {judge.pk}",
        data={"judge": str(judge), **data},
    )


def audit(judge: Judge) -> dict[str, Any]:
    """What people say of the accepted pairs that they were asked all the same; JSON-ready.

    ``is_broken``: that shows that more than the limit is wrong.
    """
    rule = queries.rule_of(judge)
    with snapshot() as raw:
        cases = queries.cases(judge, raw=raw, own=True)
    drawn = cases.accepted == queries.AUDITED
    known = drawn & cases.is_known
    n, wrong = int(known.sum()), int((known & cases.is_wrong).sum())
    low, high = selective.clopper_pearson(wrong, n)
    return {
        "drawn": int(drawn.sum()),
        "n": n,
        "wrong": wrong,
        "share": wrong / n if n else None,
        "interval": [low, high],
        "limit": rule.limit if rule else None,
        "is_broken": rule is not None and low > rule.limit,
    }


def enforce(judge: Judge) -> bool:
    """Turn a rule off that people have found to be broken, with the reason; False if it is not."""
    found = audit(judge)
    if not found["is_broken"]:
        return False
    reason = (
        f"People found {found['wrong']:,} of {found['n']:,} accepted pairs wrong: at least"
        f" {100 * found['interval'][0]:.1f} %, over the limit of {100 * found['limit']:g} %."
    )
    return turn_off(judge=judge, by=None, reason=reason)


def enforce_all(project_id: int) -> int:
    """Look at every rule of a project that is on; returns how many turned themselves off."""
    on = Judge.objects.filter(project_id=project_id, accept_rule__is_on=True).order_by("pk")
    return sum(map(enforce, on))
