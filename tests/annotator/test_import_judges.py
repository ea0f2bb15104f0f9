"""Verdicts of AI judges that come with a file: raters of their own kind, measured, never counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from annotator.errors import Invalid
from annotator.forms.imports import ImportForm, initial_of
from annotator.models import (
    AcceptRule,
    Judge,
    JudgeAnswer,
    JudgeOutcome,
    JudgeReport,
    Judgment,
    Preference,
    Project,
    Rater,
    Task,
)
from annotator.queries.pairs import Selection, chunks
from annotator.services import import_undo
from tests import factories
from tests.annotator.imported import jsonl, last_run, read

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project()


def row(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "prompt": f"Question {number}?",
        "response_a": f"First {number}.",
        "response_b": f"Second {number}.",
        **more,
    }


def verdict(number: int, judge: str, winner: str | None, swapped: str | None) -> dict[str, Any]:
    return {"pair": f"p{number}", "rater": judge, "winner": winner, "swapped": swapped}


def outcomes(project: Project, name: str) -> dict[str, JudgeOutcome]:
    """Outcomes of a judge by the name of the task."""
    return {
        one.task.external_id: one
        for one in JudgeOutcome.objects.filter(
            judge__project=project, judge__name=name
        ).select_related("task", "judgment")
    }


def test_columns_of_judges_are_judges_and_others_stay_people(
    project: Project, tmp_path: Path
) -> None:
    rows = [
        row(1, ann="a", bo="b", gpt="a"),
        row(2, ann="a", bo="tie", gpt="garbage"),
        row(3, ann="b", bo="b", gpt=None),
    ]
    options = {"mapping": {"label": ["ann", "bo", "gpt"]}, "judges": ["gpt"]}
    result = read(project, jsonl(tmp_path / "f", rows), options=options)
    assert result["judgments"] == 7
    assert result["bad_rows_total"] == 0
    assert (result["judges"], result["unread"]) == (["gpt"], {"gpt": 1})
    assert "gpt: 1" in result["notes"][0]
    kinds = dict(Rater.objects.filter(project=project).values_list("name", "kind"))
    assert kinds == {"ann": "imported", "bo": "imported", "gpt": "judge"}
    judge = Judge.objects.get(project=project)
    assert (judge.kind, judge.version, judge.name) == ("imported", 1, "gpt")
    assert judge.rater.judged == 1
    vote = Judgment.objects.get(rater=judge.rater)
    assert (vote.is_counted, vote.ranks) == (False, [1, 2])
    assert [one.is_held for one in vote.preferences.all()] == [True]
    assert not Preference.objects.filter(rater__kind="imported", is_held=True).exists()
    assert not Judgment.objects.filter(rater__kind="imported", is_counted=False).exists()
    ended = outcomes(project, "gpt")
    assert set(ended) == {"p1", "p2"}  # an empty cell: it was not asked
    assert (ended["p1"].error, ended["p1"].judgment) == ("", vote)
    assert (ended["p2"].error, ended["p2"].judgment) == ("unreadable", None)
    assert "garbage" in ended["p2"].detail


def test_label_of_a_person_that_cannot_be_read_is_still_a_bad_row(
    project: Project, tmp_path: Path
) -> None:
    rows = [row(1, ann="a", gpt="a"), row(2, ann="garbage", gpt="a")]
    options = {"mapping": {"label": ["ann", "gpt"]}, "judges": ["gpt"]}
    result = read(project, jsonl(tmp_path / "f", rows), options=options)
    assert result["reasons"] == {"winner": 1}
    assert Judgment.objects.filter(project=project).count() == 2


def test_both_orders_become_answers_and_one_verdict(project: Project, tmp_path: Path) -> None:
    read(project, jsonl(tmp_path / "pairs", [row(number) for number in range(1, 7)]))
    rows = [
        verdict(1, "J", "a", "a"),
        verdict(2, "J", "a", "b"),
        verdict(3, "J", None, "b"),
        verdict(4, "J", "tie", "b"),
        verdict(5, "J", None, "???"),
        verdict(6, "J", "b", None),
    ]
    result = read(project, jsonl(tmp_path / "f", rows), options={"judges": ["*"]})
    assert result["format"] == "votes-long"
    assert (result["tasks"], result["judgments"], result["unread"]) == (0, 5, {"J": 1})
    ended = outcomes(project, "J")
    said = {
        name: (one.judgment.ranks if one.judgment else None, one.is_consistent)
        for name, one in ended.items()
    }
    assert said == {
        "p1": ([1, 2], True),
        "p2": ([1, 1], False),
        "p3": ([2, 1], None),
        "p4": ([1, 1], False),
        "p5": (None, None),
        "p6": ([2, 1], None),
    }
    answers = {
        (one.task.external_id, tuple(one.shown_order)): (one.ranks, one.error)
        for one in JudgeAnswer.objects.filter(judge__project=project).select_related("task")
    }
    assert len(answers) == 12
    assert answers["p2", (0, 1)] == ([1, 2], "")
    assert answers["p2", (1, 0)] == ([2, 1], "")
    assert answers["p3", (0, 1)] == (None, "unreadable")
    assert answers["p5", (1, 0)] == (None, "unreadable")
    assert "???" in ended["p5"].detail


def test_pair_that_stands_the_other_way_round_is_turned(project: Project, tmp_path: Path) -> None:
    turned = row(1)
    turned["response_a"], turned["response_b"] = turned["response_b"], turned["response_a"]
    read(project, jsonl(tmp_path / "pairs", [turned]))
    rows = [{**row(1), "judge": "J", "winner": "a", "winner_swapped": "tie"}]
    options = {
        "mapping": {"item": ["id"], "swapped": ["winner_swapped"]},
        "judges": ["J"],
    }
    result = read(project, jsonl(tmp_path / "f", rows), format="votes-long", options=options)
    assert (result["tasks"], result["judgments"]) == (0, 1)
    answers = JudgeAnswer.objects.filter(judge__project=project).order_by("pk")
    assert [(one.shown_order, one.ranks) for one in answers] == [
        ([1, 0], [2, 1]),
        ([0, 1], [1, 1]),
    ]


def test_swapped_of_people_is_put_together_without_answers(
    project: Project, tmp_path: Path
) -> None:
    rows = [row(1, winner="a", other="b"), row(2, winner="b", other="b")]
    options = {"mapping": {"swapped": ["other"]}, "rater": "ann"}
    read(project, jsonl(tmp_path / "f", rows), options=options)
    ranks = Judgment.objects.filter(project=project).order_by("task_id").values_list("ranks")
    assert [one for (one,) in ranks] == [[1, 1], [2, 1]]
    assert not Judge.objects.filter(project=project).exists()


def test_rankings_and_ratings_of_judges_are_held_too(project: Project, tmp_path: Path) -> None:
    rows = [
        {"item": "i1", "rater": name, "attribute": "good", "value": value}
        for name, value in (("ann", 3), ("J", 1))
    ]
    read(project, jsonl(tmp_path / "f", rows), options={"judges": ["J"]})
    judge = Judge.objects.get(project=project)
    said = Judgment.objects.get(rater=judge.rater)
    assert (said.is_counted, said.ratings) == (False, {"good": [1]})
    answer = JudgeAnswer.objects.get(judge=judge)
    assert (answer.scores, answer.shown_order) == ({"good": [1]}, [0])
    ranked = [{"prompt": "Q?", "generations": ["x", "y", "z"], "ranking": [2, 1, 3]}]
    read(project, jsonl(tmp_path / "g", ranked), options={"rater": "J", "judges": ["*"]})
    assert Preference.objects.filter(rater=judge.rater, is_held=True).count() == 3
    assert judge.outcomes.count() == 2


def test_second_import_adds_nothing_and_the_judge_is_the_same(
    project: Project, tmp_path: Path
) -> None:
    rows = [row(1, winner="a"), row(2, winner="???")]
    path = jsonl(tmp_path / "f", rows)
    options = {"rater": "J", "judges": ["J"]}
    read(project, path, options=options)
    again = read(project, path, options=options)
    assert (again["judgments"], again["skipped_duplicates"], again["unread"]) == (0, 2, {})
    assert Judge.objects.filter(project=project).count() == 1
    assert JudgeOutcome.objects.filter(judge__project=project).count() == 2


def test_undo_removes_votes_answers_outcomes_and_the_judge(
    project: Project, tmp_path: Path
) -> None:
    read(project, jsonl(tmp_path / "pairs", [row(1, winner="a"), row(2, winner="b")]))
    rows = [verdict(1, "J", "a", "b"), verdict(2, "J", None, None), verdict(2, "K", "a", "a")]
    path = jsonl(tmp_path / "f", rows)
    read(project, path, options={"judges": ["*"]})
    judge = Judge.objects.get(project=project, name="J")
    JudgeReport.objects.create(judge=judge, figures={})
    AcceptRule.objects.create(judge=judge, limit=0.1)
    result = import_undo.undo(run=last_run(project), by=None)
    assert (result["judgments"], result["tasks"], result["raters"]) == (2, 0, 2)
    for table in (JudgeAnswer, JudgeOutcome, JudgeReport, AcceptRule):
        assert not table.objects.exists()
    assert not Judge.objects.filter(project=project).exists()
    assert list(Rater.objects.filter(project=project).values_list("name")) == [("imported",)]
    assert Judgment.objects.filter(project=project).count() == 2
    assert Task.objects.filter(project=project).count() == 2


def test_undo_keeps_a_judge_that_another_file_speaks_of(project: Project, tmp_path: Path) -> None:
    options = {"rater": "J", "judges": ["*"]}
    read(project, jsonl(tmp_path / "f", [row(1, winner="a")]), options=options)
    read(project, jsonl(tmp_path / "g", [row(2, winner="a")]), options=options)
    import_undo.undo(run=last_run(project), by=None)
    judge = Judge.objects.get(project=project)
    assert judge.outcomes.count() == 1
    assert judge.rater.judged == 1


def test_name_of_a_judge_of_the_project_is_refused(project: Project, tmp_path: Path) -> None:
    factories.judge(project, name="J")
    path = jsonl(tmp_path / "f", [row(1, winner="a")])
    with pytest.raises(Invalid, match="a judge of its own called “J”"):
        read(project, path, options={"rater": "J", "judges": ["*"]})
    assert not Task.objects.filter(project=project).exists()
    assert not Rater.objects.filter(project=project, name="J").exists()


def test_name_too_long_for_a_judge_is_a_bad_row(project: Project, tmp_path: Path) -> None:
    rows = [row(1, winner="a", rater="J"), row(2, winner="a", rater="J" * 81)]
    result = read(project, jsonl(tmp_path / "f", rows), options={"judges": ["*"]})
    assert result["reasons"] == {"name-too-long": 1}


def test_votes_find_each_of_the_pairs_of_one_prompt_by_name(
    project: Project, tmp_path: Path
) -> None:
    rows = [{**row(number), "prompt": "The same?"} for number in (1, 2, 3)]
    read(project, jsonl(tmp_path / "pairs", rows))
    assert Task.objects.filter(project=project).count() == 3
    said = [
        {"pair": f"p{number}", "rater": "J", "winner": winner}
        for number, winner in ((1, "a"), (2, "b"), (3, "tie"))
    ]
    result = read(project, jsonl(tmp_path / "f", said), options={"judges": ["J"]})
    assert (result["tasks"], result["bad_rows_total"]) == (0, 0)
    ranks = Judgment.objects.filter(project=project).values_list("task__external_id", "ranks")
    assert dict(ranks) == {"p1": [1, 2], "p2": [2, 1], "p3": [1, 1]}


def test_files_of_pandalm_are_known_by_their_columns(project: Project, tmp_path: Path) -> None:
    pairs = [
        {
            "idx": number,
            "instruction": "Shorten it.",
            "input": "It is so.",
            "response1": f"So {number}.",
            "response2": f"Is {number}.",
            "annotator1": 1,
            "annotator2": 0,
            "annotator3": 2,
        }
        for number in range(4)
    ]
    said = ("1", "2", "Tie", "garbage")
    verdicts = [
        {"idx": number, "gpt_result": one, "gpt_reason": "Because.", "gpt_reference": "x"}
        for number, one in enumerate(said)
    ]
    read(project, jsonl(tmp_path / "pairs", pairs))
    result = read(project, jsonl(tmp_path / "f", verdicts))
    assert (result["judges"], result["judgments"]) == (["GPT-3.5"], 3)
    assert result["unread"] == {"GPT-3.5": 1}
    ranks = Judgment.objects.filter(rater__kind="judge").values_list(
        "task__external_id", "ranks", "rationale"
    )
    assert sorted(ranks) == [
        ("0", [1, 2], "Because."),
        ("1", [2, 1], "Because."),
        ("2", [1, 1], "Because."),
    ]
    wide = factories.project()
    rows = [{**pair, "gpt_result": one} for pair, one in zip(pairs, said, strict=True)]
    result = read(wide, jsonl(tmp_path / "wide", rows))
    assert (result["judges"], result["judgments"]) == (["gpt_result"], 12 + 3)


def test_command_and_form_take_the_names_of_judges(
    project: Project, tmp_path: Path, capsys: Any
) -> None:
    path = jsonl(tmp_path / "f", [row(1, winner="a", rater="J"), row(2, winner="a", rater="ann")])
    call_command("import_dataset", project.slug, str(path), "--judges", "J, K", "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["judgments"] == 2
    kinds = dict(Rater.objects.filter(project=project).values_list("name", "kind"))
    assert kinds == {"J": "judge", "ann": "imported"}
    form = ImportForm({"judges": "J, K", "labels": "auto"}, again=True)
    assert form.is_valid(), form.errors
    assert form.config()["options"]["judges"] == ["J", "K"]
    assert initial_of(form.config())["judges"] == "J, K"


def test_held_votes_do_not_train_unless_judges_are_asked_for(
    project: Project, tmp_path: Path
) -> None:
    rows = [row(1, winner="a", rater="J"), row(2, winner="a", rater="ann")]
    read(project, jsonl(tmp_path / "f", rows), options={"judges": ["J"]})
    for selection in (Selection(), Selection(raters="judges")):
        votes = [pair.votes for chunk in chunks(project, selection) for pair in chunk]
        assert sorted(votes) == [0, 1]
