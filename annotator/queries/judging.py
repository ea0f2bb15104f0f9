"""What a judge is to judge: tasks found by selection, a chunk at a time, with all it is shown.

Nothing here holds a project in memory: ids come by key, and a chunk costs the same statements
whatever is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from django.core.files.storage import default_storage
from django.db import connection
from django.db.models import Count

from annotator.errors import Invalid
from annotator.kinds import KINDS
from annotator.kinds.asked import ask_of
from annotator.models import (
    Image,
    Judge,
    JudgeAnswer,
    JudgeOutcome,
    Project,
    ProjectSettings,
    Run,
    Split,
)
from annotator.pictures import MEDIA_TYPES
from annotator.queries import rubric_lists
from annotator.queries.pages import Page, page_by_id
from annotator.queries.tasks import STATES, Filter
from rubrics.judging.types import Candidate, Item
from rubrics.llm.types import FAILURES, Picture

CHUNK: Final = 200
IMAGE_CHUNK: Final = 8  # their bytes are held while they wait
MAX_PICTURE_BYTES: Final = 20 * 1024**2
PAGE: Final = 50
ALL, UNLABELED, LABELED = "all", "unlabeled", "labeled"
# What a command may filter by; "status" is what pages call the state.
FIELDS: Final = ("status", "kind", "group", "tag", "split", "text")
# Why a task has no verdict where it is no call's fault; beside rubrics.llm.types.FAILURES.
OWN_FAILURES: Final = {
    "unfit": "the verdict does not fit the task",
    "unsupported": "the judge cannot judge this kind of task",
    "picture": "a picture of the task cannot be sent",
    "internal": "the judge broke on this task; the server's log has the details",
}
# A reply that came and said nothing: the cache would say it again.
ASKED_AFRESH: Final = ("unreadable", "cut", "unfit")

# People as the report counts them: persons and imported raters who were not left out.
BY_PEOPLE: Final = """
    (t.is_settled OR EXISTS (
        SELECT FROM annotator_judgment j JOIN annotator_rater r ON r.id = j.rater_id
        WHERE j.task_id = t.id AND j.is_current AND j.is_counted
          AND r.kind <> 'judge' AND NOT r.is_excluded))
"""
JUDGED: Final = {ALL: "true", UNLABELED: f"NOT {BY_PEOPLE}", LABELED: BY_PEOPLE}
# The key is asked of the outcomes too: a plan that walks them in order begins where the chunk does.
NEVER_HAD: Final = """
    NOT EXISTS (SELECT FROM annotator_judgeoutcome o
                WHERE o.judge_id = %(judge)s AND o.task_id = t.id AND o.task_id > %(after)s)
"""
# A run that goes on does not take again what failed under it.
FAILED_BEFORE: Final = """
    EXISTS (SELECT FROM annotator_judgeoutcome o
            WHERE o.judge_id = %(judge)s AND o.task_id = t.id AND o.task_id > %(after)s
              AND o.error <> ''
              AND o.run_id IS DISTINCT FROM %(run)s)
"""


@dataclass(frozen=True)
class TaskFilter(Filter):
    """The filter of the tasks page, and the split of the prompt."""

    split: str = ""

    def where(self) -> tuple[str, dict[str, Any]]:
        text, values = super().where()
        if self.split:
            text, values = f"{text} AND p.split = %(split)s", values | {"split": self.split}
        return text, values


@dataclass(frozen=True)
class Selection:
    """Which tasks of a project, by what people did with them and by a filter.

    ``text`` is what was typed, such as "unlabeled" or "split=test,tag=code". ``judged`` is a key
    of ``JUDGED``.
    """

    text: str = ALL
    judged: str = ALL
    filter: TaskFilter = field(default_factory=TaskFilter)

    def where(self) -> tuple[str, dict[str, Any]]:
        text, values = self.filter.where()
        return f"{text} AND {JUDGED[self.judged]}", values


def parse_selection(text: str) -> Selection:
    """A selection from its words: a key of ``JUDGED``, ``NAME=VALUE``, several with commas.

    Raises Invalid for a name or value that there is not.
    """
    given: dict[str, str] = {}
    judged = ALL
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, has_value, value = (piece.strip() for piece in part.partition("="))
        if not has_value and name in JUDGED:
            judged = name
        elif not has_value or name not in (*FIELDS, "state") or not value:
            raise Invalid(
                f"“{part[:80]}” selects no tasks.",
                advice=f"Write {', '.join(JUDGED)} or NAME=VALUE with one of {', '.join(FIELDS)}.",
            )
        elif name in given:
            raise Invalid(f"{name} is given twice.")
        else:
            given["state" if name == "status" else name] = value
    _check(given)
    read = Filter.read(given)
    chosen = TaskFilter(**read.as_dict(), split=given.get("split", ""))
    return Selection(text.strip() or ALL, judged, chosen)


def _check(given: dict[str, str]) -> None:
    """``Filter.read`` takes nonsense for no filter: here it would judge, and pay for, everything."""
    known = {
        "state": [key for key in STATES if key],
        "kind": list(KINDS),
        "split": list(Split.values),
    }
    for name, keys in known.items():
        if name in given and given[name] not in keys:
            raise Invalid(f"There is no {name} “{given[name][:80]}”. Known: {', '.join(keys)}.")
    group = given.get("group", "0")
    if re.fullmatch(r"[0-9]{1,18}", group) is None:
        raise Invalid("A group is named by its number; 0 is everybody.")


@dataclass(frozen=True)
class Source:
    """The tasks of one run that are still to be judged."""

    project_id: int
    judge_id: int
    run_id: int
    selection: Selection
    only_failed: bool = False

    def ids(self, *, after: int, size: int) -> list[int]:
        """The next tasks in order of id; the last key goes on."""
        text, values = self._where()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT t.id FROM annotator_task t JOIN annotator_prompt p ON p.id = t.prompt_id"
                f" WHERE t.project_id = %(project)s AND t.id > %(after)s AND {text}"
                " ORDER BY t.id LIMIT %(size)s",
                values | {"after": after, "size": size},
            )
            return [row[0] for row in cursor.fetchall()]

    def count(self, *, most: int | None) -> int:
        """How many are left, counted up to ``most``."""
        text, values = self._where()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM (SELECT FROM annotator_task t"
                " JOIN annotator_prompt p ON p.id = t.prompt_id"
                f" WHERE t.project_id = %(project)s AND {text} LIMIT %(most)s) chosen",
                values | {"most": most},
            )
            return int(cursor.fetchone()[0])

    def _where(self) -> tuple[str, dict[str, Any]]:
        text, values = self.selection.where()
        had = FAILED_BEFORE if self.only_failed else NEVER_HAD
        values |= {"project": self.project_id, "judge": self.judge_id, "run": self.run_id}
        values["after"] = 0
        return f"{text} AND {had}", values


@dataclass(frozen=True, slots=True)
class Unshowable:
    """A task that cannot be put before a judge, and why."""

    id: int
    error: str
    detail: str


TASKS: Final = f"""
    SELECT t.id, t.kind, t.response_ids, p.messages::text, p.source_image_id, p.mask_image_id,
           {rubric_lists.LIST_OF}
    FROM annotator_task t JOIN annotator_prompt p ON p.id = t.prompt_id
    WHERE t.id = ANY(%s) ORDER BY t.id
"""
RESPONSES: Final = """
    SELECT id, text, messages::text, image_id FROM annotator_response WHERE id = ANY(%s)
"""


def items(project: Project, ids: list[int]) -> list[Item | Unshowable]:
    """Tasks as a judge sees them, in order of id: at most three statements.

    Candidates carry no name of a generator: a judge is as blind as a person.
    """
    with connection.cursor() as cursor:
        cursor.execute(TASKS, [ids])
        tasks = cursor.fetchall()
        cursor.execute(RESPONSES, [sorted({one for task in tasks for one in task[2]})])
        replies = {row[0]: row[1:] for row in cursor.fetchall()}
    wanted = {image for *_, image in replies.values()}
    wanted |= {image for task in tasks for image in task[4:6]}
    show = pictures(wanted - {None})
    common = _asked(project)
    return [_item(task, replies, show, common) for task in tasks]


def _asked(project: Project) -> dict[str, Any]:
    options = project.options
    return {
        "question": project.question,
        "guidelines": project.guidelines,
        "allow_tie": options.allow_tie,
        "attributes": tuple(options.attributes),
        "low": options.rating_low,
        "high": options.rating_high,
        "criteria": tuple(options.criteria),
        "failures": tuple(options.failures),
    }


def _lists(of: rubric_lists.ListOf) -> dict[str, Any]:
    """A checklist of a rubric's version in place of the project's."""
    asked = ask_of(ProjectSettings(), (line.asked for line in rubric_lists.asked(of)))
    return {"criteria": tuple(asked.criteria), "failures": tuple(asked.failures)}


class Unsendable(Exception):
    """A picture that is away or too large."""


def _item(
    task: tuple[Any, ...],
    replies: dict[int, tuple[Any, ...]],
    show: Callable[[int | None], Picture | None],
    common: dict[str, Any],
) -> Item | Unshowable:
    pk, kind, response_ids, messages, source_id, mask_id, list_of = task
    if (of := rubric_lists.parse(list_of)) is not None:
        common = common | _lists(of)
    try:
        return Item(
            id=pk,
            kind=kind,
            messages=orjson.loads(messages),
            candidates=tuple(
                Candidate(whole(text, several), show(image_id))
                for text, several, image_id in (replies[one] for one in response_ids)
            ),
            source=show(source_id),
            mask=show(mask_id),
            **common,
        )
    except Unsendable as error:
        return Unshowable(pk, "picture", str(error))
    except KeyError:  # deleted since its id was read
        return Unshowable(pk, "unsupported", "a response of the task is gone")


def whole(text: str, messages: str | None) -> str:
    """A reply of several messages as one text."""
    if not messages:
        return text
    turns = orjson.loads(messages)
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def pictures(ids: Iterable[int]) -> Callable[[int | None], Picture | None]:
    """Pictures by id. Bytes are read when one is shown, once per call of ``items``."""
    wanted = sorted(ids)
    known = Image.objects.only("file", "digest", "size_bytes").in_bulk(wanted) if wanted else {}
    read: dict[int, Picture] = {}

    def show(image_id: int | None) -> Picture | None:
        if image_id is None:
            return None
        if image_id not in read:
            read[image_id] = _picture(known.get(image_id))
        return read[image_id]

    return show


def _picture(image: Image | None) -> Picture:
    if image is None:
        raise Unsendable("the picture is gone")
    if image.size_bytes > MAX_PICTURE_BYTES:
        raise Unsendable(f"a picture is larger than {MAX_PICTURE_BYTES // 1024**2} MB")
    ending = f".{image.file.name.rpartition('.')[2]}"
    try:
        with default_storage.open(image.file.name) as file:
            data = file.read()
    except OSError as error:
        raise Unsendable(f"a picture cannot be read: {type(error).__name__}") from None
    return Picture(bytes(image.digest).hex(), MEDIA_TYPES.get(ending, "image/webp"), data)


@dataclass(frozen=True, slots=True)
class Silent:
    """Calls of one task whose reply said nothing, by key, and the runs that asked them last."""

    keys: frozenset[bytes]
    runs: frozenset[int]


def silent_calls(judge_id: int, ids: list[int]) -> dict[int, Silent]:
    """Per task what is to be asked afresh."""
    rows = JudgeAnswer.objects.filter(
        judge_id=judge_id, task_id__in=ids, error__in=ASKED_AFRESH, call_key__isnull=False
    ).values_list("task_id", "call_key", "run_id")
    keys: dict[int, set[bytes]] = {}
    runs: dict[int, set[int]] = {}
    for task_id, key, run_id in rows:
        keys.setdefault(task_id, set()).add(bytes(key))
        runs.setdefault(task_id, set()).add(run_id or 0)
    return {
        task_id: Silent(frozenset(some), frozenset(runs[task_id])) for task_id, some in keys.items()
    }


# Runs and their failures ------------------------------------------------------------------------


def judge_of(run: Run) -> Judge | None:
    """The judge of a run of kind judge, battery or report."""
    return (
        Judge.objects.filter(project_id=run.project_id, pk=run.config.get("judge"))
        .select_related("endpoint", "rater", "project")
        .first()
    )


def find_judge(project: Project, name: str) -> Judge | None:
    """``NAME`` is the newest version that is in use, ``NAME@vN`` that one."""
    rows = Judge.objects.filter(project=project).select_related("endpoint", "rater")
    stem, at, version = name.rpartition("@")
    digits = version.removeprefix("v")
    if at and digits.isascii() and digits.isdecimal() and len(digits) < 10:
        return rows.filter(name=stem, version=int(digits)).first()
    rows = rows.filter(name=name)
    return rows.filter(archived_at=None).order_by("-version").first() or rows.first()


@dataclass(frozen=True)
class Failure:
    """A task that a judge has not judged, and why. ``reason`` is in words."""

    id: int
    task_id: int
    error: str
    reason: str
    detail: str


def reason(error: str) -> str:
    return FAILURES.get(error) or OWN_FAILURES.get(error) or error


def failures(run: Run, *, after: int | None = None) -> Page[Failure]:
    """What a run left unjudged and no later run has judged."""
    rows = JudgeOutcome.objects.filter(run=run).exclude(error="").order_by("pk")
    return page_by_id(
        rows,
        after=after,
        size=PAGE,
        build=lambda row: Failure(row.pk, row.task_id, row.error, reason(row.error), row.detail),
    )


def outcomes(run: Run) -> tuple[int, dict[str, int]]:
    """How many tasks a run has judged, and how many it left by reason."""
    rows = JudgeOutcome.objects.filter(run=run).values_list("error").annotate(Count("pk"))
    found = dict(rows.order_by())
    return found.pop("", 0), found


PAID: Final = """
    SELECT count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0),
           coalesce(sum(cost), 0)
    FROM annotator_llmcall WHERE run_id = %s
"""


def paid(run: Run) -> dict[str, Any]:
    """What a run has paid for, from the ledger: exact also where its worker was killed."""
    with connection.cursor() as cursor:
        cursor.execute(PAID, [run.pk])
        calls, tokens_in, tokens_out, cost = cursor.fetchone()
    return {
        "calls": int(calls),
        "tokens_in": int(tokens_in),
        "tokens_out": int(tokens_out),
        "cost": float(cost),
    }
