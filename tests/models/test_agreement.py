from __future__ import annotations

import csv
import gzip
import io
import json
import warnings
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import cohen_kappa_score

from models.agreement import (
    Ratings,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    leave_one_out,
    measure,
    measure_cohen,
    pairwise_kappas,
    percent_agreement,
)
from models.baselines import human_ceiling
from models.intervals import wilson

NAN = float("nan")
LEVELS = ("nominal", "ordinal", "interval")

# Three raters and fifteen units of the usual worked example; a star is a gap.
ROWS = ("*****34121133*3", "1*213343*******", "**21344*21133*4")
EXAMPLE = np.array([[NAN if mark == "*" else float(mark) for mark in row] for row in ROWS])

# Fleiss 1971 as commonly printed: ten subjects, fourteen raters, five categories.
FLEISS = (
    (0, 0, 0, 0, 14),
    (0, 2, 6, 4, 2),
    (0, 0, 3, 5, 6),
    (0, 3, 9, 2, 0),
    (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0),
    (3, 2, 6, 3, 0),
    (2, 5, 3, 2, 2),
    (6, 5, 2, 1, 0),
    (0, 2, 2, 3, 7),
)

cells = st.one_of(st.just(NAN), st.integers(-2, 3).map(float))
tables = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=cells
)


def noisy(
    seed: int, *, units: int = 400, raters: int = 3, copied: float = 0.6, values: int = 5
) -> np.ndarray:
    """Each rater gives the unit's true value with chance ``copied``, else a random one.

    The population's nominal alpha is then exactly ``copied ** 2``.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(values, size=units)
    guesses = rng.integers(values, size=(raters, units))
    return np.where(rng.random((raters, units)) < copied, truth, guesses).astype(float)


def package_alpha(table: np.ndarray, level: str) -> float | None:
    """The krippendorff package; it raises, or gives NaN, where we say None."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            value = krippendorff.alpha(table, level_of_measurement=level)
        except ValueError:
            return None
    return None if np.isnan(value) else float(value)


def alpha_by_definition(table: np.ndarray, level: str) -> float | None:
    """Krippendorff's alpha as he writes it down: loops, coincidence matrix, distances."""
    units = [column[~np.isnan(column)] for column in table.T]
    units = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in units for value in unit})
    place = {value: index for index, value in enumerate(values)}
    seen = np.zeros((len(values), len(values)))
    for unit in units:
        for i, one in enumerate(unit):
            for j, other in enumerate(unit):
                if i != j:
                    seen[place[one], place[other]] += 1 / (len(unit) - 1)
    n = seen.sum(axis=1)
    if len(values) < 2:
        return None
    above = below = 0.0
    for c, one in enumerate(values):
        for k, other in enumerate(values):
            low, high = min(c, k), max(c, k)
            ranks = n[low : high + 1].sum() - (n[c] + n[k]) / 2
            gap = {"nominal": float(c != k), "interval": one - other, "ordinal": ranks}[level]
            above += seen[c, k] * gap**2
            below += (n[c] * n[k] - (n[c] if c == k else 0)) / (n.sum() - 1) * gap**2
    return 1 - above / below


# Krippendorff's alpha


@pytest.mark.parametrize(
    ("level", "expected"), [("nominal", 0.691358), ("ordinal", 0.806721), ("interval", 0.810845)]
)
def test_alpha_of_the_worked_example(level, expected):
    assert krippendorff_alpha(EXAMPLE, level) == pytest.approx(expected, abs=5e-7)
    found = measure(EXAMPLE, level=level)
    assert found.value == pytest.approx(expected, abs=5e-7)
    assert (found.n_ratings, found.n_units, found.n_raters) == (27, 13, 3)
    assert found.n_units_paired == 12, "one unit has a single rating"


@given(table=tables, level=st.sampled_from(LEVELS))
@settings(deadline=None)
def test_alpha_equals_its_definition_and_the_package(table, level):
    found = krippendorff_alpha(table, level)
    assert found == pytest.approx(alpha_by_definition(table, level), abs=1e-9)
    assert found == pytest.approx(package_alpha(table, level), abs=1e-9)
    assert measure(table, level=level, replicates=2).value == pytest.approx(found, abs=1e-9)


@given(
    table=arrays(np.float64, (3, 8), elements=st.floats(-1e308, 1e308) | st.just(NAN)),
    level=st.sampled_from(LEVELS),
)
@settings(deadline=None)
def test_alpha_of_any_finite_values_is_a_number_or_none(table, level):
    found = krippendorff_alpha(table, level)
    assert found is None or (np.isfinite(found) and found <= 1)
    interval = measure(table, level=level, replicates=5).interval
    assert interval is None or np.isfinite(interval).all()


@pytest.mark.parametrize("level", LEVELS)
def test_alpha_at_its_limits(level):
    rng = np.random.default_rng(4)
    random = rng.integers(0, 4, size=(3, 3000))
    assert krippendorff_alpha(random, level) == pytest.approx(0, abs=0.05)
    scores = rng.normal(size=500)
    assert krippendorff_alpha([random[0]] * 4, level) == 1.0
    assert krippendorff_alpha([scores] * 7, level) == 1.0, "exactly, whatever the rounding"
    assert krippendorff_alpha(np.full((3, 50), 2.0), level) is None
    assert krippendorff_alpha([[1, NAN, 3], [NAN, 2, NAN]], level) is None
    assert krippendorff_alpha(np.empty((0, 0)), level) is None
    one_odd = np.full((2, 50), 7.0)
    one_odd[0, 0] = 8.0
    assert krippendorff_alpha(one_odd, level) == pytest.approx(0, abs=1e-12), "agreement of 98 %"


def test_interval_alpha_ignores_where_the_scale_starts_and_its_unit():
    table = noisy(1)
    expected = krippendorff_alpha(table, "interval")
    widest = (table / 2 - 1) * 1.7e308  # from one end of the floats to the other
    for moved in (table + 1e9, widest, table * 1e-300, 7 - table):
        assert krippendorff_alpha(moved, "interval") == pytest.approx(expected, rel=1e-9)
    assert krippendorff_alpha(np.exp(table), "ordinal") == pytest.approx(
        krippendorff_alpha(table, "ordinal")
    )


def test_alpha_refuses_an_unknown_level():
    with pytest.raises(ValueError, match="level 'ratio' is not one of"):
        krippendorff_alpha(EXAMPLE, "ratio")


# Percent and Fleiss


def test_percent_agreement_of_units_and_of_pairs():
    table = [[1, 1, 5], [1, 2, NAN], [1, NAN, NAN], [2, NAN, NAN]]
    assert percent_agreement(table) == pytest.approx((3 / 6 + 0) / 2)
    assert percent_agreement(table, pooled=True) == pytest.approx(3 / 7)
    assert percent_agreement([[1, NAN], [NAN, 2]]) is None
    assert percent_agreement(np.ones((3, 4))) == 1.0


def test_fleiss_equals_the_textbook():
    table = np.array([np.repeat(np.arange(5), row) for row in FLEISS]).T
    assert fleiss_kappa(table) == pytest.approx(0.20993, abs=5e-6)


@given(table=tables)
@settings(deadline=None)
def test_fleiss_equals_its_formula_with_gaps(table):
    units = [column[~np.isnan(column)] for column in table.T]
    units = [unit for unit in units if len(unit) > 1]
    pooled = np.concatenate([*units, []])
    found = fleiss_kappa(table)
    if len(np.unique(pooled)) < 2:
        assert found is None
        return
    agreeing = [
        sum(unit[i] == unit[j] for i in range(len(unit)) for j in range(i))
        / (len(unit) * (len(unit) - 1) / 2)
        for unit in units
    ]
    chance = sum(np.mean(pooled == value) ** 2 for value in np.unique(pooled))
    assert found == pytest.approx((np.mean(agreeing) - chance) / (1 - chance), abs=1e-9)
    assert percent_agreement(table) == pytest.approx(np.mean(agreeing), abs=1e-9)


# Cohen


@given(
    pairs=st.lists(st.tuples(cells, cells), max_size=40),
    weights=st.sampled_from([None, "linear", "quadratic"]),
)
@settings(deadline=None)
def test_cohen_equals_scikit_learn(pairs, weights):
    a, b = np.array(pairs, dtype=float).reshape(-1, 2).T
    both = ~(np.isnan(a) | np.isnan(b))
    found = cohen_kappa(a, b, weights=weights)
    if len(set(a[both]) | set(b[both])) < 2:
        assert found is None
        return
    x, y = a[both].astype(int), b[both].astype(int)
    assert found == pytest.approx(cohen_kappa_score(x, y, weights=weights), abs=1e-9)
    assert measure_cohen(a, b, weights=weights, replicates=2).value == pytest.approx(found)


def test_cohen_takes_words_gaps_and_an_order_of_labels():
    a = ["low", "high", None, "mid", "low", "high", "mid"]
    b = ["low", "mid", "low", "mid", None, "high", "low"]
    order = ["low", "mid", "high"]
    kept = [(x, y) for x, y in zip(a, b, strict=True) if x and y]
    x, y = zip(*kept, strict=True)
    for labels in (order, order[::-1]):
        found = cohen_kappa(a, b, weights="linear", labels=labels)
        assert found == pytest.approx(cohen_kappa_score(x, y, weights="linear", labels=order))
    assert found != pytest.approx(cohen_kappa(a, b, weights="linear")), "alphabetical is another"
    found = measure_cohen(a, b, labels=order)
    assert (found.n_ratings, found.n_units, found.n_units_paired) == (12, 7, 5)


def test_cohen_is_none_where_chance_is_certain_and_zero_where_raters_never_meet():
    assert cohen_kappa([1, 1, 1], [1, 1, 1]) is None
    assert cohen_kappa([], []) is None
    assert cohen_kappa([1, NAN], [NAN, 1]) is None
    assert cohen_kappa([1, 1, 1], [2, 2, 2]) == 0.0
    assert cohen_kappa([1, 2, 1], [1, 2, 1], weights="quadratic") == 1.0


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([1, 2], [1], {}, "must be equal"),
        ([[1]], [[1]], {}, "must be equal"),
        ([1, 2], ["1", "2"], {}, "two types"),
        (np.array([1, "x"], dtype=object), np.array([2, 3], dtype=object), {}, "one type"),
        ([1, 2], [1, 2], {"weights": "cubic"}, "weights 'cubic'"),
        ([1, 2], [1, 2], {"labels": [1]}, r"lacks \[2\]"),
        ([1, 2], [1, 2], {"labels": [1, 2, 2]}, "repeats"),
    ],
)
def test_cohen_refuses_what_it_cannot_align(a, b, options, message):
    with pytest.raises(ValueError, match=message):
        cohen_kappa(a, b, **options)


# The input


def test_ratings_of_labels_equal_the_table():
    raters, units = np.nonzero(~np.isnan(EXAMPLE))
    order = np.random.default_rng(5).permutation(len(units))
    names = np.array([f"unit {unit}" for unit in units])[order]
    people = np.array(["ann", "bob", "cy"])[raters][order]
    rated = Ratings.of(names, people, EXAMPLE[raters, units][order])
    for level in LEVELS:
        assert krippendorff_alpha(rated, level) == krippendorff_alpha(EXAMPLE, level)
    assert len(rated) == 27
    first_two = rated.where(rated.raters < 2)
    assert krippendorff_alpha(first_two) == pytest.approx(krippendorff_alpha(EXAMPLE[:2]))


def test_ratings_of_keeps_the_last_and_drops_the_missing():
    units, raters = ["u", "u", "u", "v", "v", "u"], [8, 7, 7, 7, 8, 7]
    rated = Ratings.of(units, raters, [1, 2, 5, NAN, 4, 3])
    found = sorted(zip(rated.units, rated.raters, rated.values, strict=True))
    assert found == [(0, 0, 3.0), (0, 1, 1.0), (1, 1, 4.0)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ratings([0, 0], [1, 1], [1, 2]), "two ratings of one unit"),
        (lambda: Ratings([0, 1], [1, 1], [1, NAN]), "finite"),
        (lambda: Ratings([0, 1], [1, 1], [1, np.inf]), "finite"),
        (lambda: Ratings([0, -1], [1, 1], [1, 2]), "codes must be"),
        (lambda: Ratings([0, 2**40], [1, 1], [1, 2]), "codes must be"),
        (lambda: Ratings([0.5, 1], [1, 1], [1, 2]), "whole numbers"),
        (lambda: Ratings([0, 1], [1], [1, 2]), "must be equal"),
        (lambda: Ratings([[0]], [[1]], [[1]]), "must be equal"),
        (lambda: Ratings.of([0, 1], [1], [1, 2]), "shapes differ"),
        (lambda: krippendorff_alpha([1, 2, 3]), "must be"),
        (lambda: krippendorff_alpha([[1, np.inf]]), "finite"),
    ],
    ids=["twice", "nan", "inf", "negative", "huge", "half", "ragged", "2d", "labels", "1d", "cell"],
)
def test_ratings_refuse_broken_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_huge_codes_cost_nothing():
    rated = Ratings([2**31 - 1] * 2 + [5] * 2, [0, 2**31 - 1] * 2, [1, 1, 2, 3])
    assert percent_agreement(rated) == 0.5
    assert pairwise_kappas(rated).shared.tolist() == [[2, 2], [2, 2]]


# Intervals


@given(table=tables, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_nothing_depends_on_the_order_of_raters_and_units(table, seed):
    rng = np.random.default_rng(seed)
    shuffled = table[rng.permutation(table.shape[0])][:, rng.permutation(table.shape[1])]
    for level in LEVELS:
        one, other = (measure(x, level=level, replicates=20) for x in (table, shuffled))
        assert other.value == pytest.approx(one.value, abs=1e-9)
        assert other.interval == pytest.approx(one.interval, abs=1e-9)


def test_bootstrap_equals_drawing_units_one_by_one():
    table = noisy(6, units=60)
    rng = np.random.default_rng(7)
    for level in LEVELS:
        by_hand = [
            krippendorff_alpha(table[:, rng.integers(60, size=60)], level) for _ in range(1500)
        ]
        found = measure(table, level=level, replicates=4000)
        expected = np.quantile(by_hand, [0.025, 0.975])
        assert found.interval == pytest.approx(expected, abs=0.02), level


def test_bootstrap_of_units_that_all_differ_equals_that_of_merged_ones():
    """Scores too fine to merge are drawn one by one: rounding noise must not move the interval."""
    table = noisy(8, units=3000)
    fine = table + np.random.default_rng(9).normal(scale=1e-6, size=table.shape)
    merged, apart = (measure(x, level="interval") for x in (table, fine))
    assert apart.value == pytest.approx(merged.value, abs=1e-5)
    assert apart.interval == pytest.approx(merged.interval, abs=0.006)
    ranks = measure(fine, level="ordinal", replicates=60)
    assert ranks.interval[0] < ranks.value < ranks.interval[1]


@pytest.mark.parametrize("statistic", ["alpha", "fleiss", "percent", "cohen"])
def test_interval_covers_the_planted_truth(statistic):
    raters = 2 if statistic == "cohen" else 3
    truth = 0.36 + 0.64 / 5 if statistic == "percent" else 0.36
    covered = 0
    for seed in range(200):
        table = noisy(seed, units=150, raters=raters)
        low, high = measure(table, statistic=statistic, replicates=400, seed=seed).interval
        covered += low <= truth <= high
    assert 180 <= covered <= 199, covered


def test_units_of_many_values_are_not_taken_for_equal():
    table = noisy(12, values=90)
    for level in LEVELS:
        assert measure(table, level=level).value == pytest.approx(krippendorff_alpha(table, level))


def test_measure_is_fixed_by_its_seed_and_json_ready():
    table = noisy(10)
    one, same, other = (measure(table, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.value == other.value
    assert one.interval != other.interval
    assert json.loads(json.dumps(one.as_dict()))["interval"] == list(one.interval)
    assert one.method == "bootstrap over units"


def test_perfect_agreement_does_not_claim_certainty():
    table = [[1, 2, 3, 1, 2, 3, 1, 2]] * 2
    for statistic in ("alpha", "fleiss", "percent", "cohen"):
        found = measure(table, statistic=statistic)
        assert (found.value, found.method) == (1.0, "wilson on units")
        assert found.interval == wilson(8, 8)


def test_interval_is_none_where_units_cannot_tell():
    assert measure([[1], [2]]).interval is None, "one unit"
    skewed = np.ones((5, 20))  # sizes at which sums of squares do not cancel exactly
    skewed[0, 0] = 2
    for level in LEVELS:
        found = measure(skewed, level=level)
        assert (found.interval, found.method) == (None, ""), "a third of replicates is constant"
    assert measure(skewed, statistic="percent").interval[0] < 1
    nothing = measure([[NAN, 1], [2, NAN]])
    assert (nothing.value, nothing.interval, nothing.n_units_paired) == (None, None, 0)
    one = measure([[1], [1], [2]], statistic="percent")
    assert (one.interval, one.method) == (wilson(1 / 3, 1), "wilson on units")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistic": "scott"}, "statistic 'scott'"),
        ({"statistic": "fleiss", "level": "ordinal"}, "needs alpha or cohen"),
        ({"statistic": "cohen"}, "two raters, not 3"),
        ({"level": "ratio"}, "level 'ratio'"),
        ({"replicates": 0}, "replicates must be"),
    ],
)
def test_measure_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        measure(EXAMPLE, **options)


# Raters


@given(table=tables, weights=st.sampled_from([None, "linear", "quadratic"]))
@settings(max_examples=50, deadline=None)
def test_pairwise_kappas_equal_one_pair_at_a_time(table, weights):
    found = pairwise_kappas(table, weights=weights)
    labels = np.unique(table[~np.isnan(table)]).tolist()
    for i, one in enumerate(found.raters):
        for j, other in enumerate(found.raters):
            a, b = table[one], table[other]
            both = ~(np.isnan(a) | np.isnan(b))
            expected = cohen_kappa(a, b, weights=weights, labels=labels)
            assert found.kappa[i, j] == pytest.approx(
                NAN if expected is None else expected, abs=1e-9, nan_ok=True
            )
            assert found.shared[i, j] == both.sum()
            share = np.mean(a[both] == b[both]) if both.any() else NAN
            assert found.agreement[i, j] == pytest.approx(share, abs=1e-9, nan_ok=True)


def test_pairwise_kappas_refuse_what_would_not_fit():
    wide = Ratings(np.zeros(1001, int), np.arange(1001), np.ones(1001))
    with pytest.raises(ValueError, match="1001 raters"):
        pairwise_kappas(wide)
    assert pairwise_kappas(wide.where(wide.raters < 9)).shared.shape == (9, 9)
    with pytest.raises(ValueError, match="101 distinct values"):
        pairwise_kappas([np.arange(101.0)])
    with pytest.raises(ValueError, match="weights 'cubic'"):
        pairwise_kappas(EXAMPLE, weights="cubic")


@given(table=tables)
@settings(deadline=None)
def test_leave_one_out_equals_counting_by_hand(table):
    credits, split = [], 0
    for column in table.T:
        unit = column[~np.isnan(column)]
        for i, own in enumerate(unit if len(unit) > 1 else []):
            others = np.delete(unit, i)
            values, counts = np.unique(others, return_counts=True)
            modes = values[counts == counts.max()]
            credits.append((own in modes) / len(modes))
            split += len(modes) > 1
    found = leave_one_out(table)
    if not credits:
        assert found is None
        return
    assert found.accuracy == pytest.approx(np.mean(credits))
    assert (found.n, found.split) == (len(credits), split)
    assert found.interval[0] <= found.accuracy + 1e-9
    assert found.accuracy - 1e-9 <= found.interval[1]


def test_leave_one_out_equals_the_human_ceiling_of_votes_without_ties():
    """Three people, no ties: others either agree, and both count it, or are split evenly."""
    votes = 2.0 * noisy(11, values=2) - 1
    raters, pairs = np.indices(votes.shape)
    ceiling = human_ceiling(pairs.ravel(), raters.ravel(), votes.ravel().astype(int))
    found = leave_one_out(votes)
    assert found.split == ceiling.ties
    assert found.n == ceiling.n + ceiling.ties
    hits = ceiling.accuracy * ceiling.n + ceiling.ties / 2
    assert found.accuracy == pytest.approx(hits / found.n)
    perfect = leave_one_out(np.array([[1, 2, 1]] * 3))
    assert (perfect.interval, perfect.method) == (wilson(3, 3), "wilson on groups")


# Real data, with the figures known for it


def rows(path: Path) -> list[dict[str, str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def ratings(table: list[dict[str, str]], unit: tuple[str, ...], rater: str, value: str) -> Ratings:
    """Rows of a file; what is not a number is a gap."""
    words = {"yes": 1.0, "no": 0.0, "NULL": NAN}
    return Ratings.of(
        [json.dumps([row[name] for name in unit]) for row in table],
        [row[rater] for row in table],
        [words[row[value]] if row[value] in words else float(row[value]) for row in table],
    )


@pytest.mark.data
def test_pandalm_agrees_as_published(data_dir):
    found = json.loads((data_dir / "pandalm/testset-v1.json").read_text())
    table = np.array([[row[f"annotator{i}"] for row in found] for i in (1, 2, 3)])
    kappa = pairwise_kappas(table).kappa
    assert [kappa[0, 1], kappa[0, 2], kappa[1, 2]] == pytest.approx(
        [0.8520, 0.8789, 0.8617], abs=5e-5
    )
    assert cohen_kappa(table[0], table[1]) == pytest.approx(kappa[0, 1])
    alpha = measure(table)
    assert alpha.value == pytest.approx(0.8642, abs=5e-5)
    assert alpha.interval == pytest.approx((0.842, 0.887), abs=0.003)
    assert (alpha.n_ratings, alpha.n_units, alpha.n_raters) == (2997, 999, 3)


@pytest.mark.data
def test_image_ratings_agree_as_known(data_dir):
    table = rows(data_dir / "dsg_tifa160_likert/likert.csv")
    rated = ratings(table, ("t2i_model", "item_id"), "worker_id", "answer")
    found = [krippendorff_alpha(rated, level) for level in LEVELS]
    assert found == pytest.approx([0.3969, 0.6854, 0.6844], abs=5e-5)


@pytest.mark.data
def test_factuality_and_story_ratings_agree_as_known(data_dir):
    table = rows(data_dir / "xsum_hallucination/factuality_annotations_xsum_summaries.csv")
    rated = ratings(table, ("bbcid", "system"), "worker_id", "is_factual")
    assert krippendorff_alpha(rated) == pytest.approx(0.7736, abs=5e-5)
    stories = rows(data_dir / "hanna/ratings_long.csv.gz")
    for criterion, ordinal, interval in (("RE", 0.1651, 0.1375), ("CX", 0.2658, 0.2779)):
        of = [row for row in stories if row["criterion"] == criterion]
        people = [[float(row[f"human{i}"]) for row in of] for i in (1, 2, 3)]
        assert krippendorff_alpha(people, "ordinal") == pytest.approx(ordinal, abs=5e-5)
        assert krippendorff_alpha(people, "interval") == pytest.approx(interval, abs=5e-5)


@pytest.mark.data
@pytest.mark.parametrize(("pair", "expected"), [("zhen", 0.457), ("ende", 0.4988)])
def test_translation_penalties_agree_as_known(data_dir, pair, expected):
    table = rows(data_dir / f"wmt_mqm_sxs/{pair}_scores_by_rater.csv")
    rated = ratings(table, ("doc", "seg", "system"), "rater", "mqm_penalty")
    assert krippendorff_alpha(rated, "interval") == pytest.approx(expected, abs=5e-5)


def test_interval_over_groups_covers_where_units_of_a_group_go_together() -> None:
    """Six pairs of one ranking agree or differ together: 40 rankings, not 240 units."""
    truth, covered, covered_by_units = 0.7, 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        agree = np.repeat(rng.random(40) < truth, 6)  # of each unit, the same within a ranking
        units = np.repeat(np.arange(240), 2)
        values = np.stack([np.zeros(240), np.where(agree, 0.0, 1.0)], axis=1).ravel()
        data = Ratings(units, np.tile([0, 1], 240), values)
        grouped = measure(data, statistic="percent", replicates=300, groups=units // 6)
        plain = measure(data, statistic="percent", replicates=300)
        assert grouped.value == plain.value
        low, high = grouped.interval or (1.0, 0.0)
        covered += low <= truth <= high
        low, high = plain.interval or (1.0, 0.0)
        covered_by_units += low <= truth <= high
    assert covered >= 52, "a nominal 95 % interval, 60 worlds"
    assert covered_by_units < 45, "which units taken for independent do not reach"


def test_groups_of_single_units_change_nothing_and_split_units_are_refused() -> None:
    units = np.repeat(np.arange(30), 2)
    values = np.random.default_rng(1).integers(0, 2, 60).astype(float)
    data = Ratings(units, np.tile([0, 1], 30), values)
    assert measure(data, groups=units) == measure(data)
    with pytest.raises(ValueError, match="several groups"):
        measure(data, groups=np.arange(60))
    with pytest.raises(ValueError, match="one per rating"):
        measure(data, groups=np.arange(30))
