"""Scores of responses: rewards of a rubric version, or what a reward model says; both as runs.

A run can be killed, paused or canceled at any point. What is scored stands in the tables, what was
asked in the ledger: whoever goes on takes the responses without a score, and a call that was paid
for is not made again.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from django.db import transaction

from annotator.errors import Conflict, Invalid, MethodFailed, NotFound
from annotator.models import (
    Judge,
    Project,
    RewardModel,
    RubricVersion,
    Run,
    Split,
    User,
)
from annotator.queries import reward_pairs
from annotator.queries import reward_scores as queries
from annotator.queries.reward_scores import Wanted
from annotator.services import devices, ensembles, rubrics, runs, training
from annotator.services.ensembles import Way
from annotator.services.picture_files import locate
from annotator.services.reward_rows import settle_basis, write_model
from annotator.services.rubric_rewards import FORMS, Basis, RubricScoring, is_asked
from models import gateway
from models.errors import ModelsError
from models.pairs import clean_text
from models.workdir import PICTURES
from rubrics.judging import ASKING
from rubrics.llm.budget import Budget

STAGES: Final = (("score", "Score"), ("summarize", "Summarize"))
MOST: Final = 10**12
MODEL_CHUNK: Final = 256  # responses of one request to the process that scores


@transaction.atomic
def start(
    *,
    version: RubricVersion | None = None,
    reward_model: RewardModel | None = None,
    by: User | None,
    form: str = "",
    not_applicable: str = "",
    judge: Judge | None = None,
    only: str = queries.ALL,
    splits: Sequence[str] = (),
    sample: int | None = None,
    budget: Budget | None = None,
    combine: str = "",
    penalty: float | None = None,
) -> Run:
    """A queued run that scores responses by one of the two; the caller enqueues its job.

    ``form``: "weighted" or "share"; empty is weighted where criteria have weights. ``judge``: whose
    model answers the criteria that a language model checks; the version's verifier if not given.
    ``only`` is a key of queries.reward_scores.ONLY. ``combine`` and ``penalty``: how one score is
    made of the members of an ensemble (models.transforms.combine), the way of the scores that
    stand if not given; the run deletes scores made in another. Raises Invalid, Conflict.
    """
    if (version is None) == (reward_model is None):
        raise Invalid("Scores are by a rubric version or by a reward model.")
    budget = budget or Budget()
    config: dict[str, Any] = {
        "only": _checked_only(only),
        "splits": _checked_splits(splits),
        "sample": sample,
        "budget": asdict(budget),
    }
    for name, value in {"sample": sample, **config["budget"]}.items():
        if value is not None and not 0 < value <= MOST:
            raise Invalid(f"{name.capitalize()}: a number above 0, or none for no limit.")
    # Two who press at once see each other's run.
    if version is not None:
        rubrics.hold(version.rubric)
    else:
        RewardModel.objects.select_for_update(no_key=True).filter(pk=reward_model.pk).first()
    if queries.active_run(version, reward_model=reward_model) is not None:
        raise Conflict("A run scores by it already.", advice="Wait for it, or cancel it.")
    if version is not None:
        project, title = version.rubric.project, f"Score responses by {version}"
        judge = judge or version.verifier
        config |= _rubric_config(version, form, not_applicable, judge)
    else:
        assert reward_model is not None
        project, title = reward_model.project, f"Score responses by {reward_model}"
        config |= _model_config(reward_model, combine, penalty)
    return runs.start(project=project, kind=Run.Kind.SCORE, title=title, config=config, by=by)


def _model_config(reward_model: RewardModel, combine: str, penalty: float | None) -> dict[str, Any]:
    _require_files(reward_model)
    way = Way.checked(combine, penalty) if combine else ensembles.way_of(reward_model)
    ensembles.require_fit(reward_model, way)
    found = {"reward_model": reward_model.pk, "model": reward_model.name, "queue": "gpu"}
    return found | ({ensembles.WAY: way.as_json()} if reward_model.members > 1 else {})


def _checked_only(only: str) -> str:
    if only not in queries.ONLY:
        raise Invalid(f"Score {' or '.join(queries.ONLY)}.")
    return only


def _checked_splits(splits: Sequence[str]) -> list[str]:
    unknown = set(splits) - set(Split.values)
    if unknown:
        raise Invalid(f"There is no split {min(unknown)!r}.")
    return [split for split in Split.values if split in splits or not splits]


def _rubric_config(
    version: RubricVersion, form: str, not_applicable: str, judge: Judge | None
) -> dict[str, Any]:
    if version.is_draft:
        raise Conflict(
            f"{version} is a draft: its criteria may change.",
            advice="Approve it first: rewards are of criteria that stay what they are.",
        )
    criteria = rubrics.in_force(version)
    basis = Basis.of(version, criteria, form=form, not_applicable=not_applicable, judge=judge)
    if any(map(is_asked, criteria)):
        _check_judge(version.rubric.project, judge)
    return {
        "rubric_version": version.pk,
        "rubric": str(version),
        "basis": basis.as_json(),
        "verifier": str(judge) if judge and basis.asks else "",
        "queue": "llm" if basis.asks else "default",
    }


def _check_judge(project: Project, judge: Judge | None) -> None:
    """Raises Invalid, Conflict for one whose model cannot be asked about criteria."""
    if judge is None:
        raise Invalid(
            "A language model checks some of the criteria, and none is named.",
            advice="Choose the judge whose model answers them.",
        )
    if judge.project_id != project.pk or judge.kind not in ASKING or judge.endpoint is None:
        raise Invalid("Choose a judge of this project that asks a model.")
    if judge.endpoint.archived_at is not None:
        raise Conflict(f"The endpoint {judge.endpoint} is archived.")
    if project.modality == Project.Modality.IMAGE and not judge.endpoint.has_images:
        raise Invalid(f"The endpoint {judge.endpoint} does not take pictures.")


def _require_files(model: RewardModel) -> None:
    if not training.artifact_folder(model).is_dir():
        raise Conflict(
            f"The files of {model} are no longer on the server.", advice="Train it again."
        )


def perform(work: runs.Work) -> dict[str, Any]:
    """Score what is left, then sum it up. Safe to be killed at any point and run again."""
    known = {stage["key"]: stage for stage in work.run.stages}
    work.run.stages = [
        known.get(key, {"key": key, "label": label, "state": "", "seconds": None})
        for key, label in STAGES
    ]
    work.stage(*STAGES[0])
    job: _ByRubric | _ByModel
    job = _ByRubric(work) if "rubric_version" in work.run.config else _ByModel(work)
    ended = job.score_all()
    work.stage(*STAGES[1])
    return job.result(ended)


class _Job:
    """What both have in common: which responses, and how far it is."""

    source = ""
    reads_pictures = True

    def __init__(self, work: runs.Work, of: int) -> None:
        self.work, self.config = work, work.run.config
        self.of = of
        self.wanted = Wanted(
            project_id=work.run.project_id,
            source=self.source,
            of=of,
            only=self.config["only"],
            splits=tuple(self.config["splits"]),
            sample=self.config["sample"],
        )
        self.after = 0

    def count(self) -> None:
        """Say how far it is, from what stands in the tables."""
        self.scored, self.total = self.wanted.count(scored=True), self.wanted.count()
        if self.scored and self.work.run.attempt > 1:
            self.work.resumed(f"response {self.scored:,}")
        self.work.progress(self.scored, self.total, unit="responses")
        self.work.log(f"{self.total - self.scored:,} of {self.total:,} responses to score")

    def next_subjects(self, size: int) -> list[queries.Subject]:
        """The next chunk; empty at the end."""
        found: list[queries.Subject] = []
        while not found and (ids := self.wanted.ids(after=self.after, size=size)):
            self.after = ids[-1]
            found = queries.subjects(ids, is_read=self.reads_pictures)
        return found

    def sum_up(self) -> dict[str, Any]:
        self.work.check()
        found = queries.summary(self.source, self.of)
        return {
            "run": self.work.run.pk,
            "responses": self.total,
            "scored": self.wanted.count(scored=True),
            "summary": found.as_json() if found else None,
        }


class _ByRubric(_Job):
    source = "rubric_version"

    def __init__(self, work: runs.Work) -> None:
        rows = RubricVersion.objects.select_related("rubric__project")
        rows = rows.filter(rubric__project_id=work.run.project_id)
        version = rows.filter(pk=work.run.config["rubric_version"]).first()
        if version is None:
            raise NotFound("This version is not there any more.")
        super().__init__(work, version.pk)
        self.version = version
        basis = Basis.from_json(self.config["basis"])
        criteria = rubrics.in_force(version)
        if basis.digest != rubrics.digest(criteria):
            raise Conflict("The criteria are not those with which the run was started.")
        judge = self._judge(basis)
        if settle_basis(version, basis.as_json()):
            work.log(f"rewards are {basis.words()}; those of another kind are gone")
        self.scoring = RubricScoring(work, version, criteria, basis, judge=judge)

    def _judge(self, basis: Basis) -> Judge | None:
        if not basis.asks:
            return None
        rows = Judge.objects.select_related("endpoint", "rater").filter(pk=basis.judge)
        judge = rows.first()
        _check_judge(self.work.run.project, judge)
        return judge

    def score_all(self) -> str:
        """Why it ended: "" at the end of the responses, or "budget". Raises Stopped."""
        self.count()
        ended = self.scoring.run(self.next_subjects, done=self.scored)
        self.work.flush()
        if ended:
            self.work.log("the budget is spent; what is scored is kept")
        return ended

    def result(self, ended: str) -> dict[str, Any]:
        found = self.sum_up()
        pairs = reward_pairs.keep(
            self.version.rubric.project, self.version, folder=self.work.run.folder
        )
        used = self.work.run.counters
        return {
            **found,
            "rubric_version": self.version.pk,
            "rubric": str(self.version),
            "rubric_id": self.version.rubric_id,
            "number": self.version.number,
            "form": self.config["basis"]["form"],
            "not_applicable": self.config["basis"]["not_applicable"],
            "test_pairs": pairs,
            "incomplete": used.get("incomplete", {}),
            "calls": used.get("calls", 0),
            "cached": used.get("cached", 0),
            "tokens": used.get("tokens_in", 0) + used.get("tokens_out", 0),
            "failures": used.get("failures", {}),
            "stopped": ended,
        }


class _ByModel(_Job):
    source = "reward_model"
    reads_pictures = False  # the process that scores opens them

    def __init__(self, work: runs.Work) -> None:
        rows = RewardModel.objects.filter(project_id=work.run.project_id)
        model = rows.filter(pk=work.run.config["reward_model"]).first()
        if model is None:
            raise NotFound("This reward model is not there any more.")
        _require_files(model)
        super().__init__(work, model.pk)
        self.model = model
        self.way = Way.from_json(self.config.get(ensembles.WAY))
        if ensembles.settle(model, self.way):
            work.log(f"a score is {self.way}; those made in another way are gone")
        self.unscored = 0

    def score_all(self) -> str:
        """All that is left, by a child process that holds the device. Raises Stopped."""
        self.count()
        done = self.scored

        def wait(other: str) -> None:
            self.work.check()
            self.work.say("waits for the device" + (f": {other} holds it" if other else ""))

        try:
            with devices.hold(holder=f"run {self.work.run.pk}", on_wait=wait):
                try:
                    while chunk := self.next_subjects(MODEL_CHUNK):
                        done += self._score(chunk)
                        self.work.progress(done)
                        self.work.check()
                finally:
                    gateway.release()
        except ModelsError as error:
            raise MethodFailed(error.message, advice=error.advice) from None
        self.work.flush()
        return ""

    def _score(self, chunk: list[queries.Subject]) -> int:
        answers = [(one, self._answer(one)) for one in chunk]
        known = [(one, answer) for one, answer in answers if answer is not None]
        told = ensembles.ask(
            self.model,
            [(_clean(one.messages), answer) for one, answer in known],
            way=self.way,
            check=self.work.check,
        )
        rows = np.isfinite(told.scores)
        ids = [one.id for (one, _), is_known in zip(known, rows, strict=True) if is_known]
        self.unscored += len(chunk) - len(ids)
        write_model(self.work, self.model.pk, ids, told.where(rows), way=self.way)
        return len(ids)

    def _answer(self, one: queries.Subject) -> Any:
        """What the process that scores is given; None where a picture is lost."""
        if not one.picture:
            return _clean(one.answer)
        try:
            return {"image": str(locate(one.picture, self.work.run.folder))}
        except FileNotFoundError:
            self.work.log(f"response {one.id} is left out: the file of its picture is gone")
            return None

    def result(self, ended: str) -> dict[str, Any]:
        found = self.sum_up()
        shutil.rmtree(self.work.run.folder / PICTURES, ignore_errors=True)
        return {**found, "reward_model": self.model.number, "unscored": self.unscored}


def _clean(value: Any) -> Any:
    """Texts that any tokenizer takes."""
    if isinstance(value, str):
        return clean_text(value)
    return [turn | {"content": clean_text(str(turn["content"]))} for turn in value]


def criteria_asked(version: RubricVersion) -> int:
    """How many criteria in force a language model checks."""
    return sum(map(is_asked, rubrics.in_force(version)))


__all__ = ["FORMS", "criteria_asked", "perform", "start"]
