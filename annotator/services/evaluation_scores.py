"""Scores that an evaluation needs: those that stand, and the rest by a child process, stored."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from annotator.errors import MethodFailed
from annotator.models import RewardModel
from annotator.queries import evaluation_pairs as queries
from annotator.queries.evaluation_pairs import Pairs
from annotator.queries.quality_data import Codes
from annotator.queries.reward_scores import Subject, subjects
from annotator.queries.snapshot import current
from annotator.services import devices, ensembles, runs, training
from annotator.services.ensembles import Scored, Way
from annotator.services.picture_files import locate
from annotator.services.reward_rows import write_model
from models import gateway
from models.errors import ModelsError
from models.objectives import NO_ONE_SCORE
from models.pairs import clean_text
from models.rm_evaluation import Swap, order_swap
from models.workdir import PICTURES

CHUNK: Final = 256  # responses of one request
SWAPPED: Final = 64  # pairs asked in both orders


def can_score(model: RewardModel) -> bool:
    """Whether the model can be asked now."""
    return training.artifact_folder(model).is_dir()


def compares(model: RewardModel) -> bool:
    """Whether it is asked about two answers at once, since one has no reward by itself."""
    return model.objective in NO_ONE_SCORE


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
                shutil.rmtree(work.run.folder / PICTURES, ignore_errors=True)
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
    unscored, spent, way = 0, _Spent(work), ensembles.way_of(model)
    for start in range(0, len(ids), CHUNK):
        chunk = subjects(ids[start : start + CHUNK].tolist(), is_read=False)
        found = _ask(work, model, chunk, way=way)
        known = np.isfinite(found.scores)
        unscored += int((~known).sum())
        ids_known = [one.id for one, is_ in zip(chunk, known, strict=True) if is_]
        write_model(work, model.pk, ids_known, found.where(known), way=way)
        done = start + len(ids[start : start + CHUNK])
        spent.count(done)
        tick(done)
        work.check()
    return unscored


def margins(
    work: runs.Work, model: RewardModel, ids: Codes, tick: Callable[[int], None] = lambda _: None
) -> NDArray[np.float64]:
    """Log-odds (n,) that the first of each two responses ``ids`` (n, 2) is better, by a model that
    compares; NaN where it says nothing. They are kept nowhere: what goes on asks again."""
    found, spent = np.full(len(ids), np.nan), _Spent(work)
    for start in range(0, len(ids), CHUNK // 2):
        rows = ids[start : start + CHUNK // 2]
        found[start : start + len(rows)] = _compare(work, model, rows)
        spent.count(2 * (start + len(rows)))
        tick(start + len(rows))
        work.check()
    return found


class _Spent:
    """The counters of a run: answers read so far, and the seconds that took."""

    def __init__(self, work: runs.Work) -> None:
        self.work, self.before, self.began = work, work.run.counters, time.monotonic()

    def count(self, done: int) -> None:
        """``done`` since the beginning of this one."""
        seconds = self.before.get("seconds", 0.0) + time.monotonic() - self.began
        scored = self.before.get("scored", 0) + done
        self.work.count({**self.before, "scored": scored, "seconds": round(seconds, 1)})


def swap(work: runs.Work, model: RewardModel, pairs: Pairs) -> Swap | None:
    """What exchanging the answers changes on up to SWAPPED pairs, by asking in both orders."""
    places = np.unique(np.linspace(0, len(pairs) - 1, min(SWAPPED, len(pairs))).astype(int))
    ids = np.stack([pairs.chosen[places], pairs.rejected[places]], axis=1)  # (k, 2)
    ask = _compare if compares(model) else _subtract
    first, second = ask(work, model, ids), -ask(work, model, ids[:, ::-1])
    known = np.isfinite(first) & np.isfinite(second)
    return order_swap(first[known], second[known])


def _subtract(work: runs.Work, model: RewardModel, ids: Codes) -> NDArray[np.float64]:
    """Differences (k,) of the scores of ``ids`` (k, 2), asked for in that order."""
    known = _by_id(ids)
    flat = [known[pk] for pk in ids.ravel().tolist() if pk in known]
    if len(flat) < ids.size:  # gone since
        return np.full(len(ids), np.nan)
    scores = _ask(work, model, flat, way=ensembles.way_of(model)).scores.reshape(-1, 2)
    return np.asarray(scores[:, 0] - scores[:, 1])


def _compare(work: runs.Work, model: RewardModel, ids: Codes) -> NDArray[np.float64]:
    """Margins (k,) of the first of ``ids`` (k, 2), NaN where there is none."""
    known = {pk: conversation(work, one) for pk, one in _by_id(ids).items()}
    asked = [(known.get(one), known.get(other)) for one, other in ids.tolist()]
    pairs = [(one[0], one[1], other[1]) for one, other in asked if one and other]
    return _filled([bool(one and other) for one, other in asked],
                   _reply(work, model, "pair-margins", {"pairs": pairs}))  # fmt: skip


def _by_id(ids: Codes) -> dict[int, Subject]:
    found = subjects(np.unique(ids).tolist(), is_read=False)
    return {one.id: one for one in found}


def _ask(work: runs.Work, model: RewardModel, chunk: list[Subject], *, way: Way) -> Scored:
    """Scores (m,), NaN where there is none."""
    given = [conversation(work, one) for one in chunk]
    asked = [one for one in given if one is not None]
    told = ensembles.ask(model, asked, way=way, check=work.check)
    is_known = [one is not None for one in given]
    variance = None if told.variance is None else _filled(is_known, told.variance)
    return Scored(_filled(is_known, told.scores), variance)


def by_ways(
    work: runs.Work, model: RewardModel, ids: Codes, ways: Sequence[Way]
) -> list[NDArray[np.float64]]:
    """Scores (m,) of responses (m,) made of an ensemble's members in each of some ways, NaN where
    there is none. They are kept nowhere: of members only the variance is stored."""
    found = [np.full(len(ids), np.nan) for _ in ways]
    for start in range(0, len(ids), CHUNK):
        known = _by_id(ids[start : start + CHUNK])
        given = [(n, conversation(work, known[pk])) for n, pk in
                 enumerate(ids[start : start + CHUNK].tolist(), start=start) if pk in known]  # fmt: skip
        asked = [(n, one) for n, one in given if one is not None]
        table = ensembles.ask_members(model, [one for _, one in asked], check=work.check)
        for scores, way in zip(found, ways, strict=True):
            scores[[n for n, _ in asked]] = way.of(table)
        work.check()
    return found


def _reply(
    work: runs.Work, model: RewardModel, method: str, asked: dict[str, list[Any]]
) -> list[float | None]:
    if not any(asked.values()):
        return []
    request = {
        "method": method,
        "folder": str(training.artifact_folder(model)),
        "embeddings": str(training.embeddings_folder()),
        **asked,
    }
    scores: list[float | None] = gateway.score_in_child(request, check=work.check)["scores"]
    return scores


def _filled(
    is_known: list[bool], scores: Sequence[float | None] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scores where they are known, NaN elsewhere."""
    found = np.full(len(is_known), np.nan)
    found[is_known] = [np.nan if score is None else score for score in scores]
    return found


Conversation = tuple[list[dict[str, str]], Any]


def conversation(work: runs.Work, one: Subject) -> Conversation | None:
    """A stored prompt and answer as the process that scores takes them; None where the file of
    its picture is gone."""
    if not one.picture:
        return _clean(one.messages), _clean(one.answer)
    try:
        return _clean(one.messages), {"image": str(locate(one.picture, work.run.folder))}
    except FileNotFoundError:
        work.log(f"response {one.id} is left out: the file of its picture is gone")
        return None


def _clean(value: Any) -> Any:
    """Texts that any tokenizer takes."""
    if isinstance(value, str):
        return clean_text(value)
    return [turn | {"content": clean_text(str(turn["content"]))} for turn in value]
