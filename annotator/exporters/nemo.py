"""Rows for NeMo-Aligner's DPO, IPO and RPO: texts in the template of the model, with rewards."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from annotator.exporters.files import Row
from annotator.exporters.pair_format import PairFormat
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.types import NotRepresentable, Rendered
from annotator.queries.pair_texts import PromptText, ResponseText

ROLES: Final = {"user": "User", "assistant": "Assistant"}
# NeMo-Aligner's own defaults where a row has no rewards.
DEFAULTS: Final = (1.0, 0.0)
EVEN: Final = (0.5, 0.5)


class Options(ExportOptions):
    """What a ``nemo`` export can be told."""

    container: Literal["jsonl"] = Field("jsonl", title="File type")
    template: Literal["none", "extra-id"] = Field(
        "none",
        title="Template",
        description="extra-id: the marks of Megatron's chat models, <extra_id_1>User and so on.",
    )


class Nemo(PairFormat):
    """prompt, chosen_response, rejected_response, chosen_reward, rejected_reward."""

    carries_columns = False
    reads_ties = True  # by equal rewards

    def __init__(self, options: Any, shape: Any) -> None:
        super().__init__(options, shape)
        self._has_marks = options.template == "extra-id"
        self._has_rewards = bool(options.reward_model)
        if self._has_marks:
            self.rendering = "extra-id"

    def wants_chat(self, style: str) -> bool:
        return False

    @property
    def style(self) -> str:
        return "nemo"

    @property
    def own(self) -> dict[str, str]:
        texts = ("prompt", "chosen_response", "rejected_response")
        return dict.fromkeys(texts, "text") | dict.fromkeys(
            ("chosen_reward", "rejected_reward"), "float"
        )

    @property
    def column_notes(self) -> dict[str, str]:
        by = "the reward model's standardized score" if self._has_rewards else "1, or .5 in a tie"
        return {
            "prompt": "what was asked, in the template of the recipe",
            "chosen_response": "the better answer, by what decided the pair",
            "rejected_response": "the other answer",
            "chosen_reward": f"of chosen: {by}",
            "rejected_reward": f"of rejected: {by.replace('1,', '0,', 1)}",
        }

    def prompt(self, prompt: PromptText) -> str:
        if not self._has_marks:
            text: str = super().prompt(prompt)
            return text
        messages, system = prompt.messages, ""
        if messages and messages[0]["role"] == "system":
            system, messages = messages[0]["content"], messages[1:]
        if not messages or (len(messages) == 1 and not messages[0]["content"]):
            return ""
        if any(message["role"] not in ROLES for message in messages):
            raise NotRepresentable
        turns = "".join(f"<extra_id_1>{ROLES[m['role']]}\n{m['content']}\n" for m in messages)
        return f"<extra_id_0>System\n{system}\n{turns}<extra_id_1>Assistant\n"

    def answer(self, response: ResponseText) -> str:
        if not self._has_marks:
            text: str = super().answer(response)
            return text
        messages = response.messages or [{"role": "assistant", "content": response.text}]
        if len(messages) != 1:
            raise NotRepresentable
        return f"{messages[0]['content']}\n<extra_id_1>"

    def flaw(self, one: Rendered) -> str:
        lacks = self._has_rewards and None in self._rewards(one)
        return "no_score" if lacks else ""

    def row(self, prompt: Any, one: Rendered) -> Row:
        chosen, rejected = self._rewards(one)
        return {
            "prompt": prompt,
            "chosen_response": one.chosen,
            "rejected_response": one.rejected,
            "chosen_reward": chosen,
            "rejected_reward": rejected,
        }

    def _rewards(self, one: Rendered) -> tuple[float | None, float | None]:
        if self._has_rewards:
            return one.cells["chosen_reward"], one.cells["rejected_reward"]
        return EVEN if one.decided.verdict.kind == "tie" else DEFAULTS

    def loading(self, files: dict[str, list[str]]) -> str:
        names = {split: some[0] for split, some in files.items()}
        train = names.get("train") or next(iter(names.values()), "train.jsonl")
        held = names.get("validation", train)
        data = f"{{train: [{train}], validation: [{held}], test: [{names.get('test', held)}]}}"
        return (
            "import subprocess\n\n"
            "subprocess.run(\n"
            '    ["python", "examples/nlp/gpt/train_gpt_dpo.py",\n'
            '     "pretrained_checkpoint.restore_from_path=your/model.nemo",\n'
            f'     "model.data.data_prefix={data}",\n'
            '     "++model.dpo.ref_policy_kl_penalty=0.1"],\n'
            "    check=True,\n"
            ")\n"
        )

    def notes(self) -> list[str]:
        rewards = (
            "Rewards are the reward model's, standardized: RPO compares their difference."
            if self._has_rewards
            else "No model has scored these rows: the rewards are NeMo-Aligner's defaults, 1 and 0,"
            " which RPO would take for real ones."
        )
        return [
            *super().notes(),
            rewards,
            (
                "DPO and IPO read the three texts, RPO the rewards too. Write prompts in the template"
                " that the model was tuned with. A file must hold as many rows as the global batch."
                " NeMo RL reads trl-preference in the standard style."
            ),
        ]
