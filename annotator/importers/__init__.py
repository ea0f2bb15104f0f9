"""Reading other people's files: streaming readers and a table of named row formats.

Nothing here knows the database. ``opening.open_source`` turns a path into numbered rows,
``detection.detect`` names the format from the first of them, and the format's ``prepare`` turns
each row into a canonical ``types.Row`` or raises ``types.BadRow`` with a reason.
"""

from __future__ import annotations

from typing import Final

from rubrics.registry import Method

IMPORTERS: Final[dict[str, Method]] = {
    "hh-rlhf": Method(
        path="annotator.importers.preferences:prepare_hh",
        label="HH-RLHF transcripts",
        summary="chosen and rejected, each a whole “Human: … Assistant: …” conversation",
        options="annotator.importers.types:Options",
    ),
    "trl-preference": Method(
        path="annotator.importers.preferences:prepare_trl",
        label="TRL preference",
        summary="prompt, chosen, rejected; or only chosen and rejected; strings or messages",
        options="annotator.importers.types:Options",
    ),
    "responses": Method(
        path="annotator.importers.responses:prepare",
        label="Prompt with a list of responses",
        summary="prompt or messages, and responses: any number of texts or objects",
        options="annotator.importers.types:Options",
    ),
    "table": Method(
        path="annotator.importers.table:prepare",
        label="Table with a column mapping",
        summary="one pair a row in any columns: PandaLM, LLMBar, or your own by a mapping",
        options="annotator.importers.types:Options",
    ),
}
