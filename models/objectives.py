"""What a reward model is trained to do: a table of objectives and their options."""

from __future__ import annotations

import math
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rubrics.registry import Method


class RowOptions(BaseModel):
    """What all objectives ask."""

    model_config = ConfigDict(extra="forbid")

    weighting: bool = Field(
        default=True,
        title="Use pair weights",
        description="Let pairs count by their weight, such as the number of votes behind them.",
    )


class PairOptions(RowOptions):
    """What all objectives on comparisons ask."""

    ties: Literal["half", "drop"] = Field(
        default="half",
        title="Ties",
        description="Learn a tie as an even chance (half), or leave it out of training (drop).",
    )


class CenteredOptions(PairOptions):
    """Comparisons that leave the level of scores open."""

    center: float = Field(
        default=0.01,
        ge=0,
        le=10,
        title="Centering",
        description="Weight of (r_chosen + r_rejected)², which keeps rewards around zero.",
    )


class SmoothedOptions(PairOptions):
    """Comparisons two by two, some of which may be wrong."""

    smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        title="Label smoothing",
        description="Share of the votes taken to be wrong: rewards then stop growing.",
    )


class BradleyTerryOptions(CenteredOptions, SmoothedOptions):
    """Options of the Bradley–Terry objective."""


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


class ScoreOptions(RowOptions):
    """Options of objectives that learn from ratings of attributes."""

    score: str = Field(
        default="",
        max_length=2000,
        title="Score",
        description="The attribute that is the score, or a mix: helpfulness, verbosity=-0.2. "
        "Empty: the mean of all.",
    )

    @field_validator("score")
    @classmethod
    def _is_a_mix(cls, value: str) -> str:
        read_mix(value)
        return value


class HelpSteerOptions(ScoreOptions):
    """Options of the HelpSteer2 recipe."""

    second_epochs: float = Field(
        default=0.5,
        gt=0,
        le=10,
        title="Second phase, length",
        description="Passes over the comparisons, as a share of the epochs on ratings.",
    )
    second_rate: float = Field(
        default=0.5,
        gt=0,
        le=10,
        title="Second phase, learning rate",
        description="As a share of that of the first.",
    )
    extrapolation: float = Field(
        default=1.0,
        ge=0,
        le=10,
        title="Largest extrapolation",
        description="How far weights may go on beyond the second phase, in units of what it "
        "moved them; chosen on validation pairs. 0: not at all.",
    )


class GpmOptions(BradleyTerryOptions):
    """Options of the general preference model."""

    dim: int = Field(
        default=4,
        ge=2,
        le=8,
        multiple_of=2,
        title="Dimensions",
        description="Numbers per response that make circles, an even number: 2 hold one, more hold "
        "several.",
    )
    tau: float = Field(
        default=1.0,
        gt=0,
        le=100,
        title="Temperature",
        description="The chance of winning is the logistic of the pair's score divided by this.",
    )
    damping: float = Field(
        default=0.02,
        ge=0,
        le=10,
        title="Damping of circles",
        description="Weight of the squared numbers that make circles: without a reason to be there "
        "they vanish, and what is left is Bradley–Terry.",
    )
    references: int = Field(
        default=256,
        ge=1,
        le=10_000,
        title="References",
        description="Training responses that are kept with the model: a response's own score is "
        "its mean chance against them.",
    )


def read_mix(text: str) -> dict[str, float]:
    """Weights by attribute of ``a, b=0.5``; empty for an empty text. Raises ValueError."""
    found: dict[str, float] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, weight = part.rpartition("=") if "=" in part else (part, "", "1")
        name = name.strip()
        try:
            found[name] = float(weight)
        except ValueError:
            raise ValueError(f"{weight.strip()!r} in {part!r} is not a number") from None
        if not name or not math.isfinite(found[name]):
            raise ValueError(f"{part!r} is not an attribute with its weight")
    if found and not any(found.values()):
        raise ValueError("a score needs a weight that is not 0")
    return found


READS_LISTS: Final = frozenset({"plackett-luce"})  # learn from rankings, beside pairs
RATED: Final = frozenset({"regression", "helpsteer2"})  # learn from ratings of attributes
# Compare two answers directly: one answer by itself has a chance against references, no reward.
NO_ONE_SCORE: Final = frozenset({"gpm"})

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
    "regression": Method(
        path="models.neural.attributes:Regression",
        label="Regression on attributes",
        summary="Learns the ratings of single responses; one attribute or a mix is the score.",
        options="models.objectives:ScoreOptions",
    ),
    "helpsteer2": Method(
        path="models.neural.attributes:HelpSteer",
        label="HelpSteer2 recipe",
        summary="Ratings first, then preferences by strength from there, then extrapolation.",
        options="models.objectives:HelpSteerOptions",
    ),
    "plackett-luce": Method(
        path="models.neural.lists:PlackettLuce",
        label="Plackett–Luce",
        summary="Learns from whole rankings, place by place, and from pairs.",
        options="models.objectives:CenteredOptions",
    ),
    "gpm": Method(
        path="models.neural.gpm:GeneralPreference",
        label="General preference model",
        summary="Several numbers per response: preferences may go in circles.",
        options="models.objectives:GpmOptions",
    ),
}
