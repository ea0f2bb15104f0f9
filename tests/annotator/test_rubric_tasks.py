"""A version of a rubric becomes checklists for people: which answers, how many, said where."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import escape

from annotator.errors import Conflict, Invalid
from annotator.jobs import base
from annotator.jobs.tasks import _perform as perform
from annotator.models import (
    Project,
    Prompt,
    Role,
    RubricVersion,
    Run,
    Task,
    User,
)
from annotator.queries import rubric_lists
from annotator.queries.access import access_or_404
from annotator.queries.pairs import count_unvoted
from annotator.services import rubric_tasks, rubrics
from annotator.services.rubric_tasks import Wish
from annotator.views import rubric_use_people
from tests import factories
from tests.annotator.checked import (
    SHORT,
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
    version,
)

__all__ = ["owner", "project", "version"]

pytestmark = pytest.mark.django_db


# Making tasks -----------------------------------------------------------------------------------


def test_decided_pairs_become_tasks_once(project: Project, version: RubricVersion) -> None:
    old = decided(project, 5)
    assert make(version, number=3, overlap=2, priority=7)["made"] == 3
    tasks = checklists(version)
    assert {(one.kind, one.overlap, one.free, one.priority) for one in tasks} == {
        ("checklist", 2, 2, 7)
    }
    pairs = {frozenset(one.response_ids) for one in old}
    assert all(frozenset(one.response_ids) in pairs for one in tasks)
    again = make(version, number=3, overlap=2)
    assert (again["made"], again["there"]) == (0, 3)
    assert make(version, number=5)["made"] == 2
    assert checklists(version)[:3] == tasks


def test_more_goes_beyond_those_there(project: Project, version: RubricVersion) -> None:
    decided(project, 5)
    assert make(version, number=2)["made"] == 2
    assert make(version, which="more", number=2)["made"] == 2
    assert make(version, which="more", number=2)["made"] == 1
    assert len({pk for one in checklists(version) for pk in one.response_ids}) == 10


def test_another_version_asks_the_same_answers_anew(
    project: Project, version: RubricVersion
) -> None:
    decided(project, 2)
    other = approved(project, {"text": "It rhymes."})
    assert make(version)["made"] == make(other)["made"] == 2


def test_answer_is_in_one_task_of_a_version(project: Project, version: RubricVersion) -> None:
    (pair,) = decided(project)
    third = factories.response(pair.prompt)
    both = factories.task_of(project, of=pair.prompt)
    Task.objects.filter(pk=both.pk).update(response_ids=[pair.response_ids[0], third.pk])
    both.refresh_from_db()
    factories.judgment(factories.rater(project), both)
    result = make(version)
    assert (result["made"], result["overlapping"]) == (1, 1)


def test_run_killed_between_chunks_goes_on(
    project: Project, version: RubricVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(project, 5)
    monkeypatch.setattr(rubric_tasks, "CHUNK", 2)
    run = rubric_tasks.start(version=version, wish=Wish(which="more", number=4), by=None)
    write = rubric_tasks._Maker._write

    def die(maker: Any, rows: Any) -> None:
        if maker.made:
            raise KeyboardInterrupt
        write(maker, rows)

    monkeypatch.setattr(rubric_tasks._Maker, "_write", die)
    with pytest.raises(KeyboardInterrupt):
        base.perform(run.pk, perform)
    assert len(checklists(version)) == 2
    monkeypatch.setattr(rubric_tasks._Maker, "_write", write)
    Run.objects.filter(pk=run.pk).update(state="queued")
    base.perform(run.pk, perform)
    run.refresh_from_db()
    assert run.result["made"] == len(checklists(version)) == 4


def test_prompts_ask_all_their_answers(project: Project, version: RubricVersion) -> None:
    of = factories.prompt(project, split="test")
    factories.task_of(project, "ranking", 5, of=of)
    factories.pairwise_task(project)  # of the training split
    assert make(version, which="prompts", size=3, splits=("test",))["made"] == 2
    assert [len(one.response_ids) for one in checklists(version)] == [3, 2]


def test_checklist_asks_for_no_preference(project: Project, version: RubricVersion) -> None:
    factories.task_of(project, "checklist", 2)
    asked = count_unvoted(project, ["train"])
    factories.response(Prompt.objects.get())
    make(version, which="prompts")
    assert asked == count_unvoted(project, ["train"]) == {"train": 1}


def test_long_list_makes_smaller_tasks(project: Project) -> None:
    long = approved(project, *({"text": f"Line {at}."} for at in range(120)))
    factories.task_of(project, "ranking", 8)
    make(long, which="prompts", size=8)
    assert [len(one.response_ids) for one in checklists(long)] == [4, 4]


def test_draft_is_refused(project: Project, version: RubricVersion) -> None:
    draft = rubrics.draft(rubric=version.rubric, by=None, like=version)
    with pytest.raises(Conflict) as refused:
        rubric_tasks.start(version=draft, wish=Wish(), by=None)
    assert refused.value.advice == "Approve it first."


@pytest.mark.parametrize(
    "wish",
    [
        {"number": 0},
        {"number": 10**9},
        {"overlap": 51},
        {"size": 11},
        {"which": "all"},
        {"splits": ()},
        {"splits": ("dev",)},
        {"group": 10**12},
        {"seed": "a\0"},
    ],
    ids=lambda wish: next(iter(wish)) + repr(next(iter(wish.values())))[:9].replace("\0", "0"),
)
def test_nonsense_is_refused(version: RubricVersion, wish: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        rubric_tasks.start(version=version, wish=Wish(**wish), by=None)


def test_programs_are_left_out_unless_asked_for(project: Project) -> None:
    decided(project)
    both = approved(
        project, {"text": SHORT}, {"text": "100 words", "verifier": "program", "program": "x"}
    )
    make(both)
    (task,) = checklists(both)
    assert rubric_lists.options_for(task, project.options).criteria == [SHORT]
    only = approved(project, {"text": "100 words", "verifier": "program", "program": "x"})
    with pytest.raises(Conflict, match="Programs check"):
        rubric_tasks.start(version=only, wish=Wish(), by=None)
    make(only, with_machines=True)
    (task,) = checklists(only)
    assert rubric_lists.options_for(task, project.options).criteria == ["100 words"]


def test_narrower_criteria_are_asked_where_they_apply(project: Project) -> None:
    (code,) = decided(project, tags=["code"])
    (plain,) = decided(project)
    narrow = approved(
        project,
        {"text": "It runs.", "scope": "group", "group": "code"},
        {"text": "It says why.", "scope": "prompt", "group": str(code.prompt_id)},
    )
    result = make(narrow)
    assert (result["made"], result["nothing_asked"]) == (1, 1)
    (task,) = checklists(narrow)
    assert task.prompt_id == code.prompt_id != plain.prompt_id
    assert rubric_lists.options_for(task, project.options).criteria == ["It runs.", "It says why."]


# The page ---------------------------------------------------------------------------------------


def form(**values: str) -> dict[str, str]:
    return {
        "which": "pairs", "number": "2", "overlap": "2", "priority": "0", "size": "4", **values
    }  # fmt: skip


def section(project: Project, version: RubricVersion, person: User) -> str:
    access = access_or_404(person, project.slug, at_least=Role.REVIEWER)
    context = {"access": access, "version": version, **rubric_use_people.context(access, version)}
    return render_to_string("rubrics/use_people.html", context)


def test_owner_makes_tasks_and_sees_how_far_they_are(
    project: Project, version: RubricVersion, owner: User
) -> None:
    decided(project, 2)
    alice, where = signed_in(owner), [project.slug, version.rubric_id, version.number]
    response = post(alice, "rubric_use_people", *where, **form())
    run = Run.objects.get(kind="tasks")
    assert response["Location"] == reverse("run", args=[project.slug, run.pk])
    base.perform(run.pk, perform)
    person = factories.member(project)
    at = held(project, person)
    post(signed_in(person), "answer", project.slug, at.pk, **answers())
    page = section(project, version, owner)
    assert "0 of 2 tasks done" in page
    assert "<dd>1 <small>of 4</small></dd>" in page
    assert escape(SHORT) in page
    assert "2 checks by 1" in page


@pytest.mark.parametrize(
    "values", [{"number": "0"}, {"group": "group-1"}, {"which": "x"}, {"seed": "a" * 41}], ids=str
)
def test_bad_form_makes_nothing_and_says_so(
    project: Project, version: RubricVersion, owner: User, values: dict[str, str]
) -> None:
    where = [project.slug, version.rubric_id, version.number]
    response = post(signed_in(owner), "rubric_use_people", *where, **form(**values))
    assert response["Location"] == reverse("rubric_use", args=where) + "#people"
    assert list(get_messages(response.wsgi_request))
    assert not Run.objects.exists()


def test_stranger_and_annotator_cannot_make_tasks(project: Project, version: RubricVersion) -> None:
    where = [project.slug, version.rubric_id, version.number]
    mallory = factories.member(factories.project(), Role.OWNER)
    assert post(signed_in(mallory), "rubric_use_people", *where, **form()).status_code == 404
    member = factories.member(project)
    assert post(signed_in(member), "rubric_use_people", *where, **form()).status_code == 403
    elsewhere = approved(factories.project(), {"text": SHORT})
    bob = factories.member(project, Role.OWNER)
    where = [project.slug, elsewhere.rubric_id, elsewhere.number]
    assert post(signed_in(bob), "rubric_use_people", *where, **form()).status_code == 404
    assert not Run.objects.exists()


# A person verifies ------------------------------------------------------------------------------


def test_criterion_of_a_program_can_become_a_persons(
    project: Project, version: RubricVersion
) -> None:
    draft = rubrics.draft(rubric=version.rubric, by=None, like=version)
    program = draft.criteria.get(verifier="program")
    changed = rubrics.edit(criterion=program, verifier="person", by=None)
    assert (changed.verifier, changed.program) == ("person", "")
    rubrics.approve(version=draft, by=None)
    texts = [line.text for line in rubric_lists.lines_of(draft.pk)]
    assert program.text in texts


def test_page_of_the_run_says_how_many_tasks_it_made(
    project: Project, owner: User, version: RubricVersion
) -> None:
    decided(project, 3)
    make(version, number=2)
    run = Run.objects.get(kind=Run.Kind.TASKS)
    html = signed_in(owner).get(reverse("run", args=[project.slug, run.pk])).content.decode()
    assert "2 tasks made." in html
    assert f'<a href="{reverse("tasks", args=[project.slug])}">All tasks</a>' in html
