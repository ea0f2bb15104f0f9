"""Rows for OpenRLHF, whose keys are named on its command line; a row's margin is used."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from annotator.exporters.pair_format import PairFormat, StyledOptions


class Options(StyledOptions):
    """What an ``openrlhf`` export can be told."""

    container: Literal["jsonl", "parquet", "csv"] = Field("jsonl", title="File type")

    @property
    def wanted_columns(self) -> frozenset[str]:
        return super().wanted_columns | {"margin"}


class OpenRlhf(PairFormat):
    """prompt, chosen, rejected, margin."""

    def loading(self, files: dict[str, list[str]]) -> str:
        name = next(iter(files.values()), ["train.jsonl"])[0]
        chat = ' "--apply_chat_template",' if self.is_chat else ""
        return (
            "import subprocess\n\n"
            "subprocess.run(\n"
            '    ["deepspeed", "--module", "openrlhf.cli.train_rm", "--pretrain", "your/model",\n'
            f'     "--dataset", "{name}",{chat}\n'
            '     "--prompt_key", "prompt", "--chosen_key", "chosen", "--rejected_key", "rejected",\n'
            '     "--save_path", "trained"],\n'
            "    check=True,\n"
            ")\n"
        )

    def notes(self) -> list[str]:
        return [
            *super().notes(),
            (
                "The reward trainer reads `margin` and takes 0 where it is missing; train_dpo reads the"
                " three texts alone. Other columns are dropped. Where a split lies in several files,"
                " give the folder as the data set."
            ),
        ]
