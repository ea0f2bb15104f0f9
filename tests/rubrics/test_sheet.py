"""A sheet of scores: written and read again, and what is counted from it."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubrics.sheet import Sheet, accuracy, contributions, difference, held_accuracy, redundancy
from rubrics.sheet_figures import Weighed, figures


def sheet_of(scores: np.ndarray, *, held: int = 0, **more: object) -> Sheet:
    """One pair per prompt; the last ``held`` take no part in fitting. scores (n, 2, k)."""
    n, _, k = scores.shape
    ids = np.arange(n)
    return Sheet(
        criteria=np.arange(k) + 10,
        prompts=ids,
        chosen=ids + 100,
        rejected=ids + 200,
        votes_for=np.ones(n, dtype=np.int64),
        votes=np.ones(n, dtype=np.int64),
        is_held=ids >= n - held,
        scores=scores.astype(np.float32),
        **more,
    )


def pairs(differences: list[list[float]], *, held: int = 0) -> Sheet:
    """From differences (n, k) in -1..1 the scores of both sides."""
    given_ = np.array(differences, dtype=np.float32)
    return sheet_of(np.stack([(1 + given_) / 2, (1 - given_) / 2], axis=1), held=held)


@st.composite
def sheets(draw: st.DrawFn) -> Sheet:
    n, k = draw(st.integers(0, 12)), draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.random((n, 2, k))
    scores[rng.random(scores.shape) < 0.2] = np.nan
    one = sheet_of(
        scores,
        held=draw(st.integers(0, n)),
        others={"judge.rubric": rng.normal(size=n).astype(np.float32)},
        orders={"judge": rng.random((n, 2)).astype(np.float32)},
    )
    return one.only(rng.permutation(n))


def same(one: object, other: object) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True))


@given(sheets())
def test_sheet_is_read_again_as_it_was(sheet: Sheet) -> None:
    again = Sheet.from_bytes(sheet.to_bytes())
    for name in ("criteria", "prompts", "chosen", "rejected", "votes_for", "votes", "is_held"):
        assert same(getattr(again, name), getattr(sheet, name)), name
    assert same(again.scores, sheet.scores)
    assert again.scores.dtype == np.float32
    assert set(again.others) == {"judge.rubric"}
    assert same(again.others["judge.rubric"], sheet.others["judge.rubric"])
    assert same(again.orders["judge"], sheet.orders["judge"])
    assert again.to_bytes() == sheet.to_bytes()


@given(st.binary(max_size=300))
def test_bytes_that_are_no_sheet_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Sheet.from_bytes(data)


def test_archives_that_are_no_sheet_are_refused() -> None:
    target = io.BytesIO()
    np.savez_compressed(target, criteria=np.arange(3))
    with pytest.raises(ValueError, match="no sheet"):
        Sheet.from_bytes(target.getvalue())
    whole = pairs([[1.0], [0.5]]).to_bytes()
    with pytest.raises(ValueError, match="no sheet"):
        Sheet.from_bytes(whole[: len(whole) // 2])
    target = io.BytesIO()
    np.save(target, np.arange(3))
    with pytest.raises(ValueError, match="no sheet"):
        Sheet.from_bytes(target.getvalue())


@given(sheets())
def test_learned_and_held_out_pairs_part_the_sheet(sheet: Sheet) -> None:
    held, learned = sheet.held(), sheet.learned()
    assert len(held.prompts) + len(learned.prompts) == len(sheet.prompts)
    assert not set(held.prompts.tolist()) & set(learned.prompts.tolist())
    assert held.is_held.all()
    assert not learned.is_held.any()


@given(sheets(), st.floats(1e-3, 1e3))
def test_accuracy_hangs_on_no_scale_and_turns_with_the_sign(sheet: Sheet, scale: float) -> None:
    weights = np.linspace(-1.0, 2.0, len(sheet.criteria))
    found = accuracy(sheet, sheet.margins(weights))
    scaled = accuracy(sheet, sheet.margins(scale * weights))
    turned = accuracy(sheet, sheet.margins(-weights))
    if found is None:
        assert not len(sheet.prompts)
        return
    assert scaled is not None
    assert turned is not None
    assert (found.accuracy, found.ties) == (scaled.accuracy, scaled.ties)
    assert found.accuracy + turned.accuracy + found.ties / found.n == pytest.approx(1.0)


def test_even_pair_is_wrong_and_what_was_not_asked_is_left_out() -> None:
    sheet = pairs([[1.0], [0.0], [-1.0], [1.0]])
    found = accuracy(sheet, [0.4, 0.0, -0.2, np.nan])
    assert found is not None
    assert (found.accuracy, found.n, found.ties) == (pytest.approx(1 / 3), 3, 1)
    assert accuracy(sheet, [np.nan] * 4) is None


def test_equal_sums_are_even_whatever_is_left_in_floating_point() -> None:
    scores = np.array([[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]])
    assert sheet_of(scores).margins([1.0, 1.0, 1.0]).tolist() == [0.0]
    assert sheet_of(scores).margins([1e6, 1e6, 1e6]).tolist() == [0.0]
    assert sheet_of(scores).margins([1e-9, 0.0, 0.0])[0] < 0


def test_accuracy_of_what_is_accepted_so_far_is_of_held_out_pairs_alone() -> None:
    # The first criterion is always right on what was learned from and never on what was not.
    sheet = pairs([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.6], [-1.0, 0.6]], held=2)
    one, other = held_accuracy(sheet, {10: 1.0}), held_accuracy(sheet, {11: 1.0})
    both = held_accuracy(sheet, {10: 0.5, 11: 1.0})
    assert one is not None
    assert other is not None
    assert both is not None
    assert (one.accuracy, other.accuracy, both.accuracy) == (0.0, 1.0, 1.0)
    assert one.n == 2
    with pytest.raises(KeyError):
        held_accuracy(sheet, {99: 1.0})


def test_contribution_is_what_is_lost_without_a_criterion() -> None:
    held = [[1.0, 0.0, 0.2], [1.0, 0.0, -0.2], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    weights = {10: 1.0, 11: 5.0, 12: 0.5}
    found = contributions(pairs(held, held=4), weights)
    assert {pk: one.value for pk, one in found.items() if one} == {10: 0.5, 11: 0.0, 12: 0.25}
    assert all(one.interval[0] <= one.value <= one.interval[1] for one in found.values() if one)
    assert list(contributions(pairs(held, held=4), weights, of=[12])) == [12]
    assert contributions(pairs(held), weights)[10] is None


def test_redundant_criteria_name_each_other_and_the_turn_they_have() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.choice([-1.0, 0.0, 1.0], size=(2, 200))
    sheet = pairs(np.stack([one, other, -one, 0 * one], axis=1).tolist())
    found = redundancy(sheet)
    assert found[10] == (12, pytest.approx(-1.0))
    assert found[12] == (10, pytest.approx(-1.0))
    assert found[11] is not None
    assert abs(found[11][1]) < 0.3
    assert found[13] is None


def test_difference_is_of_the_pairs_that_both_judge() -> None:
    sheet = pairs([[1.0]] * 4)
    found = difference(sheet, [1.0, 1.0, -1.0, 1.0], [1.0, -1.0, np.nan, -1.0])
    assert found is not None
    assert found.value == pytest.approx(2 / 3)
    assert difference(sheet, [np.nan] * 4, [1.0] * 4) is None


def test_sheets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        sheet_of(np.zeros((3, 1, 2)))
    with pytest.raises(ValueError, match="orders"):
        sheet_of(np.zeros((3, 2, 2)), orders={"judge": np.zeros(3, dtype=np.float32)})
    with pytest.raises(ValueError, match="others"):
        sheet_of(np.zeros((3, 2, 2)), others={"length": np.zeros(2, dtype=np.float32)})


def test_figures_of_nothing_say_why() -> None:
    empty = sheet_of(np.zeros((0, 2, 1)))
    told = figures(empty, Weighed({10: 1.0}, {10: 1}, True))
    assert told.figures["held_out"]["rubric"] is None
    assert told.missing.keys() >= {"rubric", "equal", "path"}
    assert told.figures["criteria"]["10"]["coverage"] is None
    none = figures(sheet_of(np.zeros((3, 2, 0)), held=1), Weighed({}, {}, False))
    assert "no criterion" in none.missing["rubric"]


def test_position_of_a_judge_is_counted_on_pairs_asked_in_both_orders() -> None:
    orders = np.array([[0.9, 0.2], [0.9, 0.8], [0.7, 0.1], [0.6, np.nan]], dtype=np.float32)
    sheet = sheet_of(np.zeros((4, 2, 1)), held=4, orders={"judge": orders})
    told = figures(sheet, Weighed({10: 1.0}, {10: 1}, False)).figures
    assert told["position"]["judge.rubric"] is None
    found = told["position"]["judge"]
    assert (found["forward"]["value"], found["forward"]["n"]) == (1.0, 3)
    assert found["reverse"]["value"] == pytest.approx(1 / 3)
    assert found["gap"]["value"] == pytest.approx(2 / 3)
    assert told["held_out"]["judge"]["value"] == pytest.approx(2 / 3)


def test_path_is_fitted_on_what_was_learned_and_measured_on_the_rest() -> None:
    rng = np.random.default_rng(1)
    utility = rng.choice([-1.0, 1.0], size=120)
    learned = np.stack([np.abs(utility), rng.choice([-1.0, 1.0], size=120)], axis=1)
    turned = np.stack([-np.ones(40), rng.choice([-1.0, 1.0], size=40)], axis=1)
    sheet = pairs(np.concatenate([learned, turned]).tolist(), held=40)
    told = figures(sheet, Weighed({10: 1.0, 11: 0.0}, {10: 1, 11: 1}, True), bootstraps=20).figures
    last = told["path"]["points"][-1]
    assert last["weights"][0] > 0, "what always held among the learned pairs"
    assert last["accuracy"]["value"] < 0.2, "never holds among the held-out ones"
    assert told["criteria"]["10"]["with_vote"] == 120
    assert told["held_out"]["rubric"]["value"] == 0.0


def test_importing_a_sheet_brings_no_scikit_learn() -> None:
    look = "import sys, rubrics.sheet; print([m for m in sys.modules if m.startswith('sklearn')])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_accuracy_of_criteria_without_a_score_is_not_zero_but_missing() -> None:
    """Even on every pair is counted wrong on every pair: here nobody said anything."""
    scores = np.full((40, 2, 2), np.nan)
    scores[:20] = np.random.default_rng(0).random((20, 2, 2))  # learned pairs have theirs
    weighed = Weighed({10: 1.0, 11: 0.5}, {10: 1, 11: 1}, is_fitted=True)
    told = figures(sheet_of(scores, held=20), weighed, bootstraps=2)
    assert told.figures["held_out"]["rubric"] is told.figures["held_out"]["equal"] is None
    assert told.figures["criteria"]["10"]["contribution"] is None
    assert {one["accuracy"] for one in told.figures["path"]["points"]} == {None}
    assert "No criterion has a score on a held-out pair" in told.missing["rubric"]
    scores[35:, :, 0] = [1, 0]  # a word on some of them is an accuracy, and says on how many
    told = figures(sheet_of(scores, held=20), weighed, bootstraps=2)
    assert told.figures["held_out"]["rubric"]["value"] == 0.25
    assert told.figures["held_out"]["rubric"]["ties"] == 15
    assert "On 15 of 20 held-out pairs no criterion has a score" in told.missing["silent"]


@given(sheets(), st.sets(st.integers(8, 16)))
def test_sheet_of_some_criteria_has_their_columns(sheet: Sheet, ids: set[int]) -> None:
    part = sheet.of_criteria(ids)
    assert set(part.criteria.tolist()) == ids & set(sheet.criteria.tolist())
    assert same(part.scores, sheet.scores[:, :, sheet.places(part.criteria.tolist())])
    assert same(part.others["judge.rubric"], sheet.others["judge.rubric"])
