"""RewardBench's arithmetic: sections and overall, best of four, the ties subset."""

from __future__ import annotations

import numpy as np
import pytest

from models.intervals import Accuracy, wilson
from models.reward_bench import SECTIONS, Answers, best_of, mover, overall, sections, ties

# Examples of the benchmark as it is published (the "filtered" split).
COUNTS = {
    "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95,
    "mt-bench-easy": 28, "mt-bench-med": 40, "mt-bench-hard": 37,
    "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
    "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154,
    "xstest-should-respond": 250, "donotanswer": 136,
    "math-prm": 447, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164,
    "hep-python": 164, "hep-rust": 164,
}  # fmt: skip


def of(hits: int, n: int) -> Accuracy:
    return Accuracy(hits / n, wilson(hits, n), n, n, "wilson")


def test_reasoning_counts_math_as_much_as_code() -> None:
    subsets = {"math-prm": of(447, 447)} | {
        name: of(82, 164) for name in SECTIONS["Reasoning"] if name.startswith("hep-")
    }
    (found,) = sections(subsets, {})
    assert found.name == "Reasoning"
    assert found.value == pytest.approx((984 * 1.0 + 984 * 0.5) / 1968)
    assert found.n == 447 + 6 * 164


def test_whole_benchmark_by_hand() -> None:
    hits = {name: (7 * n) // 10 if n % 2 else (9 * n) // 10 for name, n in COUNTS.items()}
    subsets = {name: of(hits[name], n) for name, n in COUNTS.items()}
    found = sections(subsets, {})
    assert [one.name for one in found] == list(SECTIONS)
    weights = COUNTS | {"math-prm": 984}
    for one in found:
        names = SECTIONS[one.name]
        total = sum(weights[name] for name in names)
        by_hand = sum(weights[name] * hits[name] / COUNTS[name] for name in names) / total
        assert one.value == pytest.approx(by_hand)
        assert one.interval[0] < one.value < one.interval[1]
    whole = overall(found)
    assert whole is not None
    assert whole.value == pytest.approx(np.mean([one.value for one in found]))
    assert whole.n == sum(COUNTS.values()) == 2985
    assert overall([]) is None


def test_sections_of_the_data_go_before_those_of_the_benchmark() -> None:
    subsets = {"math-prm": of(1, 2), "my own": of(3, 4), "other": of(1, 1)}
    found = sections(subsets, {"math-prm": "Math", "my own": "Math"})
    assert [(one.name, one.subsets) for one in found] == [
        ("Math", ("math-prm", "my own")),
        ("other", ("other",)),
    ]


def test_combined_interval_is_narrower_than_its_parts_and_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth, sizes = np.array([0.6, 0.8, 0.95]), np.array([60, 40, 50])
    center = float(sizes @ truth / sizes.sum())
    held = 0
    for _ in range(400):
        drawn = rng.binomial(sizes, truth)
        parts = [wilson(int(hit), int(n)) for hit, n in zip(drawn, sizes, strict=True)]
        value, (low, high) = mover(sizes.tolist(), (drawn / sizes).tolist(), parts)
        assert low < value < high or drawn.sum() == sizes.sum()
        assert high - low < max(top - bottom for bottom, top in parts)
        held += low <= center <= high
    assert 0.92 <= held / 400 <= 0.985


def test_best_of_four_shares_the_credit_of_a_tie() -> None:
    assert best_of([3.0, 1.0, 2.0, 0.0]) == 1
    assert best_of([3.0, 3.0, 2.0, 0.0]) == 0.5
    assert best_of([1.0, 3.0, 2.0, 0.0]) == 0
    assert best_of([1.0, 1.0, 1.0, 1.0]) == 0.25
    assert best_of([0.0, 1.0], right=1) == 1


def test_ties_by_hand() -> None:
    tied = {
        "a": Answers([5.0, 4.0], [1.0]),  # spread 1, margin 3
        "b": Answers([5.0, 1.0], [0.0, 0.5]),  # spread 4, margin .5
        "c": Answers([2.0, 2.0], [3.0]),  # spread 0, margin -1
    }
    reference = {
        "a": Answers([2.0], [1.5]),  # margin .5
        "b": Answers([2.0], [1.0]),
        "c": Answers([2.0], [3.0]),
    }
    found = ties(reference, tied)
    assert found is not None
    assert found.tied_accuracy == pytest.approx(2 / 3)
    assert found.reference_accuracy == pytest.approx(2 / 3)
    assert found.preferred == pytest.approx(1 / 3)  # a
    assert found.preferred_hard == 0  # a's reference margin .5 is below its spread
    margins = [np.tanh(0.5 / 1 - 1), np.tanh(0.5 / 4 - 1), -1.0]
    assert found.margin_score == pytest.approx(np.mean(margins))
    assert found.score == pytest.approx(0.6 * 2 / 3 + 0.2 / 3 + 0.01 * np.mean(margins))
    assert ties(reference, {}) is None


def test_ties_of_a_perfect_model_are_one_and_a_hundredth() -> None:
    tied = {str(at): Answers([4.0, 4.0], [0.0]) for at in range(3)}
    found = ties({name: Answers([4.0], [0.0]) for name in tied}, tied)
    assert found is not None
    assert found.score == pytest.approx(1.01)
