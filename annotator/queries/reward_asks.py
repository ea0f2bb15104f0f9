"""What scoring on demand reads: a model's scale, answers to the same prompts, stored scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from annotator.models import Project, Prompt, Rater, Response, RewardModel, Run, Split
from annotator.queries.rubric_tries import random_pair
from annotator.queries.runs import ACTIVE
from models.transforms import Reference

HELD_OUT: Final = (Split.VALIDATION, Split.TEST)


def find_model(pk: int) -> RewardModel | None:
    rows = RewardModel.objects.select_related("project", "run")
    return rows.defer("run__log", "run__config").filter(pk=pk).first()


def under_way(project_id: int) -> int:
    """How many requests of a project are not answered yet."""
    rows = Run.objects.filter(project=project_id, kind=Run.Kind.ASK, state__in=ACTIVE)
    return rows.count()


def find_run(model: RewardModel, run_id: int) -> Run | None:
    """A request to this model."""
    rows = Run.objects.filter(project_id=model.project_id, kind=Run.Kind.ASK, pk=run_id)
    return rows.filter(config__reward_model=model.pk).defer("log").first()


def reference_of(model: RewardModel) -> Reference | None:
    """The scale of a model, as far as it is settled."""
    metrics = RewardModel.objects.filter(pk=model.pk).values_list("metrics", flat=True).first()
    values = (metrics or {}).get("reference")
    return Reference.from_json(values) if values else None


# In an order that says nothing of when an answer came in, and is the same at every try.
SET: Final = """
    SELECT r.id FROM annotator_response r JOIN annotator_prompt p ON p.id = r.prompt_id
    WHERE r.project_id = %s AND p.split = ANY(%s) AND (r.image_id IS NOT NULL) = %s
    ORDER BY hashint8extended(r.id, 7), r.id LIMIT %s
"""


def reference_set(project: Project, *, size: int) -> list[int]:
    """Responses that a model is measured on: held-out ones, any where there are too few."""
    for splits in (HELD_OUT, Split.values):
        with connection.cursor() as cursor:
            cursor.execute(SET, [project.pk, list(splits), _shows(project), size])
            found = [row[0] for row in cursor.fetchall()]
        if len(found) >= min(size, 2):
            return found
    return found


def _shows(project: Project) -> bool:
    """Whether the answers of a project are pictures."""
    return project.modality == Project.Modality.IMAGE


ANSWERS: Final = """
    SELECT p.content_hash, r.text, (SELECT i.file FROM annotator_image i WHERE i.id = r.image_id)
    FROM annotator_prompt p
    CROSS JOIN LATERAL (
        SELECT text, id, image_id FROM annotator_response
        WHERE prompt_id = p.id AND messages IS NULL AND (image_id IS NOT NULL) = %s
        ORDER BY id LIMIT %s
    ) r
    WHERE p.project_id = %s AND p.content_hash = ANY(%s) ORDER BY r.id
"""


def answers_to(project: Project, hashes: Sequence[bytes], *, most: int) -> dict[bytes, list[Any]]:
    """By the hash of a prompt some texts or pictures ({"image": file}) that answer it, the oldest
    first."""
    found: dict[bytes, list[Any]] = {}
    with connection.cursor() as cursor:
        cursor.execute(ANSWERS, [_shows(project), most, project.pk, list(set(hashes))])
        for key, text, picture in cursor.fetchall():
            found.setdefault(bytes(key), []).append({"image": picture} if picture else text)
    return found


PAGE: Final = """
    SELECT s.response_id, r.prompt_id, s.mean, s.variance
    FROM annotator_rewardscore s JOIN annotator_response r ON r.id = s.response_id
    WHERE s.reward_model_id = %(of)s AND s.response_id > %(after)s
    ORDER BY s.response_id LIMIT %(size)s
"""
# Up to so many scores of each prompt on the page, for transforms that are relative to a prompt.
OF_PROMPTS: Final = """
    SELECT p.id, s.response_id, s.mean
    FROM unnest(%(prompts)s::bigint[]) AS p (id)
    CROSS JOIN LATERAL (
        SELECT s.response_id, s.mean FROM annotator_response r
        JOIN annotator_rewardscore s ON s.response_id = r.id AND s.reward_model_id = %(of)s
        WHERE r.prompt_id = p.id ORDER BY r.id LIMIT %(most)s
    ) s
"""
Scored = tuple[int, int, float, float | None]  # response, prompt, mean, variance


def scores_page(model_id: int, *, after: int, size: int) -> tuple[list[Scored], int | None]:
    """Stored scores in order of response, and the key that goes on; None at the end."""
    rows = _fetch(PAGE, {"of": model_id, "after": after, "size": size + 1})
    return rows[:size], rows[size - 1][0] if len(rows) > size else None


def scores_of_prompts(
    model_id: int, prompts: Sequence[int], *, most: int
) -> dict[int, list[tuple[int, float]]]:
    """By prompt some of its scored responses with their scores, the oldest first."""
    found: dict[int, list[tuple[int, float]]] = {}
    values = {"of": model_id, "prompts": sorted(set(prompts)), "most": most}
    for prompt, response, mean in _fetch(OF_PROMPTS, values):
        found.setdefault(prompt, []).append((response, mean))
    return found


SHOWN: Final = """
    SELECT id FROM annotator_response
    WHERE prompt_id = %s AND (image_id IS NOT NULL) = %s ORDER BY id LIMIT %s
"""


def random_prompt(project: Project) -> Prompt | None:
    """A held-out prompt two answers of which somebody compared; None where there is none."""
    pair = random_pair(project)
    if pair is None:
        return None
    return Prompt.objects.filter(project=project, responses=pair[0]).first()


def stored_prompt(project: Project, pk: int, *, most: int) -> tuple[Prompt, list[Response]] | None:
    """A prompt with its first answers, texts or pictures; None where it has not two."""
    prompt = Prompt.objects.filter(project=project, pk=pk).first()
    if prompt is None:
        return None
    ids = [row[0] for row in _fetch(SHOWN, [pk, _shows(project), most])]
    answers = list(Response.objects.filter(pk__in=ids).select_related("image").order_by("pk"))
    return (prompt, answers) if len(answers) > 1 else None


SAME: Final = """
    SELECT r.text, min(r.id) FROM annotator_prompt p JOIN annotator_response r ON r.prompt_id = p.id
    WHERE p.project_id = %s AND p.content_hash = %s AND r.messages IS NULL AND r.text = ANY(%s)
    GROUP BY r.text
"""


def same_answers(project_id: int, prompt: bytes, texts: Sequence[str]) -> list[int | None]:
    """For each text the stored answer to the prompt of this hash that says the same."""
    found = dict(_fetch(SAME, [project_id, prompt, list(set(texts))]))
    return [found.get(text) for text in texts]


VOTES: Final = """
    SELECT v.a_id, v.b_id, v.outcome, count(*) FROM annotator_preference v
    JOIN annotator_rater r ON r.id = v.rater_id AND r.kind <> %(judge)s AND NOT r.is_excluded
    WHERE v.project_id = %(project)s
      AND v.prompt_id IN (SELECT prompt_id FROM annotator_response WHERE id = ANY(%(ids)s))
      AND v.a_id = ANY(%(ids)s) AND v.b_id = ANY(%(ids)s)
      AND NOT v.is_gold AND NOT v.is_overruled
    GROUP BY 1, 2, 3
"""


@dataclass(frozen=True)
class Votes:
    """How many people prefer the first, the second, neither."""

    first: int = 0
    second: int = 0
    ties: int = 0

    @property
    def total(self) -> int:
        return self.first + self.second + self.ties


def votes_among(project_id: int, ids: Sequence[int]) -> dict[tuple[int, int], Votes]:
    """What people said of any two of these responses, both ways round; without pairs unjudged."""
    values = {"project": project_id, "ids": list(ids), "judge": Rater.Kind.JUDGE}
    counts: dict[tuple[int, int], list[int]] = {}
    for a, b, outcome, n in _fetch(VOTES, values):
        for pair, won in (((a, b), outcome), ((b, a), -outcome)):
            counts.setdefault(pair, [0, 0, 0])[{1: 0, -1: 1, 0: 2}[won]] += n
    return {pair: Votes(*found) for pair, found in counts.items()}


def _fetch(sql: str, values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
