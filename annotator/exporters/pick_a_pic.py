"""Pairs of pictures in the layout of Pick-a-Pic, which Diffusion-DPO and PickScore read.

Pictures are the stored files, byte for byte: they were decoded and encoded anew when they came in,
without what cameras and programs write into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from annotator.exporters.files import Row
from annotator.exporters.pair_format import PairFormat, load_call
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.types import Keyed, NotRepresentable, Rendered
from annotator.queries.pair_texts import PromptText, ResponseText

COLUMN_NOTES: Final = {
    "jpg_0": "the bytes of one picture, JPEG or WebP",
    "jpg_1": "the bytes of the other",
    "label_0": "1 where picture 0 is the better, 0 where it is not, .5 for a tie",
    "label_1": "1 - label_0",
    "caption": "the prompt",
    "are_different": "always true: pairs of one picture are left out",
    "has_label": "always true: pairs without a verdict are left out",
    "image_0_uid": "equal for equal pictures",
    "image_1_uid": "the same of picture 1",
    "num_example_per_prompt": "rows of this prompt; PickScore weighs a row by one over it",
}


class Options(ExportOptions):
    """What a ``pick-a-pic`` export can be told."""

    container: Literal["parquet"] = Field("parquet", title="File type")

    @model_validator(mode="after")
    def _ties_are_labels(self) -> Options:
        if self.ties == "both":
            raise ValueError("a tie has a label of its own here: choose ties=soft")
        return self


class PickAPic(PairFormat):
    """jpg_0, jpg_1, label_0, label_1, caption and what goes with them."""

    unit = "prompt"
    reads = "image"
    reads_ties = True

    def wants_chat(self, style: str) -> bool:
        return False

    @property
    def style(self) -> str:
        return "pick-a-pic"

    @property
    def own(self) -> dict[str, str]:
        return {
            "jpg_0": "picture", "jpg_1": "picture", "label_0": "float", "label_1": "float",
            "caption": "text", "are_different": "bool", "has_label": "bool",
            "image_0_uid": "text", "image_1_uid": "text", "num_example_per_prompt": "int",
        }  # fmt: skip

    @property
    def column_notes(self) -> dict[str, str]:
        return COLUMN_NOTES

    def prompt(self, prompt: PromptText) -> str:
        if len(prompt.messages) > 1:
            raise NotRepresentable
        return prompt.last or ""

    def answer(self, response: ResponseText) -> str:
        """The stored file, whose bytes are read when the row is written."""
        if response.picture is None:
            raise NotRepresentable
        return response.picture

    def rows(self, prompt: Any, source: PromptText, pairs: Sequence[Rendered]) -> list[Keyed]:
        return [self._row(prompt, one, len(pairs)) for one in pairs]

    def _row(self, caption: str, one: Rendered, count: int) -> Keyed:
        pair, decided = one.decided.pair, one.decided
        is_first = decided.chosen.id == pair.a_id
        pictures = (one.chosen, one.rejected) if is_first else (one.rejected, one.chosen)
        label = 0.5 if decided.verdict.kind == "tie" else float(is_first)
        row: Row = {
            "jpg_0": pictures[0],
            "jpg_1": pictures[1],
            "label_0": label,
            "label_1": 1.0 - label,
            "caption": caption,
            "are_different": True,
            "has_label": True,
            "image_0_uid": _uid(pictures[0]),
            "image_1_uid": _uid(pictures[1]),
            "num_example_per_prompt": count,
        }
        side = 0 if decided.verdict.kind == "tie" else 1 if is_first else -1
        return Keyed(row | one.cells, pair.a_id, pair.b_id, side)

    def loading(self, files: dict[str, list[str]]) -> str:
        first = next(iter(files), "train")
        return (
            "import io\n\n"
            "from datasets import load_dataset\n"
            "from PIL import Image\n\n"
            f"rows = {load_call(self.options.container, files)}\n"
            "# As Diffusion-DPO's train.py does: ties out, the better picture first.\n"
            f'decided = rows["{first}"].filter(lambda row: row["label_0"] in (0, 1))\n'
            "row = decided[0]\n"
            'sides = (row["jpg_0"], row["jpg_1"]) if row["label_0"] else (row["jpg_1"], row["jpg_0"])\n'
            "better, worse = (Image.open(io.BytesIO(side)) for side in sides)\n"
        )

    @property
    def style_note(self) -> str:
        return (
            "Picture 0 is the one that came in first. A pair with a prompt of several messages is"
            " counted as not_representable."
        )

    def notes(self) -> list[str]:
        return [
            *super().notes(),
            (
                "Diffusion-DPO's trainer reads `jpg_0`, `jpg_1`, `label_0` and `caption` and drops ties;"
                " PickScore keeps them and weighs by `num_example_per_prompt`. The names say jpg: Pillow"
                " tells the encoding from the bytes."
            ),
        ]


def _uid(picture: str) -> str:
    """Says nothing of where the picture is kept, whose name nobody should guess."""
    return blake2b(picture.encode(), digest_size=16).hexdigest()
