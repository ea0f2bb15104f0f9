"""What a dataset's health tells of the project beside its rows: golds, skips, where prompts are from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray

from annotator.models import DatasetVersion, Project
from annotator.queries.columns import read_columns
from annotator.queries.datasets import RaterVotes
from annotator.queries.pairs import Selection, rater_ids
from models.intervals import wilson

SHOWN: Final = 20  # lines of a list
REASONS_SHOWN: Final = 10
AT_ONCE: Final = 50_000  # prompts looked up by one statement
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
TAGS: Final = """
SELECT t.tag, count(*), sum(r.n)
FROM unnest(%(ids)s::bigint[], %(rows)s::bigint[]) AS r (id, n)
JOIN annotator_prompt p ON p.id = r.id
CROSS JOIN LATERAL (SELECT DISTINCT jsonb_array_elements_text(p.tags) AS tag) t
WHERE jsonb_typeof(p.tags) = 'array'
GROUP BY t.tag
"""
IMPORTS: Final = """
SELECT p.import_run_id, count(*), sum(r.n),
       count(*) FILTER (WHERE p.tags = '[]'), coalesce(sum(r.n) FILTER (WHERE p.tags = '[]'), 0)
FROM unnest(%(ids)s::bigint[], %(rows)s::bigint[]) AS r (id, n)
JOIN annotator_prompt p ON p.id = r.id
GROUP BY p.import_run_id
"""


@dataclass
class _Tally:
    prompts: int = 0
    rows: int = 0

    def add(self, prompts: int, rows: int) -> None:
        self.prompts += int(prompts)
        self.rows += int(rows)


def prompts_by_source(
    prompts: NDArray[np.int64], *, connection: psycopg.Connection
) -> dict[str, Any]:
    """Where the prompts of rows are from: tags, and what brought them. prompts (rows,) ids."""
    ordered = np.sort(prompts)
    tags: dict[str, _Tally] = {}
    imports: dict[int | None, _Tally] = {}
    untagged, more = _Tally(), 0
    end = 0
    while end < len(ordered):
        start, end = end, min(end + AT_ONCE, len(ordered))
        end = int(np.searchsorted(ordered, ordered[end - 1], side="right"))  # a prompt is not cut
        ids, rows = np.unique(ordered[start:end], return_counts=True)
        values = {"ids": ids.tolist(), "rows": rows.tolist()}
        for tag, count, of in connection.execute(TAGS, values):
            if tag in tags or len(tags) < MOST_TAGS:
                tags.setdefault(tag, _Tally()).add(count, of)
            else:
                more += 1
        for run, count, of, bare, of_bare in connection.execute(IMPORTS, values):
            imports.setdefault(run, _Tally()).add(count, of)
            untagged.add(bare, of_bare)
    names = _titles([run for run in imports if run is not None], connection)
    listed = sorted(tags.items(), key=lambda item: (-item[1].rows, item[0]))
    brought = sorted(imports.items(), key=lambda item: (-item[1].rows, item[0] or 0))
    return {
        "tags": [{"tag": tag, **vars(tally)} for tag, tally in listed[:SHOWN]],
        "untagged": vars(untagged),
        "more_tags": max(len(listed) - SHOWN, 0) + more,
        "imports": [
            {"name": names.get(run, "written here") if run else "written here", "run": run}
            | vars(tally)
            for run, tally in brought[:SHOWN]
        ],
        "more_imports": max(len(brought) - SHOWN, 0),
    }


def _titles(runs: list[int], connection: psycopg.Connection) -> dict[int | None, str]:
    rows = connection.execute(
        "SELECT id, title FROM annotator_run WHERE id = ANY(%s)", [runs]
    ).fetchall()
    return dict(rows)
