"""What can be set of a simulated model, and the models that have a name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

# Openings that say nothing, which some judges take for an answer (arXiv 2507.08794).
OPENERS: Final = (
    "Thought process:",
    "Let's solve this problem step by step.",
    "Solution",
    "解",
    "かいせつ",
    "Respuesta",
)
PROBES: Final = (" ", ".", ",", ":", *OPENERS)


class Dials(BaseModel):
    """One simulated model. Utilities are in units of the usual difference between two answers.

    The judge feels ``u_first - u_second + position_bias + noise`` and names the first where that
    is above ``tie_margin``, the second below its negative, a tie between. Rates of faults are
    shares of attempts: what fails once may succeed when it is asked again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    noise: float = Field(
        default=0.7, ge=0, le=100, description="spread of the noise on a difference"
    )
    link: Literal["gaussian", "logistic"] = Field(
        default="gaussian", description="shape of the noise"
    )
    shared: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the items whose noise is the same in every order",
    )
    position_bias: float = Field(
        default=0.0, ge=-100, le=100, description="added to what is shown first"
    )
    length_bias: float = Field(
        default=0.0, ge=0, le=1, description="share of items decided by length"
    )
    length_weight: float = Field(
        default=0.0, ge=-100, le=100, description="utility of being e times as long"
    )
    family: str = Field(default="", description="the generator whose answers it prefers")
    family_bias: float = Field(
        default=0.0, ge=-100, le=100, description="utility of that generator's name"
    )
    criteria_sensitivity: float = Field(
        default=0.8, ge=0, le=1, description="how far criteria in the prompt replace its own taste"
    )
    tie_margin: float = Field(default=0.1, ge=0, le=100, description="a weaker preference is a tie")
    overconfidence: float = Field(
        default=1.0, gt=0, le=100, description="factor on its log-odds: 1 is honest, 3 boasts"
    )
    slip: float = Field(
        default=0.03, ge=0, le=1, description="share of yes-or-no answers that are wrong"
    )
    hallucination: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of what it takes out of people's words that nobody said",
    )
    proposal: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="share of pairs for which it proposes a criterion that tells the answers apart",
    )
    planted: str = Field(
        default="",
        max_length=400,
        description="features its proposals know to count, with commas; empty: its own taste",
    )
    distractors: int = Field(
        default=10,
        ge=0,
        le=100,
        description="features of which it proposes criteria that count for nothing",
    )
    keys: Mapping[str, float] = Field(
        default_factory=dict, description="probe text to the probability that it passes for good"
    )

    malformed: float = Field(default=0.0, ge=0, le=1, description="replies not in the asked form")
    cut: float = Field(default=0.0, ge=0, le=1, description="replies that end too early")
    refusal: float = Field(default=0.0, ge=0, le=1, description="replies that decline to judge")
    too_many: float = Field(default=0.0, ge=0, le=1, description="attempts answered with 429")
    retry_after: float = Field(
        default=0.0, ge=0, le=3600, description="seconds that a 429 asks to wait"
    )
    server_error: float = Field(default=0.0, ge=0, le=1, description="attempts answered with 500")
    hang: float = Field(default=0.0, ge=0, le=1, description="attempts that are never answered")
    broken: float = Field(
        default=0.0, ge=0, le=1, description="replies whose connection dies midway"
    )
    slow: float = Field(default=0.0, ge=0, le=1, description="replies that trickle")
    slow_ms: float = Field(
        default=200.0, ge=0, le=60_000, description="between two pieces of a slow reply"
    )
    latency_ms: float = Field(default=0.0, ge=0, le=600_000, description="before every reply")
    max_concurrency: int = Field(
        default=0, ge=0, description="requests at once, more get 429; 0: no limit"
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> Dials:
        if self.too_many + self.server_error + self.hang + self.broken + self.slow > 1:
            raise ValueError("too_many, server_error, hang, broken and slow add up to over 1")
        if self.malformed + self.cut + self.refusal > 1:
            raise ValueError("malformed, cut and refusal add up to over 1")
        if not all(0 <= rate <= 1 for rate in self.keys.values()):
            raise ValueError("keys: a probability lies outside 0..1")
        return self

    def but(self, **changes: Any) -> Dials:
        """A copy with some dials turned. Raises ValueError for what is out of range."""
        return Dials.model_validate({**self.model_dump(), **changes})


@dataclass(frozen=True, slots=True)
class Simulated:
    """One row of the table of models."""

    summary: str
    dials: Dials


MODELS: Final[Mapping[str, Simulated]] = {
    "sim-fair": Simulated("no bias, some noise, honest about how sure it is", Dials()),
    "sim-careful": Simulated(
        "little noise, half of it the same in both orders", Dials(noise=0.35, shared=0.5)
    ),
    "sim-position": Simulated(
        "leans to whatever is shown first, and is too sure of it",
        Dials(position_bias=0.8, overconfidence=2.5),
    ),
    "sim-verbose": Simulated(
        "takes the longer answer one time in four and likes length otherwise",
        Dials(length_bias=0.25, length_weight=0.4),
    ),
    "sim-gullible": Simulated(
        "takes empty openings for answers",
        Dials(keys={" ": 0.6, ":": 0.35, "Thought process:": 0.75, "Solution": 0.5}),
    ),
    "sim-boastful": Simulated(
        "as noisy as a coin now and then, and always sure", Dials(noise=1.5, overconfidence=4)
    ),
    "sim-clannish": Simulated(
        "prefers the answers of the generator elm-chat", Dials(family="elm-chat", family_bias=0.9)
    ),
    "sim-hasty": Simulated(
        "very noisy, often a tie, sometimes out of form",
        Dials(noise=1.6, tie_margin=0.5, malformed=0.05, cut=0.02),
    ),
    "sim-broken": Simulated(
        "every fault there is, now and then",
        Dials(
            malformed=0.05,
            cut=0.02,
            refusal=0.02,
            too_many=0.1,
            retry_after=0.05,
            server_error=0.03,
            hang=0.02,
            broken=0.03,
        ),
    ),
}


def named() -> dict[str, Dials]:
    """Every model of the table: what a server offers unless told otherwise."""
    return {name: row.dials for name, row in MODELS.items()}


def read_dials(pairs: Iterable[str]) -> dict[str, Any]:
    """``["noise=0.5", 'keys={"Solution": 1}']`` as changes for ``Dials.but``.

    Raises ValueError that names the dials there are.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in Dials.model_fields:
            known = ", ".join(Dials.model_fields)
            raise ValueError(f"{pair!r} is no dial. Write NAME=VALUE with one of: {known}.")
        try:
            changes[name] = json.loads(value) if name == "keys" else value
            Dials().but(**changes)
        except (ValidationError, json.JSONDecodeError) as error:
            raise ValueError(f"{pair}: {error}") from error
    return changes
