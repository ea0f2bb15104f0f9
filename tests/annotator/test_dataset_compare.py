"""Two versions side by side: what became of the rows, and where rows cannot be compared."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from annotator.exporters import row_index
from annotator.models import DatasetVersion, Project, Prompt, Role
from annotator.services import dataset_compare, dataset_versions, deliveries
from tests import factories
from tests.annotator.ballots import judged_pair, raters, vote
from tests.annotator.test_exports import version_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project()


def page_of(project: Project, query: str = "") -> Any:
    client = Client()
    client.force_login(factories.member(project, Role.OWNER))
    return client.get(reverse("dataset_compare", args=[project.slug]) + query)


def test_added_removed_flipped_and_moved_rows_are_told_with_their_texts(project: Project) -> None:
    people = raters(project, 3)
    kept = judged_pair(project, [1], by=people, texts=("kept good", "kept bad"))
    flipped = judged_pair(project, [1], by=people, texts=("once good", "once bad"))
    gone = judged_pair(project, [1], by=people, texts=("leaving", "left"))
    moved = judged_pair(project, [1], by=people, texts=("moving", "staying"))
    older = version_of(project)
    for rater in people[1:]:
        vote(flipped, rater, -1)
    vote(gone, people[1], -1)
    Prompt.objects.filter(pk=moved.prompt_id).update(split="test")
    judged_pair(project, [1], by=people, texts=("new good", "new bad"))
    newer = version_of(project)
    found = dataset_compare.compare(older, newer)
    assert found.why_not == ""
    assert found.counts == {"kept": 3, "added": 1, "removed": 1, "flipped": 1, "moved": 1}
    texts = {
        kind: [(one.answer, one.other, one.split) for one in rows]
        for kind, rows in found.examples.items()
    }
    assert texts == {
        "added": [("new good", "new bad", "train")],
        "removed": [("leaving", "left", "train")],
        "flipped": [("once bad", "once good", "train")],
        "moved": [("moving", "staying", "test")],
    }
    assert [(one.key, one.old, one.new) for one in found.reasons] == [("contradiction", 0, 1)]
    assert found.recipe == []
    back = dataset_compare.compare(newer, older)
    assert (back.counts["added"], back.counts["removed"]) == (1, 1)
    html = page_of(project, f"?a={older.number}&b={newer.number}").content.decode()
    for text in ("new good", "leaving", "once bad", "moving"):
        assert text in html
    assert f"{kept.prompt_id}" not in texts


def test_a_tie_is_no_flip_in_either_direction(project: Project) -> None:
    people = raters(project, 2)
    tasks = [judged_pair(project, [outcome], by=people) for outcome in (1, -1)]
    older = version_of(project)
    for task, outcome in zip(tasks, (-1, 1), strict=True):
        vote(task, people[1], outcome)
    newer = version_of(project, ties="both")
    assert newer.rows == 4
    found = dataset_compare.compare(older, newer)
    assert found.counts == {"kept": 2, "added": 0, "removed": 0, "flipped": 0, "moved": 0}
    html = page_of(project).content.decode()
    assert "of 2 and 4 rows, a tie in both directions counted once" in html


def test_recipes_that_differ_stand_beside_the_rows(project: Project) -> None:
    people = raters(project, 2)
    judged_pair(project, [1, 1], by=people)
    judged_pair(project, [1], by=people)
    older, newer = version_of(project), version_of(project, min_votes=2)
    found = dataset_compare.compare(older, newer)
    assert (found.counts["removed"], found.counts["kept"]) == (1, 1)
    assert [(one.name, one.old, one.new) for one in found.recipe] == [("min_votes", "1", "2")]
    assert [(one.key, one.old, one.new) for one in found.reasons] == [("few_votes", 0, 1)]
    html = page_of(project).content.decode()
    assert "Dataset v2 against v1" in html
    assert "<del>1</del>" in html


def test_the_same_rows_are_said_to_be_the_same(project: Project) -> None:
    judged_pair(project, [1], by=raters(project, 1))
    version_of(project), version_of(project)
    html = page_of(project).content.decode()
    assert "byte for byte" in html
    assert "can differ" not in html
    assert "what changed" not in html
    assert "counted once" not in html


def test_what_cannot_be_compared_is_said_in_words(project: Project) -> None:
    from annotator.jobs import exports as jobs
    from annotator.services import exports

    judged_pair(project, [1], by=raters(project, 1))
    pairs = version_of(project)
    run = exports.start(project=project, format="judgments", options={}, by=None)
    jobs.export(run_id=run.pk)
    raw = DatasetVersion.objects.get(run=run)
    assert "judgments, one by one" in dataset_compare.compare(pairs, raw).why_not
    old = version_of(project)
    (deliveries.folder_of(old) / row_index.FILE).unlink()
    assert "before it was kept" in dataset_compare.compare(pairs, old).why_not
    dataset_versions.delete(version=old, by=None)
    old.refresh_from_db()
    assert "was deleted" in dataset_compare.compare(old, pairs).why_not
    response = page_of(project, f"?a={pairs.number}&b={old.number}")
    assert response.status_code == 200
    assert b"cannot be compared" in response.content


@pytest.mark.parametrize(
    ("rows", "unit"), [([(7, 0, 1)], "answer"), ([(-7, 0, 0)], "prompt"), ([(7, 8, 1)], "pair")]
)
def test_formats_of_other_units_have_no_rows_in_common(
    project: Project, rows: list[tuple[int, int, int]], unit: str
) -> None:
    judged_pair(project, [1], by=raters(project, 1))
    older, newer = version_of(project), version_of(project)
    index = row_index.RowIndex()
    for a, b, side in rows:
        index.add(1, "train", a, b, side)
    index.save(deliveries.folder_of(newer))
    found = dataset_compare.compare(older, newer)
    assert ("no rows in common" in found.why_not) == (unit != "pair")
    older_too = dataset_compare.compare(newer, newer)
    assert (older_too.unit, older_too.counts["kept"]) == (unit, 1)


def test_an_example_whose_texts_are_gone_says_so(project: Project) -> None:
    people = raters(project, 1)
    judged_pair(project, [1], by=people)
    older = version_of(project)
    judged_pair(project, [1], by=people)
    newer = version_of(project)
    index = row_index.RowIndex()
    index.add(2**40, "train", 2**41, 2**42, 1)
    index.save(deliveries.folder_of(newer))
    (example,) = dataset_compare.compare(older, newer).examples["added"]
    assert example.prompt == example.answer == example.other == "no longer in the project"


@pytest.mark.parametrize("query", ["?a=1&b=9", "?a=x&b=1", "?a=1", f"?a={2**40}&b=1", "?a=&b="])
def test_versions_that_are_not_there_are_not_found(project: Project, query: str) -> None:
    judged_pair(project, [1], by=raters(project, 1))
    version_of(project)
    assert page_of(project, query).status_code == 404
    assert b"no two versions yet" in page_of(project).content


ROWS = st.dictionaries(
    st.tuples(st.integers(1, 6), st.integers(7, 12)),
    st.tuples(st.sampled_from([1, -1]), st.sampled_from(["train", "test"])),
    max_size=20,
)


def records(rows: dict[tuple[int, int], tuple[int, str]]) -> Any:
    index = row_index.RowIndex()
    for (a, b), (side, split) in rows.items():
        index.add(1, split, a, b, side)
    return index.records()


@given(ROWS)
def test_what_is_saved_is_read_as_it_was_and_sorted(
    rows: dict[tuple[int, int], tuple[int, str]],
) -> None:
    index = row_index.RowIndex()
    for (a, b), (side, split) in rows.items():
        index.add(1, split, a, b, side)
    with TemporaryDirectory() as folder:
        index.save(Path(folder))
        found = row_index.load(Path(folder))
        assert found is not None
        assert found.tolist() == [
            (a, b, 1, side, row_index.SPLITS.index(split))
            for (a, b), (side, split) in sorted(rows.items())
        ]


@given(ROWS, ROWS)
def test_counts_agree_with_a_walk_over_all_rows(
    old: dict[tuple[int, int], tuple[int, str]], new: dict[tuple[int, int], tuple[int, str]]
) -> None:
    found = row_index.compare(records(old), records(new))
    both = set(old) & set(new)
    assert found.as_dict() == {
        "kept": len(both),
        "added": len(set(new) - set(old)),
        "removed": len(set(old) - set(new)),
        "flipped": sum(old[key][0] != new[key][0] for key in both),
        "moved": sum(old[key][1] != new[key][1] for key in both),
    }
    added = {(row["a"].item(), row["b"].item()) for row in found.examples["added"]}
    assert added <= set(new) - set(old)
    assert np.unique(found.examples["flipped"]["a"]).size <= len(both)
