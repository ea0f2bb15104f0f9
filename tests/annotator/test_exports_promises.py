"""What is promised of rows holds in every format of pairs, whatever the votes and the recipe."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.exporters import EXPORTERS
from annotator.exporters import manifest as manifests
from annotator.exporters.build import Built, build
from annotator.exporters.recipe import SPLITS
from annotator.exporters.types import Shape
from annotator.models import Project
from annotator.queries import datasets as queries
from annotator.queries.snapshot import snapshot
from tests import factories
from tests.annotator.ballots import judged_pair, raters, task_of, vote
from tests.annotator.exported import chat, read, said

pytestmark = pytest.mark.django_db(transaction=True)

# Format -> names of prompt, chosen and rejected in a row; None: the prompt is in both texts.
PAIRED: Final[dict[str, tuple[str | None, str, str]]] = {
    "trl-preference": ("prompt", "chosen", "rejected"),
    "trl-preference-implicit": (None, "chosen", "rejected"),
    "trl-reward": (None, "chosen", "rejected"),
    "openai-preference": ("input", "preferred_output", "non_preferred_output"),
    "llama-factory": ("conversations", "chosen", "rejected"),
    "openrlhf": ("prompt", "chosen", "rejected"),
    "nemo": ("prompt", "chosen_response", "rejected_response"),
}
WHOLE: Final = ("trl-unpaired", "trl-prompt-only", "ranked-lists")
TEXTS: Final = ["yes", "no", "maybe", "", "naïve 🪨\n```py\nx = 1\n```"]


def test_every_format_of_pairs_of_texts_is_tried() -> None:
    of_texts = [
        key for key, method in EXPORTERS.items() if getattr(method.load(), "reads", "") == "text"
    ]
    assert sorted(of_texts) == sorted([*PAIRED, *WHOLE])


PAIRS = st.lists(
    st.tuples(
        st.integers(0, 3),  # prompt
        st.sampled_from(TEXTS),
        st.sampled_from(TEXTS),
        st.lists(st.sampled_from([1, 0, -1, None]), max_size=4),  # None: both bad
    ),
    max_size=8,
)
RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "ties": st.sampled_from(["drop", "soft", "both"]),
        "both_bad": st.sampled_from(["drop", "keep", "negatives"]),
        "repeats": st.sampled_from(["keep", "pool"]),
        "empty": st.sampled_from(["keep", "drop"]),
        "pairs": st.sampled_from(["all", "adjacent", "best-rest", "widest"]),
        "max_per_prompt": st.sampled_from([0, 1, 2]),
        "min_votes": st.sampled_from([1, 2]),
        "aggregator": st.sampled_from(["majority", "dawid-skene"]),
    },
)


def asked(pairs: list[tuple[int, str, str, list[int | None]]]) -> Project:
    """A project with these votes, and one pair that always gives a row."""
    project = factories.project()
    people = raters(project, 4)
    judged_pair(project, [1, 1], by=people)
    system = {"role": "system", "content": ""}
    prompts = [
        factories.prompt(project, messages=messages, split=split)
        for messages, split in (
            (chat("same?"), "train"),
            ([system, *chat("same?")], "test"),
            (chat("a", "b", "c"), "validation"),
            (chat("a\n\nAssistant: b\n\nHuman: c"), "train"),
        )
    ]
    for number, (place, one, other, votes) in enumerate(pairs):
        first, second = (
            factories.response(prompts[place], text, generator=f"{number} {side}")
            for side, text in enumerate((one, other))
        )
        task = task_of(prompts[place], first, second)
        for rater, outcome in zip(people, votes, strict=False):
            vote(task, rater, outcome or 0, both_bad=outcome is None)
    return project


def recipe(key: str, options: dict[str, Any], style: str) -> Any:
    """The options as far as the format takes them."""
    model = EXPORTERS[key].load_options()
    assert model is not None
    values = dict(options)
    if key == "openai-preference":
        values.pop("ties", None)
    if values.get("both_bad") == "negatives" and not EXPORTERS[key].load().takes_both_bad:
        del values["both_bad"]
    if "style" in model.model_fields:
        values["style"] = style
    return model.model_validate(values)


def built(project: Project, key: str, options: Any, folder: Path) -> Built:
    with snapshot() as connection:
        return build(
            project,
            EXPORTERS[key].load(),
            options,
            folder,
            shape=Shape(*queries.shape_of(project, connection=connection)),
            connection=connection,
            on_pairs=lambda pairs: None,
        )


def key_of(value: Any) -> str:
    return orjson.dumps(value).decode()


@settings(max_examples=6, suppress_health_check=list(HealthCheck), derandomize=False)
@given(pairs=PAIRS, options=RECIPES, style=st.sampled_from(["auto", "explicit-standard"]))
def test_promises_hold_in_every_format(
    pairs: list[tuple[int, str, str, list[int | None]]], options: dict[str, Any], style: str
) -> None:
    project = asked(pairs)
    for key in (*PAIRED, *WHOLE):
        chosen = recipe(key, options, style)
        with tempfile.TemporaryDirectory() as held:
            done = built(project, key, chosen, Path(held) / "one")
            again = built(project, key, chosen, Path(held) / "two")
            assert manifests.checksum(done) == manifests.checksum(again), key
            rows = {
                split: [row for facts in some for row in read(Path(held) / "one" / facts.name)]
                for split, some in done.files.items()
            }
        counts = done.ledger.as_dict()
        assert counts["in"] == counts["used"] + sum(counts["dropped"].values()), key
        assert counts["in"] == len(pairs) + 1
        assert counts["rows"] == {split: len(some) for split, some in rows.items()}
        assert set(rows) <= set(SPLITS)
        if key in PAIRED:
            check_pairs(rows, PAIRED[key], are_ties_doubled=chosen.ties == "both")
        else:
            check_whole(key, rows)


def check_pairs(
    rows: dict[str, list[dict[str, Any]]],
    names: tuple[str | None, str, str],
    *,
    are_ties_doubled: bool,
) -> None:
    prompt, chosen, rejected = names
    homes: dict[str, set[str]] = defaultdict(set)
    seen: set[tuple[str, str, str]] = set()
    for split, some in rows.items():
        for row in some:
            assert next(iter(row)) == next(name for name in names if name)
            one, other = key_of(row[chosen]), key_of(row[rejected])
            assert one != other
            asked = key_of(row[prompt]) + key_of(row.get("system")) if prompt else ""
            if prompt:
                homes[asked].add(split)
            is_tie = row.get("p_chosen") == 0.5 or row.get("chosen_reward") == 0.5
            if not (is_tie and are_ties_doubled):
                assert (asked, other, one) not in seen, "in both directions"
            seen.add((asked, one, other))
    assert all(len(splits) == 1 for splits in homes.values()), "a prompt in two splits"


def check_whole(key: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    completions: set[tuple[str, str]] = set()
    for split, some in rows.items():
        for row in some:
            asked = key_of(row["prompt"])
            homes[asked].add(split)
            if key == "trl-unpaired":
                place = (asked, key_of(row["completion"]))
                assert place not in completions, "an answer twice"
                completions.add(place)
                assert row["label"] == (row["wins"] > row["losses"])
            elif key == "ranked-lists":
                texts = [key_of(one) for one in row["responses"]]
                assert len(set(texts)) == len(texts) == len(row["ranks"]) >= 2
                assert row["ranks"] == sorted(row["ranks"])
                assert set(row["ranks"]) == set(range(1, max(row["ranks"]) + 1))
    assert all(len(splits) == 1 for splits in homes.values())
    if key != "trl-unpaired":
        assert sum(map(len, rows.values())) == len(homes), "a prompt once"


def test_the_answer_said_first_does_not_decide_a_list() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    prompt = factories.prompt(project)
    answers = [factories.response(prompt, text) for text in ("c", "a", "b")]
    for winner, loser in ((1, 0), (1, 2), (2, 0)):
        vote(task_of(prompt, answers[winner], answers[loser]), rater, 1)
    options = recipe("ranked-lists", {}, "explicit-conversational")
    with tempfile.TemporaryDirectory() as held:
        built(project, "ranked-lists", options, Path(held) / "one")
        (row,) = read(Path(held) / "one" / "train.jsonl")
    assert row["responses"] == [said("a"), said("b"), said("c")]
