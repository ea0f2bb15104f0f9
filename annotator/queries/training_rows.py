"""Rankings and ratings as a reward model's trainer reads them (models.pairs), beside the pairs.

They are read by the rule of the pairs: what was said on control tasks, by raters left out, by
judges that nothing has accepted, or overruled by a reviewer does not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Final

import psycopg

from annotator.models import Project
from annotator.queries.pair_texts import PromptText, ResponseText, prompts_of, responses_of
from annotator.queries.pairs import CHUNK, Selection, rater_ids
from models.pairs import MOST_ATTRIBUTES

_cursors = count(1)

# A ranking counts where its edges do; each task weighs one, however many people ranked it.
RANKINGS: Final = """
SELECT j.task_id, t.prompt_id, t.response_ids, j.ranks, said.first,
       1.0 / count(*) OVER (PARTITION BY j.task_id) AS weight
FROM (
    SELECT judgment_id, min(id) AS first FROM annotator_preference
    WHERE project_id = %(project)s AND NOT is_gold AND NOT is_overruled AND NOT is_held
      AND (%(all_raters)s OR rater_id = ANY(%(raters)s))
    GROUP BY judgment_id
) said
JOIN annotator_judgment j ON j.id = said.judgment_id AND j.is_current
JOIN annotator_task t ON t.id = j.task_id AND t.kind = 'ranking'
JOIN annotator_prompt q ON q.id = t.prompt_id AND q.split = %(split)s
ORDER BY t.prompt_id, t.id, j.id
"""
HAS_RANKINGS: Final = """
SELECT EXISTS (
    SELECT FROM annotator_task t JOIN annotator_prompt q ON q.id = t.prompt_id
    WHERE t.project_id = %(project)s AND t.kind = 'ranking' AND t.judged > 0 AND NOT t.is_gold
      AND q.split = 'train'
)
"""
# People's words on responses, once settled the reviewer's. Of a checklist's values none is a rating.
RATED: Final = """
FROM annotator_task t
JOIN annotator_prompt q ON q.id = t.prompt_id
JOIN annotator_judgment j ON j.task_id = t.id AND j.is_current
     AND (j.kind = 'adjudication') = t.is_settled AND j.kind <> 'withdrawal'
     AND jsonb_typeof(j.ratings) = 'object'
JOIN annotator_rater r ON r.id = j.rater_id AND r.kind <> 'judge' AND NOT r.is_excluded
CROSS JOIN LATERAL jsonb_each(j.ratings) AS said (attribute, by_place)
CROSS JOIN LATERAL jsonb_array_elements(
    CASE WHEN jsonb_typeof(said.by_place) = 'array' THEN said.by_place ELSE '[]' END
) WITH ORDINALITY AS v (value, place)
WHERE t.project_id = %(project)s AND t.kind = 'rating' AND NOT t.is_gold
  AND jsonb_typeof(v.value) = 'number'
"""
ATTRIBUTES: Final = f"""
SELECT said.attribute, count(*) {RATED} AND q.split = 'train'
GROUP BY said.attribute ORDER BY count(*) DESC, said.attribute LIMIT {MOST_ATTRIBUTES}
"""
RATINGS: Final = f"""
SELECT t.response_ids[v.place], said.attribute, avg(v.value::text::double precision)
{RATED} AND t.prompt_id = ANY(%(prompts)s) AND said.attribute = ANY(%(attributes)s)
GROUP BY 1, 2
"""


def has_rankings(project: Project, *, connection: psycopg.Connection) -> bool:
    """Whether any ranking was given on a prompt of the training split."""
    row = connection.execute(HAS_RANKINGS, {"project": project.pk}).fetchone()
    return bool(row and row[0])


def attributes_of(project: Project, *, connection: psycopg.Connection) -> list[str]:
    """What people rated responses of the training split on: the project's own attributes first,
    in its order, then those of imported ratings, the most used first."""
    rows = connection.execute(ATTRIBUTES, {"project": project.pk}).fetchall()
    found = [name for name, _ in rows]
    own = [name for name in project.options.attributes if name in found]
    return own + [name for name in found if name not in own]


def ratings_of(
    project: Project,
    prompts: Iterable[int],
    attributes: list[str],
    *,
    connection: psycopg.Connection,
) -> dict[int, dict[str, float]]:
    """Mean ratings by attribute of the responses of some prompts, by response id."""
    values = {"project": project.pk, "prompts": [*prompts], "attributes": attributes}
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for response, attribute, mean in connection.execute(RATINGS, values):
        found[response][attribute] = mean
    return dict(found)


def rankings_of(
    project: Project, split: str, *, connection: psycopg.Connection
) -> Iterator[dict[str, Any]]:
    """Rankings of one split by prompt, as models.pairs.Ranked takes them.

    Responses that were not ranked are left out, and with them rankings of fewer than two.
    """
    raters = rater_ids(project, Selection())
    values = {
        "project": project.pk,
        "split": split,
        "all_raters": raters is None,
        "raters": raters or [],
    }
    with psycopg.ServerCursor(connection, f"rankings_{next(_cursors)}") as cursor:
        cursor.execute(RANKINGS, values)
        while rows := cursor.fetchmany(CHUNK):
            prompts = prompts_of({row[1] for row in rows}, connection)
            responses = responses_of({one for row in rows for one in row[2]}, connection)
            found = (_ranked(row, prompts, responses) for row in rows)
            yield from (one for one in found if len(one["ranks"]) > 1)


def _ranked(
    row: tuple[Any, ...], prompts: dict[int, PromptText], responses: dict[int, ResponseText]
) -> dict[str, Any]:
    _, prompt_id, response_ids, ranks, first, weight = row
    placed = [(responses[one], rank) for one, rank in zip(response_ids, ranks, strict=True) if rank]
    return {
        "prompt": prompts[prompt_id].messages,
        "answers": [one.answer for one, _ in placed],
        "ranks": [rank for _, rank in placed],
        "weight": float(weight),
        "prompt_id": prompt_id,
        "pair_id": first,
    }
