"""Columns that say what a rubric and a reward model make of both sides of a row.

Scores are looked up for a list of pairs at a time, in the snapshot that the pairs come from. What
has no score is null in its row and counted in the manifest: a missing reward drops no pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import psycopg
from pydantic import BaseModel

from annotator.errors import Invalid
from annotator.exporters.files import Row
from annotator.exporters.verdicts import Decided
from annotator.models import Criterion, Judge, Project, RewardModel, RubricVersion
from annotator.queries import reward_scores as queries
from annotator.queries import rubrics
from annotator.queries.pair_texts import Batch
from annotator.queries.snapshot import current
from rubrics.rewards import EVEN, Scaling, binary

COLUMN_NOTES: Final = {
    "chosen_rubric": "the reward of chosen by the rubric; the manifest says which and how",
    "rejected_rubric": "the same of rejected",
    "chosen_criteria": "the verdict on chosen of each criterion, in the order of the manifest:"
    " 1 yes, 0 no, null does not apply or not known",
    "rejected_criteria": "the same of rejected",
    "chosen_reward": "the reward model's standardized score of chosen, with the rubric's added"
    " where there is one",
    "rejected_reward": "the same of rejected",
}


@dataclass(frozen=True)
class ModelFacts:
    """``range``: the lowest and the highest score there is."""

    id: int
    number: int
    name: str
    scaling: Scaling
    range: tuple[float, float]


@dataclass(frozen=True)
class RubricFacts:
    """``scaling`` brings rewards to mean 0 and spread 1; ``rater`` is the verifying judge's."""

    id: int
    name: str
    digest: str
    basis: dict[str, Any]
    verifier: str
    rater: int | None
    criteria: list[dict[str, Any]]
    scaling: Scaling


@dataclass(frozen=True)
class Source:
    """Where the columns come from."""

    rubric: RubricFacts | None
    model: ModelFacts | None
    reward: str
    lose: float
    weight: float
    with_criteria: bool

    @property
    def columns(self) -> dict[str, str]:
        """Column -> kind, as exporters.types.RowFormat has them."""
        found = {}
        if self.rubric is not None:
            found |= dict.fromkeys(("chosen_rubric", "rejected_rubric"), "float")
            if self.with_criteria:
                found |= dict.fromkeys(("chosen_criteria", "rejected_criteria"), "ints")
        if self.model is not None:
            found |= dict.fromkeys(("chosen_reward", "rejected_reward"), "float")
        return found

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        found: dict[str, Any] = {}
        if (one := self.rubric) is not None:
            found["rubric"] = {
                "version": one.name,
                "id": one.id,
                "digest": one.digest,
                "form": one.basis.get("form"),
                "not_applicable": one.basis.get("not_applicable"),
                "reward": self.reward,
                **({"lose": self.lose} if self.reward == "binary" else {}),
                "center": one.scaling.center,
                "scale": one.scaling.scale,
                "verifier": one.verifier,
                "criteria": one.criteria,
            }
        if self.model is not None:
            found["reward_model"] = {
                "name": self.model.name,
                "center": self.model.scaling.center,
                "scale": self.model.scaling.scale,
            }
        if self.rubric is not None and self.model is not None:
            found["combined"] = {
                "formula": "(model - center) / scale + weight * (rubric - center) / scale",
                "weight": self.weight,
            }
        return found


def find(
    project: Project, options: BaseModel, *, connection: psycopg.Connection | None = None
) -> Source | None:
    """What the options ask for; None where they ask for no such column.

    Raises Invalid for a version or model that there is not, or that has scored nothing.
    """
    raw = connection or current()
    named, number = getattr(options, "rubric", ""), getattr(options, "reward_model", 0)
    rubric = _rubric(project, named, raw) if named else None
    model = find_model(project, number, raw) if number else None
    if rubric is None and model is None:
        return None
    return Source(
        rubric=rubric,
        model=model,
        reward=getattr(options, "rubric_reward", "raw"),
        lose=getattr(options, "rubric_lose", -0.1),
        weight=getattr(options, "rubric_weight", 1.0),
        with_criteria=getattr(options, "rubric_criteria", False),
    )


def find_version(project: Project, named: str) -> RubricVersion:
    """The approved version called "NAME:vN", "NAME vN" or by its id. Raises Invalid."""
    text = " ".join(named.replace("\0", "").split())
    if text.isascii() and text.isdecimal() and len(text) < 19:
        rows = RubricVersion.objects.filter(rubric__project=project).select_related("rubric")
        found = rows.filter(pk=int(text)).first()
    else:
        found = rubrics.named(project, text, only_approved=True)
    if found is None:
        raise Invalid(f"There is no rubric version “{text}”.", advice="Write NAME:v1, or its id.")
    if found.is_draft:
        raise Invalid(f"{found} is a draft: only approved versions give a reward.")
    return found


def _rubric(project: Project, named: str, raw: psycopg.Connection) -> RubricFacts:
    version = find_version(project, named)
    summary = queries.summary("rubric_version", version.pk, connection=raw)
    if summary is None:
        raise Invalid(
            f"{version} has scored no response.", advice="Score responses on its page of use."
        )
    with psycopg.Cursor(raw) as cursor:
        cursor.execute(
            "SELECT (figures -> %s)::text FROM annotator_rubricversion WHERE id = %s",
            [queries.BASIS, version.pk],
        )
        row = cursor.fetchone()
    basis = orjson.loads(row[0]) if row and row[0] else {}
    judge = Judge.objects.filter(pk=basis.get("judge")).first()
    return RubricFacts(
        id=version.pk,
        name=str(version),
        digest=version.digest,
        basis=basis,
        verifier=str(judge) if judge else "",
        rater=judge.rater_id if judge else None,
        criteria=[
            {
                "id": one.pk, "text": one.text, "polarity": one.polarity, "weight": one.weight,
                "verifier": one.verifier, "program": one.program,
            }
            for one in version.criteria.filter(decision=Criterion.Decision.ACCEPTED)
        ],
        scaling=_standard(summary),
    )  # fmt: skip


def find_model(project: Project, number: int, raw: psycopg.Connection) -> ModelFacts:
    """A reward model that has scored responses. Raises Invalid."""
    model = RewardModel.objects.filter(project=project, number=number).first()
    if model is None:
        raise Invalid(f"There is no reward model {number}.")
    summary = queries.summary("reward_model", model.pk, connection=raw)
    if summary is None:
        raise Invalid(f"{model} has scored no response.", advice="Score responses on its page.")
    return ModelFacts(
        model.pk, model.number, model.name, _standard(summary), (summary.low, summary.high)
    )


def _standard(summary: queries.Summary) -> Scaling:
    """Mean 0, spread 1; what never differs stays where it is."""
    return Scaling(summary.mean, summary.spread if summary.spread > EVEN else 1.0)


SCORES: Final = """
    SELECT response_id, mean FROM annotator_rewardscore
    WHERE {source}_id = %s AND response_id = ANY(%s)
"""
# People answer for the criteria that are theirs; beside them counts only who verified the scores.
VERDICTS: Final = """
    SELECT v.response_id, v.criterion_id,
           CASE WHEN avg(coalesce(v.value, 0.5)) > 0.5 THEN 1
                WHEN avg(coalesce(v.value, 0.5)) < 0.5 THEN 0 END
    FROM annotator_criterionverdict v
    JOIN annotator_criterion c ON c.id = v.criterion_id
    LEFT JOIN annotator_rater r ON r.id = v.rater_id
    WHERE v.criterion_id = ANY(%s) AND v.response_id = ANY(%s)
      AND CASE WHEN c.verifier = 'person' THEN r.kind <> 'judge' AND NOT r.is_excluded
               ELSE v.rater_id IS NOT DISTINCT FROM
                    CASE WHEN c.verifier = 'llm' THEN %s::bigint END END
    GROUP BY v.response_id, v.criterion_id
"""


@dataclass(slots=True)
class Looked:
    """What is known of the responses of one list of pairs, by response."""

    rubric: dict[int, float] = field(default_factory=dict)
    model: dict[int, float] = field(default_factory=dict)
    verdicts: dict[tuple[int, int], int | None] = field(default_factory=dict)


class Unsaid(list[int | None]):
    """Verdicts on a side of which there are none at all: null is also what does not apply."""


class Columns:
    """One pass over the pairs: looks scores up, writes them into rows, counts what is missing."""

    column_notes = COLUMN_NOTES

    def __init__(self, source: Source, *, decided_by: str = "votes") -> None:
        self.source = source
        self.columns = source.columns
        self.rows = 0
        self.missing: Counter[str] = Counter()
        self._decided_by = decided_by

    def look_up(self, batch: Batch, connection: psycopg.Connection) -> Looked:
        """Two or three statements for a list of pairs."""
        ids = sorted({pk for pair in batch.pairs for pk in (pair.a_id, pair.b_id)})
        looked = Looked()
        rubric, model = self.source.rubric, self.source.model
        with psycopg.Cursor(connection) as cursor:
            if rubric is not None:
                cursor.execute(SCORES.format(source="rubric_version"), [rubric.id, ids])
                looked.rubric = dict(cursor.fetchall())
                if self.source.with_criteria:
                    criteria = [one["id"] for one in rubric.criteria]
                    cursor.execute(VERDICTS, [criteria, ids, rubric.rater])
                    looked.verdicts = {(one, of): value for one, of, value in cursor.fetchall()}
            if model is not None:
                cursor.execute(SCORES.format(source="reward_model"), [model.id, ids])
                looked.model = dict(cursor.fetchall())
        return looked

    def deciding(self, looked: Looked, response_id: int) -> float | None:
        """The score by which the recipe decides, on its own scale; None where there is none."""
        scores = looked.rubric if self._decided_by == "rubric" else looked.model
        return scores.get(response_id)

    def of(self, looked: Looked, one: Decided, cells: Row) -> Row:
        """The cells of a row."""
        sides, row = (one.chosen.id, one.rejected.id), Row()
        if self.source.rubric is not None:
            row["chosen_rubric"], row["rejected_rubric"] = self._rubric(looked, sides)
            if self.source.with_criteria:
                ids = [criterion["id"] for criterion in self.source.rubric.criteria]
                for name, pk in zip(("chosen_criteria", "rejected_criteria"), sides, strict=True):
                    said = [looked.verdicts.get((pk, criterion)) for criterion in ids]
                    is_any = any((pk, criterion) in looked.verdicts for criterion in ids)
                    row[name] = said if is_any else Unsaid(said)
        if self.source.model is not None:
            row["chosen_reward"], row["rejected_reward"] = (
                self._combined(looked, pk) for pk in sides
            )
        return row

    def flipped(self, cells: Row) -> Row:
        """What chosen had is rejected's, and the other way round."""
        other = {"chosen": "rejected", "rejected": "chosen"}
        names = ((name, *name.split("_", 1)) for name in self.columns)
        return {name: cells[f"{other[side]}_{what}"] for name, side, what in names}

    def _rubric(self, looked: Looked, sides: tuple[int, int]) -> Sequence[float | None]:
        rewards = [looked.rubric.get(pk) for pk in sides]
        if self.source.reward != "binary":
            return rewards
        known = [one for one in rewards if one is not None]
        # A side without a reward has no rank, and then neither has the other.
        return binary(known, lose=self.source.lose) if len(known) == 2 else (None, None)

    def _combined(self, looked: Looked, pk: int) -> float | None:
        score, model, rubric = looked.model.get(pk), self.source.model, self.source.rubric
        if score is None or model is None:
            return None
        found = (score - model.scaling.center) / model.scaling.scale
        if rubric is None:
            return found
        reward = looked.rubric.get(pk)
        if reward is None:
            return None
        own = rubric.scaling
        return found + self.source.weight * (reward - own.center) / own.scale

    def count(self, rows: Sequence[dict[str, Any]]) -> None:
        """Hear of rows that were written."""
        self.rows += len(rows)
        for name, kind in self.source.columns.items():
            if kind == "float":
                self.missing[name] += sum(row[name] is None for row in rows)
            elif kind == "ints":
                self.missing[name] += sum(isinstance(row[name], Unsaid) for row in rows)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest: where the columns come from, and in how many rows they lack something."""
        missing = {name: self.missing[name] for name in self.source.columns}
        return {"rewards": self.source.as_dict() | {"missing": missing}}

    def notes(self) -> list[str]:
        """For the card."""
        found = []
        if (one := self.source.rubric) is not None:
            how = self.source.reward if self.source.reward == "binary" else one.basis.get("form")
            by = f", verified by {one.verifier}" if one.verifier else ""
            found.append(
                f"`chosen_rubric` and `rejected_rubric`: rubric {one.name} (criteria"
                f" `{one.digest[:12]}`), {how} reward{by}; center {one.scaling.center:.6g}, scale"
                f" {one.scaling.scale:.6g} within prompts."
            )
            if self.source.with_criteria:
                found.append("Criteria, in the order of the lists of verdicts:")
                found += [f"{n}. {_line(row['text'])}" for n, row in enumerate(one.criteria, 1)]
        if (model := self.source.model) is not None:
            added = ""
            if self.source.rubric is not None:
                added = f", plus {self.source.weight:g} times the standardized reward of the rubric"
            found.append(
                f"`chosen_reward` and `rejected_reward`: {model.name}, less"
                f" {model.scaling.center:.6g} and over {model.scaling.scale:.6g}{added}."
            )
        lacking = ", ".join(f"{n:,} `{name}`" for name, n in self.missing.items() if n)
        found.append(f"Of {self.rows:,} rows without a value: {lacking or 'none'}.")
        return found


def _line(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")
