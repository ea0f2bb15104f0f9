"""Columns that variants of DPO read: key -> what it is, on which scale, and who reads it.

No trainer of TRL, OpenRLHF or LLaMA-Factory reads any of them but ``margin``: they are dropped
without a word. docs/dpo-variants.md has the losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class ColumnMethod:
    """``asked_by``: the option, or option=value, that puts it into a row."""

    columns: tuple[str, ...]
    label: str
    summary: str
    scale: str
    read_by: str
    asked_by: str

    def as_dict(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "scale": self.scale, "read_by": self.read_by}


def _sides(what: str) -> tuple[str, str]:
    return f"chosen_{what}", f"rejected_{what}"


COLUMN_METHODS: Final = {
    "p-chosen": ColumnMethod(
        ("p_chosen",),
        "Soft label",
        "the probability that chosen is better, by what decided the pair",
        "0.5 to 1; share of votes, posterior of the aggregator, or logistic of the score",
        "cDPO, SmPO",
        "columns=p_chosen",
    ),
    "margin": ColumnMethod(
        ("margin",),
        "Margin",
        "how much chosen is preferred: strength of votes, their shares, or rewards",
        "1 to 3, -1 to 1, or standard deviations, by margin_from; of a tie 0, and of strength 0 where"
        " chosen got no vote",
        "RewardTrainer of TRL subtracts it; adaptive-margin DPO",
        "columns=margin",
    ),
    "reward": ColumnMethod(
        _sides("reward"),
        "Standardized rewards",
        "what a reward model makes of both answers, with a rubric's reward added where asked for",
        "standard deviations within prompts around the mean of all scores",
        "NVIDIA RPO, InfoNCA and NCA over lists",
        "reward_model",
    ),
    "rubric": ColumnMethod(
        _sides("rubric"),
        "Rubric scores",
        "what an approved rubric makes of both answers",
        "the rubric's own form, or 1 and a loss",
        "NVIDIA RPO, MODPO, with the rubric as an objective",
        "rubric",
    ),
    "reward01": ColumnMethod(
        _sides("reward01"),
        "Rewards from 0 to 1",
        "the same rewards, bounded",
        "logistic of the standardized reward, or min-max over all scores, by reward01",
        "MaPPO, reward-augmented DPO, SmPO from scores",
        "variants=reward01",
    ),
    "madpo-weight": ColumnMethod(
        ("madpo_weight",),
        "MADPO weight",
        "importance ratio by the signed margin of a reward model: large where a pair is close and"
        " its label agrees, small where it contradicts",
        "a factor of the loss, 0 to about 1.2 at the defaults",
        "MADPO",
        "variants=madpo-weight",
    ),
    "flip-rate": ColumnMethod(
        ("flip_rate",),
        "Flip rate",
        "the estimated probability that the label is wrong",
        "0 to 1: one less the posterior of chosen; a tie counts half",
        "cDPO with p = 1 - flip_rate; rDPO with the mean of the manifest",
        "variants=flip-rate",
    ),
    "variance": ColumnMethod(
        _sides("variance"),
        "Ensemble variance",
        "how much the members of an ensemble disagree on each answer",
        "squared standard deviations of the members' reference set, ddof 0; null for a single model",
        "conservative rewards: mean less a penalty times variance",
        "variants=variance",
    ),
    "strength": ColumnMethod(
        ("strength", "strength_sd"),
        "Strength by several models",
        "mean and spread over models of the margin of chosen over rejected",
        "standard deviations of each model, signed; spread with ddof 0",
        "adaptive margins, label smoothing and flips of Secrets of RLHF II",
        "variants=strength",
    ),
    "ratings": ColumnMethod(
        _sides("ratings"),
        "Scores per objective",
        "mean rating of each attribute by people",
        "the project's rating scale; null where nobody rated an attribute",
        "MODPO",
        "variants=ratings",
    ),
    "ches": ColumnMethod(
        ("ches_ln",),
        "CHES",
        "centered hidden embedding similarity, normalized by length: the higher, the more"
        " training on the row lowers its own chosen answer",
        "squared units of the model's last hidden states; only ranks within one model mean anything",
        "filters before DPO",
        "variants=ches",
    ),
}  # fmt: skip
