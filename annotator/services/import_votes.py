"""Imported votes and verdicts as judgments with their edges, in the form the desk would write.

Canonical order is that of ``Task.response_ids``, which an earlier row or import may have set:
verdicts are turned to it here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

import orjson
import psycopg

from annotator.importers.types import Judged, KnownTask, Vote
from annotator.kinds.base import Kind
from annotator.kinds.base import kind as find_kind
from annotator.kinds.checklist import checked
from annotator.kinds.rating import rated
from annotator.kinds.verdict import Verdict, widest
from annotator.models import ProjectSettings
from annotator.services.import_chunk import Chunk, Counts
from annotator.services.import_copy import NULL, as_json, escaped
from annotator.services.import_judges import Ended, JudgeDesk, of_pair

BEST_WORST_STRENGTH: Final = 2  # as kinds.best_worst gives it
MAX_RATED: Final = 200  # attributes that the result of an import tells apart

# (task, its prompt, its responses): where a verdict goes.
Target = tuple[int, int, Sequence[int]]
# (target, rater, whether the file has the responses the other way round, vote)
Given = tuple[Target, int, bool, Vote]
# (target, rater, kind, verdict in the order of the task, verdict of the file, that order)
Ranked = tuple[Target, int, Kind, Verdict, Judged, list[int]]

_kind = cache(find_kind)


def verdict_of(judged: Judged, kind: str, *, options: ProjectSettings) -> Verdict:
    """An imported verdict as the desk would have made it, in the order of its row."""
    if kind == "rating":
        said = rated(judged.ratings or {})
    elif kind == "checklist":
        said = checked(judged.ratings or {}, options=options)
    elif kind == "best-worst":
        said = Verdict(ranks=judged.ranks, strength=BEST_WORST_STRENGTH)
    else:
        said = Verdict(ranks=judged.ranks, strength=widest(judged.ranks))
    return replace(said, both_bad=judged.both_bad, rationale=judged.rationale)


def turned(verdict: Verdict, order: Sequence[int]) -> Verdict:
    """A verdict in another order: ``order[i]`` is the place where the i-th response stood."""
    if list(order) == list(range(len(order))):
        return verdict
    ratings = verdict.ratings and {
        name: [values[place] for place in order] for name, values in verdict.ratings.items()
    }
    return replace(verdict, ranks=[verdict.ranks[place] for place in order], ratings=ratings)


def gold_json(gold: Judged, kind: str, order: Sequence[int], *, options: ProjectSettings) -> str:
    """A known answer as ``Task.gold`` keeps it."""
    said = turned(verdict_of(gold, kind, options=options), order)
    return orjson.dumps(said.as_gold()).decode()


class Desk:
    """Writes the judgments of one import into the lines of its chunks."""

    def __init__(
        self,
        *,
        project_id: int,
        run_id: int,
        options: ProjectSettings,
        counts: Counts,
        cursor: psycopg.Cursor[Any],
        ids: Callable[[str, int], Sequence[int]],
        is_simulated: bool,
        now: str,
    ) -> None:
        self.raters: dict[str, int] = {}  # by name
        self.judges = JudgeDesk(
            project_id=project_id,
            run_id=run_id,
            cursor=cursor,
            ids=ids,
            is_simulated=is_simulated,
            now=now,
        )
        self._project, self._run, self._now = project_id, run_id, now
        self._options, self._counts = options, counts
        self._cursor, self._ids = cursor, ids
        self._is_simulated = is_simulated

    def place(self, chunk: Chunk) -> None:
        """Add the judgments of a chunk whose tasks have their ids."""
        if not chunk.has_labels:
            return
        taken = self._taken(chunk)
        votes: list[Given] = []
        verdicts: list[Ranked] = []
        for at, (row, tasks) in enumerate(chunk.rows):
            if row.votes:
                self._take_votes(chunk, at, taken, votes)
            if row.verdicts:
                self._take_verdicts(chunk, at, tasks[0], taken, verdicts)
        for row in chunk.onto:
            assert row.onto is not None
            for vote in row.votes:
                self._take_reference(chunk, row.onto, vote, taken, votes)
        self._write_votes(chunk, votes)
        self._write_verdicts(chunk, verdicts)

    def _taken(self, chunk: Chunk) -> set[tuple[int, int]]:
        if not chunk.old_tasks:
            return set()
        self._cursor.execute(
            "SELECT task_id, rater_id FROM annotator_judgment WHERE task_id = ANY(%s)",
            [chunk.old_tasks],
        )
        taken = set(self._cursor.fetchall())
        return taken | self.judges.ended(chunk.old_tasks) if chunk.has_judges else taken

    def _is_free(self, place: tuple[int, int], taken: set[tuple[int, int]]) -> bool:
        """Whether a rater has not judged a task yet; from here on they have."""
        if place in taken:
            self._counts.skipped_duplicates += 1
            return False
        taken.add(place)
        return True

    def _take_votes(
        self,
        chunk: Chunk,
        at: int,
        taken: set[tuple[int, int]],
        votes: list[Given],
    ) -> None:
        row = chunk.rows[at][0]
        prompt, hashes = chunk.prompt_ids[chunk.prompt_hashes[at]], chunk.reply_hashes[at]
        for vote in row.votes:
            key = chunk.task_hashes.get((at, (vote.first, vote.second)))
            if key is None:
                key = chunk.task_hashes[(at, (vote.second, vote.first))]
            task, ids = chunk.tasks[key]
            rater = self._rater(vote.rater, is_judge=vote.is_judge)
            if not self._is_free((task, rater), taken):
                continue
            first = chunk.response_ids[(prompt, hashes[vote.first])]
            votes.append(((task, prompt, ids), rater, first != ids[0], vote))
            chunk.rows_that_add.add(at)

    def _take_reference(
        self,
        chunk: Chunk,
        onto: KnownTask,
        vote: Vote,
        taken: set[tuple[int, int]],
        votes: list[Given],
    ) -> None:
        rater = self._rater(vote.rater, is_judge=vote.is_judge)
        if self._is_free((onto.id, rater), taken):
            target = (onto.id, onto.prompt_id, (onto.a_id, onto.b_id))
            votes.append((target, rater, False, vote))
            chunk.lines_that_add += 1

    def _take_verdicts(
        self,
        chunk: Chunk,
        at: int,
        places: tuple[int, ...],
        taken: set[tuple[int, int]],
        verdicts: list[Ranked],
    ) -> None:
        row = chunk.rows[at][0]
        task, ids = chunk.tasks[chunk.task_hashes[(at, places)]]
        own = chunk.ids_of(at, places)
        order = [own.index(one) for one in ids]
        target = (task, chunk.prompt_ids[chunk.prompt_hashes[at]], ids)
        kind = _kind(row.kind)
        for judged in row.verdicts:
            rater = self._rater(judged.rater, is_judge=judged.is_judge)
            if self._is_free((task, rater), taken):
                said = turned(verdict_of(judged, row.kind, options=self._options), order)
                verdicts.append((target, rater, kind, said, judged, order))
                self._note_scale(said, row.kind)
                chunk.rows_that_add.add(at)

    def _note_scale(self, said: Verdict, kind: str) -> None:
        """Remember between which values each attribute was rated."""
        known = self._counts.rated
        for name, values in (said.ratings or {}).items():
            given = [value for value in values if value is not None]
            if given and (name in known or len(known) < MAX_RATED):
                _, low, high = known.get(name, (kind, given[0], given[0]))
                known[name] = (kind, min(low, *given), max(high, *given))

    def _write_votes(self, chunk: Chunk, votes: list[Given]) -> None:
        if chunk.has_judges:
            # A verdict that cannot be read is no judgment.
            unread = [one for one in votes if one[3].unread is not None]
            votes = [one for one in votes if one[3].unread is None]
            self._write_unread(chunk, unread)
        judgments = self._ids("judgment", len(votes))
        preferences = self._ids("preference", len(votes))
        project, run = self._project, self._run
        for pk, edge, ((task, prompt, (a, b)), rater, is_exchanged, vote) in zip(
            judgments, preferences, votes, strict=True
        ):
            outcome = -vote.outcome if is_exchanged else vote.outcome
            ranks = "{1,1}" if outcome == 0 else "{1,2}" if outcome > 0 else "{2,1}"
            strength = vote.strength if outcome else 0
            both_bad = "t" if vote.both_bad else "f"
            counted, held = ("f", "t") if vote.is_judge else ("t", "f")
            at = vote.at.isoformat() if vote.at else self._now
            chunk.lines["judgment"].append(
                f"{pk}\t{project}\t{task}\t{rater}\t{ranks}\t{strength}\t{both_bad}"
                f"\t{escaped(vote.rationale)}\t{at}\t{run}\timported\t1\tt\t{counted}"
                "\t{}\t\\N\n"
            )
            chunk.lines["preference"].append(
                f"{edge}\t{project}\t{pk}\t{task}\t{prompt}\t{rater}\t{a}\t{b}\t{outcome}"
                f"\t{strength}\t{both_bad}\tf\t{held}\n"
            )
            self._counts.raters[vote.rater] += 1
        self._counts.judgments += len(votes)
        if chunk.has_judges:
            self._write_outcomes(chunk, votes, judgments)

    def _write_unread(self, chunk: Chunk, votes: list[Given]) -> None:
        self._write_outcomes(chunk, votes, [None] * len(votes))
        for _, _, _, vote in votes:
            self._counts.unread[vote.rater] += 1

    def _write_outcomes(
        self, chunk: Chunk, votes: list[Given], judgments: Sequence[int | None]
    ) -> None:
        ended = []
        for pk, ((task, _, _), _, is_exchanged, vote) in zip(judgments, votes, strict=True):
            if not vote.is_judge:
                continue
            said = vote.orders or (None if vote.unread is not None else vote.outcome,)
            both = len(said) > 1 and None not in said
            ended.append(
                Ended(
                    self.judges.find(vote.rater)[0],
                    task,
                    pk,
                    of_pair(said, is_exchanged=is_exchanged),
                    is_consistent=said[0] == said[1] if both else None,
                    detail=vote.unread or "",
                )
            )
        self.judges.write(chunk.lines, ended)

    def _write_verdicts(self, chunk: Chunk, verdicts: list[Ranked]) -> None:
        edges = [
            (at, edge)
            for at, (_, _, kind, said, _, _) in enumerate(verdicts)
            for edge in kind.edges(said, options=self._options)
        ]
        judgments = self._ids("judgment", len(verdicts))
        for pk, ((task, _, _), rater, _, said, judged, _) in zip(judgments, verdicts, strict=True):
            ratings = as_json(said.ratings) if said.ratings else NULL
            at = judged.at.isoformat() if judged.at else self._now
            counted = "f" if judged.is_judge else "t"
            chunk.lines["judgment"].append(
                f"{pk}\t{self._project}\t{task}\t{rater}\t{_array(said.ranks)}"
                f"\t{said.strength}\t{'t' if said.both_bad else 'f'}\t{escaped(said.rationale)}"
                f"\t{at}\t{self._run}\timported\t1\tt\t{counted}\t{{}}\t{ratings}\n"
            )
            self._counts.raters[judged.rater] += 1
        self._counts.judgments += len(verdicts)
        for pk, (at, edge) in zip(self._ids("preference", len(edges)), edges, strict=True):
            (task, prompt, ids), rater, _, said, judged, _ = verdicts[at]
            chunk.lines["preference"].append(
                f"{pk}\t{self._project}\t{judgments[at]}\t{task}\t{prompt}\t{rater}"
                f"\t{ids[edge.a]}\t{ids[edge.b]}\t{edge.outcome}\t{edge.strength}"
                f"\t{'t' if said.both_bad else 'f'}\tf\t{'t' if judged.is_judge else 'f'}\n"
            )
        if chunk.has_judges:
            self._write_ranked_outcomes(chunk, verdicts, judgments)

    def _write_ranked_outcomes(
        self, chunk: Chunk, verdicts: list[Ranked], judgments: Sequence[int]
    ) -> None:
        ended = [
            Ended(
                self.judges.find(judged.rater)[0],
                task,
                pk,
                # Shown as the file has them: at each place of its row, which of the task's.
                [(_array([order.index(place) for place in range(len(order))]), _array(said.ranks))],
                scores=said.ratings,
            )
            for pk, ((task, _, _), _, _, said, judged, order) in zip(
                judgments, verdicts, strict=True
            )
            if judged.is_judge
        ]
        self.judges.write(chunk.lines, ended)

    def _rater(self, name: str, *, is_judge: bool) -> int:
        """The imported rater of this name, made on first use, in this transaction."""
        known = self.raters.get(name)
        if known is None and is_judge:
            known = self.raters[name] = self.judges.find(name)[1]
        if known is None:
            self._cursor.execute(
                "INSERT INTO annotator_rater (project_id, kind, name, is_simulated, created_at,"
                " judged, skipped, claims_since_mark) VALUES (%s, 'imported', %s, %s, now(), 0,"
                " 0, 0) ON CONFLICT (project_id, kind, name) WHERE kind <> 'human' DO NOTHING",
                [self._project, name, self._is_simulated],
            )
            self._cursor.execute(
                "SELECT id FROM annotator_rater"
                " WHERE project_id = %s AND kind = 'imported' AND name = %s",
                [self._project, name],
            )
            row = self._cursor.fetchone()
            assert row is not None
            known = self.raters[name] = row[0]
        return known


def _array(numbers: Sequence[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"
