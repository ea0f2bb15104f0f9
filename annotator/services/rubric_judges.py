"""What a judge takes over from an approved version of a rubric: its criteria, copied.

They are copied because a judge never changes. What a judge cannot use is left out and can be
counted beforehand: criteria of one prompt or tag, since a judge reads every prompt alike, and
those that it has nobody to ask about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from annotator.errors import Invalid
from annotator.models import Criterion, Project, RubricVersion
from annotator.services import rubrics
from models.training import explain
from rubrics.judging import CONDITIONED, conditioning
from rubrics.judging.options import MAX_CRITERIA
from rubrics.judging.prompts import one_line
from rubrics.judging.rubric_options import RubricLine

MAX_CHARACTERS: Final = 20_000  # of all lines: more than that drowns the answers in every prompt
# Who may have checked what a judge of a kind takes over. One that compares reads words only, so
# what people check is fine; "the reward model likes it" are no words about an answer.
USABLE: Final = {
    "llm": (Criterion.Verifier.LLM, Criterion.Verifier.PROGRAM, Criterion.Verifier.PERSON),
    "rubric": (Criterion.Verifier.LLM, Criterion.Verifier.PROGRAM),
}


@dataclass(frozen=True)
class Taken:
    """``criteria`` as the options of the kind have them, and how many were left out by reason."""

    criteria: list[Any]
    narrower: int
    unchecked: int

    @property
    def left_out(self) -> str:
        """In words; empty where nothing was."""
        told = []
        if self.narrower:
            told.append(f"{self.narrower:,} of one prompt or tag only")
        if self.unchecked:
            told.append(f"{self.unchecked:,} that it has nobody to ask about")
        return " and ".join(told)


def weight_of(criterion: Criterion) -> float:
    """Signed for a yes: its weight, or its polarity where none was fitted."""
    return float(criterion.polarity) if criterion.weight is None else criterion.weight


def is_usable(kind: str, criterion: Criterion) -> bool:
    """Whether a judge of this kind takes a criterion over."""
    return criterion.scope == Criterion.Scope.PROJECT and criterion.verifier in USABLE[kind]


def approved(project: Project) -> list[RubricVersion]:
    """The versions that can condition a judge: by name of the rubric, the newest first."""
    rows = RubricVersion.objects.filter(
        rubric__project=project, rubric__archived_at=None, state=RubricVersion.State.APPROVED
    )
    rows = rows.select_related("rubric", "verifier", "verifier__endpoint")
    return list(rows.order_by("rubric__name", "-number"))


def take(kind: str, version: RubricVersion) -> Taken:
    """The criteria of a version as a judge of this kind is given them. Raises Invalid."""
    if kind not in CONDITIONED:
        raise Invalid("A judge of this kind does not read a rubric.")
    if version.is_draft:
        raise Invalid(f"{version} is a draft.", advice="Approve it first: a judge never changes.")
    given = rubrics.in_force(version)
    wide = [one for one in given if one.scope == Criterion.Scope.PROJECT]
    used = [one for one in wide if is_usable(kind, one)]
    if not any(weight_of(one) for one in used):
        raise Invalid(
            f"{version} has no criterion that this judge could use.",
            advice="It needs one that holds for every prompt and that a model or a program checks.",
        )
    made = _lines(version, used) if kind == "llm" else _checked(version, used)
    return Taken(made, len(given) - len(wide), len(wide) - len(used))


def _lines(version: RubricVersion, used: Sequence[Criterion]) -> list[str]:
    """For a judge that compares: words, what matters most first where weights differ."""
    lines = conditioning.lines(
        [conditioning.Condition(one_line(one.text), weight_of(one), one.theme) for one in used]
    )
    advice = "Take fewer into a new version, or have them checked one by one (kind rubric)."
    if len(lines) > MAX_CRITERIA:
        raise Invalid(
            f"{version} has {len(lines):,} criteria: one prompt takes {MAX_CRITERIA}.",
            advice=advice,
        )
    if sum(map(len, lines)) > MAX_CHARACTERS:
        raise Invalid(
            f"The criteria of {version} are longer than {MAX_CHARACTERS:,} characters together.",
            advice=advice,
        )
    return lines


def _checked(version: RubricVersion, used: Sequence[Criterion]) -> list[dict[str, Any]]:
    """For a judge that checks them one by one."""
    try:
        return [
            RubricLine(
                text=one_line(one.text),
                weight=weight_of(one),
                verifier="program" if one.verifier == Criterion.Verifier.PROGRAM else "llm",
                program=one.program,
            ).model_dump(mode="json")
            for one in used
        ]
    except ValidationError as error:
        raise Invalid(
            f"{version} has a criterion that cannot be checked: {explain(error)}"
        ) from None
