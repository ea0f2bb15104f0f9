"""Rules over all rows: near-duplicates found as an exact search finds them, lengths matched."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.exporters import shingles
from annotator.exporters.length_matching import surplus
from annotator.models import Project, Prompt, Rater
from tests import factories
from tests.annotator.ballots import judged_pair, raters
from tests.annotator.test_exports import rows_of, version_of

VOCABULARY = [f"word{number}" for number in range(2_000)]

Texts = tuple[str, str, str]  # prompt, chosen, rejected


def sentence(rng: random.Random, length: int = 60) -> str:
    return " ".join(rng.choices(VOCABULARY, k=length))


def worded(rng: random.Random, text: str, changes: int) -> str:
    """The same text with some words replaced."""
    words = text.split()
    for place in rng.sample(range(len(words)), min(changes, len(words))):
        words[place] = rng.choice(VOCABULARY)
    return " ".join(words)


def of(text: str) -> frozenset[int]:
    return shingles.triples(shingles.words(text))


def alike(one: Texts, other: Texts, percent: int) -> bool:
    """The definition, on the texts."""

    def near(a: frozenset[int], b: frozenset[int]) -> bool:
        return 100 * len(a & b) / len(a | b) >= percent

    (p, a, b), (q, c, d) = ([of(text) for text in texts] for texts in (one, other))
    answers = (near(a, c) and near(b, d)) or (near(a, d) and near(b, c))
    return answers and near(p | a | b, q | c | d)


def judged(project: Project, texts: Texts, by: list[Rater], **fields: Any) -> Prompt:
    prompt = factories.prompt(project, texts[0], **fields)
    judged_pair(project, [1] * len(by), by=by, texts=texts[1:], of=prompt)
    return prompt


@given(st.sets(st.sampled_from(VOCABULARY[:40])), st.sets(st.sampled_from(VOCABULARY[:40])))
def test_signatures_are_of_sets(one: set[str], other: set[str]) -> None:
    texts = [" ".join(sorted(words)) for words in (one, other)]
    parts = [shingles.words(text) for text in texts]
    together, turned = shingles.signatures([parts, parts[::-1]])
    assert (together == turned).all()
    assert shingles.jaccard(of(texts[0]), of(texts[1])) == pytest.approx(
        len(of(texts[0]) & of(texts[1])) / len(of(texts[0]) | of(texts[1]))
    )


def test_signatures_tell_the_similarity_of_texts_of_any_length() -> None:
    rng, gaps = random.Random(3), []
    for length in (5, 30, 400):
        for changes in range(0, length, max(1, length // 20)):
            one = sentence(rng, length)
            other = worded(rng, one, changes)
            a, b = shingles.signatures([[shingles.words(one)], [shingles.words(other)]])
            gaps.append((a == b).mean() - shingles.jaccard(of(one), of(other)))
    assert abs(np.mean(gaps)) < 0.03
    assert np.std(gaps) < 0.5 / np.sqrt(shingles.HASHES)


def test_words_are_of_any_script_and_the_same_in_every_process() -> None:
    assert shingles.words("Naïve, “naïve”! NAÏVE") == [shingles.words("naïve naïve naïve")[0]] * 3
    assert len(set(shingles.words("日本語の文。"))) == 5
    assert shingles.words("") == [0, 0, 0]
    assert shingles.words("one two three") == [2053932785, 298486374, 1187371253]


def test_rows_that_share_a_band_with_very_many_cost_few_comparisons() -> None:
    same = np.tile(np.arange(shingles.HASHES, dtype=np.uint8), (3_000, 1))
    pairs = shingles.alike(same, np.arange(3_000), least=0.8)
    assert len(pairs) < 5 * 3_000
    assert set(range(1, 3_000)) <= set(pairs[pairs[:, 0] == 0][:, 1].tolist()), "all meet the best"


@pytest.mark.django_db(transaction=True)
def test_near_duplicates_are_those_of_an_exact_search() -> None:
    rng, percent = random.Random(11), 70
    project = factories.project()
    people = raters(project, 2)
    planted: list[Texts] = []
    for _ in range(40):
        texts = (sentence(rng, 12), sentence(rng), sentence(rng))
        planted.append(texts)
        # Around the threshold on both sides, and answers in either order.
        changes = rng.randrange(0, 8)
        one, other = (worded(rng, text, changes) for text in texts[1:])
        planted.append((texts[0] + " again", *rng.sample([one, other], 2)))
    found = {texts: judged(project, texts, people) for texts in planted}
    exact = [(a, b) for n, a in enumerate(planted) for b in planted[:n] if alike(a, b, percent)]
    assert 10 < len(exact) < 40, "some pairs are planted on either side"
    version = version_of(project, near_duplicates=percent)
    kept = {row["prompt_id"] for row in rows_of(version)["train"]}
    both = [pair for pair in exact if {found[texts].pk for texts in pair} <= kept]
    assert len(both) <= 0.05 * len(exact), "recall against the exact search"
    gone = {texts for texts in planted if found[texts].pk not in kept}
    assert gone <= {texts for pair in exact for texts in pair}, "nothing else is left out"
    assert len(gone) == version.manifest["counts"]["dropped"]["near_duplicate"]
    told = version.manifest["near_duplicates"]
    assert (told["rows"], told["across_splits"]) == (len(gone), 0)
    assert told["found_at_threshold"] == pytest.approx(shingles.chance(0.7), abs=1e-4)
    assert version_of(project, near_duplicates=percent).checksum == version.checksum


@pytest.mark.django_db(transaction=True)
def test_the_better_voted_of_two_near_duplicates_is_kept() -> None:
    rng, project = random.Random(5), factories.project()
    people = raters(project, 3)
    texts = (sentence(rng), sentence(rng), sentence(rng))
    judged(project, texts, people[:1])
    better = judged(project, (texts[0] + " please", *texts[1:]), people)
    version = version_of(project, near_duplicates=80)
    assert [row["prompt_id"] for row in rows_of(version)["train"]] == [better.pk]


@pytest.mark.django_db(transaction=True)
def test_prompts_almost_like_one_in_a_cleaner_split_are_left_out_whatever_their_answers() -> None:
    rng, project = random.Random(7), factories.project()
    people = raters(project, 3)
    prompt = sentence(rng)
    kept = {}
    for split in ("train", "validation", "test"):
        texts = (f"{prompt} {split}", sentence(rng), sentence(rng))
        kept[split] = judged(
            project, texts, people if split == "train" else people[:1], split=split
        )
    other = judged(project, (sentence(rng), sentence(rng), sentence(rng)), people)
    version = version_of(project, near_duplicates=80)
    rows = rows_of(version)
    assert {split: [row["prompt_id"] for row in some] for split, some in rows.items()} == {
        "train": [other.pk],
        "test": [kept["test"].pk],
    }
    told = version.manifest["near_duplicates"]
    assert (told["rows"], told["across_splits"], told["prompts"]) == (2, 2, 2)


@pytest.mark.django_db(transaction=True)
def test_a_long_prompt_that_pairs_share_does_not_make_them_one() -> None:
    rng, project = random.Random(9), factories.project()
    people = raters(project, 1)
    prompt = factories.prompt(project, sentence(rng, 400))
    for _ in range(4):
        answers = sentence(rng, 12), sentence(rng, 12)
        judged_pair(project, [1], by=people, texts=answers, of=prompt)
    assert version_of(project, near_duplicates=80).rows == 4


SIZES = st.lists(st.tuples(st.integers(-60, 60), st.integers(0, 2)), max_size=200)


@given(SIZES)
def test_matched_lengths_have_as_many_of_either_sign_in_every_bin(
    rows: list[tuple[int, int]],
) -> None:
    gaps, splits = (np.array([row[side] for row in rows], dtype=np.int64) for side in (0, 1))
    draws = np.random.default_rng(0).integers(2**63, size=len(rows), dtype=np.uint64)
    out = surplus(gaps, splits, draws)
    assert not out[gaps == 0].any()
    bins = np.floor(2 * np.log2(np.maximum(np.abs(gaps), 1)))
    for key in set(zip(splits.tolist(), bins.tolist(), strict=True)):
        mine = (splits == key[0]) & (bins == key[1]) & (gaps != 0)
        longer, shorter = (int((mine & (gaps * sign > 0)).sum()) for sign in (1, -1))
        kept = [int((mine & ~out & (gaps * sign > 0)).sum()) for sign in (1, -1)]
        assert kept == [min(longer, shorter)] * 2
    order = np.random.default_rng(1).permutation(len(rows))
    again = surplus(gaps[order], splits[order], draws[order])
    assert (again == out[order]).all(), "which rows go does not hang on their order"


@pytest.mark.django_db(transaction=True)
def test_matched_lengths_take_the_bias_out_of_an_export() -> None:
    rng, project = random.Random(2), factories.project()
    (rater,) = raters(project, 1)
    for number in range(90):
        long, short = "y" * rng.randrange(40, 80), "n" * rng.randrange(5, 40)
        chosen, rejected = (long, short) if rng.random() < 0.75 else (short, long)
        judged_pair(project, [1], by=[rater], texts=(f"{number} {chosen}", f"{number} {rejected}"))
    biased, matched = (version_of(project, lengths=how) for how in ("any", "matched"))
    low, _ = biased.manifest["health"]["chosen_longer"]["interval"]
    assert low > 0.5
    low, high = matched.manifest["health"]["chosen_longer"]["interval"]
    assert low < 0.5 < high
    told = matched.manifest["length_matching"]
    assert told["after"]["share"] == 0.5
    assert told["before"]["share"] > 0.6
    assert told["dropped"] == matched.manifest["counts"]["dropped"]["length_matched"]
    assert version_of(project, lengths="matched").checksum == matched.checksum
