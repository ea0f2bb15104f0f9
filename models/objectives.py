"""What a reward model is trained to do: a table of objectives and their options."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from rubrics.registry import Method


class BradleyTerryOptions(BaseModel):
    """Options of the Bradley–Terry objective."""

    model_config = ConfigDict(extra="forbid")

    center: float = Field(
        default=0.01,
        ge=0,
        le=10,
        title="Centering",
        description="Weight of (r_chosen + r_rejected)², which keeps rewards around zero.",
    )
    ties: Literal["half", "drop"] = Field(
        default="half",
        title="Ties",
        description="Learn a tie as an even chance (half), or leave it out of training (drop).",
    )
    weighting: bool = Field(
        default=True,
        title="Use pair weights",
        description="Let pairs count by their weight, such as the number of votes behind them.",
    )


OBJECTIVES: Final[dict[str, Method]] = {
    "bradley-terry": Method(
        path="models.neural.objectives:bradley_terry",
        label="Bradley–Terry",
        summary="One score per response; the chance of winning is the logistic of the difference.",
        options="models.objectives:BradleyTerryOptions",
    ),
}
