"""Formats a dataset can be downloaded in: key -> what writes its rows."""

from __future__ import annotations

from typing import Final

from rubrics.registry import Method

EXPORTERS: Final[dict[str, Method]] = {
    "trl-preference": Method(
        path="annotator.exporters.trl:TrlPreference",
        label="TRL preference",
        summary="prompt, chosen, rejected: for DPOTrainer and its kin, prompt always explicit.",
        options="annotator.exporters.trl:Options",
    ),
    "judgments": Method(
        path="annotator.exporters.judgments:Judgments",
        label="Raw judgments",
        summary="one row per judgment of any kind: verdict, ratings, reasons, who, when, on what.",
        options="annotator.exporters.judgments:Options",
    ),
}
