"""What a recipe makes of votes: ties, aggregators, rankings, caps, what decides; versions compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from annotator.errors import Invalid
from annotator.exporters import EXPORTERS, dry, preview, row_index
from annotator.exporters.per_prompt import cap, standing, take
from annotator.exporters.recipe import REASONS, SPLITS
from annotator.exporters.row_index import RECORD, compare
from annotator.exporters.trl import Options
from annotator.exporters.verdicts import Decided, Ledger, Verdict, is_first
from annotator.models import Project, Rater, RunState
from annotator.queries import datasets as queries
from annotator.queries.pair_texts import ResponseText
from annotator.queries.pairs import Pair, Selection
from annotator.services import deliveries, exports
from tests import factories
from tests.annotator.ballots import judged_pair, raters, task_of, vote
from tests.annotator.rewarding import give_scores, make_model
from tests.annotator.test_exports import build, rows_of, version_of

pytestmark = pytest.mark.django_db(transaction=True)


def train_rows(project: Project, **options: Any) -> list[dict[str, Any]]:
    return rows_of(version_of(project, **options))["train"]


# Ties -------------------------------------------------------------------------------------------


def test_a_tie_kept_as_a_soft_label_is_one_row_at_one_half() -> None:
    project = factories.project()
    people = raters(project, 2)
    judged_pair(project, [0, 0], by=people, texts=("same", "good"))
    judged_pair(project, [1, -1], by=people, texts=("one", "other"))
    judged_pair(project, [1, 1], by=people, texts=("won", "lost"))
    rows = train_rows(project, ties="soft", columns=["votes"])
    assert [row["p_chosen"] for row in rows] == [0.5, 0.5, 1.0], "the column comes with the ties"
    assert rows[2]["chosen"] == "won"


def test_a_tie_kept_in_both_directions_is_two_rows_that_mirror_each_other() -> None:
    project = factories.project()
    people = raters(project, 1)
    judged_pair(project, [0], by=people, texts=("a", "b"))
    judged_pair(project, [1], by=people, texts=("c", "d"))
    version = version_of(project, ties="both", columns=["margin", "response_ids"])
    rows = rows_of(version)["train"]
    assert [(row["chosen"], row["rejected"]) for row in rows[:2]] in (
        [("a", "b"), ("b", "a")],
        [("b", "a"), ("a", "b")],
    )
    assert [row["p_chosen"] for row in rows] == [0.5, 0.5, 1.0]
    assert (rows[0]["chosen_id"], rows[0]["rejected_id"]) == (
        rows[1]["rejected_id"],
        rows[1]["chosen_id"],
    )
    counts = version.manifest["counts"]
    assert (counts["in"], counts["used"], counts["out"]) == (2, 2, 3)


def test_which_side_of_a_tie_stands_first_leans_to_neither() -> None:
    first = sum(is_first(a, a + gap) for a in range(1, 400) for gap in (1, 2, 7))
    assert 0.45 < first / (399 * 3) < 0.55


# Aggregators ------------------------------------------------------------------------------------


def unreliable_crowd() -> tuple[Project, dict[str, int]]:
    """Two who are right and three who say the opposite of each other's truth at random."""
    project = factories.project()
    people = raters(project, 5)
    random = np.random.default_rng(0)
    truth = {}
    for number in range(60):
        right = 1 if number % 2 else -1
        noise = [int(one) for one in random.choice([1, -1], size=3)]
        task = judged_pair(
            project, [right, right, *noise], by=people, texts=(f"a{number}", f"b{number}")
        )
        truth[f"a{number}"] = right
        assert task.pk
    return project, truth


def test_dawid_skene_finds_the_raters_who_know_where_a_majority_does_not() -> None:
    project, truth = unreliable_crowd()

    def right(**options: Any) -> int:
        rows = train_rows(project, columns=["p_chosen"], **options)
        sides = [(row["chosen"], row["rejected"]) for row in rows]
        return sum(truth[min(pair)] == (1 if pair[0].startswith("a") else -1) for pair in sides)

    majority, weighed = right(), right(aggregator="dawid-skene")
    assert weighed == 60, "the oracle's count"
    assert majority < 58


def test_a_certainty_asked_for_drops_what_the_aggregator_doubts() -> None:
    project, _ = unreliable_crowd()
    people = list(project.raters.order_by("pk"))
    judged_pair(project, [0, 0, 0, 1, -1], by=people)
    sure = version_of(project, aggregator="dawid-skene", min_posterior=0.99)
    assert sure.manifest["counts"]["in"] == 61
    lowest = min(row["p_chosen"] for row in train_rows(
        project, aggregator="dawid-skene", min_posterior=0.99, columns=["p_chosen"]
    ))  # fmt: skip
    assert lowest >= 0.985
    with pytest.raises(Invalid, match="weighs raters"):
        exports.read_options("trl-preference", {"min_posterior": 0.9})


# What decides -----------------------------------------------------------------------------------


def scored_project() -> tuple[Project, dict[str, int]]:
    project = factories.project()
    people = raters(project, 1)
    ids, scores = {}, {}
    for name, outcome, (a, b) in (("x", 1, (2.0, 1.0)), ("y", 1, (0.0, 3.0)), ("z", 1, (1.0, 1.0))):
        task = judged_pair(project, [outcome], by=people, texts=(f"{name}1", f"{name}2"))
        first, second = task.response_ids
        ids |= {f"{name}1": first, f"{name}2": second}
        scores |= {first: a, second: b}
    judged_pair(project, [1], by=people, texts=("u1", "u2"))
    give_scores(make_model(project), scores)
    return project, ids


def test_a_reward_model_decides_instead_of_votes() -> None:
    project, _ = scored_project()
    version = version_of(project, decided_by="reward-model", reward_model=1, columns=["p_chosen"])
    rows = rows_of(version)["train"]
    assert [row["chosen"] for row in rows] == ["x1", "y2"]
    assert rows[0]["p_chosen"] == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-6)
    assert rows[1]["p_chosen"] == pytest.approx(1 / (1 + np.exp(-3.0)), abs=1e-6)
    assert version.manifest["counts"]["dropped"] == {"tie": 1, "no_score": 1}


def test_a_margin_can_be_shares_of_votes_or_standardized_rewards() -> None:
    project, _ = scored_project()
    people = list(project.raters.order_by("pk"))
    extra = raters(project, 3, "more")
    judged_pair(project, [1, 1, 1, -1], by=[*people, *extra], texts=("v1", "v2"))
    by_votes = train_rows(project, margin_from="votes", columns=["margin"])
    assert [row["margin"] for row in by_votes] == [1.0, 1.0, 1.0, 1.0, 0.5]
    rows = train_rows(project, margin_from="reward", reward_model=1, columns=["margin"])
    assert rows[0]["margin"] == pytest.approx(rows[0]["chosen_reward"] - rows[0]["rejected_reward"])
    assert rows[1]["margin"] < 0, "the votes chose what the model likes less"
    assert rows[3]["margin"] is None
    for bad in ({"margin_from": "reward"}, {"decided_by": "rubric"}):
        with pytest.raises(Invalid):
            exports.read_options("trl-preference", bad)


# Pairs of one prompt ----------------------------------------------------------------------------


def ranked(project: Project, k: int = 4) -> list[str]:
    """One prompt whose answers were compared pair by pair in their order; best first."""
    (rater,) = raters(project, 1)
    prompt = factories.prompt(project)
    answers = [factories.response(prompt, f"r{place}") for place in range(k)]
    for a in range(k):
        for b in range(a + 1, k):
            vote(task_of(prompt, answers[a], answers[b]), rater, 1, strength=min(3, b - a))
    return [one.text for one in answers]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ("all", 6),
        ("adjacent", {("r0", "r1"), ("r1", "r2"), ("r2", "r3")}),
        ("best-rest", {("r0", "r1"), ("r0", "r2"), ("r0", "r3")}),
        ("widest", {("r0", "r3")}),
    ],
)
def test_a_ranking_gives_the_pairs_that_are_asked_for(pairs: str, expected: Any) -> None:
    project = factories.project()
    ranked(project)
    version = version_of(project, pairs=pairs)
    rows = {(row["chosen"], row["rejected"]) for row in rows_of(version)["train"]}
    if isinstance(expected, set):
        assert rows == expected
        assert version.manifest["counts"]["dropped"] == {"ranking": 6 - len(expected)}
    else:
        assert len(rows) == expected


def test_a_cap_keeps_the_best_agreed_on() -> None:
    project = factories.project()
    people = raters(project, 3)
    prompt = factories.prompt(project)
    for number, outcomes in enumerate(([1, 1, -1], [1, 1, 1], [1])):
        pair = [factories.response(prompt, f"{side}{number}") for side in "ab"]
        task = task_of(prompt, *pair)
        for rater, outcome in zip(people, outcomes, strict=False):
            vote(task, rater, outcome)
    version = version_of(project, max_per_prompt=1)
    (row,) = rows_of(version)["train"]
    assert row["chosen"] == "a1", "three of three, before one of one"
    assert version.manifest["counts"]["dropped"] == {"capped": 2}


def decided(place: int, a: int, b: int, p: float) -> Decided:
    pair = Pair(1, min(a, b), max(a, b), 1, 0, 0, 1, 0, 1, 0, 0, 1, "train")
    chosen, rejected = (ResponseText(pk, f"t{pk}", None, None) for pk in (a, b))
    return Decided(place, pair, Verdict("", a < b, 1, 1.0, False, "win", p, p), chosen, rejected, 1)


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.floats(0.5, 1)), min_size=1, max_size=15
    ),
    st.sampled_from(["all", "adjacent", "best-rest", "widest"]),
    st.integers(0, 5),
)
def test_rules_of_a_prompt_choose_among_its_pairs_whatever_they_are(
    pairs: list[tuple[int, int, float]], rule: str, most: int
) -> None:
    some = [decided(n, a, b, p) for n, (a, b, p) in enumerate(pairs) if a != b]
    if not some:
        return
    flags = take(some, Options(pairs=rule))
    assert len(flags) == len(some)
    assert any(flags) or rule in ("best-rest", "adjacent")
    assert flags.count(True) == 1 or rule != "widest"
    kept = cap(some, most)
    assert kept.count(True) == (min(most, len(some)) if most else len(some))
    assert all(0 <= share <= 1 for share in standing(some).values())


# Without files ----------------------------------------------------------------------------------


def alike(project: Project, by: Rater) -> None:
    """A pair whose two answers, of two generators, read the same."""
    prompt = factories.prompt(project)
    same = [factories.response(prompt, "same", generator=name) for name in ("one", "two")]
    vote(task_of(prompt, *same), by, 1)


def small_world() -> Project:
    project = factories.project()
    people = raters(project, 3)
    for split in ("train", "validation", "test"):
        prompt = factories.prompt(project, split=split)
        judged_pair(project, [1, 1, -1], by=people, of=prompt, texts=("at length", "short"))
    judged_pair(project, [0], by=people)
    alike(project, people[0])
    return project


def test_a_build_without_files_counts_what_a_build_writes() -> None:
    project = small_world()
    options = Options()
    found = dry.dry_run(project, EXPORTERS["trl-preference"].load(), options)
    assert found.is_whole
    version = version_of(project)
    assert found.ledger.as_dict() == version.manifest["counts"]
    assert len(found.rows) == 3
    assert found.health["prompts"] == version.manifest["health"]["prompts"]


def test_a_sample_of_a_large_project_scales_to_all_its_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    for number in range(40):
        if number % 4 == 0:
            alike(project, rater)
        else:
            judged_pair(project, [1], by=[rater], texts=(f"a{number}", f"b{number}"))
    for _ in range(8):
        judged_pair(project, [0], by=[rater])
    monkeypatch.setattr(dry, "WHOLE", 10)
    monkeypatch.setattr(dry, "SAMPLE", 30)
    options = Options()
    found = dry.dry_run(project, EXPORTERS["trl-preference"].load(), options, seed=3)
    assert not found.is_whole
    assert 5 < found.ledger.pairs < 40
    kinds = queries.kinds(project, Selection())
    assert kinds is not None
    shown = preview.scaled(found, kinds, options, at=kinds.at)
    steps = {step.rule: step for step in shown.steps}
    assert (shown.total, steps["ties"].dropped) == (48, 8), "votes are counted, not sampled"
    assert not steps["ties"].is_about
    assert steps["texts"].is_about
    assert shown.total == shown.used + shown.dropped
    assert 2 <= steps["texts"].dropped <= 22, "ten of forty, from a sample"
    other = dry.dry_run(project, EXPORTERS["trl-preference"].load(), options, seed=4)
    assert other.rows != found.rows, "another seed shows other rows"


def test_the_page_shows_rows_and_health_and_other_rows_on_request(client: Any) -> None:
    project = small_world()
    client.force_login(factories.member(project, "owner"))
    address = reverse("export", kwargs={"slug": project.slug})
    sent = {"sent": "1", "format": "trl-preference", "seed": "2", "splits": list(SPLITS)}
    html = client.get(address, sent, headers={"HX-Request": "true"}).content.decode()
    assert "As they are written" in html
    assert "Chosen is longer" in html
    whole = client.get(
        address, sent, headers={"HX-Request": "true", "HX-Trigger-Name": "format"}
    ).content.decode()
    assert '<form id="recipe"' in whole, "another format brings its own options"


def test_a_recipe_that_cannot_be_built_is_said_beside_the_counts(client: Any) -> None:
    project = small_world()
    client.force_login(factories.member(project, "owner"))
    address = reverse("export", kwargs={"slug": project.slug})
    sent = {"sent": "1", "splits": list(SPLITS), "format": "trl-preference"}
    sent |= {"decided_by": "reward-model"}
    html = client.get(address, sent, headers={"HX-Request": "true"}).content.decode()
    assert "decided_by=reward-model needs a reward model" in html


# Comparing versions -----------------------------------------------------------------------------


def records(rows: list[tuple[int, int, int, int, int]]) -> Any:
    found = np.array(rows, dtype=RECORD)
    return found[np.lexsort((found["side"], found["b"], found["a"]))]


def test_versions_are_compared_by_what_their_rows_are_of() -> None:
    project = small_world()
    first = version_of(project)
    rater = raters(project, 2, "late")
    judged_pair(project, [1], by=rater)
    task = project.tasks.order_by("pk").first()
    for one in rater:
        vote(task, one, -1)
    second = version_of(project)
    old, new = (row_index.load(deliveries.folder_of(one)) for one in (first, second))
    assert old is not None
    assert new is not None
    found = compare(old, new)
    assert found.as_dict() == {"kept": 3, "added": 1, "removed": 0, "flipped": 1, "moved": 0}


@given(st.data())
def test_comparison_agrees_with_dictionaries(data: Any) -> None:
    row = st.tuples(
        st.integers(1, 6), st.integers(1, 6), st.just(1), st.sampled_from([1, -1]),
        st.integers(0, 2),
    )  # fmt: skip
    unique = st.lists(row, max_size=20, unique_by=lambda one: one[:2])
    older, newer = data.draw(unique), data.draw(unique)
    found = compare(records(older), records(newer))
    old, new = ({one[:2]: one for one in rows} for rows in (older, newer))
    both = set(old) & set(new)
    assert found.kept == len(both)
    assert found.added == len(set(new) - both)
    assert found.removed == len(set(old) - both)
    assert found.flipped == sum(old[key][3] != new[key][3] for key in both)
    assert found.moved == sum(old[key][4] != new[key][4] for key in both)


def test_the_ledger_adds_up_or_says_so() -> None:
    ledger = Ledger()
    ledger.keep("train", 2, rows=3)
    ledger.drop("tie")
    assert ledger.as_dict()["in"] == 3
    ledger.pairs += 1
    with pytest.raises(ValueError, match="do not add up"):
        ledger.as_dict()
    with pytest.raises(ValueError, match="unknown reason"):
        ledger.drop("whim")
    assert next(iter(REASONS)) == "no_votes"


def test_negatives_are_refused_where_a_format_has_no_place_for_them() -> None:
    project = small_world()
    with pytest.raises(Invalid, match="unpaired"):
        exports.start(
            project=project, format="trl-preference", options={"both_bad": "negatives"}, by=None
        )
    assert build(project).state == RunState.DONE
