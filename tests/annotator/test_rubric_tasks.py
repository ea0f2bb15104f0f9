"""People check a version of a rubric: its tasks, what they ask, verdicts on criteria, agreement."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.contrib.messages import get_messages
from django.db import connection
from django.template.loader import render_to_string
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.html import escape

from annotator.errors import Conflict, Invalid
from annotator.jobs import base
from annotator.jobs.tasks import _perform as perform
from annotator.kinds.checklist import lines
from annotator.models import (
    Assignment,
    Criterion,
    CriterionVerdict,
    Judgment,
    Preference,
    Project,
    Prompt,
    Rater,
    Response,
    Role,
    RubricVersion,
    Run,
    Task,
    User,
)
from annotator.queries import judging, rubric_checks, rubric_lists
from annotator.queries.access import access_or_404
from annotator.queries.pairs import count_unvoted
from annotator.services import adjudication, judgments, queue, raters, rubric_tasks, rubrics, tokens
from annotator.services.judging_write import write as write_decisions
from annotator.services.rubric_tasks import Wish
from annotator.views import rubric_use_people
from rubrics.judging.types import Decision, Item
from rubrics.sheet import Sheet
from tests import factories

pytestmark = pytest.mark.django_db

SHORT, STEPS, RUDE = "It is short.", "It names the steps.", "It is rude."
OWN = {"criteria": ["Polite"], "failures": ["Wrong"], "overlap": 1, "gold_rate": 0}


@pytest.fixture
def project() -> Project:
    return factories.project("letters", settings=OWN)


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Alice")


@pytest.fixture
def version(project: Project) -> RubricVersion:
    return approved(
        project,
        {"text": SHORT, "theme": "Form"},
        {"text": RUDE, "polarity": -1},
        {"text": STEPS, "theme": "Content"},
        {"text": "Under 100 words.", "verifier": "program", "program": "words.at-most-100"},
    )


def approved(project: Project, *criteria: dict[str, Any]) -> RubricVersion:
    rubric = rubrics.create(project=project, name=f"Rubric {project.rubrics.count()}", by=None)
    version = rubrics.draft(rubric=rubric, by=None)
    for values in criteria:
        rubrics.add(version=version, by=None, **known(values))
    return rubrics.approve(version=version, by=None)


def known(values: dict[str, Any]) -> dict[str, Any]:
    """A program that there is, whichever: these tests do not run it."""
    from rubrics.programs import PROGRAMS

    return values | {"program": next(iter(PROGRAMS))} if "program" in values else values


def decided(project: Project, count: int = 1, **fields: Any) -> list[Task]:
    """Pairs on which somebody prefers one side."""
    voter = factories.rater(project)
    tasks = []
    for _ in range(count):
        of = factories.prompt(project, **fields)
        task = factories.pairwise_task(project, of=of, overlap=1)
        factories.judgment(voter, task)
        tasks.append(task)
    return tasks


def make(version: RubricVersion, **wish: Any) -> dict[str, Any]:
    run = rubric_tasks.start(version=version, wish=Wish(**wish), by=None)
    assert base.perform(run.pk, perform)
    run.refresh_from_db()
    assert run.state == "done", run.error
    return run.result


def checklists(version: RubricVersion) -> list[Task]:
    return list(Task.objects.filter(rubric_version_id=version.pk).order_by("pk"))


def answers(**said: str) -> dict[str, str]:
    """SHORT, STEPS, RUDE are asked in this order: themes first, what speaks against last."""
    return {
        f"check-{at}-{label}": value
        for at, name in enumerate(("short", "steps", "rude"))
        for label, value in zip("AB", said.get(name, "yes no").split(), strict=True)
    }


def held(project: Project, person: User) -> Assignment:
    rater = raters.for_member(project=project, user=person)
    lease = queue.claim_next(project=project, rater=rater)
    assert lease is not None
    return Assignment.objects.select_related("task", "rater").get(pk=lease.assignment_id)


def verdicts(assignment: Assignment) -> dict[str, list[int | None]]:
    """By criterion, as shown: A first."""
    ids = [assignment.task.response_ids[place] for place in assignment.shown_order]
    rows = CriterionVerdict.objects.filter(rater=assignment.rater).select_related("criterion")
    found = {(one.criterion.text, one.response_id): one.value for one in rows}
    texts = dict.fromkeys(text for text, _ in found)
    return {text: [found[text, pk] for pk in ids] for text in texts}


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


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


# The desk ---------------------------------------------------------------------------------------


def desk_of(project: Project, version: RubricVersion, **wish: Any) -> tuple[Client, Assignment]:
    decided(project, 2)
    make(version, **wish)
    person = factories.member(project)
    return signed_in(person), held(project, person)


def post(client: Client, name: str, *args: Any, **data: str) -> Any:
    return client.post(reverse(name, args=args), data)


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


# Agreement --------------------------------------------------------------------------------------


def say(criterion: Criterion, response: Response, rater: Rater | None, value: Any) -> None:
    CriterionVerdict.objects.create(
        criterion=criterion, response=response, rater=rater, value=value,
        probability=None if value is None or (rater and rater.kind == "human") else float(value),
    )  # fmt: skip


def answered(project: Project, count: int) -> list[Response]:
    return [factories.response(factories.prompt(project)) for _ in range(count)]


def test_people_confirm_the_verifier_so_often(project: Project, version: RubricVersion) -> None:
    judge = factories.judge(project)
    version.verifier = judge
    version.save()
    short, rude = version.criteria.get(text=SHORT), version.criteria.get(text=RUDE)
    bob, carol = factories.rater(project), factories.rater(project)
    for at, response in enumerate(answered(project, 20)):
        say(short, response, judge.rater, 1)
        say(short, response, bob, int(at >= 4))  # four are not confirmed
        say(short, response, carol, int(at >= 4) if at < 12 else None)
    found = rubric_checks.checks(version)
    assert list(found) == [short.pk]
    checks = found[short.pk]
    assert (checks.checks, checks.responses, checks.raters) == (32, 20, 2)
    assert checks.does_not_apply == 8
    assert (checks.confirmed, checks.compared) == (24, 32)
    low, high = checks.confirms.interval
    assert low < 0.75 < high
    assert checks.people.value == pytest.approx(12 / 20)  # n/a is an answer, and not Bob's
    assert checks.people.n_units_paired == 20
    assert checks.alpha.value == pytest.approx(
        alpha_of([[int(at >= 4) for at in range(20)],
                  [int(at >= 4) if at < 12 else 2 for at in range(20)]])
    )  # fmt: skip
    assert rude.pk not in found


def alpha_of(matrix: list[list[int]]) -> float:
    import krippendorff

    return float(krippendorff.alpha(np.array(matrix, dtype=float), level_of_measurement="nominal"))


def test_few_shared_answers_have_no_alpha(project: Project, version: RubricVersion) -> None:
    short = version.criteria.get(text=SHORT)
    bob, carol = factories.rater(project), factories.rater(project)
    for response in answered(project, 3):
        say(short, response, bob, 1)
        say(short, response, carol, 0)
    checks = rubric_checks.checks(version)[short.pk]
    assert (checks.people.value, checks.alpha, checks.confirms) == (0, None, None)


def test_raters_left_out_and_judges_are_not_people(
    project: Project, version: RubricVersion
) -> None:
    short = version.criteria.get(text=SHORT)
    (response,) = answered(project, 1)
    say(short, response, factories.judge(project).rater, 1)
    out = factories.rater(project)
    Rater.objects.filter(pk=out.pk).update(is_excluded=True)
    say(short, response, out, 1)
    assert rubric_checks.checks(version) == {}


def test_own_verifier_comes_before_other_judges_and_programs_before_all(
    project: Project, version: RubricVersion
) -> None:
    version.verifier = factories.judge(project)
    version.save()
    short, steps = version.criteria.get(text=SHORT), version.criteria.get(text=STEPS)
    (response,) = answered(project, 1)
    bob = factories.rater(project)
    say(short, response, version.verifier.rater, 1)
    say(short, response, factories.judge(project).rater, 0)
    say(short, response, bob, 1)
    say(steps, response, version.verifier.rater, 0)
    say(steps, response, None, 1)
    say(steps, response, bob, 1)
    found = rubric_checks.checks(version)
    assert found[short.pk].confirmed == found[steps.pk].confirmed == 1


def test_sheet_says_what_the_verifier_scored(project: Project, version: RubricVersion) -> None:
    short, steps = version.criteria.get(text=SHORT), version.criteria.get(text=STEPS)
    one, other = answered(project, 2)
    bob = factories.rater(project)
    for response, value in ((one, 1), (other, 1)):
        say(short, response, bob, value)
        say(steps, response, bob, value)
    sheet = Sheet(
        criteria=np.array([short.pk, steps.pk]),
        prompts=np.array([one.prompt_id]),
        chosen=np.array([one.pk]),
        rejected=np.array([other.pk]),
        votes_for=np.array([1]),
        votes=np.array([1]),
        is_held=np.array([True]),
        scores=np.array([[[0.5, np.nan], [0.49, 0.9]]], dtype=np.float32),
    )
    found = rubric_checks.checks(version, sheet)
    assert (found[short.pk].confirmed, found[short.pk].compared) == (1, 2)
    assert (found[steps.pk].confirmed, found[steps.pk].compared) == (1, 1)


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
