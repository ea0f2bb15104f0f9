"""The health of a dataset: every figure against what was planted, the card read as machines do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import yaml
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from annotator.exporters import card as cards
from annotator.exporters import health as gathering
from annotator.exporters import health_figures as figures
from annotator.exporters import row_index
from annotator.models import (
    Assignment,
    AssignmentState,
    Judgment,
    Project,
    Prompt,
    Rater,
)
from annotator.queries import dataset_health
from annotator.services import deliveries
from models import vote_noise
from tests import factories
from tests.annotator.ballots import judged_pair, raters, task_of, vote
from tests.annotator.test_exports import rows_of, version_of

pytestmark = pytest.mark.django_db(transaction=True)


def health_of(project: Project, **options: Any) -> dict[str, Any]:
    return version_of(project, **options).manifest["health"]


def test_agreement_is_of_the_rows_and_of_everything_that_was_voted_on() -> None:
    project = factories.project()
    people = raters(project, 3)
    for _ in range(12):
        judged_pair(project, [1, 1, 1], by=people)
        judged_pair(project, [-1, 1, -1], by=people)
    judged_pair(project, [1], by=people)
    agreement = health_of(project, min_agreement=1.0, min_votes=2)["agreement"]
    rows, everything = agreement["rows"], agreement["all"]
    assert (rows["pairs"], rows["votes"], rows["single"]) == (12, 36, 0)
    assert (rows["alpha"]["value"], "all votes say the same" in rows["reason"]) == (None, True)
    assert rows["percent"]["value"] == 1
    assert (everything["pairs"], everything["single"], everything["votes"]) == (24, 1, 73)
    assert everything["percent"]["value"] == pytest.approx((1 + 1 / 3) / 2, abs=1e-3)
    low, high = everything["alpha"]["interval"]
    assert low < everything["alpha"]["value"] < high


def test_noise_is_told_from_repeated_votes_and_hard_recipes_do_not_hide_it() -> None:
    project = factories.project()
    people = raters(project, 2)
    for number in range(40):
        judged_pair(project, [1, -1 if number < 8 else 1], by=people)
    noise = health_of(project)["noise"]
    assert (noise["method"], noise["n"], noise["unit"]) == ("repeats", 40, "pairs")
    assert noise["per_vote"]["value"] == pytest.approx((1 - (1 - 0.4) ** 0.5) / 2, abs=1e-3)
    e = noise["per_vote"]["value"]
    assert noise["value"] == pytest.approx(1 / (1 + ((1 - e) / e) ** 2), abs=1e-3)
    low, high = noise["interval"]
    assert 0 < low < noise["value"] < high < 0.5
    assert health_of(project, min_agreement=1.0)["noise"]["per_vote"] == noise["per_vote"]


def test_noise_is_told_from_control_questions_where_there_are_enough() -> None:
    project = factories.project()
    people = raters(project, 2)
    judged_pair(project, [1, 1], by=people)
    for number in range(20):
        task = judged_pair(project, [1, 1], by=people, is_gold=True)
        Judgment.objects.filter(task=task).update(is_hit=True)
        if number < 6:
            Judgment.objects.filter(task=task, rater=people[0]).update(is_hit=False)
    health = health_of(project)
    noise = health["noise"]
    assert (noise["method"], noise["n"]) == ("golds", 40)
    assert noise["per_vote"]["value"] == pytest.approx(6 / 40)
    assert health["golds"] == {"pairs": 20, "votes": 40}


def test_noise_that_cannot_be_told_has_a_reason() -> None:
    project = factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    noise = health_of(project)["noise"]
    assert (noise["value"], noise["interval"]) == (None, None)
    assert "0 pairs with two votes" in noise["reason"]
    card = deliveries.path_of(version_of(project), "README.md").read_text()
    assert "Label noise cannot be told: fewer than 30 votes" in card


def test_noise_by_an_aggregator_is_what_it_leaves_to_the_other_answer() -> None:
    project = factories.project()
    judged_pair(project, [1, 1], by=raters(project, 2))
    noise = health_of(project, aggregator="dawid-skene", columns=["p_chosen"])["noise"]
    (row,) = rows_of(version_of(project, aggregator="dawid-skene", columns=["p_chosen"]))["train"]
    assert (noise["method"], noise["n"], noise["unit"]) == ("posterior", 1, "rows")
    assert noise["value"] == pytest.approx(1 - row["p_chosen"], abs=1e-3)


def compared(
    project: Project, by: Rater, winner: str, loser: str, *, of: Prompt | None = None, n: int = 0
) -> None:
    prompt = of or factories.prompt(project)
    first = factories.response(prompt, f"{n} by {winner}", generator=winner)
    second = factories.response(prompt, f"{n} by {loser} too", generator=loser)
    vote(task_of(prompt, first, second), by, 1)


def test_generators_win_as_often_as_they_do() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    for number in range(12):
        compared(project, rater, "big" if number < 9 else "small", "small" if number < 9 else "big")
    compared(project, rater, "big", "")
    compared(project, rater, "a | pipe\n# and a heading", "small")
    version = version_of(project)
    found = version.manifest["health"]["generators"]
    big = found["list"][0]
    assert (big["generator"], big["rows"], big["wins"]) == ("big", 13, 10.0)
    low, high = big["interval"]
    assert low < big["share"] < high
    assert big["share"] == pytest.approx(10 / 13, abs=1e-3)
    assert (found["unnamed"], found["same"], found["more"]) == (1, 0, 0)
    card = deliveries.path_of(version, "README.md").read_text()
    assert r"| a \| pipe # and a heading | 1 | 100.0 %" in card


def test_rows_of_one_prompt_are_counted_and_repeats_found() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    busy, calm = factories.prompt(project), factories.prompt(project)
    for number in range(7):
        judged_pair(project, [1], by=[rater], of=busy, texts=(f"a{number}", f"b{number}"))
    for of, one, other in ((busy, "same", "texts"), (calm, "texts", "same")):
        judged_pair(project, [1], by=[rater], of=of, texts=(one, other))
    first = factories.response(busy, "same", generator="x")
    second = factories.response(busy, "texts", generator="x")
    vote(task_of(busy, first, second), rater, 1)
    health = health_of(project)
    assert health["prompts_over"] == {"limit": 5, "prompts": 1, "rows": 9}
    assert health["duplicates"]["repeats"] == 1
    assert health["duplicates"]["elsewhere"] == 3
    assert health["duplicates"]["near"] is None
    assert "near_duplicates is 0" in health["duplicates"]["near_reason"]


def test_sources_golds_skips_and_leaks_are_counted() -> None:
    project = factories.project()
    (person,) = raters(project, 1, Rater.Kind.HUMAN)
    (robot,) = raters(project, 1, Rater.Kind.JUDGE, is_simulated=True)
    tagged = factories.prompt(project, tags=["code", "python", "code"])
    judged_pair(project, [1], by=[person], of=tagged)
    judged_pair(project, [1], by=[person], of=tagged)
    judged_pair(project, [1, 1], by=[person, robot])
    leaky = factories.prompt(project)
    answers = [
        factories.response(leaky, text, leak=leak) for text, leak in (("I", "GPT"), ("x", ""))
    ]
    task = task_of(leaky, *answers)
    vote(task, person, 1)
    Assignment.objects.create(
        project=project, task=task, rater=person, state=AssignmentState.SKIPPED, seed=1,
        shown_order=[0, 1], leased_at=timezone.now(), expires_at=timezone.now(),
        closed_at=timezone.now(), skip_reason="too long",
    )  # fmt: skip
    health = health_of(project)
    votes = {(one["kind"], one["is_simulated"]): one["votes"] for one in health["sources"]["votes"]}
    assert votes == {("human", False): 4, ("judge", True): 1}
    assert health["sources"]["tags"] == [
        {"tag": "code", "prompts": 1, "rows": 2},
        {"tag": "python", "prompts": 1, "rows": 2},
    ]
    assert health["sources"]["untagged"] == {"prompts": 2, "rows": 2}
    assert health["sources"]["imports"][0]["rows"] == 4
    assert health["skips"] == {
        "skips": 1, "tasks": 1, "reasons": [{"reason": "too long", "count": 1}],
    }  # fmt: skip
    assert (health["leaks"]["rows"], health["leaks"]["share"]) == (1, 0.25)


def test_read_in_blocks_of_two_the_health_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    project = factories.project()
    people = raters(project, 3)
    tags = [["code"], ["code", "ü \\ {%s} 🙂"], [], ["rare"], ["code", "rare"]]
    prompts = [
        factories.prompt(project, split=split, tags=tags[number % 5])
        for number, split in enumerate(["train", "validation", "test"] * 4)
    ]
    for number, prompt in enumerate(prompts):
        for _ in range(2 + number % 3):
            judged_pair(project, [1, (-1) ** number, 1], by=people, of=prompt)
    version_of(project)
    Prompt.objects.filter(pk=prompts[1].pk).update(split="test")  # as it was in that version not
    whole = health_of(project)
    for module, name, value in (
        (gathering, "AT_ONCE", 2),
        (row_index, "AT_ONCE", 2),
        (vote_noise, "PAIRS_AT_ONCE", 2),
        (dataset_health, "FEW", 0),
    ):
        monkeypatch.setattr(module, name, value)
    blocks = health_of(project)
    # The whole one is itself an earlier version by now.
    for found in (whole, blocks):
        del found["splits"]["compared"]
    assert blocks == whole
    assert [one["tag"] for one in whole["sources"]["tags"]] == ["code", "rare", "ü \\ {%s} 🙂"]
    assert whole["noise"]["value"] is not None
    assert whole["splits"]["earlier"][0]["examples"] == [prompts[1].pk]


def test_most_tags_are_those_of_the_rows_and_not_of_the_project() -> None:
    project = factories.project()
    people = raters(project, 1)
    for number in range(23):
        factories.prompt(project, tags=["elsewhere", f"else {number}"])
        judged_pair(project, [1], by=people, of=factories.prompt(project, tags=[f"t{number:02}"]))
    sources = health_of(project)["sources"]
    assert len(sources["tags"]) == 20
    assert sources["more_tags"] == 3
    assert all(one["tag"].startswith("t") for one in sources["tags"])


def test_a_prompt_that_stood_in_another_split_of_an_earlier_version_is_found() -> None:
    project = factories.project()
    people = raters(project, 1)
    prompts = [factories.prompt(project, split="test" if n else "train") for n in range(3)]
    for prompt in prompts:
        judged_pair(project, [1], by=people, of=prompt)
    first = version_of(project)
    assert first.manifest["health"]["splits"] == {
        "prompts": {"train": 1, "test": 2}, "shared": 0, "earlier": [], "compared": 0,
    }  # fmt: skip
    Prompt.objects.filter(pk=prompts[1].pk).update(split="train")
    splits = health_of(project)["splits"]
    assert splits["prompts"] == {"train": 2, "test": 1}
    assert splits["earlier"] == [{"version": 1, "prompts": 1, "examples": [prompts[1].pk]}]
    assert (splits["shared"], splits["compared"]) == (0, 1)


def test_lengths_are_told_as_counts_that_add_up() -> None:
    project = factories.project()
    people = raters(project, 1)
    for number in range(20):
        texts = "y" * (100 + number), "n" * (10 + number)
        judged_pair(project, [1], by=people, texts=texts)
    lengths = health_of(project)["lengths"]
    assert lengths["unit"] == "characters"
    assert len(lengths["edges"]) == len(lengths["chosen"]) + 1 == len(lengths["rejected"]) + 1
    assert (sum(lengths["chosen"]), sum(lengths["rejected"])) == (20, 20)
    assert lengths["median"] == {"chosen": 110, "rejected": 20}
    assert lengths["gap"] == {"mean": 90.0, "interval": [90.0, 90.0], "rows": 20}


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans()),
        min_size=1,
        max_size=50,
    )
)
def test_figures_of_any_lengths_are_whole(rows: list[tuple[int, int, bool]]) -> None:
    chosen, rejected = (np.array([row[n] for row in rows], dtype=np.int32) for n in (0, 1))
    groups = np.cumsum([row[2] for row in rows], dtype=np.int32)
    found = figures.lengths(chosen, rejected, groups)
    assert sum(found["chosen"]) == sum(found["rejected"]) == len(rows)
    assert found["edges"] == sorted(set(found["edges"]))
    per = figures.per_prompt(groups)
    assert per["prompts"] == len(np.unique(groups))
    again = figures.duplicates(chosen.astype(np.int64) % 3, groups)
    pairs = list(zip((chosen % 3).tolist(), groups.tolist(), strict=True))
    homes = {key: {group for other, group in pairs if other == key} for key, _ in pairs}
    assert again["elsewhere"] == sum(len(homes[key]) > 1 for key, _ in pairs)
    assert again["repeats"] == len(pairs) - len(set(pairs))


def test_the_card_reads_as_the_hub_reads_it_whatever_people_wrote() -> None:
    name = 'A "name": with\n--- \u2028 and\x7f: [yaml] 🪨'
    project = factories.project(name=name)
    judged_pair(project, [1], by=raters(project, 1))
    judged_pair(
        project, [1], by=raters(project, 1, "human"), of=factories.prompt(project, split="test")
    )
    version = version_of(
        project, licence="All rights: reserved | ours", consent="Raters agreed.\n---\n# Not a title"
    )
    text = deliveries.path_of(version, "README.md").read_text()
    head = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])
    features = head.pop("dataset_info")["features"]
    assert [one["name"] for one in features] == version.manifest["columns"]
    assert head == {
        "pretty_name": 'A "name": with --- and: [yaml] 🪨',
        "license": "other",
        "license_name": "All rights: reserved | ours",
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": "train.jsonl"},
                    {"split": "test", "path": "test.jsonl"},
                ],
            }
        ],
    }
    assert version.manifest["terms"]["consent"].startswith("Raters agreed.")
    assert "\n> Raters agreed.\n> ---\n> # Not a title\n" in text
    for heading in ("Load", "Columns", "Counts", "Before you train", "Checked", "Terms"):
        assert text.count(f"\n## {heading}\n") == 1


def test_a_known_licence_and_several_files_stand_in_the_header() -> None:
    names = {"train": ["a.parquet", "b.parquet"]}
    header = cards.header(names, {"prompt": "text"}, title="T", licence="CC-BY-4.0")
    head = yaml.safe_load(header.strip("-\n"))
    assert head["license"] == "cc-by-4.0"
    assert head["configs"][0]["data_files"] == [
        {"split": "train", "path": ["a.parquet", "b.parquet"]}
    ]
