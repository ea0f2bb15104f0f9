"""Rows of a rubric: a criterion, an answer, whether it is met, and who says so."""

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
from annotator.exporters.reward_columns import find_version
from annotator.models import Project
from annotator.queries.datasets import pseudonym
from annotator.queries.pairs import rater_ids

_cursors = count(1)

COLUMN_NOTES: Final = {
    "verdict_id": "the verdict in Touchstone",
    "project": "the project's short name",
    "rubric": "name of the rubric",
    "version": "number of its version",
    "criterion_id": "the criterion in Touchstone",
    "criterion": "what is asked of an answer",
    "polarity": "1: a yes speaks for the answer; -1: against it",
    "weight": "what a yes is worth, signed; empty where none was fitted",
    "split": "train, validation or test; never on two sides for one prompt",
    "prompt_id": "the prompt in Touchstone",
    "prompt": "the messages before the answer; in CSV the last one's text",
    "response_id": "the response in Touchstone",
    "answer": "the text of the response",
    "image": "the stored file where the response is a picture",
    "verdict": "1 yes, 0 no; empty: does not apply",
    "probability": "of a yes, where one was given",
    "verified_by": "person, llm, program or reward-model",
    "rater": "name of the rater; empty where the recipe leaves names out, and of programs",
    "rater_id": "a pseudonym, the same in every version; empty of programs and reward models",
    "rater_kind": "human, judge or imported",
    "at": "when it was given",
}
VERDICTS: Final = """
    SELECT d.id, b.name, v.number, c.id, c.text, c.polarity, c.weight, p.split, p.id,
           {prompt}, s.id, s.text, i.file, d.value, d.probability,
           CASE WHEN r.id IS NULL THEN c.verifier WHEN r.kind = 'judge' THEN 'llm'
                ELSE 'person' END,
           r.name, r.id, r.kind, r.is_simulated, d.at, s.leak
    FROM annotator_criterionverdict d
    JOIN annotator_criterion c ON c.id = d.criterion_id
    JOIN annotator_rubricversion v ON v.id = c.version_id
    JOIN annotator_rubric b ON b.id = v.rubric_id
    JOIN annotator_response s ON s.id = d.response_id
    JOIN annotator_prompt p ON p.id = s.prompt_id
    LEFT JOIN annotator_rater r ON r.id = d.rater_id
    LEFT JOIN annotator_image i ON i.id = s.image_id
    WHERE b.project_id = %(project)s AND p.split = ANY(%(splits)s)
      AND (%(version)s::bigint IS NULL OR v.id = %(version)s)
      AND (%(all_criteria)s OR c.decision = 'accepted')
      AND (%(all_raters)s OR d.rater_id = ANY(%(raters)s))
      AND (r.id IS NULL OR NOT r.is_excluded)
    ORDER BY p.id, s.id, c.id, d.id
"""


class Options(RawOptions):
    """What a ``rubric-rows`` export can be told."""

    version: str = Field(
        "",
        max_length=120,
        title="Version of a rubric",
        description="An approved version, NAME:vN. Empty: every version.",
    )
    criteria: Literal["accepted", "all"] = Field(
        "accepted", title="Criteria", description="all: also those proposed or rejected."
    )


class RubricRows(RawFormat):
    """Writes verdicts on criteria."""

    noun = "verdicts"

    @property
    def columns(self) -> dict[str, str]:
        return {
            "verdict_id": "int", "project": "text", "rubric": "text", "version": "int",
            "criterion_id": "int", "criterion": "text", "polarity": "int", "weight": "float",
            "split": "text", "prompt_id": "int",
            "prompt": "text" if self._is_flat else "messages",
            "response_id": "int", "answer": "text", "image": "text", "verdict": "int",
            "probability": "float", "verified_by": "text", "rater": "text", "rater_id": "text",
            "rater_kind": "text", "at": "text",
        }  # fmt: skip

    @property
    def column_notes(self) -> dict[str, str]:
        return COLUMN_NOTES

    @property
    def _is_flat(self) -> bool:
        return bool(self.options.container == "csv")

    def chunks(self, project: Project, connection: psycopg.Connection) -> Iterator[Chunk]:
        selection, named = self.options.selection(), self.options.version
        raters = rater_ids(project, selection, connection=connection)
        values = {
            "project": project.pk,
            "splits": list(selection.splits),
            "version": find_version(project, named).pk if named else None,
            "all_criteria": self.options.criteria == "all",
            # Programs and reward models are nobody: they are left out where somebody is named.
            "all_raters": raters is None or selection.raters == "all",
            "raters": raters or [],
        }
        prompt = "p.messages->-1->>'content'" if self._is_flat else "p.messages::text"
        last_prompt = -1
        with psycopg.ServerCursor(connection, f"verdicts_{next(_cursors)}") as cursor:
            cursor.execute(VERDICTS.format(prompt=prompt), values)
            while records := cursor.fetchmany(CHUNK):
                found: Chunk = {}
                for record in records:
                    number, rows = found.get(record[7], (0, []))
                    rows.append(self._row(project, record))
                    found[record[7]] = (number + 1, rows)
                    self.health.prompts += record[8] != last_prompt
                    last_prompt = record[8]
                    self.health.count_kind(record[15])
                    if record[17] is not None:
                        self.health.count_rater(record[17], record[18], record[19])
                    self.health.leaked += bool(record[21])
                yield found

    def _row(self, project: Project, record: TupleRow) -> Row:
        (
            pk, rubric, version, criterion_id, criterion, polarity, weight, split, prompt_id,
            prompt, response_id, answer, image, value, probability, verified_by, name, rater,
            rater_kind, _, at, _,
        ) = record  # fmt: skip
        return {
            "verdict_id": pk, "project": project.slug, "rubric": rubric, "version": version,
            "criterion_id": criterion_id, "criterion": criterion, "polarity": polarity,
            "weight": weight, "split": split, "prompt_id": prompt_id,
            "prompt": (prompt or "") if self._is_flat else _messages(prompt),
            "response_id": response_id, "answer": answer, "image": image or "", "verdict": value,
            "probability": probability, "verified_by": verified_by,
            "rater": self.called(name or ""), "rater_id": pseudonym(rater) if rater else "",
            "rater_kind": rater_kind or "", "at": at.isoformat(),
        }  # fmt: skip

    def notes(self) -> list[str]:
        return [
            (
                "One row per verdict on a criterion, whoever gave it: a verifier that answers"
                " `criterion` of `prompt` and `answer` with `verdict` can be trained on them."
            )
        ]


def _messages(source: str) -> list[dict[str, Any]]:
    found = orjson.loads(source)
    return [{"role": one["role"], "content": one["content"]} for one in found]
