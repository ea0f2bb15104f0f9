"""Training a reward model: what to train, and the call that does it in a child process.

Free of torch. Write the pairs (models.pairs) and a TrainingConfig into a folder (models.workdir),
then ``supervise`` it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from models.backbones import BACKBONES, split_backbone
from models.errors import BadData, BadOptions
from models.objectives import NO_ONE_SCORE, OBJECTIVES
from models.supervision import TrainingResult, supervise
from models.workdir import CONFIG, read_events, read_metrics, write_json
from rubrics.registry import UnknownMethod, find

__all__ = [
    "TrainingConfig",
    "TrainingResult",
    "read_events",
    "read_metrics",
    "resolve_options",
    "supervise",
    "write_json",
]


MOST_MEMBERS: Final = 32
ALONE: Final = {
    "members": 1,
    "prior_scale": 0.0,
}  # not written down: as if there were no such thing
ONE_DEVICE: Final = {"devices": 1, "sharding": "full"}  # neither; no weights change with them
SEEDS: Final = 2**31


class TrainingConfig(BaseModel):
    """What to train and how. ``options`` are those of the objective and of the backbone, flat;
    after validation all of them are present, so a stored run keeps its meaning when a default
    changes. Raises BadOptions for a method or option that does not exist."""

    model_config = ConfigDict(extra="forbid")

    objective: str = Field(default="bradley-terry", title="Objective")
    backbone: str = Field(default="hashing", title="Backbone")
    options: dict[str, Any] = Field(default_factory=dict, title="Options")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, title="Seed")
    evaluate_every: int = Field(
        default=0,
        ge=0,
        title="Updates between evaluations",
        description="0 is five or ten evaluations per run, by backbone.",
    )
    checkpoint_every: int = Field(
        default=0,
        ge=0,
        title="Updates between checkpoints",
        description="0 is as often as evaluations.",
    )
    validation_pairs: int = Field(
        default=2000,
        ge=1,
        title="Validation pairs",
        description="At most so many are used each time during training.",
    )
    time_limit: float | None = Field(
        default=None,
        gt=0,
        title="Time limit (seconds)",
        description="Training ends here, and what has been learned is evaluated and saved.",
    )
    members: int = Field(
        default=1,
        ge=1,
        le=MOST_MEMBERS,
        title="Members",
        description="Train so many models that differ by seed: an ensemble, whose scores can be "
        "cautious and whose disagreement is kept. 1 is one model.",
    )
    prior_scale: float = Field(
        default=0.0,
        ge=0,
        le=100,
        title="Random prior",
        description="Add to each member's head a random one that is never trained, so that members "
        "differ where there is little data: its standard deviation over responses. 0 is none.",
    )
    devices: int = Field(
        default=1,
        ge=0,
        le=64,
        title="Devices",
        description="Train a transformer on so many devices of its worker together; 0 is all that it "
        "has. The result is the same to rounding.",
    )
    sharding: Literal["full", "none"] = Field(
        default="full",
        title="Sharding",
        description="On several devices, full gives each a share of weights, gradients and optimizer "
        "(FSDP); none gives each all of them (DDP), faster where they fit.",
    )

    @model_validator(mode="after")
    def _fill_options(self) -> TrainingConfig:
        objective, backbone = resolve_options(self.objective, self.backbone, self.options)
        self.options = objective.model_dump() | backbone.model_dump()
        if self.members > 1 and self.objective in NO_ONE_SCORE:
            raise BadOptions(
                f"{OBJECTIVES[self.objective].label} compares two answers directly: its members "
                "give an answer no score that could be put on one scale, so there is no ensemble.",
                advice="Choose an objective that gives scores, or one member.",
            )
        return self

    @model_serializer(mode="wrap")
    def _without_members(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One model is written as ever, so that versions without ensembles read it too."""
        found: dict[str, Any] = handler(self)
        usual = ALONE | ONE_DEVICE
        return {k: v for k, v in found.items() if k not in usual or v != usual[k]}

    def member(self, number: int) -> TrainingConfig:
        """What trains member ``number``, counted from 0, by itself: the first has the run's own
        seed, and each its share of the time."""
        seed = self.seed
        if number:
            digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
            seed = int.from_bytes(digest[:8], "big") % SEEDS
        limit = self.time_limit / self.members if self.time_limit else None
        return self.model_copy(update={"members": 1, "seed": seed, "time_limit": limit})

    @property
    def objective_options(self) -> BaseModel:
        """The options of the objective, typed."""
        return resolve_options(self.objective, self.backbone, self.options)[0]

    @property
    def backbone_options(self) -> BaseModel:
        """The options of the backbone, typed."""
        return resolve_options(self.objective, self.backbone, self.options)[1]

    def fingerprint(self, data_sha256: str) -> str:
        """Changes with whatever changes the trained weights; checkpoints are kept under it."""
        # When it was evaluated decides which weights are kept; when it was saved does not.
        measured = [self.evaluate_every, self.validation_pairs]
        parts = [self.objective, self.backbone, self.options, self.seed, measured, data_sha256]
        ensemble = {name: getattr(self, name) for name in ALONE}
        parts += [ensemble] if ensemble != ALONE else []
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, workdir: Path) -> None:
        """Store as ``config.json`` in ``workdir``, which is made if needed."""
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / CONFIG, self.model_dump(mode="json"))

    @classmethod
    def read(cls, workdir: Path) -> TrainingConfig:
        """The configuration in ``workdir``. Raises BadData or BadOptions."""
        try:
            return cls.model_validate_json((workdir / CONFIG).read_bytes())
        except FileNotFoundError:
            raise BadData(f"{workdir} holds no {CONFIG}.") from None
        except ValidationError as error:
            raise BadOptions(f"{CONFIG}: {explain(error)}") from None


def resolve_options(
    objective: str, backbone: str, options: dict[str, Any]
) -> tuple[BaseModel, BaseModel]:
    """Split flat options into those of the objective and those of the backbone, validated.

    Values may be text, as they come from a command line. Raises BadOptions for an unknown method,
    an unknown option (naming the known ones) or a value out of range.
    """
    try:
        methods = find(OBJECTIVES, objective), find(BACKBONES, split_backbone(backbone)[0])
    except UnknownMethod as error:
        raise BadOptions(str(error)) from None
    kinds = [method.load_options() for method in methods]
    known = [name for kind in kinds for name in kind.model_fields]
    if unknown := sorted(set(options) - set(known)):
        raise BadOptions(f"Unknown option {', '.join(unknown)}. Known: {', '.join(known)}.")
    try:
        first, second = (
            kind.model_validate({k: v for k, v in options.items() if k in kind.model_fields})
            for kind in kinds
        )
    except ValidationError as error:
        raise BadOptions(explain(error)) from None
    return first, second


def explain(error: ValidationError) -> str:
    """A pydantic error as one line for the user."""
    return " ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}." for item in error.errors())
