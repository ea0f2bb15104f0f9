"""HH-RLHF and PandaLM, imported and exported again, are what they were, row for row."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from annotator.models import Project
from tests import factories
from tests.annotator.exported import built, rows_of
from tests.annotator.imported import read
from tests.annotator.test_exports_formats import check_openai

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.data]

HH = "hh_rlhf/harmless-base-test.jsonl.gz"
PANDALM = "pandalm/testset-v1.json"


@pytest.fixture
def project() -> Project:
    return factories.project()


def test_hh_comes_back_as_it_was_with_the_prompt_in_both_texts(
    project: Project, data_dir: Path
) -> None:
    read(project, data_dir / HH)
    with gzip.open(data_dir / HH) as file:
        originals = [orjson.loads(line) for line in file]
    version = built(project, "trl-preference-implicit", style="explicit-standard", columns=[])
    assert version.manifest["counts"]["in"] == len(originals) == 2312
    rows = rows_of(version)
    assert Counter(map(_sides, rows)) == Counter(map(_sides, originals))
    assert all(list(row) == ["chosen", "rejected"] for row in rows)


def _sides(row: dict[str, Any]) -> tuple[str, str]:
    return row["chosen"], row["rejected"]


def test_pandalm_comes_back_as_its_votes_and_as_its_majorities(
    project: Project, data_dir: Path
) -> None:
    read(project, data_dir / PANDALM)
    items = json.loads((data_dir / PANDALM).read_text())
    raw = Counter(
        (
            row["prompt"][0]["content"],
            tuple(one["text"] for one in row["responses"]),
            row["rater"],
            (row["ranks"][0] > row["ranks"][1]) - (row["ranks"][0] < row["ranks"][1]),
        )
        for row in rows_of(built(project, "judgments"))
    )
    votes = {0: 0, 1: -1, 2: 1}
    assert raw == Counter(
        (_prompt(item), _texts(item), f"annotator{n}", votes[item[f"annotator{n}"]])
        for item in items
        for n in (1, 2, 3)
    )
    decided = [(item, winner) for item in items if (winner := _majority(item))]
    pairs = Counter(
        (_prompt(item), *(_texts(item) if winner == 1 else _texts(item)[::-1]))
        for item, winner in decided
    )
    rows = rows_of(built(project, "trl-preference", min_votes=3))
    assert Counter((row["prompt"], row["chosen"], row["rejected"]) for row in rows) == pairs
    assert len(rows) == len(decided) == 894
    rewards = rows_of(built(project, "nemo", min_votes=3))
    texts = ("prompt", "chosen_response", "rejected_response")
    assert Counter(tuple(row[name] for name in texts) for row in rewards) == pairs


def test_pandalm_as_openai_lines_counts_what_it_cannot_hold(
    project: Project, data_dir: Path
) -> None:
    read(project, data_dir / PANDALM)
    version = built(project, "openai-preference", min_votes=3)
    for row in rows_of(version):
        check_openai(row)
    items = json.loads((data_dir / PANDALM).read_text())
    blank = sum(
        bool(_majority(item)) and not all(text.strip() for text in _texts(item)) for item in items
    )
    assert version.manifest["counts"]["dropped"].get("not_representable", 0) == blank
    assert version.rows == 894 - blank


def _majority(item: dict[str, Any]) -> int:
    """The winner that at least two of three named, 0 for none."""
    winner, count = Counter(item[f"annotator{n}"] for n in (1, 2, 3)).most_common(1)[0]
    return winner if count >= 2 else 0


def _prompt(item: dict[str, Any]) -> str:
    return (
        f"{item['instruction']}\n\n{item['input']}" if item["input"] else str(item["instruction"])
    )


def _texts(item: dict[str, Any]) -> tuple[str, str]:
    """Two answers are the JSON value true, which reads True."""
    return str(item["response1"]), str(item["response2"])
