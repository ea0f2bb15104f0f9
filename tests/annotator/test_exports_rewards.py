"""Columns of a rubric and a reward model in an export: their values, what is missing, the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from annotator.errors import Invalid
from annotator.exporters import reward_columns
from annotator.models import (
    CriterionVerdict,
    Project,
    Response,
    RewardScore,
    RubricVersion,
    Run,
    RunState,
)
from annotator.services import deliveries, exports, rubrics
from tests.annotator.rewarding import (
    LISTED,
    PROGRAM,
    approved,
    give_scores,
    make_model,
    scored,
    world,
)
from tests.annotator.test_exports import build, rows_of, version_of

pytestmark = pytest.mark.django_db(transaction=True)

FIRST = PROGRAM | {"weight": 3.0}
SECOND = {"text": "Has a table", "verifier": "program", "program": "table", "weight": -1.0}


def rubric_of(project: Project) -> RubricVersion:
    version = approved(project, FIRST, SECOND)
    scored(version)
    return version


def rows(version: Any) -> list[dict[str, Any]]:
    return [row for some in rows_of(version).values() for row in some]


def test_rows_carry_the_rewards_of_both_sides_and_the_manifest_says_whose() -> None:
    project = world()
    version = rubric_of(project)
    built = version_of(project, rubric=str(version).replace(" v", ":v"))
    for row in rows(built):
        assert (row["chosen_rubric"], row["rejected_rubric"]) == (3.0, 0.0)
        assert list(row)[-2:] == ["chosen_rubric", "rejected_rubric"]
    told = built.manifest["rewards"]
    assert told["rubric"]["version"] == str(version)
    assert told["rubric"]["digest"] == version.digest
    assert (told["rubric"]["form"], told["rubric"]["verifier"]) == ("weighted", "")
    assert told["rubric"]["center"] == 1.5
    assert told["rubric"]["scale"] == pytest.approx(1.5 * 2**0.5)
    assert told["missing"] == {"chosen_rubric": 0, "rejected_rubric": 0}
    card = (deliveries.folder_of(built) / "README.md").read_text()
    assert str(version) in card
    assert "`chosen_rubric`:" in card


def test_what_has_no_score_is_null_and_counted_and_drops_no_row() -> None:
    project = world()
    version = rubric_of(project)
    plain = Response.objects.filter(project=project).exclude(text__startswith=LISTED).first()
    RewardScore.objects.filter(response=plain).delete()
    built = version_of(project, rubric=str(version.pk))
    found = rows(built)
    assert len(found) == 6
    assert [row["rejected_rubric"] for row in found].count(None) == 1
    assert built.manifest["rewards"]["missing"] == {"chosen_rubric": 0, "rejected_rubric": 1}
    binary = version_of(project, rubric=str(version.pk), rubric_reward="binary", rubric_lose=-0.5)
    pairs = [(row["chosen_rubric"], row["rejected_rubric"]) for row in rows(binary)]
    assert sorted(pairs, key=str) == [(1.0, -0.5)] * 5 + [(None, None)]
    assert binary.manifest["rewards"]["rubric"]["lose"] == -0.5


@pytest.mark.parametrize("container", ["jsonl", "jsonl.gz", "parquet"])
def test_verdicts_stand_in_the_order_of_the_manifest_s_criteria(container: str) -> None:
    project = world()
    version = rubric_of(project)
    built = version_of(project, rubric=str(version.pk), rubric_criteria=True, container=container)
    criteria = built.manifest["rewards"]["rubric"]["criteria"]
    assert [one["text"] for one in criteria] == [FIRST["text"], SECOND["text"]]
    for row in rows(built):
        assert row["chosen_criteria"] == [1, 0]
        assert row["rejected_criteria"] == [0, 0]
    assert built.manifest["rewards"]["missing"]["chosen_criteria"] == 0


def test_combined_reward_is_both_standardized_and_added() -> None:
    project = world()
    version = rubric_of(project)
    model = make_model(project)
    texts = dict(Response.objects.filter(project=project).values_list("pk", "text"))
    give_scores(
        model, {pk: 10.0 + (2 if text.startswith(LISTED) else -2) for pk, text in texts.items()}
    )
    alone = version_of(project, reward_model=1)
    for row in rows(alone):
        assert row["chosen_reward"] == pytest.approx(2**-0.5)
        assert row["rejected_reward"] == pytest.approx(-(2**-0.5))
    both = version_of(project, reward_model=1, rubric=str(version.pk), rubric_weight=2.0)
    for row in rows(both):
        assert row["chosen_reward"] == pytest.approx(3 * 2**-0.5)
        assert row["rejected_reward"] == pytest.approx(-3 * 2**-0.5)
    told = both.manifest["rewards"]
    assert told["combined"]["weight"] == 2.0
    assert told["reward_model"]["center"] == 10.0


def test_files_load_with_null_cells(tmp_path: Path) -> None:
    project = world()
    version = rubric_of(project)
    RewardScore.objects.filter(rubric_version=version).exclude(mean=3.0).delete()
    plain = Response.objects.filter(project=project).exclude(text__startswith=LISTED)
    one, other, *_ = plain.values_list("pk", flat=True)
    CriterionVerdict.objects.filter(response=one).delete()
    CriterionVerdict.objects.filter(response=other).update(value=None)
    built = version_of(project, rubric=str(version.pk), rubric_criteria=True)
    folder = deliveries.folder_of(built)
    for entry in built.files:
        for line in (folder / entry["name"]).read_bytes().splitlines():
            assert orjson.loads(line)["rejected_rubric"] is None
    assert json.loads((folder / "manifest.json").read_text())["rewards"]["missing"] == {
        "chosen_rubric": 0, "rejected_rubric": 6, "chosen_criteria": 0, "rejected_criteria": 1,
    }  # fmt: skip
    # Counted are rows, not pairs that were looked at and left out afterwards.
    chosen = Response.objects.filter(project=project, text__startswith=LISTED)
    give_scores(
        make_model(project),
        dict.fromkeys(chosen.values_list("pk", flat=True), 1.0) | {one: 9.0, other: 0.0},
    )
    few = version_of(
        project, rubric=str(version.pk), rubric_criteria=True, filter_models=[1],
        drop_contradicted="all",
    )  # fmt: skip
    assert few.rows == 1
    assert few.manifest["rewards"]["missing"]["rejected_criteria"] == 0


def test_export_without_such_options_has_no_such_columns() -> None:
    project = world()
    rubric_of(project)
    built = version_of(project)
    assert "rewards" not in built.manifest
    assert not {"chosen_rubric", "chosen_reward"} & set(built.manifest["columns"])


def test_version_is_found_by_name_and_number_and_refused_with_the_reason() -> None:
    project = world(2)
    version = rubric_of(project)
    name = version.rubric.name
    for named in (f"{name}:v1", f"{name} v1", f" {name} : v1 ", name, str(version.pk)):
        assert reward_columns.find_version(project, named) == version
    draft = rubrics.draft(rubric=version.rubric, by=None, like=version)
    for named, says in (
        (f"{name}:v9", "no rubric version"),
        ("9" * 30, "no rubric version"),
        ("x\0y", "no rubric version"),
        (str(draft.pk), "is a draft"),
    ):
        with pytest.raises(Invalid, match=says):
            reward_columns.find_version(project, named)
    with pytest.raises(Invalid, match="no rubric version"):
        reward_columns.find_version(world(1), str(version.pk))


def test_unscored_version_and_model_are_refused_at_the_start() -> None:
    project = world(2)
    version = approved(project)
    with pytest.raises(Invalid, match="scored no response"):
        exports.start(
            project=project, format="trl-preference", options={"rubric": str(version.pk)}, by=None
        )
    with pytest.raises(Invalid, match="no reward model 4"):
        exports.start(
            project=project, format="trl-preference", options={"reward_model": 4}, by=None
        )
    assert not Run.objects.filter(kind=Run.Kind.EXPORT).exists()


def test_scores_that_went_away_meanwhile_fail_the_build_with_advice() -> None:
    project = world(2)
    version = rubric_of(project)
    run = exports.start(
        project=project, format="trl-preference", options={"rubric": str(version.pk)}, by=None
    )
    RewardScore.objects.all().delete()
    from annotator.jobs.exports import export

    export(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "scored no response" in run.error
    assert build(project).state == RunState.DONE
