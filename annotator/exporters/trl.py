"""Rows for TRL: pairs with the prompt apart or in both texts, with a margin, or prompts alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from annotator.exporters.files import Row
from annotator.exporters.pair_format import PairFormat, StyledOptions, load_call
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.shipped import training_scripts
from annotator.exporters.types import Keyed, Rendered, Shape
from annotator.queries.pair_texts import PromptText

KEPT_BY_DPO: Final = (
    "DPOTrainer keeps `prompt`, `chosen`, `rejected` and drops every other column without a word."
)


class Options(StyledOptions):
    """What a ``trl-preference`` export can be told."""


class TrlFormat(PairFormat):
    """Formats whose snippet trains with a trainer of TRL."""

    trainer: ClassVar[str]
    reading: ClassVar[str] = KEPT_BY_DPO

    @property
    def settings(self) -> str:
        """Arguments of the trainer's configuration."""
        return ""

    def loading(self, files: dict[str, list[str]]) -> str:
        """Python that loads the files (split -> names) and trains on them."""
        first, name = next(iter(files), "train"), self.trainer
        return (
            "from datasets import load_dataset\n"
            f"from trl import {name}Config, {name}Trainer\n\n"
            f"rows = {load_call(self.options.container, files)}\n"
            f"trainer = {name}Trainer(\n"
            f'    model="your/model",\n'
            f"    args={name}Config({self.settings}),\n"
            f'    train_dataset=rows["{first}"],\n'
            ")\n"
            "trainer.train()\n"
        )

    def notes(self) -> list[str]:
        return [*super().notes(), self.reading]


class TrlPreference(TrlFormat):
    """prompt, chosen, rejected.

    Explicit, because a trainer that has to find the common beginning of two texts also takes the
    words with which both answers open.
    """

    trainer = "DPO"

    def extra_files(self, files: dict[str, list[str]]) -> dict[str, str]:
        return super().extra_files(files) | training_scripts()

    def notes(self) -> list[str]:
        return [
            *super().notes(),
            (
                "`train_dpo.py` trains with the stock trainer, `train_weighted_dpo.py` with a variant"
                " of DPO that reads the columns below (`--loss`)."
            ),
        ]


# The prompt in both texts ----------------------------------------------------------------------


class ImplicitOptions(StyledOptions):
    """What a ``trl-preference-implicit`` export can be told."""

    style: Literal["auto", "explicit-standard", "explicit-conversational"] = Field(
        "auto",
        title="Style",
        description="Whole conversations, as messages or (standard) as transcripts.",
    )


class TrlImplicit(TrlFormat):
    """chosen, rejected: whole conversations that begin with the prompt."""

    trainer = "Reward"
    reading = (
        "Both texts begin with the prompt. RewardTrainer reads them as they are, and `margin` beside"
        " them. DPOTrainer finds the prompt as their common beginning, which also takes the words"
        " with which both answers open: train DPO on trl-preference."
    )

    def __init__(self, options: ExportOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        if not self.is_chat:  # two plain texts one after the other would not show where one ends
            self.rendering = "transcript"

    def wants_chat(self, style: str) -> bool:
        return style != "explicit-standard"

    @property
    def style(self) -> str:
        return "implicit-conversational" if self.is_chat else "implicit-standard"

    @property
    def style_note(self) -> str:
        if self.is_chat:
            return "Conversational: the tokenizer needs a chat template."
        return r"Transcripts: turns begin with `\n\nHuman:` and `\n\nAssistant:`."

    @property
    def own(self) -> dict[str, str]:
        return dict.fromkeys(("chosen", "rejected"), "messages" if self.is_chat else "text")

    @property
    def column_notes(self) -> dict[str, str]:
        return {
            "chosen": "the prompt with the better answer, by what decided the pair",
            "rejected": "the prompt with the other answer",
        }

    def row(self, prompt: Any, one: Rendered) -> Row:
        return {"chosen": prompt + one.chosen, "rejected": prompt + one.rejected}


class RewardOptions(ImplicitOptions):
    """What a ``trl-reward`` export can be told."""

    @property
    def wanted_columns(self) -> frozenset[str]:
        return super().wanted_columns | {"margin"}


class TrlReward(TrlImplicit):
    """chosen, rejected, margin: a number in every row."""

    reading = (
        "RewardTrainer reads `chosen`, `rejected` and `margin`, which it subtracts from the"
        " difference of the two rewards; it drops the other columns without a word."
    )

    def flaw(self, one: Rendered) -> str:
        return "no_score" if one.cells["margin"] is None else ""


# Prompts alone ---------------------------------------------------------------------------------


class PromptOptions(StyledOptions):
    """What a ``trl-prompt-only`` export can be told."""


class TrlPromptOnly(TrlFormat):
    """The prompts of the pairs that the recipe keeps, each once."""

    unit = "prompt"
    carries_columns = False
    trainer = "GRPO"
    reading = (
        "For trainers that write the answers themselves: GRPO, RLOO, online DPO. GRPOTrainer hands"
        " other columns to its reward functions."
    )

    @property
    def own(self) -> dict[str, str]:
        kind = "messages" if self.is_chat else "text"
        return {"prompt": kind} | ({"prompt_id": "int"} if self._with_id else {})

    @property
    def _with_id(self) -> bool:
        return "prompt_id" in self.options.wanted_columns

    @property
    def column_notes(self) -> dict[str, str]:
        return {"prompt": "what was asked", "prompt_id": "the prompt in Touchstone"}

    def rows(self, prompt: Any, source: PromptText, pairs: Sequence[Rendered]) -> list[Keyed]:
        row: Row = {"prompt": prompt}
        if self._with_id:
            row["prompt_id"] = source.id
        return [Keyed(row, -source.id, 0, 0)]

    def loading(self, files: dict[str, list[str]]) -> str:
        first = next(iter(files), "train")
        return (
            "from datasets import load_dataset\n"
            "from trl import GRPOConfig, GRPOTrainer\n\n"
            f"rows = {load_call(self.options.container, files)}\n"
            "trainer = GRPOTrainer(\n"
            '    model="your/model",\n'
            '    reward_funcs="your/reward-model",\n'
            "    args=GRPOConfig(),\n"
            f'    train_dataset=rows["{first}"],\n'
            ")\n"
            "trainer.train()\n"
        )
