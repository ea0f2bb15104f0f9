"""Checklists of a rubric: what they ask, and how answers become verdicts on criteria."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.html import escape

from annotator.kinds.checklist import lines
from annotator.models import (
    Assignment,
    CriterionVerdict,
    Judgment,
    Preference,
    Project,
    Prompt,
    Response,
    RubricVersion,
    Run,
    Task,
    User,
)
from annotator.queries import judging, rubric_lists
from annotator.services import adjudication, judgments, raters, tokens
from annotator.services.judging_write import write as write_decisions
from rubrics.judging.types import Decision, Item
from tests import factories
from tests.annotator.checked import (
    OWN,
    RUDE,
    SHORT,
    STEPS,
    answers,
    approved,
    checklists,
    decided,
    held,
    make,
    owner,
    post,
    project,
    signed_in,
    verdicts,
    version,
)

__all__ = ["owner", "project", "version"]

pytestmark = pytest.mark.django_db


# The desk ---------------------------------------------------------------------------------------


def desk_of(project: Project, version: RubricVersion, **wish: Any) -> tuple[Client, Assignment]:
    decided(project, 2)
    make(version, **wish)
    person = factories.member(project)
    return signed_in(person), held(project, person)


def test_desk_asks_the_criteria_by_theme(project: Project, version: RubricVersion) -> None:
    client, _ = desk_of(project, version)
    text = client.get(reverse("annotate", args=[project.slug])).content.decode()
    places = [
        text.index(escape(one))
        for one in ("Form", SHORT, "Content", STEPS, "What went wrong?", RUDE)
    ]
    assert places == sorted(places)
    assert "Under 100 words." not in text
    assert "Polite" not in text


def test_submit_writes_verdicts_on_criteria(project: Project, version: RubricVersion) -> None:
    client, at = desk_of(project, version)
    said = answers(short="yes no", steps="na yes", rude="no yes")
    assert post(client, "answer", project.slug, at.pk, **said).status_code == 302
    assert verdicts(at) == {SHORT: [1, 0], STEPS: [None, 1], RUDE: [0, 1]}
    made = Judgment.objects.get(task=at.task)
    assert set(made.ratings) == {SHORT, STEPS, RUDE}
    first = at.shown_order.index(0)
    assert made.ranks[0] == (1 if first == 0 else 2)  # A passes both that apply, B one of three
    # What holds is not what people prefer: the rubric would be measured on its own verdicts.
    assert not Preference.objects.filter(task=at.task).exists()


def test_missing_line_is_named_and_nothing_written(
    project: Project, version: RubricVersion
) -> None:
    client, at = desk_of(project, version)
    said = answers() | {"check-2-B": ""}
    response = post(client, "answer", project.slug, at.pk, **said)
    assert response.status_code == 422
    assert escape(f"“{RUDE}” of B") in response.content.decode()
    assert not CriterionVerdict.objects.exists()


def test_undo_takes_verdicts_back_and_edit_replaces_them(
    project: Project, version: RubricVersion
) -> None:
    client, at = desk_of(project, version)
    post(client, "answer", project.slug, at.pk, **answers(short="yes no"))
    post(client, "undo", project.slug)
    assert verdicts(at) == {}
    at.refresh_from_db()
    assert at.draft == answers(short="yes no")
    page = client.get(reverse("annotate", args=[project.slug]), {"assignment": at.pk})
    assert SHORT in page.content.decode()
    post(client, "answer", project.slug, at.pk, **answers(short="no na"))
    assert verdicts(at)[SHORT] == [0, None]
    post(client, "reopen", project.slug, at.pk)
    assert verdicts(at) == {}
    post(client, "answer", project.slug, at.pk, **answers(short="yes yes"))
    assert verdicts(at)[SHORT] == [1, 1]


def test_double_press_writes_once(project: Project, version: RubricVersion) -> None:
    client, at = desk_of(project, version)
    for _ in range(2):
        post(client, "answer", project.slug, at.pk, **answers())
    assert CriterionVerdict.objects.count() == 6
    assert Judgment.objects.filter(task=at.task).count() == 1


def test_task_sent_back_takes_its_verdicts_along(
    project: Project, version: RubricVersion, owner: User
) -> None:
    client, at = desk_of(project, version)
    post(client, "answer", project.slug, at.pk, **answers())
    adjudication.send_back(
        task=at.task, rater_ids=[at.rater_id], note="Look again.", by=owner,
        options=project.options,
    )  # fmt: skip
    assert verdicts(at) == {}


def test_two_of_one_text_are_asked_once_and_answered_both(project: Project) -> None:
    twice = approved(project, {"text": SHORT}, {"text": SHORT, "theme": "Form"})
    client, at = desk_of(project, twice)
    post(client, "answer", project.slug, at.pk, **{"check-0-A": "yes", "check-0-B": "no"})
    assert CriterionVerdict.objects.filter(value=1).count() == 2


def test_lists_name_what_was_asked(project: Project, version: RubricVersion, owner: User) -> None:
    client, at = desk_of(project, version)
    post(client, "answer", project.slug, at.pk, **answers(rude="no no", steps="yes yes"))
    said = "passes A 100%, B 67%"  # a yes to RUDE would count against
    own = client.get(reverse("history", args=[project.slug]), {"tab": "submitted"})
    assert said in own.content.decode()
    alice = signed_in(owner)
    canonical = said if at.shown_order == [0, 1] else "passes A 67%, B 100%"
    for name, pk in (("task", at.task_id), ("rater_judgments", at.rater_id)):
        page = alice.get(reverse(name, args=[project.slug, pk]))
        assert canonical in page.content.decode(), name


def test_reviewer_decides_on_the_same_lines(
    project: Project, version: RubricVersion, owner: User
) -> None:
    client, at = desk_of(project, version)
    post(client, "answer", project.slug, at.pk, **answers())
    before = verdicts(at)
    alice = signed_in(owner)
    assert (
        "Polite" not in alice.get(reverse("task", args=[project.slug, at.task_id])).content.decode()
    )
    said = answers(short="no no", rude="yes yes") | {"action": "gold"}
    assert post(alice, "task_decide", project.slug, at.task_id, **said).status_code == 302
    at.task.refresh_from_db()
    assert at.task.gold["ratings"] == {SHORT: [0, 0], STEPS: [1, 0], RUDE: [1, 1]}
    # People are compared on what they said by themselves.
    assert verdicts(at) == before
    assert CriterionVerdict.objects.count() == 6


def test_checklist_of_the_settings_is_as_it_was(project: Project, version: RubricVersion) -> None:
    task = factories.task_of(
        project, "checklist", gold={"ranks": [1, 2], "strength": 1, "both_bad": False,
                                    "ratings": {"Polite": [1, 0]}},
        is_gold=True,
    )  # fmt: skip
    Task.objects.filter(pk=task.pk).update(free=0)
    project.set_options(project.options.model_copy(update={"gold_rate": 0.5}))
    project.save()
    person = factories.member(project)
    rater = raters.for_member(project=project, user=person)
    order = factories.task_of(project, "checklist")
    at = held(project, person)
    while at.task_id == order.pk:  # a gold comes by chance
        judgments.skip(assignment_id=at.pk, rater=rater, reason="")
        factories.task_of(project, "checklist")
        order = Task.objects.order_by("-pk").first()
        at = held(project, person)
    first, second = ("yes", "no") if at.shown_order == [0, 1] else ("no", "yes")
    judgments.answer(
        assignment_id=at.pk, rater=rater, options=project.options,
        answers={"check-0-A": first, "check-0-B": second, "check-1-A": "no", "check-1-B": "no"},
    )  # fmt: skip
    made = Judgment.objects.get(task=at.task)
    assert set(made.ratings) == {"Polite", "Wrong"}
    assert at.task.is_gold
    assert made.is_hit
    assert Preference.objects.filter(judgment=made).exists()
    assert not CriterionVerdict.objects.exists()


def test_version_stays_as_it_is_when_settings_change(
    project: Project, version: RubricVersion
) -> None:
    client, at = desk_of(project, version)
    project.set_options(
        project.options.model_copy(
            update={"criteria": [], "failures": [SHORT], "allow_not_applicable": False}
        )
    )
    project.save()
    said = answers(steps="na yes")
    assert post(client, "answer", project.slug, at.pk, **said).status_code == 422
    post(client, "answer", project.slug, at.pk, **answers(short="yes no"))
    assert verdicts(at)[SHORT] == [1, 0]
    page = client.get(reverse("history", args=[project.slug]), {"tab": "submitted"})
    assert "passes A 67%, B 33%" in page.content.decode()


def test_program_over_the_api_is_told_the_lines(project: Project, version: RubricVersion) -> None:
    _, at = desk_of(project, version)
    _, secret = tokens.create(user=at.rater.user, name="test")
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    found = client.post(f"/api/v1/projects/{project.slug}/tasks/claim")
    asked = found.json()["task"]["asked"]
    assert (asked["criteria"], asked["failures"]) == ([SHORT, STEPS], [RUDE])
    assert found.json()["task"]["assignment"] == at.pk


def test_submit_and_next_stay_in_their_budget(project: Project, version: RubricVersion) -> None:
    decided(project, 3)
    make(version)
    person = factories.member(project)
    rater = raters.for_member(project=project, user=person)
    first = held(project, person)
    judgments.answer(
        assignment_id=first.pk, rater=rater, options=project.options, answers=answers()
    )
    at = held(project, person)
    client = signed_in(person)
    url = reverse("answer", args=[project.slug, at.pk])
    client.get(reverse("annotate", args=[project.slug]))
    with CaptureQueriesContext(connection) as captured:
        response = client.post(url, answers(), headers={"HX-Request": "true"})
    assert response.status_code == 200
    asked = [row["sql"] for row in captured if "SAVEPOINT" not in row["sql"]]
    assert len(asked) <= 12
    assert sum("annotator_criterion" in sql for sql in asked) == 1  # the list is known


# Judges -----------------------------------------------------------------------------------------


def test_judge_is_asked_the_version_and_its_answers_are_verdicts(
    project: Project, version: RubricVersion
) -> None:
    decided(project)
    make(version)
    (task,) = checklists(version)
    (item,) = judging.items(project, [task.pk])
    assert isinstance(item, Item)
    assert (item.criteria, item.failures) == ((SHORT, STEPS), (RUDE,))
    judge = factories.judge(project, kind="program")
    run = Run.objects.create(project=project, kind=Run.Kind.JUDGE, title="Judge")
    said = Decision((1, 2), strength=1, ratings={SHORT: [1, 0], STEPS: [1, None], RUDE: [0, 0]})
    for _ in range(2):
        write_decisions(judge=judge, run_id=run.pk, options=project.options, said=[(task.pk, said)])
    rows = CriterionVerdict.objects.filter(rater=judge.rater).select_related("criterion")
    found = {(one.criterion.text, one.response_id): one.value for one in rows}
    one, other = task.response_ids
    assert found == {
        (SHORT, one): 1, (SHORT, other): 0, (STEPS, one): 1, (STEPS, other): None,
        (RUDE, one): 0, (RUDE, other): 0,
    }  # fmt: skip
    assert not Preference.objects.filter(task=task).exists()


def test_scored_probability_is_not_lost_to_a_checklist(
    project: Project, version: RubricVersion
) -> None:
    decided(project)
    make(version)
    (task,) = checklists(version)
    judge = factories.judge(project, kind="program")
    short = version.criteria.get(text=SHORT)
    CriterionVerdict.objects.create(
        criterion=short, response_id=task.response_ids[0], rater=judge.rater, value=1,
        probability=0.7,
    )  # fmt: skip
    run = Run.objects.create(project=project, kind=Run.Kind.JUDGE, title="Judge")
    said = Decision((1, 1), ratings={SHORT: [0, 0], STEPS: [1, 1], RUDE: [0, 0]})
    write_decisions(judge=judge, run_id=run.pk, options=project.options, said=[(task.pk, said)])
    kept = CriterionVerdict.objects.get(criterion=short, response_id=task.response_ids[0])
    assert (kept.value, kept.probability) == (1, 0.7)


# Races ------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_two_people_submit_at_once() -> None:
    project = factories.project(settings=OWN)
    version = approved(project, *({"text": f"Line {at}."} for at in range(5)))
    decided(project)
    make(version, overlap=2)
    people = [factories.member(project) for _ in range(2)]
    desks = [held(project, person) for person in people]
    failures: list[BaseException] = []
    barrier = threading.Barrier(2)

    def submit(at: Assignment) -> None:
        try:
            barrier.wait(30)
            for _ in range(5):
                judgments.answer(
                    assignment_id=at.pk, rater=at.rater, options=project.options,
                    answers={f"check-{n}-{label}": "yes" for n in range(5) for label in "AB"},
                )  # fmt: skip
                judgments.undo(rater=at.rater, options=project.options)
            judgments.answer(
                assignment_id=at.pk, rater=at.rater, options=project.options,
                answers={f"check-{n}-{label}": "no" for n in range(5) for label in "AB"},
            )  # fmt: skip
        except BaseException as error:  # noqa: BLE001 - shown by the test, whatever it is
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=submit, args=(at,)) for at in desks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[0]
    assert CriterionVerdict.objects.filter(value=0).count() == 20
    assert CriterionVerdict.objects.count() == 20
    (task,) = checklists(version)
    assert (task.judged, task.free) == (2, 0)


def test_lines_of_a_version_are_read_once(
    version: RubricVersion, django_assert_num_queries: Callable[..., Any]
) -> None:
    rubric_lists.lines_of(version.pk)
    with django_assert_num_queries(0):
        rubric_lists.lines_of(version.pk)
    options = rubric_lists.options_of(
        Project(slug="x").options, rubric_lists.ListOf(version.pk, None, 1, ())
    )
    assert [text for text, _ in lines(options)] == [SHORT, STEPS, RUDE]


def test_prompt_of_the_sample_may_be_gone(project: Project, version: RubricVersion) -> None:
    """A response deleted between the sample and the making is left out."""
    (pair,) = decided(project)
    Response.objects.filter(pk=pair.response_ids[0]).delete()
    assert make(version)["made"] == 0
    assert Prompt.objects.exists()
