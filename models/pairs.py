"""Preference pairs on disk: one JSON object per line, written by whoever prepares a training run.

    {"prompt": [{"role", "content"}, ...], "chosen": str | [messages], "rejected": ...,
     "p": 1.0, "weight": 1.0, "strength": 1, "prompt_id": 7, "pair_id": 41}

``p`` is the probability that ``chosen`` is the better one (0.5 is a tie), ``weight`` how much the
pair counts, ``strength`` 0..3 how clear the preference was. ``prompt_id`` groups pairs of one
prompt, which are not independent. ``chosen_ratings`` and ``rejected_ratings``, where there are any,
are numbers by attribute.

An answer can be a picture: ``{"image": "images/<digest>.webp"}``, a path inside the folder of the
file. It is named by its content, for a training is known by its pairs. Readers make it absolute.

Rankings of more than two answers lie beside them, for objectives that learn from whole lists:

    {"prompt": [...], "answers": [str | [messages], ...], "ranks": [1, 2, 2], "weight": 1.0,
     "prompt_id": 7, "pair_id": 41}

``ranks`` count from 1, the best; equal ranks are ties.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeGuard, TypeVar

import orjson

from models.errors import BadData
from models.workdir import ATTRIBUTES

Message = dict[str, str]
Picture = dict[str, str]  # {"image": path}: in a file relative to its folder, in memory absolute
Answer = str | list[Message] | Picture

SPLITS: Final = ("train", "validation", "test")
LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
LARGEST_ID: Final = 2**63 - 1
MOST_ANSWERS: Final = 100  # of one ranking
MOST_ATTRIBUTES: Final = 50
LONGEST_PATH: Final = 1000
Ratings = dict[str, float]


Row = TypeVar("Row")


class BadRow(ValueError):
    """A row that is not a pair. The message says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt and the probability ``p`` that the chosen one is better."""

    prompt: list[Message]
    chosen: Answer
    rejected: Answer
    p: float = 1.0
    weight: float = 1.0
    strength: int = 1
    prompt_id: int = 0
    pair_id: int = 0
    chosen_ratings: Ratings | None = None
    rejected_ratings: Ratings | None = None

    @property
    def answers(self) -> list[Answer]:
        return [self.chosen, self.rejected]

    @property
    def ranks(self) -> list[int]:
        return [1, 1] if self.p == 0.5 else [1, 2] if self.p > 0.5 else [2, 1]

    @property
    def ratings(self) -> list[Ratings | None]:
        return [self.chosen_ratings, self.rejected_ratings]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Several answers to one prompt in order: ``ranks`` (k,) from 1, the best."""

    prompt: list[Message]
    answers: list[Answer]
    ranks: list[int]
    weight: float = 1.0
    prompt_id: int = 0
    pair_id: int = 0

    strength = 1

    @property
    def p(self) -> float:
        """That the first is better than the second where there are two; 0.5 where all are tied."""
        if len(set(self.ranks)) == 1:
            return 0.5
        return float(len(self.ranks) > 2 or self.ranks[0] < self.ranks[1])

    @property
    def ratings(self) -> list[Ratings | None]:
        return [None] * len(self.answers)


def pairs_path(workdir: Path, split: str) -> Path:
    """Where the pairs of ``split`` lie in a training folder."""
    return workdir / f"pairs-{split}.jsonl"


def lists_path(workdir: Path, split: str) -> Path:
    """Where the rankings of ``split`` lie, if there are any."""
    return workdir / f"lists-{split}.jsonl"


def clean_text(text: str) -> str:
    """``text`` with lone surrogates, which no UTF-8 consumer accepts, replaced by U+FFFD."""
    return text if text.isascii() else LONE_SURROGATE.sub("\ufffd", text)


def is_picture(answer: Answer) -> TypeGuard[Picture]:
    """Whether an answer is a picture and no text."""
    return isinstance(answer, dict)


def require_texts(answers: Iterable[Answer]) -> None:
    """Raises BadData where an answer is a picture."""
    if any(map(is_picture, answers)):
        raise BadData(
            "Answers are pictures, and this backbone reads texts.",
            advice="Choose a backbone that reads pictures: pixels, or clip:<id>.",
        )


def picture_paths(answers: Iterable[Answer]) -> list[Path]:
    """Where the pictures of answers lie. Raises BadData where an answer is no picture."""
    found = []
    for answer in answers:
        if not is_picture(answer):
            raise BadData(
                "Answers are texts, and this backbone reads pictures.",
                advice="Choose a backbone that reads texts: hashing, frozen:<id> or hf:<id>.",
            )
        found.append(Path(answer["image"]))
    return found


def as_messages(answer: Answer) -> list[Message]:
    """A text answer as messages; a plain string is one message of the assistant."""
    if isinstance(answer, dict):
        raise BadData("An answer is a picture, and a text is needed.")
    return [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer


def answer_text(answer: Answer) -> str:
    """An answer as one string, messages joined by blank lines: what "longer" is measured on.

    Empty for a picture.
    """
    if isinstance(answer, dict):
        return ""
    if isinstance(answer, str):
        return answer
    return "\n\n".join(message["content"] for message in answer)


def parse_pair(row: Any) -> Pair:
    """A Pair from one decoded JSON object. Raises BadRow with what is wrong."""
    if not isinstance(row, dict):
        raise BadRow("a line must hold one JSON object")
    strength = _whole(row, "strength", default=1)
    if not 0 <= strength <= 3:
        raise BadRow(f"strength is {strength}, expected 0 to 3")
    return Pair(
        prompt=_messages(row.get("prompt"), "prompt"),
        chosen=_answer(row.get("chosen"), "chosen"),
        rejected=_answer(row.get("rejected"), "rejected"),
        p=_number(row, "p", low=0.0, high=1.0),
        weight=_number(row, "weight", low=0.0, high=1e9),
        strength=strength,
        prompt_id=_whole(row, "prompt_id", default=0),
        pair_id=_whole(row, "pair_id", default=0),
        chosen_ratings=_ratings(row, "chosen_ratings"),
        rejected_ratings=_ratings(row, "rejected_ratings"),
    )


def parse_ranked(row: Any) -> Ranked:
    """A Ranked from one decoded JSON object. Raises BadRow with what is wrong."""
    if not isinstance(row, dict):
        raise BadRow("a line must hold one JSON object")
    answers, ranks = row.get("answers"), row.get("ranks")
    if not isinstance(answers, list) or not 2 <= len(answers) <= MOST_ANSWERS:
        raise BadRow(f"answers must be a list of 2 to {MOST_ANSWERS}")
    if not isinstance(ranks, list) or len(ranks) != len(answers):
        raise BadRow("ranks must be as many as there are answers")
    if any(isinstance(one, bool) or not isinstance(one, int) or one < 1 for one in ranks):
        raise BadRow("ranks are whole numbers from 1")
    return Ranked(
        prompt=_messages(row.get("prompt"), "prompt"),
        answers=[_answer(one, "answers") for one in answers],
        ranks=[sorted(set(ranks)).index(one) + 1 for one in ranks],
        weight=_number(row, "weight", low=0.0, high=1e9),
        prompt_id=_whole(row, "prompt_id", default=0),
        pair_id=_whole(row, "pair_id", default=0),
    )


def read_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a file, one at a time. Raises BadData naming file, line and reason."""
    return _read(path, parse_pair)


def read_lists(path: Path) -> Iterator[Ranked]:
    """The rankings of a file, one at a time; none where there is no file. Raises BadData."""
    return _read(path, parse_ranked) if path.exists() else iter(())


def _read(path: Path, parse: Callable[[Any], Row]) -> Iterator[Row]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise BadData(f"{path.name} is missing.", advice="Prepare the pairs again.") from None
    with file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            try:
                yield _located(parse(_decode(line)), path.parent)
            except (ValueError, RecursionError) as error:
                raise BadData(
                    f"{path.name}, line {number}: {error}.", advice="Prepare the pairs again."
                ) from error


def write_pairs(path: Path, pairs: Iterable[Pair] | Iterable[Ranked]) -> int:
    """Write pairs or rankings to ``path``, whole or not at all, and return how many."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    count = 0
    try:
        with partial.open("wb") as file:
            for pair in pairs:
                file.write(_encode(pair) + b"\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def data_sha256(workdir: Path) -> str:
    """One SHA-256 over the data of a training folder: pairs, in the order of SPLITS, rankings,
    and the names of the attributes, which say what each output means."""
    digest = hashlib.sha256()
    pairs = [pairs_path(workdir, split) for split in SPLITS]
    lists = [path for split in SPLITS if (path := lists_path(workdir, split)).exists()]
    attributes = [path for path in [workdir / ATTRIBUTES] if path.exists()]
    for path in (*pairs, *lists, *attributes):
        if not path.exists():
            raise BadData(f"{path.name} is missing.", advice="Prepare the pairs again.")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _decode(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:  # stricter than JSON as found: lone surrogates, for one
        return json.loads(line)


def _encode(row: Pair | Ranked) -> bytes:
    try:
        return orjson.dumps(row)
    except TypeError:  # a lone surrogate somewhere
        values = {name: getattr(row, name) for name in row.__dataclass_fields__}
        return orjson.dumps(parse_pair(values) if isinstance(row, Pair) else parse_ranked(values))


def _messages(value: Any, name: str) -> list[Message]:
    if not isinstance(value, list):
        raise BadRow(f"{name} must be a list of messages")
    return [_message(message, name) for message in value]


def _message(message: Any, name: str) -> Message:
    match message:
        case {"role": str(role), "content": str(content)}:
            return {"role": clean_text(role), "content": clean_text(content)}
    raise BadRow(f"every message of {name} needs a role and a content, both text")


def _located(row: Row, folder: Path) -> Row:
    """A row whose pictures are paths that can be opened, in ``folder`` and nowhere else."""
    if isinstance(row, Pair):
        if is_picture(row.chosen) or is_picture(row.rejected):
            return replace(
                row, chosen=_placed(row.chosen, folder), rejected=_placed(row.rejected, folder)
            )
    elif isinstance(row, Ranked) and any(map(is_picture, row.answers)):
        return replace(row, answers=[_placed(answer, folder) for answer in row.answers])
    return row


def _placed(answer: Answer, folder: Path) -> Answer:
    return {"image": str(folder / answer["image"])} if is_picture(answer) else answer


def _answer(value: Any, name: str) -> Answer:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return _picture(value, name)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{name} must be text or a list of messages")
    return _messages(value, name)


def _picture(value: dict[Any, Any], name: str) -> Picture:
    """A reference to a file beside or below the pairs: a name, never a way out."""
    match value:
        case {"image": str(path)} if len(value) == 1:
            way = PurePosixPath(path)
            if (
                path
                and len(path) <= LONGEST_PATH
                and clean_text(path) == path
                and "\0" not in path
                and not way.is_absolute()
                and ".." not in way.parts
            ):
                return {"image": path}
            raise BadRow(f"the image of {name} must be a path inside the folder of the pairs")
    raise BadRow(f"{name} must be text, a list of messages or one image")


def _ratings(row: dict[str, Any], name: str) -> Ratings | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > MOST_ATTRIBUTES:
        raise BadRow(f"{name} must be numbers by attribute, {MOST_ATTRIBUTES} at most")
    for key in value:
        _number(value, key, low=-1e6, high=1e6)
    return {clean_text(str(key)): float(one) for key, one in value.items()}


def _number(row: dict[str, Any], name: str, *, low: float, high: float) -> float:
    value = row.get(name, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRow(f"{name} must be a number")
    if not low <= value <= high:
        raise BadRow(f"{name} is {value}, expected {low:g} to {high:g}")
    return float(value)


def _whole(row: dict[str, Any], name: str, *, default: int) -> int:
    value = row.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST_ID:
        raise BadRow(f"{name} must be a whole number")
    return value
