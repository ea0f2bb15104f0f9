"""Imported verdicts of every kind: what the desk would have written, and again nothing twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from annotator.errors import Invalid
from annotator.kinds.base import kind as find_kind
from annotator.models import Judgment, Preference, Project, Prompt, Rater, Response, Task
from annotator.services import import_reading, import_undo
from annotator.services.judgments import as_verdict
from tests import factories
from tests.annotator.imported import counts, jsonl, last_run, read

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project(settings={"overlap": 2})


def check_edges(project: Project) -> int:
    """Every judgment has the edges that its kind derives from the verdict; how many there are."""
    options = project.options
    for judgment in Judgment.objects.filter(project=project).select_related("task"):
        ids = judgment.task.response_ids
        wanted = {
            (ids[edge.a], ids[edge.b], edge.outcome, edge.strength)
            for edge in find_kind(judgment.task.kind).edges(as_verdict(judgment), options=options)
        }
        found = Preference.objects.filter(judgment=judgment)
        assert wanted == set(found.values_list("a_id", "b_id", "outcome", "strength"))
        as_verdict(judgment).check(responses=len(ids))
    return Preference.objects.filter(project=project).count()


RANKED = {
    "prompt": "Which river is longest?",
    "responses": ["Nile", "Amazon", "Rhine", "Elbe"],
    "ranking": [1, 2, 2, None],
}
HELPSTEER = [
    {"prompt": "Why is the sky blue?", "response": text, "helpfulness": a, "correctness": b}
    for text, a, b in (("Scattering.", 4, 4), ("Paint.", 0, 0), ("Rayleigh.", 3, 4))
]
LONG = [
    {"item": item, "rater": rater, "value": value}
    for item, rater, value in (
        ("i1", "ann", 3),
        ("i2", "ann", 1),
        ("i1", "bo", 5),
        ("i2", "bo", 2),
    )
]


def test_ranked_row_becomes_one_ranking_with_its_ties(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [RANKED])
    result = read(project, path, format="ranked")
    assert (result["kinds"], result["judgments"]) == ({"ranking": 1}, 1)
    judgment = Judgment.objects.get(project=project)
    assert (judgment.ranks, judgment.strength) == ([1, 2, 2, 0], 1)
    assert (judgment.kind, judgment.rater.name) == ("imported", "imported")
    assert check_edges(project) == 3


def test_ranks_follow_the_kind_of_the_project_or_the_one_that_is_named(tmp_path: Path) -> None:
    row = {**RANKED, "ranking": [1, 2, 3, 4]}
    path = jsonl(tmp_path / "rows.jsonl", [row])
    for settings, options, kinds in (
        ({}, {}, {"pairwise": 6}),
        ({"kind": "ranking"}, {}, {"ranking": 1}),
        ({"kind": "rating"}, {}, {"ranking": 1}),
        ({}, {"kind": "best-worst"}, {"best-worst": 1}),
        ({"kind": "ranking"}, {"kind": "pairwise"}, {"pairwise": 6}),
    ):
        project = factories.project(settings=settings)
        assert read(project, path, format="responses", options=options)["kinds"] == kinds
        check_edges(project)
    with pytest.raises(Invalid) as error:
        read(factories.project(), path, format="responses", options={"kind": "rating"})
    assert "a ranking is no rating" in error.value.advice


def test_best_worst_needs_one_of_each(project: Project, tmp_path: Path) -> None:
    rows = [RANKED, {**RANKED, "ranking": [2, 2, 1, 3]}]
    result = read(
        project,
        jsonl(tmp_path / "rows.jsonl", rows),
        format="ranked",
        options={"kind": "best-worst"},
    )
    assert result["reasons"] == {"kind": 1}
    assert Judgment.objects.get(project=project).ranks == [2, 2, 1, 3]
    assert check_edges(project) == 5


def test_unjudged_responses_become_tasks_of_the_projects_kind(tmp_path: Path) -> None:
    row = {"prompt": "Name rivers.", "responses": [f"River {n}" for n in range(23)]}
    path = jsonl(tmp_path / "rows.jsonl", [row])
    for kind in ("ranking", "rating", "checklist", "best-worst"):
        project = factories.project(settings={"kind": kind})
        tasks = read(project, path)["tasks"]
        sizes = sorted(
            len(ids)
            for ids in Task.objects.filter(project=project, kind=kind).values_list(
                "response_ids", flat=True
            )
        )
        if kind == "ranking":
            assert Task.objects.filter(project=project, kind="pairwise").count() == tasks == 23
        else:
            assert (tasks, sizes) == (3, [7, 8, 8])
    two = jsonl(tmp_path / "two.jsonl", [{"prompt": "Name two.", "responses": ["A", "B"]}])
    project = factories.project(settings={"kind": "ranking"})
    assert read(project, two)["kinds"] == {"pairwise": 1}


def test_helpsteer_neighbors_become_one_rating_task(project: Project, tmp_path: Path) -> None:
    other = {**HELPSTEER[0], "prompt": "Another?"}
    path = jsonl(tmp_path / "rows.jsonl", [*HELPSTEER, HELPSTEER[0], other])
    result = read(project, path)
    assert result["format"] == "helpsteer"
    assert result["kinds"] == {"rating": 2}
    assert result["reasons"] == {"identical": 1}
    assert result["rows_known"] == 0
    judgment = Judgment.objects.get(project=project, task__prompt__messages__0__content="Why is"
                                    " the sky blue?")  # fmt: skip
    assert judgment.ratings == {"helpfulness": [4, 0, 3], "correctness": [4, 0, 4]}
    assert (judgment.ranks, judgment.strength) == ([1, 3, 2], 3)
    assert check_edges(project) == 3


def test_helpsteer_preference_strength_is_negative_for_the_first(
    project: Project, tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"Q{n}", "response_1": "one", "response_2": "two", "preference_strength": n}
        for n in (0, 1, 2)
    ]
    assert read(project, jsonl(tmp_path / "rows.jsonl", rows))["kinds"] == {"pairwise": 3}
    found = Preference.objects.filter(project=project).order_by("pk")
    assert list(found.values_list("outcome", "strength")) == [(0, 0), (-1, 1), (-1, 2)]


def test_rows_of_one_item_meet_wherever_they_stand(
    project: Project, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(import_reading, "CHUNK", 3)
    rows = [
        {"item": f"i{item}", "rater": f"r{rater}", "value": (item * rater) % 5 + 1}
        for item in range(12)
        for rater in range(7)
    ]
    random.Random(0).shuffle(rows)
    path = jsonl(tmp_path / "rows.jsonl", rows)
    result = read(project, path)
    assert result["format"] == "ratings-long"
    assert (result["tasks"], result["judgments"], result["lines"]) == (12, 84, 84)
    found = {
        (task.prompt.last_message, judgment.rater.name): judgment.ratings["value"][0]
        for judgment in Judgment.objects.filter(project=project).select_related("rater")
        for task in [Task.objects.select_related("prompt").get(pk=judgment.task_id)]
    }
    assert found == {(row["item"], row["rater"]): row["value"] for row in rows}
    before = counts(project)
    again = read(project, path)
    assert counts(project) == before
    assert (again["rows_known"], again["judgments"]) == (84, 0)


def test_second_answer_of_a_rater_is_refused_and_the_first_kept(
    project: Project, tmp_path: Path
) -> None:
    rows = [
        *LONG,
        {"item": "i1", "rater": "ann", "value": 1},
        {"item": "", "rater": "x", "value": 1},
    ]
    result = read(project, jsonl(tmp_path / "rows.jsonl", rows))
    assert result["reasons"] == {"rated-twice": 1, "no-item": 1}
    assert [bad["line"] for bad in result["bad_rows"]] == [6, 5]
    kept = Judgment.objects.get(project=project, rater__name="ann", ratings={"value": [3]})
    assert kept.task.prompt.last_message == "i1"


@pytest.mark.parametrize(
    ("given", "options", "kind", "said"),
    [
        (["yes", "no"], {}, "checklist", [1, 0]),
        (["1", "0"], {}, "checklist", [1, 0]),
        (["1", "0"], {"kind": "rating"}, "rating", [1, 0]),
        (["good", "bad"], {}, "checklist", [1, 0]),
        (["good", "bad"], {"values": {"good": 4, "bad": 1}}, "rating", [4, 1]),
        (["3", "0"], {}, "rating", [3, 0]),
    ],
)
def test_values_are_read_by_what_they_are(
    project: Project,
    tmp_path: Path,
    given: list[str],
    options: dict[str, Any],
    kind: str,
    said: list[int],
) -> None:
    rows = [{"item": f"i{n}", "rater": "ann", "value": value} for n, value in enumerate(given)]
    read(project, jsonl(tmp_path / "rows.jsonl", rows), options=options)
    found = Judgment.objects.filter(project=project, task__kind=kind).order_by("task_id")
    assert [next(iter(one.ratings.values()))[0] for one in found] == said
    check_edges(project)


def test_words_without_an_order_are_asked_about(project: Project, tmp_path: Path) -> None:
    rows = [{"item": "i", "rater": f"r{n}", "value": word} for n, word in enumerate("GPX")]
    with pytest.raises(Invalid, match="order cannot be known"):
        read(project, jsonl(tmp_path / "rows.jsonl", rows))
    assert counts(project)["Task"] == 0


def test_known_answers_are_kept_and_make_no_control_question(
    project: Project, tmp_path: Path
) -> None:
    read(project, jsonl(tmp_path / "rows.jsonl", LONG))
    golds = [{"item": "i1", "gold": 4}, {"item": "i2", "gold": 2}]
    how = {"format": "ratings-long", "options": {"mapping": {"item": ["item"], "gold": ["gold"]}}}
    # The known answers come alone, and name what was rated as the first file did.
    path = jsonl(tmp_path / "golds.jsonl", golds)
    result = read(project, path, **how)
    assert (result["golds"], result["tasks"], result["judgments"]) == (2, 0, 0)
    tasks = Task.objects.filter(project=project)
    assert {task.prompt.last_message: task.gold["ratings"] for task in tasks} == {
        "i1": {"gold": [4]},
        "i2": {"gold": [2]},
    }
    assert not tasks.filter(is_gold=True).exists()
    assert read(project, path, **how)["golds"] == 0


def test_votes_by_id_go_to_the_pair_of_that_id(project: Project, tmp_path: Path) -> None:
    pairs = [
        {"id": f"p{n}", "prompt": f"Q{n}", "response_a": "left", "response_b": "right"}
        for n in range(3)
    ]
    read(project, jsonl(tmp_path / "pairs.jsonl", pairs))
    votes = [
        {"pair_id": f"p{n}", "annotator": who, "winner": winner}
        for n, who, winner in ((0, "ann", "a"), (0, "bo", "b"), (2, "ann", "tie"), (7, "ann", "a"))
    ]
    path = jsonl(tmp_path / "votes.jsonl", votes)
    result = read(project, path)
    assert result["format"] == "votes-long"
    assert (result["tasks"], result["judgments"]) == (1, 4)  # p7 was made from its id
    said = {
        (judgment.task.prompt.external_id, judgment.rater.name): judgment.ranks
        for judgment in Judgment.objects.filter(project=project)
    }
    assert said == {
        ("p0", "ann"): [1, 2],
        ("p0", "bo"): [2, 1],
        ("p2", "ann"): [1, 1],
        ("p7", "ann"): [1, 2],
    }
    check_edges(project)
    again = read(project, path)
    assert (again["judgments"], again["rows_known"]) == (0, 4)


def test_votes_on_an_id_that_several_pairs_have_are_refused(
    project: Project, tmp_path: Path
) -> None:
    row = {"id": "p", "prompt": "Q", "responses": ["one", "two", "three"]}
    read(project, jsonl(tmp_path / "rows.jsonl", [row]))
    votes = [
        {"pair_id": "p", "annotator": "ann", "winner": "a"},
        {"pair_id": "q", "annotator": "ann", "winner": "b"},
    ]
    result = read(project, jsonl(tmp_path / "votes.jsonl", votes))
    assert result["reasons"] == {"ambiguous": 1}


def test_labels_only_asks_nobody(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", LONG)
    read(project, path, options={"people": "labels-only"})
    tasks = Task.objects.filter(project=project)
    assert set(tasks.values_list("overlap", "free")) == {(0, 0)}
    assert Judgment.objects.filter(project=project).count() == 4


def test_result_says_where_people_would_be_asked_something_else(
    project: Project, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", LONG)
    notes = read(project, path)["notes"]
    assert any("“value”" in note for note in notes)
    assert any("1 to 5" in note and "0 to 4" in note for note in notes)
    asked = factories.project(settings={"attributes": ["value"], "rating_low": 1, "rating_high": 5})
    assert read(asked, path)["notes"] == []


def test_undo_takes_back_verdicts_of_every_kind(project: Project, tmp_path: Path) -> None:
    for rows, how in (
        ([RANKED], {"format": "ranked"}),
        (HELPSTEER, {}),
        (LONG, {}),
    ):
        read(project, jsonl(tmp_path / "rows.jsonl", rows), **how)
        import_undo.undo(run=last_run(project), by=None)
    assert set(counts(project).values()) == {0}


def test_order_of_an_earlier_file_holds_for_later_verdicts(
    project: Project, tmp_path: Path
) -> None:
    turned = {**RANKED, "responses": RANKED["responses"][::-1], "ranking": [4, 3, 2, 1]}
    read(
        project, jsonl(tmp_path / "a.jsonl", [{**RANKED, "ranking": [1, 2, 3, 4]}]), format="ranked"
    )
    how = {"format": "ranked", "options": {"rater": "bo"}}
    assert read(project, jsonl(tmp_path / "b.jsonl", [turned]), **how)["tasks"] == 0
    assert set(map(tuple, Judgment.objects.values_list("ranks", flat=True))) == {(1, 2, 3, 4)}
    check_edges(project)


# Conversations ---------------------------------------------------------------------------------

TALK: dict[str, Any] = {
    "id": "talk",
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "replies": ["Hello!", "What?"], "chosen": 0},
        {"role": "user", "content": "A poem?"},
        {"role": "assistant", "content": "Sure: roses."},
        {"role": "user", "content": "Longer."},
        {"role": "assistant", "replies": ["R1", "R2", {"text": "R3", "model": "m"}], "chosen": 2},
    ],
}


def prompts_of(project: Project) -> Iterator[Prompt]:
    yield from Prompt.objects.filter(project=project).order_by("turn")


def test_each_turn_is_judged_on_exactly_what_was_said_before(
    project: Project, tmp_path: Path
) -> None:
    result = read(project, jsonl(tmp_path / "talks.jsonl", [TALK]))
    assert (result["format"], result["lines"]) == ("conversations", 1)
    first, second = prompts_of(project)
    said = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "A poem?"},
        {"role": "assistant", "content": "Sure: roses."},
        {"role": "user", "content": "Longer."},
    ]
    assert first.messages == said[:2]
    assert second.messages == said
    assert (first.turn, second.turn) == (1, 3)
    assert first.thread == second.thread != ""
    positions = (
        Task.objects.filter(project=project).order_by("pk").values_list("position", flat=True)
    )
    assert list(positions) == [1, 2, 3]
    texts = dict(Response.objects.filter(project=project).values_list("pk", "text"))
    edges = Preference.objects.filter(project=project)
    wins = {(edge.prompt_id, texts[edge.a_id if edge.outcome > 0 else edge.b_id]) for edge in edges}
    assert wins == {(first.pk, "Hello!"), (second.pk, "R3")}
    assert read(project, jsonl(tmp_path / "talks.jsonl", [TALK]))["rows_known"] == 1


def test_turns_take_the_projects_kind_and_their_own_ranks(tmp_path: Path) -> None:
    last = {**TALK["messages"][-1], "ranks": [2, 3, 1]}
    del last["chosen"]
    talk = {**TALK, "messages": [*TALK["messages"][:-1], last]}
    project = factories.project(settings={"kind": "ranking"})
    result = read(project, jsonl(tmp_path / "talks.jsonl", [talk]))
    assert result["kinds"] == {"pairwise": 1, "ranking": 1}
    assert Judgment.objects.get(project=project, task__kind="ranking").ranks == [2, 3, 1]
    check_edges(project)


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        ({"role": "assistant", "replies": ["a", "b"]}, "chosen"),
        ({"role": "assistant", "replies": ["a", "b"], "chosen": 5}, "chosen"),
        ({"role": "user", "replies": ["a", "b"], "chosen": 0}, "role"),
        ({"role": "assistant", "replies": [], "chosen": 0}, "no-responses"),
    ],
)
def test_unclear_turns_are_refused(
    project: Project, tmp_path: Path, turn: dict[str, Any], code: str
) -> None:
    bad = {"messages": [{"role": "user", "content": "Q"}, turn, {"role": "user", "content": "R"}]}
    result = read(project, jsonl(tmp_path / "talks.jsonl", [TALK, bad]))
    assert result["reasons"] == {code: 1}


def test_raters_of_imports_count_what_they_judged(project: Project, tmp_path: Path) -> None:
    read(project, jsonl(tmp_path / "rows.jsonl", LONG))
    assert dict(Rater.objects.filter(project=project).values_list("name", "judged")) == {
        "ann": 2,
        "bo": 2,
    }
