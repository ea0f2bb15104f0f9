"""Everything said in a project as numpy columns: what a quality run computes from.

A million judgments are some hundred megabytes here and no Python objects. Everything is read
through one snapshot, so that judgments, edges and tasks fit each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import numpy as np
import orjson
import psycopg
from numpy.typing import NDArray

from annotator.kinds import KINDS
from annotator.models import Rater
from annotator.queries.columns import Columns, read_columns
from models.raters import UNKNOWN

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]

KIND_KEYS: Final = tuple(KINDS)
RATED_KINDS: Final = ("rating", "checklist")
PLACES: Final = 64  # more than any task has responses
NEVER: Final = -1  # no time measured
MAX_ATTRIBUTES: Final = 60
FETCH: Final = 2_000
_cursors = count(1)


@dataclass(frozen=True, eq=False)
class People:
    """The project's raters by code: position in these lists."""

    ids: Codes
    names: list[str]
    kinds: list[str]
    excluded: NDArray[np.bool_]
    paused: NDArray[np.bool_]
    simulated: NDArray[np.bool_]
    judged: int  # the sum of the raters' own counters, by which a report knows its age

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_judge(self) -> NDArray[np.bool_]:
        return np.array([kind == Rater.Kind.JUDGE for kind in self.kinds], dtype=bool)


@dataclass(frozen=True, eq=False)
class Tasks:
    """Tasks by code, ids rising: kind (a code of KIND_KEYS), number of responses, flags."""

    ids: Codes
    prompts: Codes
    kinds: NDArray[np.int16]
    sizes: NDArray[np.int16]
    is_gold: NDArray[np.bool_]
    is_settled: NDArray[np.bool_]
    has_gold: NDArray[np.bool_]

    @property
    def is_rated(self) -> NDArray[np.bool_]:
        """Whether what is said of a task is ratings of its responses, not their order."""
        codes = [KIND_KEYS.index(kind) for kind in RATED_KINDS]
        return np.isin(self.kinds, codes)


@dataclass(frozen=True, eq=False)
class Work:
    """Judgments in force but for adjudications, (n,) each, by rising id.

    ``first`` is 1 where the response shown first was put before the one shown last, -1 the other
    way round, 0 where they tie or it is not known. ``active_ms`` is NEVER where nobody measured;
    ``hit`` 1 right, 0 wrong, -1 not a control task. ``at`` in seconds since 1970.
    """

    ids: Codes
    tasks: Codes
    raters: Codes
    at: Codes
    active_ms: Codes
    first: NDArray[np.int16]
    hit: NDArray[np.int16]
    is_tie: NDArray[np.bool_]
    both_bad: NDArray[np.bool_]
    strength: NDArray[np.int16]
    is_vote: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Edges:
    """Preferences but for those of adjudications, (n,) each: places of a and b, outcome -1..1."""

    judgments: Codes
    tasks: Codes
    raters: Codes
    a: Codes
    b: Codes
    place_a: NDArray[np.int16]
    place_b: NDArray[np.int16]
    outcomes: NDArray[np.int16]
    strengths: NDArray[np.int16]
    is_held: NDArray[np.bool_]  # of a judge, and nothing accepted it

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True, eq=False)
class Values:
    """Ratings of one attribute, (n,) each: judgment (position in Work), response's place, value."""

    judgments: Codes
    places: NDArray[np.int16]
    values: Floats


@dataclass(frozen=True)
class Verdict:
    """A verdict that is known: a gold, or what a reviewer decided."""

    task: int
    ranks: list[int]
    ratings: dict[str, list[float | None]]


@dataclass(frozen=True, eq=False)
class Said:
    """A project's tasks, raters and judgments as of one moment."""

    project_id: int
    people: People
    tasks: Tasks
    work: Work
    edges: Edges
    attributes: list[str]
    golds: list[Verdict]  # of any task with a known answer
    decisions: list[Verdict]  # of reviewers

    @property
    def is_counted(self) -> NDArray[np.bool_]:
        """Judgments (n,) that estimates are made from: a judge's only where it was accepted.

        What is held is measured all the same. Whether a rater is left out is not asked here.
        """
        counted = ~self.people.is_judge[self.work.raters]
        counted[self.edges.judgments[~self.edges.is_held]] = True
        return counted


def read(raw: psycopg.Connection, project_id: int) -> Said:
    """Everything but the ratings, which ``ratings`` reads one attribute at a time."""
    where = {"project": project_id, "kinds": list(KIND_KEYS)}
    people = _people(raw, project_id)
    tasks = _tasks(raw, where)
    work = _work(raw, where, people, tasks)
    edges = _edges(raw, where, people, tasks, work)
    attributes = raw.execute(ATTRIBUTES_SQL, where | {"most": MAX_ATTRIBUTES}).fetchall()
    return Said(
        project_id=project_id,
        people=people,
        tasks=tasks,
        work=work,
        edges=edges,
        attributes=[name for (name,) in attributes],
        golds=list(_verdicts(raw, GOLDS_SQL, where, tasks)),
        decisions=list(_verdicts(raw, DECISIONS_SQL, where, tasks)),
    )


PEOPLE_SQL: Final = """
    SELECT id, name, kind, is_excluded, paused_at IS NOT NULL, is_simulated, judged
    FROM annotator_rater WHERE project_id = %(project)s ORDER BY id
"""
TASKS_SQL: Final = """
    SELECT id, prompt_id, coalesce(array_position(%(kinds)s::text[], kind::text), 1) - 1 AS kind,
           cardinality(response_ids) AS size,
           is_gold::int + 2 * is_settled::int + 4 * (gold IS NOT NULL)::int AS flags
    FROM annotator_task WHERE project_id = %(project)s ORDER BY id
"""
TASK_COLUMNS: Final = {
    "id": "bigint",
    "prompt_id": "bigint",
    "kind": "smallint",
    "size": "smallint",
    "flags": "smallint",
}
# Ranks of the responses shown first and last; 0 is one that was not ranked.
WORK_SQL: Final = """
    SELECT id, task_id, rater_id, extract(epoch FROM submitted_at)::bigint AS at,
           coalesce(active_ms, -1) AS active_ms, coalesce(is_hit::int, -1) AS hit,
           coalesce(ranks[shown_order[1] + 1], 0) AS first,
           coalesce(ranks[shown_order[cardinality(shown_order)] + 1], 0) AS last,
           strength, both_bad::int + 2 * (kind = 'vote')::int AS flags
    FROM annotator_judgment
    WHERE project_id = %(project)s AND is_current AND kind <> 'adjudication' ORDER BY id
"""
WORK_COLUMNS: Final = {
    "id": "bigint",
    "task_id": "bigint",
    "rater_id": "bigint",
    "at": "bigint",
    "active_ms": "integer",
    "hit": "smallint",
    "first": "smallint",
    "last": "smallint",
    "strength": "smallint",
    "flags": "smallint",
}
EDGES_SQL: Final = """
    SELECT v.judgment_id, v.a_id, v.b_id, v.outcome, v.strength, v.is_held::int AS held,
           coalesce(array_position(t.response_ids, v.a_id), 0) - 1 AS place_a,
           coalesce(array_position(t.response_ids, v.b_id), 0) - 1 AS place_b
    FROM annotator_preference v JOIN annotator_task t ON t.id = v.task_id
    WHERE v.project_id = %(project)s
"""
EDGE_COLUMNS: Final = {
    "judgment_id": "bigint",
    "a_id": "bigint",
    "b_id": "bigint",
    "outcome": "smallint",
    "strength": "smallint",
    "held": "smallint",
    "place_a": "smallint",
    "place_b": "smallint",
}
ATTRIBUTES_SQL: Final = """
    SELECT name FROM (
        SELECT DISTINCT jsonb_object_keys(ratings) AS name FROM annotator_judgment
        WHERE project_id = %(project)s AND is_current AND jsonb_typeof(ratings) = 'object'
    ) names ORDER BY name LIMIT %(most)s
"""
RATINGS_SQL: Final = """
    SELECT j.id, v.place - 1 AS place, v.value::text::double precision AS value
    FROM annotator_judgment j,
         jsonb_array_elements(
             CASE WHEN jsonb_typeof(j.ratings -> %(attribute)s) = 'array'
                  THEN j.ratings -> %(attribute)s ELSE '[]' END
         ) WITH ORDINALITY AS v (value, place)
    WHERE j.project_id = %(project)s AND j.is_current AND j.kind <> 'adjudication'
      AND jsonb_typeof(j.ratings) = 'object' AND jsonb_typeof(v.value) = 'number'
"""
GOLDS_SQL: Final = """
    SELECT id, gold -> 'ranks', gold -> 'ratings' FROM annotator_task
    WHERE project_id = %(project)s AND gold IS NOT NULL ORDER BY id
"""
DECISIONS_SQL: Final = """
    SELECT DISTINCT ON (task_id) task_id, to_jsonb(ranks), ratings FROM annotator_judgment
    WHERE project_id = %(project)s AND is_current AND kind = 'adjudication'
    ORDER BY task_id, id DESC
"""


def ratings(raw: psycopg.Connection, said: Said, attribute: str) -> Values:
    """What was said of one attribute; "does not apply" is left out."""
    values = {"project": said.project_id, "attribute": attribute}
    columns = {"id": "bigint", "place": "smallint", "value": "double precision"}
    rows = read_columns(raw, RATINGS_SQL, values, columns)
    judgment = _positions(said.work.ids, rows["id"])
    kept = (judgment >= 0) & np.isfinite(rows["value"]) & (rows["place"] < PLACES)
    return Values(judgment[kept], rows["place"][kept], rows["value"][kept])


def _people(raw: psycopg.Connection, project_id: int) -> People:
    rows = raw.execute(PEOPLE_SQL, {"project": project_id}).fetchall()
    ids, names, kinds, excluded, paused, simulated, judged = (
        zip(*rows, strict=True) if rows else ((),) * 7
    )
    return People(
        np.array(ids, dtype=np.int64),
        list(names),
        list(kinds),
        np.array(excluded, dtype=bool),
        np.array(paused, dtype=bool),
        np.array(simulated, dtype=bool),
        sum(judged),
    )


def _tasks(raw: psycopg.Connection, where: dict[str, Any]) -> Tasks:
    rows = read_columns(raw, TASKS_SQL, where, TASK_COLUMNS)
    flags = rows["flags"]
    return Tasks(
        ids=rows["id"],
        prompts=rows["prompt_id"],
        kinds=rows["kind"],
        sizes=rows["size"],
        is_gold=(flags & 1) > 0,
        is_settled=(flags & 2) > 0,
        has_gold=(flags & 4) > 0,
    )


def _work(raw: psycopg.Connection, where: dict[str, Any], people: People, tasks: Tasks) -> Work:
    rows = read_columns(raw, WORK_SQL, where, WORK_COLUMNS)
    task, rater = _positions(tasks.ids, rows["task_id"]), _positions(people.ids, rows["rater_id"])
    known = (task >= 0) & (rater >= 0)
    rows = {name: column[known] for name, column in rows.items()}
    ranked = (rows["first"] > 0) & (rows["last"] > 0)
    return Work(
        ids=rows["id"],
        tasks=task[known],
        raters=rater[known],
        at=rows["at"],
        active_ms=rows["active_ms"].astype(np.int64),
        first=np.where(ranked, np.sign(rows["last"] - rows["first"]), 0).astype(np.int16),
        hit=rows["hit"],
        is_tie=rows["strength"] == 0,
        both_bad=(rows["flags"] & 1) > 0,
        strength=rows["strength"],
        is_vote=(rows["flags"] & 2) > 0,
    )


def _edges(
    raw: psycopg.Connection, where: dict[str, Any], people: People, tasks: Tasks, work: Work
) -> Edges:
    rows = read_columns(raw, EDGES_SQL, where, EDGE_COLUMNS)
    judgment = _positions(work.ids, rows["judgment_id"])  # those of adjudications are not there
    placed = (rows["place_a"] >= 0) & (rows["place_b"] >= 0)
    kept = (judgment >= 0) & placed & (np.maximum(rows["place_a"], rows["place_b"]) < PLACES)
    rows, judgment = _where(rows, kept), judgment[kept]
    return Edges(
        judgments=judgment,
        tasks=work.tasks[judgment],
        raters=work.raters[judgment],
        a=rows["a_id"],
        b=rows["b_id"],
        place_a=rows["place_a"],
        place_b=rows["place_b"],
        outcomes=rows["outcome"],
        strengths=rows["strength"],
        is_held=rows["held"] == 1,
    )


def _where(rows: Columns, kept: NDArray[np.bool_]) -> Columns:
    return {name: column[kept] for name, column in rows.items()}


def _positions(ids: Codes, wanted: Codes) -> Codes:
    """Where each wanted id stands among rising ids; UNKNOWN where it does not."""
    if not len(ids):
        return np.full(len(wanted), UNKNOWN, dtype=np.int64)
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, at, UNKNOWN).astype(np.int64)


def _verdicts(
    raw: psycopg.Connection, sql: str, where: dict[str, Any], tasks: Tasks
) -> Iterator[Verdict]:
    with psycopg.ServerCursor(raw, f"known_{next(_cursors)}") as cursor:
        cursor.execute(sql, where)
        while rows := cursor.fetchmany(FETCH):
            ids = np.array([row[0] for row in rows], dtype=np.int64)
            for task, (_, ranks, rated) in zip(_positions(tasks.ids, ids), rows, strict=True):
                ranks, rated = _json(ranks), _json(rated)
                if task >= 0 and isinstance(ranks, list):
                    yield Verdict(int(task), ranks, rated if isinstance(rated, dict) else {})


def _json(value: Any) -> Any:
    """Django's connections hand jsonb out as text."""
    return orjson.loads(value) if isinstance(value, str) else value


def tags(raw: psycopg.Connection, project_id: int, *, most: int) -> list[tuple[str, Codes]]:
    """The tags on most prompts, each with the ids of its prompts, the commonest first."""
    common = raw.execute(TAGS_SQL, {"project": project_id, "most": most}).fetchall()
    found = []
    for (tag,) in common:
        rows = read_columns(raw, TAGGED_SQL, {"project": project_id, "tag": tag}, {"id": "bigint"})
        found.append((tag, rows["id"]))
    return found


TAGS_SQL: Final = """
    SELECT tag FROM annotator_prompt p, jsonb_array_elements_text(
        CASE WHEN jsonb_typeof(p.tags) = 'array' THEN p.tags ELSE '[]' END) AS tag
    WHERE p.project_id = %(project)s GROUP BY tag ORDER BY count(*) DESC, tag LIMIT %(most)s
"""
TAGGED_SQL: Final = """
    SELECT id FROM annotator_prompt
    WHERE project_id = %(project)s AND tags @> to_jsonb(array[%(tag)s::text]) ORDER BY id
"""


def generators(raw: psycopg.Connection, project_id: int) -> tuple[list[str], Columns]:
    """Names of the models that answered, and (response id, code of its name) of each response."""
    named = raw.execute(
        "SELECT DISTINCT generator FROM annotator_response"
        " WHERE project_id = %(project)s AND generator <> '' ORDER BY generator LIMIT 2001",
        {"project": project_id},
    ).fetchall()
    names = [name for (name,) in named]
    columns = read_columns(
        raw,
        "SELECT id, array_position(%(names)s::text[], generator::text) - 1 AS generator"
        " FROM annotator_response WHERE project_id = %(project)s"
        " AND generator = ANY(%(names)s) ORDER BY id",
        {"project": project_id, "names": names},
        {"id": "bigint", "generator": "integer"},
    )
    return names, columns
