"""Columns for variants of DPO and filters by scores: values, scales, and what they find of a truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from annotator.errors import Invalid
from annotator.exporters import flip_rates
from annotator.exporters.recipe import ExportOptions
from annotator.exporters.variant_methods import COLUMN_METHODS
from annotator.exporters.variant_options import Variant
from annotator.models import DatasetVersion, Judgment, Run, Task
from annotator.services import deliveries, exports
from models.margins import Madpo, logistic
from models.rejection import draw
from tests import factories
from tests.annotator.planted_pairs import Planted, planted, scored_by, votes
from tests.annotator.test_exports import rows_of, version_of

pytestmark = pytest.mark.django_db(transaction=True)

DOCS = Path(__file__).parents[2] / "docs"


def rows(version: DatasetVersion) -> list[dict[str, Any]]:
    return [row for some in rows_of(version).values() for row in some]


def first_wins(of: Planted, *, ties: tuple[int, ...] = ()) -> None:
    """One vote a prompt and rater, for its first answer."""
    prompts = range(len(of.prompts))
    votes(of, [(n, 0, 1, by, 0 if n in ties else 1) for n in prompts for by in range(len(of.by))])


# Columns ----------------------------------------------------------------------------------------


def test_every_column_has_a_method_that_says_scale_and_readers() -> None:
    text = (DOCS / "dpo-variants.md").read_text()
    assert set(get_args(Variant)) <= set(COLUMN_METHODS)
    for key, method in COLUMN_METHODS.items():
        option = method.asked_by.partition("=")[0]
        assert option in ExportOptions.model_fields, key
        assert method.scale
        for column in method.columns:
            assert f"`{column}`" in text, f"docs/dpo-variants.md lacks {column}"


def test_rewards_are_bounded_beside_the_standardized_ones() -> None:
    of = planted(8)
    first_wins(of)
    scores = np.stack([np.linspace(2, 9, 8), np.linspace(1, 4, 8)], 1)
    scored_by(of, scores)
    built = version_of(of.project, reward_model=1, variants=["reward01"])
    told = built.manifest["variants"]["reward01"]
    assert told["method"] == "logistic of the standardized reward"
    for row in rows(built):
        assert list(row)[-2:] == ["chosen_reward01", "rejected_reward01"]
        for side in ("chosen", "rejected"):
            bounded = float(logistic(row[f"{side}_reward"]))
            assert row[f"{side}_reward01"] == pytest.approx(bounded, abs=1e-6)
    squeezed = version_of(of.project, reward_model=1, variants=["reward01"], reward01="min-max")
    found = {row["chosen_id"]: row["chosen_reward01"] for row in rows(squeezed)}
    aim = dict(zip(of.responses[:, 0].tolist(), ((scores[:, 0] - 1) / 8).tolist(), strict=True))
    assert found == pytest.approx(aim, abs=1e-6)
    told = squeezed.manifest["variants"]["reward01"]
    assert (told["lowest"], told["highest"]) == (1.0, 9.0)


def test_madpo_weighs_signed_margins_on_the_scale_of_held_out_votes() -> None:
    """Scores are log-odds times four: the temperature is found, and with it the weights."""
    rng = np.random.default_rng(1)
    of = planted(600, splits=("train", "validation", "test"))
    scores = rng.normal(size=(600, 2)) * 1.5
    right = rng.random(600) < logistic(scores[:, 0] - scores[:, 1])
    votes(of, [(n, 0, 1, 0, 1 if right[n] else -1) for n in range(600)])
    scored_by(of, scores * 4)
    built = version_of(of.project, reward_model=1, variants=["madpo-weight"])
    told = built.manifest["variants"]["madpo-weight"]
    assert told["calibrated"]
    margins = told["margins"]
    assert margins["pairs"] == margins["prompts"] == 400
    low, high = margins["interval"]
    assert low < 0.25 < high
    by_id = dict(zip(of.responses.ravel().tolist(), (scores * 4).ravel().tolist(), strict=True))
    found = rows(built)
    assert len(found) == 600
    gaps = np.array([by_id[row["chosen_id"]] - by_id[row["rejected_id"]] for row in found])
    weights = [row["madpo_weight"] for row in found]
    np.testing.assert_allclose(weights, Madpo().weight(gaps * margins["slope"]), atol=1e-6)
    assert min(weights) < 0.5, "a label against the model weighs little"
    assert max(weights) > 1.1
    card = (deliveries.folder_of(built) / "README.md").read_text()
    assert "not calibrated" not in card


@pytest.mark.parametrize(("asked", "why"), [("calibrated", "fewer than 50"), ("raw", "as asked")])
def test_weights_without_a_temperature_say_so(asked: str, why: str) -> None:
    of = planted(5)
    first_wins(of)
    scores = np.array([[3.0, 1.0]] * 4 + [[np.nan, 1.0]])
    scored_by(of, scores)
    built = version_of(
        of.project, reward_model=1, variants=["madpo-weight"], madpo_margin=asked,
        madpo_largest=3.0, madpo_least=0.2, madpo_steepness=2.0, madpo_threshold=4.0,
    )  # fmt: skip
    told = built.manifest["variants"]["madpo-weight"]
    assert not told["calibrated"]
    assert why in told["why"]
    assert told["missing"] == {"madpo_weight": 1}
    weight = float(Madpo(3.0, 0.2, 2.0, 4.0).weight(2.0))
    found = [row["madpo_weight"] for row in rows(built)]
    assert found.count(None) == 1
    assert [one for one in found if one is not None] == pytest.approx([weight] * 4, abs=1e-6)
    assert "not calibrated" in (deliveries.folder_of(built) / "README.md").read_text()


def test_ensembles_variance_and_strength_over_models_stand_in_rows() -> None:
    of = planted(4)
    first_wins(of)
    one = np.array([[2.0, 0.0], [4.0, 0.0], [6.0, 0.0], [0.0, 8.0]])
    scored_by(of, one, variance=0.25)
    scored_by(of, np.array([[1.0, 0.0]] * 3 + [[np.nan, 0.0]]), number=2)
    built = version_of(
        of.project, reward_model=1, filter_models=[1, 2], variants=["variance", "strength"]
    )
    found = {row["chosen_id"]: row for row in rows(built)}
    assert {row["chosen_variance"] for row in found.values()} == {0.25}
    # Spread within prompts: half the squared gaps, over the prompts that have two.
    spreads = (np.sqrt((np.array([2, 4, 6, 8]) ** 2 / 2).mean()), np.sqrt(0.5))
    margins = np.array([2 / spreads[0], 1 / spreads[1]])
    row = found[of.responses[0, 0]]
    assert row["strength"] == pytest.approx(margins.mean(), abs=1e-6)
    assert row["strength_sd"] == pytest.approx(margins.std(), abs=1e-6)
    assert found[of.responses[3, 0]]["strength"] is None
    told = built.manifest["variants"]
    assert told["strength"]["models"] == ["rm-1", "rm-2"]
    assert told["strength"]["missing"] == {"strength": 1, "strength_sd": 1}


def test_ties_in_both_directions_turn_their_columns_with_them() -> None:
    of = planted(36, by=2)
    first_wins(of, ties=(0,))
    scored_by(of, np.array([[3.0, 1.0]] * 36), variance=0.5)
    built = version_of(
        of.project, reward_model=1, filter_models=[1], ties="both", madpo_margin="raw",
        variants=["reward01", "madpo-weight", "flip-rate", "variance", "strength"],
    )  # fmt: skip
    one, other = (row for row in rows(built) if row["prompt_id"] == of.prompts[0].pk)
    assert one["chosen_id"] == other["rejected_id"]
    assert one["chosen_reward01"] == other["rejected_reward01"]
    assert one["strength"] == -other["strength"]
    assert one["flip_rate"] == pytest.approx(1 - other["flip_rate"])
    gap = 2.0 if one["chosen_id"] == of.responses[0, 0] else -2.0
    assert one["madpo_weight"] == pytest.approx(float(Madpo().weight(gap)), abs=1e-6)
    assert other["madpo_weight"] == pytest.approx(float(Madpo().weight(-gap)), abs=1e-6)


@pytest.mark.parametrize("aggregator", ["majority", "dawid-skene"])
def test_flip_rates_are_how_often_labels_are_wrong(aggregator: str) -> None:
    """Planted raters, three a pair: rows said to be wrong one time in n are wrong that often. The
    share of votes, which takes all raters for equals, is further from the truth."""
    rng = np.random.default_rng(2)
    errors = np.array([0.05, 0.1, 0.15, 0.4, 0.45])
    of = planted(700, by=5)
    truth = rng.choice([1, -1], size=700)
    said = []
    for n in range(700):
        for rater in rng.choice(5, size=3, replace=False):
            wrong = rng.random() < errors[rater]
            said.append((n, 0, 1, int(rater), int(-truth[n] if wrong else truth[n])))
    votes(of, said)
    built = version_of(
        of.project, aggregator=aggregator, variants=["flip-rate"], columns=["p_chosen", "agreement", "response_ids"]
    )  # fmt: skip
    best = {int(of.responses[n, 0 if truth[n] == 1 else 1]) for n in range(700)}
    found = rows(built)
    wrong = np.array([row["chosen_id"] not in best for row in found])
    rate = np.array([row["flip_rate"] for row in found])
    told = built.manifest["variants"]["flip-rate"]
    assert told["method"] == "posterior of dawid-skene"
    assert told["mean"] == pytest.approx(rate.mean(), abs=1e-5)
    assert rate.mean() == pytest.approx(wrong.mean(), abs=0.035)
    naive = 1 - np.array([row["agreement"] for row in found])
    error = np.abs(_binned(rate, wrong)).mean()
    assert error < 0.06
    assert np.mean((rate - wrong) ** 2) < np.mean((naive - wrong) ** 2)
    if aggregator == "dawid-skene":
        np.testing.assert_allclose(rate, [1 - row["p_chosen"] for row in found], atol=1e-6)


def _binned(rate: np.ndarray, wrong: np.ndarray, bins: int = 5) -> np.ndarray:
    """Per fifth of the rows, said less seen."""
    parts = np.array_split(np.argsort(rate, kind="stable"), bins)
    return np.array([rate[part].mean() - wrong[part].mean() for part in parts])


def test_what_all_votes_tell_is_learned_once_for_all_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of, learned = planted(40, by=2), []
    first_wins(of)
    posterior = flip_rates.posterior
    monkeypatch.setattr(
        flip_rates, "posterior", lambda *a, **k: learned.append(1) or posterior(*a, **k)
    )
    once = rows(version_of(of.project, variants=["flip-rate"]))
    assert len(learned) == 1
    twice = rows(version_of(of.project, variants=["flip-rate"], near_duplicates=100))
    assert len(learned) == 2, "one pass looks for duplicates, another writes"
    assert {row["pair_id"]: row["flip_rate"] for row in twice} == {
        row["pair_id"]: row["flip_rate"] for row in once
    }
    assert once[0]["flip_rate"] is not None


def test_flip_rate_of_labels_by_scores_is_the_scores_own() -> None:
    of = planted(5)
    first_wins(of)
    scored_by(of, np.array([[2.0, 1.0]] * 5))
    built = version_of(
        of.project, decided_by="reward-model", reward_model=1, variants=["flip-rate"]
    )
    rates = [row["flip_rate"] for row in rows(built)]
    assert rates == pytest.approx([float(logistic(-1.0))] * 5, abs=2e-6)
    assert "reward-model" in built.manifest["variants"]["flip-rate"]["method"]


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_ratings_by_people_stand_per_attribute(container: str) -> None:
    of = planted(2, by=2)
    first_wins(of)
    task = Task.objects.create(
        project=of.project, prompt=of.prompts[0], kind="rating", judged=2,
        response_ids=of.responses[0].tolist(), content_hash=factories.digest("rating"),
    )  # fmt: skip
    given = Judgment.objects.first()
    for rater, value in zip(of.by, (2, 5), strict=True):
        Judgment.objects.create(
            project=of.project, task=task, rater=rater, ranks=[1, 2],
            ratings={"help": [value, 1], "care": [None, 3]}, submitted_at=given.submitted_at,
        )  # fmt: skip
    built = version_of(of.project, variants=["ratings"], container=container)
    by_prompt = {row["prompt_id"]: row for row in rows(built)}
    row = by_prompt[of.prompts[0].pk]
    if container == "jsonl":
        assert row["chosen_ratings"] == {"help": 3.5, "care": None}
        assert row["rejected_ratings"] == {"help": 1, "care": 3}
    else:
        assert row["chosen_ratings"] == '{"help":3.5,"care":null}'
    assert by_prompt[of.prompts[1].pk]["chosen_ratings"] is None
    told = built.manifest["variants"]["ratings"]
    assert told["attributes"] == ["help", "care"]
    assert told["missing"] == {"chosen_ratings": 1, "rejected_ratings": 1}


# Filters ----------------------------------------------------------------------------------------


def dropped(version: DatasetVersion) -> dict[str, int]:
    found: dict[str, int] = version.manifest["counts"]["dropped"]
    return found


def test_a_band_of_margins_is_signed_and_a_missing_score_is_its_own_reason() -> None:
    of = planted(10)
    first_wins(of, ties=(9,))
    gaps = np.array([-3, -2, -1, 0, 1, 2, 3, 4, np.nan, -9.0])
    scored_by(of, np.stack([gaps, np.zeros(10)], 1))
    scale = float(np.sqrt((np.nan_to_num(gaps) ** 2 / 2).sum() / 9))
    built = version_of(
        of.project, reward_model=1, least_margin=-1.5 / scale, most_margin=3.5 / scale, ties="soft"
    )
    assert dropped(built) == {"no_score": 1, "filter_margin": 3}
    assert len(rows(built)) == 6, "five in the band and the tie, whose label is none"
    assert built.manifest["filter_margin"]["least"] == pytest.approx(-1.5 / scale)


def flipped_world() -> tuple[Planted, np.ndarray, np.ndarray]:
    """600 pairs of which a fifth is labeled wrong, and three models: the truth with noise."""
    rng = np.random.default_rng(3)
    of = planted(600)
    gap = np.abs(rng.normal(size=600)) * 2
    wrong = rng.random(600) < 0.2
    votes(of, [(n, 0, 1, 0, -1 if wrong[n] else 1) for n in range(600)])
    quality = np.stack([gap, np.zeros(600)], 1)
    for number in (1, 2, 3):
        scored_by(of, quality + rng.normal(size=(600, 2)), number=number)
    return of, gap, wrong


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"drop_contradicted": "all"}, "filter_agreement"),
        ({"drop_losses": 30.0}, "filter_loss"),
        ({"drop_weakest": 20.0}, "filter_strength"),
    ],
)
def test_models_find_flipped_labels_and_lose_hard_right_ones(
    options: dict[str, Any], reason: str
) -> None:
    """The method, its honest baselines (rows left out at random; one model alone) and its price."""
    of, gap, wrong = flipped_world()
    flips = dict(zip((p.pk for p in of.prompts), wrong.tolist(), strict=True))
    gaps = dict(zip((p.pk for p in of.prompts), gap.tolist(), strict=True))

    def kept_by(models: list[int]) -> set[int]:
        built = version_of(of.project, filter_models=models, **options)
        kept = {row["prompt_id"] for row in rows(built)}
        assert dropped(built) == {reason: 600 - len(kept)}
        assert built.manifest[reason]["models"] == [f"rm-{n}" for n in models]
        return kept

    kept = kept_by([1, 2, 3])
    base, purity = 1 - wrong.mean(), 1 - np.mean([flips[pk] for pk in kept])
    assert purity > base + 0.07, f"{purity:.3f} of the kept are right, at random {base:.3f}"
    out = set(flips) - kept
    precision = np.mean([flips[pk] for pk in out])
    alone = set(flips) - kept_by([2])
    assert precision > np.mean([flips[pk] for pk in alone]), "three know more than one"
    lost = [gaps[pk] for pk in out if not flips[pk]]
    assert lost, "right pairs are lost too"
    assert np.mean(lost) < 0.6 * gap.mean(), "and they are the hard ones"


def test_a_share_is_cut_at_the_end_and_told_in_the_manifest() -> None:
    of = planted(10)
    first_wins(of)
    for number in (1, 2):
        scored_by(of, np.stack([np.arange(10.0) - 2, np.zeros(10)], 1), number=number)
    built = version_of(of.project, filter_models=[1, 2], drop_weakest=30.0)
    told = built.manifest["filter_strength"]
    assert {row["chosen_id"] for row in rows(built)} == set(of.responses[3:, 0].tolist())
    assert told["below_zero"] == 0.2
    assert (told["rows"], told["percent"]) == (10, 30.0)
    assert told["cut_at"] > 0
    assert told["mean_sd_over_models"] == 0
    assert told["agrees_with_labels"] == [0.7, 0.7]
    assert told["by_heart"] == []


def test_models_that_know_the_labels_by_heart_are_named() -> None:
    of = planted(6)
    first_wins(of)
    scored_by(of, np.array([[2.0, 0.0]] * 6))
    scored_by(of, np.array([[2.0, 0.0]] * 5 + [[0.0, 1.0]]), number=2)
    built = version_of(of.project, filter_models=[1, 2], drop_losses=10.0)
    assert built.manifest["filter_loss"]["by_heart"] == ["rm-1"]


def test_an_answer_that_one_of_the_models_has_not_scored_drops_its_row() -> None:
    of = planted(4)
    first_wins(of)
    scored_by(of, np.array([[2.0, 0.0]] * 4))
    scored_by(of, np.array([[2.0, 0.0]] * 3 + [[2.0, np.nan]]), number=2)
    built = version_of(of.project, filter_models=[1, 2], drop_contradicted="all")
    assert dropped(built) == {"no_score": 1}


def test_only_drawn_answers_stand_in_rows_and_the_seed_decides_which() -> None:
    rng = np.random.default_rng(4)
    of = planted(30, k=4)
    votes(of, [(n, a, b, 0, 1) for n in range(30) for a in range(4) for b in range(a + 1, 4)])
    scores = rng.normal(size=(30, 4))
    scores[0, 3] = np.nan
    scored_by(of, scores)
    options = {"reward_model": 1, "draw_answers": 2, "draw_beta": 0.3}
    built = version_of(of.project, **options)
    scale = built.manifest["rewards"]["reward_model"]["scale"]
    aim = set()
    for n, prompt in enumerate(of.prompts):
        known = np.flatnonzero(np.isfinite(scores[n]))
        places = draw(
            scores[n, known] / scale, count=2, beta=0.3, rng=np.random.default_rng([0, prompt.pk])
        )
        aim.add(frozenset(of.responses[n, known[places]].tolist()))
    found = {frozenset((row["chosen_id"], row["rejected_id"])) for row in rows(built)}
    assert found == aim
    assert dropped(built) == {"no_score": 3, "filter_drawn": 6 * 30 - 3 - 30}
    assert version_of(of.project, **options).checksum == built.checksum
    assert version_of(of.project, **options, draw_seed=1).checksum != built.checksum
    best = version_of(of.project, **options | {"draw_beta": 1e-6})
    tops = {frozenset(of.responses[n, np.argsort(-scores[n])[:2]].tolist()) for n in range(1, 30)}
    assert tops <= {frozenset((row["chosen_id"], row["rejected_id"])) for row in rows(best)}


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ["reward01"]}, "needs reward_model"),
        ({"variants": ["madpo-weight"]}, "needs reward_model"),
        ({"variants": ["strength"]}, "needs filter_models"),
        ({"variants": ["ches"]}, "needs causal_model"),
        ({"drop_ches": 5.0}, "needs causal_model"),
        ({"drop_weakest": 5.0}, "need filter_models"),
        ({"least_margin": 0.0}, "needs reward_model"),
        ({"draw_answers": 4}, "needs reward_model"),
        ({"reward_model": 1, "least_margin": 2.0, "most_margin": 1.0}, "is above"),
        ({"filter_models": [1, 1]}, "names a model twice"),
        ({"filter_models": [7], "drop_weakest": 5.0}, "no reward model 7"),
        ({"variants": ["ratings"]}, "Nobody has rated"),
        ({"variants": ["nonsense"]}, "variants"),
        ({"variants": ["ches"], "causal_model": "/etc"}, "neither a model id"),
        ({"variants": ["ches"], "causal_model": "a\0b"}, "null character"),
    ],
)
def test_a_recipe_without_what_it_reads_is_refused_at_the_start(
    options: dict[str, Any], message: str
) -> None:
    of = planted(2)
    first_wins(of)
    with pytest.raises(Invalid, match=message):
        exports.start(project=of.project, format="trl-preference", options=options, by=None)
    assert not Run.objects.filter(project=of.project, kind=Run.Kind.EXPORT).exists()
