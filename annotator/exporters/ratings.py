"""Raw ratings: one row per judgment, response and attribute or criterion."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final

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
    "judgment_id": "int", "project": "text", "task_id": "int", "kind": "text", "rubric": "text",
    "split": "text", "prompt_id": "int", "external_id": "text", "response_id": "int",
    "generator": "text", "attribute": "text", "value": "int", "rater": "text", "rater_id": "text",
    "rater_kind": "text", "is_simulated": "bool", "source": "text", "is_counted": "bool",
    "is_gold": "bool", "is_hit": "bool", "submitted_at": "text", "active_ms": "int",
}  # fmt: skip
TEXTS: Final = {"prompt": "text", "response": "text"}
COLUMN_NOTES: Final = {
    "judgment_id": "the judgment in Touchstone; its rows were given together",
    "project": "the project's short name",
    "task_id": "the task; its judgments are on the same responses",
    "kind": "kind of task: rating or checklist",
    "rubric": "rubric and version whose criteria were asked; empty: the project's own list",
    "split": "train, validation or test; never on two sides for one prompt",
    "prompt_id": "the prompt in Touchstone",
    "external_id": "the name it was imported under",
    "response_id": "the response in Touchstone",
    "generator": "what wrote it",
    "attribute": "the attribute or criterion",
    "value": "the rating; of a criterion 1 yes, 0 no; empty: not given, or does not apply",
    "rater": "name of the rater; empty where the recipe leaves names out",
    "rater_id": "a pseudonym, the same in every version",
    "rater_kind": "human, judge or imported",
    "is_simulated": "given by a simulated rater",
    "source": "vote, imported or adjudication",
    "is_counted": "false for one more than the task had places for, and for every judge's",
    "is_gold": "a control question",
    "is_hit": "whether it was answered right; empty on ordinary tasks",
    "submitted_at": "when it was given",
    "active_ms": "milliseconds of work on the whole judgment, hidden tabs excluded",
    "prompt": "the last message before the responses",
    "response": "the text of the response",
}
RATED: Final = """
    SELECT j.id, j.task_id, t.kind, p.split, p.id, p.external_id, t.response_ids,
           j.ratings::text, r.name, r.id, r.kind, r.is_simulated, j.kind, j.is_counted, t.is_gold,
           j.is_hit, j.submitted_at, j.active_ms,
           coalesce((SELECT b.name || ' v' || v.number FROM annotator_rubricversion v
                     JOIN annotator_rubric b ON b.id = v.rubric_id
                     WHERE v.id = t.rubric_version_id), ''),
           CASE WHEN %(texts)s THEN coalesce(p.messages->-1->>'content', '') END
    FROM annotator_judgment j
    JOIN annotator_task t ON t.id = j.task_id
    JOIN annotator_prompt p ON p.id = t.prompt_id
    JOIN annotator_rater r ON r.id = j.rater_id
    WHERE j.project_id = %(project)s AND p.split = ANY(%(splits)s) AND j.is_current
      AND j.ratings IS NOT NULL AND jsonb_typeof(j.ratings) = 'object'
      AND (%(all_raters)s OR j.rater_id = ANY(%(raters)s))
    ORDER BY j.task_id, j.rater_id
"""
RESPONSES: Final = """
    SELECT id, generator, CASE WHEN %s THEN text END, leak FROM annotator_response
    WHERE id = ANY(%s)
"""


class Options(RawOptions):
    """What a ``ratings`` export can be told."""

    texts: bool = Field(
        False, title="Texts", description="Prompt and response in every row, instead of ids alone."
    )


class Ratings(RawFormat):
    """Writes ratings."""

    noun = "judgments"

    @property
    def columns(self) -> dict[str, str]:
        return COLUMNS | (TEXTS if self.options.texts else {})

    @property
    def column_notes(self) -> dict[str, str]:
        return COLUMN_NOTES

    def chunks(self, project: Project, connection: psycopg.Connection) -> Iterator[Chunk]:
        selection = self.options.selection()
        raters = rater_ids(project, selection, connection=connection)
        values = {
            "project": project.pk,
            "splits": list(selection.splits),
            "all_raters": raters is None,
            "raters": raters or [],
            "texts": self.options.texts,
        }
        last_prompt = -1
        with psycopg.ServerCursor(connection, f"ratings_{next(_cursors)}") as cursor:
            cursor.execute(RATED, values)
            while records := cursor.fetchmany(CHUNK):
                texts = self._responses(connection, records)
                found: Chunk = {}
                for record in records:
                    number, rows = found.get(record[3], (0, []))
                    found[record[3]] = (number + 1, rows + self._rows(project, record, texts))
                    self.health.prompts += record[4] != last_prompt
                    last_prompt = record[4]
                    self.health.count_kind(record[2])
                    self.health.count_rater(record[9], record[10], record[11])
                    self.health.leaked += any(texts[pk][2] for pk in record[6])
                yield found

    def _responses(
        self, connection: psycopg.Connection, records: list[TupleRow]
    ) -> dict[int, TupleRow]:
        wanted = {pk for record in records for pk in record[6]}
        with psycopg.Cursor(connection) as cursor:
            cursor.execute(RESPONSES, [self.options.texts, list(wanted)])
            return {row[0]: row[1:] for row in cursor.fetchall()}

    def _rows(self, project: Project, record: TupleRow, texts: dict[int, TupleRow]) -> list[Row]:
        (
            pk, task, kind, split, prompt, external_id, response_ids, ratings, name, rater,
            rater_kind, is_simulated, source, is_counted, is_gold, is_hit, submitted_at,
            active_ms, rubric, prompt_text,
        ) = record  # fmt: skip
        rows = []
        for attribute, values in sorted(orjson.loads(ratings).items()):
            for response, value in zip(response_ids, values, strict=False):
                generator, text, _ = texts[response]
                row: Row = {
                    "judgment_id": pk, "project": project.slug, "task_id": task, "kind": kind,
                    "rubric": rubric, "split": split, "prompt_id": prompt,
                    "external_id": external_id, "response_id": response, "generator": generator,
                    "attribute": attribute, "value": value, "rater": self.called(name),
                    "rater_id": pseudonym(rater), "rater_kind": rater_kind,
                    "is_simulated": is_simulated, "source": source, "is_counted": is_counted,
                    "is_gold": is_gold, "is_hit": is_hit,
                    "submitted_at": submitted_at.isoformat(), "active_ms": active_ms,
                }  # fmt: skip
                if self.options.texts:
                    row |= {"prompt": prompt_text, "response": text}
                rows.append(row)
        return rows

    def notes(self) -> list[str]:
        return [
            (
                "One row per judgment, response and attribute: nothing is averaged. For agreement and"
                " models of raters read `rater_id`, `response_id`, `attribute`, `value`."
            )
        ]
