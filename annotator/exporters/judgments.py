"""Every judgment as it was given: verdicts in canonical order, with who, when and on what.

Nothing is added up and nobody is outvoted: one row per judgment in force, or per revision. This
is the form to keep, to move to another tool, or to compute one's own statistics from.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, Final, Literal

import orjson
import psycopg
from psycopg.rows import TupleRow
from pydantic import Field

from annotator.exporters.files import Row
from annotator.exporters.raw_format import CHUNK, Chunk, RawFormat, RawOptions
from annotator.models import Project
from annotator.queries.datasets import pseudonym
from annotator.queries.pairs import rater_ids

_cursors = count(1)

COLUMNS: Final = {
    "judgment_id": "int",
    "project": "text",
    "task_id": "int",
    "kind": "text",
    "rubric": "text",
    "split": "text",
    "prompt_id": "int",
    "external_id": "text",
    "thread": "text",
    "turn": "int",
    "prompt": "messages",
    "responses": "responses",
    "ranks": "ints",
    "strength": "int",
    "both_bad": "bool",
    "ratings": "json",
    "reasons": "texts",
    "rationale": "text",
    "rater": "text",
    "rater_id": "text",
    "rater_kind": "text",
    "is_simulated": "bool",
    "source": "text",
    "revision": "int",
    "is_current": "bool",
    "is_counted": "bool",
    "is_held": "bool",
    "is_adjudication": "bool",
    "is_settled": "bool",
    "is_gold": "bool",
    "is_hit": "bool",
    "gold": "json",
    "shown_order": "ints",
    "first_paint_at": "text",
    "submitted_at": "text",
    "active_ms": "int",
}
COLUMN_NOTES: Final = {
    "judgment_id": "the judgment in Touchstone",
    "project": "the project's short name",
    "task_id": "the task; judgments of one task are on the same responses in the same order",
    "kind": "kind of task: pairwise, ranking, rating, best-worst or checklist",
    "rubric": "rubric and version whose criteria the checklist asked; empty: the project's own list",
    "split": "train, validation or test; never on two sides for one prompt",
    "prompt_id": "the prompt in Touchstone",
    "external_id": "the name it was imported under",
    "thread": "shared by the turns of one conversation",
    "turn": "which reply of the conversation it is, from 1; 0 outside of one",
    "prompt": "the messages before the responses",
    "responses": "in canonical order: id, text, generator, image, leak (the model it names)",
    "ranks": "place of each response, 1 the best, equal for ties, 0 not ranked",
    "strength": "0 for a tie, else 1 to 3",
    "both_bad": "none of the responses is acceptable",
    "ratings": "attribute or criterion -> value of each response; JSON text in Parquet",
    "reasons": "reasons ticked",
    "rationale": "why, in the rater's words",
    "rater": "name of the rater; empty where the recipe leaves names out",
    "rater_id": "a pseudonym, the same in every version",
    "rater_kind": "human, judge or imported",
    "is_simulated": "given by a simulated rater",
    "source": "vote, imported, adjudication or withdrawal",
    "revision": "counts this rater's judgments of the task from 1",
    "is_current": "in force",
    "is_counted": "false for one more than the task had places for, and for every judge's",
    "is_held": "an AI judge's, not accepted in place of people's: it counts nowhere",
    "is_adjudication": "a reviewer's decision, which wins over the votes",
    "is_settled": "the task has such a decision",
    "is_gold": "a control question",
    "is_hit": "whether it was answered right; empty on ordinary tasks",
    "gold": "the known answer of the task, if there is one; JSON text in Parquet",
    "shown_order": "shown_order[slot] is the place, from 0, of the response shown there",
    "first_paint_at": "when it was first on the screen",
    "submitted_at": "when it was given",
    "active_ms": "milliseconds of work, hidden tabs excluded",
}
JUDGMENTS: Final = """
    SELECT j.id, j.task_id, t.kind, p.split, p.id, p.external_id, p.thread, p.turn,
           p.messages::text, t.response_ids, j.ranks, j.strength, j.both_bad, j.ratings::text,
           j.reasons, j.rationale, r.name, r.id, r.kind, r.is_simulated, j.kind, j.revision,
           j.is_current, j.is_counted, r.kind = 'judge' AND NOT EXISTS (
               SELECT FROM annotator_preference v WHERE v.judgment_id = j.id AND NOT v.is_held),
           t.is_settled, t.is_gold, j.is_hit, t.gold::text,
           j.shown_order, j.first_paint_at, j.submitted_at, j.active_ms,
           coalesce((SELECT b.name || ' v' || v.number FROM annotator_rubricversion v
                     JOIN annotator_rubric b ON b.id = v.rubric_id
                     WHERE v.id = t.rubric_version_id), '')
    FROM annotator_judgment j
    JOIN annotator_task t ON t.id = j.task_id
    JOIN annotator_prompt p ON p.id = t.prompt_id
    JOIN annotator_rater r ON r.id = j.rater_id
    WHERE j.project_id = %(project)s AND p.split = ANY(%(splits)s)
      AND (%(everything)s OR j.is_current)
      AND (%(all_raters)s OR j.rater_id = ANY(%(raters)s))
    ORDER BY j.task_id, j.rater_id, j.revision
"""
RESPONSES: Final = """
    SELECT r.id, r.text, r.generator, i.file, r.leak FROM annotator_response r
    LEFT JOIN annotator_image i ON i.id = r.image_id WHERE r.id = ANY(%s)
"""


class Options(RawOptions):
    """What a ``judgments`` export can be told."""

    container: Literal["jsonl", "jsonl.gz", "parquet"] = Field("jsonl", title="File type")
    revisions: Literal["current", "all"] = Field(
        "current",
        title="Revisions",
        description="all: also what was edited, undone or withdrawn since.",
    )


class Judgments(RawFormat):
    """Writes judgments."""

    noun = "judgments"

    @property
    def columns(self) -> dict[str, str]:
        return COLUMNS

    @property
    def column_notes(self) -> dict[str, str]:
        return COLUMN_NOTES

    def chunks(self, project: Project, connection: psycopg.Connection) -> Iterator[Chunk]:
        last_prompt = -1
        for records in self._records(project, connection):
            texts = _responses(connection, records)
            found: Chunk = {}
            for record in records:
                row = self._row(project, record, texts)
                count, rows = found.get(row["split"], (0, []))
                rows.append(row)
                found[row["split"]] = (count + 1, rows)
                self.health.prompts += row["prompt_id"] != last_prompt
                last_prompt = row["prompt_id"]
                self.health.count_kind(row["kind"])
                self.health.count_rater(record[17], record[18], record[19])
                self.health.leaked += any(one["leak"] for one in row["responses"])
            yield found

    def _records(
        self, project: Project, connection: psycopg.Connection
    ) -> Iterator[list[TupleRow]]:
        selection = self.options.selection()
        raters = rater_ids(project, selection, connection=connection)
        values = {
            "project": project.pk,
            "splits": list(selection.splits),
            "everything": self.options.revisions == "all",
            "all_raters": raters is None,
            "raters": raters or [],
        }
        with psycopg.ServerCursor(connection, f"judgments_{next(_cursors)}") as cursor:
            cursor.execute(JUDGMENTS, values)
            while chunk := cursor.fetchmany(CHUNK):
                yield chunk

    def _row(self, project: Project, record: TupleRow, texts: dict[int, Row]) -> Row:
        (
            pk, task, kind, split, prompt, external_id, thread, turn, messages, response_ids, ranks,
            strength, both_bad, ratings, reasons, rationale, name, rater, rater_kind, is_simulated,
            source, revision, is_current, is_counted, is_held, is_settled, is_gold, is_hit, gold,
            shown_order, first_paint_at, submitted_at, active_ms, rubric,
        ) = record  # fmt: skip
        return {
            "judgment_id": pk,
            "project": project.slug,
            "task_id": task,
            "kind": kind,
            "rubric": rubric,
            "split": split,
            "prompt_id": prompt,
            "external_id": external_id,
            "thread": thread,
            "turn": turn,
            "prompt": [
                {"role": turn["role"], "content": turn["content"]}
                for turn in orjson.loads(messages)
            ],
            "responses": [texts[one] for one in response_ids],
            "ranks": ranks,
            "strength": strength,
            "both_bad": both_bad,
            "ratings": _loaded(ratings),
            "reasons": reasons,
            "rationale": rationale,
            "rater": self.called(name),
            "rater_id": pseudonym(rater),
            "rater_kind": rater_kind,
            "is_simulated": is_simulated,
            "source": source,
            "revision": revision,
            "is_current": is_current,
            "is_counted": is_counted,
            "is_held": is_held,
            "is_adjudication": source == "adjudication",
            "is_settled": is_settled,
            "is_gold": is_gold,
            "is_hit": is_hit,
            "gold": _loaded(gold),
            "shown_order": shown_order,
            "first_paint_at": first_paint_at and first_paint_at.isoformat(),
            "submitted_at": submitted_at.isoformat(),
            "active_ms": active_ms,
        }

    def notes(self) -> list[str]:
        return ["One row per judgment: nothing is added up, and no vote is left out for a tie."]


def _loaded(value: str | None) -> Any:
    return None if value is None else orjson.loads(value)


def _responses(connection: psycopg.Connection, chunk: list[TupleRow]) -> dict[int, Row]:
    """The responses of a chunk's tasks by id, each once however many judged it."""
    wanted = {pk for record in chunk for pk in record[9]}
    with psycopg.Cursor(connection) as cursor:
        cursor.execute(RESPONSES, [list(wanted)])
        return {
            pk: {"id": pk, "text": text, "generator": generator, "image": image or "", "leak": leak}
            for pk, text, generator, image, leak in cursor.fetchall()
        }
