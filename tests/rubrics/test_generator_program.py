"""The generator that asks nobody: planted preferences, hostile texts, real votes."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.importers.transcripts import parse, split_reply
from rubrics.generators import GENERATORS
from rubrics.generators.program_options import ProgramGeneratorOptions
from rubrics.generators.types import Generated, PreferencePair, Silent
from rubrics.judging.types import Candidate
from rubrics.programs import PROGRAMS
from rubrics.registry import pick
from tests.rubrics.generators import pair as pictured
from tests.rubrics.generators import picture

PARTS = {
    "list": "- one point\n- another point",
    "bold": "**This matters.**",
    "apology": "I am sorry about that.",
    "emoji": "It is nice 🙂",
    "question": "Shall I go on?",
    "heading": "# In short",
}
TASTE = {"list": 2.0, "bold": 1.2, "apology": -1.6}  # what a part is worth
PLANTED = {"list": 1, "bold": 1, "apology": -1}  # programs with the polarity they should get
WORDS = [
    "the",
    "whale",
    "swims",
    "below",
    "bridges",
    "where",
    "green",
    "tea",
    "grows",
    "along",
    "a",
    "quiet",
    "northern",
    "river",
]


def pair(
    at: int, chosen: str, rejected: str, *, group: int | None = None, prompt: str = "Tell me."
) -> PreferencePair:
    return PreferencePair(
        id=1000 + at,
        group=at if group is None else group,
        messages=[{"role": "user", "content": prompt}],
        chosen=Candidate(chosen),
        rejected=Candidate(rejected),
        judgments=(at,),
    )


def planted(n: int, seed: int, *, per_group: int = 2) -> list[PreferencePair]:
    """Pairs of texts with some of PARTS in some words; people follow TASTE, by Bradley-Terry."""
    rng = np.random.default_rng(seed)
    pairs = []
    for at in range(n):
        texts, utilities = [], []
        for _ in range(2):
            has = {name: bool(rng.uniform() < 0.4) for name in PARTS}
            words = " ".join(rng.choice(WORDS, size=int(rng.integers(8, 40))))
            apology = PARTS["apology"] if has["apology"] else ""
            rest = [PARTS[name] for name in PARTS if has[name] and name != "apology"]
            texts.append("\n\n".join([f"{apology} {words.capitalize()}.".strip(), *rest]))
            utilities.append(sum(worth * has[name] for name, worth in TASTE.items()))
        first = rng.uniform() < 1 / (1 + np.exp(utilities[1] - utilities[0]))
        chosen, rejected = texts if first else texts[::-1]
        pairs.append(pair(at, chosen, rejected, group=at // per_group))
    return pairs


def generate(pairs: list[PreferencePair], journal: Any = None, **options: Any) -> Generated:
    options = {"outer_folds": 0} | options
    generator = pick(GENERATORS, "program")(ProgramGeneratorOptions(**options))
    return asyncio.run(generator.generate(pairs, call=None, journal=journal or Silent()))


# Planted preferences ----------------------------------------------------------------------------


def test_planted_taste_is_found_with_its_direction() -> None:
    pairs = planted(500, 0)
    found = generate(pairs, bootstraps=20)
    named = {one.program: one for one in found.criteria}
    strongest = sorted(named, key=lambda key: -abs(named[key].figures["strength"] or 0))
    assert PLANTED.items() <= {key: one.polarity for key, one in named.items()}.items()
    # "no-markdown" says the same as a list and bold text turned around.
    assert set(strongest[:4]) - {"no-markdown"} >= set(PLANTED)
    for key in PLANTED:
        one = named[key]
        assert one.verifier == "program"
        assert one.weight is not None
        assert one.weight * one.polarity > 0
        assert one.figures["frequency"] == 1
        assert (one.figures["weight_low"] or 0) * (one.figures["weight_high"] or 0) > 0
        assert (one.figures["precision"] or 0) > 0.55
    held = found.figures["held_out"]
    assert held["accuracy"] > held["baselines"]["longer wins"]["accuracy"]
    assert held["gains"]["longer wins"]["interval"][0] > 0
    assert held["accuracy"] > held["baselines"]["equal weights"]["accuracy"]
    assert found.figures["fitted"] + held["n"] == found.figures["pairs"] == 500
    assert found.figures["calls_per_pair"] == 0
    json.dumps(found.figures, allow_nan=False)


def test_the_method_is_measured_over_all_prompts() -> None:
    found = generate(planted(200, 10), bootstraps=0, outer_folds=2)
    overall = found.figures["cross_validated"]
    assert overall["n"] == 200
    assert overall["groups"] == 100
    assert overall["interval"][0] > 0.5
    longer, shorter = (overall["baselines"][f"{name} wins"] for name in ("longer", "shorter"))
    assert longer["accuracy"] + shorter["accuracy"] + longer["ties"] / 200 == pytest.approx(1)
    assert generate(planted(40, 0), bootstraps=0).figures["cross_validated"] is None


def test_evidence_names_pairs_that_say_so() -> None:
    pairs = planted(300, 1)
    by_id = {one.id: one for one in pairs}
    found = generate(pairs, bootstraps=0)
    listed = next(one for one in found.criteria if one.program == "list")
    assert [one.supports for one in listed.evidence] == [True] * 3 + [False] * 2
    for one in listed.evidence:
        said = by_id[one.pair]
        better, worse = said.chosen.text, said.rejected.text
        assert (PARTS["list"] in better) == one.supports
        assert (PARTS["list"] in worse) != one.supports
        assert one.judgment == one.pair - 1000


def test_it_says_the_same_again() -> None:
    pairs = planted(120, 2)
    assert generate(pairs, bootstraps=3) == generate(list(pairs), bootstraps=3)
    other = generate(pairs, bootstraps=3, seed=1)
    assert other.figures["held_out"] != generate(pairs, bootstraps=3).figures["held_out"]


def test_people_who_prefer_the_longer_are_told_so() -> None:
    """Length is found, noted, and does not beat "longer wins"; left out, it is not used."""
    rng = np.random.default_rng(3)
    pairs = []
    for at in range(240):
        short, long = (" ".join(rng.choice(WORDS, size=size)) for size in (12, 30))
        sides = (long, short) if rng.uniform() < 0.9 else (short, long)
        pairs.append(pair(at, *sides))
    found = generate(pairs, bootstraps=0)
    held = found.figures["held_out"]
    assert any("length" in note for note in found.notes)
    assert found.figures["length_correlation"] > 0.5
    assert held["gains"]["longer wins"]["interval"][0] <= 0
    assert held["baselines"]["longer wins"] == held["baselines"]["length, direction learned"]
    without = generate(pairs, bootstraps=0, leave_out=["length", "novelty"])
    keys = {one.program for one in without.criteria}
    assert not {"characters", "words", "sentences", "novelty"} & keys
    assert not without.notes or "length" not in without.notes[0]


def test_nothing_is_promised_of_coin_flips() -> None:
    pairs = [
        one if at % 2 else pair(at, one.rejected.text, one.chosen.text, group=one.group)
        for at, one in enumerate(planted(200, 4))
    ]
    rng = np.random.default_rng(5)
    flipped = [
        pair(at, one.rejected.text, one.chosen.text, group=one.group)
        if rng.uniform() < 0.5
        else one
        for at, one in enumerate(pairs)
    ]
    found = generate(flipped, bootstraps=0)
    held = found.figures.get("held_out")
    assert held is None or held["interval"][0] < 0.5


# Limits and journal -----------------------------------------------------------------------------


def test_coverage_and_top_are_limits() -> None:
    pairs = planted(200, 6)
    one = generate(pairs, bootstraps=0, top=1)
    assert len(one.criteria) == 1
    rare = generate(pairs, bootstraps=0, min_coverage=0.4)
    assert rare.dropped["tells too few pairs apart"] > one.dropped["tells too few pairs apart"]
    assert all((each.figures["coverage"] or 0) > 0.3 for each in rare.criteria)


def test_answers_that_are_all_the_same_give_no_criteria() -> None:
    found = generate([pair(at, "Yes.", "Yes.") for at in range(20)])
    assert found.criteria == ()
    assert found.notes == ("No program tells enough of these pairs apart.",)
    assert found.dropped == {"tells too few pairs apart": len(PROGRAMS)}


def test_too_few_prompts_and_pictures_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="of 9 prompts"):
        generate([pair(at, "Yes.", "No!", group=at % 9) for at in range(50)])
    drawn = [pictured(at, picture(1), picture(2)) for at in range(20)]
    with pytest.raises(ValueError, match="these answers are pictures; a method that asks"):
        generate(drawn)
    mixed = generate([*planted(60, 7), *drawn], bootstraps=0)
    assert mixed.dropped["a side without text"] == 20
    assert mixed.figures["pairs"] == 60


class Stopping(Silent):
    """A journal that ends the run at its n-th look."""

    def __init__(self, looks: int) -> None:
        self.looks, self.stages, self.told = looks, list[str](), list[tuple[int, int]]()

    def stage(self, key: str, label: str) -> None:
        self.stages.append(key)

    def progress(self, done: int, total: int, unit: str) -> None:
        self.told.append((done, total))

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            raise InterruptedError


def test_the_journal_is_told_and_can_end_it() -> None:
    pairs = planted(450, 8)
    patient = Stopping(10_000)
    generate(pairs, patient, bootstraps=0)
    assert patient.stages == ["evaluate", "refine"]
    assert patient.told == [(200, 450), (400, 450), (450, 450), (0, 1), (1, 1)]
    hasty = Stopping(1)
    with pytest.raises(InterruptedError):
        generate(pairs, hasty)
    assert hasty.told == [(200, 450)]
    midway = Stopping(40)  # between two fits: a run of 100,000 pairs must not go on for a minute
    with pytest.raises(InterruptedError):
        generate(pairs, midway)
    assert midway.told[-1] == (0, 1)


def test_groups_and_keys_of_programs_can_be_left_out() -> None:
    options = ProgramGeneratorOptions(leave_out=["length", "emoji", "Length"])
    assert options.leave_out == ["Length", "emoji"]
    with pytest.raises(ValueError, match="no group or program 'nonsense'"):
        ProgramGeneratorOptions(leave_out=["nonsense"])
    groups = list({row.group for row in PROGRAMS.values()})
    with pytest.raises(ValueError, match="all programs are left out"):
        generate(planted(30, 9), leave_out=groups)


@given(
    texts=st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=10, max_size=14)
)
@settings(max_examples=8, deadline=None)
def test_any_texts_are_read(texts: list[tuple[str, str]]) -> None:
    found = generate([pair(at, *sides) for at, sides in enumerate(texts)], bootstraps=1)
    json.dumps(found.figures, allow_nan=False)
    assert all(np.isfinite(one.weight or 0) for one in found.criteria)


# Real votes -------------------------------------------------------------------------------------


def pandalm(folder: Path) -> Iterator[PreferencePair]:
    """Pairs on which at least two of three people name the same better answer."""
    prompts: dict[str, int] = {}
    for at, row in enumerate(json.loads((folder / "testset-v1.json").read_text())):
        votes = [row[f"annotator{rater}"] for rater in (1, 2, 3)]
        best = next((side for side in (1, 2) if votes.count(side) >= 2), None)
        if best is not None:
            prompt = f"{row['instruction']}\n\n{row['input']}".strip()
            answers = [str(row["response1"]), str(row["response2"])]
            group = prompts.setdefault(prompt, len(prompts))
            yield pair(at, answers[best - 1], answers[2 - best], group=group, prompt=prompt)


def harmless(folder: Path) -> Iterator[PreferencePair]:
    """Pairs of one last answer each; conversations that begin alike are of one group."""
    openings: dict[str, int] = {}
    with gzip.open(folder / "harmless-base-test.jsonl.gz", "rt") as lines:
        for at, line in enumerate(lines):
            row = json.loads(line)
            one, other = parse(row["chosen"]), parse(row["rejected"])
            shared = split_reply(one, other)
            if shared and len(one) == len(other) == shared + 1:
                yield PreferencePair(
                    id=at,
                    group=openings.setdefault(one[0]["content"], len(openings)),
                    messages=one[:shared],
                    chosen=Candidate(one[-1]["content"]),
                    rejected=Candidate(other[-1]["content"]),
                )


@pytest.mark.data
def test_pandalm_is_told_beside_longer_wins(data_dir: Path) -> None:
    """894 pairs of 158 prompts. The programs come out level with length, no better."""
    pairs = list(pandalm(data_dir / "pandalm"))
    assert len(pairs) == 894
    found = generate(pairs, bootstraps=10, outer_folds=5)
    held = found.figures["held_out"]
    overall = found.figures["cross_validated"]
    assert overall["n"] == 894
    assert overall["interval"][0] > 0.5
    length = held["baselines"]["longer wins"]
    assert length["n"] == held["n"] > 150
    assert 0.6 < length["accuracy"] < 0.8
    assert 0.58 < held["accuracy"] < 0.8
    low, high = held["gains"]["longer wins"]["interval"]
    assert low < 0 < high, "it is not better than length, and says so"
    polarity = {one.program: one.polarity for one in found.criteria}
    assert polarity["characters"] == 1
    assert polarity["copied"] == -1
    assert found.notes


@pytest.mark.data
def test_harmless_is_told_beside_longer_wins(data_dir: Path) -> None:
    """2,307 pairs: people prefer the shorter here, and an apology to swearing."""
    pairs = list(harmless(data_dir / "hh_rlhf"))
    assert len(pairs) == 2307
    found = generate(pairs, bootstraps=10)
    held = found.figures["held_out"]
    assert held["interval"][0] > 0.5
    assert held["baselines"]["longer wins"]["accuracy"] < 0.5
    assert held["gains"]["longer wins"]["interval"][0] > 0
    assert held["baselines"]["length, direction learned"]["accuracy"] > 0.5
    polarity = {one.program: one.polarity for one in found.criteria}
    expected = {"characters": -1, "apology": 1, "profanity": -1}
    assert expected.items() <= polarity.items()
