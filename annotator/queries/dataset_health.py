"""What a dataset's health tells of the project beside its rows: golds, skips, prompts' sources."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.models import DatasetVersion, Project
from annotator.queries.columns import blocks, read_columns
from annotator.queries.datasets import RaterVotes
from annotator.queries.pairs import Selection, rater_ids
from models.intervals import wilson

SHOWN: Final = 20  # lines of a list
REASONS_SHOWN: Final = 10
FEW: Final = 50_000  # rows whose prompts are named to the database instead

GOLDS: Final = """
SELECT v.task_id, j.is_hit::int AS hit
FROM annotator_preference v JOIN annotator_judgment j ON j.id = v.judgment_id
JOIN annotator_task t ON t.id = v.task_id
WHERE v.project_id = %(project)s AND v.is_gold AND j.is_hit IS NOT NULL AND t.kind = 'pairwise'
  AND (NOT v.is_held OR %(with_held)s) AND (%(all_raters)s OR v.rater_id = ANY(%(raters)s))
ORDER BY v.task_id
"""


def gold_votes(
    project: Project, selection: Selection, *, connection: psycopg.Connection
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Whether each vote of the selection's raters on a control question was right, and the
    question, in order of question: (votes,) each."""
    ids = rater_ids(project, selection, connection=connection)
    values = {
        "project": project.pk,
        "with_held": selection.with_held,
        "all_raters": ids is None,
        "raters": ids or [],
    }
    found = read_columns(connection, GOLDS, values, {"task_id": "bigint", "hit": "integer"})
    return found["hit"].astype(np.int8), found["task_id"].astype(np.int64)


def golds_left_out(project: Project, *, connection: psycopg.Connection) -> dict[str, int]:
    """Pairs of control questions, and the votes on them: none of them counts."""
    row = connection.execute(
        "SELECT count(DISTINCT (prompt_id, least(a_id, b_id), greatest(a_id, b_id))), count(*)"
        " FROM annotator_preference WHERE project_id = %s AND is_gold",
        [project.pk],
    ).fetchone()
    assert row is not None
    return {"pairs": int(row[0]), "votes": int(row[1])}


def skips(project: Project, *, connection: psycopg.Connection) -> dict[str, Any]:
    """How often somebody passed a task on, on how many tasks, and the reasons given most."""
    row = connection.execute(
        "SELECT count(*), count(DISTINCT task_id) FROM annotator_assignment"
        " WHERE project_id = %s AND state = 'skipped'",
        [project.pk],
    ).fetchone()
    assert row is not None
    reasons = connection.execute(
        "SELECT skip_reason, count(*) FROM annotator_assignment"
        " WHERE project_id = %s AND state = 'skipped'"
        " GROUP BY skip_reason ORDER BY count(*) DESC, skip_reason LIMIT %s",
        [project.pk, REASONS_SHOWN],
    ).fetchall()
    return {
        "skips": int(row[0]),
        "tasks": int(row[1]),
        "reasons": [{"reason": reason, "count": count} for reason, count in reasons],
    }


def kept_versions(project: Project) -> list[DatasetVersion]:
    """Versions whose rows are still known, the newest first, no more than are compared."""
    found = project.dataset_versions.filter(deleted_at=None).order_by("-number")
    return list(found.only("number", "folder", "run_id")[:SHOWN])


def votes_by_kind(raters: list[RaterVotes]) -> list[dict[str, Any]]:
    """Votes of the recipe's raters by what they are, with their share of all."""
    votes: Counter[tuple[str, bool]] = Counter()
    people: Counter[tuple[str, bool]] = Counter()
    for rater in raters:
        votes[rater.kind, rater.is_simulated] += rater.votes
        people[rater.kind, rater.is_simulated] += 1
    total = votes.total()
    found = []
    for (kind, is_simulated), count in sorted(votes.items()):
        low, high = wilson(count, total)
        found.append(
            {
                "kind": kind,
                "is_simulated": is_simulated,
                "raters": people[kind, is_simulated],
                "votes": count,
                "share": round(count / total, 4) if total else 0.0,
                "interval": [round(low, 4), round(high, 4)],
            }
        )
    return found


# A tag is told apart per prompt once, whatever the list repeats; as a number, which comes without
# a Python object. Two tags share one of 2**64 numbers hardly ever.
TAGGED: Final = """
FROM annotator_prompt p
CROSS JOIN LATERAL (SELECT DISTINCT jsonb_array_elements_text(p.tags) AS tag) t
WHERE p.project_id = %(project)s AND p.tags <> '[]' AND jsonb_typeof(p.tags) = 'array'
  AND (%(ids)s::bigint[] IS NULL OR p.id = ANY(%(ids)s::bigint[]))
"""
TAG_OF_PROMPT: Final = f"SELECT p.id, hashtextextended(t.tag, 0) AS code {TAGGED}"
NAMES: Final = f"""
SELECT DISTINCT hashtextextended(t.tag, 0), t.tag {TAGGED}
  AND hashtextextended(t.tag, 0) = ANY(%(codes)s)
"""
RUN_OF_PROMPT: Final = """
SELECT id, coalesce(import_run_id, 0) AS run, (tags = '[]')::int AS is_bare
FROM annotator_prompt p WHERE project_id = %(project)s
  AND (%(ids)s::bigint[] IS NULL OR p.id = ANY(%(ids)s::bigint[]))
"""
TAG_COLUMNS: Final = {"id": "bigint", "code": "bigint"}
RUN_COLUMNS: Final = {"id": "bigint", "run": "bigint", "is_bare": "integer"}


@dataclass
class _Tally:
    prompts: int = 0
    rows: int = 0


def prompts_by_source(
    project: Project, prompts: NDArray[np.int64], *, connection: psycopg.Connection
) -> dict[str, Any]:
    """Where the prompts of rows are from: tags, and what brought them. prompts (rows,) ids.

    Of more than a few prompts all of the project's are read, as columns: a million in a second or
    two, without a statement for each.
    """
    ordered = np.sort(prompts)
    few = np.unique(ordered).tolist() if len(ordered) <= FEW else None
    about = {"project": project.pk, "ids": few}
    imports: defaultdict[int, _Tally] = defaultdict(_Tally)
    bare: defaultdict[int, _Tally] = defaultdict(_Tally)
    for block in blocks(connection, RUN_OF_PROMPT, about, RUN_COLUMNS):
        rows = _rows_of(block["id"], ordered)
        _add(imports, block["run"], rows)
        _add(bare, block["is_bare"], rows)
    tags: defaultdict[int, _Tally] = defaultdict(_Tally)
    for block in blocks(connection, TAG_OF_PROMPT, about, TAG_COLUMNS):
        _add(tags, block["code"], _rows_of(block["id"], ordered))
    names = _titles([run for run in imports if run], connection)
    brought = sorted(imports.items(), key=lambda item: (-item[1].rows, item[0]))
    return {
        "tags": _named(tags, about, connection),
        "untagged": vars(bare[1]),
        "more_tags": max(len(tags) - SHOWN, 0),
        "imports": [
            {"name": names.get(run, "written here"), "run": run or None} | vars(tally)
            for run, tally in brought[:SHOWN]
        ],
        "more_imports": max(len(brought) - SHOWN, 0),
    }


def _named(
    tags: dict[int, _Tally], about: dict[str, Any], connection: psycopg.Connection
) -> list[dict[str, Any]]:
    """The tags with the most rows, by name where they are level."""
    first = heapq.nsmallest(SHOWN, tags.items(), key=lambda item: (-item[1].rows, item[0]))
    if not first:
        return []
    names = dict(connection.execute(NAMES, about | {"codes": [code for code, _ in first]}))
    shown = sorted(first, key=lambda item: (-item[1].rows, names[item[0]]))
    return [{"tag": names[code], **vars(tally)} for code, tally in shown]


def _add(to: defaultdict[int, _Tally], keys: NDArray[Any], rows: NDArray[np.int64]) -> None:
    """Count prompts by their keys (n,), and the rows (n,) each has; those without do not count."""
    has_rows = rows > 0
    found, at = np.unique(keys[has_rows], return_inverse=True)
    prompts, counts = np.bincount(at), np.bincount(at, weights=rows[has_rows])
    for place, key in enumerate(found.tolist()):
        to[key].prompts += int(prompts[place])
        to[key].rows += int(counts[place])


def _rows_of(ids: NDArray[np.int64], ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each stands in the ordered list."""
    return np.searchsorted(ordered, ids, side="right") - np.searchsorted(ordered, ids)


def _titles(runs: list[int], connection: psycopg.Connection) -> dict[int, str]:
    rows = connection.execute(
        "SELECT id, title FROM annotator_run WHERE id = ANY(%s)", [runs]
    ).fetchall()
    return dict(rows)
