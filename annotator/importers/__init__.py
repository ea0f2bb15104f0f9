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
    "images": Method(
        path="annotator.importers.pictures:prepare",
        label="Prompts with images",
        summary="prompt and images, or image_a and image_b; source_image and mask for edits",
        options="annotator.importers.types:Options",
    ),
    "ranked": Method(
        path="annotator.importers.responses:prepare_ranked",
        label="Ranked list of responses",
        summary="prompt, generations or responses, and ranking: a place for each, ties allowed",
        options="annotator.importers.types:Options",
    ),
    "helpsteer": Method(
        path="annotator.importers.ratings:prepare_helpsteer",
        label="HelpSteer ratings",
        summary="prompt, response and one column of ratings per attribute",
        options="annotator.importers.types:Options",
    ),
    "ratings-long": Method(
        path="annotator.importers.ratings:prepare_long",
        label="Ratings, one a row",
        summary="item, rater and value, and an attribute where there are several",
        options="annotator.importers.types:Options",
    ),
    "votes-long": Method(
        path="annotator.importers.votes:prepare",
        label="Votes, one a row",
        summary="a pair’s id, a rater and the winner, for pairs that are here or yet to come",
        options="annotator.importers.types:Options",
    ),
    "conversations": Method(
        path="annotator.importers.conversations:prepare",
        label="Conversations with alternatives",
        summary="messages in which turns of the assistant hold several replies",
        options="annotator.importers.types:Options",
    ),
    "table": Method(
        path="annotator.importers.table:prepare",
        label="Table with a column mapping",
        summary="one pair a row in any columns: PandaLM, LLMBar, or your own by a mapping",
        options="annotator.importers.types:Options",
    ),
}
