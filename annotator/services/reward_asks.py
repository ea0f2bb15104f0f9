"""Scores of answers that somebody sends or pastes, by a reward model, from a worker of the gpu queue.

A request is a run like any other work, so that it waits its turn, can be canceled and outlives its
worker. Whoever asked waits a moment for it; a run that was answered in that moment is deleted again,
since there is nothing to look at that was not said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import orjson
from django.conf import settings
from django.db import connection
from redis import RedisError

from annotator.errors import Conflict, Invalid, MethodFailed, NotFound
from annotator.models import Project, RewardModel, Run, RunState, User
from annotator.pictures import Encoded
from annotator.queries import reward_asks as queries
from annotator.queries import reward_scores
from annotator.services import (
    asked_pictures,
    devices,
    ensembles,
    hashing,
    images,
    picture_files,
    reward_transforms,
    runs,
    training,
    workers,
)
from annotator.services.ensembles import Scored, Way
from models.errors import ModelsError
from models.transforms import MOST_REFERENCES, ON_PROMPT, PENALTY, TRANSFORMS, Reference
from rubrics.judging.prompts import clean

MOST_TEXTS: Final = 256  # of one request, references included
MOST_TURNS: Final = 100  # messages of one conversation
MAX_TEXT: Final = 50_000  # characters of one prompt or answer
MAX_TOTAL: Final = 1_000_000  # characters of one request
MAX_ROLE: Final = 40
MOST_AT_ONCE: Final = 16  # requests of a project that wait for a worker
REFERENCE_SET: Final = 256  # responses that the scale of a model is taken from
CHUNK: Final = 256
LOOK_SECONDS: Final = 0.1
WAY: Final = ("combine", "penalty")
WAITING: Final = threading.BoundedSemaphore(3)  # threads of a web process that may stand waiting
STAGES: Final = (("load", "Load"), ("score", "Score"))

Messages = list[dict[str, str]]
Text = str | Messages  # an answer, or one of several messages
Answer = Text | dict[str, str] | Encoded  # or a picture: {"image": its file}, or just sent


@dataclass(frozen=True)
class Item:
    """An answer to a prompt, and answers to the same prompt that it is measured by."""

    prompt: Messages
    response: Answer
    references: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What a run scores. ``answers`` are ids of stored responses, in the order of the items."""

    items: tuple[Item, ...]
    transform: str = "raw"
    answers: tuple[int, ...] = field(default=())
    combine: str = "mean"  # of an ensemble's members
    penalty: float = PENALTY

    @property
    def way(self) -> Way:
        return Way(self.combine, self.penalty)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Asked:
        items = tuple(
            Item(one["prompt"], one["response"], tuple(one["references"]))
            for one in values["items"]
        )
        way = Way.from_json({**Way().as_json(), **{k: values[k] for k in WAY if k in values}})
        answers = tuple(values["answers"])
        return cls(items, values["transform"], answers, way.combine, way.penalty)


def conversation(prompt: Text) -> Messages:
    """A prompt as messages; a plain text is what the user says. Raises Invalid."""
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    turns = [{"role": clean(one["role"]), "content": clean(one["content"])} for one in prompt]
    if not turns or not any(one["content"].strip() for one in turns):
        raise Invalid("A prompt says what was asked.")
    if len(turns) > MOST_TURNS:
        raise Invalid(f"A conversation has {MOST_TURNS} messages at most.")
    if any(not one["role"].strip() or len(one["role"]) > MAX_ROLE for one in turns):
        raise Invalid("Every message has a role, such as user or assistant.")
    return turns


def make(
    items: Sequence[Item],
    *,
    transform: str = "raw",
    answers: Sequence[int] = (),
    combine: str = "mean",
    penalty: float | None = None,
) -> Asked:
    """A request, checked and cleaned. Raises Invalid."""
    way = Way.checked(combine, penalty)
    if transform not in TRANSFORMS:
        raise Invalid(f"There is no transform {transform!r}. Known: {', '.join(TRANSFORMS)}.")
    cleaned = tuple(
        Item(
            conversation(one.prompt),
            _cleaned(one.response),
            tuple(map(_cleaned, one.references)) if transform in ON_PROMPT else (),
        )
        for one in items
    )
    texts = sum(1 + len(one.references) for one in cleaned)
    if not 1 <= texts <= MOST_TEXTS:
        raise Invalid(f"Between 1 and {MOST_TEXTS} answers in one request, references included.")
    if any(len(one.references) > MOST_REFERENCES for one in cleaned):
        raise Invalid(f"At most {MOST_REFERENCES} references to a prompt.")
    sizes = [size for one in cleaned for size in _sizes(one)]
    if max(sizes) > MAX_TEXT or sum(sizes) > MAX_TOTAL:
        raise Invalid(
            f"A text has {MAX_TEXT:,} characters at most, a request {MAX_TOTAL:,}.",
            advice="Send less at once.",
        )
    return Asked(cleaned, transform, tuple(answers), way.combine, way.penalty)


def _cleaned(answer: Answer) -> Answer:
    if isinstance(answer, str):
        return clean(answer)
    return conversation(answer) if isinstance(answer, list) else answer


def _sizes(item: Item) -> list[int]:
    """Characters of every text; pictures have limits of their own."""
    answers = [item.response, *item.references]
    several = [turn for one in answers if isinstance(one, list) for turn in one]
    alone = [len(one) for one in answers if isinstance(one, str)]
    return [len(turn["content"]) for turn in [*item.prompt, *several]] + alone


def is_picture(answer: Answer) -> bool:
    return isinstance(answer, dict | Encoded)


def begin(*, model: RewardModel, asked: Asked, by: User | None) -> Run:
    """A queued run that scores; the caller enqueues its job. Raises Invalid, Conflict."""
    ensembles.require_fit(model, asked.way)
    _require_kind(model.project, asked)
    if not training.artifact_folder(model).is_dir():
        raise Conflict(
            f"The files of {model} are no longer on the server.", advice="Train it again."
        )
    if queries.under_way(model.project_id) >= MOST_AT_ONCE:
        raise Conflict(
            f"{MOST_AT_ONCE} requests of this project wait for a worker already.",
            advice="Ask again when one of them is done.",
        )
    config = {"reward_model": model.pk, "model": model.name, "queue": "gpu"}
    title = f"Scores by {model.name}"
    run = runs.start(project=model.project, kind=Run.Kind.ASK, title=title, config=config, by=by)
    run.config["request"] = asdict(_kept(run, asked))
    run.save(update_fields=["config"])
    return run


def _require_kind(project: Project, asked: Asked) -> None:
    """Raises Invalid where answers are not what those of the project are."""
    answers = [one for item in asked.items for one in (item.response, *item.references)]
    if project.modality == Project.Modality.IMAGE and not all(map(is_picture, answers)):
        raise Invalid(
            "The answers of this project are images, and a text was sent.",
            advice="Send pictures, or name answers of the project by their id.",
        )
    if project.modality != Project.Modality.IMAGE and any(map(is_picture, answers)):
        raise Invalid("The answers of this project are texts, and a picture was sent.")


def _kept(run: Run, asked: Asked) -> Asked:
    """The same with the pictures that were sent stored."""
    sent = [one for item in asked.items for one in (item.response, *item.references)]
    new = [one for one in sent if isinstance(one, Encoded)]
    names = iter(asked_pictures.keep(run, new) if new else ())

    def stored(answer: Answer) -> Answer:
        return next(names) if isinstance(answer, Encoded) else answer

    items = tuple(
        Item(one.prompt, stored(one.response), tuple(map(stored, one.references)))
        for one in asked.items
    )
    return replace(asked, items=items)


def wait(run: Run, *, seconds: float | None = None) -> Run:
    """The run, ended or not, after a moment. At once where no worker could have taken it, or
    where too many threads of this process wait already."""
    most = settings.SCORE_WAIT_SECONDS if seconds is None else seconds
    until = time.monotonic() + most
    run.refresh_from_db()
    if not run.is_active or not _is_answered() or not WAITING.acquire(blocking=False):
        return run
    try:
        while run.is_active and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            run.refresh_from_db(fields=["state"])
    finally:
        WAITING.release()
    run.refresh_from_db()
    return run


def _is_answered() -> bool:
    try:
        return workers.is_answered("gpu")
    except RedisError:
        return False


def forget(run: Run) -> None:
    """Delete a run that was answered, and its pictures: its result has been given."""
    if Run.objects.filter(pk=run.pk, kind=Run.Kind.ASK, state=RunState.DONE).delete()[0]:
        images.drop_of(project_id=run.project_id, runs=[run.pk])


# The run ------------------------------------------------------------------------------------------


def perform(work: runs.Work) -> dict[str, Any]:
    """Score what was asked. Safe to be killed and run again."""
    config = work.run.config
    rows = RewardModel.objects.select_related("project").filter(project=work.run.project_id)
    model = rows.filter(pk=config["reward_model"]).first()
    if model is None or not training.artifact_folder(model).is_dir():
        raise NotFound("This reward model or its files are not there any more.")
    asked = Asked.from_json(config["request"])
    work.stage(*STAGES[0])
    try:
        with _device(work):
            desk = _Desk(work, model, asked.way)
            reference = desk.reference()
            work.stage(*STAGES[1])
            told = desk.ask([(one.prompt, one.response) for one in asked.items])
            references = desk.references(asked) if asked.transform in ON_PROMPT else []
    except ModelsError as error:
        raise MethodFailed(error.message, advice=error.advice) from None
    scores = reward_transforms.apply(
        asked.transform, told.scores, reference=reference, references=references,
        unit=ensembles.unit_of(model),
    )  # fmt: skip
    return {
        "reward_model": model.pk,
        "model": model.name,
        "transform": asked.transform,
        "reference": reference.as_json() if reference else None,
        "scores": [_number(one) for one in scores],
        "raw": [_number(one) for one in told.scores],
        "variance": None if told.variance is None else [_number(one) for one in told.variance],
        "combined": asked.way.as_json() if told.variance is not None else None,
        "references": [len(one) for one in references],
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@contextmanager
def _device(work: runs.Work) -> Any:
    """The device, for a child that stays loaded for the next request."""

    def look(other: str) -> None:
        work.check()
        work.say("waits for the device" + (f": {other} holds it" if other else ""))

    with devices.hold(holder=f"run {work.run.pk}", on_wait=look, keeps_model=True):
        yield


class _Desk:
    """One model, asked through the child process that holds it."""

    def __init__(self, work: runs.Work, model: RewardModel, way: Way) -> None:
        self.work, self.model, self.way = work, model, way

    def ask(
        self, conversations: Sequence[tuple[Messages, Any]], *, way: Way | None = None
    ) -> Scored:
        """What it says (n,), NaN where it says nothing. The same text is scored once."""
        keys = [orjson.dumps(one) for one in conversations]
        distinct = dict(zip(keys, conversations, strict=True))
        distinct = {name: one for name, one in map(self._located, distinct.items()) if one}
        asked = list(distinct.values())
        parts = [
            ensembles.ask(
                self.model, asked[start : start + CHUNK], way=way or self.way, check=self.work.check
            )
            for start in range(0, max(len(asked), 1), CHUNK)
        ]
        place = {name: n for n, name in enumerate(distinct)}
        rows = np.array([place.get(name, len(place)) for name in keys], dtype=np.int64)
        nothing = np.full(1, np.nan)  # where the file of a picture is gone
        scores = np.concatenate([*(one.scores for one in parts), nothing])[rows]
        known = [one.variance for one in parts if one.variance is not None]
        return Scored(scores, np.concatenate([*known, nothing])[rows] if known else None)

    def _located(self, named: tuple[bytes, Any]) -> tuple[bytes, Any]:
        """A conversation with its picture where the process that scores can open it; None where
        the file is gone."""
        name, (prompt, answer) = named
        if not isinstance(answer, dict):
            return name, (prompt, answer)
        try:
            path = picture_files.locate(answer["image"], self.work.run.folder)
        except FileNotFoundError:
            self.work.log("an answer has no score: the file of its picture is gone")
            return name, None
        return name, (prompt, {"image": str(path)})

    def reference(self) -> Reference | None:
        """The scale of the model, settled once; None where the project has no answers."""
        known = queries.reference_of(self.model)
        if known is not None:
            return known
        ids = queries.reference_set(self.model.project, size=REFERENCE_SET)
        subjects = reward_scores.subjects(ids, is_read=False)
        if not subjects:
            return None
        texts = [(clean_turns(one.messages), answer_of(one)) for one in subjects]
        scores = self.ask(texts, way=Way()).scores
        if not np.isfinite(scores).any():
            return None
        keep_reference(self.model, Reference.of(scores))
        return queries.reference_of(self.model)

    def references(self, asked: Asked) -> list[np.ndarray]:
        """Scores of the answers that each item is measured by: its own, else stored answers to
        the same prompt other than itself."""
        keys = [hashing.of_prompt(one.prompt) for one in asked.items]
        without = [key for key, one in zip(keys, asked.items, strict=True) if not one.references]
        stored = queries.answers_to(self.model.project, without, most=MOST_REFERENCES + 1)

        def of(key: bytes, item: Item) -> Sequence[Answer]:
            others = [_cleaned(one) for one in stored.get(key, ()) if one != item.response]
            return item.references or others[:MOST_REFERENCES]

        wanted = [of(key, one) for key, one in zip(keys, asked.items, strict=True)]
        flat = [
            (item.prompt, text)
            for item, texts in zip(asked.items, wanted, strict=True)
            for text in texts
        ]
        scores = iter(self.ask(flat).scores)
        return [np.array([next(scores) for _ in texts]) for texts in wanted]


def clean_turns(messages: Messages) -> Messages:
    """Messages of a stored prompt as any tokenizer takes them."""
    return [{"role": str(one["role"]), "content": clean(str(one["content"]))} for one in messages]


def answer_of(one: reward_scores.Subject) -> Answer:
    """A stored answer: its text, its messages, or its picture."""
    return {"image": one.picture} if one.picture else one.answer


KEEP: Final = """
    UPDATE annotator_rewardmodel SET metrics = metrics || jsonb_build_object('reference', %s::jsonb)
    WHERE id = %s AND NOT metrics ? 'reference'
"""


def keep_reference(model: RewardModel, reference: Reference) -> None:
    """Make this the scale of the model, for good: the first one stays."""
    with connection.cursor() as cursor:
        cursor.execute(KEEP, [orjson.dumps(reference.as_json()).decode(), model.pk])
