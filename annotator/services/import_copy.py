"""The tables an import fills, and how a field is written for COPY."""

from __future__ import annotations

from typing import Any, Final

import orjson

from annotator.importers.types import ImageRef

TABLES: Final = (
    "prompt",
    "response",
    "task",
    "judgment",
    "preference",
    "judgeanswer",
    "judgeoutcome",
)
COPIES: Final = {
    "prompt": "id, project_id, content_hash, messages, split, external_id, tags, extra,"
    " import_run_id, created_at, source_image_id, mask_image_id, thread, turn",
    "response": "id, project_id, prompt_id, content_hash, text, messages, generator, sampling,"
    " extra, import_run_id, created_at, image_id, leak",
    "task": "id, project_id, prompt_id, kind, response_ids, content_hash, overlap, free, position,"
    " import_run_id, created_at, judged, priority, is_gold, gold, external_id",
    "judgment": "id, project_id, task_id, rater_id, ranks, strength, both_bad, rationale,"
    " submitted_at, import_run_id, kind, revision, is_current, is_counted, reasons, ratings",
    "preference": "id, project_id, judgment_id, task_id, prompt_id, rater_id, a_id, b_id, outcome,"
    " strength, both_bad, is_gold, is_held",
    "judgeanswer": "id, judge_id, task_id, run_id, shown_order, repeat, model, ranks, probability,"
    " scores, error, call_key",
    "judgeoutcome": "id, judge_id, task_id, run_id, judgment_id, confidence, probability,"
    " is_consistent, error, detail, at",
}
EMPTY: Final = "{}"
NULL: Final = "\\N"


def escaped(text: str) -> str:
    """A text field as COPY's text format wants it."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\n" in text:
        text = text.replace("\n", "\\n")
    if "\t" in text:
        text = text.replace("\t", "\\t")
    if "\r" in text:
        text = text.replace("\r", "\\r")
    return text


def as_json(value: Any) -> str:
    # default=str: a Parquet file hands out dates and decimals in columns that no field claims.
    return escaped(orjson.dumps(value, default=str).decode())


def image_id(image: ImageRef | None) -> str:
    return NULL if image is None else str(image.image_id)
