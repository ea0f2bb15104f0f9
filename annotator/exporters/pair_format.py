r"""How prompts and answers are written: one style for a whole dataset.

One style, because trainers tell the format from the first row.

- conversational: a prompt is a list of messages, an answer a list of the assistant's (a chat
  template renders them).
- standard, plain: strings, where every prompt is one message of the user.
- standard, transcript: where prompts have several turns or came as transcripts, both are written
  in the HH-RLHF form, ``\n\nHuman: ...\n\nAssistant:`` and `` ...``; an imported transcript comes
  back byte for byte as prompt + answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

import orjson
from pydantic import Field

from annotator.exporters.files import Row
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.types import Keyed, Rendered, SeveralMessages, Shape
from annotator.importers import transcripts
from annotator.queries.pair_texts import PromptText, ResponseText

TEXT_NOTES: Final = {
    "prompt": "what was asked",
    "chosen": "the better answer, by what decided the pair",
    "rejected": "the other answer",
}

TIES_NOTE: Final = (
    "Ties are rows with `p_chosen` .5. No stock trainer reads that column: it would take a tie for"
    " a win. Use a loss with soft labels."
)
CSV_NOTE: Final = (
    "CSV for spreadsheets: a text that a spreadsheet would run as a formula, or that begins with an"
    " apostrophe, has an apostrophe before it; the lines above take it off again. An empty cell"
    " is an empty text or a missing number, and a column that misses numbers is read as text."
)


class StyledOptions(ExportOptions):
    """Options of formats that can be written in either style."""

    style: Literal["auto", "explicit-standard", "explicit-conversational"] = Field(
        "auto",
        title="Style",
        description="auto: conversational where any prompt has several turns or a system message.",
    )


class PairFormat:
    """What formats of pairs share.

    A subclass writes ``row`` (or ``rows``, with ``unit = "prompt"``) and ``loading``.
    """

    unit: ClassVar[Literal["pair", "prompt"]] = "pair"
    reads: ClassVar[str] = "text"
    reads_ties: ClassVar[bool] = False  # whether the trainer reads ``p_chosen`` or its like
    carries_columns: ClassVar[bool] = True
    takes_both_bad: ClassVar[bool] = False

    def __init__(self, options: ExportOptions, shape: Shape) -> None:
        self.options, self.shape = options, shape
        self.is_chat = self.wants_chat(getattr(options, "style", "auto"))
        if self.is_chat:
            self.rendering = "messages"
        elif shape.has_turns or shape.has_transcripts:
            self.rendering = "transcript"
        else:
            self.rendering = "plain"

    def wants_chat(self, style: str) -> bool:
        """Whether texts are lists of messages."""
        return style == "explicit-conversational" or (style == "auto" and self.shape.has_turns)

    @property
    def style(self) -> str:
        return "explicit-conversational" if self.is_chat else "explicit-standard"

    @property
    def own(self) -> dict[str, str]:
        """Column -> "text" or "messages", in the order of a row."""
        return dict.fromkeys(
            ("prompt", "chosen", "rejected"), "messages" if self.is_chat else "text"
        )

    @property
    def column_notes(self) -> dict[str, str]:
        return TEXT_NOTES

    def prompt(self, prompt: PromptText) -> Any:
        """The prompt as it stands in a row; empty where there is none."""
        if self.is_chat:
            return prompt.messages
        if self.rendering == "transcript":
            return transcripts.render_prompt(prompt.messages, _extra(prompt.raw))
        return prompt.last or ""

    def identity(self, prompt: Any, source: PromptText) -> str:
        """Equal for prompts that read alike."""
        return prompt if isinstance(prompt, str) else source.source

    def answer(self, response: ResponseText) -> Any:
        """An answer as it stands in a row. Raises SeveralMessages where text cannot hold it."""
        if self.is_chat:
            return response.messages or [{"role": "assistant", "content": response.text}]
        if self.rendering == "transcript":
            extra = _extra(response.raw)
            return transcripts.render_reply(response.text, response.messages, extra)
        if response.source:
            messages = response.messages or []
            if len(messages) != 1:
                raise SeveralMessages
            return messages[0]["content"]
        return response.text

    def row(self, prompt: Any, one: Rendered) -> Row:
        """The texts of a pair. ``prompt`` is what ``prompt()`` gave."""
        return {"prompt": prompt, "chosen": one.chosen, "rejected": one.rejected}

    def flaw(self, one: Rendered) -> str:
        """Why the format cannot hold a pair, a key of REASONS, or ""."""
        return ""

    def rows(self, prompt: Any, source: PromptText, pairs: Sequence[Rendered]) -> list[Keyed]:
        raise TypeError("rows of this format are pairs")

    def notes(self) -> list[str]:
        """What a reader of the card should know about this style."""
        found = [self.style_note]
        if self.options.ties != "drop" and not self.reads_ties:
            found.append(TIES_NOTE)
        if self.options.container == "csv":
            found.append(CSV_NOTE)
        return found

    @property
    def style_note(self) -> str:
        """How texts are written."""
        if self.is_chat:
            return "Conversational: the tokenizer needs a chat template."
        if self.rendering == "transcript":
            return (
                r"Transcripts: a prompt ends in `\n\nAssistant:` and an answer begins with a space;"
                " `prompt + chosen` is the whole conversation. Turns are not escaped."
            )
        return "Plain strings: `prompt` is the user's message, without a chat template."

    def extra_files(self, files: dict[str, list[str]]) -> dict[str, str]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {}


# Takes the apostrophe off that keeps spreadsheets from running a text.
UNESCAPED: Final = """.map(
    lambda row: {
        name: cell[1:] if isinstance(cell, str) and cell.startswith("'") else cell
        for name, cell in row.items()
    }
)"""


def load_call(container: str, files: dict[str, list[str]]) -> str:
    """The expression that loads the files (split -> names) with ``datasets``."""
    named = ", ".join(
        f'"{split}": "{names[0]}"'
        if len(names) == 1
        else f'"{split}": {orjson.dumps(names).decode()}'
        for split, names in files.items()
    )
    if container == "csv":
        # Else an answer that reads NA or null, or is empty, would be taken for a missing one.
        return f'load_dataset("csv", data_files={{{named}}}, keep_default_na=False){UNESCAPED}'
    loader = "parquet" if container == "parquet" else "json"
    return f'load_dataset("{loader}", data_files={{{named}}})'


def _extra(raw: str | None) -> dict[str, Any]:
    return {} if raw is None else {transcripts.RAW: raw}
