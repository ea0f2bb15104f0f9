"""What a decision becomes in the tables, and what never takes the place of what."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from annotator.errors import Invalid
from annotator.models import (
    Judge,
    JudgeAnswer,
    JudgeOutcome,
    Judgment,
    Preference,
    Project,
    Rater,
    Response,
    Run,
    Task,
)
from annotator.queries import judging as queries
from annotator.queries.judging import Source, parse_selection
from annotator.services.judging_write import write
from rubrics.judging.types import Decision, Opinion
from tests import factories

pytestmark = pytest.mark.django_db

A_WINS = Decision((1, 2), strength=2, rationale="A is clear.", confidence=0.9, probability=0.95)
FAILED = Decision(None, error="timeout", detail="no reply within 60 seconds")


@pytest.fixture
def project() -> Project:
    return factories.project("letters")


@pytest.fixture
def judge(project: Project) -> Judge:
    return factories.judge(project, kind="program")


def run_of(judge: Judge) -> Run:
    return Run.objects.create(project=judge.project, kind=Run.Kind.JUDGE, title="Judge")


def say(judge: Judge, run: Run, *said: tuple[Task, Decision]) -> Any:
    return write(
        judge=judge,
        run_id=run.pk,
        options=judge.project.options,
        said=[(task.pk, decision) for task, decision in said],
    )


def test_decision_becomes_judgment_edge_and_outcome(project: Project, judge: Judge) -> None:
    task, run = factories.pairwise_task(project), run_of(judge)
    written = say(judge, run, (task, A_WINS))
    assert (written.judged, written.failed, written.errors) == (1, {}, {})
    one = Judgment.objects.get()
    assert (one.ranks, one.strength, one.rationale) == ([1, 2], 2, "A is clear.")
    assert (one.is_current, one.is_counted, one.confidence, one.is_hit) == (True, False, 0.9, None)
    outcome = JudgeOutcome.objects.get()
    assert (outcome.judgment, outcome.run, outcome.error) == (one, run, "")
    assert (outcome.confidence, outcome.probability) == (0.9, 0.95)
    edge = Preference.objects.get()
    assert (edge.outcome, edge.strength, edge.is_held, edge.is_gold) == (1, 2, True, False)
    assert (edge.prompt_id, edge.rater_id) == (task.prompt_id, judge.rater_id)


def test_second_decision_changes_nothing(project: Project, judge: Judge) -> None:
    task = factories.pairwise_task(project)
    say(judge, run_of(judge), (task, A_WINS))
    other = run_of(judge)
    for decision in (Decision((2, 1), strength=1), FAILED):
        assert say(judge, other, (task, decision)).judged == 0
    assert Judgment.objects.get().ranks == [1, 2]
    assert JudgeOutcome.objects.get().error == ""
    assert Rater.objects.get(pk=judge.rater_id).judged == 1
    assert Preference.objects.count() == 1


def test_verdict_takes_the_place_of_a_failure(project: Project, judge: Judge) -> None:
    task = factories.pairwise_task(project)
    lost = Opinion((0, 1), None, error="timeout")
    said = Opinion((0, 1), (1, 2), probability=0.9)
    first, second = run_of(judge), run_of(judge)
    failed = say(judge, first, (task, Decision(None, error="timeout", opinions=(lost,))))
    assert (failed.judged, failed.failed, failed.errors) == (0, {"timeout": 1}, {"timeout": 1})
    assert say(judge, second, (task, Decision((1, 2), strength=1, opinions=(said,)))).judged == 1
    outcome = JudgeOutcome.objects.get()
    assert (outcome.error, outcome.run, outcome.judgment) == ("", second, Judgment.objects.get())
    answer = JudgeAnswer.objects.get()
    assert (answer.error, answer.ranks) == ("", [1, 2])


@pytest.mark.parametrize(
    "decision",
    [
        Decision((1, 3), strength=1),
        Decision((1,), strength=1),
        Decision((1, 2), strength=0),
        Decision((1, 2), strength=9),
        Decision(None),
    ],
    ids=["gap", "short", "strength", "strong", "nothing"],
)
def test_decision_that_is_no_verdict_is_a_failure(
    project: Project, judge: Judge, decision: Decision
) -> None:
    written = say(judge, run_of(judge), (factories.pairwise_task(project), decision))
    assert (written.judged, written.failed) == (0, {"unfit": 1})
    assert JudgeOutcome.objects.get().detail
    assert not Judgment.objects.exists()


def test_odd_characters_and_numbers_are_kept_out(project: Project, judge: Judge) -> None:
    decision = Decision(
        (1, 2),
        strength=1,
        rationale="a\0b\ud800" + "x" * 50_000,
        confidence=float("nan"),
        opinions=(
            Opinion((0, 1), (1, 2), model="m\0", scores={"all": [float("inf"), None]}),
            Opinion((0, 1), None, model="m\0", error="timeout"),
        ),
    )
    assert say(judge, run_of(judge), (factories.pairwise_task(project), decision)).judged == 1
    assert Judgment.objects.get().rationale.startswith("ab?x")
    assert JudgeOutcome.objects.get().confidence is None
    answer = JudgeAnswer.objects.get()
    assert (answer.model, answer.error) == ("m", ""), "of one order said twice, what was said"


def test_task_that_is_gone_is_left_out(project: Project, judge: Judge) -> None:
    task, gone = factories.pairwise_task(project), factories.pairwise_task(project)
    Task.objects.filter(pk=gone.pk).delete()
    assert say(judge, run_of(judge), (task, A_WINS), (gone, A_WINS)).judged == 1
    assert JudgeOutcome.objects.get().task == task


def test_task_of_another_project_is_left_out(judge: Judge) -> None:
    other = factories.pairwise_task(factories.project())
    assert say(judge, run_of(judge), (other, A_WINS)).judged == 0
    assert not JudgeOutcome.objects.exists()


def test_statements_do_not_grow_with_the_group(project: Project, judge: Judge) -> None:
    tasks = [factories.pairwise_task(project) for _ in range(24)]

    def statements(some: list[Task]) -> int:
        with CaptureQueriesContext(connection) as seen:
            say(judge, run_of(judge), *((task, A_WINS) for task in some))
        return len(seen)

    assert statements(tasks[:2]) == statements(tasks[2:])


# What a judge is shown --------------------------------------------------------------------------


def test_items_cost_the_same_statements_however_many(project: Project) -> None:
    ids = [factories.task_of(project, "ranking", 4).pk for _ in range(20)]

    def statements(some: list[int]) -> int:
        with CaptureQueriesContext(connection) as seen:
            assert [one.id for one in queries.items(project, some)] == some
        return len(seen)

    assert statements(ids[:1]) == statements(ids) == 2


def test_item_tells_a_judge_what_people_see_and_no_more() -> None:
    project = factories.project(
        question="Which is kinder?", guidelines="Be strict.", settings={"attributes": ["tone"]}
    )
    of = factories.prompt(project, "Hello?")
    task = factories.task_of(project, of=of, texts=("one", "two"))
    Response.objects.filter(pk=task.response_ids[0]).update(
        generator="secret-model-7",
        messages=[{"role": "assistant", "content": "one"}, {"role": "user", "content": "more"}],
    )
    (item,) = queries.items(project, [task.pk])
    assert "secret-model-7" not in repr(item)
    assert [one.text for one in item.candidates] == ["assistant: one\n\nuser: more", "two"]
    assert list(item.messages) == [{"role": "user", "content": "Hello?"}]
    assert (item.question, item.guidelines) == ("Which is kinder?", "Be strict.")
    assert item.attributes == ("tone",)


# Selections ---------------------------------------------------------------------------------------


def ids(project: Project, judge: Judge, text: str, **how: Any) -> list[int]:
    source = Source(project.pk, judge.pk, 0, parse_selection(text), **how)
    found = source.ids(after=0, size=100)
    assert source.count(most=None) == len(found)
    return found


def test_selections_find_their_tasks(project: Project, judge: Judge) -> None:
    train, test = (
        factories.task_of(project, of=factories.prompt(project, split=split, tags=[split]))
        for split in ("train", "test")
    )
    ranked = factories.ranking_task(project)
    factories.judgment(factories.rater(project), train)
    settled = factories.pairwise_task(project, is_settled=True)
    every = [train.pk, test.pk, ranked.pk, settled.pk]
    assert ids(project, judge, "all") == ids(project, judge, "") == every
    assert ids(project, judge, "unlabeled") == [test.pk, ranked.pk]
    assert ids(project, judge, "labeled") == [train.pk, settled.pk]
    assert ids(project, judge, "split=test") == ids(project, judge, "tag=test") == [test.pk]
    assert ids(project, judge, "kind=ranking") == [ranked.pk]
    assert ids(project, judge, "unlabeled, kind=pairwise") == [test.pk]
    assert ids(project, judge, "status=settled") == [settled.pk]


def test_imported_labels_are_people_and_votes_of_judges_are_not(
    project: Project, judge: Judge
) -> None:
    imported, judged, left_out = (factories.pairwise_task(project) for _ in range(3))
    for task, fields in (
        (imported, {"kind": Rater.Kind.IMPORTED}),
        (judged, {"kind": Rater.Kind.JUDGE}),
        (left_out, {"is_excluded": True}),
    ):
        rater = factories.rater(project)
        factories.judgment(rater, task)
        Rater.objects.filter(pk=rater.pk).update(**fields)
    assert ids(project, judge, "labeled") == [imported.pk]
    assert ids(project, judge, "unlabeled") == [judged.pk, left_out.pk]


def test_what_has_an_outcome_is_left_out_and_failures_are_found(
    project: Project, judge: Judge
) -> None:
    done, failed, fresh = (factories.pairwise_task(project) for _ in range(3))
    run = run_of(judge)
    say(judge, run, (done, A_WINS), (failed, FAILED))
    assert ids(project, judge, "all") == [fresh.pk]
    assert ids(project, judge, "all", only_failed=True) == [failed.pk]
    own = Source(project.pk, judge.pk, run.pk, parse_selection("all"), only_failed=True)
    assert own.ids(after=0, size=9) == [], "a run does not take up again what failed under it"
    other = factories.judge(project, kind="program")
    assert len(ids(project, other, "all")) == 3


@pytest.mark.parametrize(
    "text",
    ["everything", "split=dev", "kind=haiku", "status=lost", "group=x", "tag=", "=a",
     "split=test,split=train", "id=1", "group=-1"],
)  # fmt: skip
def test_nonsense_selects_nothing_rather_than_everything(text: str) -> None:
    with pytest.raises(Invalid):
        parse_selection(text)
