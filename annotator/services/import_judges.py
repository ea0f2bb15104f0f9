"""Verdicts of AI judges that came with a file: the judge, its answers, how each task ended.

Such a judge is a version 1 of kind "imported", named as in the file, and so is its rater. Its
votes are held: they are measured like any judge's and count nowhere until somebody names it. Both
orders of a verdict are kept as answers where the file has both; where it has one, it is taken to
have been shown as the file has it. A verdict that cannot be read is an outcome that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import psycopg

from annotator.errors import Invalid
from annotator.models import Judge
from annotator.services.import_copy import NULL, as_json, escaped

UNREADABLE: Final = "unreadable"  # a key of rubrics.llm.types.FAILURES
RANKS: Final = {1: "{1,2}", 0: "{1,1}", -1: "{2,1}"}
STRAIGHT: Final = "{0,1}"
EXCHANGED: Final = "{1,0}"
FIND: Final = """
    SELECT id, rater_id FROM annotator_judge
    WHERE project_id = %s AND name = %s AND kind = 'imported'
"""
ADD_RATER: Final = """
    INSERT INTO annotator_rater (project_id, kind, name, is_simulated, created_at, judged, skipped,
                                 claims_since_mark)
    VALUES (%s, 'judge', %s, %s, now(), 0, 0, 0)
    ON CONFLICT (project_id, kind, name) WHERE kind <> 'human' DO NOTHING RETURNING id
"""
ADD_JUDGE: Final = """
    INSERT INTO annotator_judge (project_id, rater_id, name, version, kind, model, template,
                                 template_hash, template_text, options, digest, is_simulated,
                                 created_at)
    VALUES (%s, %s, %s, 1, 'imported', '', '', '', '', '{}', %s, %s, now())
    ON CONFLICT (project_id, name, version) DO NOTHING RETURNING id
"""
ENDED: Final = """
    SELECT o.task_id, j.rater_id FROM annotator_judgeoutcome o
    JOIN annotator_judge j ON j.id = o.judge_id
    WHERE o.task_id = ANY(%s) AND j.project_id = %s AND j.kind = 'imported'
"""


@dataclass(slots=True)
class Ended:
    """How a task ended for a judge, in canonical order. ``answers``: (shown order, ranks)."""

    judge: int
    task: int
    judgment: int | None
    answers: Sequence[tuple[str, str | None]]
    is_consistent: bool | None = None
    detail: str = ""
    scores: dict[str, Any] | None = None


def of_pair(outcomes: Sequence[int | None], *, is_exchanged: bool) -> list[tuple[str, str | None]]:
    """The answers of a verdict on a pair; ``is_exchanged``: the file has its responses the
    other way round."""
    shown = (EXCHANGED, STRAIGHT) if is_exchanged else (STRAIGHT, EXCHANGED)
    sign = -1 if is_exchanged else 1
    return [
        (order, None if outcome is None else RANKS[sign * outcome])
        for order, outcome in zip(shown, outcomes, strict=False)
    ]


class JudgeDesk:
    """The judges of one import."""

    def __init__(
        self,
        *,
        project_id: int,
        run_id: int,
        cursor: psycopg.Cursor[Any],
        ids: Callable[[str, int], Sequence[int]],
        is_simulated: bool,
        now: str,
    ) -> None:
        self._known: dict[str, tuple[int, int]] = {}  # name -> (judge, rater)
        self._project, self._run, self._now = project_id, run_id, now
        self._cursor, self._ids, self._is_simulated = cursor, ids, is_simulated

    @property
    def names(self) -> list[str]:
        return list(self._known)

    def find(self, name: str) -> tuple[int, int]:
        """(judge, rater) of this name, made on first use, in this transaction."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._found(name) or self._made(name)
        return known

    def _found(self, name: str) -> tuple[int, int] | None:
        self._cursor.execute(FIND, [self._project, name])
        row = self._cursor.fetchone()
        return (row[0], row[1]) if row else None

    def _made(self, name: str) -> tuple[int, int]:
        rater = self._added(ADD_RATER, [self._project, name, self._is_simulated])
        digest = sha256(f"{Judge.IMPORTED}\0{name}".encode()).hexdigest()
        judge = rater and self._added(
            ADD_JUDGE, [self._project, rater, name, digest, self._is_simulated]
        )
        if rater is None or judge is None:
            raise Invalid(
                f"This project has a judge of its own called “{name}”.",
                advice="Give the one of the file another name.",
            )
        return judge, rater

    def _added(self, statement: str, values: list[Any]) -> int | None:
        self._cursor.execute(statement, values)
        row = self._cursor.fetchone()
        return row[0] if row else None

    def ended(self, tasks: list[int]) -> set[tuple[int, int]]:
        """(task, rater) that an imported judge has been asked about, in vain or not."""
        self._cursor.execute(ENDED, [tasks, self._project])
        return set(self._cursor.fetchall())

    def write(self, lines: dict[str, list[str]], ended: Sequence[Ended]) -> None:
        """Add outcomes and answers to the lines of a chunk."""
        answers = self._ids("judgeanswer", sum(len(one.answers) for one in ended))
        outcomes = self._ids("judgeoutcome", len(ended))
        at = 0
        for pk, one in zip(outcomes, ended, strict=True):
            error = UNREADABLE if one.judgment is None else ""
            consistent = NULL if one.is_consistent is None else "ft"[one.is_consistent]
            lines["judgeoutcome"].append(
                f"{pk}\t{one.judge}\t{one.task}\t{self._run}\t{one.judgment or NULL}\t{NULL}\t{NULL}"
                f"\t{consistent}\t{error}\t{escaped(one.detail)}\t{self._now}\n"
            )
            scores = as_json(one.scores) if one.scores else NULL
            for shown, ranks in one.answers:
                lines["judgeanswer"].append(
                    f"{answers[at]}\t{one.judge}\t{one.task}\t{self._run}\t{shown}\t0\t"
                    f"\t{ranks or NULL}\t{NULL}\t{scores}\t{'' if ranks else UNREADABLE}\t{NULL}\n"
                )
                at += 1
