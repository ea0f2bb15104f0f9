"""What can be set of a judge that asks a language model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_CRITERIA = 60


class LlmOptions(BaseModel):
    """Options of the ``llm`` judge. The endpoint is chosen beside them."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    models: list[str] = Field(
        default_factory=list,
        max_length=9,
        title="Models",
        description="As the endpoint calls them. Several are a jury: each judges, the mean counts.",
    )
    mode: Literal["pairwise", "pointwise", "listwise"] = Field(
        "pairwise",
        title="Asked",
        description="pairwise: two side by side; pointwise: a score for each by itself; "
        "listwise: all at once.",
    )
    template: str = Field(
        "",
        title="Prompt template",
        description="Its name: pairwise, pointwise, listwise, rating or checklist. Empty: what fits.",
    )
    criteria: list[str] = Field(
        default_factory=list,
        max_length=MAX_CRITERIA,
        title="Criteria",
        description="What counts, one per line. Empty: the project's question and guidelines.",
    )
    principle: str = Field(
        "",
        max_length=2000,
        title="Principle",
        description="One sentence that goes before everything else, such as “brevity first”.",
    )
    use_guidelines: bool = Field(True, title="Show the project's guidelines")
    reasoning: bool = Field(
        True, title="Reason first", description="The reasons are kept with the verdict."
    )
    orders: Literal["both", "one"] = Field(
        "both",
        title="Orders",
        description="both: every pair is asked in both orders, lists in balanced rotations.",
    )
    combine: Literal["soft-average", "agree-only"] = Field(
        "soft-average",
        title="Two orders become one verdict by",
        description="agree-only: a tie where they differ. soft-average: the mean probability.",
    )
    repeats: int = Field(1, ge=1, le=9, title="Repeats of each order")
    temperature: float = Field(0.0, ge=0, le=2, title="Temperature")
    max_tokens: int = Field(1024, ge=1, le=32_768, title="Longest reply (tokens)")
    repairs: int = Field(1, ge=0, le=3, title="Times an unreadable reply is asked for again")
    tie_band: float = Field(
        0.05,
        ge=0,
        lt=0.5,
        title="Tie band",
        description="A probability within this of one half is a tie.",
    )
