"""Every format of pairs writes what its readers document, and counts what it cannot hold."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest

from annotator.errors import Invalid
from annotator.exporters import EXPORTERS
from annotator.exporters.unpaired import LEAST, MOST, balance
from annotator.models import Project, RunState
from annotator.services import deliveries, exports
from tests import factories
from tests.annotator.ballots import judged_pair, raters, task_of, vote
from tests.annotator.exported import built, chat, rows_by_split, rows_of, run_of, said
from tests.annotator.rewarding import give_scores, make_model

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project()


def ranked(project: Project, *outcomes: tuple[int, int], texts: list[str], **fields: Any) -> Any:
    """A prompt with answers, and votes (winner, loser) by place; (-x, y) is a tie of x - 1 and y."""
    (rater,) = raters(project, 1, factories.digest(str(outcomes)).hex()[:8])
    prompt = factories.prompt(project, **fields)
    answers = [
        factories.response(prompt, text, generator=f"g{place}") for place, text in enumerate(texts)
    ]
    for winner, loser in outcomes:
        is_tie = winner < 0
        first = -winner - 1 if is_tie else winner
        vote(task_of(prompt, answers[first], answers[loser]), rater, 0 if is_tie else 1)
    return prompt, answers


# TRL ------------------------------------------------------------------------------------------


def test_implicit_texts_begin_with_the_prompt(project: Project) -> None:
    turns = [{"role": "system", "content": ""}, *chat("hello", "hi", "and now?")]
    prompt = factories.prompt(project, messages=turns)
    judged_pair(project, [1], by=raters(project, 1), of=prompt, texts=("yes", "no"))
    (row,) = rows_of(built(project, "trl-preference-implicit"))
    assert (row["chosen"], row["rejected"]) == (turns + said("yes"), turns + said("no"))
    assert "prompt" not in row
    (row,) = rows_of(built(project, "trl-preference-implicit", style="explicit-standard"))
    assert row["chosen"].endswith("\n\nHuman: and now?\n\nAssistant: yes")


def test_implicit_plain_texts_show_where_the_prompt_ends(project: Project) -> None:
    prompt = factories.prompt(project, "2 + 2")
    judged_pair(project, [1], by=raters(project, 1), of=prompt, texts=("4", "5"))
    (row,) = rows_of(built(project, "trl-preference-implicit", style="explicit-standard"))
    assert row["chosen"] == "\n\nHuman: 2 + 2\n\nAssistant: 4"
    (row,) = rows_of(built(project, "trl-preference-implicit"))
    assert row["chosen"] == chat("2 + 2", "4")


def test_reward_rows_always_have_a_margin(project: Project) -> None:
    (rater,) = raters(project, 1)
    task = judged_pair(project, [1], by=[rater], texts=("good", "bad"))
    other = judged_pair(project, [1], by=[rater], texts=("fine", "poor"))
    rows = rows_of(built(project, "trl-reward", columns=[]))
    assert [list(row) for row in rows] == [["chosen", "rejected", "margin"]] * 2
    assert [row["margin"] for row in rows] == [1.0, 1.0]
    model = make_model(project)
    scores = dict(zip([*task.response_ids, other.response_ids[0]], (2.0, 0.0, 1.0), strict=True))
    give_scores(model, scores)
    version = built(project, "trl-reward", reward_model=1, margin_from="reward")
    (row,) = rows_of(version)
    assert row["margin"] == pytest.approx(row["chosen_reward"] - row["rejected_reward"])
    assert version.manifest["counts"]["dropped"] == {"no_score": 1}


def test_prompts_come_once_each_and_stay_in_their_split(project: Project) -> None:
    ranked(project, (0, 1), (1, 2), texts=["a", "b", "c"], text="first?")
    ranked(project, (0, 1), texts=["a", "b"], text="second?", split="test")
    version = built(project, "trl-prompt-only", columns=[])
    assert rows_by_split(version) == {
        "train": [{"prompt": "first?"}],
        "test": [{"prompt": "second?"}],
    }
    counts = version.manifest["counts"]
    assert (counts["in"], counts["used"], counts["out"]) == (3, 3, 2)


def test_an_answer_is_desirable_where_it_won_more_than_it_lost(project: Project) -> None:
    ranked(project, (0, 1), (1, 2), (0, 2), texts=["best", "middle", "worst"])
    version = built(project, "trl-unpaired")
    rows = {row["completion"]: row for row in rows_of(version)}
    assert {text: row["label"] for text, row in rows.items()} == {"best": True, "worst": False}
    assert (rows["best"]["wins"], rows["best"]["losses"]) == (2, 0)
    told = version.manifest["health"]["completions"]
    assert told == {"desirable": 1, "undesirable": 1, "even": 1, "mixed": 0}


def test_mixed_answers_are_decided_by_net_wins_or_left_out(project: Project) -> None:
    votes = [(0, 1), (0, 2), (3, 0), (1, 3), (2, 3)]
    ranked(project, *votes, texts=["two to one", "even", "even too", "one to two"])
    labels = {row["completion"]: row["label"] for row in rows_of(built(project, "trl-unpaired"))}
    assert labels == {"two to one": True, "one to two": False}
    run = run_of(project, "trl-unpaired", mixed="drop")
    assert run.state == RunState.FAILED
    assert "won as often as they lost" in run.advice


def test_one_text_of_two_generators_is_one_completion(project: Project) -> None:
    ranked(project, (0, 1), (2, 3), texts=["same", "poor", "good", "same"])
    rows = rows_of(built(project, "trl-unpaired"))
    assert {row["completion"]: row["label"] for row in rows} == {"poor": False, "good": True}


def test_answers_that_are_both_bad_are_undesirable_where_asked(project: Project) -> None:
    people = raters(project, 3)
    judged_pair(project, [1], by=people, texts=("good", "poor"))
    bad = factories.pairwise_task(project, texts=("awful", "dreadful"))
    for rater, outcome in zip(people, (0, 0, 1), strict=True):
        vote(bad, rater, outcome, both_bad=outcome == 0)
    version = built(project, "trl-unpaired", both_bad="negatives")
    assert {row["completion"]: row["label"] for row in rows_of(version)} == {
        "good": True,
        "poor": False,
        "awful": False,
        "dreadful": False,
    }
    assert version.manifest["counts"]["dropped"] == {}
    assert built(project, "trl-unpaired").manifest["counts"]["dropped"] == {"both_bad": 1}
    with pytest.raises(Invalid, match="unpaired"):
        exports.start(project=project, format="nemo", options={"both_bad": "negatives"}, by=None)


@pytest.mark.parametrize(
    ("desirable", "undesirable"), [(1, 1), (4, 3), (5, 3), (1, 9), (9, 1), (1, 10**6), (7, 8)]
)
def test_weights_bring_both_kinds_into_balance(desirable: int, undesirable: int) -> None:
    found = balance(desirable, undesirable)
    assert found is not None
    ratio = found.desirable_weight * desirable / (found.undesirable_weight * undesirable)
    assert LEAST <= ratio <= MOST
    assert math.isclose(ratio, found.ratio, abs_tol=1e-3)
    assert 1 in (found.desirable_weight, found.undesirable_weight)


def test_balance_is_in_manifest_card_and_the_lines_that_train(project: Project) -> None:
    ranked(project, (0, 1), (0, 2), (0, 3), texts=["good", "b", "c", "d"])
    version = built(project, "trl-unpaired")
    told = version.manifest["health"]["balance"]
    assert told["undesirable_weight"] == 1
    assert told["desirable_weight"] == pytest.approx(3.5)
    card = (deliveries.folder_of(version) / "README.md").read_text()
    assert "KTOConfig(desirable_weight=3.5)" in card
    assert "1 desirable and 3 undesirable rows" in card


# Lists ----------------------------------------------------------------------------------------


def test_lists_are_best_first_with_ties_and_rewards(project: Project) -> None:
    _, answers = ranked(
        project, (1, 0), (2, 0), (-2, 2), texts=["worst", "good", "good too"], text="q?"
    )
    model = make_model(project)
    give_scores(model, {answers[0].pk: -1.0, answers[1].pk: 1.0})
    version = built(project, "ranked-lists", ties="soft", reward_model=1)
    (row,) = rows_of(version)
    assert row["prompt"] == "q?"
    assert row["responses"] == ["good", "good too", "worst"]
    assert row["ranks"] == [1, 1, 2]
    assert row["rewards"][0] == pytest.approx(-row["rewards"][2])
    assert row["rewards"][1] is None
    assert row["response_ids"] == [answers[place].pk for place in (1, 2, 0)]
    assert version.manifest["health"]["lists"] == {
        "answers": 3,
        "with_ties": 1,
        "unscored_answers": 1,
    }
    assert "rewards" not in rows_of(built(project, "ranked-lists"))[0]


def test_a_cycle_of_votes_is_a_tie(project: Project) -> None:
    ranked(project, (0, 1), (1, 2), (2, 0), texts=["a", "b", "c"])
    (row,) = rows_of(built(project, "ranked-lists", style="explicit-conversational"))
    assert row["ranks"] == [1, 1, 1]
    assert sorted(answer[0]["content"] for answer in row["responses"]) == ["a", "b", "c"]


# OpenAI, LLaMA-Factory, OpenRLHF, NeMo --------------------------------------------------------


def check_openai(row: dict[str, Any]) -> None:
    """What the documentation of OpenAI and Azure asks of a line."""
    assert set(row) == {"input", "preferred_output", "non_preferred_output"}
    assert set(row["input"]) <= {"messages", "tools", "parallel_tool_calls"}
    assert isinstance(row["input"].get("tools", []), list)
    assert isinstance(row["input"].get("parallel_tool_calls", True), bool)
    messages = row["input"]["messages"]
    assert messages, "a prompt"
    assert messages[-1]["role"] != "assistant", "the answer is not part of the input"
    for message in [*messages, *row["preferred_output"], *row["non_preferred_output"]]:
        assert set(message) == {"role", "content"}
        assert message["role"] in {"system", "user", "assistant", "tool"}
        assert isinstance(message["content"], str)
        assert message["content"].strip()
    for output in (row["preferred_output"], row["non_preferred_output"]):
        assert [message["role"] for message in output] == ["assistant"]
    assert row["preferred_output"] != row["non_preferred_output"]


def test_openai_lines_pass_its_checks_and_others_are_counted(project: Project) -> None:
    (rater,) = raters(project, 1)

    def pair(*texts: str, messages: list[dict[str, str]] | None = None) -> None:
        prompt = factories.prompt(project, messages=messages) if messages else None
        judged_pair(project, [1], by=[rater], of=prompt, texts=(texts[0], texts[1]))

    system = {"role": "system", "content": "be brief 🪨"}
    pair("ja", "nein", messages=[system, *chat("hé", "ok", "und?")])
    pair("yes", "no", messages=[{"role": "system", "content": " "}, *chat("q?")])
    pair(" ", "something")
    pair("a", "b", messages=chat("ends with", "an answer"))
    pair("a", "b", messages=[*chat("q", "calls"), {"role": "tool", "content": "{}"}])
    pair("a", "b", messages=chat("q", " ", "empty before"))
    long = factories.prompt(project)
    reply = factories.response(long, "x", messages=[*said("wait"), *chat("what?", "done")])
    vote(task_of(long, reply, factories.response(long, "y")), rater, 1)
    version = built(project, "openai-preference")
    rows = rows_of(version)
    for row in rows:
        check_openai(row)
    assert rows[0] == {
        "input": {
            "messages": [system, *chat("hé", "ok", "und?")],
            "tools": [],
            "parallel_tool_calls": True,
        },
        "preferred_output": said("ja"),
        "non_preferred_output": said("nein"),
    }
    assert [row["input"]["messages"] for row in rows[1:]] == [chat("q?")]
    assert version.manifest["counts"]["dropped"] == {"not_representable": 5}


def test_prompts_that_differ_in_an_empty_system_message_are_one_prompt(project: Project) -> None:
    (rater,) = raters(project, 1)
    empty = {"role": "system", "content": ""}
    for messages, split in (([empty, *chat("q?")], "train"), (chat("q?"), "test")):
        prompt = factories.prompt(project, messages=messages, split=split)
        judged_pair(project, [1], by=[rater], of=prompt)
    for key in ("openai-preference", "llama-factory"):
        version = built(project, key)
        assert list(rows_by_split(version)) == ["test"], key
        assert version.manifest["counts"]["dropped"] == {"same_prompt": 1}
    assert built(project, "trl-preference").rows == 2


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_llama_factory_reads_the_folder_as_it_is(project: Project, container: str) -> None:
    (rater,) = raters(project, 1)
    system = {"role": "system", "content": "be brief"}
    one = factories.prompt(project, messages=[system, *chat("a", "b", "c")])
    two = factories.prompt(project, messages=chat("d", "e"), split="test")
    three = factories.prompt(project, "plain", split="test")
    for prompt in (one, two, three):
        judged_pair(project, [1], by=[rater], of=prompt, texts=("yes", "no"))
    version = built(project, "llama-factory", container=container, columns=[])
    rows = rows_by_split(version)
    assert rows["train"] == [
        {
            "conversations": [
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
                {"from": "human", "value": "c"},
            ],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
            "system": "be brief",
        }
    ]
    assert [row["system"] for row in rows["test"]] == [""]
    assert version.manifest["counts"]["dropped"] == {"not_representable": 1}
    info = orjson.loads(deliveries.path_of(version, "dataset_info.json").read_bytes())
    assert info["touchstone_train"] == {
        "file_name": f"train.{container}",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {
            "messages": "conversations",
            "chosen": "chosen",
            "rejected": "rejected",
            "system": "system",
        },
    }
    for entry in info.values():
        assert deliveries.path_of(version, entry["file_name"]).is_file()
        named = set(entry["columns"].values())
        assert all(named <= set(row) for some in rows.values() for row in some)


def test_openrlhf_rows_have_a_margin_beside_the_named_keys(project: Project) -> None:
    judged_pair(project, [1], by=raters(project, 1), texts=("good", "bad"))
    version = built(project, "openrlhf", columns=[])
    (row,) = rows_of(version)
    assert list(row) == ["prompt", "chosen", "rejected", "margin"]
    card = (deliveries.folder_of(version) / "README.md").read_text()
    for name in ("prompt", "chosen", "rejected"):
        assert f'"--{name}_key", "{name}"' in card


def test_nemo_rows_have_its_keys_and_defaults_or_real_rewards(project: Project) -> None:
    people = raters(project, 1)
    prompt = factories.prompt(project, "q?")
    task = judged_pair(project, [1], by=people, of=prompt, texts=("good", "bad"))
    judged_pair(project, [0], by=people, texts=("one", "other"))
    row, tie = rows_of(built(project, "nemo", ties="soft"))
    assert row == {
        "prompt": "q?",
        "chosen_response": "good",
        "rejected_response": "bad",
        "chosen_reward": 1.0,
        "rejected_reward": 0.0,
    }
    assert (tie["chosen_reward"], tie["rejected_reward"]) == (0.5, 0.5)
    model = make_model(project)
    give_scores(model, dict(zip(task.response_ids, (3.0, 1.0), strict=True)))
    version = built(project, "nemo", ties="soft", reward_model=1)
    (row,) = rows_of(version)
    assert row["chosen_reward"] == pytest.approx(-row["rejected_reward"])
    assert version.manifest["counts"]["dropped"] == {"no_score": 1}


def test_nemo_marks_are_those_of_its_documentation(project: Project) -> None:
    prompt = factories.prompt(project, "Which year was the Magna Carta signed?")
    judged_pair(project, [1], by=raters(project, 1), of=prompt, texts=("1215", "I refuse."))
    (row,) = rows_of(built(project, "nemo", template="extra-id"))
    assert row["prompt"] == (
        "<extra_id_0>System\n\n<extra_id_1>User\nWhich year was the Magna Carta signed?\n"
        "<extra_id_1>Assistant\n"
    )
    assert row["chosen_response"] == "1215\n<extra_id_1>"


# Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "options", "said"),
    [
        ("openai-preference", {"ties": "soft"}, "leave ties=drop"),
        ("openai-preference", {"container": "parquet"}, "container"),
        ("pick-a-pic", {"ties": "both"}, "ties=soft"),
        ("ranked-lists", {"rubric": "R:v1", "rubric_reward": "binary"}, "raw rewards"),
        ("nemo", {"container": "csv"}, "container"),
        ("judgments", {"container": "csv"}, "container"),
        ("trl-preference", {"container": "csv", "style": "explicit-conversational"}, "CSV holds"),
        ("trl-preference-implicit", {"container": "csv"}, "CSV holds"),
        ("ranked-lists", {"container": "csv"}, "responses, ranks"),
        ("pick-a-pic", {}, "this project has answers that are texts"),
    ],
)
def test_what_a_format_cannot_be_is_refused_before_it_begins(
    project: Project, format: str, options: dict[str, Any], said: str
) -> None:
    judged_pair(project, [1], by=raters(project, 1))
    with pytest.raises(Invalid, match=said):
        exports.start(project=project, format=format, options=options, by=None)


TEXTUAL = [
    key for key, method in EXPORTERS.items() if getattr(method.load(), "reads", "") == "text"
]


@pytest.mark.parametrize("format", TEXTUAL)
def test_a_project_of_pictures_is_refused_by_formats_of_texts(format: str) -> None:
    project = factories.project(modality="image")
    with pytest.raises(Invalid, match="has answers that are pictures"):
        exports.start(project=project, format=format, options={}, by=None)


def test_an_answer_of_several_messages_ends_a_csv_in_words(project: Project) -> None:
    (rater,) = raters(project, 1)
    prompt = factories.prompt(project)
    reply = factories.response(prompt, "x", messages=[*said("wait"), *chat("what?", "done")])
    vote(task_of(prompt, reply, factories.response(prompt, "y")), rater, 1)
    run = run_of(project, "trl-preference", container="csv")
    assert run.state == RunState.FAILED
    assert "CSV holds texts and numbers" in run.error
    assert built(project, "trl-preference", container="csv", style="explicit-standard").rows == 1
