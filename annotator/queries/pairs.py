"""A project's preferences as pairs: one per (prompt, a, b), votes counted, majority drawn.

Training and export read votes through here and nowhere else, so that both mean the same by
"a beats b". PostgreSQL does the counting; rows come through a server-side cursor in index order,
so memory does not grow with the project.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import psycopg

from annotator.errors import Invalid
from annotator.models import Project, Rater, Split
from annotator.queries import pair_stream
from annotator.queries.snapshot import current

Outcome = Literal["a", "b", "tie", "contradiction"]
Raters = Literal["all", "people", "imported", "judges", "named"]

CHUNK: Final = 1_000  # pairs fetched at a time


class Pair(NamedTuple):
    """What the raters of a selection said about two responses of one prompt.

    ``a_id < b_id`` always, whatever the order in the task. ``strengths_a`` is the sum of the
    strengths (1 to 3) of the votes that a won. ``golds`` counts votes on control tasks; those,
    overruled votes and votes of raters outside the selection are in no other field. ``pair_id`` is the id of the first
    preference counted, 0 where there is none: it leads from any row to its judgments.
    """

    prompt_id: int
    a_id: int
    b_id: int
    wins_a: int
    wins_b: int
    ties: int
    strengths_a: int
    strengths_b: int
    raters: int
    both_bad: int
    golds: int
    pair_id: int
    split: str

    @property
    def votes(self) -> int:
        return self.wins_a + self.wins_b + self.ties

    @property
    def outcome(self) -> Outcome:
        """What most votes say.

        ``contradiction`` where a and b lead with equally many votes, ``tie`` where calls of a tie
        lead, alone or level with one side.
        """
        a, b, tie = self.wins_a, self.wins_b, self.ties
        if a > b and a > tie:
            return "a"
        if b > a and b > tie:
            return "b"
        return "contradiction" if a == b > 0 and a >= tie else "tie"

    @property
    def is_contested(self) -> bool:
        """Whether some preferred a and some preferred b."""
        return self.wins_a > 0 and self.wins_b > 0

    @property
    def agreement(self) -> float:
        """The share of all votes that says what the most say."""
        return max(self.wins_a, self.wins_b, self.ties) / self.votes if self.votes else 0.0

    @property
    def strength(self) -> float:
        """Mean strength of the winner's votes; 0 where nobody won."""
        match self.outcome:
            case "a":
                return self.strengths_a / self.wins_a
            case "b":
                return self.strengths_b / self.wins_b
        return 0.0

    @property
    def p_a(self) -> float:
        """The share of the votes for a, a tie as half a vote for each."""
        return (self.wins_a + self.ties / 2) / self.votes if self.votes else 0.5

    def pooled(self, other: Pair, *, flipped: bool) -> Pair:
        """This pair with the votes of another on the same two texts added.

        ``flipped``: the other's a is this one's b. ``raters`` may count one rater twice.
        """
        a, b, sa, sb = other.wins_a, other.wins_b, other.strengths_a, other.strengths_b
        if flipped:
            a, b, sa, sb = b, a, sb, sa
        return self._replace(
            wins_a=self.wins_a + a,
            wins_b=self.wins_b + b,
            ties=self.ties + other.ties,
            strengths_a=self.strengths_a + sa,
            strengths_b=self.strengths_b + sb,
            raters=self.raters + other.raters,
            both_bad=self.both_bad + other.both_bad,
            golds=self.golds + other.golds,
        )


@dataclass(frozen=True)
class Selection:
    """Whose votes count, and on which prompts.

    Votes on control tasks never do, nor those of raters left out, nor those that a reviewer
    overruled: there the reviewer's decision counts, where the reviewer is among the raters. What
    an AI judge says counts where it was accepted, or where judges were asked for by that word or
    by name.
    """

    raters: Raters = "all"
    names: tuple[str, ...] = ()  # with raters="named"
    splits: tuple[str, ...] = tuple(Split.values)
    without_kinds: tuple[str, ...] = ()  # of task, whose votes do not count here

    @property
    def with_held(self) -> bool:
        """Whether votes of judges count that nothing has accepted."""
        return self.raters in ("judges", "named")


RATERS: Final = "SELECT id, name, kind, is_excluded FROM annotator_rater WHERE project_id = %s"
KINDS: Final = {
    "people": Rater.Kind.HUMAN, "imported": Rater.Kind.IMPORTED, "judges": Rater.Kind.JUDGE,
}  # fmt: skip


def rater_ids(
    project: Project, selection: Selection, *, connection: psycopg.Connection | None = None
) -> list[int] | None:
    """The raters whose votes count; None for all. Raises Invalid for a name nobody has.

    A rater who is left out counts in no selection. ``connection``: where the votes are read, so
    that somebody who is left out meanwhile is so for all of them or for none.
    """
    rows = (connection or current()).execute(RATERS, [project.pk]).fetchall()
    wanted, names = selection.raters, set(selection.names)
    if wanted == "all" and not any(is_excluded for *_, is_excluded in rows):
        return None
    if wanted == "named":
        missing = sorted(names - {name for _, name, _, _ in rows})
        if missing or not names:
            raise Invalid(f"No rater of this project is called {', '.join(missing) or 'nothing'}.")
    return sorted(
        pk
        for pk, name, kind, is_excluded in rows
        if not is_excluded
        and (name in names if wanted == "named" else kind == KINDS.get(wanted, kind))
    )


# a and b are put in order of id because two tasks may list the same responses in either order.
COUNTED: Final = """
SELECT v.*, q.split FROM (
    SELECT prompt_id, a_id, b_id,
           count(*) FILTER (WHERE used AND won = 1) AS wins_a,
           count(*) FILTER (WHERE used AND won = -1) AS wins_b,
           count(*) FILTER (WHERE used AND won = 0) AS ties,
           coalesce(sum(strength) FILTER (WHERE used AND won = 1), 0) AS strengths_a,
           coalesce(sum(strength) FILTER (WHERE used AND won = -1), 0) AS strengths_b,
           count(DISTINCT rater_id) FILTER (WHERE used) AS raters,
           count(*) FILTER (WHERE used AND both_bad) AS both_bad,
           count(*) FILTER (WHERE is_gold) AS golds,
           coalesce(min(id) FILTER (WHERE used), 0) AS pair_id
    FROM (
        SELECT id, prompt_id, least(a_id, b_id) AS a_id, greatest(a_id, b_id) AS b_id,
               CASE WHEN a_id < b_id THEN outcome ELSE -outcome END AS won,
               strength, both_bad, rater_id, is_gold,
               NOT is_gold AND NOT is_overruled AND (NOT is_held OR %(with_held)s)
                   AND (%(all_raters)s OR rater_id = ANY(%(raters)s)) AS used
        FROM annotator_preference WHERE project_id = %(project)s
    ) votes
    GROUP BY prompt_id, a_id, b_id
) v JOIN annotator_prompt q ON q.id = v.prompt_id
WHERE q.split = ANY(%(splits)s)
"""
# Said only where it is asked for, since most readers want every prompt.
OF_PROMPTS: Final = "WHERE project_id = %(project)s AND prompt_id = ANY(%(prompts)s)"
# Said only where it is asked for: a look at every vote's task.
NOT_OF_KINDS: Final = """
                   AND task_id NOT IN (SELECT id FROM annotator_task WHERE
                       project_id = %(project)s AND kind = ANY(%(without_kinds)s))"""


def counted(
    project: Project,
    selection: Selection,
    *,
    prompts: Sequence[int] | None = None,
    connection: psycopg.Connection | None = None,
) -> tuple[str, dict[str, Any]]:
    """The statement that counts votes per pair, columns as in ``Pair``, and its parameters.

    ``prompts``: only pairs of these. ``connection``: where the statement will be run.
    """
    raters = rater_ids(project, selection, connection=connection)
    sql = (
        COUNTED.replace("AS used", f"{NOT_OF_KINDS} AS used")
        if selection.without_kinds
        else COUNTED
    )
    if prompts is not None:
        sql = sql.replace("WHERE project_id = %(project)s", OF_PROMPTS, 1)
    return sql, {
        "project": project.pk,
        "all_raters": raters is None,
        "raters": raters or [],
        "with_held": selection.with_held,
        "splits": list(selection.splits),
        "without_kinds": list(selection.without_kinds),
        **({} if prompts is None else {"prompts": list(prompts)}),
    }


def chunks(
    project: Project,
    selection: Selection,
    *,
    connection: psycopg.Connection | None = None,
    size: int = CHUNK,
    prompts: Sequence[int] | None = None,
) -> Iterator[list[Pair]]:
    """Every pair with any vote, by (prompt, a, b), in lists of about ``size``.

    A prompt's pairs are never in two lists. Pairs on which no selected rater voted are there,
    with ``votes`` 0. ``connection``: where to read, the thread's own if not given; outside a
    transaction it is in one until the iterator ends or is closed. ``prompts``: only their pairs.
    """
    # Here, not in the generator: another thread may read it, and would open a connection for this.
    sql, values = counted(project, selection, prompts=prompts, connection=connection)
    return _chunks(connection or current(), sql, values, size)


def _chunks(
    raw: psycopg.Connection, sql: str, values: dict[str, Any], size: int
) -> Iterator[list[Pair]]:
    idle = raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with raw.transaction() if idle else nullcontext():
        for rows in pair_stream.pair_rows(raw, ordered(sql), values, size):
            yield list(map(Pair._make, rows))


def ordered(sql: str) -> str:
    """What ``counted`` gave, prompt by prompt."""
    return f"{sql} ORDER BY v.prompt_id, v.a_id, v.b_id"


def decided_pairs(
    project: Project,
    selection: Selection | None = None,
    *,
    min_votes: int = 1,
    connection: psycopg.Connection | None = None,
) -> Iterator[Pair]:
    """The pairs with at least ``min_votes`` counted votes, by (prompt, a, b)."""
    selection = selection or Selection()
    for chunk in chunks(project, selection, connection=connection):
        yield from (pair for pair in chunk if pair.votes >= max(min_votes, 1))


# A verdict on a pair says something of it; a ranking, a rating or a checklist may leave pairs unsaid.
# A rubric's checklist asks for no preference.
UNVOTED: Final = """
SELECT split, count(*) FROM (
    SELECT DISTINCT q.split, t.prompt_id, least(a.id, b.id), greatest(a.id, b.id)
    FROM annotator_task t
    JOIN annotator_prompt q ON q.id = t.prompt_id AND q.split = ANY(%(splits)s)
    CROSS JOIN LATERAL unnest(t.response_ids) WITH ORDINALITY AS a (id, place)
    CROSS JOIN LATERAL unnest(t.response_ids) WITH ORDINALITY AS b (id, place)
    WHERE t.project_id = %(project)s AND (t.judged = 0 OR t.kind <> 'pairwise') AND a.place < b.place
      AND t.rubric_version_id IS NULL
      AND NOT EXISTS (
        SELECT 1 FROM annotator_preference p
        WHERE p.project_id = t.project_id AND p.prompt_id = t.prompt_id
          AND p.a_id IN (a.id, b.id) AND p.b_id IN (a.id, b.id)
      )
) pairs GROUP BY split
"""


def count_unvoted(
    project: Project, splits: Sequence[str], *, connection: psycopg.Connection | None = None
) -> dict[str, int]:
    """Pairs that some task asks about and that nobody has voted on, by split."""
    raw = connection or current()
    rows = raw.execute(UNVOTED, {"project": project.pk, "splits": list(splits)}).fetchall()
    return {split: int(count) for split, count in rows}
