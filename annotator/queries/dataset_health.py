"""What a dataset's health tells of the project beside its rows: golds, skips, where prompts are from."""

from __future__ import annotations

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
MOST_TAGS: Final = 10_000  # told apart

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


# A tag is told apart per prompt once, whatever the list repeats.
TAGGED: Final = """
FROM annotator_prompt p
CROSS JOIN LATERAL (SELECT DISTINCT jsonb_array_elements_text(p.tags) AS tag) t
"""
WITH_TAGS: Final = """
WHERE p.project_id = %(project)s AND p.tags <> '[]' AND jsonb_typeof(p.tags) = 'array'
"""
TAGS: Final = f"""
SELECT t.tag, count(*) OVER () {TAGGED} {WITH_TAGS}
GROUP BY t.tag ORDER BY count(*) DESC, t.tag LIMIT {MOST_TAGS}
"""
# As numbers, which come without a Python object each.
TAG_OF_PROMPT: Final = f"""
SELECT p.id, k.code - 1 AS code {TAGGED}
JOIN unnest(%(tags)s::text[]) WITH ORDINALITY AS k (tag, code) ON k.tag = t.tag {WITH_TAGS}
"""
RUN_OF_PROMPT: Final = """
SELECT id, coalesce(import_run_id, 0) AS run, (tags = '[]')::int AS is_bare
FROM annotator_prompt WHERE project_id = %(project)s
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

    The project's prompts are read as columns: a million are looked up in a second.
    """
    ordered = np.sort(prompts)
    tags, more = _tags(project, ordered, connection)
    imports: defaultdict[int, _Tally] = defaultdict(_Tally)
    bare: defaultdict[int, _Tally] = defaultdict(_Tally)
    about = {"project": project.pk}
    for block in blocks(connection, RUN_OF_PROMPT, about, RUN_COLUMNS):
        rows = _rows_of(block["id"], ordered)
        _add(imports, block["run"], rows)
        _add(bare, block["is_bare"], rows)
    names = _titles([run for run in imports if run], connection)
    listed = sorted(tags.items(), key=lambda item: (-item[1].rows, item[0]))
    brought = sorted(imports.items(), key=lambda item: (-item[1].rows, item[0]))
    return {
        "tags": [{"tag": tag, **vars(tally)} for tag, tally in listed[:SHOWN]],
        "untagged": vars(bare[1]),
        "more_tags": max(len(listed) - SHOWN, 0) + more,
        "imports": [
            {"name": names.get(run, "written here"), "run": run or None} | vars(tally)
            for run, tally in brought[:SHOWN]
        ],
        "more_imports": max(len(brought) - SHOWN, 0),
    }


def _tags(
    project: Project, ordered: NDArray[np.int64], connection: psycopg.Connection
) -> tuple[dict[str, _Tally], int]:
    """Tags of prompts with rows, and how many tags of the project were not looked at."""
    about = {"project": project.pk}
    told = connection.execute(TAGS, about).fetchall()
    if not told:
        return {}, 0
    names = [name for name, _ in told]
    found: defaultdict[int, _Tally] = defaultdict(_Tally)
    for block in blocks(connection, TAG_OF_PROMPT, about | {"tags": names}, TAG_COLUMNS):
        _add(found, block["code"], _rows_of(block["id"], ordered))
    return {names[code]: tally for code, tally in found.items()}, told[0][1] - len(names)


def _add(to: defaultdict[int, _Tally], keys: NDArray[Any], rows: NDArray[np.int64]) -> None:
    """Count prompts by their keys (n,), and the rows (n,) that each has; those without do not count."""
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
