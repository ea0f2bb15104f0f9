"""Reading for datasets: their versions, what an export would give, and who voted."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from random import Random
from typing import Any, Final

import psycopg
from django.core.cache import cache
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

from annotator.models import DatasetVersion, Image, Project, Rater, Run, RunState
from annotator.queries.pages import Page, page_by_id
from annotator.queries.pairs import Pair, Selection, count_unvoted, counted, rater_ids
from models.intervals import wilson

PAGE_SIZE: Final = 30


@dataclass(frozen=True)
class RaterVotes:
    """One rater of an export under a pseudonym: the same in every version, no name in any."""

    pseudonym: str
    kind: str
    is_simulated: bool
    votes: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.pseudonym,
            "kind": self.kind,
            "simulated": self.is_simulated,
            "votes": self.votes,
        }


def pseudonym(rater_id: int) -> str:
    """What a rater is called outside: nobody without the server's secret can turn it back."""
    return f"rater-{salted_hmac('touchstone.rater', str(rater_id)).hexdigest()[:12]}"


RATER_VOTES: Final = """
SELECT v.rater_id, count(*)
FROM annotator_preference v JOIN annotator_prompt p ON p.id = v.prompt_id
WHERE v.project_id = %(project)s AND NOT v.is_gold AND NOT v.is_overruled
  AND (NOT v.is_held OR %(with_held)s)
  AND p.split = ANY(%(splits)s)
  AND (%(all_raters)s OR v.rater_id = ANY(%(raters)s))
GROUP BY v.rater_id ORDER BY v.rater_id
"""


def rater_votes(
    project: Project, selection: Selection, *, connection: psycopg.Connection
) -> list[RaterVotes]:
    """The raters of a selection with their counted votes."""
    ids = rater_ids(project, selection, connection=connection)
    with psycopg.Cursor(connection) as cursor:
        cursor.execute(RATER_VOTES, _values(project, selection, ids))
        votes = dict(cursor.fetchall())
    raters = Rater.objects.in_bulk(votes)
    return [
        RaterVotes(pseudonym(pk), raters[pk].kind, raters[pk].is_simulated, count)
        for pk, count in votes.items()
        if pk in raters
    ]


def _values(project: Project, selection: Selection, ids: list[int] | None) -> dict[str, Any]:
    return {
        "project": project.pk,
        "splits": list(selection.splits),
        "all_raters": ids is None,
        "raters": ids or [],
        "with_held": selection.with_held,
    }


@dataclass(frozen=True)
class Sides:
    """How often the answer that was shown first won, of votes whose order on screen is known."""

    first: int
    votes: int

    def as_dict(self) -> dict[str, Any]:
        low, high = wilson(self.first, self.votes)
        return {
            "share": round(self.first / self.votes, 4),
            "interval": [round(low, 4), round(high, 4)],
            "votes": self.votes,
        }


SIDES: Final = """
SELECT count(*) FILTER (WHERE (j.shown_order[1] = 0) = (j.ranks[1] < j.ranks[2])), count(*)
FROM annotator_judgment j
JOIN annotator_task t ON t.id = j.task_id JOIN annotator_prompt p ON p.id = t.prompt_id
WHERE j.project_id = %(project)s AND j.is_current AND j.shown_order IS NOT NULL
  AND j.kind <> 'adjudication' AND NOT t.is_gold AND p.split = ANY(%(splits)s)
  AND cardinality(j.ranks) = 2 AND j.ranks[1] <> j.ranks[2] AND 0 <> ALL(j.ranks)
  AND (%(all_raters)s OR j.rater_id = ANY(%(raters)s))
"""


def sides(
    project: Project, selection: Selection, *, connection: psycopg.Connection
) -> Sides | None:
    """Whether raters lean to a side; None where nobody was shown anything."""
    ids = rater_ids(project, selection, connection=connection)
    with psycopg.Cursor(connection) as cursor:
        row = cursor.execute(SIDES, _values(project, selection, ids)).fetchone()
    assert row is not None
    return Sides(*row) if row[1] else None


SHAPE: Final = """
SELECT EXISTS (
    SELECT FROM annotator_prompt WHERE project_id = %(project)s
      AND (jsonb_array_length(messages) <> 1 OR messages->0->>'role' <> 'user')
), EXISTS (
    SELECT FROM annotator_prompt WHERE project_id = %(project)s AND extra ? 'transcript'
)
"""


def shape_of(project: Project, *, connection: psycopg.Connection) -> tuple[bool, bool]:
    """Whether some prompt has several turns (or a system message), and whether some prompt came
    as a transcript."""
    with psycopg.Cursor(connection) as cursor:
        row = cursor.execute(SHAPE, {"project": project.pk}).fetchone()
    assert row is not None
    return bool(row[0]), bool(row[1])


def count_pairs(project: Project, *, connection: psycopg.Connection) -> int:
    """Pairs that anybody voted on, as tasks list them: what a build has to read."""
    with psycopg.Cursor(connection) as cursor:
        row = cursor.execute(
            "SELECT count(*) FROM (SELECT DISTINCT prompt_id, a_id, b_id"
            " FROM annotator_preference WHERE project_id = %s) pairs",
            [project.pk],
        ).fetchone()
    assert row is not None
    return int(row[0])


def versions(project: Project, *, after: int | None) -> Page[DatasetVersion]:
    """The project's datasets, newest first, with who built them."""
    found = project.dataset_versions.select_related(
        "run__created_by", "recipe_version__recipe"
    ).order_by("-pk")
    return page_by_id(found, after=after, size=PAGE_SIZE, build=lambda version: version)


def building(project: Project) -> list[Run]:
    """Exports that are queued or at work, newest first."""
    active = [RunState.QUEUED, RunState.RUNNING, RunState.STOPPING]
    return list(project.runs.filter(kind=Run.Kind.EXPORT, state__in=active)[:PAGE_SIZE])


def find(project: Project, number: int) -> DatasetVersion | None:
    """One version, with who built it."""
    found = project.dataset_versions.select_related(
        "project", "run__created_by", "recipe_version__recipe"
    )
    return found.filter(number=number).first()


def has_at_most(project: Project, votes: int, *, connection: psycopg.Connection) -> bool:
    """Whether the project has no more votes than that; looks no further."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT FROM annotator_preference WHERE project_id = %s LIMIT %s) v",
        [project.pk, votes + 1],
    ).fetchone()
    assert row is not None
    return int(row[0]) <= votes


SAMPLE: Final = """
SELECT DISTINCT (
    SELECT v.prompt_id FROM annotator_preference v
    WHERE v.project_id = %(project)s AND v.prompt_id >= r.at ORDER BY v.prompt_id LIMIT 1)
FROM unnest(%(at)s::bigint[]) r (at)
"""


def sample_prompts(
    project: Project, count: int, *, seed: int, connection: psycopg.Connection
) -> list[int]:
    """About ``count`` prompts with votes, in random order, without a walk over the votes.

    Drawn by their ids: a prompt after a gap is likelier than others.
    """
    row = connection.execute(
        "SELECT min(prompt_id), max(prompt_id) FROM annotator_preference WHERE project_id = %s",
        [project.pk],
    ).fetchone()
    if row is None or row[0] is None:
        return []
    random = Random(seed)
    at = [random.randint(row[0], row[1]) for _ in range(count)]
    rows = connection.execute(SAMPLE, {"project": project.pk, "at": at}).fetchall()
    found = sorted(pk for (pk,) in rows if pk is not None)
    random.shuffle(found)
    return found


def votes_of_prompts(
    project: Project, prompts: list[int], *, connection: psycopg.Connection
) -> dict[int, int]:
    """Prompt -> votes on it."""
    rows = connection.execute(
        "SELECT prompt_id, count(*) FROM annotator_preference"
        " WHERE project_id = %s AND prompt_id = ANY(%s) GROUP BY prompt_id",
        [project.pk, prompts],
    ).fetchall()
    return dict(rows)


def image_ids(project: Project, files: Iterable[str]) -> dict[str, int]:
    """Stored file -> number of the picture, of those of the project."""
    found = Image.objects.filter(project=project, file__in=list(files))
    return dict(found.values_list("file", "pk"))


# What an export would give ---------------------------------------------------------------------

KINDS: Final = """
SELECT split, wins_a, wins_b, ties, both_bad, golds > 0 AS golds, count(*)
FROM ({counted}) pairs GROUP BY 1, 2, 3, 4, 5, 6
"""
FRESH_SECONDS: Final = 60.0
# A count that took long stays good for this many times as long.
KEPT_TIMES: Final = 30
TIMEOUT_MS: Final = 20_000


@dataclass(frozen=True)
class Kinds:
    """Pairs of a project by how their votes fell: enough to foretell any recipe.

    ``counts``: a pair with such votes -> how many there are. ``unvoted`` by split.
    """

    counts: list[tuple[Pair, int]]
    unvoted: dict[str, int]
    at: datetime


def _kinds_key(project: Project, selection: Selection) -> str:
    who = blake2b(repr(selection).encode(), digest_size=16).hexdigest()
    return f"export-kinds:1:{project.pk}:{who}"


def known_kinds(project: Project, selection: Selection) -> Kinds | None:
    """What was counted a minute ago or so; None where that would have to be done now."""
    kept = cache.get(_kinds_key(project, selection))
    return kept[1] if kept else None


def kinds(project: Project, selection: Selection) -> Kinds | None:
    """Counted now or a minute ago; None where counting takes too long to wait for.

    One walk over the votes answers for every option but the raters, so that the preview of a
    recipe costs no walk per change. While someone counts, others get what was counted before.
    """
    key = _kinds_key(project, selection)
    kept = cache.get(key)
    if kept is not None and kept[0] > time.time():
        return kept[1]
    if not cache.add(f"{key}:counting", 1, TIMEOUT_MS // 1000):
        return kept[1] if kept else None
    began = time.monotonic()
    try:
        found = _count_kinds(project, selection)
    except (OperationalError, psycopg.OperationalError):
        found = None  # over the time limit: the page says so, the build counts exactly
    finally:
        cache.delete(f"{key}:counting")
    took = time.monotonic() - began
    keep = max(FRESH_SECONDS, KEPT_TIMES * took)
    cache.set(key, (time.time() + keep, found), 2 * keep)
    return found


def _count_kinds(project: Project, selection: Selection) -> Kinds:
    sql, values = counted(project, selection)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
        cursor.execute(KINDS.format(counted=sql), values)
        counts = [_kind(*row) for row in cursor.fetchall()]
        unvoted = count_unvoted(project, selection.splits)
    return Kinds(counts, unvoted, timezone.now())


def _kind(
    split: str, wins_a: int, wins_b: int, ties: int, both_bad: int, golds: bool, count: int
) -> tuple[Pair, int]:
    pair = Pair(0, 0, 0, wins_a, wins_b, ties, 0, 0, 0, both_bad, int(golds), 0, split)
    return pair, count
