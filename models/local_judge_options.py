"""What can be set of judges that are models on this machine. Free of torch."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from rubrics.judging.options import MAX_CRITERIA

# Options that name a pretrained model, by judge: hub ids, or folders as backbones may name them.
MODEL_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "yes-no": ("model",),
    "density-ratio": ("strong", "weak"),
    "endogenous": ("model",),
}
LONGEST_NAME: Final = 290  # as services.backbones allows
MAX_EXEMPLARS: Final = 20


class RewardModelOptions(BaseModel):
    """Options of the ``reward-model`` judge. Its probability is the model's own: σ(Δ)."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    number: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        title="Reward model",
        description="Its number in this project; 0 is the newest when the judge is made.",
    )
    tie_band: float = Field(
        0.05,
        ge=0,
        lt=0.5,
        title="Tie band",
        description="A probability within this of one half is a tie.",
    )


class CausalOptions(BaseModel):
    """What all judges have that read a causal language model."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    criteria: list[str] = Field(
        default_factory=list,
        max_length=MAX_CRITERIA,
        title="Criteria",
        description="What counts, one per line, beside the project's guidelines.",
    )
    use_guidelines: bool = Field(
        True,
        title="Show the project's guidelines",
        description="To the model, beside the criteria.",
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=10_000,
        title="Temperature",
        description="A pair's probability is σ(difference of scores / temperature). "
        "0: 10 for sums over a reply, 0.1 for averages per token, 1 for yes or no.",
    )
    tie_band: float = Field(
        0.05,
        ge=0,
        lt=0.5,
        title="Tie band",
        description="A probability within this of one half is a tie.",
    )
    max_length: int = Field(
        4096,
        ge=16,
        le=131_072,
        title="Longest text (tokens)",
        description="Longer conversations lose the start of the prompt first. "
        "Never more than the model itself can read.",
    )
    tokens_per_forward: int = Field(
        16_384,
        ge=16,
        le=10_000_000,
        title="Tokens per forward pass",
        description="Padding included. Where memory runs out, batches are halved by themselves.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", title="Precision", description="Auto is bf16 on a GPU that has it, else fp32."
    )


class YesNoOptions(CausalOptions):
    """Options of the ``yes-no`` judge."""

    model: str = Field(
        "",
        max_length=LONGEST_NAME,
        title="Model",
        description="An instruction-tuned causal model: hub id or folder.",
    )
    ask: Literal["each", "pairs"] = Field(
        "each",
        title="Asked",
        description="each: is this reply good, yes or no; pairs: A or B, in both orders.",
    )
    wording: str = Field(
        "Is this a good reply to the last message of the conversation?",
        max_length=2000,
        title="Question",
        description="Of ask each: answered by yes or no.",
    )


class DensityRatioOptions(CausalOptions):
    """Options of the ``density-ratio`` judge."""

    strong: str = Field(
        "",
        max_length=LONGEST_NAME,
        title="Strong model",
        description="The better aligned one, such as a model tuned by DPO.",
    )
    weak: str = Field(
        "",
        max_length=LONGEST_NAME,
        title="Weak model",
        description="The one it was made from, such as the model before DPO.",
    )
    exemplars: list[str] = Field(
        default_factory=list,
        max_length=MAX_EXEMPLARS,
        title="Examples",
        description="Shown to both models after the criteria.",
    )
    use_guidelines: bool = Field(
        False,
        title="Show the project's guidelines",
        description="To the model, beside the criteria.",
    )
    average: bool = Field(
        False,
        title="Average per token",
        description="By each model's own count. Sums favor long replies where the strong model "
        "does.",
    )
    count_end: bool = Field(
        True,
        title="Count the end of the turn",
        description="The token that ends a reply is part of it. Turn it off where the two models "
        "end theirs in different ways.",
    )


class EndogenousOptions(CausalOptions):
    """Options of the ``endogenous`` judge."""

    model: str = Field(
        "", max_length=LONGEST_NAME, title="Model", description="A causal model: hub id or folder."
    )
    form: Literal["difference", "average", "outcome"] = Field(
        "difference",
        title="Score",
        description="difference: with the criteria less without them; average: per token; "
        "outcome: the whole reward, which ranks the replies to one prompt by their likelihood.",
    )
    alpha: float = Field(
        1.0, gt=0, le=100, title="Alpha", description="Temperature at which logits are read as Q."
    )
    count_end: bool = Field(
        True, title="Count the end of the turn", description="It is part of the reply."
    )
