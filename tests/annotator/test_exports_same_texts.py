"""The same two texts under other generators' names: never both ways round, whoever decides."""

from __future__ import annotations

from typing import Any

import pytest

from annotator.models import Project, Response, RewardScore
from tests import factories
from tests.annotator.ballots import raters, task_of, vote
from tests.annotator.exported import built, rows_of
from tests.annotator.rewarding import make_model

pytestmark = pytest.mark.django_db(transaction=True)


def twice(project: Project, outcomes: tuple[int, int]) -> list[tuple[Response, Response]]:
    """Two pairs of one prompt with the same two texts, one vote each; 1 is for "yes"."""
    (rater,) = raters(project, 1)
    prompt = factories.prompt(project)
    found = []
    for number, outcome in enumerate(outcomes):
        one, other = (
            factories.response(prompt, text, generator=f"{text} {number}") for text in ("yes", "no")
        )
        vote(task_of(prompt, one, other), rater, outcome)
        found.append((one, other))
    return found


def ways(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(row["chosen"], row["rejected"]) for row in rows}


def counts(version: Any) -> tuple[int, int, dict[str, int]]:
    found = version.manifest["counts"]
    assert found["in"] == found["used"] + sum(found["dropped"].values())
    return found["in"], found["used"], found["dropped"]


def test_a_score_that_turns_between_the_same_two_texts_gives_no_row() -> None:
    project = factories.project()
    first, second = twice(project, (1, 1))
    other = factories.prompt(project)
    third = factories.response(other, "up"), factories.response(other, "down")
    vote(task_of(other, *third), project.raters.get(), 1)
    model = make_model(project, 1)
    for (one, two), (high, low) in ((first, (2, 1)), (second, (1, 2)), (third, (1, 0))):
        for response, mean in ((one, high), (two, low)):
            RewardScore.objects.create(
                project=project, response=response, reward_model=model, mean=mean
            )
    version = built(project, "trl-preference", decided_by="reward-model", reward_model=1)
    assert ways(rows_of(version)) == {("up", "down")}
    assert counts(version) == (3, 1, {"contradiction": 2})


@pytest.mark.parametrize("outcomes", [(0, 0), (0, 1), (-1, 0), (0, -1)])
def test_a_tie_takes_the_way_of_the_same_two_texts(outcomes: tuple[int, int]) -> None:
    project = factories.project()
    for shift in range(8):  # ids decide which answer of a tie stands first: try some
        prompt = factories.prompt(project, f"question {shift}")
        factories.response(prompt, "filler")
    twice(project, outcomes)
    version = built(project, "trl-preference", ties="soft", columns=["response_ids", "p_chosen"])
    rows = rows_of(version)
    assert len(ways(rows)) == 1
    assert len(rows) == 2
    for row in rows:
        chosen = Response.objects.get(pk=row["chosen_id"])
        assert chosen.text == row["chosen"]
    if -1 in outcomes:
        assert ways(rows) == {("no", "yes")}
    assert counts(version) == (2, 2, {})
