"""A version of a rubric is measured: a run of its own, and what a command prints of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from annotator.errors import Invalid, NotFound
from annotator.models import Judge, RubricVersion, Run, User
from annotator.services import asking, judges, rubrics, runs
from annotator.services.rubric_measuring import JUDGED, STAGES, Sizes, measure
from rubrics.judging import ASKING
from rubrics.llm.budget import Budget

__all__ = ["JUDGED", "Sizes", "held_out", "measure", "perform", "start"]

MOST: Final = 20_000  # pairs of one kind


def start(
    *,
    version: RubricVersion,
    by: User | None,
    verify_with: Judge | None = None,
    held: int | None = None,
    learned: int | None = None,
    judged: int = JUDGED,
    budget: Budget | None = None,
) -> Run:
    """A queued run that measures a version; the caller enqueues its job.

    ``verify_with``: whose endpoint and model answer, the version's own verifier if not given.
    Raises Invalid, Conflict.
    """
    project = version.rubric.project
    for size in (held, learned, judged):
        if size is not None and not 0 < size <= MOST:
            raise Invalid(f"Measure on 1 to {MOST:,} pairs.")
    if not rubrics.in_force(version):
        raise Invalid("There is no criterion to measure.", advice="Add one first.")
    judge = verify_with or version.verifier
    if judge is not None:
        asks = judge.kind in ASKING and judge.endpoint_id is not None
        if judge.project_id != project.pk or not asks:
            raise Invalid("Choose a judge of this project that asks a model.")
        judges.check_usable(judge)
        if version.is_draft and version.verifier_id is None:  # it stays the one that is asked
            RubricVersion.objects.filter(pk=version.pk).update(verifier=judge)
    config = {
        "version": version.pk,
        "judge": judge.pk if judge else None,
        "asked": str(judge) if judge else "",
        "raters": (version.run.config.get("raters") if version.run else None) or "all",
        "sizes": asdict(Sizes(held, learned, judged)),
        "budget": asdict(budget or Budget()),
        "queue": "llm" if judge else "default",
    }
    title = f"Measure {version}"
    return runs.start(project=project, kind=Run.Kind.MEASURE, title=title, config=config, by=by)


def perform(work: runs.Work) -> dict[str, Any]:
    """Measure, and keep it. Safe to be killed at any point and run again."""
    run, config = work.run, work.run.config
    known = {stage["key"] for stage in run.stages}
    run.stages += [
        {"key": key, "label": label, "state": "", "seconds": None}
        for key, label in STAGES
        if key not in known
    ]
    rows = RubricVersion.objects.filter(rubric__project=run.project, pk=config["version"])
    version = rows.select_related("rubric", "parent").first()
    if version is None:
        raise NotFound("This version is not there any more.")
    desk = asking.Desk(
        work,
        judge=asking.find_judge(run.project, config["judge"]),
        budget=Budget(**config["budget"]),
    )
    sizes = Sizes(**config["sizes"])
    found = measure(desk, version, sizes=sizes, raters=config["raters"], on_stage=work.stage)
    used = run.counters
    return {
        "run": run.pk,
        "rubric": version.rubric.name,
        "version": version.number,
        "measurement": found.pk,
        "held_out": held_out(found.figures),
        "calls": used.get("calls", 0),
        "tokens": used.get("tokens_in", 0) + used.get("tokens_out", 0),
    }


NAMES: Final = {
    "longer_wins": "length",
    "equal_weights": "equal",
    "judge": "judge",
    "judge_with_rubric": "judge.rubric",
    "reward_model": "reward-model",
    "parent": "parent",
    "human_ceiling": "human_ceiling",
}


def held_out(found: dict[str, Any]) -> dict[str, Any]:
    """Figures as a command prints them: the accuracy with its interval, and all beside it.

    What there is none of has ``accuracy`` None and a ``reason``.
    """
    missing, given = found["missing"], found["held_out"]

    def said(name: str) -> dict[str, Any]:
        one = given.get(name)
        if one is None:
            nothing = {"accuracy": None, "interval": None, "n": 0, "ties": 0}
            return nothing | {"reason": missing.get(name, "It was not measured.")}
        more = {"number": one["number"]} if "number" in one else {}
        numbers = {"n": one["n"], "ties": one["ties"]}
        return {"accuracy": one["value"], "interval": [one["low"], one["high"]], **numbers, **more}

    beside = {name: said(key) for name, key in NAMES.items()}
    position = {name: found["position"][NAMES[name]] for name in ("judge", "judge_with_rubric")}
    return {**said("rubric"), "baselines": {**beside, "position": position}, "missing": missing}
