"""What a checklist of a rubric said, as verdicts on the rubric's criteria.

Written and removed in the transaction that records or withdraws the judgment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from annotator.kinds.verdict import Ratings
from annotator.models import CriterionVerdict
from annotator.queries import rubric_lists
from annotator.queries.rubric_lists import ListOf, ids_by_text

# ``columns`` are its values. What a run scored with a probability says more than a yes: it stands. People give none.
WRITE: Final = """
    INSERT INTO annotator_criterionverdict AS old (criterion_id, response_id, rater_id, value, at)
    SELECT said.criterion, said.response, %(rater)s, said.value, clock_timestamp()
    FROM unnest(%(criteria)s::bigint[], %(responses)s::bigint[], %(values)s::smallint[])
        AS said (criterion, response, value)
    ORDER BY 1, 2
    ON CONFLICT (criterion_id, response_id, rater_id) DO UPDATE
    SET value = excluded.value, at = excluded.at
    WHERE old.probability IS NULL
"""


class Said(NamedTuple):
    """The answers to one checklist, per text one value per response in canonical order."""

    of: ListOf
    response_ids: Sequence[int]
    ratings: Ratings


def columns(said: Iterable[Said], *, rater_id: int) -> dict[str, Any]:
    """Judgments of one rater as the values of ``WRITE``.

    What the rater said of these responses before is replaced; of a response that is judged twice
    here the last one stays.
    """
    rows: dict[tuple[int, int], int | None] = {}
    for one in said:
        asked = ids_by_text(rubric_lists.asked(one.of))
        for text, values in one.ratings.items():
            for criterion_id in asked.get(text, ()):
                for response_id, value in zip(one.response_ids, values, strict=True):
                    rows[criterion_id, response_id] = value
    return {
        "rater": rater_id,
        "criteria": [criterion_id for criterion_id, _ in rows],
        "responses": [response_id for _, response_id in rows],
        "values": list(rows.values()),
    }


def remove(of: ListOf, response_ids: Sequence[int], *, rater_id: int) -> None:
    """Take back what a rater said in a checklist that is withdrawn."""
    CriterionVerdict.objects.filter(
        criterion_id__in=[line.criterion_id for line in rubric_lists.asked(of)],
        response_id__in=response_ids,
        rater_id=rater_id,
    ).delete()
