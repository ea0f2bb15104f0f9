"""One judge's verdicts beside what everybody else said of the same pairs, as numpy columns.

A pair is two responses of one prompt, whichever tasks asked about it: rows are turned so that the
response with the lower id stands first. Read through one snapshot by binary COPY: a million
verdicts take seconds and no Python objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.kinds import KINDS
from annotator.models import Judge, Rater, Split
from annotator.queries.columns import Columns, read_columns
from annotator.queries.quality_data import Codes, Floats

KIND_KEYS: Final = tuple(KINDS)
SPLIT_KEYS: Final = tuple(Split.values)
# A task without a verdict for one of these reasons says nothing of the judge; any other is a
# wrong answer. Keys of rubrics.llm.types.FAILURES and of queries.judging.OWN_FAILURES.
NOT_ITS_FAULT: Final = (
    "timeout",
    "connection",
    "rate-limited",
    "server",
    "refused",
    "budget",
    "unsupported",
    "picture",
    "internal",
)
MOST_GENERATORS: Final = 2_000
UNNAMED: Final = -1


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What the judge says of pairs, (n,) each; ``low`` < ``high`` are the ids of the responses.

    ``outcome`` is 1 where ``low`` is better, -1 where ``high`` is, 0 a tie. ``is_failed``: there is
    no readable verdict, and outcome means nothing. ``confidence`` as the judge says it and
    ``probability`` that ``low`` is better are nan where it says none. ``is_turned``: in the task,
    ``high`` stands first.
    """

    tasks: Codes
    prompts: Codes
    low: Codes
    high: Codes
    outcome: NDArray[np.int16]
    strength: NDArray[np.int16]
    kinds: NDArray[np.int16]  # codes of KIND_KEYS
    splits: NDArray[np.int16]  # codes of SPLIT_KEYS
    is_failed: NDArray[np.bool_]
    is_turned: NDArray[np.bool_]
    confidence: Floats
    probability: Floats

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True, eq=False)
class Votes:
    """What others say of pairs, (m,) each, turned as ``Verdicts``; ``raters`` are ids.

    ``is_failed``: another judge's answer could not be read, and ``outcome`` means nothing.
    """

    low: Codes
    high: Codes
    raters: Codes
    outcome: NDArray[np.int16]
    is_decision: NDArray[np.bool_]  # of a reviewer
    is_failed: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.low)


@dataclass(frozen=True, eq=False)
class Known:
    """Golds as pairs, (g,) each."""

    low: Codes
    high: Codes
    outcome: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Responses:
    """The responses of the judge's prompts by rising id: characters (0 for a picture), writer."""

    ids: Codes
    lengths: Codes
    generators: Codes  # codes of ``names``, UNNAMED where nobody is named
    names: list[str]

    def at(self, ids: Codes) -> Codes:
        """Positions of ids that are there."""
        found: Codes = np.searchsorted(self.ids, ids).astype(np.int64)
        return found


@dataclass(frozen=True, eq=False)
class Answers:
    """Single answers about pairs, (k,) each, in the order of ``Task.response_ids``.

    ``is_straight``: the first response was shown first. ``outcome`` as in a Preference,
    ``probability`` that the first is better, nan where there is none.
    """

    tasks: Codes
    models: Codes
    repeats: NDArray[np.int16]
    is_straight: NDArray[np.bool_]
    outcome: NDArray[np.int16]
    probability: Floats
    is_failed: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True, eq=False)
class Crowd:
    """Raters of the project other than those left out, by id."""

    names: dict[int, str]
    people: Codes  # ids of persons and imported raters
    judges: dict[int, int]  # rater id -> judge id

    def title(self, rater: int) -> str:
        return self.names.get(rater, str(rater))


@dataclass(frozen=True, eq=False)
class JudgeVotes:
    """Everything a report is computed from but ratings, costs and tags."""

    verdicts: Verdicts
    votes: Votes
    golds: Known
    responses: Responses
    answers: Answers
    crowd: Crowd


def read(raw: psycopg.Connection, judge: Judge) -> JudgeVotes:
    """Everything about one judge's pairs. The judge itself is not among the votes."""
    where = _values(judge)
    raw.execute("SET LOCAL jit = off")
    crowd = _crowd(raw, judge)
    return JudgeVotes(
        verdicts=_verdicts(raw, where),
        votes=_votes(raw, where, crowd),
        golds=_golds(raw, where),
        responses=_responses(raw, where),
        answers=_answers(raw, where),
        crowd=crowd,
    )


def _values(judge: Judge) -> dict[str, Any]:
    return {
        "project": judge.project_id,
        "judge": judge.pk,
        "rater": judge.rater_id,
        "kinds": list(KIND_KEYS),
        "splits": list(SPLIT_KEYS),
        "away": list(NOT_ITS_FAULT),
    }


OWN_TASKS: Final = """
    SELECT task_id FROM annotator_judgment
    WHERE project_id = %(project)s AND rater_id = %(rater)s AND is_current
      AND kind <> 'adjudication'
    UNION
    SELECT task_id FROM annotator_judgeoutcome WHERE judge_id = %(judge)s AND error <> ''
"""
OWN_PROMPTS: Final = f"""
    SELECT DISTINCT own_task.prompt_id FROM annotator_task own_task
    WHERE own_task.id IN ({OWN_TASKS})
"""
DESCRIBED: Final = """
    coalesce(array_position(%(kinds)s::text[], t.kind::text), 1) - 1 AS kind,
    coalesce(array_position(%(splits)s::text[], p.split::text), 1) - 1 AS split
"""
VERDICTS_SQL: Final = f"""
    SELECT j.task_id, v.prompt_id, v.a_id, v.b_id, v.outcome, v.strength, {DESCRIBED}, 0 AS failed,
           coalesce(o.confidence, j.confidence, 'NaN') AS confidence,
           CASE WHEN cardinality(t.response_ids) = 2 THEN coalesce(o.probability, 'NaN')
                ELSE 'NaN' END AS probability
    FROM annotator_judgment j
    JOIN annotator_preference v ON v.judgment_id = j.id
    JOIN annotator_task t ON t.id = j.task_id
    JOIN annotator_prompt p ON p.id = t.prompt_id
    LEFT JOIN annotator_judgeoutcome o ON o.judge_id = %(judge)s AND o.task_id = j.task_id
    WHERE j.project_id = %(project)s AND j.rater_id = %(rater)s AND j.is_current
      AND j.kind <> 'adjudication'
"""
# Of a best-worst task it is not known beforehand which pairs a verdict would have ordered.
FAILED_SQL: Final = f"""
    SELECT o.task_id, t.prompt_id, t.response_ids[i] AS a_id, t.response_ids[j] AS b_id,
           0 AS outcome, 0 AS strength, {DESCRIBED}, 1 AS failed,
           'NaN'::float8 AS confidence, 'NaN'::float8 AS probability
    FROM annotator_judgeoutcome o
    JOIN annotator_task t ON t.id = o.task_id
    JOIN annotator_prompt p ON p.id = t.prompt_id
    CROSS JOIN LATERAL generate_subscripts(t.response_ids, 1) i
    CROSS JOIN LATERAL generate_subscripts(t.response_ids, 1) j
    WHERE o.judge_id = %(judge)s AND o.error <> '' AND NOT o.error = ANY(%(away)s)
      AND t.kind IN ('pairwise', 'ranking') AND i < j
      AND NOT EXISTS (SELECT FROM annotator_judgment said
                      WHERE said.task_id = t.id AND said.rater_id = %(rater)s AND said.is_current)
"""
VERDICT_COLUMNS: Final = {
    "task_id": "bigint",
    "prompt_id": "bigint",
    "a_id": "bigint",
    "b_id": "bigint",
    "outcome": "smallint",
    "strength": "smallint",
    "kind": "smallint",
    "split": "smallint",
    "failed": "smallint",
    "confidence": "double precision",
    "probability": "double precision",
}
VOTES_SQL: Final = f"""
    SELECT v.a_id, v.b_id, v.rater_id, v.outcome, (j.kind = 'adjudication')::int AS flag
    FROM annotator_preference v JOIN annotator_judgment j ON j.id = v.judgment_id
    WHERE v.project_id = %(project)s AND v.rater_id <> %(rater)s AND NOT v.is_gold
      AND v.prompt_id IN ({OWN_PROMPTS})
"""
OTHERS_FAILED_SQL: Final = f"""
    SELECT t.response_ids[x] AS a_id, t.response_ids[y] AS b_id, g.rater_id, 0 AS outcome, 2 AS flag
    FROM annotator_judge g
    JOIN annotator_judgeoutcome o ON o.judge_id = g.id
    JOIN annotator_task t ON t.id = o.task_id
    CROSS JOIN LATERAL generate_subscripts(t.response_ids, 1) x
    CROSS JOIN LATERAL generate_subscripts(t.response_ids, 1) y
    WHERE g.project_id = %(project)s AND g.id <> %(judge)s AND o.error <> ''
      AND NOT o.error = ANY(%(away)s) AND t.kind IN ('pairwise', 'ranking') AND x < y
      AND t.prompt_id IN ({OWN_PROMPTS})
      AND NOT EXISTS (SELECT FROM annotator_judgment said WHERE said.task_id = t.id
                      AND said.rater_id = g.rater_id AND said.is_current)
"""
VOTE_COLUMNS: Final = {
    "a_id": "bigint",
    "b_id": "bigint",
    "rater_id": "bigint",
    "outcome": "smallint",
    "flag": "smallint",
}
GOLDS_SQL: Final = f"""
    SELECT a_id, b_id, sign(b_rank - a_rank) AS outcome FROM (
        SELECT t.response_ids[i] AS a_id, t.response_ids[j] AS b_id,
               (t.gold -> 'ranks' ->> (i - 1))::int AS a_rank,
               (t.gold -> 'ranks' ->> (j - 1))::int AS b_rank
        FROM annotator_task t
        CROSS JOIN LATERAL generate_subscripts(t.response_ids, 1) i
        CROSS JOIN LATERAL generate_subscripts(t.response_ids, 1) j
        WHERE t.project_id = %(project)s AND i < j AND t.prompt_id IN ({OWN_PROMPTS})
          AND jsonb_typeof(t.gold -> 'ranks' -> (i - 1)) = 'number'
          AND jsonb_typeof(t.gold -> 'ranks' -> (j - 1)) = 'number'
    ) known WHERE a_rank > 0 AND b_rank > 0
"""
GOLD_COLUMNS: Final = {"a_id": "bigint", "b_id": "bigint", "outcome": "smallint"}
RESPONSES_SQL: Final = f"""
    SELECT r.id,
           CASE WHEN r.image_id IS NOT NULL THEN 0
                WHEN jsonb_typeof(r.messages) = 'array' THEN (
                    SELECT coalesce(sum(length(turn ->> 'content')), 0)
                    FROM jsonb_array_elements(r.messages) turn)
                ELSE length(r.text) END AS length,
           coalesce(array_position(%(names)s::text[], r.generator::text), 0) - 1 AS generator
    FROM annotator_response r WHERE r.prompt_id IN ({OWN_PROMPTS}) ORDER BY r.id
"""
RESPONSE_COLUMNS: Final = {"id": "bigint", "length": "bigint", "generator": "integer"}
NAMES_SQL: Final = f"""
    SELECT r.generator FROM annotator_response r
    WHERE r.generator <> '' AND r.prompt_id IN ({OWN_PROMPTS})
    GROUP BY r.generator ORDER BY count(*) DESC, r.generator LIMIT {MOST_GENERATORS}
"""
ANSWERS_SQL: Final = """
    SELECT task_id, hashtext(model) AS model, repeat, (shown_order[1] = 0)::int AS straight,
           coalesce(sign(ranks[2] - ranks[1]), 0) AS outcome,
           coalesce(probability, 'NaN') AS probability,
           (ranks IS NULL OR error <> '')::int AS failed
    FROM annotator_judgeanswer
    WHERE judge_id = %(judge)s AND cardinality(shown_order) = 2
"""
ANSWER_COLUMNS: Final = {
    "task_id": "bigint",
    "model": "integer",
    "repeat": "smallint",
    "straight": "smallint",
    "outcome": "smallint",
    "probability": "double precision",
    "failed": "smallint",
}


def _turned(rows: Columns) -> tuple[Codes, Codes, NDArray[np.int16], NDArray[np.bool_]]:
    """Lower and higher id, the outcome for the lower, and which rows were turned for it."""
    is_turned = rows["a_id"] > rows["b_id"]
    low, high = np.minimum(rows["a_id"], rows["b_id"]), np.maximum(rows["a_id"], rows["b_id"])
    return low, high, np.where(is_turned, -rows["outcome"], rows["outcome"]), is_turned


def _verdicts(raw: psycopg.Connection, where: dict[str, Any]) -> Verdicts:
    query = f"{VERDICTS_SQL} UNION ALL {FAILED_SQL}"
    rows = read_columns(raw, query, where, VERDICT_COLUMNS)
    low, high, outcome, is_turned = _turned(rows)
    probability = rows["probability"]
    return Verdicts(
        tasks=rows["task_id"],
        prompts=rows["prompt_id"],
        low=low,
        high=high,
        outcome=outcome,
        strength=rows["strength"],
        kinds=rows["kind"],
        splits=rows["split"],
        is_failed=rows["failed"] > 0,
        is_turned=is_turned,
        confidence=rows["confidence"],
        probability=np.where(is_turned, 1 - probability, probability),
    )


def _votes(raw: psycopg.Connection, where: dict[str, Any], crowd: Crowd) -> Votes:
    query = f"{VOTES_SQL} UNION ALL {OTHERS_FAILED_SQL}"
    rows = read_columns(raw, query, where, VOTE_COLUMNS)
    counted = np.isin(rows["rater_id"], np.fromiter(crowd.names, dtype=np.int64))
    rows = {name: column[counted] for name, column in rows.items()}
    low, high, outcome, _ = _turned(rows)
    return Votes(low, high, rows["rater_id"], outcome, rows["flag"] == 1, rows["flag"] == 2)


def _golds(raw: psycopg.Connection, where: dict[str, Any]) -> Known:
    low, high, outcome, _ = _turned(read_columns(raw, GOLDS_SQL, where, GOLD_COLUMNS))
    return Known(low, high, outcome)


def _responses(raw: psycopg.Connection, where: dict[str, Any]) -> Responses:
    names = [name for (name,) in raw.execute(NAMES_SQL, where).fetchall()]
    rows = read_columns(raw, RESPONSES_SQL, where | {"names": names}, RESPONSE_COLUMNS)
    return Responses(rows["id"], rows["length"], rows["generator"].astype(np.int64), names)


def _answers(raw: psycopg.Connection, where: dict[str, Any]) -> Answers:
    rows = read_columns(raw, ANSWERS_SQL, where, ANSWER_COLUMNS)
    return Answers(
        tasks=rows["task_id"],
        models=rows["model"].astype(np.int64),
        repeats=rows["repeat"],
        is_straight=rows["straight"] > 0,
        outcome=rows["outcome"],
        probability=rows["probability"],
        is_failed=rows["failed"] > 0,
    )


def _crowd(raw: psycopg.Connection, judge: Judge) -> Crowd:
    rows = raw.execute(
        "SELECT r.id, r.name, r.kind, j.id FROM annotator_rater r"
        " LEFT JOIN annotator_judge j ON j.rater_id = r.id"
        " WHERE r.project_id = %s AND NOT r.is_excluded ORDER BY r.id",
        [judge.project_id],
    ).fetchall()
    return Crowd(
        names={pk: name for pk, name, *_ in rows},
        people=np.array(
            [pk for pk, _, kind, _ in rows if kind != Rater.Kind.JUDGE], dtype=np.int64
        ),
        judges={pk: judge_id for pk, _, _, judge_id in rows if judge_id is not None},
    )


# Ratings and checklists ---------------------------------------------------------------------------

NAMED_SQL: Final = """
    SELECT DISTINCT jsonb_object_keys(ratings) AS name, t.kind FROM annotator_judgment j
    JOIN annotator_task t ON t.id = j.task_id
    WHERE j.project_id = %(project)s AND j.rater_id = %(rater)s AND j.is_current
      AND j.kind <> 'adjudication' AND jsonb_typeof(j.ratings) = 'object'
    ORDER BY name, t.kind LIMIT %(most)s
"""
RATED_SQL: Final = f"""
    SELECT j.task_id, t.prompt_id, j.rater_id, v.place - 1 AS place,
           v.value::text::double precision AS value
    FROM annotator_judgment j
    JOIN annotator_task t ON t.id = j.task_id AND t.kind = %(kind)s AND NOT t.is_gold
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE WHEN jsonb_typeof(j.ratings -> %(name)s) = 'array'
             THEN j.ratings -> %(name)s ELSE '[]' END) WITH ORDINALITY AS v (value, place)
    WHERE j.project_id = %(project)s AND j.is_current AND j.kind <> 'adjudication'
      AND jsonb_typeof(j.ratings) = 'object' AND jsonb_typeof(v.value) = 'number'
      AND j.task_id IN ({OWN_TASKS})
"""
RATED_COLUMNS: Final = {
    "task_id": "bigint",
    "prompt_id": "bigint",
    "rater_id": "bigint",
    "place": "smallint",
    "value": "double precision",
}


def questions(raw: psycopg.Connection, judge: Judge, *, most: int) -> list[tuple[str, str]]:
    """(attribute or criterion, kind of task) for everything the judge has rated or checked."""
    rows = raw.execute(NAMED_SQL, _values(judge) | {"most": most}).fetchall()
    return [(name, kind) for name, kind in rows]


def rated(raw: psycopg.Connection, judge: Judge, name: str, kind: str) -> Columns:
    """Every rating of one attribute on the judge's tasks, by anybody: columns RATED_COLUMNS."""
    values = _values(judge) | {"name": name, "kind": kind}
    return read_columns(raw, RATED_SQL, values, RATED_COLUMNS)
