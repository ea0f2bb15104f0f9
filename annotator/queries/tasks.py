"""The tasks page: one page of tasks that fit a filter, found without walking a whole project."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from django.db import connection

from annotator import rendering
from annotator.kinds import KINDS
from annotator.models import Group

PAGE: Final = 50
# One request looks at so many tasks at most; where fewer than a page fit, the page says how far
# it looked and goes on from there.
WINDOW: Final = 20_000
MAX_TEXT: Final = 100

OPEN_FLAG: Final = (
    "SELECT FROM annotator_comment c WHERE c.task_id = t.id AND c.is_flag AND c.resolved_at IS NULL"
)
STATES: Final = {
    "": ("All", "true"),
    "open": ("Open", "t.free > 0"),
    "held": (
        "Held now",
        "EXISTS (SELECT FROM annotator_assignment a WHERE a.task_id = t.id AND a.state = 'leased')",
    ),
    "done": ("Done", "NOT t.is_gold AND t.judged >= t.overlap"),
    "gold": ("Golds", "t.is_gold AND NOT t.is_qualification"),
    "qualification": ("Qualification", "t.is_qualification"),
    "settled": ("Settled by a reviewer", "t.is_settled"),
    "flagged": (
        "Flagged",
        f"EXISTS ({OPEN_FLAG})",
    ),
}


@dataclass(frozen=True)
class Filter:
    """Which tasks. Every field is safe to take from an address: nonsense means no filter."""

    state: str = ""
    kind: str = ""
    group: int | None = None
    tag: str = ""
    text: str = ""

    @classmethod
    def read(cls, values: Any) -> Filter:
        group = str(values.get("group", ""))
        is_number = group.isascii() and group.isdecimal() and len(group) < 19
        state, kind = str(values.get("state", "")), str(values.get("kind", ""))
        return cls(
            state=state if state in STATES else "",
            kind=kind if kind in KINDS else "",
            group=int(group) if is_number else None,
            tag=_line(values.get("tag", "")),
            text=_line(values.get("q", values.get("text", ""))),
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def is_empty(self) -> bool:
        return self == Filter()

    def where(self) -> tuple[str, dict[str, Any]]:
        """SQL over a task ``t`` and its prompt ``p``, and its values."""
        parts, values = [STATES[self.state][1]], {}
        if self.kind:
            parts.append("t.kind = %(kind)s")
            values["kind"] = self.kind
        if self.group is not None:
            parts.append("t.group_id = %(group)s")
            values["group"] = self.group
        if self.tag:
            parts.append("p.tags @> to_jsonb(ARRAY[%(tag)s]::text[])")
            values["tag"] = self.tag
        if self.text:
            parts.append("position(lower(%(text)s) IN lower(p.messages::text)) > 0")
            values["text"] = self.text
        return " AND ".join(parts), values


def _line(value: Any) -> str:
    return " ".join(str(value).replace("\0", "").split())[:MAX_TEXT]


@dataclass(frozen=True)
class Row:
    task_id: int
    prompt_line: str
    kind: str
    responses: int
    judged: int
    overlap: int
    held: int
    priority: int
    group: str
    is_gold: bool
    is_qualification: bool
    is_settled: bool
    is_flagged: bool

    @property
    def kind_label(self) -> str:
        return KINDS[self.kind].label if self.kind in KINDS else self.kind


@dataclass(frozen=True)
class Tasks:
    """One page. ``next`` is the key to go on after; ``is_cut`` where the window ended first."""

    rows: list[Row] = field(default_factory=list)
    next: int | None = None
    is_first: bool = True
    is_cut: bool = False
    looked: int = 0

    @property
    def is_only(self) -> bool:
        return self.is_first and self.next is None


PAGE_SQL: Final = """
    WITH seen AS (
        SELECT t.* FROM annotator_task t
        WHERE t.project_id = %(project)s AND t.id > %(after)s
        ORDER BY t.id LIMIT %(window)s
    )
    SELECT t.id, p.messages -> -1 ->> 'content', t.kind, cardinality(t.response_ids), t.judged,
           t.overlap,
           (SELECT count(*) FROM annotator_assignment a
            WHERE a.task_id = t.id AND a.state = 'leased'),
           t.priority, t.group_id, t.is_gold, t.is_qualification, t.is_settled,
           EXISTS ({flag})
    FROM seen t JOIN annotator_prompt p ON p.id = t.prompt_id
    WHERE {where}
    ORDER BY t.id LIMIT %(page)s
"""
WINDOW_SQL: Final = """
    SELECT count(*), max(id) FROM (
        SELECT id FROM annotator_task WHERE project_id = %(project)s AND id > %(after)s
        ORDER BY id LIMIT %(window)s) seen
"""


def tasks(project_id: int, chosen: Filter, *, after: int | None = None) -> Tasks:
    """Tasks that fit, in the order of import, from the key ``after`` on."""
    where, values = chosen.where()
    values |= {"project": project_id, "after": after or 0, "page": PAGE + 1, "window": WINDOW}
    with connection.cursor() as cursor:
        cursor.execute(PAGE_SQL.format(where=where, flag=OPEN_FLAG), values)
        found = cursor.fetchall()
        cursor.execute(WINDOW_SQL, values)
        looked, last = cursor.fetchone()
    names = group_names(project_id, {row[8] for row in found})
    rows = [_row(row, names) for row in found[:PAGE]]
    next_key, is_cut = None, False
    if len(found) > PAGE:
        next_key = rows[-1].task_id
    elif looked == WINDOW:
        next_key, is_cut = last, True
    return Tasks(rows, next=next_key, is_first=after is None, is_cut=is_cut, looked=looked)


def _row(row: tuple[Any, ...], names: dict[int, str]) -> Row:
    task_id, prompt, kind, responses, judged, overlap, held, priority, group, *marks = row
    return Row(
        task_id,
        rendering.summary_line(prompt or "", 100),
        kind,
        responses,
        judged,
        overlap,
        held,
        priority,
        names.get(group, "") if group else "",
        *marks,
    )


def group_names(project_id: int, ids: set[int]) -> dict[int, str]:
    rows = Group.objects.filter(project_id=project_id, pk__in=ids).select_related("person")
    return {one.pk: str(one.person) if one.person else one.name for one in rows}


def matching(project_id: int, chosen: Filter, ids: list[int]) -> list[int]:
    """Those of some tasks that fit, in order."""
    where, values = chosen.where()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.id FROM annotator_task t JOIN annotator_prompt p ON p.id = t.prompt_id"
            f" WHERE t.project_id = %(project)s AND t.id = ANY(%(ids)s) AND {where} ORDER BY t.id",
            values | {"project": project_id, "ids": ids},
        )
        return [row[0] for row in cursor.fetchall()]


def size(project_id: int, *, most: int) -> int:
    """How many tasks a project has, counted up to ``most``."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM (SELECT FROM annotator_task WHERE project_id = %s LIMIT %s) t",
            [project_id, most],
        )
        return int(cursor.fetchone()[0])
