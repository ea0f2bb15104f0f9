r"""Rows for TRL: prompt, chosen, rejected, the prompt always explicit.

Explicit, because a trainer that has to find the common beginning of two texts also takes the
words with which both answers open. One style for a whole dataset, because TRL tells the format
from the first row.

- conversational: ``prompt`` is a list of messages, ``chosen`` and ``rejected`` lists of the
  assistant's (a chat template renders them).
- standard, plain: strings, where every prompt is one message of the user.
- standard, transcript: where prompts have several turns or came as transcripts, both are written
  in the HH-RLHF form, ``\n\nHuman: ...\n\nAssistant:`` and `` ...``; an imported transcript comes
  back byte for byte as ``prompt + chosen``.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from annotator.exporters import reward_columns
from annotator.exporters.recipe import ExportOptions, Verdict
from annotator.exporters.reward_columns import Columns, Source
from annotator.exporters.types import SeveralMessages, Shape
from annotator.importers import transcripts
from annotator.queries.pair_texts import PromptText, ResponseText
from annotator.queries.pairs import Pair

Column = Literal["margin", "votes", "agreement", "prompt_id", "response_ids"]
COLUMNS: Final[tuple[Column, ...]] = ("margin", "votes", "agreement", "prompt_id", "response_ids")
COLUMN_NOTES: Final = {
    "margin": "mean strength, 1 to 3, of the votes for chosen. RewardTrainer subtracts it from the"
    " reward difference; DPOTrainer does not read it",
    "votes": "votes counted on the pair, ties included",
    "agreement": "the share of those votes that chosen has",
    "prompt_id": "the prompt in Touchstone; pairs of one prompt are not independent",
    "chosen_id": "the chosen response in Touchstone",
    "rejected_id": "the rejected response in Touchstone",
    "pair_id": "the first preference counted: it leads to the judgments behind the row",
    **reward_columns.COLUMN_NOTES,
}


class Options(ExportOptions):
    """What a ``trl-preference`` export can be told."""

    style: Literal["auto", "explicit-standard", "explicit-conversational"] = Field(
        "auto",
        title="Style",
        description="auto: conversational where any prompt has several turns or a system message.",
    )
    columns: list[Column] = Field(
        default_factory=lambda: list(COLUMNS),
        title="Columns beside the texts",
        description="DPOTrainer reads none of them; RewardTrainer reads margin.",
    )
    rubric: str = Field(
        "",
        max_length=120,
        title="Reward of a rubric",
        description="An approved version that has scored responses, NAME:vN: columns"
        " chosen_rubric and rejected_rubric.",
    )
    rubric_reward: Literal["raw", "binary"] = Field(
        "raw",
        title="As",
        description="binary: 1 for the side with the higher reward, a loss for the other.",
    )
    rubric_lose: float = Field(-0.1, ge=-100, lt=1, title="What a loss is worth")
    rubric_criteria: bool = Field(
        False, title="Verdicts of its criteria", description="A list for each side."
    )
    reward_model: int = Field(
        0,
        ge=0,
        lt=2**31,
        title="Score of a reward model",
        description="One that has scored responses, by its number: columns chosen_reward and"
        " rejected_reward, standardized, the rubric's reward added where there is one.",
    )
    rubric_weight: float = Field(
        1.0, ge=-1000, le=1000, title="Weight of the rubric beside the model"
    )


class TrlPreference:
    """Turns a decided pair into one row."""

    def __init__(self, options: Options, shape: Shape, *, source: Source | None = None) -> None:
        self.options = options
        self.extra = Columns(source) if source is not None else None
        self.is_chat = options.style == "explicit-conversational" or (
            options.style == "auto" and shape.has_turns
        )
        if self.is_chat:
            self.rendering = "messages"
        elif shape.has_turns or shape.has_transcripts:
            self.rendering = "transcript"
        else:
            self.rendering = "plain"
        self._wanted = frozenset(options.columns)

    @property
    def style(self) -> str:
        return "explicit-conversational" if self.is_chat else "explicit-standard"

    @property
    def columns(self) -> dict[str, str]:
        """Column -> "text", "messages", "int" or "float", in the order of a row."""
        kind = "messages" if self.is_chat else "text"
        columns = dict.fromkeys(("prompt", "chosen", "rejected"), kind)
        numbers = {"margin": "float", "votes": "int", "agreement": "float", "prompt_id": "int"}
        columns |= {name: kind for name, kind in numbers.items() if name in self._wanted}
        if "response_ids" in self._wanted:
            columns |= dict.fromkeys(("chosen_id", "rejected_id", "pair_id"), "int")
        return columns | (self.extra.source.columns if self.extra else {})

    def prompt(self, prompt: PromptText) -> Any:
        """The prompt as it stands in a row; empty where there is none."""
        if self.is_chat:
            return prompt.messages
        if self.rendering == "transcript":
            return transcripts.render_prompt(prompt.messages, _extra(prompt.raw))
        return prompt.last or ""

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

    def row(
        self,
        pair: Pair,
        prompt: Any,
        chosen: ResponseText,
        rejected: ResponseText,
        verdict: Verdict,
        strength: float,
    ) -> dict[str, Any]:
        """The row of a pair with a winner. ``prompt`` is what ``prompt()`` gave."""
        wanted = self._wanted
        row = {
            "prompt": prompt,
            "chosen": self.answer(chosen),
            "rejected": self.answer(rejected),
        }
        if "margin" in wanted:
            row["margin"] = strength
        if "votes" in wanted:
            row["votes"] = verdict.votes
        if "agreement" in wanted:
            row["agreement"] = verdict.agreement
        if "prompt_id" in wanted:
            row["prompt_id"] = pair.prompt_id
        if "response_ids" in wanted:
            row["chosen_id"], row["rejected_id"] = chosen.id, rejected.id
            row["pair_id"] = pair.pair_id
        return row

    def loading(self, files: dict[str, str]) -> str:
        """Python that loads the files (split -> name) and trains on them."""
        loader = "parquet" if self.options.container == "parquet" else "json"
        named = ", ".join(f'"{split}": "{name}"' for split, name in files.items())
        first = next(iter(files), "train")
        return (
            "from datasets import load_dataset\n"
            "from trl import DPOConfig, DPOTrainer\n\n"
            f'rows = load_dataset("{loader}", data_files={{{named}}})\n'
            "trainer = DPOTrainer(\n"
            f'    model="your/model", args=DPOConfig(), train_dataset=rows["{first}"]\n'
            ")\n"
            "trainer.train()\n"
        )

    def notes(self) -> list[str]:
        """What a reader of the card should know about this style."""
        return self._style_notes() + (self.extra.notes() if self.extra else [])

    def _style_notes(self) -> list[str]:
        if self.is_chat:
            return ["Conversational: the tokenizer needs a chat template."]
        if self.rendering == "transcript":
            return [
                (
                    r"Transcripts: a prompt ends in `\n\nAssistant:` and an answer begins with a space;"
                    " `prompt + chosen` is the whole conversation. Turns are not escaped."
                )
            ]
        return ["Plain strings: `prompt` is the user's message, without a chat template."]


def _extra(raw: str | None) -> dict[str, Any]:
    return {} if raw is None else {transcripts.RAW: raw}
