"""Options that leave rows out by what models make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from annotator.exporters.variant_options import Variant

NO_BOUND: Final = 100.0  # standard deviations: no margin is that large
ModelNumber = Annotated[int, Field(ge=1, lt=2**31)]


class Filters(BaseModel):
    """Filters of rows by scores; see annotator.exporters.filters.

    A row that lacks a score which a filter reads is left out as such. A tie that is kept has no
    label that could be wrong: it passes all but the draw and CHES.
    """

    if TYPE_CHECKING:
        reward_model: int
        causal_model: str
        variants: list[Variant]

    least_margin: float = Field(
        -NO_BOUND,
        ge=-NO_BOUND,
        le=NO_BOUND,
        title="Least reward margin",
        description="Of chosen over rejected, signed, in standard deviations. Below 0 the model"
        " prefers the rejected answer. -100: no bound.",
    )
    most_margin: float = Field(
        NO_BOUND,
        ge=-NO_BOUND,
        le=NO_BOUND,
        title="Most reward margin",
        description="100: no bound.",
    )
    filter_models: list[ModelNumber] = Field(
        default_factory=list,
        max_length=20,
        title="Models that vote",
        description="Reward models by number, for the three filters below. Ten that differ in seed"
        " and were stopped early know most; what learned a wrong label by heart agrees with it.",
    )
    drop_weakest: float = Field(
        0.0,
        ge=0,
        le=90,
        title="Weakest left out, %",
        description="Rows with the lowest mean margin over the models: mostly wrong labels, then"
        " pairs that are even.",
    )
    drop_contradicted: Literal["no", "all"] = Field(
        "no",
        title="Contradicted left out",
        description="all: rows whose rejected answer every model prefers. Pairs that are right"
        " and hard, and the views of few, go with them: have somebody look first.",
    )
    drop_losses: float = Field(
        0.0,
        ge=0,
        le=90,
        title="Highest losses left out, %",
        description="Rows that are among so many with the highest loss of every model, so at most"
        " as many as labels are thought wrong. Hard pairs that are right go with them.",
    )
    drop_ches: float = Field(
        0.0,
        ge=0,
        le=99,
        title="Highest CHES left out, %",
        description="Rows whose two answers are nearly one to the language model: training on"
        " them lowers both.",
    )
    draw_answers: int = Field(
        0,
        ge=0,
        le=1000,
        title="Answers drawn per prompt",
        description="RSO: so many of a prompt's scored answers are accepted by their reward; a row"
        " needs both. Labels by the model: decided_by=reward-model. 0: no draw.",
    )
    draw_beta: float = Field(
        0.5,
        gt=0,
        le=1000,
        title="Softness of the draw",
        description="In standard deviations of the reward: near 0 the best are accepted.",
    )
    draw_seed: int = Field(0, ge=0, lt=2**31, title="Seed of the draw")

    @model_validator(mode="after")
    def _filters_have_what_they_read(self) -> Self:
        if self.has_band and not self.reward_model:
            raise ValueError("a band of reward margins needs reward_model")
        if self.least_margin > self.most_margin:
            raise ValueError("least_margin is above most_margin")
        if self.draw_answers and not self.reward_model:
            raise ValueError("draw_answers needs reward_model")
        if self.asks_models and not self.filter_models:
            raise ValueError("drop_weakest, drop_contradicted and drop_losses need filter_models")
        if "strength" in self.variants and not self.filter_models:
            raise ValueError("variants=strength needs filter_models")
        if self.drop_ches and not self.causal_model:
            raise ValueError("drop_ches needs causal_model")
        if len(set(self.filter_models)) < len(self.filter_models):
            raise ValueError("filter_models names a model twice")
        return self

    @property
    def has_band(self) -> bool:
        return self.least_margin > -NO_BOUND or self.most_margin < NO_BOUND

    @property
    def asks_models(self) -> bool:
        """Whether a filter reads what several models make of a row."""
        return bool(self.drop_weakest or self.drop_losses or self.drop_contradicted != "no")

    @property
    def reads_ches(self) -> bool:
        return bool(self.drop_ches) or "ches" in self.variants
