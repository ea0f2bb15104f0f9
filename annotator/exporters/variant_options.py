"""Options of the columns that variants of DPO read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

Variant = Literal[
    "reward01", "madpo-weight", "flip-rate", "variance", "strength", "ratings", "ches"
]
OF_MODEL: Final[tuple[Variant, ...]] = ("reward01", "madpo-weight", "variance")


class VariantColumns(BaseModel):
    """Columns for variants of DPO; see annotator.exporters.variants."""

    if TYPE_CHECKING:
        reward_model: int
        rubric: str

    variants: list[Variant] = Field(
        default_factory=list,
        title="Columns for variants of DPO",
        description="No stock trainer reads them. The bundle's train_weighted_dpo.py does, and"
        " the manifest has their scales.",
    )
    reward01: Literal["logistic", "min-max"] = Field(
        "logistic",
        title="Rewards from 0 to 1 by",
        description="logistic: of the standardized reward; min-max: between the lowest and the"
        " highest score of the model.",
    )
    madpo_largest: float = Field(
        2.0, gt=1, le=100, title="MADPO: factor of margins near 0", description="c_max."
    )
    madpo_least: float = Field(
        0.5, ge=0, lt=1, title="MADPO: factor of large margins", description="c_min."
    )
    madpo_steepness: float = Field(
        1.0, gt=0, le=100, title="MADPO: steepness", description="Lambda."
    )
    madpo_threshold: float = Field(
        6.907,
        gt=0,
        le=100,
        title="MADPO: margin whose weight is 1",
        description="Tau, in log-odds: 6.907 is a chance of 99.9 %.",
    )
    madpo_margin: Literal["calibrated", "raw"] = Field(
        "calibrated",
        title="MADPO: margins",
        description="calibrated: over a temperature learned on votes of the validation and test"
        " splits; raw: as the model scores.",
    )
    causal_model: str = Field(
        "",
        max_length=290,
        title="Language model for CHES",
        description="The one that is to be trained, before training: a hub id, or a folder that"
        " the operator allows. The build then waits for the gpu worker.",
    )

    @model_validator(mode="after")
    def _variants_have_what_they_read(self) -> Self:
        for name in OF_MODEL:
            if name in self.variants and not self.reward_model:
                raise ValueError(f"variants={name} needs reward_model")
        if self.reward01 == "min-max" and "reward01" in self.variants and self.rubric:
            raise ValueError("reward01=min-max is of a model alone, without a rubric")
        if "ches" in self.variants and not self.causal_model:
            raise ValueError("variants=ches needs causal_model")
        return self
