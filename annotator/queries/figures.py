"""How far each project is: counts that cost a walk over its rows, a minute old at most.

Everything here takes several projects at once, so that a list of projects costs as many
statements as one. What was counted waits in the cache for ``FRESH_SECONDS``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final, TypeVar

import numpy as np
from django.core.cache import cache
from django.db import connection
from django.utils import timezone

from models.intervals import cluster_bootstrap, wilson

FRESH_SECONDS: Final = 60
KEPT_SECONDS: Final = 600  # how long an old value can stand in while one request counts again
DAYS: Final = 28
PACE_DAYS: Final = 14
# Agreement reads every vote of a project up to this many edges, else those of a random sample
# of its prompts: the first by content hash, which is as good as drawn and the same every time.
FULL_EDGES: Final = 200_000
SAMPLE_PROMPTS: Final = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """Judgments a day over the last days, with the 95 % interval of that mean."""

    a_day: float
    low: float
    high: float
    days: int


@dataclass(frozen=True)
class Agreement:
    """How often two raters of one pair of responses say the same (better, tie, worse).

    ``share`` of ``comparisons`` (pairs of raters) on ``pairs`` (of responses). Percent agreement
    is not corrected for chance. ``sampled`` when it was counted on a random part of the prompts;
    ``imported`` when votes of imported raters are among them.
    """

    share: float
    low: float
    high: float
    pairs: int
    comparisons: int
    sampled: bool = False
    imported: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class Figures:
    """One project in numbers. ``wanted`` and ``judged`` count places: overlap per task."""

    prompts: int = 0
    tasks: int = 0
    tasks_done: int = 0
    wanted: int = 0
    judged: int = 0
    imported: int = 0  # judgments that came along with an import
    edges: int = 0  # preferences that count: of people, imported, of judges where accepted
    decided: int = 0  # of them not ties
    daily: tuple[tuple[date, int], ...] = ()  # people's judgments, oldest first
    reasoned: int = 0  # of them with a reason
    agreement: Agreement | None = None

    @property
    def open(self) -> int:
        return max(0, self.wanted - self.judged)

    @property
    def percent(self) -> int:
        """Whole percent done; 100 only when nothing is open."""
        return 100 * self.judged // self.wanted if self.wanted else 0

    @property
    def ties(self) -> int:
        return self.edges - self.decided

    @property
    def recent(self) -> int:
        """People's judgments of the last ``DAYS`` days."""
        return sum(count for _, count in self.daily)

    @property
    def is_complete(self) -> bool:
        return self.tasks > 0 and self.open == 0

    @property
    def pace(self) -> Pace | None:
        return pace(self.daily)

    @property
    def done_about(self) -> Forecast | None:
        return forecast(self.open, self.pace, today=timezone.localdate())


@dataclass(frozen=True)
class Forecast:
    """When the last judgment is in, if the pace holds. ``latest`` is None when it may stall."""

    about: date
    earliest: date
    latest: date | None

    @property
    def text(self) -> str:
        return _day(self.about)

    @property
    def range_text(self) -> str:
        if self.latest is None:
            return f"{_day(self.earliest)} or later"
        if self.latest == self.earliest:
            return _day(self.earliest)
        return f"{_day(self.earliest)} to {_day(self.latest)}"


def _day(day: date) -> str:
    """The day with its year only where that is not plain."""
    year = f" {day.year}" if day - timezone.localdate() > timedelta(days=300) else ""
    return f"{day.day} {day:%b}{year}"


def pace(daily: Iterable[tuple[date, int]]) -> Pace | None:
    """The mean of the last ``PACE_DAYS`` whole days since the first judgment; None without any.

    Days differ a lot, so the interval is that of a mean of independent days: 1.96 standard
    errors. One day alone has no spread and gives the widest interval a count allows.
    """
    counts = [count for _, count in daily][-PACE_DAYS - 1 :]
    whole, today = counts[:-1], counts[-1:]
    while whole and not whole[0]:
        whole.pop(0)
    if not whole:
        whole = [count for count in today if count]
    if not whole:
        return None
    mean = float(np.mean(whole))
    spread = float(np.std(whole, ddof=1)) if len(whole) > 1 else mean * len(whole) ** 0.5 / 1.96
    half = 1.96 * spread / len(whole) ** 0.5
    return Pace(mean, max(0.0, mean - half), mean + half, len(whole))


def forecast(open_: int, pace_: Pace | None, *, today: date) -> Forecast | None:
    """The day on which ``open_`` judgments are done at this pace; None without a pace."""
    if not open_ or pace_ is None or not pace_.a_day:
        return None

    def after(rate: float) -> date | None:
        days = open_ / rate if rate > 0 else float("inf")
        return today + timedelta(days=int(days) + 1) if days < 36_500 else None

    about, earliest = after(pace_.a_day), after(pace_.high)
    if about is None or earliest is None:
        return None
    return Forecast(about, earliest, after(pace_.low))


def figures(project_ids: Iterable[int]) -> dict[int, Figures]:
    """Figures of each project, ``FRESH_SECONDS`` old at most but for one count under way."""
    return cached("figures", project_ids, _count)


def cached(
    name: str, ids: Iterable[int], compute: Callable[[list[int]], Mapping[int, T]]
) -> dict[int, T]:
    """Values by id from the cache; the old ones are computed together and kept.

    Of many requests at once, one computes; the others get the value that just grew old. Only
    where there is none yet does everyone compute.
    """
    keys = {f"{name}:1:{pk}": pk for pk in ids}
    kept = {keys[key]: value for key, value in cache.get_many(keys).items()}
    now = time.time()
    due = [
        pk
        for key, pk in keys.items()
        if pk not in kept
        or (kept[pk][0] < now - FRESH_SECONDS and cache.add(f"{key}:due", 1, FRESH_SECONDS))
    ]
    if due:
        fresh = {pk: (now, value) for pk, value in compute(due).items()}
        cache.set_many({f"{name}:1:{pk}": value for pk, value in fresh.items()}, KEPT_SECONDS)
        kept |= fresh
    return {pk: value for pk, (_, value) in kept.items()}


def forget(project_id: int, name: str = "figures") -> None:
    """Count again on the next look: for pages shown right after something was changed."""
    cache.delete(f"{name}:1:{project_id}")


@dataclass
class _Parts:
    counts: dict[str, Any] = field(default_factory=dict)
    daily: dict[date, int] = field(default_factory=dict)


def _count(ids: list[int]) -> dict[int, Figures]:
    parts = {pk: _Parts() for pk in ids}
    for pk, prompts in _rows(PROMPTS_SQL, ids):
        parts[pk].counts["prompts"] = prompts
    for pk, tasks, done, wanted, judged in _rows(TASKS_SQL, ids):
        parts[pk].counts |= {
            "tasks": tasks,
            "tasks_done": done,
            "wanted": int(wanted),
            "judged": int(judged),
        }
    for pk, imported in _rows(IMPORTED_SQL, ids):
        parts[pk].counts["imported"] = imported
    for pk, edges, decided in _rows(EDGES_SQL, ids):
        parts[pk].counts |= {"edges": edges, "decided": decided}
    today = timezone.localdate()
    since = today - timedelta(days=DAYS - 1)
    midnight = timezone.make_aware(datetime.combine(since, datetime.min.time()))
    for pk, day, count, reasoned in _rows(
        DAILY_SQL, timezone.get_current_timezone_name(), ids, midnight
    ):
        parts[pk].daily[day] = count
        parts[pk].counts["reasoned"] = parts[pk].counts.get("reasoned", 0) + reasoned
    days = [since + timedelta(days=n) for n in range(DAYS)]
    agreements = _agreements({pk: part.counts.get("edges", 0) for pk, part in parts.items()})
    return {
        pk: Figures(
            **part.counts,
            daily=tuple((day, part.daily.get(day, 0)) for day in days),
            agreement=agreements.get(pk),
        )
        for pk, part in parts.items()
    }


def _rows(sql: str, *values: Any) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()


PROMPTS_SQL: Final = """
    SELECT project_id, count(*) FROM annotator_prompt WHERE project_id = ANY(%s) GROUP BY 1
"""
TASKS_SQL: Final = """
    SELECT project_id, count(*), count(*) FILTER (WHERE judged >= overlap), sum(overlap),
           sum(least(judged, overlap))
    FROM annotator_task WHERE project_id = ANY(%s) AND NOT is_gold GROUP BY 1
"""
IMPORTED_SQL: Final = """
    SELECT r.project_id, count(*) FROM annotator_rater r
    JOIN annotator_judgment j ON j.rater_id = r.id AND j.is_current
    WHERE r.project_id = ANY(%s) AND r.kind = 'imported' GROUP BY 1
"""
EDGES_SQL: Final = """
    SELECT project_id, count(*), count(*) FILTER (WHERE outcome <> 0)
    FROM annotator_preference
    WHERE project_id = ANY(%s) AND NOT is_overruled AND NOT is_held GROUP BY 1
"""
DAILY_SQL: Final = """
    SELECT project_id, (submitted_at AT TIME ZONE %s)::date, count(*),
           count(*) FILTER (WHERE rationale <> '')
    FROM annotator_judgment
    WHERE project_id = ANY(%s) AND is_current AND kind = 'vote' AND submitted_at >= %s
      AND rater_id NOT IN (SELECT id FROM annotator_rater WHERE kind = 'judge')
    GROUP BY 1, 2
"""
# One row per kind of prompt: how many prompts have (agreeing, all) pairs of raters on so many
# pairs of responses. Agreement and its interval need no more, whatever the size.
AGREEMENT_SQL: Final = """
    WITH people AS MATERIALIZED (
        SELECT id, kind = 'imported' AS imported FROM annotator_rater
        WHERE project_id = ANY(%(ids)s) AND kind <> 'judge' AND NOT is_excluded
    ), votes AS (
        SELECT v.project_id, v.prompt_id, v.a_id, v.b_id, v.outcome, people.imported
        FROM annotator_preference v JOIN people ON people.id = v.rater_id
        WHERE v.project_id = ANY(%(ids)s) AND NOT v.is_gold
          -- votes that a reviewer overruled are votes; what the reviewer decided is none
          AND v.judgment_id NOT IN (SELECT id FROM annotator_judgment
                                    WHERE kind = 'adjudication' AND is_current
                                      AND project_id = ANY(%(ids)s)) {only}
    ), pairs AS (
        SELECT project_id, prompt_id, count(*) AS n, bool_or(imported) AS imported,
               count(*) FILTER (WHERE outcome = 1) AS a,
               count(*) FILTER (WHERE outcome = 0) AS t,
               count(*) FILTER (WHERE outcome = -1) AS b
        FROM votes GROUP BY project_id, prompt_id, a_id, b_id HAVING count(*) > 1
    ), prompts AS (
        SELECT project_id, sum(a * (a - 1) + t * (t - 1) + b * (b - 1)) / 2 AS agreeing,
               sum(n * (n - 1)) / 2 AS comparisons, count(*) AS pairs,
               bool_or(imported) AS imported
        FROM pairs GROUP BY project_id, prompt_id
    )
    SELECT project_id, agreeing::bigint, comparisons::bigint, sum(pairs)::bigint, count(*),
           bool_or(imported)
    FROM prompts GROUP BY 1, 2, 3
"""
SAMPLE: Final = """
    AND v.prompt_id IN (
        SELECT p.id FROM unnest(%(ids)s::bigint[]) AS project,
        LATERAL (SELECT id FROM annotator_prompt WHERE project_id = project
                 ORDER BY content_hash LIMIT %(prompts)s) p)
"""


def _agreements(edges: dict[int, int]) -> dict[int, Agreement]:
    whole = [pk for pk, count in edges.items() if 0 < count <= FULL_EDGES]
    large = [pk for pk, count in edges.items() if count > FULL_EDGES]
    result = {}
    for ids, sampled in ((whole, False), (large, True)):
        if not ids:
            continue
        kinds: dict[int, list[tuple]] = {}
        sql = AGREEMENT_SQL.format(only=SAMPLE if sampled else "")
        with connection.cursor() as cursor:
            cursor.execute(sql, {"ids": ids, "prompts": SAMPLE_PROMPTS})
            for pk, *kind in cursor.fetchall():
                kinds.setdefault(pk, []).append(tuple(kind))
        result |= {pk: _agreement(rows, sampled=sampled) for pk, rows in kinds.items()}
    return result


def _agreement(kinds: list[tuple], *, sampled: bool) -> Agreement:
    """Agreement from rows of (agreeing, comparisons, pairs, prompts, imported).

    Votes on one prompt are not independent: the interval is a bootstrap over prompts, or Wilson
    on their number where all agree or none does and a bootstrap would have no width.
    """
    agreeing = sum(a * prompts for a, _, _, prompts, _ in kinds)
    comparisons = sum(c * prompts for _, c, _, prompts, _ in kinds)
    clusters = sum(prompts for _, _, _, prompts, _ in kinds)
    share = agreeing / comparisons
    if clusters == 1 or agreeing in (0, comparisons):
        low, high = wilson(share * clusters, clusters)
    else:
        low, high = _bootstrap(kinds)
    return Agreement(
        share=share,
        low=low,
        high=high,
        pairs=sum(pairs for _, _, pairs, _, _ in kinds),
        comparisons=comparisons,
        sampled=sampled,
        imported=any(imported for *_, imported in kinds),
    )


def _bootstrap(kinds: list[tuple]) -> tuple[float, float]:
    """``models.intervals.cluster_bootstrap`` on one case per pair of raters."""
    correct, groups, group = [], [], 0
    for agreeing, comparisons, _, prompts, _ in kinds:
        one = np.zeros(comparisons)
        one[:agreeing] = 1
        correct.append(np.tile(one, prompts))
        groups.append(np.repeat(np.arange(group, group + prompts), comparisons))
        group += prompts
    return cluster_bootstrap(np.concatenate(correct), np.concatenate(groups), seed=0, n=400)
