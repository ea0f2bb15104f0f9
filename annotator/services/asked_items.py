"""What a program sends to be scored, as items: texts, pictures, and answers of the project by id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from annotator.errors import Invalid
from annotator.models import Project, Response
from annotator.queries import reward_scores
from annotator.queries.reward_scores import Subject
from annotator.services import asked_pictures
from annotator.services.reward_asks import Answer, Item, answer_of, clean_turns

Given = Mapping[str, Any]


def items(project: Project, given: Sequence[Given]) -> list[Item]:
    """Items of ``{"prompt", "response", "references"}``.

    An answer is a text, messages, ``{"image": base64}`` or ``{"id": n}``, a response of the project,
    whose prompt stands in where none is given. Raises Invalid.
    """
    answers = list(_answers(given))
    known = _stored(project, [one["id"] for one in answers if _is(one, "id")])
    sent = [one["image"] for one in answers if _is(one, "image")]
    pictures = iter(asked_pictures.encoded(map(asked_pictures.decoded, sent)))

    def read(answer: Any) -> Answer:
        if _is(answer, "id"):
            return answer_of(known[answer["id"]])
        found: Answer = next(pictures) if _is(answer, "image") else answer
        return found

    found = []
    for one in given:
        response = read(one["response"])
        references = tuple(read(other) for other in one["references"])
        found.append(Item(_prompt(one, known), response, references))
    return found


def _answers(given: Sequence[Given]) -> Iterator[Any]:
    for one in given:
        yield one["response"]
        yield from one["references"]


def _is(answer: Any, name: str) -> bool:
    return isinstance(answer, dict) and name in answer


def _prompt(one: Given, known: Mapping[int, Subject]) -> Any:
    if one["prompt"] is not None:
        return one["prompt"]
    if not _is(one["response"], "id"):
        raise Invalid("A prompt is missing: only answers of the project come with theirs.")
    return clean_turns(known[one["response"]["id"]].messages)


def _stored(project: Project, ids: Sequence[int]) -> dict[int, Subject]:
    rows = Response.objects.filter(project=project, pk__in=set(ids))
    own = list(rows.values_list("pk", flat=True))
    found = {one.id: one for one in reward_scores.subjects(own, is_read=False)}
    if lost := set(ids) - found.keys():
        raise Invalid(f"There is no response {min(lost)} in this project.")
    return found
