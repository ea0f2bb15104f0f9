"""The demo set is sound, and what was planted in its simulated raters can be found again."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from annotator.demo.simulate import (
    PROMPTS,
    DemoPrompt,
    DemoResponse,
    SimulatedRater,
    SimulatedVote,
    load_prompts,
    load_raters,
    pairs_of,
    simulate_votes,
)
from models.intervals import Interval, wilson

CATEGORIES = {
    "advice",
    "code",
    "data",
    "explanation",
    "factual",
    "math",
    "multi-turn",
    "refusal",
    "summary",
    "writing",
}
GENERATORS = {"brook-7b", "cedar-13b", "delta-mini", "elm-chat"}
SEEDS = (1, 20, 300)


@pytest.fixture(scope="module")
def prompts() -> list[DemoPrompt]:
    return load_prompts()


@pytest.fixture(scope="module")
def raters() -> list[SimulatedRater]:
    return load_raters()


@pytest.fixture(scope="module")
def everybody(prompts, raters) -> list[SimulatedVote]:
    """Every rater on every pair, three times over: some 6,000 votes."""
    return [
        vote
        for seed in SEEDS
        for vote in simulate_votes(prompts, raters, overlap=len(raters), seed=seed)
    ]


def unequal_pairs(prompts) -> list[tuple[DemoResponse, DemoResponse]]:
    """All pairs of one prompt as (better, worse)."""
    return [
        (a, b) if a.quality > b.quality else (b, a)
        for prompt in prompts
        for a, b in combinations(prompt.responses, 2)
        if a.quality != b.quality
    ]


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


# --- the texts -----------------------------------------------------------------------------------


def test_rows_have_the_documented_shape():
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 60
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["category"] for row in rows} == CATEGORIES
    for row in rows:
        assert set(row) == {"id", "category", "messages", "responses"}
        assert 2 <= len(row["responses"]) <= 4, row["id"]
        for response in row["responses"]:
            assert set(response) == {"text", "generator", "sampling", "quality", "flaw"}
            assert response["generator"] in GENERATORS
            assert set(response["sampling"]) == {"temperature", "seed"}
            assert response["text"].strip()


def test_conversations_alternate_and_end_with_the_user(prompts):
    for prompt in prompts:
        roles = [message["role"] for message in prompt.messages]
        turns = roles[1:] if roles[0] == "system" else roles
        expected = ["user", "assistant"] * len(turns)
        assert turns == expected[: len(turns)], prompt.id
        assert turns[-1] == "user", prompt.id
        assert 3 <= len(roles) <= 7 if prompt.category == "multi-turn" else len(roles) == 1


def test_text_is_stored_as_readable_unicode():
    text = PROMPTS.read_text(encoding="utf-8")
    assert not re.search(r"\\u[0-9a-f]{4}", text)
    for sample in ("السلام", "京都", "⚠️", "√2"):
        assert sample in text


def test_no_prompt_repeats_a_response_or_a_generator(prompts):
    for prompt in prompts:
        texts = {" ".join(response.text.split()) for response in prompt.responses}
        generators = {response.generator for response in prompt.responses}
        assert len(texts) == len(generators) == len(prompt.responses), prompt.id


def test_low_quality_always_has_its_reason(prompts):
    for prompt in prompts:
        for response in prompt.responses:
            assert response.flaw or response.quality >= 0.8, (prompt.id, response.generator)


def test_length_tells_nothing_about_quality(prompts):
    pairs = unequal_pairs(prompts)
    shorter = sum(len(better.text) < len(worse.text) for better, worse in pairs)
    longer = sum(len(better.text) > len(worse.text) for better, worse in pairs)
    assert 0.4 <= shorter / len(pairs) <= 0.6
    low, high = wilson(longer, shorter + longer)
    assert low <= 0.5 <= high


def test_generators_differ_but_overlap(prompts):
    qualities = defaultdict(list)
    for prompt in prompts:
        for response in prompt.responses:
            qualities[response.generator].append(response.quality)
    mean = {generator: sum(values) / len(values) for generator, values in qualities.items()}
    assert mean["elm-chat"] > mean["cedar-13b"] + 0.05 > mean["brook-7b"] + 0.1
    assert mean["brook-7b"] > mean["delta-mini"] + 0.05
    assert max(qualities["delta-mini"]) > 0.9
    assert min(qualities["elm-chat"]) < 0.4


def test_every_leaked_model_name_is_flagged(prompts):
    names = re.compile("|".join(GENERATORS), flags=re.IGNORECASE)
    leaks = [r for prompt in prompts for r in prompt.responses if names.search(r.text)]
    assert len(leaks) >= 2
    for response in leaks:
        assert names.search(response.text).group().lower() == response.generator
        assert "names itself" in response.flaw


def test_python_in_good_answers_compiles(prompts):
    blocks = [
        (prompt.id, block)
        for prompt in prompts
        for response in prompt.responses
        if response.quality >= 0.8
        for block in fenced(response.text, "python")
        if not block.startswith(">>>")
    ]
    assert len(blocks) >= 8
    for name, block in blocks:
        compile(block, name, "exec")


def test_markdown_fences_are_closed(prompts):
    texts = [r.text for prompt in prompts for r in prompt.responses]
    texts += [message["content"] for prompt in prompts for message in prompt.messages]
    for text in texts:
        assert len(re.findall(r"^\s*```", text, flags=re.MULTILINE)) % 2 == 0, text[:80]
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        assert prose.count("$") % 2 == 0, text[:80]


def test_the_script_tag_appears_only_as_code(prompts):
    texts = [r.text for prompt in prompts for r in prompt.responses if "<script" in r.text]
    assert any(fenced(text, "html") for text in texts)
    for text in texts:
        assert "<script" not in re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)


def test_a_broken_line_is_named(tmp_path: Path):
    first = PROMPTS.read_text(encoding="utf-8").splitlines()[0]
    path = tmp_path / "prompts.jsonl"
    for broken in ('{"id": "x"}', "{", first.replace('"quality": 0.', '"quality": 7.')):
        path.write_text(f"{first}\n{broken}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"prompts\.jsonl, line 2"):
            load_prompts(path)


def test_a_rater_with_a_misspelled_parameter_is_refused(tmp_path: Path):
    path = tmp_path / "raters.json"
    path.write_text('[{"name": "x", "flips": 0.1}]', encoding="utf-8")
    with pytest.raises(ValueError, match="flips"):
        load_raters(path)


# --- the votes -----------------------------------------------------------------------------------


def share(votes, prompts, hit) -> Interval:
    """Wilson interval of the share of decided votes for which ``hit(vote, first, second)``."""
    responses = {prompt.id: prompt.responses for prompt in prompts}
    decided = [vote for vote in votes if vote.outcome != "tie"]
    hits = sum(hit(v, *(responses[v.prompt_id][index] for index in v.pair)) for v in decided)
    return wilson(hits, len(decided))


def agrees(vote, first, second) -> bool:
    return (vote.outcome == "a") == (first.quality > second.quality)


def takes_the_first_shown(vote, _first, _second) -> bool:
    return (vote.outcome == "a") == (vote.shown_order == (0, 1))


def takes_the_longer(vote, first, second) -> bool:
    return (vote.outcome == "a") == (len(first.text) > len(second.text))


@pytest.fixture(scope="module")
def by_kind(everybody, raters) -> dict[str, list[SimulatedVote]]:
    kinds = {rater.name: rater.kind for rater in raters}
    grouped = defaultdict(list)
    for vote in everybody:
        grouped[kinds[vote.rater]].append(vote)
    return grouped


def test_all_raters_are_labelled_simulated(raters):
    assert len(raters) == len({rater.name for rater in raters}) == 10
    assert all(rater.name.startswith("Simulated rater ") for rater in raters)


def test_planted_reliabilities_are_recovered_in_order(by_kind, prompts):
    order = ["careful", "average", "hasty", "spammer"]
    intervals = [share(by_kind[kind], prompts, agrees) for kind in order]
    for (better_low, _), (_, worse_high) in pairwise(intervals):
        assert better_low > worse_high
    low, high = intervals[-1]
    assert low <= 0.5 <= high


def test_only_the_position_biased_rater_favors_the_first_place(by_kind, prompts):
    for kind, votes in by_kind.items():
        low, high = share(votes, prompts, takes_the_first_shown)
        if kind == "position-biased":
            assert low > 0.6
        else:
            assert high < 0.6, kind
            assert low < 0.53, kind


def test_only_the_length_biased_rater_favors_the_longer_answer(by_kind, prompts):
    for kind, votes in by_kind.items():
        low, high = share(votes, prompts, takes_the_longer)
        assert low > 0.6 if kind == "length-biased" else high < 0.6, kind


def test_the_spammer_is_the_quickest(by_kind):
    def median(kind: str) -> int:
        return sorted(vote.active_ms for vote in by_kind[kind])[len(by_kind[kind]) // 2]

    assert median("spammer") < median("hasty") / 2 < median("careful") / 4


def test_every_pair_gets_exactly_the_overlap_from_distinct_raters(prompts, raters):
    judged = defaultdict(list)
    for vote in simulate_votes(prompts, raters, overlap=3, seed=5):
        judged[vote.prompt_id, vote.pair].append(vote.rater)
    assert set(judged) == {(p.id, pair) for p in prompts for pair in pairs_of(p, seed=5)}
    assert all(len(names) == len(set(names)) == 3 for names in judged.values())


def test_pairs_reach_every_response(prompts):
    for prompt in prompts:
        pairs = pairs_of(prompt, seed=5)
        assert len(pairs) == {2: 1, 3: 3, 4: 4}[len(prompt.responses)]
        assert {index for pair in pairs for index in pair} == set(range(len(prompt.responses)))
        assert all(i < j for i, j in pairs)


def test_raters_with_a_larger_share_judge_more(prompts, raters):
    uneven = [replace(rater, share=0.2 if n else 2.0) for n, rater in enumerate(raters)]
    counts = defaultdict(int)
    for vote in simulate_votes(prompts, uneven, overlap=2, seed=5):
        counts[vote.rater] += 1
    assert counts[raters[0].name] > 2 * max(counts[rater.name] for rater in raters[1:])


def test_votes_are_consistent_within_themselves(everybody):
    for vote in everybody:
        assert (vote.outcome == "tie") == (vote.strength == 0)
        assert vote.strength in (0, 1, 2)
        assert vote.shown_order in ((0, 1), (1, 0))
        assert vote.active_ms > 0
    assert {vote.outcome for vote in everybody} == {"a", "b", "tie"}
    assert {vote.strength for vote in everybody} == {0, 1, 2}
    assert any(vote.both_bad for vote in everybody)
    assert any(vote.rationale for vote in everybody)


def test_both_bad_means_that_neither_reaches_the_raters_bar(everybody, prompts, raters):
    responses = {prompt.id: prompt.responses for prompt in prompts}
    bars = {rater.name: rater.both_bad_below for rater in raters}
    for vote in everybody:
        best = max(responses[vote.prompt_id][index].quality for index in vote.pair)
        assert vote.both_bad == (best < bars[vote.rater])


def test_a_rater_works_on_one_task_at_a_time(prompts, raters):
    clock: dict[str, float] = defaultdict(float)
    for vote in simulate_votes(prompts, raters, overlap=3, seed=5):
        assert vote.seconds >= clock[vote.rater] + vote.active_ms / 1000
        clock[vote.rater] = vote.seconds


def test_rationales_name_no_side_and_no_generator(everybody):
    reasons = " ".join({vote.rationale for vote in everybody}).lower()
    assert not re.search(
        r"\b(answer|response) [ab12]\b|\bthe (left|right|first|second) one\b", reasons
    )
    assert not any(generator in reasons for generator in GENERATORS)


def test_the_seed_decides_everything(prompts, raters):
    once, again, other = (
        list(simulate_votes(prompts, raters, overlap=3, seed=seed)) for seed in (5, 5, 6)
    )
    assert once == again
    assert once != other


def test_a_further_prompt_leaves_the_other_verdicts_alone(prompts, raters):
    def verdicts(chosen: list[DemoPrompt]) -> list[SimulatedVote]:
        votes = simulate_votes(chosen, raters, overlap=3, seed=5)
        return [replace(v, seconds=0.0) for v in votes if v.prompt_id != prompts[0].id]

    assert verdicts(prompts[1:]) == verdicts(prompts)


@pytest.mark.parametrize("overlap", [0, 11])
def test_an_overlap_that_the_raters_cannot_give_is_refused(prompts, raters, overlap):
    with pytest.raises(ValueError, match="overlap"):
        next(simulate_votes(prompts, raters, overlap=overlap, seed=1))
