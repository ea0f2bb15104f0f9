"""Judges: versions that never change, each a rater of its project."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import orjson
from django.db import transaction
from django.utils import timezone
from pydantic import BaseModel, ValidationError

from annotator.errors import Conflict, Invalid, NotFound
from annotator.models import (
    AuditEvent,
    Endpoint,
    Judge,
    Project,
    Rater,
    RewardModel,
    RubricVersion,
    User,
)
from annotator.services import backbones, rubric_judges, training
from models.local_judge_options import MODEL_FIELDS
from models.training import explain
from rubrics.judging import ASKING, JUDGES, ON_GPU, templates
from rubrics.judging import rubric as rubric_judge
from rubrics.judging.options import LlmOptions
from rubrics.judging.rubric_options import RubricOptions
from rubrics.llm.types import Reply, Request
from rubrics.registry import UnknownMethod, find

MAX_NAME: Final = Judge._meta.get_field("name").max_length
MAX_MODEL: Final = Judge._meta.get_field("model").max_length
PRETRAINED: Final = "hf"  # the backbone whose rules about names and folders hold for all


def queue_of(judge: Judge) -> str:
    """The Celery queue that works for a judge: where it waits for a network, or for a GPU."""
    if judge.kind in ASKING and judge.endpoint_id is not None:
        return "llm"
    return "gpu" if judge.kind in ON_GPU else "default"


def add(
    *,
    project: Project,
    name: str,
    kind: str,
    options: dict[str, Any],
    endpoint: Endpoint | None,
    by: User | None,
    by_operator: bool = False,
    rubric_version: RubricVersion | None = None,
) -> Judge:
    """A judge with its rater: a new version, or the newest one of this name if nothing differs.

    ``options`` are of the kind's Options model; values may be text. ``by_operator`` may name any
    folder of the server as a model. An approved ``rubric_version`` gives the criteria of a judge
    that reads some, in place of ``options["criteria"]``. Raises Invalid.
    """
    name = " ".join(name.replace("\0", "").split())
    if not name or len(name) > MAX_NAME or "@" in name:
        raise Invalid(f"A judge needs a name of 1 to {MAX_NAME} characters, without an @.")
    if rubric_version is not None:
        options = _conditioned(project, kind, options, rubric_version)
    read = _read_options(kind, options)
    made = _Draft(project, kind, read, endpoint, rubric_version)
    made.check(by_operator=by_operator)
    with transaction.atomic():
        # The project's row is the lock of its versions.
        Project.objects.select_for_update(no_key=True).only("pk").get(pk=project.pk)
        last = Judge.objects.filter(project=project, name=name).order_by("-version").first()
        digest = made.digest()
        if last is not None and last.digest == digest and last.archived_at is None:
            return last
        return _create(made, name=name, version=last.version + 1 if last else 1, by=by)


def _conditioned(
    project: Project, kind: str, options: dict[str, Any], version: RubricVersion
) -> dict[str, Any]:
    if version.rubric.project_id != project.pk:
        raise Invalid("That rubric is of another project.")
    if options.get("criteria"):
        raise Invalid(
            "Criteria come from the rubric or are written by hand, not both.",
            advice="Leave them empty, or choose no rubric.",
        )
    return options | {"criteria": rubric_judges.take(kind, version).criteria}


def _read_options(kind: str, options: dict[str, Any]) -> BaseModel:
    try:
        model: type[BaseModel] = find(JUDGES, kind).load_options()
    except UnknownMethod as error:
        raise Invalid(str(error)) from None
    try:
        return model.model_validate(options)
    except ValidationError as error:
        raise Invalid(explain(error)) from None


class _Draft:
    """What a judge would be: everything that changes what it says."""

    def __init__(
        self,
        project: Project,
        kind: str,
        options: BaseModel,
        endpoint: Endpoint | None,
        rubric_version: RubricVersion | None = None,
    ) -> None:
        self.project, self.kind, self.endpoint = project, kind, endpoint
        self.rubric_version = rubric_version
        self.options = options.model_dump(mode="json")
        self.template = self.template_text = ""
        self.model = ""

    def check(self, *, by_operator: bool) -> None:
        """Raises Invalid for an endpoint, a model or a template that is not to be had."""
        if self.kind in ASKING and self._asks():
            self._check_asking()
        elif self.endpoint is not None:
            raise Invalid("A judge of this kind asks no endpoint.")
        elif self.kind == "reward-model":
            self._check_reward_model()
        elif self.kind in MODEL_FIELDS:
            self._check_pretrained(by_operator=by_operator)

    def _asks(self) -> bool:
        """Whether a judge that could ask a model does; where not, what it was to ask is dropped."""
        if self.kind != "rubric":
            return True
        options = RubricOptions.model_validate(self.options)
        if not options.criteria:
            raise Invalid("Choose a rubric, or write criteria.")
        if rubric_judge.needs_model(options):
            return True
        self.endpoint, self.options["models"], self.model = None, [], "programs"
        return False

    def _check_asking(self) -> None:
        endpoint = self.endpoint
        if endpoint is None or endpoint.project_id != self.project.pk or endpoint.archived_at:
            raise Invalid("Choose an endpoint of this project to ask.")
        if self.project.modality == Project.Modality.IMAGE and not endpoint.has_images:
            raise Invalid(
                "This project's answers are images, and the endpoint reads none.",
                advice="Mark the endpoint as one that reads images, if it does.",
            )
        named = [" ".join(one.split()) for one in self.options["models"]]
        if not named or not all(0 < len(one) <= MAX_MODEL for one in named):
            raise Invalid("Name at least one model, as the endpoint calls it.")
        if len(set(named)) < len(named):
            raise Invalid("A model is named twice.", advice="For more answers, set repeats.")
        self.options["models"] = named
        self.model = ", ".join(named)[:MAX_MODEL]
        self._take_template()

    def _take_template(self) -> None:
        if self.kind == "rubric":
            self.template, self.template_text = "verify", rubric_judge.question_text()
            return
        try:
            template = templates.template_of(LlmOptions.model_validate(self.options))
        except templates.BadTemplate as error:
            raise Invalid(str(error)) from None
        self.template, self.template_text = template.name, template.text

    def _check_reward_model(self) -> None:
        rows = RewardModel.objects.filter(project=self.project)
        number = self.options["number"]
        found = (rows.filter(number=number) if number else rows).order_by("-number").first()
        if found is None:
            raise Invalid(
                f"There is no reward model {number}." if number else "No reward model is trained.",
                advice="Train one first.",
            )
        self.options["number"] = found.number
        self.model = f"rm-{found.number}"

    def _check_pretrained(self, *, by_operator: bool) -> None:
        names = []
        for field in MODEL_FIELDS[self.kind]:
            if not self.options[field].strip():
                raise Invalid(f"Name a model for “{field}”: a hub id or a folder.")
            backbone = f"{PRETRAINED}:{self.options[field].strip()}"
            allowed = backbones.allowed(backbone, by_operator=by_operator)
            self.options[field] = allowed.partition(":")[2]
            names.append(self.options[field])
        self.model = " / ".join(names)[:MAX_MODEL]

    @property
    def template_hash(self) -> str:
        text = self.template_text
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text else ""

    def digest(self) -> str:
        """Hex over all that a verdict depends on, what the project tells its judges included."""
        shown = {"kind": self.kind, "options": self.options, "template": self.template_hash}
        if self.endpoint is not None:
            shown["endpoint"] = self.endpoint.base_url
        if self.rubric_version is not None:
            shown["rubric"] = [self.rubric_version.pk, self.rubric_version.digest]
        if "use_guidelines" in self.options:
            shown["project"] = _told(self.project, self.options)
        return sha256(orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _told(project: Project, options: dict[str, Any]) -> list[str]:
    """What a project tells a judge of these options beside the task itself."""
    guidelines = project.guidelines if options["use_guidelines"] else ""
    return [project.question, guidelines]


def _create(made: _Draft, *, name: str, version: int, by: User | None) -> Judge:
    is_simulated = made.endpoint is not None and made.endpoint.is_simulated
    rater = Rater.objects.create(
        project=made.project,
        kind=Rater.Kind.JUDGE,
        name=f"{name} v{version}",
        is_simulated=is_simulated,
    )
    judge = Judge.objects.create(
        project=made.project,
        rater=rater,
        name=name,
        version=version,
        kind=made.kind,
        endpoint=made.endpoint,
        model=made.model,
        template=made.template,
        template_hash=made.template_hash,
        template_text=made.template_text,
        options=made.options,
        rubric_version=made.rubric_version,
        digest=made.digest(),
        is_simulated=is_simulated,
        created_by=by,
    )
    AuditEvent.objects.create(
        project=made.project, actor=by, verb="judge.add", subject=f"judge {judge.pk}",
        data={"name": str(judge), "kind": judge.kind, "rubric": str(made.rubric_version or "")},
    )  # fmt: skip
    return judge


@transaction.atomic
def archive(*, judge: Judge, by: User | None, is_archived: bool = True) -> None:
    """Take a judge out of use, or back into it. Its verdicts stay."""
    Judge.objects.filter(pk=judge.pk).update(archived_at=timezone.now() if is_archived else None)
    judge.refresh_from_db(fields=["archived_at"])
    AuditEvent.objects.create(
        project_id=judge.project_id,
        actor=by,
        verb="judge.archive" if is_archived else "judge.restore",
        subject=f"judge {judge.pk}",
    )


def check_usable(judge: Judge) -> None:
    """Raises Conflict for a judge that cannot be asked, or would not be the one it was."""
    if judge.kind not in JUDGES:
        raise Conflict("The verdicts of this judge came with a file: it cannot be asked for more.")
    if judge.archived_at is not None:
        raise Conflict(f"{judge} is archived.")
    if judge.endpoint is not None and judge.endpoint.archived_at is not None:
        raise Conflict(f"The endpoint {judge.endpoint} is archived.")
    draft = _Draft(
        judge.project, judge.kind, _stored_options(judge), judge.endpoint, judge.rubric_version
    )
    # A judge that checks criteria asks by the file that measuring a rubric asks by as well.
    is_shared = judge.kind == "rubric" and judge.template_text
    draft.template_text = rubric_judge.question_text() if is_shared else judge.template_text
    if judge.digest and draft.digest() != judge.digest:
        raise Conflict(
            f"What {judge} is shown has changed since it was made: the project's question, its "
            "guidelines, the endpoint's address or the words of the question it asks.",
            advice="Add it again: its next version is shown what stands there now.",
        )


def _stored_options(judge: Judge) -> BaseModel:
    return _read_options(judge.kind, judge.options)


async def nobody(request: Request) -> Reply:
    """The Call of a judge that has no endpoint: whatever asks through it is broken."""
    raise RuntimeError("a judge without an endpoint asked a model")


def load(judge: Judge) -> Any:
    """The judge at work: a rubrics.judging.types.AskingJudge or ScoringJudge.

    Raises Invalid for options that its kind does not take any more, NotFound for a reward model
    that is gone.
    """
    options = _stored_options(judge)
    work = find(JUDGES, judge.kind).load()
    if judge.kind == "llm":
        try:
            return work(options, template=templates.from_text(judge.template_text, judge.template))
        except templates.BadTemplate as error:
            raise Invalid(str(error)) from None
    if judge.kind == "reward-model":
        number = judge.options["number"]
        model = RewardModel.objects.filter(project_id=judge.project_id, number=number).first()
        if model is None:
            raise NotFound(f"Reward model {number} is not there any more.")
        return work(options, folder=training.artifact_folder(model))
    return work(options)
