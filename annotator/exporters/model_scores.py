"""What reward models say of the answers of a list of pairs, and how far their margins are odds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg

from annotator.exporters.recipe import ExportOptions
from annotator.exporters.reward_columns import ModelFacts
from annotator.models import Project, Split
from annotator.queries.columns import read_columns
from annotator.queries.pair_texts import Batch
from annotator.queries.pairs import Selection, counted
from models.margins import Slope, fit_slope
from models.rejection import draw

Score = tuple[float, float | None]  # mean, variance
HELD_OUT: Final = (Split.VALIDATION.value, Split.TEST.value)
MOST_PAIRS: Final = 20_000  # from which a temperature is learned

SCORES: Final = """
    SELECT reward_model_id, response_id, mean, variance FROM annotator_rewardscore
    WHERE reward_model_id = ANY(%s) AND response_id = ANY(%s)
"""
CANDIDATES: Final = """
    SELECT r.prompt_id, r.id, s.mean FROM annotator_response r
    JOIN annotator_rewardscore s ON s.response_id = r.id AND s.reward_model_id = %s
    WHERE r.prompt_id = ANY(%s) ORDER BY r.prompt_id, r.id
"""
# A larger sample would hold this one; pairs of one prompt stay together.
MARGINS: Final = """
    SELECT v.prompt_id, x.mean - y.mean AS margin,
           (v.wins_a + v.ties / 2.0)::float8 / (v.wins_a + v.wins_b + v.ties) AS p
    FROM ({pairs}) v
    JOIN annotator_rewardscore x ON x.response_id = v.a_id AND x.reward_model_id = %(model)s
    JOIN annotator_rewardscore y ON y.response_id = v.b_id AND y.reward_model_id = %(model)s
    WHERE v.wins_a + v.wins_b + v.ties > 0
    ORDER BY hashint8extended(v.prompt_id, 0), v.a_id, v.b_id LIMIT %(most)s
"""
MARGIN_COLUMNS: Final = {
    "prompt_id": "bigint", "margin": "double precision", "p": "double precision"
}  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """By model, by response. ``drawn``: the answers that a draw accepted, by prompt with a score."""

    of: dict[int, dict[int, Score]]
    drawn: dict[int, frozenset[int]]
    scored: frozenset[int]  # answers that the draw could have accepted

    def mean(self, model: int, response: int) -> float | None:
        found = self.of[model].get(response)
        return None if found is None else found[0]

    def margin(self, model: ModelFacts, chosen: int, rejected: int) -> float | None:
        """In standard deviations of the model, signed."""
        won, lost = self.mean(model.id, chosen), self.mean(model.id, rejected)
        return None if won is None or lost is None else (won - lost) / model.scaling.scale


def scores_of(models: Iterable[int], batch: Batch, connection: psycopg.Connection) -> Scores:
    """One statement for a list of pairs."""
    wanted = sorted({*models})
    found: dict[int, dict[int, Score]] = {pk: {} for pk in wanted}
    if wanted:
        ids = sorted({pk for pair in batch.pairs for pk in (pair.a_id, pair.b_id)})
        with psycopg.Cursor(connection) as cursor:
            cursor.execute(SCORES, [wanted, ids])
            for model, response, mean, variance in cursor:
                found[model][response] = mean, variance
    return Scores(found, {}, frozenset())


@dataclass(frozen=True)
class Draw:
    """RSO over all scored answers of a prompt, whether in a pair or not."""

    model: ModelFacts
    count: int
    beta: float
    seed: int

    def of(
        self, batch: Batch, connection: psycopg.Connection
    ) -> tuple[dict[int, Any], frozenset[int]]:
        """Accepted answers by prompt, and all that have a score."""
        prompts = sorted({pair.prompt_id for pair in batch.pairs})
        by_prompt: dict[int, list[tuple[int, float]]] = {}
        with psycopg.Cursor(connection) as cursor:
            cursor.execute(CANDIDATES, [self.model.id, prompts])
            for prompt, response, mean in cursor:
                by_prompt.setdefault(prompt, []).append((response, mean))
        drawn = {}
        for prompt, candidates in by_prompt.items():
            ids, means = zip(*candidates, strict=True)
            places = draw(
                np.array(means) / self.model.scaling.scale,
                count=self.count,
                beta=self.beta,
                rng=np.random.default_rng([self.seed, prompt]),
            )
            drawn[prompt] = frozenset(ids[place] for place in places)
        known = frozenset(pk for some in by_prompt.values() for pk, _ in some)
        return drawn, known


def held_out_slope(
    project: Project, options: ExportOptions, model: ModelFacts, *, connection: psycopg.Connection
) -> Slope | None:
    """How margins of a model become log-odds, learned on votes of the validation and test splits."""
    selection = Selection(options.raters, tuple(options.rater_names), HELD_OUT)
    sql, values = counted(project, selection, connection=connection)
    found = read_columns(
        connection,
        MARGINS.format(pairs=sql),
        values | {"model": model.id, "most": MOST_PAIRS},
        MARGIN_COLUMNS,
    )
    return fit_slope(found["margin"], found["p"], found["prompt_id"])
