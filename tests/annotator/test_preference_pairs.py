"""Preferences as generators of rubrics take them."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotator.models import Preference, Project, Response
from annotator.queries import preference_pairs as queries
from annotator.queries.pairs import Selection
from tests import factories

pytestmark = pytest.mark.django_db

ALL = Selection()


def decided(project: Project, number: int, *, choice: str = "a1", rationale: str = "") -> None:
    task = factories.pairwise_task(project, texts=(f"good {number}", f"bad {number}"))
    factories.judgment(factories.rater(project), task, choice, rationale=rationale)


def test_chosen_is_what_most_prefer_with_the_reasons_of_those_who_do() -> None:
    project = factories.project()
    task = factories.pairwise_task(project, texts=("plain", "purple"))
    one, two, dissenter = (factories.rater(project) for _ in range(3))
    said = factories.judgment(one, task, "a2", rationale="It is plain.")
    factories.judgment(two, task, "a1")
    factories.judgment(dissenter, task, "b1", rationale="I like purple.")
    [pair] = queries.with_texts(project, queries.chosen(project, ALL))
    assert (pair.chosen.text, pair.rejected.text) == ("plain", "purple")
    assert pair.group == task.prompt_id
    assert [(why.text, why.rater, why.judgment) for why in pair.rationales] == [
        ("It is plain.", one.pk, said.pk)
    ]


def test_ties_and_contradictions_teach_nothing() -> None:
    project = factories.project()
    decided(project, 1, choice="tie")
    task = factories.pairwise_task(project)
    factories.judgment(factories.rater(project), task, "a1")
    factories.judgment(factories.rater(project), task, "b1")
    assert queries.chosen(project, ALL) == []


def test_sample_is_the_same_for_one_seed_and_grows_at_its_end() -> None:
    project = factories.project()
    for number in range(12):
        decided(project, number)
    few, more = (queries.chosen(project, ALL, most=n, seed="s") for n in (4, 9))
    assert more[:4] == few
    assert queries.chosen(project, ALL, most=4, seed="s") == few
    assert {one.prompt_id for one in few} != {
        one.prompt_id for one in queries.chosen(project, ALL, most=4, seed="t")
    }


def test_votes_of_judges_are_taken_only_where_they_are_asked_for() -> None:
    project = factories.project()
    task = factories.pairwise_task(project, texts=("x", "y"))
    judge = factories.judge(project)
    factories.judgment(judge.rater, task, "a1", rationale="says the judge")
    Preference.objects.update(is_held=True)
    assert queries.chosen(project, ALL) == []
    [pair] = queries.with_texts(project, queries.chosen(project, Selection("judges")))
    assert pair.rationales == ()  # a judge's reasons are not people's


def test_texts_cost_the_same_for_many_pairs() -> None:
    project = factories.project()

    def cost() -> int:
        sides = queries.chosen(project, ALL)
        with CaptureQueriesContext(connection) as found:
            list(queries.with_texts(project, sides))
        return len(found)

    decided(project, 1)
    few = cost()
    for number in range(2, 8):
        decided(project, number)
    assert cost() == few


def test_pair_whose_answer_is_gone_is_left_out() -> None:
    project = factories.project()
    for number in range(3):
        decided(project, number)
    sides = queries.chosen(project, ALL)
    Response.objects.filter(pk=sides[1].rejected_id).delete()
    assert [pair.id for pair in queries.with_texts(project, sides)] == [0, 2]
