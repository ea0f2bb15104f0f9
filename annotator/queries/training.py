"""What there is to train reward models on: pairs, votes, and how many of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.models import Project, Split
from annotator.queries.figures import cached
from annotator.queries.pair_texts import training_rows
from annotator.queries.pairs import Selection, counted
from annotator.queries.snapshot import current
from annotator.queries.training_rows import ratings_of
from models.intervals import wilson

LEAST_TRAIN: Final = 10  # preferences; fewer teach nothing that a test could show
LEAST_TEST: Final = 1
WIDE: Final = 0.04
# The width of an interval is foretold for this accuracy: about what small models reach.
FORETOLD_AT: Final = 0.7


@dataclass(frozen=True)
class SplitCounts:
    """Pairs of one split that somebody voted on. ``decided`` have a majority, the rest do not."""

    split: str
    decided: int = 0
    undecided: int = 0
    prompts: int = 0  # of decided pairs

    @property
    def label(self) -> str:
        return Split(self.split).label


@dataclass(frozen=True)
class Readiness:
    """What a project has to train and measure on."""

    splits: dict[str, SplitCounts] = field(
        default_factory=lambda: {name: SplitCounts(name) for name in Split.values}
    )

    @property
    def decided(self) -> int:
        return sum(split.decided for split in self.splits.values())

    @property
    def rows(self) -> list[SplitCounts]:
        return list(self.splits.values())

    @property
    def is_enough(self) -> bool:
        """Whether a training would be accepted."""
        enough = self.splits[Split.TRAIN].decided >= LEAST_TRAIN
        return enough and self.splits[Split.TEST].decided >= LEAST_TEST

    @property
    def points(self) -> str:
        """``half_width`` in percentage points, rounded up."""
        return "?" if self.half_width is None else str(math.ceil(100 * self.half_width))

    @property
    def is_wide(self) -> bool:
        return self.half_width is None or self.half_width > WIDE

    @property
    def foretold_at(self) -> float:
        return FORETOLD_AT

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of a test accuracy of 70 %; None without test pairs.

        Pairs of one prompt are not independent, so prompts are counted rather than pairs: the
        real interval is this wide or narrower.
        """
        prompts = self.splits[Split.TEST].prompts
        if not prompts:
            return None
        low, high = wilson(FORETOLD_AT * prompts, prompts)
        return (high - low) / 2


COUNTS_SQL: Final = """
SELECT split,
       count(*) FILTER (WHERE decided), count(*) FILTER (WHERE NOT decided),
       count(DISTINCT prompt_id) FILTER (WHERE decided)
FROM (
    SELECT split, prompt_id,
           (wins_a > wins_b AND wins_a > ties) OR (wins_b > wins_a AND wins_b > ties) AS decided
    FROM ({counted}) pairs WHERE wins_a + wins_b + ties > 0
) decided
GROUP BY split
"""


def readiness(project: Project) -> Readiness:
    """Counts of the project's pairs per split, a minute old at most."""
    return cached("readiness", [project.pk], lambda _: {project.pk: count(project)})[project.pk]


def count(project: Project) -> Readiness:
    """The same, counted now: a walk over all votes."""
    sql, values = counted(project, Selection())
    with current().cursor() as cursor:
        cursor.execute(COUNTS_SQL.format(counted=sql), values)
        found = {row[0]: SplitCounts(*row) for row in cursor.fetchall()}
    return Readiness({name: found.get(name, SplitCounts(name)) for name in Split.values})


def rows_of(
    project: Project,
    split: str,
    *,
    attributes: list[str],
    without_rankings: bool,
    connection: psycopg.Connection,
) -> Iterator[dict[str, Any]]:
    """Training rows of one split (models.pairs); pairs without a majority come with p = .5.

    With mean ratings on the ``attributes``, if any. ``without_rankings`` leaves out the votes that
    rankings of several responses come to, which are then learned from as what they are.
    """

    def ratings(prompts: Iterable[int]) -> dict[int, dict[str, float]]:
        return ratings_of(project, prompts, attributes, connection=connection)

    return training_rows(
        project,
        split,
        selection=Selection(without_kinds=("ranking",) if without_rankings else ()),
        keep_ties=True,
        ratings=ratings if attributes else None,
        connection=connection,
    )


@dataclass(frozen=True)
class Votes:
    """People's votes (n,) on pairs of the test split that more than one vote was given on."""

    pair: NDArray[np.int64]
    rater: NDArray[np.int64]
    outcome: NDArray[np.int64]  # +1, 0, -1, for the response with the smaller id
    has_imported: bool
    has_simulated: bool


VOTES_SQL: Final = """
SELECT pair, rater_id, outcome, imported, is_simulated FROM (
    SELECT dense_rank() OVER pairs AS pair, count(*) OVER (PARTITION BY v.prompt_id, v.a, v.b) AS n,
           v.rater_id, v.outcome, r.kind = 'imported' AS imported, r.is_simulated
    FROM (
        SELECT prompt_id, least(a_id, b_id) AS a, greatest(a_id, b_id) AS b, rater_id,
               CASE WHEN a_id < b_id THEN outcome ELSE -outcome END AS outcome
        FROM annotator_preference WHERE project_id = %(project)s AND NOT is_gold
          -- what people said by themselves: overruled votes too, decisions about them not
          AND judgment_id NOT IN (SELECT id FROM annotator_judgment
                                  WHERE kind = 'adjudication' AND is_current
                                    AND project_id = %(project)s)
    ) v
    JOIN annotator_prompt q ON q.id = v.prompt_id AND q.split = 'test'
    JOIN annotator_rater r ON r.id = v.rater_id AND r.kind <> 'judge' AND NOT r.is_excluded
    WINDOW pairs AS (ORDER BY v.prompt_id, v.a, v.b)
) votes WHERE n > 1
"""


def test_votes(project: Project, *, connection: psycopg.Connection) -> Votes:
    """Votes of people and imported raters on the test split, without control tasks."""
    with connection.cursor() as cursor:
        rows = cursor.execute(VOTES_SQL, {"project": project.pk}).fetchall()
    columns = np.array([row[:3] for row in rows], dtype=np.int64).reshape(-1, 3).T
    return Votes(
        *columns,
        has_imported=any(row[3] for row in rows),
        has_simulated=any(row[4] for row in rows),
    )
