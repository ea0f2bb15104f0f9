"""Inducing a rubric: from preferences to a draft that people decide on."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from annotator.errors import Conflict, Invalid
from annotator.jobs.induction import induce
from annotator.models import (
    Criterion,
    Preference,
    Project,
    Prompt,
    RubricVersion,
    Run,
    RunState,
    Task,
)
from annotator.services import induction, rubric_measure, rubrics, runs
from rubrics.llm.budget import Budget
from rubrics.programs import PROGRAMS
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


def world(train: int = 36, test: int = 12) -> Project:
    """People prefer the answer with a list; every other pair has the longer one second."""
    project = factories.project()
    rater = factories.rater(project)
    for number in range(train + test):
        listed = f"Three steps for {number}:\n\n- one\n- two\n- three"
        plain = f"There are three steps for {number}, and here they are, one after the other."
        texts = (listed, plain) if number % 2 else (plain, listed + "\n- four" * (number % 3))
        task = factories.pairwise_task(project, texts=texts)
        if number >= train:
            Prompt.objects.filter(pk=task.prompt_id).update(split="test")
        factories.judgment(rater, task, "a1" if number % 2 else "b1", rationale="I like lists.")
    return project


def done(run: Run) -> Run:
    induce(run_id=run.pk)
    run.refresh_from_db()
    return run


def start(project: Project, **values) -> Run:
    options = {"top": 5, "bootstraps": 0} | values.pop("options", {})
    return induction.start(project=project, method="program", options=options, by=None, **values)


def test_programs_become_a_draft_that_was_measured_on_other_prompts() -> None:
    run = done(start(world()))
    assert run.state == RunState.DONE, run.error
    version = RubricVersion.objects.get(run=run)
    assert version.is_draft
    assert str(version) == "Programs v1"
    first = max(version.criteria.all(), key=lambda one: abs(one.weight))
    assert first.verifier == "program"
    assert first.decision == Criterion.Decision.PROPOSED
    assert first.evidence.exists()
    found = run.result["held_out"]
    assert found["n"] == 12
    assert found["accuracy"] == 1.0
    assert found["interval"][0] < 1.0
    assert found["baselines"]["longer_wins"]["n"] == 12
    assert found["baselines"]["longer_wins"]["accuracy"] < 1.0
    assert run.result["criteria"][0]["text"] == version.criteria.first().text
    assert [(stage["key"], stage["state"]) for stage in run.stages] == [
        ("read", "done"), ("program:evaluate", "done"), ("program:refine", "done"),
        ("write", "done"), ("measure", "done"),
    ]  # fmt: skip
    assert all(stage["seconds"] is not None for stage in run.stages)


def test_what_a_method_notes_stands_by_its_draft(client) -> None:
    project = world()
    others = [key for key, row in PROGRAMS.items() if row.gives != "measure"]
    run = done(start(project, options={"leave_out": others}))
    version = RubricVersion.objects.get(run=run)
    assert [note for note in version.figures["notes"] if note.startswith("It counts ")]
    assert run.result["notes"] == version.figures["notes"]
    client.force_login(factories.member(project, "reviewer"))
    for page in (
        reverse("rubric_version", args=[project.slug, version.rubric_id, version.number]),
        reverse("run", args=[project.slug, run.pk]),
    ):
        assert "length, which may sway people" in client.get(page).content.decode()


def test_run_done_again_replaces_its_draft_until_somebody_decides() -> None:
    project = world(24, 4)
    one = done(start(project))
    again = done(start(project))
    assert again.state == RunState.DONE, again.error
    version = RubricVersion.objects.get()
    assert version.run_id == again.pk
    rubrics.decide(criterion=version.criteria.first(), decision="accepted", by=None)
    with pytest.raises(Conflict, match="somebody works on"):
        start(project)
    named = done(start(project, name="Another"))
    assert named.state == RunState.DONE
    assert one.result["rubric"] == "Programs"


def test_second_run_of_a_name_waits_for_the_first() -> None:
    project = world(24, 4)
    first = start(project)
    with pytest.raises(Conflict, match=f"Run {first.pk} is inducing"):
        start(project)
    elsewhere, named = start(world(24, 4)), start(project, name="Another")
    assert {elsewhere.state, named.state} == {RunState.QUEUED}
    done(first)
    assert start(project).pk != first.pk


def test_decision_made_while_it_runs_is_not_overwritten() -> None:
    project = world(24, 4)
    done(start(project))
    late = start(project)
    version = RubricVersion.objects.get()
    rubrics.decide(criterion=version.criteria.first(), decision="rejected", by=None)
    done(late)
    assert late.state == RunState.FAILED
    assert "somebody works on" in late.error
    assert RubricVersion.objects.get() == version


def killed_before_measuring(run: Run, monkeypatch: pytest.MonkeyPatch) -> RubricVersion:
    """The worker dies while the draft that is written is measured."""
    with monkeypatch.context() as patch:
        patch.setattr(rubric_measure, "measure", dies)
        dies_of(run)
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
    return RubricVersion.objects.get(run=run)


def dies_of(run: Run) -> None:
    pen = runs.begin(run_id=run.pk, worker="w")
    with pytest.raises(SystemExit):
        induction.perform(pen)


def dies(*given, **named):
    raise SystemExit


def test_killed_run_keeps_its_draft_and_the_stages_it_has_shown(monkeypatch) -> None:
    run = start(world(24, 6))
    version = killed_before_measuring(run, monkeypatch)
    ids = list(version.criteria.values_list("pk", flat=True))
    rubrics.decide(criterion=version.criteria.first(), decision="rejected", by=None)
    done(run)
    assert run.state == RunState.DONE, run.error
    assert list(RubricVersion.objects.get().criteria.values_list("pk", flat=True)) == ids
    assert run.result["version"] == version.number
    assert run.result["held_out"]["n"] == 6
    assert len(run.result["criteria"]) == len(ids) - 1
    keys = [stage["key"] for stage in run.stages]
    assert keys == ["read", "program:evaluate", "program:refine", "write", "measure"]


def test_run_killed_before_its_draft_shows_its_stages_once(monkeypatch) -> None:
    run = start(world(24, 4))
    with monkeypatch.context() as patch:
        patch.setattr(rubrics, "propose", dies)
        dies_of(run)
    assert not RubricVersion.objects.exists()
    Run.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
    done(run)
    assert run.state == RunState.DONE, run.error
    assert len(run.stages) == 5
    assert {stage["state"] for stage in run.stages} == {"done"}


def test_only_the_pairs_that_are_named_are_learned_from_and_none_of_the_test_split() -> None:
    project = world(24, 6)
    first = done(start(project))
    version = RubricVersion.objects.get(run=first)
    wanted = [
        [task.prompt_id, *(task.response_ids if vote.outcome == 1 else task.response_ids[::-1])]
        for task in Task.objects.order_by("pk")
        for vote in Preference.objects.filter(task=task)
    ]
    learned, test = wanted[4:16], wanted[24:]
    turned = [[prompt, rejected, chosen] for prompt, chosen, rejected in wanted[16:20]]
    only = {"version": version.pk, "rows": learned + test + turned}
    run = done(start(project, name="Next", only=only))
    assert run.state == RunState.DONE, run.error
    assert "12 pairs to learn from" in run.log
    made = RubricVersion.objects.get(run=run)
    evidence = {one.prompt_id for row in made.criteria.all() for one in row.evidence.all()}
    assert evidence <= {prompt for prompt, _, _ in learned}


def test_without_a_test_pair_it_says_that_nothing_was_measured() -> None:
    run = done(start(world(24, 0)))
    assert run.state == RunState.DONE, run.error
    assert run.result["held_out"]["accuracy"] is None
    assert "test split" in run.result["held_out"]["reason"]


def test_nothing_to_learn_from_fails_with_advice() -> None:
    run = done(start(factories.project()))
    assert run.state == RunState.FAILED
    assert run.advice == "Judge or import pairs first."


def test_canceled_run_leaves_no_draft() -> None:
    run = start(world(24, 4))
    pen = runs.begin(run_id=run.pk, worker="w")
    runs.cancel(run=run, by=None)
    with pytest.raises(runs.Stopped):
        induction.perform(pen)
    assert not RubricVersion.objects.exists()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"options": {"top": 0}}, "top"),
        ({"options": {"leave_out": ["no-such"]}}, "no group or program"),
        ({"pairs": 0}, "is given 1 to"),
        ({"only": {"version": 0, "rows": []}}, "Name 1 to"),
        ({"only": {"version": 0, "rows": [[1, 2, "3"]]}}, "is the ids"),
        ({"only": {"version": 0, "rows": [[1, 2, 3]]}}, "no such version"),
    ],
    ids=["option", "name", "pairs", "no-rows", "no-ids", "version"],
)
def test_start_is_refused_with_the_reason(values: dict, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        start(factories.project(), **values)


def test_judge_of_another_project_is_refused() -> None:
    other = factories.judge(factories.project())
    with pytest.raises(Invalid, match="of this project"):
        start(factories.project(), judge=other, budget=Budget(calls=5))


def test_command_prints_the_criteria_and_what_they_are_worth() -> None:
    project = world(24, 6)
    out = StringIO()
    call_command(
        "induce_rubric", project.slug, method="program", option=["top=5", "bootstraps=0"],
        wait=True, json=True, stdout=out, stderr=StringIO(),
    )  # fmt: skip
    result = json.loads(out.getvalue().splitlines()[-1])
    assert {"run", "rubric", "version", "criteria", "held_out", "calls", "tokens"} <= set(result)
    assert result["calls"] == result["tokens"] == 0
    assert set(result["criteria"][0]) == {"text", "weight", "coverage", "precision"}
    with pytest.raises(CommandError, match="Known: "):
        call_command("induce_rubric", project.slug, method="no-such")
