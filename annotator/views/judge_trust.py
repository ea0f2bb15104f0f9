"""What a judge may do without a person: measured for the limit asked, turned on and off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.core.cache import cache
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from annotator import formats
from annotator.charts import LineChart, Reference, Series, line_chart
from annotator.errors import AppError
from annotator.forms.judges import AcceptForm
from annotator.jobs import base
from annotator.models import AcceptRule, Judge, Role
from annotator.queries import judge_report
from annotator.queries import judges as queries
from annotator.queries import trust as rules
from annotator.services import trust
from annotator.views.helpers import Access, project_page

WIDE: Final = 588
KEPT_SECONDS: Final = 120  # reviews and golds change what is known without a new judgment


@dataclass(frozen=True)
class Line:
    """One row of the ledger."""

    name: str
    value: str
    note: str = ""


@project_page(Role.REVIEWER)
@require_GET
def accept(request: HttpRequest, access: Access, judge_id: int) -> HttpResponse:
    """The part of the judge's page that renews itself when another limit is typed."""
    return _show(request, access, _find(access, judge_id), request.GET)


@project_page(Role.OWNER)
@require_POST
def change(request: HttpRequest, access: Access, judge_id: int) -> HttpResponse:
    """Turn acceptance without a person on or off, or take back what was accepted."""
    found, form = _find(access, judge_id), AcceptForm(request.POST)
    action = request.POST.get("action", "")
    if action == "on" and not form.is_valid():
        return _show(request, access, found, request.POST, status=422)
    try:
        with transaction.atomic():
            run = None
            if action == "on":
                run = trust.turn_on(judge=found, by=request.user, **form.values())
            elif action == "revoke":
                run = trust.revoke(judge=found, by=request.user)
            elif action == "off":
                trust.turn_off(judge=found, by=request.user)
            else:
                raise Http404("no such action")
            if run is not None:
                base.enqueue(run)
    except AppError as error:
        messages.error(request, f"{error.message} {error.advice}".strip())
    else:
        messages.success(request, SAID[action])
    return redirect("judge", slug=access.project.slug, judge_id=found.pk)


SAID: Final = {
    "on": "On: its surest votes need no person from here on.",
    "off": "Off. What was accepted stays accepted.",
    "revoke": "Off, and what was accepted goes back to people.",
}


def _find(access: Access, judge_id: int) -> Judge:
    found = queries.find(access.project, judge_id)
    if found is None:
        raise Http404("no such judge in this project")
    return found


def _show(
    request: HttpRequest, access: Access, judge: Judge, given: Any, *, status: int = 200
) -> HttpResponse:
    rule = rules.rule_of(judge)
    form = AcceptForm(given if "limit" in given else None, initial=_initial(rule))
    values = form.values() if form.is_bound and form.is_valid() else _initial_values(rule)
    figures = _measured(judge, rule, values)
    context = {
        "access": access,
        "judge": judge,
        "accept_form": form,
        "rule": rule,
        "is_on": rule is not None and rule.is_on,
        "obstacles": trust.obstacles(judge, figures),
        "lines": _lines(figures, rule),
        "curve": curve(figures),
        "no_curve": no_curve(figures),
        "accepted": rules.acceptances(judge).count(),
        "audit": trust.audit(judge) if rule is not None else None,
    }
    name = "judges/accept.html#accept" if request.htmx else "judges/accept.html"
    return render(request, name, context, status=status)


def _measured(judge: Judge, rule: AcceptRule | None, values: dict[str, float]) -> dict[str, Any]:
    """What ``trust.measure`` found, kept while nobody judges and nothing is accepted.

    It reads every verdict of the judge: with a million that is seconds, and the page asks on
    every visit and for every limit that is typed.
    """
    state = (judge.pk, *values.values(), judge_report.counters(judge)["all"])
    state += (rule.changed_at.timestamp() if rule else 0, rules.acceptances(judge).count())
    key = "trust:" + ":".join(map(str, state))
    found: dict[str, Any] | None = cache.get(key)
    if found is None:
        found = trust.measure(judge, **values)
        cache.set(key, found, KEPT_SECONDS)
    return found


def _initial(rule: AcceptRule | None) -> dict[str, float]:
    values = _initial_values(rule)
    return {"limit": values["limit"], "audit": values["audit_share"]}


def _initial_values(rule: AcceptRule | None) -> dict[str, float]:
    if rule is None:
        return {"limit": trust.LIMIT, "audit_share": trust.AUDIT_SHARE}
    return {"limit": rule.limit, "audit_share": rule.audit_share}


def _lines(figures: dict[str, Any], rule: AcceptRule | None) -> list[Line]:
    found, waiting = figures["rule"], figures["waiting"]
    lines = []
    if rule is not None and rule.is_on:
        lines.append(Line("Turned on", f"{rule.changed_at:%Y-%m-%d}", f"by {rule.changed_by}"))
        at = rule.figures["rule"]["threshold"]
        lines.append(Line("Confidence in force", formats.percent(at)))
    if found is None:
        lines.append(Line("Confidence needed", formats.MISSING, "none holds this limit"))
    else:
        lines.append(Line("Confidence needed", formats.percent(found["threshold"])))
        share = formats.percent(found["coverage"], digits=0)
        lines.append(
            Line("Checked pairs accepted", f"{found['accepted']:,} of {figures['used']:,}, {share}")
        )
        interval = formats.interval(*found["interval"])
        wrong = f"{found['wrong']:,}, {formats.percent(found['share'])}"
        lines.append(Line("Wrong among them", wrong, interval))
    lines.append(
        Line("Waiting pairs this settles", f"{waiting['accepted']:,} of {waiting['tasks']:,}")
    )
    lines.append(Line("Judgments saved", f"about {waiting['saved']:,}"))
    return lines


def no_curve(figures: dict[str, Any]) -> str:
    """Why no curve can be drawn, of what was measured."""
    checked, ties, unsure = (figures[name] for name in ("checked", "ties", "no_confidence"))
    if not checked:
        return (
            "Nobody has judged the pairs that this judge has judged: how often it is wrong is not"
            " known."
        )
    of = f"Of {checked:,} pair{'s' * (checked != 1)} that people have judged too"
    if unsure:
        said = f"on {unsure:,} it says which answer is better, but not how sure it is"
        ties_too = f", and {ties:,} it calls even" if ties else ""
        return f"{of}, {said}{ties_too}: there is no order in which its votes could be accepted."
    return f"{of}, it calls {ties:,} even: a tie is never accepted."


def curve(figures: dict[str, Any]) -> LineChart | None:
    """Error against coverage, surest pairs first, with the limit and where it is cut."""
    points = figures["curve"]
    if not points:
        return None
    found, limit = figures["rule"], figures["limit"]
    cut = found["coverage"] if found else None
    references = [Reference(100 * cut, f"{formats.percent(cut, digits=0)} accepted")] if cut else []
    says = (
        f"Accepting the surest {formats.percent(cut, digits=0)} keeps the error under "
        f"{formats.percent(limit)}."
        if cut
        else f"No confidence keeps the error under {formats.percent(limit)} for certain."
    )
    return line_chart(
        [
            Series(
                [100 * one[0] for one in points],
                [100 * one[1] for one in points],
                name="disagrees with people",
                low=[100 * one[2] for one in points],
                high=[100 * one[3] for one in points],
                style=2,
                end="",
            )
        ],
        label=says,
        title="disagrees with people, %",
        x_label="pairs accepted without a person, %",
        caption=f"Error against coverage, surest pairs first, 95 % band. {says}",
        width=WIDE,
        height=280,
        x_range=(0, 100),
        x_references=references,
        y_references=[Reference(100 * limit, f"limit {formats.percent(limit)}")],
    )
