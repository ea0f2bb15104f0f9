"""What a reward model is trained to do: a table of objectives and their options."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from rubrics.registry import Method


class PairOptions(BaseModel):
    """What all objectives on pairs ask."""

    model_config = ConfigDict(extra="forbid")

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


class BradleyTerryOptions(PairOptions):
    """Options of the Bradley–Terry objective."""

    center: float = Field(
        default=0.01,
        ge=0,
        le=10,
        title="Centering",
        description="Weight of (r_chosen + r_rejected)², which keeps rewards around zero.",
    )
    smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        title="Label smoothing",
        description="Share of the votes taken to be wrong: rewards then stop growing.",
    )


class MarginOptions(BradleyTerryOptions):
    """Options of Bradley–Terry with a margin."""

    margin_scale: float = Field(
        default=1.0,
        gt=0,
        le=100,
        title="Margin per step of strength",
        description="How far apart the rewards of a pair of strength 1 have to be, in log-odds.",
    )


class ScaledOptions(BradleyTerryOptions):
    """Options of Bradley–Terry scaled by strength."""

    divide_by_mean: bool = Field(
        default=False,
        title="Divide by the mean strength",
        description="Keep the size of an update the same whatever the strengths of a batch.",
    )


class RobustOptions(BradleyTerryOptions):
    """Options of noise-robust Bradley–Terry."""

    flip_rate: float = Field(
        default=0.1,
        ge=0,
        le=0.45,
        title="Share of wrong votes",
        description="From control tasks or Dawid–Skene, not guessed: the loss corrects for it.",
    )


OBJECTIVES: Final[dict[str, Method]] = {
    "bradley-terry": Method(
        path="models.neural.objectives:BradleyTerry",
        label="Bradley–Terry",
        summary="One score per response; the chance of winning is the logistic of the difference.",
        options="models.objectives:BradleyTerryOptions",
    ),
    "margin-bt": Method(
        path="models.neural.objectives:MarginBradleyTerry",
        label="Bradley–Terry with a margin",
        summary="The stronger a preference, the further apart the scores have to be.",
        options="models.objectives:MarginOptions",
    ),
    "scaled-bt": Method(
        path="models.neural.objectives:ScaledBradleyTerry",
        label="Bradley–Terry scaled by strength",
        summary="The stronger a preference, the more it counts.",
        options="models.objectives:ScaledOptions",
    ),
    "robust-bt": Method(
        path="models.neural.objectives:RobustBradleyTerry",
        label="Noise-robust Bradley–Terry",
        summary="Corrects for a known share of wrong votes; for data that is large for the model.",
        options="models.objectives:RobustOptions",
    ),
}
