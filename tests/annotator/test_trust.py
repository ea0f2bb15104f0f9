"""Judges' votes accepted without a person: places exact, edges right, trust taken back."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from annotator.errors import Conflict, Invalid
from annotator.jobs import tasks as task_jobs
from annotator.models import (
    Acceptance,
    AcceptRule,
    AuditEvent,
    Judgment,
    Preference,
    Project,
    Rater,
    Run,
    RunState,
    Task,
)
from annotator.queries import pairs
from annotator.queries import trust as queries
from annotator.services import acceptance, adjudication, judgments, quality, queue, runs, trust
from models import selective
from tests import factories
from tests.annotator.trusting import (
    held,
    is_exact,
    known_tasks,
    passed,
    rule,
    says,
    waiting_tasks,
)

pytestmark = pytest.mark.django_db
# What is measured is read through a connection of its own, and runs are of other transactions.
committed = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project(settings={"overlap": 2})


def do(run: Run) -> Run:
    task_jobs.change(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE, run.error
    return run


# What is measured -------------------------------------------------------------------------------


def test_measure_takes_gold_then_reviewer_then_majority(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    people = [factories.rater(project) for _ in range(3)]
    reviewer = factories.rater(project, factories.Role.REVIEWER)
    by_gold = factories.pairwise_task(project, gold={"ranks": [1, 2], "strength": 1}, overlap=3)
    by_reviewer, by_people, split, tied = (
        factories.pairwise_task(project, overlap=3) for _ in range(4)
    )
    for task, votes in ((by_gold, "bbb"), (by_reviewer, "bb"), (by_people, "aba"), (split, "ab"),
                        (tied, "=")):  # fmt: skip
        for person, vote in zip(people, votes, strict=False):
            factories.judgment(person, task, {"a": "a1", "b": "b1", "=": "tie"}[vote])
        says(judge, task, first=True, confidence=0.9)
    adjudication.decide(
        task=by_reviewer, rater=reviewer, answers={"verdict": "a1"}, options=project.options
    )
    nobody = factories.pairwise_task(project)
    says(judge, nobody, first=True, confidence=0.9)

    with connection.cursor():
        cases = queries.cases(judge, raw=connection.connection)
    truth = dict(zip(cases.tasks.tolist(), cases.truth.tolist(), strict=True))
    assert truth == {
        by_gold.pk: 1, by_reviewer.pk: 1, by_people.pk: 1, split.pk: 0, tied.pk: 0,
        nobody.pk: queries.UNKNOWN,
    }  # fmt: skip
    wrong = dict(zip(cases.tasks.tolist(), cases.is_wrong.tolist(), strict=True))
    assert wrong[split.pk], "a side taken where people see none"
    assert wrong[tied.pk]


@committed
def test_measure_leaves_out_golds_ties_and_other_judges(project: Project) -> None:
    judge, other = (factories.judge(project, kind="program") for _ in range(2))
    gold = factories.pairwise_task(project, is_gold=True, gold={"ranks": [1, 2], "strength": 1})
    says(judge, gold, first=True, confidence=0.99)
    known_tasks(judge, 1)
    tie, silent = known_tasks(other, 2)
    says(judge, tie, first=None, confidence=0.99)
    says(judge, silent, first=True, confidence=None)
    found = trust.measure(judge)
    assert (found["checked"], found["ties"], found["no_confidence"], found["used"]) == (3, 1, 1, 1)
    only_judged = factories.pairwise_task(project)
    says(judge, only_judged, first=True, confidence=0.9)
    says(other, only_judged, first=True, confidence=0.9)
    assert trust.measure(judge)["checked"] == 3, "a judge says nothing about a judge"


@committed
def test_measure_counts_a_prompt_once(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    prompt = factories.prompt(project)
    for _ in range(3):
        task = factories.task_of(project, of=prompt, gold={"ranks": [1, 2], "strength": 1})
        says(judge, task, first=True, confidence=0.9)
    known_tasks(judge, 2)
    found = trust.measure(judge)
    assert (found["checked"], found["used"]) == (5, 3)


@committed
def test_measure_finds_the_threshold_and_foretells(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    known_tasks(judge, 100, wrong=20)
    waiting_tasks(judge, 6, confidence=0.95)
    waiting_tasks(judge, 4, confidence=0.5)
    found = trust.measure(judge, audit_share=0.25)
    assert found["rule"]["threshold"] == pytest.approx(0.9)
    assert (found["rule"]["accepted"], found["rule"]["wrong"]) == (80, 0)
    assert found["rule"]["bound"] <= 0.05
    assert found["waiting"] == {"tasks": 10, "accepted": 6, "places": 12, "saved": 9}
    assert found["used"] == 100
    assert found["naive"]["accepted"] >= 80
    assert found["curve"][-1][0] == 1.0
    assert found["curve"][-1][1] == 0.2


@pytest.mark.parametrize(
    "values", [{"limit": 0}, {"limit": float("nan")}, {"risk": 1}, {"audit_share": 0}]
)
def test_nonsense_is_refused(project: Project, values: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        trust.measure(factories.judge(project, kind="program"), **values)


# Turning it on ----------------------------------------------------------------------------------


@committed
def test_turn_on_is_refused_with_the_reason(project: Project) -> None:
    judge = factories.judge(project, kind="program")

    def refused() -> str:
        with pytest.raises(Conflict) as caught:
            trust.turn_on(judge=judge, by=None)
        assert caught.value.advice
        assert not AcceptRule.objects.exists()
        return caught.value.message

    assert "attack battery" in refused()
    passed(judge)
    assert "59" in refused()
    known_tasks(judge, 70, wrong=30)
    passed(judge, is_passed=False)
    assert "fails the attack battery: Blank" in refused()
    passed(judge)
    assert "5 % wrong" in refused()
    known_tasks(judge, 60)
    Rater.objects.filter(pk=judge.rater_id).update(is_excluded=True)
    assert "left out" in refused()
    Rater.objects.filter(pk=judge.rater_id).update(is_excluded=False)
    run = trust.turn_on(judge=judge, by=None)
    assert run.kind == Run.Kind.TASKS
    assert AuditEvent.objects.filter(verb="trust.on").count() == 1


@committed
def test_accepted_votes_spare_places_and_count(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    known_tasks(judge, 80)
    passed(judge)
    sure, unsure = waiting_tasks(judge, 30), waiting_tasks(judge, 5, confidence=0.6)
    run = do(trust.turn_on(judge=judge, by=None, audit_share=0.2))
    drawn = {
        one.pk for one in sure
        if acceptance.is_drawn(judge_id=judge.pk, task_id=one.pk, share=0.2)
    }  # fmt: skip
    assert 0 < len(drawn) < 30
    spared = 2 * (30 - len(drawn))
    assert run.result == {
        "accepted": 30, "audited": len(drawn), "places": spared, "revoked": 0
    }  # fmt: skip
    assert queries.saved(judge) == queries.Saved(30, len(drawn), spared)
    is_exact(project)
    for task in Task.objects.filter(pk__in=[one.pk for one in sure]):
        assert (task.overlap, task.free) == ((2, 2) if task.pk in drawn else (0, 0))
    counted = Preference.objects.filter(rater=judge.rater, is_held=False)
    assert set(counted.values_list("task_id", flat=True)) == {one.pk for one in sure}
    assert all(0 < one.confidence <= 1 for one in Acceptance.objects.all())
    assert Task.objects.filter(pk__in=[one.pk for one in unsure], free=2).count() == 5
    decided = pairs.decided_pairs(project)
    assert sum(one.votes for one in decided) == 30
    assert do(runs_again(run)).result["accepted"] == 0, "twice is once"


def runs_again(run: Run) -> Run:
    return runs.start(
        project=run.project, kind=run.kind, title=run.title, config=run.config, by=None
    )


def test_what_people_said_or_hold_is_left_to_them(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    one, two, three, four, five = waiting_tasks(judge, 5)
    person, holder = factories.rater(project), factories.rater(project)
    factories.judgment(person, one)
    Task.objects.filter(pk=two.pk).update(is_settled=True)
    Task.objects.filter(pk=three.pk).update(is_gold=True, free=0)
    lease = None
    while lease is None or lease.task_id != four.pk:
        lease = queue.claim_next(project=project, rater=holder)
        assert lease is not None
        if lease.task_id != four.pk:
            judgments.skip(assignment_id=lease.assignment_id, rater=holder, reason="")
    rule(judge)
    done = acceptance.apply(judge=judge)
    assert (done.accepted, done.places) == (2, 3)
    assert set(Acceptance.objects.values_list("task_id", flat=True)) == {four.pk, five.pk}
    four.refresh_from_db()
    assert (four.overlap, four.free) == (1, 0), "the lease that is out may be finished"
    is_exact(project)


def test_first_judge_keeps_the_task(project: Project) -> None:
    first, second = (factories.judge(project, kind="program") for _ in range(2))
    tasks = waiting_tasks(first, 3)
    for task in tasks:
        says(second, task, first=False, confidence=0.99)
    for judge in (first, second):
        rule(judge)
    assert acceptance.apply(judge=first).accepted == 3
    assert acceptance.apply(judge=second).accepted == 0
    assert held(second) == [True] * 3
    acceptance.take_back(judge=first)
    assert acceptance.apply(judge=second).accepted == 3, "free again for the other"
    assert held(first) == [True] * 3


def test_ties_and_unsure_votes_are_never_accepted(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    for first, confidence in ((None, 0.99), (True, None), (True, 0.79)):
        says(judge, factories.pairwise_task(project), first=first, confidence=confidence)
    rule(judge, threshold=0.8)
    assert acceptance.apply(judge=judge) == acceptance.Applied()


def test_nothing_is_accepted_once_it_is_off(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    waiting_tasks(judge, 2)
    rule(judge)
    assert trust.turn_off(judge=judge, by=None, reason="enough")
    assert not trust.turn_off(judge=judge, by=None)
    assert acceptance.apply(judge=judge).accepted == 0
    assert AcceptRule.objects.get().off_reason == "enough"


# A person's word comes first --------------------------------------------------------------------


def test_a_persons_vote_holds_the_judges_and_undo_lets_it_count_again(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    (task,) = waiting_tasks(judge, 1)
    rule(judge, audit_share=1.0)
    acceptance.apply(judge=judge)
    assert held(judge) == [False]
    person = factories.rater(project)
    factories.judgment(person, task, "b1")
    assert held(judge) == [True]
    (pair,) = pairs.decided_pairs(project)
    assert (pair.votes, pair.outcome) == (1, "b")
    judgments.undo(rater=person, options=project.options)
    assert held(judge) == [False]
    is_exact(project)


def test_leaving_out_the_person_lets_the_judges_vote_count_again(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    (task,) = waiting_tasks(judge, 1)
    rule(judge, audit_share=1.0)
    acceptance.apply(judge=judge)
    person, owner = factories.rater(project), factories.member(project, factories.Role.OWNER)
    factories.judgment(person, task, "b1")
    for action, expected in (("exclude", False), ("include", True)):
        quality.change_rater(project=project, rater_id=person.pk, action=action, by=owner)
        assert held(judge) == [expected]


def test_a_reviewers_decision_overrules_an_accepted_vote(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    (task,) = waiting_tasks(judge, 1)
    rule(judge)
    acceptance.apply(judge=judge)
    reviewer = factories.rater(project, factories.Role.REVIEWER)
    adjudication.decide(
        task=task, rater=reviewer, answers={"verdict": "b1"}, options=project.options
    )
    (pair,) = pairs.decided_pairs(project)
    assert (pair.votes, pair.outcome) == (1, "b")
    assert acceptance.take_back(judge=judge) == 1
    is_exact(project)


@committed
def test_leaving_out_the_judge_gives_its_tasks_back(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    waiting_tasks(judge, 3)
    rule(judge)
    acceptance.apply(judge=judge)
    owner = factories.member(project, factories.Role.OWNER)
    quality.change_rater(project=project, rater_id=judge.rater_id, action="exclude", by=owner)
    run = Run.objects.get(kind=Run.Kind.TASKS)
    assert do(run).result["revoked"] == 3
    assert not AcceptRule.objects.get().is_on
    assert held(judge) == [True] * 3
    assert set(Task.objects.values_list("free", flat=True)) == {2}


# Taking it back ---------------------------------------------------------------------------------


@committed
def test_revoking_gives_every_place_back_exactly(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    tasks = waiting_tasks(judge, 6)
    before = list(Task.objects.order_by("pk").values_list("overlap", "free", "position"))
    rule(judge, audit_share=0.3)
    acceptance.apply(judge=judge)
    run = do(trust.revoke(judge=judge, by=None))
    assert run.result["revoked"] == 6
    assert list(Task.objects.order_by("pk").values_list("overlap", "free", "position")) == before
    assert held(judge) == [True] * 6
    assert acceptance.take_back(judge=judge) == 0, "twice is once"
    person = factories.rater(project)
    assert queue.claim_next(project=project, rater=person) is not None
    assert queries.saved(judge) == queries.Saved(0, 0, 0)
    assert len(tasks) == Acceptance.objects.exclude(revoked_at=None).count()


def test_places_that_an_owner_asked_for_meanwhile_are_not_given_twice(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    one, two = waiting_tasks(judge, 2)
    rule(judge)
    acceptance.apply(judge=judge)
    Task.objects.filter(pk=one.pk).update(overlap=3, free=3)
    Task.objects.filter(pk=two.pk).update(is_gold=True)
    acceptance.take_back(judge=judge)
    one.refresh_from_db()
    two.refresh_from_db()
    assert (one.overlap, one.free) == (3, 3)
    assert (two.overlap, two.free) == (2, 0), "a gold has no places"
    is_exact(project)


def test_marks_that_passed_spared_tasks_come_back_for_them(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    waiting_tasks(judge, 1)
    rule(judge)
    acceptance.apply(judge=judge)
    person = factories.rater(project)
    assert queue.claim_next(project=project, rater=person) is None
    acceptance.take_back(judge=judge)
    assert queue.claim_next(project=project, rater=person) is not None


@committed
def test_a_higher_threshold_takes_back_what_it_would_not_accept(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    low = waiting_tasks(judge, 3, confidence=0.7)
    known_tasks(judge, 150, wrong=20)
    rule(judge, threshold=0.6)
    acceptance.apply(judge=judge)
    passed(judge)
    run = do(trust.turn_on(judge=judge, by=None))
    assert (run.result["revoked"], run.result["accepted"]) == (3, 0)
    assert not Acceptance.objects.filter(revoked_at=None).exists()
    assert Task.objects.filter(pk__in=[one.pk for one in low], free=2).count() == 3


# The audit --------------------------------------------------------------------------------------


@committed
def test_audit_counts_what_people_say_and_turns_a_broken_rule_off(project: Project) -> None:
    judge = factories.judge(project, kind="program")
    tasks = waiting_tasks(judge, 8)
    rule(judge, audit_share=1.0)
    acceptance.apply(judge=judge)
    people = [factories.rater(project) for _ in range(2)]
    for task in tasks[:2]:
        factories.judgment(people[0], task, "a1")
    found = trust.audit(judge)
    assert (found["drawn"], found["n"], found["wrong"], found["is_broken"]) == (8, 2, 0, False)
    for task in tasks[2:]:
        factories.judgment(people[0], task, "b1")
    low, _ = selective.clopper_pearson(6, 8)
    assert low > 0.05
    assert trust.enforce_all(project.pk) == 1
    stopped = AcceptRule.objects.get()
    assert not stopped.is_on
    assert "6 of 8" in stopped.off_reason
    assert trust.enforce_all(project.pk) == 0
    assert Acceptance.objects.filter(revoked_at=None).count() == 8, "until somebody takes it back"


def test_audit_draw_is_reproducible_and_of_the_asked_share() -> None:
    drawn = [acceptance.is_drawn(judge_id=1, task_id=task, share=0.05) for task in range(20_000)]
    assert drawn == [
        acceptance.is_drawn(judge_id=1, task_id=task, share=0.05) for task in range(20_000)
    ]
    assert 850 < sum(drawn) < 1_150
    other = [acceptance.is_drawn(judge_id=2, task_id=task, share=0.05) for task in range(20_000)]
    assert other != drawn
    assert all(acceptance.is_drawn(judge_id=1, task_id=task, share=1.0) for task in range(100))


# Killed, and side by side with people -----------------------------------------------------------


class Killed(BaseException):
    """As if the process were gone."""


def test_killed_between_chunks_goes_on_where_it_was(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "CHUNK", 3)
    judge = factories.judge(project, kind="program")
    waiting_tasks(judge, 10)
    rule(judge)

    def die(looked: int) -> None:
        if looked >= 6:
            raise Killed

    with pytest.raises(Killed):
        acceptance.apply(judge=judge, between=die)
    assert Acceptance.objects.count() == 6
    is_exact(project)
    assert acceptance.apply(judge=judge).accepted == 4
    is_exact(project)
    with pytest.raises(Killed):
        acceptance.take_back(judge=judge, between=die)
    assert acceptance.take_back(judge=judge) == 4
    assert set(Task.objects.values_list("overlap", "free")) == {(2, 2)}


def test_killed_within_a_chunk_leaves_nothing_half_done(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = factories.judge(project, kind="program")
    waiting_tasks(judge, 4)
    rule(judge)

    def die(_: list[int]) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(acceptance, "follow", die)
        with pytest.raises(Killed):
            acceptance.apply(judge=judge)
    assert not Acceptance.objects.exists()
    assert set(Task.objects.values_list("overlap", "free")) == {(2, 2)}
    assert acceptance.apply(judge=judge).accepted == 4


def waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone()[0])


@committed
def test_turning_on_waits_for_the_rule_without_the_rater_in_hand(project: Project) -> None:
    """Else it waits for who accepts, who waits for who writes verdicts, who waits for the rater."""
    judge = factories.judge(project, kind="program")
    passed(judge)
    known_tasks(judge, 200)
    rule(judge)

    def turn_on() -> None:
        try:
            trust.turn_on(judge=judge, by=None)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT FROM annotator_acceptrule FOR SHARE")
        turning = pool.submit(turn_on)
        while not waits_for_a_lock():
            # A transaction sees the activity of its first look until it asks for another.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            assert not turning.done(), turning.result()
        cursor.execute("SELECT id FROM annotator_rater FOR NO KEY UPDATE NOWAIT")
        assert cursor.fetchone() == (judge.rater_id,)
        transaction.on_commit(lambda: turning.result())


@committed
def test_claims_and_submits_beside_acceptance_stay_exact(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People claim, submit, skip and undo while votes are accepted and taken back."""
    monkeypatch.setattr(acceptance, "CHUNK", 4)
    judge = factories.judge(project, kind="program")
    waiting_tasks(judge, 24)
    rule(judge, audit_share=0.2)
    people = [factories.rater(project) for _ in range(3)]

    def work(person: Rater, seed: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(14):
                lease = queue.claim_next(project=project, rater=person)
                if lease is None:
                    continue
                if dice.random() < 0.3:
                    judgments.skip(assignment_id=lease.assignment_id, rater=person, reason="hm")
                    continue
                judgments.answer(
                    assignment_id=lease.assignment_id, rater=person,
                    answers={"verdict": "a1"}, options=project.options,
                )  # fmt: skip
                if dice.random() < 0.2:
                    judgments.undo(rater=person, options=project.options)
        finally:
            connection.close()

    def trusting() -> None:
        try:
            for _ in range(5):
                acceptance.apply(judge=judge)
                acceptance.take_back(judge=judge)
            acceptance.apply(judge=judge)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, one, at) for at, one in enumerate(people)]
        futures.append(pool.submit(trusting))
        for future in futures:
            future.result()
    is_exact(project)
    for edge in Preference.objects.filter(rater=judge.rater):
        accepted = Acceptance.objects.filter(task_id=edge.task_id, revoked_at=None).exists()
        voted = Judgment.objects.filter(
            task_id=edge.task_id, is_current=True, rater__kind=Rater.Kind.HUMAN
        ).exists()
        assert edge.is_held == (not accepted or voted)
