"""Ranked lists: all answers of a prompt, best first, for losses over more than two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import model_validator

from annotator.exporters.by_answer import Answer, answers_of
from annotator.exporters.files import Row
from annotator.exporters.pair_format import PairFormat, StyledOptions, load_call
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.types import Keyed, Rendered, Shape
from annotator.queries.pair_texts import PromptText


class Options(StyledOptions):
    """What a ``ranked-lists`` export can be told."""

    @model_validator(mode="after")
    def _rewards_are_of_answers(self) -> Options:
        if self.rubric and self.rubric_reward == "binary":
            raise ValueError("rubric_reward=binary is of a pair; a list needs raw rewards")
        return self


class RankedLists(PairFormat):
    """prompt, responses best first, ranks with ties, rewards where something has scored them.

    Answers are ordered by the mean probability with which they win their pairs (Copeland's count
    where pairs are won or lost): a cycle of votes is a tie.
    """

    unit = "prompt"
    carries_columns = False
    reads_ties = True

    def __init__(self, options: ExportOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._has_rewards = bool(options.reward_model or options.rubric)
        self._wanted = options.wanted_columns
        self.lists, self.answers, self.with_ties, self.unscored = 0, 0, 0, 0

    @property
    def own(self) -> dict[str, str]:
        columns = {
            "prompt": "messages" if self.is_chat else "text",
            "responses": "answers" if self.is_chat else "texts",
            "ranks": "ints",
        }
        if self._has_rewards:
            columns["rewards"] = "floats"
        if "prompt_id" in self._wanted:
            columns["prompt_id"] = "int"
        if "response_ids" in self._wanted:
            columns["response_ids"] = "ints"
        return columns

    @property
    def column_notes(self) -> dict[str, str]:
        by = "the reward model" if self.options.reward_model else "the rubric"
        return {
            "prompt": "what was asked",
            "responses": "its answers, the best first",
            "ranks": "place of each answer, 1 the best, equal for ties",
            "rewards": f"the reward of each answer by {by}; null where there is none",
            "prompt_id": "the prompt in Touchstone",
            "response_ids": "the responses in Touchstone, in the same order",
        }

    def rows(self, prompt: Any, source: PromptText, pairs: Sequence[Rendered]) -> list[Keyed]:
        answers = sorted(answers_of(pairs), key=lambda one: (-one.standing, one.id))
        ranks = _ranks(answers)
        self.lists += 1
        self.answers += len(answers)
        self.with_ties += len(set(ranks)) < len(ranks)
        row: Row = {
            "prompt": prompt,
            "responses": [one.text for one in answers],
            "ranks": ranks,
        }
        if self._has_rewards:
            row["rewards"] = [one.reward for one in answers]
            self.unscored += row["rewards"].count(None)
        if "prompt_id" in self._wanted:
            row["prompt_id"] = source.id
        if "response_ids" in self._wanted:
            row["response_ids"] = [one.id for one in answers]
        return [Keyed(row, -source.id, 0, 0)]

    def loading(self, files: dict[str, list[str]]) -> str:
        """Python that loads the files (split -> names) and makes targets of the rewards."""
        call = load_call(self.options.container, files)
        head = f"from datasets import load_dataset\n\nrows = {call}\n"
        if not self._has_rewards:
            return head
        return (
            "import numpy as np\n"
            f"{head}"
            'rows = rows.filter(lambda row: None not in row["rewards"])\n\n\n'
            "def targets(rewards, alpha=1.0):\n"
            '    """InfoNCA: softmax of the rewards over alpha."""\n'
            "    scaled = np.array(rewards) / alpha\n"
            "    powers = np.exp(scaled - scaled.max())\n"
            "    return powers / powers.sum()\n"
        )

    def facts(self) -> dict[str, Any]:
        return {
            "lists": {
                "answers": self.answers,
                "with_ties": self.with_ties,
                "unscored_answers": self.unscored if self._has_rewards else None,
            }
        }

    def notes(self) -> list[str]:
        return [
            *super().notes(),
            f"{self.lists:,} lists of {self.answers:,} answers; {self.with_ties:,} lists hold ties.",
            (
                "InfoNCA and NCA read `responses` with `rewards`; PRO reads `responses` in their order"
                " and weighs by `rewards`; a Plackett-Luce loss needs `ranks` alone. No stock trainer of"
                " TRL reads lists."
            ),
        ]


def _ranks(answers: list[Answer]) -> list[int]:
    """Places from 1, equal for equal standings, none left out."""
    ranks: list[int] = []
    for place, one in enumerate(answers):
        same = place > 0 and one.standing == answers[place - 1].standing
        ranks.append(ranks[-1] + (not same) if ranks else 1)
    return ranks
