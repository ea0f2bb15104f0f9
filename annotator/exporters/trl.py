"""Rows for TRL: prompt, chosen, rejected, the prompt always explicit.

Explicit, because a trainer that has to find the common beginning of two texts also takes the
words with which both answers open.
"""

from __future__ import annotations

from annotator.exporters.pair_format import PairFormat, StyledOptions, load_call


class Options(StyledOptions):
    """What a ``trl-preference`` export can be told."""


class TrlPreference(PairFormat):
    """prompt, chosen, rejected."""

    def loading(self, files: dict[str, list[str]]) -> str:
        """Python that loads the files (split -> names) and trains on them."""
        first = next(iter(files), "train")
        return (
            "from datasets import load_dataset\n"
            "from trl import DPOConfig, DPOTrainer\n\n"
            f"rows = {load_call(self.options.container, files)}\n"
            "trainer = DPOTrainer(\n"
            f'    model="your/model", args=DPOConfig(), train_dataset=rows["{first}"]\n'
            ")\n"
            "trainer.train()\n"
        )
