"""Some rows on their way into the tables, with the ids they get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from annotator.importers import transcripts
from annotator.importers.types import ImageRef, Reply, Row
from annotator.services import hashing
from annotator.services.import_copy import TABLES

# A row and the places of the replies of each of its tasks.
Checked = tuple[Row, list[tuple[int, ...]]]


@dataclass
class Counts:
    """What one import added and what it found there already."""

    prompts: int = 0
    responses: int = 0
    tasks: int = 0
    judgments: int = 0
    skipped_duplicates: int = 0
    rows_known: int = 0  # rows of the file that added nothing
    golds: int = 0  # tasks that got a known answer
    splits: Counter[str] = field(default_factory=Counter)
    raters: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)  # verdicts of judges, by rater
    kinds: Counter[str] = field(default_factory=Counter)  # new tasks by kind
    # attribute -> (kind, lowest, highest) as imported judgments rated it
    rated: dict[str, tuple[str, int, int]] = field(default_factory=dict)


class Chunk:
    """Rows with their hashes; references to tasks that are there already stand apart."""

    def __init__(self, checked: Sequence[Checked]) -> None:
        self.rows = [one for one in checked if one[0].onto is None]
        self.onto = [row for row, _ in checked if row.onto is not None]
        self.prompt_hashes: list[bytes] = []
        self.reply_hashes: list[list[bytes]] = []
        for row, _tasks in self.rows:
            raw = (row.extra or {}).get(transcripts.RAW, "") if row.as_is else ""
            if row.source is not None:
                raw = _digests(row.source, row.mask)
            self.prompt_hashes.append(hashing.of_prompt(row.messages, raw))
            self.reply_hashes.append(
                _told_apart([_reply_hash(reply, row) for reply in row.replies], row)
            )
        self.has_labels = bool(self.onto) or any(
            row.votes or row.verdicts for row, _tasks in self.rows
        )
        self.has_judges = self.has_labels and any(
            one.is_judge for row, _ in checked for one in (*row.votes, *row.verdicts)
        )
        self.has_golds = any(row.gold is not None for row, _tasks in self.rows)
        self.prompt_ids: dict[bytes, int] = {}
        self.old_prompts: set[int] = set()
        self.response_ids: dict[tuple[int, bytes], int] = {}
        self.task_hashes: dict[tuple[int, tuple[int, ...]], bytes] = {}
        self.tasks: dict[bytes, tuple[int, list[int]]] = {}  # hash -> (id, its responses)
        self.old_tasks: list[int] = [row.onto.id for row in self.onto if row.onto]
        self.golds: list[tuple[int, str]] = []  # (task that is there, gold as JSON)
        self.rows_that_add: set[int] = set()
        self.lines_that_add = 0  # of references
        self.lines: dict[str, list[str]] = {table: [] for table in TABLES}

    def ids_of(self, at: int, places: Sequence[int]) -> list[int]:
        """The responses at some places of a row, in the row's order."""
        prompt, hashes = self.prompt_ids[self.prompt_hashes[at]], self.reply_hashes[at]
        return [self.response_ids[(prompt, hashes[place])] for place in places]

    def rows_known(self) -> int:
        """Rows of the file that added nothing, once everything is placed."""
        own = sum(
            row.lines for at, (row, _) in enumerate(self.rows) if at not in self.rows_that_add
        )
        return own + len(self.onto) - self.lines_that_add


def _reply_hash(reply: Reply, row: Row) -> bytes:
    raw = (reply.extra or {}).get(transcripts.RAW, "") if row.as_is else ""
    if reply.image is not None:
        raw = _digests(reply.image)
    return hashing.of_response(reply.text, reply.generator, raw)


def _told_apart(hashes: list[bytes], row: Row) -> list[bytes]:
    """Equal images of one row are responses of their own: the second is hashed as such."""
    if len(set(hashes)) == len(hashes) or not any(reply.image for reply in row.replies):
        return hashes
    seen: Counter[bytes] = Counter()
    result = []
    for key in hashes:
        result.append(hashing.digest(key, b"%d" % seen[key]) if seen[key] else key)
        seen[key] += 1
    return result


def _digests(*images: ImageRef | None) -> str:
    return " ".join(image.digest.hex() for image in images if image is not None)
