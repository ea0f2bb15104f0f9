"""What a recipe says holds to the letter: caps, margins, certainties, policy, refusals."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from annotator.errors import Invalid
from annotator.exporters.deciders import posterior
from annotator.exporters.files import open_file, verify
from annotator.exporters.health import Health
from annotator.exporters.pick_a_pic import PickAPic
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.types import Rendered, Shape
from annotator.exporters.verdicts import Decided, Verdict
from annotator.models import Project, Rater, RewardScore
from annotator.queries.datasets import rater_votes
from annotator.queries.pair_texts import PromptText, ResponseText
from annotator.queries.pairs import Pair, chunks
from annotator.queries.snapshot import snapshot
from annotator.services import exports
from annotator.services.dataset_versions import remove
from tests import factories
from tests.annotator.ballots import judged_pair, raters, task_of, vote
from tests.annotator.exported import built, rows_of
from tests.annotator.rewarding import make_model

pytestmark = pytest.mark.django_db(transaction=True)


def compared(project: Project, outcomes: dict[tuple[str, str], int]) -> dict[str, int]:
    """One prompt whose answers were compared once each; the ids of the answers."""
    (rater,) = raters(project, 1)
    prompt = factories.prompt(project)
    names = dict.fromkeys(name for pair in outcomes for name in pair)
    answers = {name: factories.response(prompt, name) for name in names}
    for (one, other), outcome in outcomes.items():
        vote(task_of(prompt, answers[one], answers[other]), rater, outcome, strength=2)
    return {name: answer.pk for name, answer in answers.items()}


def test_a_cap_counts_rows_and_a_tie_in_both_directions_is_two() -> None:
    project = factories.project()
    compared(project, {("a", "b"): 0, ("b", "c"): 1, ("a", "c"): 0})
    for most, out in ((1, 1), (2, 1), (3, 3), (4, 3), (5, 5)):
        version = built(project, "trl-preference", ties="both", max_per_prompt=most)
        counts = version.manifest["counts"]
        assert counts["out"] == out, most
        assert counts["in"] == counts["used"] + sum(counts["dropped"].values())
    soft = built(project, "trl-preference", ties="soft", max_per_prompt=2)
    assert soft.manifest["counts"]["out"] == 2


def test_the_best_keeps_its_ties_whichever_side_they_stand_on() -> None:
    project = factories.project()
    outcomes = {("best", f"tied {n}"): 0 for n in range(6)} | {("best", "lost"): 1}
    outcomes |= {("tied 0", "tied 1"): 0}
    compared(project, outcomes)
    version = built(project, "trl-preference", ties="soft", pairs="best-rest")
    pairs = [{row["chosen"], row["rejected"]} for row in rows_of(version)]
    met = [pair for pair in pairs if "best" in pair]
    assert len(met) == len(pairs) == 7


def test_a_tie_has_no_margin_and_what_overrules_votes_says_so() -> None:
    project = factories.project()
    people = raters(project, 3)
    judged_pair(project, [0, 0, 1], by=people, texts=("a", "b"))
    judged_pair(project, [0, 0, -1], by=people, texts=("c", "d"))
    task = judged_pair(project, [1, 1, 1], by=people, texts=("e", "f"))
    tied = built(project, "trl-preference", ties="both", margin_from="votes")
    assert sorted(row["margin"] for row in rows_of(tied)) == [0.0] * 4 + [1.0]
    assert tied.manifest["margin"] == {"from": "votes", "not_above_0": 4}
    model = make_model(project, 1)
    for pk, mean in zip(task.response_ids, (0.0, 1.0), strict=True):
        RewardScore.objects.create(project=project, response_id=pk, reward_model=model, mean=mean)
    asked: dict[str, Any] = {"decided_by": "reward-model", "reward_model": 1}
    for how, margin in (("votes", -1.0), ("strength", 0.0), ("reward", None)):
        version = built(project, "trl-preference", margin_from=how, **asked)
        (row,) = rows_of(version)
        assert row["chosen"] == "f"
        assert row["margin"] == margin if margin is not None else row["margin"] > 0
        assert version.manifest["margin"] == {
            "from": how, "not_above_0": int(margin is not None),
        }  # fmt: skip


def test_a_certainty_holds_for_votes_that_were_added_up() -> None:
    project = factories.project()
    people = raters(project, 5)
    prompt = factories.prompt(project)
    for number, outcomes in enumerate(([1, 1, 1], [-1])):
        one, other = (
            factories.response(prompt, text, generator=f"{text} {number}") for text in ("x", "y")
        )
        for rater, outcome in zip(people[3 * number :], outcomes, strict=False):
            vote(task_of(prompt, one, other) if rater in people[::3] else
                 prompt.tasks.order_by("-pk")[0], rater, outcome)  # fmt: skip
    for number in range(20):
        judged_pair(project, [1] * 5, by=people, texts=(f"a{number}", f"b{number}"))
    found = {
        least: built(
            project, "trl-preference", aggregator="dawid-skene", min_posterior=least
        ).manifest["counts"]
        for least in (0.7, 0.9)
    }
    assert found[0.7]["dropped"] == {"repeated": 1}
    assert found[0.9]["dropped"] == {"low_posterior": 1, "repeated": 1}


@pytest.mark.parametrize("asked", [{"min_votes": 2}, {"min_agreement": 0.6}])
def test_rules_of_votes_are_refused_where_votes_do_not_decide(asked: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="need decided_by=votes"):
        exports.read_options(
            "trl-preference", {"decided_by": "reward-model", "reward_model": 1, **asked}
        )


def test_the_manifest_tells_the_policy_that_was_followed() -> None:
    project = factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    plain = built(project, "trl-preference").manifest["policy"]
    other = built(
        project, "trl-preference", ties="both", both_bad="keep", aggregator="dawid-skene"
    ).manifest["policy"]
    assert plain["decided_by"].startswith("The answer with the most votes")
    assert plain["ties"].startswith("Left out")
    assert "Dawid-Skene" in other["decided_by"]
    assert other["ties"].startswith("Kept as two rows")
    assert "each direction" in " ".join(other["directions"].split())
    assert plain["both_bad"] != other["both_bad"]
    assert built(project, "judgments").manifest["policy"] == {}


def test_no_option_holds_a_null_character() -> None:
    project = factories.project()
    for key, options in (
        ("trl-preference", {"licence": "a\0b"}),
        ("trl-preference", {"consent": "\0"}),
        ("trl-preference", {"raters": "named", "rater_names": ["ok", "\0"]}),
        ("judgments", {"raters": "named", "rater_names": ["\0"]}),
    ):
        with pytest.raises(Invalid, match="null character"):
            exports.start(project=project, format=key, options=options, by=None)


def test_a_tie_of_pictures_chooses_neither() -> None:
    pair = Pair(1, 10, 11, 1, 1, 1, 1, 1, 3, 0, 0, 5, "train")
    a, b = (ResponseText(pk, "", None, None, picture=f"{pk}.png") for pk in (10, 11))
    for kind, side in (("tie", 0), ("win", 1)):
        verdict = Verdict("", True, 3, 0.333333, True, kind, 0.5)
        decided = Decided(0, pair, verdict, a, b, 0.0)
        form = PickAPic(ExportOptions(ties="soft"), Shape(has_images=True))
        one = Rendered(decided, form.answer(a), form.answer(b), {})
        (keyed,) = form.rows("a cat", PromptText(1, "a cat", "[]", None), [one])
        assert (keyed.a, keyed.b, keyed.side) == (10, 11, side)


def test_a_folder_that_two_remove_at_once_is_gone_for_both(tmp_path: Path) -> None:
    folder, failed = tmp_path / "dataset", []
    folder.mkdir()
    for number in range(3_000):
        (folder / str(number)).touch()
    start = threading.Barrier(2)

    def work() -> None:
        start.wait()
        try:
            remove(folder)
        except OSError as error:
            failed.append(error)

    both = [threading.Thread(target=work) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert not failed
    assert not folder.exists()


def test_health_is_gathered_in_few_bytes_a_row_whoever_decides() -> None:
    """Scores and aggregators are sure of every pair in another way; memory must not care."""
    rows, health = 60_000, Health()
    a, b = (ResponseText(pk, "text", None, None) for pk in (10, 11))
    tracemalloc.start()
    try:
        for first in range(0, rows, 1_000):
            health.add(
                [
                    Decided(
                        place,
                        Pair(place + 1, 10, 11, 1, 0, 0, 1, 0, 1, 0, 0, 5, "train"),
                        Verdict("", True, 1, 1.0, False, "win", 0.5 + place / rows / 2, 0.9),
                        a,
                        b,
                        1.0,
                    )
                    for place in range(first, first + 1_000)
                ]
            )
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / rows < 80
    told = health.as_dict()
    assert (told["rows_by_votes"], told["mean_agreement"]) == ({"1": rows}, 1.0)
    options = ExportOptions.model_validate({"aggregator": "dawid-skene"})
    noise = health.noise(options, golds=None)
    assert noise["value"] == pytest.approx(0.25, abs=0.001)


@pytest.mark.parametrize("container", ["jsonl", "jsonl.gz"])
def test_keys_that_anybody_chose_do_not_break_lines(tmp_path: Path, container: str) -> None:
    columns = {"judgment_id": "int", "ratings": "json"}
    rows = [{"judgment_id": n, "ratings": [{"judgment_id": 1}, {"judgment_id": 2}]} for n in (1, 2)]
    file = open_file(tmp_path, "train", columns, container=container)
    file.write(rows)
    file.write(rows[:1])
    (facts,) = file.close()
    assert verify(tmp_path, facts, columns, check=lambda: None) == [*rows, rows[0]]


def test_a_rater_left_out_meanwhile_counts_in_the_whole_build() -> None:
    project = factories.project()
    people = raters(project, 3)
    judged_pair(project, [1, 1, -1], by=people)
    asked = ExportOptions.model_validate({"aggregator": "dawid-skene"})

    def seen(connection: Any) -> tuple[list[int], list[int]]:
        read = chunks(project, asked.selection(), connection=connection)
        found = posterior(project, asked, connection=connection)
        return [pair.votes for some in read for pair in some], found.votes.tolist()

    with snapshot() as connection:
        assert seen(connection) == ([3], [3])
        Rater.objects.filter(pk=people[0].pk).update(is_excluded=True)
        assert seen(connection) == ([3], [3])
        assert sum(one.votes for one in rater_votes(
            project, asked.selection(), connection=connection
        )) == 3  # fmt: skip
    with snapshot() as connection:
        assert seen(connection) == ([2], [2])
