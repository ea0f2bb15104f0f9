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
    "kind": Reason(
        "Not for this kind of task", "Choose another kind of task, or leave it to the file."
    ),
    "ranking": Reason("Not a ranking", "A place for each answer: 1 is best, equal ones are ties."),
    "rating": Reason("Not a rating", "A whole number, or a word that was given a number."),
    "rated-twice": Reason(
        "Judged twice", "An earlier row has this rater's answer on the same thing; it was kept."
    ),
    "no-item": Reason("No name", "The row does not say what was judged."),
    "no-rater": Reason("No rater", "The row does not say who judged."),
    "no-alternatives": Reason(
        "No turn has two replies", "Nothing to compare in this conversation."
    ),
    "chosen": Reason(
        "Which reply it went on with", "Give chosen, the place of that reply counted from 0."
    ),
    "image": Reason(
        "The image is not there", "Send it along, or let names stand in for missing images."
    ),
    "image-alone": Reason(
        "The images did not come along", "Send a zip with this file and its images in it."
    ),
    "image-remote": Reason(
        "An address on the net", "Images are not fetched. Send a zip that holds them."
    ),
    "image-outside": Reason(
        "A path that leads elsewhere", "Images lie beside the data file, or in folders there."
    ),
    "image-kind": Reason("Not an image", "PNG, JPEG, WebP and GIF are read, whatever their name."),
    "image-broken": Reason("A damaged image", "It could not be decoded. Send it again."),
    "image-large": Reason("The image is too large", "At most 30 MB and 40 million pixels."),
    "image-mask": Reason("The mask does not fit", "It must have the proportions of its source."),
    "ambiguous": Reason("Several tasks have this id", "It does not say which of them was judged."),
    "time": Reason("Not a time", "Write 2026-01-31T12:00:00Z, or seconds since 1970."),
}
