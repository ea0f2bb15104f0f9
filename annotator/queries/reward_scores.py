"""Which responses a run scores, what it needs to know of them, and what the scores come to.

Nothing here holds a project in memory: ids come by key, a chunk costs the same statements
whatever is in it, and sums are PostgreSQL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import orjson
import psycopg
from django.db import connection
from django.db.models import Exists, OuterRef
from numpy.typing import NDArray

from annotator.models import Project, Response, RewardModel, RewardScore, RubricVersion, Run
from annotator.queries.figures import cached
from annotator.queries.judging import Unsendable, pictures, whole
from annotator.queries.runs import ACTIVE
from annotator.queries.snapshot import current
from rubrics.judging.types import Candidate

ALL: Final = "all"
COMPARED: Final = "compared"
ONLY: Final = {ALL: "every response", COMPARED: "responses that a vote compares"}
BINS: Final = 16
BASIS: Final = "reward_basis"  # of a version's figures: how its rewards are counted
SOURCES: Final = ("rubric_version", "reward_model")

SELECTED: Final = """
    FROM annotator_response r JOIN annotator_prompt p ON p.id = r.prompt_id
    WHERE r.project_id = %(project)s AND p.split = ANY(%(splits)s)
      AND (%(most)s::bigint IS NULL OR hashint8extended(r.prompt_id, 0) <= %(most)s)
      AND (%(only)s <> 'compared' OR EXISTS (
          SELECT FROM annotator_preference v
          WHERE v.project_id = r.project_id AND v.prompt_id = r.prompt_id
            AND r.id IN (v.a_id, v.b_id) AND v.outcome <> 0 AND NOT v.is_gold
            AND NOT v.is_overruled AND NOT v.is_held))
"""
SCORED: Final = """
    EXISTS (SELECT FROM annotator_rewardscore s
            WHERE s.response_id = r.id AND s.{source}_id = %(of)s {more})
"""


@dataclass(frozen=True)
class Wanted:
    """The responses of one run. ``source`` is a name of SOURCES, ``of`` its key.

    ``sample``: so many, whole prompts at a time, so that answers to compare stay together; a
    larger sample holds the smaller one.
    """

    project_id: int
    source: str
    of: int
    only: str = ALL
    splits: tuple[str, ...] = ()
    sample: int | None = None

    def count(self, *, scored: bool | None = None) -> int:
        """How many there are; with ``scored`` only those that have a score, or have none."""
        where = "" if scored is None else f" AND {'' if scored else 'NOT'} {self._scored()}"
        found = _fetch(f"SELECT count(*) {SELECTED}{where}", self._values())
        return int(found[0][0])

    def ids(self, *, after: int, size: int) -> list[int]:
        """The next responses without a score, in order of id; the last key goes on."""
        rows = _fetch(
            # The key is asked of the scores too: a plan that walks both begins where the chunk does.
            f"SELECT r.id {SELECTED} AND r.id > %(after)s"
            f" AND NOT {self._scored('AND s.response_id > %(after)s')}"
            " ORDER BY r.id LIMIT %(size)s",
            self._values() | {"after": after, "size": size},
        )
        return [row[0] for row in rows]

    def _scored(self, more: str = "") -> str:
        if self.source not in SOURCES:
            raise ValueError(f"no source of scores is called {self.source!r}")
        return SCORED.format(source=self.source, more=more)

    @cached_property
    def _most(self) -> int | None:
        """The largest hash of a prompt that is in the sample; None for all."""
        if self.sample is None:
            return None
        rows = _fetch(
            f"SELECT hashint8extended(r.prompt_id, 0) {SELECTED} ORDER BY 1"
            " OFFSET %(skip)s LIMIT 1",
            self._chosen() | {"skip": self.sample - 1},
        )
        return rows[0][0] if rows else None

    def _chosen(self) -> dict[str, Any]:
        return {
            "project": self.project_id, "splits": list(self.splits), "only": self.only,
            "of": self.of, "most": None,
        }  # fmt: skip

    def _values(self) -> dict[str, Any]:
        return self._chosen() | {"most": self._most}


@dataclass(frozen=True, slots=True)
class Subject:
    """A response to be scored. ``candidate`` None: its picture cannot be shown, or it is gone."""

    id: int
    prompt_id: int
    tags: tuple[str, ...]
    messages: list[dict[str, str]]
    answer: str | list[dict[str, str]]
    candidate: Candidate | None
    picture: str = ""  # the stored file of an image


SUBJECTS: Final = """
    SELECT r.id, r.prompt_id, p.tags::text, p.messages::text, r.text, r.messages::text, r.image_id,
           (SELECT i.file FROM annotator_image i WHERE i.id = r.image_id)
    FROM annotator_response r JOIN annotator_prompt p ON p.id = r.prompt_id
    WHERE r.id = ANY(%s) ORDER BY r.id
"""


def subjects(ids: Sequence[int], *, is_read: bool = True) -> list[Subject]:
    """Responses with their texts and pictures, in order of id; those gone since are left out.

    With ``is_read`` false no picture is read: it is known by its file, and candidates have none.
    """
    rows = _fetch(SUBJECTS, [list(ids)])
    show = pictures({row[6] for row in rows} - {None} if is_read else ())
    found = []
    for pk, prompt_id, tags, messages, text, several, image_id, picture in rows:
        try:
            candidate = Candidate(whole(text, several), show(image_id if is_read else None))
        except Unsendable:
            candidate = None
        found.append(
            Subject(
                pk, prompt_id, tuple(map(str, orjson.loads(tags))), orjson.loads(messages),
                orjson.loads(several) if several else text, candidate, picture or "",
            )
        )  # fmt: skip
    return found


PEOPLE: Final = """
    SELECT v.criterion_id, v.response_id, avg((v.value IS NOT DISTINCT FROM 1)::int), avg((v.value IS NULL)::int)
    FROM annotator_criterionverdict v
    JOIN annotator_rater r ON r.id = v.rater_id AND r.kind <> 'judge' AND NOT r.is_excluded
    WHERE v.criterion_id = ANY(%s) AND v.response_id = ANY(%s)
    GROUP BY v.criterion_id, v.response_id
"""


def people_say(
    criteria: Sequence[int], responses: Sequence[int]
) -> dict[tuple[int, int], tuple[float, float]]:
    """By (criterion, response) the shares of people who say yes, and that it does not apply."""
    rows = _fetch(PEOPLE, [list(criteria), list(responses)])
    return {(one, other): (float(yes), float(none)) for one, other, yes, none in rows}


def model_scores(model_id: int, responses: Sequence[int]) -> dict[int, float]:
    """What a reward model scored, by response."""
    return _scores("reward_model", model_id, responses)


def model_variances(model_id: int, responses: Sequence[int]) -> dict[int, float | None]:
    """How much the members of an ensemble disagree, by response; None of a single model."""
    sql = (
        "SELECT response_id, variance FROM annotator_rewardscore WHERE reward_model_id = %s"
        " AND response_id = ANY(%s)"
    )
    return dict(_fetch(sql, [model_id, list(responses)]))


def rubric_scores(version_id: int, responses: Sequence[int]) -> dict[int, float]:
    """The rewards of a rubric version, by response."""
    return _scores("rubric_version", version_id, responses)


def _scores(source: str, pk: int, responses: Sequence[int]) -> dict[int, float]:
    sql = (
        f"SELECT response_id, mean FROM annotator_rewardscore WHERE {source}_id = %s"
        " AND response_id = ANY(%s)"
    )
    return dict(_fetch(sql, [pk, list(responses)]))


def sorted_scores(model_id: int) -> NDArray[np.float64]:
    """All that a reward model scored, ascending: eight bytes a response."""
    sql = "SELECT mean FROM annotator_rewardscore WHERE reward_model_id = %s ORDER BY mean"
    with connection.cursor() as cursor:
        cursor.execute(sql, [model_id])
        return np.fromiter((row[0] for row in cursor), dtype=np.float64)


# What scores come to ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """Scores of one source. ``spread`` is the standard deviation within prompts, of all where no
    prompt has two (rubrics.rewards.spread); ``bins`` counts BINS equal steps from low to high."""

    n: int
    prompts: int
    mean: float
    spread: float
    low: float
    high: float
    bins: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


SUMMARY: Final = """
    SELECT count(*), count(DISTINCT prompt_id), avg(mean), min(mean), max(mean),
           coalesce(stddev_pop(mean), 0), sum((mean - middle) ^ 2)
    FROM (SELECT s.mean, r.prompt_id, avg(s.mean) OVER (PARTITION BY r.prompt_id) AS middle
          FROM annotator_rewardscore s JOIN annotator_response r ON r.id = s.response_id
          WHERE s.{source}_id = %s) scored
"""
HISTOGRAM: Final = """
    SELECT width_bucket(mean, %s::float8, %s::float8, %s), count(*)
    FROM annotator_rewardscore WHERE {source}_id = %s GROUP BY 1
"""


def summary(
    source: str, pk: int, *, connection: psycopg.Connection | None = None
) -> Summary | None:
    """What the scores of a source come to; None where there is none."""
    if source not in SOURCES:
        raise ValueError(f"no source of scores is called {source!r}")
    raw = connection or current()
    with psycopg.Cursor(raw) as cursor:
        cursor.execute(SUMMARY.format(source=source), [pk])
        n, prompts, mean, low, high, all_, within = cursor.fetchone() or (0,) * 7
        if not n:
            return None
        bins = [0] * BINS
        if high > low:
            cursor.execute(HISTOGRAM.format(source=source), [low, high, BINS, pk])
            for place, count in cursor.fetchall():
                bins[min(max(place, 1), BINS) - 1] += count
        else:
            bins[0] = n
    spread = (within / (n - prompts)) ** 0.5 if n > prompts else all_
    return Summary(
        int(n), int(prompts), float(mean), float(spread), float(low), float(high), tuple(bins)
    )


@dataclass(frozen=True)
class Cost:
    """What scoring every response takes: ``calls`` in all, ``known`` of them answered before,
    MOST_COUNTED where there are so many or more."""

    responses: int
    asked: int
    known: int

    @property
    def calls(self) -> int:
        return self.responses * self.asked

    @property
    def is_known_in_part(self) -> bool:
        return self.known == MOST_COUNTED

    @property
    def left(self) -> int:
        return max(0, self.calls - self.known)


MOST_COUNTED: Final = 100_000  # verdicts that a page counts: there may be tens of millions
KNOWN: Final = """
    SELECT count(*) FROM (
        SELECT FROM annotator_criterionverdict v
        JOIN annotator_criterion c ON c.id = v.criterion_id
        WHERE c.version_id = %s AND c.verifier = 'llm' AND v.call_key IS NOT NULL
        LIMIT %s) counted
"""


def cost(version: RubricVersion, *, asked: int) -> Cost:
    """Of a version of which a language model checks so many criteria.

    Verdicts that are kept cost nothing again; other runs' replies may be in the cache as well.
    """
    project = version.rubric.project_id
    counted = cached("responses", [project], lambda _: {project: _responses(project)})
    responses = counted[project]
    known = _fetch(KNOWN, [version.pk, MOST_COUNTED])[0][0] if asked else 0
    return Cost(responses, asked, min(int(known), responses * asked))


def _responses(project_id: int) -> int:
    return Response.objects.filter(project=project_id).count()


def last_run(
    version: RubricVersion | None = None, *, reward_model: RewardModel | None = None
) -> Run | None:
    """The newest score run of a version or a model, in whatever state."""
    return _runs(version, reward_model).first()


def last_done(
    version: RubricVersion | None = None, *, reward_model: RewardModel | None = None
) -> Run | None:
    """The newest that ended well: its result says what the scores came to."""
    return _runs(version, reward_model).filter(state="done", result__has_key="summary").first()


def active_run(
    version: RubricVersion | None = None, *, reward_model: RewardModel | None = None
) -> Run | None:
    return _runs(version, reward_model).filter(state__in=ACTIVE).first()


def _runs(version: RubricVersion | None, reward_model: RewardModel | None) -> Any:
    rows = Run.objects.filter(kind=Run.Kind.SCORE).order_by("-pk")
    if version is not None:
        return rows.filter(project=version.rubric.project_id, config__rubric_version=version.pk)
    assert reward_model is not None
    return rows.filter(project=reward_model.project_id, config__reward_model=reward_model.pk)


def scored_models(project: Project) -> list[RewardModel]:
    """Reward models of a project that have scores, newest first."""
    has_some = Exists(RewardScore.objects.filter(reward_model=OuterRef("pk")))
    return list(RewardModel.objects.filter(has_some, project=project).order_by("-number"))


@dataclass(frozen=True)
class Offered:
    """What has scores: (name, number) of approved rubric versions, numbers of reward models."""

    versions: tuple[tuple[str, int], ...]
    models: tuple[int, ...]


OFFERED: Final = """
    SELECT b.name, v.number FROM annotator_rubricversion v
    JOIN annotator_rubric b ON b.id = v.rubric_id AND b.project_id = %(project)s
    WHERE v.state = 'approved'
      AND EXISTS (SELECT FROM annotator_rewardscore s WHERE s.rubric_version_id = v.id)
    UNION ALL
    SELECT NULL, m.number FROM annotator_rewardmodel m WHERE m.project_id = %(project)s
      AND EXISTS (SELECT FROM annotator_rewardscore s WHERE s.reward_model_id = m.id)
    ORDER BY 1, 2 DESC
"""


def offered(project: Project) -> Offered:
    """In one statement: forms ask it at every change."""
    rows = _fetch(OFFERED, {"project": project.pk})
    return Offered(
        tuple((name, number) for name, number in rows if name is not None),
        tuple(number for name, number in rows if name is None),
    )


PAGE: Final = """
    SELECT s.response_id, r.prompt_id, s.mean
    FROM annotator_rewardscore s JOIN annotator_response r ON r.id = s.response_id
    WHERE s.rubric_version_id = %(of)s AND s.response_id > %(after)s
    ORDER BY s.response_id LIMIT %(size)s
"""
# The prompts of the next so many scores, whole: ties of the last prompt come along.
PROMPTS_PAGE: Final = """
    SELECT s.response_id, r.prompt_id, s.mean
    FROM annotator_rewardscore s JOIN annotator_response r ON r.id = s.response_id
    WHERE s.rubric_version_id = %(of)s AND r.prompt_id > %(after)s
    ORDER BY r.prompt_id, s.response_id FETCH FIRST %(size)s ROWS ONLY
"""
OF_PROMPT: Final = """
    SELECT s.response_id, r.prompt_id, s.mean
    FROM annotator_response r JOIN annotator_rewardscore s ON s.response_id = r.id
    WHERE r.prompt_id = %(prompt)s AND s.rubric_version_id = %(of)s ORDER BY s.response_id
"""
Scored = tuple[int, int, float]  # response, prompt, reward


def scores_page(
    version_id: int, *, after: int | None, size: int
) -> tuple[list[Scored], int | None]:
    """Rewards in order of response, and the key that goes on; None at the end."""
    rows = _fetch(PAGE, {"of": version_id, "after": after or 0, "size": size + 1})
    return rows[:size], rows[size - 1][0] if len(rows) > size else None


def prompts_page(
    version_id: int, *, after: int | None, size: int
) -> tuple[list[Scored], int | None]:
    """About so many rewards, in order of prompt, whole prompts; the prompt that goes on."""
    rows = _fetch(PROMPTS_PAGE, {"of": version_id, "after": after or 0, "size": size + 1})
    if len(rows) <= size:
        return rows, None
    last = rows[size - 1][1]
    whole_ones = [row for row in rows[:size] if row[1] != last]
    return whole_ones + _fetch(OF_PROMPT, {"prompt": last, "of": version_id}), last


def _fetch(sql: str, values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
