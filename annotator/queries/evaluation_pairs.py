"""The pairs on which a reward model is evaluated: what people decided, and everybody's votes.

What is right is said by people and imported raters; judges are among those who are compared. At
most ``Data.most`` pairs are taken, whole prompts in the order of a hash of their key, so that memory
does not grow with the project and a larger sample holds the smaller one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.models import Split
from annotator.queries.columns import Columns, read_columns
from annotator.queries.quality_data import Codes

SPLIT_KEYS: Final = tuple(Split.values)
NAMELESS: Final = -1
MAX_NAME: Final = 120
FETCH: Final = 5_000
MOST: Final = 20_000  # pairs, if not said otherwise: an accuracy to half a point
LIMIT: Final = 200_000
CANDIDATES: Final = 64  # of one prompt, for best of n
_cursors = count(1)


@dataclass(frozen=True)
class Data:
    """Which pairs. ``tag`` of the prompt, ``import_run`` that brought one of the two answers."""

    splits: tuple[str, ...] = (Split.TEST.value,)
    tag: str = ""
    import_run: int | None = None
    most: int = MOST

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"splits": list(self.splits)}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Data:
        return cls(**{**given, "splits": tuple(given["splits"])})


class Names:
    """Codes of texts, from 0 in order of appearance; NAMELESS for an empty one."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def code(self, text: str | None) -> int:
        return self._codes.setdefault(text, len(self._codes)) if text else NAMELESS

    @property
    def texts(self) -> list[str]:
        return list(self._codes)

    def __getitem__(self, code: int) -> str:
        return "" if code == NAMELESS else list(self._codes)[code]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs (n,) by prompt, turned so that ``chosen`` is what most people prefer.

    Where they are undecided (``is_decided`` false) ``chosen`` is the answer with the lower id.
    ``strength`` is 1 to 3; ``votes_for`` of ``votes`` say what the majority says. Lengths are
    characters. Codes are of ``generators``, ``subsets``, ``sections`` and ``items``: what the file
    called the prompt.
    """

    prompts: Codes
    chosen: Codes
    rejected: Codes
    is_decided: NDArray[np.bool_]
    strength: Codes
    votes: Codes
    votes_for: Codes
    splits: Codes
    chosen_length: Codes
    rejected_length: Codes
    chosen_by: Codes
    rejected_by: Codes
    subset: Codes
    section: Codes
    item: Codes
    generators: Names = field(default_factory=Names)
    subsets: Names = field(default_factory=Names)
    sections: Names = field(default_factory=Names)
    items: Names = field(default_factory=Names)
    total: int = 0  # pairs that there are, sampled or not

    def __len__(self) -> int:
        return len(self.prompts)

    def where(self, rows: NDArray[np.bool_]) -> Pairs:
        """The same of some rows."""
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        named = {name: getattr(self, name) for name in (*_NAMES, "total")}
        return Pairs(**columns, **named)


_NAMES: Final = ("generators", "subsets", "sections", "items")
_COLUMNS: Final = (
    "prompts", "chosen", "rejected", "is_decided", "strength", "votes", "votes_for", "splits",
    "chosen_length", "rejected_length", "chosen_by", "rejected_by", "subset", "section", "item",
)  # fmt: skip

# Votes of people on pairs of the chosen prompts, a pair turned so that low < high.
COUNTED: Final = """
    SELECT v.prompt_id, least(v.a_id, v.b_id) AS low, greatest(v.a_id, v.b_id) AS high,
           count(*) FILTER (WHERE t.won = 1) AS wins_low,
           count(*) FILTER (WHERE t.won = -1) AS wins_high,
           count(*) FILTER (WHERE t.won = 0) AS ties,
           coalesce(sum(v.strength) FILTER (WHERE t.won = 1), 0) AS strengths_low,
           coalesce(sum(v.strength) FILTER (WHERE t.won = -1), 0) AS strengths_high
    FROM annotator_preference v
    CROSS JOIN LATERAL (
        SELECT CASE WHEN v.a_id < v.b_id THEN v.outcome ELSE -v.outcome END AS won) t
    JOIN annotator_rater r ON r.id = v.rater_id AND r.kind <> 'judge' AND NOT r.is_excluded
    JOIN annotator_prompt q ON q.id = v.prompt_id AND q.split = ANY(%(splits)s)
      AND (%(tag)s = '' OR q.tags @> to_jsonb(array[%(tag)s::text]))
    WHERE v.project_id = %(project)s AND NOT v.is_gold AND NOT v.is_overruled
      AND (%(below)s::bigint IS NULL OR hashint8extended(v.prompt_id, 0) <= %(below)s)
      AND (%(import)s::bigint IS NULL OR EXISTS (
          SELECT FROM annotator_response i
          WHERE i.id IN (v.a_id, v.b_id) AND i.import_run_id = %(import)s))
    GROUP BY 1, 2, 3
"""
# The last prompt that fits into the sample, and how many pairs there are.
BELOW: Final = f"""
    WITH pairs AS (SELECT hashint8extended(prompt_id, 0) AS place FROM ({COUNTED}) counted)
    SELECT (SELECT place FROM pairs ORDER BY place OFFSET %(most)s - 1 LIMIT 1),
           (SELECT count(*) FROM pairs)
"""
LENGTH: Final = """
    CASE WHEN {0}.messages IS NULL THEN length({0}.text) ELSE coalesce(
        (SELECT sum(length(m ->> 'content')) FROM jsonb_array_elements({0}.messages) m), 0) END
"""
OWN: Final = "left(coalesce({0}.extra ->> '{1}', ''), %(name)s)"
PAIRS: Final = f"""
    SELECT v.*, q.split, {LENGTH.format("a")}, {LENGTH.format("b")}, a.generator, b.generator,
           {OWN.format("a", "subset")}, {OWN.format("b", "subset")}, {OWN.format("q", "subset")},
           {OWN.format("a", "section")}, {OWN.format("b", "section")}, {OWN.format("q", "section")},
           q.external_id
    FROM ({COUNTED}) v
    JOIN annotator_prompt q ON q.id = v.prompt_id
    JOIN annotator_response a ON a.id = v.low
    JOIN annotator_response b ON b.id = v.high
    WHERE NOT (a.text = b.text AND a.messages IS NOT DISTINCT FROM b.messages
               AND a.image_id IS NOT DISTINCT FROM b.image_id)
    ORDER BY v.prompt_id, v.low, v.high
"""


def read_pairs(raw: psycopg.Connection, project_id: int, data: Data) -> Pairs:
    """The pairs of a project that ``data`` names, with at least one vote by people."""
    raw.execute("SET LOCAL jit = off")
    values = _values(project_id, data)
    below, total = raw.execute(BELOW, values).fetchone() or (None, 0)
    values["below"] = below
    names = {name: Names() for name in _NAMES}
    rows = [_row(row, names) for row in _fetched(raw, values)]
    table = np.array(rows, dtype=np.int64).reshape(-1, len(_COLUMNS)).T
    columns: dict[str, Any] = dict(zip(_COLUMNS, table, strict=True))
    columns["is_decided"] = columns["is_decided"].astype(bool)
    return Pairs(**columns, **names, total=int(total))


def _values(project_id: int, data: Data) -> dict[str, Any]:
    return {
        "project": project_id, "splits": list(data.splits), "tag": data.tag,
        "import": data.import_run, "most": data.most, "below": None, "name": MAX_NAME,
    }  # fmt: skip


def _fetched(raw: psycopg.Connection, values: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    with psycopg.ServerCursor(raw, f"evaluated_{next(_cursors)}") as cursor:
        cursor.execute(PAIRS, values)
        while rows := cursor.fetchmany(FETCH):
            yield from rows


def _row(row: Sequence[Any], names: dict[str, Names]) -> tuple[int, ...]:
    """The values of _COLUMNS."""
    prompt, low, high, wins_low, wins_high, ties, strong_low, strong_high, split = row[:9]
    sizes, writers = row[9:11], [names["generators"].code(name) for name in row[11:13]]
    is_high = wins_high > wins_low
    won, lost, strong = (
        (wins_high, wins_low, strong_high) if is_high else (wins_low, wins_high, strong_low)
    )
    is_decided = won > lost and won > ties
    strength = min(3, max(1, round(strong / won))) if is_decided else 0
    sides = (high, low) if is_decided and is_high else (low, high)
    if sides[0] == high:
        sizes, writers = sizes[::-1], writers[::-1]
    return (
        prompt, *sides, is_decided, strength, wins_low + wins_high + ties, won,
        SPLIT_KEYS.index(split), *map(int, sizes), *writers,
        names["subsets"].code(_own(*row[13:16])), names["sections"].code(_own(*row[16:19])),
        names["items"].code(row[19]),
    )  # fmt: skip


def _own(first: str, second: str, prompt: str) -> str:
    """What a file says of a pair: what both answers came with, else what the prompt came with.

    A prompt that stands in several subsets is one prompt, and keeps what it came with first.
    """
    return first if first == second and first else prompt or first or second


VOTES: Final = """
    SELECT v.a_id, v.b_id, v.rater_id, v.outcome
    FROM annotator_preference v JOIN annotator_judgment j ON j.id = v.judgment_id
    JOIN annotator_rater r ON r.id = v.rater_id AND NOT r.is_excluded
    WHERE v.project_id = %(project)s AND NOT v.is_gold AND j.kind <> 'adjudication'
      AND v.prompt_id = ANY(%(prompts)s)
"""
VOTE_COLUMNS: Final = {
    "a_id": "bigint", "b_id": "bigint", "rater_id": "bigint", "outcome": "smallint",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Votes:
    """Single votes (m,) of anybody on the pairs: row of ``Pairs``, -1 where it is none of them;
    rater; +1 where ``chosen`` is preferred, -1 where ``rejected`` is, 0 a tie.

    ``first`` and ``second`` are ids of responses as they stand in the vote.
    """

    pair: Codes
    raters: Codes
    outcome: Codes
    first: Codes
    second: Codes
    said: Codes  # +1 where first is preferred


def read_votes(raw: psycopg.Connection, project_id: int, pairs: Pairs) -> Votes:
    """All votes on the pairs' prompts, reviewers' decisions aside, overruled and held ones too."""
    prompts = np.unique(pairs.prompts).tolist()
    values = {"project": project_id, "prompts": prompts}
    rows = read_columns(raw, VOTES, values, VOTE_COLUMNS)
    first, second = rows["a_id"], rows["b_id"]
    outcome = rows["outcome"].astype(np.int64)
    at, is_straight = _places(pairs, first, second)
    return Votes(
        at, rows["rater_id"], np.where(is_straight, outcome, -outcome), first, second, outcome
    )


def _places(pairs: Pairs, first: Codes, second: Codes) -> tuple[Codes, NDArray[np.bool_]]:
    """The pair of each two responses, -1 for none; and whether ``first`` is its chosen one."""
    ids = np.unique(np.concatenate([pairs.chosen, pairs.rejected]))
    if not len(ids):
        return np.full(len(first), -1, dtype=np.int64), np.ones(len(first), dtype=bool)

    def key(one: Codes, other: Codes) -> Codes:
        low, high = np.minimum(one, other), np.maximum(one, other)
        return np.asarray(np.searchsorted(ids, low) * (len(ids) + 1) + np.searchsorted(ids, high))

    own = key(pairs.chosen, pairs.rejected)
    order = np.argsort(own)
    wanted = key(first, second)
    at = np.minimum(np.searchsorted(own[order], wanted), len(own) - 1)
    found = order[at]
    there = (own[found] == wanted) & np.isin(first, ids) & np.isin(second, ids)
    return np.where(there, found, -1), pairs.chosen[found] == first


@dataclass(frozen=True)
class Rater:
    id: int
    name: str
    kind: str
    is_simulated: bool
    judge_id: int | None


def read_raters(raw: psycopg.Connection, ids: Sequence[int]) -> list[Rater]:
    """Raters by id."""
    rows = raw.execute(
        "SELECT r.id, r.name, r.kind, r.is_simulated, j.id FROM annotator_rater r"
        " LEFT JOIN annotator_judge j ON j.rater_id = r.id WHERE r.id = ANY(%s) ORDER BY r.id",
        [list(ids)],
    ).fetchall()
    return [Rater(*row) for row in rows]


def read_groups(raw: psycopg.Connection, project_id: int, *, most: int) -> list[tuple[str, Codes]]:
    """Named groups of raters, the largest first, with the ids of their members."""
    rows = raw.execute(
        "SELECT g.name, array_agg(m.rater_id) FROM annotator_group g"
        " JOIN annotator_group_raters m ON m.group_id = g.id"
        " WHERE g.project_id = %s AND g.person_id IS NULL"
        " GROUP BY g.id ORDER BY count(*) DESC, g.name LIMIT %s",
        [project_id, most],
    ).fetchall()
    return [(name, np.array(ids, dtype=np.int64)) for name, ids in rows]


CANDIDATE_COLUMNS: Final = {"id": "bigint", "prompt_id": "bigint"}
CANDIDATES_OF: Final = """
    SELECT id, prompt_id FROM (
        SELECT r.id, r.prompt_id, row_number() OVER (PARTITION BY r.prompt_id ORDER BY r.id) AS place
        FROM annotator_response r WHERE r.prompt_id = ANY(%(prompts)s)) placed
    WHERE place <= %(most)s ORDER BY id
"""


def read_candidates(raw: psycopg.Connection, pairs: Pairs) -> Columns:
    """Responses of the pairs' prompts (id, prompt_id) by id, the first CANDIDATES of each."""
    values = {"prompts": np.unique(pairs.prompts).tolist(), "most": CANDIDATES}
    return read_columns(raw, CANDIDATES_OF, values, CANDIDATE_COLUMNS)


SCORES: Final = """
    SELECT response_id, mean FROM annotator_rewardscore
    WHERE {source}_id = %(of)s AND response_id = ANY(%(ids)s) ORDER BY response_id
"""
SCORE_COLUMNS: Final = {"response_id": "bigint", "mean": "double precision"}
SOURCES: Final = ("reward_model", "rubric_version")


def read_scores(raw: psycopg.Connection, source: str, of: int, ids: Codes) -> NDArray[np.float64]:
    """Scores (m,) of responses (m,), NaN where there is none. ``source`` is one of SOURCES."""
    if source not in SOURCES:
        raise ValueError(f"no source of scores is called {source!r}")
    wanted, back = np.unique(ids, return_inverse=True)
    values = {"of": of, "ids": wanted.tolist()}
    rows = read_columns(raw, SCORES.format(source=source), values, SCORE_COLUMNS)
    found = np.full(len(wanted), np.nan)
    found[np.searchsorted(wanted, rows["response_id"])] = rows["mean"]
    return found[back]


TAGS: Final = """
    SELECT p.id, left(t.tag, %(name)s) FROM annotator_prompt p
    CROSS JOIN LATERAL jsonb_array_elements_text(
        CASE WHEN jsonb_typeof(p.tags) = 'array' THEN p.tags ELSE '[]' END) AS t (tag)
    WHERE p.id = ANY(%(prompts)s) ORDER BY p.id
"""


def read_tags(raw: psycopg.Connection, pairs: Pairs, *, most: int) -> list[tuple[str, Codes]]:
    """The tags on most of the pairs' prompts, each with the ids of its prompts."""
    values = {"prompts": np.unique(pairs.prompts).tolist(), "name": MAX_NAME}
    found: dict[str, list[int]] = {}
    with psycopg.ServerCursor(raw, f"evaluated_{next(_cursors)}") as cursor:
        cursor.execute(TAGS, values)
        while rows := cursor.fetchmany(FETCH):
            for prompt, tag in rows:
                found.setdefault(tag, []).append(prompt)
    common = sorted(found.items(), key=lambda row: (-len(row[1]), row[0]))[:most]
    return [(tag, np.array(ids, dtype=np.int64)) for tag, ids in common]
