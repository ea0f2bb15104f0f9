"""Preference fine-tuning at OpenAI and those who take the same file (Azure, Fireworks, Together).

One JSON object per line: ``input`` with messages, ``preferred_output`` and ``non_preferred_output``
with the assistant's message. Text only. What the service would refuse is not written.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, model_validator

from annotator.exporters.files import Row
from annotator.exporters.pair_format import PairFormat
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.types import NotRepresentable, Rendered
from annotator.queries.pair_texts import Message, PromptText, ResponseText

ROLES: Final = frozenset({"system", "user", "assistant"})
LEAST_ROWS: Final = 10


class Options(ExportOptions):
    """What an ``openai-preference`` export can be told."""

    container: Literal["jsonl"] = Field("jsonl", title="File type")

    @model_validator(mode="after")
    def _no_ties(self) -> Options:
        if self.ties != "drop":
            raise ValueError("ties have no place in this format: leave ties=drop")
        return self


class OpenAiPreference(PairFormat):
    """input, preferred_output, non_preferred_output."""

    carries_columns = False

    def wants_chat(self, style: str) -> bool:
        return True

    @property
    def style(self) -> str:
        return "openai"

    @property
    def own(self) -> dict[str, str]:
        return {
            "input": "object",
            "preferred_output": "messages",
            "non_preferred_output": "messages",
        }

    @property
    def column_notes(self) -> dict[str, str]:
        return {
            "input": "the messages before the answers; no tools",
            "preferred_output": "the better answer, by what decided the pair",
            "non_preferred_output": "the other answer",
        }

    def prompt(self, prompt: PromptText) -> list[Message]:
        """The messages less empty system messages, which the service does not take."""
        messages = [
            message
            for message in prompt.messages
            if message["role"] != "system" or message["content"].strip()
        ]
        if not messages or (len(messages) == 1 and not messages[0]["content"].strip()):
            return []
        if messages[-1]["role"] != "user" or not all(map(_is_fit, messages)):
            raise NotRepresentable
        return messages

    def identity(self, prompt: Any, source: PromptText) -> str:
        return repr([(message["role"], message["content"]) for message in prompt])

    def answer(self, response: ResponseText) -> list[Message]:
        messages: list[Message] = super().answer(response)
        if len(messages) != 1 or messages[0]["role"] != "assistant" or not _is_fit(messages[0]):
            raise NotRepresentable
        return messages

    def row(self, prompt: Any, one: Rendered) -> Row:
        return {
            "input": {"messages": prompt, "tools": [], "parallel_tool_calls": True},
            "preferred_output": one.chosen,
            "non_preferred_output": one.rejected,
        }

    def loading(self, files: dict[str, list[str]]) -> str:
        names = {split: some[0] for split, some in files.items()}
        first = next(iter(names.values()), "train.jsonl")
        validation = ""
        if "validation" in names:
            validation = (
                f'    validation_file=client.files.create(file=open("{names["validation"]}", "rb"),'
                ' purpose="fine-tune").id,\n'
            )
        return (
            "from openai import OpenAI\n\n"
            "client = OpenAI()\n"
            f'file = client.files.create(file=open("{first}", "rb"), purpose="fine-tune")\n'
            "client.fine_tuning.jobs.create(\n"
            '    model="gpt-4.1-mini-2025-04-14",\n'
            "    training_file=file.id,\n"
            f"{validation}"
            '    method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}},\n'
            ")\n"
        )

    @property
    def style_note(self) -> str:
        return (
            "Text only. A prompt ends with a message of the user, an answer is one message of the"
            " assistant, none is empty; pairs that are not so are counted as not_representable."
            " Empty system messages are left out."
        )

    def notes(self) -> list[str]:
        return [
            *super().notes(),
            (
                f"OpenAI asks for at least {LEAST_ROWS} rows. Margins, votes and soft labels have no"
                " place in the file; beta is set with the job."
            ),
        ]


def _is_fit(message: Message) -> bool:
    return message["role"] in ROLES and bool(message["content"].strip())
