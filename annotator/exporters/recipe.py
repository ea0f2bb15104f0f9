"""The recipe: which votes, pairs and texts become rows. Options that every format of pairs shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from annotator.exporters.files import DEFAULT_SHARD_MB
from annotator.exporters.filter_options import Filters
from annotator.exporters.variant_options import VariantColumns
from annotator.queries.pairs import Raters, Selection

SPLITS: Final = ("train", "validation", "test")
Container = Literal["jsonl", "jsonl.gz", "parquet", "csv"]
SplitName = Literal["train", "validation", "test"]
Column = Literal["margin", "votes", "agreement", "p_chosen", "prompt_id", "response_ids"]
COLUMNS: Final[tuple[Column, ...]] = ("margin", "votes", "agreement", "prompt_id", "response_ids")

# Why a pair gave no row, in the order in which the reasons are tried: a pair is counted once.
REASONS: Final = {
    "no_votes": "no verdict sets one beside the other",
    "unselected_votes": "voted on, but by none of the chosen raters",
    "control": "a control question: its answer was known beforehand",
    "few_votes": "fewer votes than asked for",
    "both_bad": "most votes call both answers bad",
    "contradiction": "as many votes for one answer as for the other, or the same two texts"
    " decided both ways",
    "tie": "a tie, or no answer with the most votes",
    "low_agreement": "less agreement than asked for",
    "low_posterior": "the aggregator is less sure than asked for",
    "no_score": "what decides, or what a filter reads, has not scored both answers",
    "repeated": "the same two texts again; its votes were added to the first such pair",
    "identical": "both answers read the same",
    "leak": "an answer that names its model",
    "empty_answer": "an answer without text",
    "empty_prompt": "a prompt without text",
    "same_prompt": "reads exactly like another prompt of the dataset, which was kept",
    "not_representable": "the format has no place for such texts",
    "even": "in a prompt whose answers all won as often as they lost",
    "ranking": "not among the pairs that are taken from a prompt's answers",
    "filter_margin": "a reward margin outside the band",
    "filter_strength": "among the weakest preferences by the models' votes",
    "filter_agreement": "the models disagree with the label",
    "filter_loss": "among the highest losses of both models",
    "filter_ches": "among the highest CHES scores: its answers are too alike to the model",
    "filter_drawn": "not drawn by rejection sampling",
    "capped": "more rows of one prompt than asked for",
    "near_duplicate": "reads almost like another pair, which was kept",
    "length_matched": "left out so that chosen and rejected are as often the longer",
}


class WhoseVotes(BaseModel):
    """What options share that choose raters by ``raters`` and ``rater_names``, and ``splits``.

    The fields stay with each, which words them for what it writes.
    """

    if TYPE_CHECKING:
        raters: Raters
        rater_names: list[str]
        splits: list[SplitName]

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if (self.raters == "named") != bool(self.rater_names):
            raise ValueError("names go with raters=named, and raters=named needs names")
        return self

    def selection(self) -> Selection:
        splits = tuple(split for split in SPLITS if split in self.splits)
        return Selection(self.raters, tuple(self.rater_names), splits)


class VoteRules(WhoseVotes):
    """How votes become a verdict."""

    raters: Literal["all", "people", "imported", "judges", "named"] = Field("all", title="Votes of")
    rater_names: list[str] = Field(
        default_factory=list,
        title="Names",
        max_length=1000,
        description="Whose votes count when the raters are named.",
    )
    decided_by: Literal["votes", "reward-model", "rubric"] = Field(
        "votes",
        title="Decided by",
        description="A model or a rubric that has scored responses can decide instead of votes.",
    )
    aggregator: Literal["majority", "dawid-skene", "crowd-bt"] = Field(
        "majority",
        title="Votes are added up by",
        description="majority: one rater, one vote. The others weigh raters by what all votes tell"
        " of them.",
    )
    min_votes: int = Field(1, ge=1, le=1000, title="Least votes")
    min_agreement: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Least agreement",
        description="Share of a pair's votes, ties included, that the winner must have.",
    )
    min_posterior: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Least certainty",
        description="Of an aggregator that weighs raters: its probability of the verdict.",
    )
    ties: Literal["drop", "soft", "both"] = Field(
        "drop",
        title="Ties",
        description="soft: one row with p_chosen .5; both: a row in each direction, p_chosen .5.",
    )
    both_bad: Literal["drop", "keep", "negatives"] = Field(
        "drop",
        title="Both bad",
        description="When more than half of the votes say so. negatives: both answers as"
        " undesirable ones, where the format is unpaired.",
    )

    @model_validator(mode="after")
    def _posterior_fits(self) -> Self:
        if self.min_posterior and self.aggregator == "majority":
            raise ValueError("min_posterior needs an aggregator that weighs raters")
        return self


class PairRules(BaseModel):
    """Which pairs of one prompt, and which texts."""

    pairs: Literal["all", "adjacent", "best-rest", "widest"] = Field(
        "all",
        title="Pairs of a prompt",
        description="Of several answers: all pairs, only neighbors in the order, the best against"
        " each other one, or the one with the widest gap.",
    )
    max_per_prompt: int = Field(
        0,
        ge=0,
        le=100_000,
        title="Most rows of one prompt",
        description="The best agreed on are kept. 0: all.",
    )
    repeats: Literal["keep", "pool"] = Field(
        "keep",
        title="The same two texts again",
        description="Pairs of one prompt with the same texts by other generators. Where they"
        " disagree, their votes are added up in any case.",
    )
    near_duplicates: int = Field(
        0,
        ge=0,
        le=100,
        title="Near-duplicates from",
        description="Percent of shared word triples from which two pairs are one: the better voted"
        " is kept, in the split that must stay clean. 0: not looked for.",
    )
    lengths: Literal["any", "matched"] = Field(
        "any",
        title="Lengths",
        description="matched: rows are left out at random until chosen is the longer answer as"
        " often as rejected is, at every size of the gap.",
    )
    empty: Literal["keep", "drop"] = Field("keep", title="Answers without text")
    leaks: Literal["keep", "drop"] = Field(
        "keep",
        title="Answers that name their model",
        description="As found when they were imported: votes on them are less than blind.",
    )
    splits: list[SplitName] = Field(
        default_factory=lambda: list(SPLITS),
        min_length=1,
        title="Splits",
        description="Each is a file of its own.",
    )


class RowColumns(BaseModel):
    """What stands in a row beside the texts."""

    columns: list[Column] = Field(
        default_factory=lambda: list(COLUMNS),
        title="Columns beside the texts",
        description="DPOTrainer reads none of them; RewardTrainer reads margin.",
    )
    margin_from: Literal["strength", "votes", "reward"] = Field(
        "strength",
        title="Margin from",
        description="strength: mean of the winner's votes, 1 to 3; votes: share for chosen less"
        " share for rejected; reward: difference of the standardized scores.",
    )
    rubric: str = Field(
        "",
        max_length=120,
        title="Reward of a rubric",
        description="An approved version that has scored responses, NAME:vN: columns"
        " chosen_rubric and rejected_rubric.",
    )
    rubric_reward: Literal["raw", "binary"] = Field(
        "raw",
        title="As",
        description="binary: 1 for the side with the higher reward, a loss for the other.",
    )
    rubric_lose: float = Field(-0.1, ge=-100, lt=1, title="What a loss is worth")
    rubric_criteria: bool = Field(
        False, title="Verdicts of its criteria", description="A list for each side."
    )
    reward_model: int = Field(
        0,
        ge=0,
        lt=2**31,
        title="Score of a reward model",
        description="One that has scored responses, by its number: columns chosen_reward and"
        " rejected_reward, standardized, the rubric's reward added where there is one.",
    )
    rubric_weight: float = Field(
        1.0, ge=-1000, le=1000, title="Weight of the rubric beside the model"
    )


class Terms(BaseModel):
    """What the card says of the right to use the rows."""

    licence: str = Field(
        "", max_length=120, title="Licence", description="Of the rows, for the card."
    )
    consent: str = Field(
        "",
        max_length=4000,
        title="Consent and origin",
        description="What raters and authors agreed to, and where texts come from, for the card.",
    )


class ExportOptions(VariantColumns, Filters, Terms, RowColumns, PairRules, VoteRules):
    """The recipe. The same for every format of pairs; formats add their own on top."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    container: Container = Field("jsonl", title="File type")
    shard_mb: int = Field(
        DEFAULT_SHARD_MB,
        ge=1,
        le=100_000,
        title="Megabytes of a Parquet file",
        description="From here on another one begins: train-00000-of-00003.parquet.",
    )

    @model_validator(mode="after")
    def _sources_are_named(self) -> Self:
        if self.decided_by != "votes" and (
            self.min_votes > 1 or self.min_agreement or self.min_posterior
        ):
            raise ValueError("min_votes, min_agreement and min_posterior need decided_by=votes")
        if self.decided_by == "reward-model" and not self.reward_model:
            raise ValueError("decided_by=reward-model needs reward_model")
        if self.decided_by == "rubric" and not self.rubric:
            raise ValueError("decided_by=rubric needs rubric")
        if self.margin_from == "reward" and not self.reward_model:
            raise ValueError("margin_from=reward needs reward_model")
        return self

    @property
    def wanted_columns(self) -> frozenset[str]:
        """Columns of votes; a tie that is kept needs its soft label."""
        kept = {"p_chosen"} if self.ties != "drop" else set()
        return frozenset({*self.columns, *kept})
