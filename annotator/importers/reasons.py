"""Why a row was not taken: stable codes, and the sentences people read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Reason:
    title: str
    advice: str


REASONS: Final[dict[str, Reason]] = {
    "identical": Reason(
        "The two answers are identical",
        "Nothing to compare. Leave the line out, or send another answer.",
    ),
    "empty-answer": Reason(
        "An answer is empty",
        "Empty after trimming spaces, and nobody has judged it.",
    ),
    "empty-prompt": Reason("The prompt is empty", "Empty after trimming spaces."),
    "turns": Reason(
        "Turns do not alternate",
        "Messages must go user, assistant, user; the last must be from the user.",
    ),
    "role": Reason("Unknown role", "A message is by system, user, assistant or tool."),
    "no-common-prompt": Reason(
        "The two conversations have no beginning in common",
        "chosen and rejected must start with the same turns and end with an answer each.",
    ),
    "winner": Reason("Unknown winner", "The label must name an answer or a tie, or be left out."),
    "no-responses": Reason("No answers", "The list of answers is empty."),
    "too-many-responses": Reason("Too many answers", "Split the row: at most 64 a prompt."),
    "missing": Reason("A field is missing", "The row lacks a column that is read."),
    "not-json": Reason("Not JSON", "The line could not be read."),
    "not-an-object": Reason("Not a row", "Each line must be one JSON object."),
    "nested": Reason("Nested too deeply", "JSON deeper than 250 levels is not kept."),
    "fields": Reason(
        "Another number of fields than the header",
        "A separator or a quotation mark is missing or too many.",
    ),
    "encoding": Reason("Not UTF-8", "Save the file as UTF-8 and send it again."),
    "nul": Reason("A NUL character", "PostgreSQL cannot store U+0000. Remove it."),
    "too-long": Reason("Too long", "An answer or message is over the limit."),
    "line-too-long": Reason("The line is too long", "Over 16 MB in one row."),
    "unsupported": Reason(
        "Not text", "Only text can be read here: no images, calls or nested lists."
    ),
    "name-too-long": Reason(
        "A name is too long", "Raters and generators have up to 120 characters, ids 200."
    ),
    "duplicate-id": Reason(
        "The id is taken", "An earlier row of this file has the same id and another prompt."
    ),
    "time": Reason("Not a time", "Write 2026-01-31T12:00:00Z, or seconds since 1970."),
}
