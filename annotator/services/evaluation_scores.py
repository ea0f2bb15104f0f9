"""Scores that an evaluation needs: those that stand, and the rest by a child process, stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.errors import MethodFailed
from annotator.models import Project, RewardModel
from annotator.queries import evaluation_pairs as queries
from annotator.queries.evaluation_pairs import Pairs
from annotator.queries.quality_data import Codes
from annotator.queries.reward_scores import Subject, subjects
from annotator.queries.snapshot import current
from annotator.services import devices, runs, training
from annotator.services.reward_rows import write_model
from models import gateway
from models.errors import ModelsError
from models.pairs import clean_text
from models.rm_evaluation import Swap, order_swap

CHUNK: Final = 256  # responses of one request
SWAPPED: Final = 64  # pairs asked in both orders


def can_score(project: Project, model: RewardModel) -> bool:
    """Whether the model can be asked about this project's answers now."""
    is_text = project.modality != Project.Modality.IMAGE
    return is_text and training.artifact_folder(model).is_dir()


@contextmanager
def holding_device(work: runs.Work) -> Iterator[None]:
    """The device, and the scoring child that ends with it. Raises MethodFailed, Stopped."""

    def wait(other: str) -> None:
        work.check()
        work.say("waits for the device" + (f": {other} holds it" if other else ""))

    try:
        with devices.hold(holder=f"run {work.run.pk}", on_wait=wait):
            try:
                yield
            finally:
                gateway.release()
    except ModelsError as error:
        raise MethodFailed(error.message, advice=error.advice) from None


def missing(model: RewardModel, ids: Codes) -> Codes:
    """Those of ``ids`` (m,) that the model has not scored, each once."""
    wanted = np.unique(ids)
    known = queries.read_scores(current(), "reward_model", model.pk, wanted)
    return wanted[np.isnan(known)]


def score(work: runs.Work, model: RewardModel, ids: Codes, tick: Callable[[int], None]) -> int:
    """Have ``ids`` (m,) scored and stored, a chunk at a time; how many could not be.

    The device is the caller's. Whoever goes on after a kill asks for what is missing then.
    """
    unscored, began = 0, time.monotonic()
    used = work.run.counters
    before, spent = used.get("scored", 0), used.get("seconds", 0.0)
    for start in range(0, len(ids), CHUNK):
        chunk = subjects(ids[start : start + CHUNK].tolist())
        found = _ask(work, model, chunk)
        known = np.isfinite(found)
        unscored += int((~known).sum())
        write_model(
            work, model.pk, [one.id for one, is_ in zip(chunk, known, strict=True) if is_],
            found[known],
        )  # fmt: skip
        done = start + len(ids[start : start + CHUNK])
        seconds = round(spent + time.monotonic() - began, 1)
        work.count({**used, "scored": before + done, "seconds": seconds})
        tick(done)
        work.check()
    return unscored


def swap(work: runs.Work, model: RewardModel, pairs: Pairs) -> Swap | None:
    """What exchanging the answers changes on up to SWAPPED pairs, by asking in both orders."""
    places = np.unique(np.linspace(0, len(pairs) - 1, min(SWAPPED, len(pairs))).astype(int))
    ids = np.stack([pairs.chosen[places], pairs.rejected[places]], axis=1)  # (k, 2)
    texts = {one.id: one for one in subjects(sorted(set(ids.ravel().tolist())))}
    kept = [row for row in ids.tolist() if all(pk in texts for pk in row)]
    if not kept:
        return None
    forward = _ask(work, model, [texts[pk] for row in kept for pk in row]).reshape(-1, 2)
    reverse = _ask(work, model, [texts[pk] for row in kept for pk in row[::-1]]).reshape(-1, 2)
    first, second = forward[:, 0] - forward[:, 1], reverse[:, 1] - reverse[:, 0]
    known = np.isfinite(first) & np.isfinite(second)
    return order_swap(first[known], second[known])


def _ask(work: runs.Work, model: RewardModel, chunk: list[Subject]) -> NDArray[np.float64]:
    """Scores (m,), NaN where there is none."""
    reply = gateway.score_in_child(
        {
            "method": "reward-model",
            "folder": str(training.artifact_folder(model)),
            "asked": [(_clean(one.messages), _clean(one.answer)) for one in chunk],
        },
        check=work.check,
    )
    scores = [np.nan if score is None else score for score in reply["scores"]]
    return np.array(scores, dtype=np.float64)


def _clean(value: Any) -> Any:
    """Texts that any tokenizer takes."""
    if isinstance(value, str):
        return clean_text(value)
    return [turn | {"content": clean_text(str(turn["content"]))} for turn in value]
