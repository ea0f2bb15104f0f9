"""Chosen and rejected sets with subsets: imported, kept apart, scored as RewardBench does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annotator.models import Project, Prompt, Response, RewardModel, RewardScore, Run, RunState
from tests import factories
from tests.annotator.evaluating import evaluated
from tests.annotator.rewarding import make_model

pytestmark = pytest.mark.django_db(transaction=True)


def imported(project: Project, rows: list[dict[str, Any]], folder: Path, **flags: str) -> Run:
    from django.core.management import call_command

    file = folder / "bench.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    call_command("import_dataset", project.slug, str(file), **flags)
    run = Run.objects.filter(project=project, kind=Run.Kind.IMPORT).latest("pk")
    assert run.state == RunState.DONE, run.error
    return run


def score_all(model: RewardModel, right: set[str]) -> None:
    """1 for texts that begin with one of ``right``, 0 else."""
    rows = Response.objects.filter(project=model.project)
    RewardScore.objects.bulk_create(
        RewardScore(
            project=model.project, response=one, reward_model=model,
            mean=float(one.text.split()[0] in right),
        )
        for one in rows
    )  # fmt: skip


def rows_of_version_one() -> list[dict[str, Any]]:
    """Two prompts that stand in two subsets each, math and code besides."""
    rows = []
    for at in range(4):
        for subset in ("alpacaeval-easy", "alpacaeval-hard"):
            rows.append(
                {
                    "id": len(rows), "prompt": f"Question {at}?", "subset": subset,
                    "chosen": f"good-{subset} {at}", "chosen_model": "strong",
                    "rejected": f"bad-{subset} {at}", "rejected_model": "weak",
                }
            )  # fmt: skip
    for subset, n in (("math-prm", 6), ("hep-python", 4)):
        rows += [
            {
                "id": len(rows) + at, "prompt": f"{subset} {at}?", "subset": subset,
                "chosen": f"good-{subset} {at}", "chosen_model": "strong",
                "rejected": f"bad-{subset} {at}", "rejected_model": "weak",
            }
            for at in range(n)
        ]  # fmt: skip
    return rows


def test_a_prompt_in_two_subsets_keeps_them_apart_and_sections_are_weighted(
    tmp_path: Path,
) -> None:
    project = factories.project()
    run = imported(project, rows_of_version_one(), tmp_path)
    assert Prompt.objects.filter(project=project).count() == 4 + 10
    model = make_model(project)
    score_all(model, {"good-alpacaeval-easy", "good-math-prm"})  # the others are even, so wrong
    done = evaluated(model, splits=["train", "validation", "test"], import_run=run.pk)
    assert (done.state, done.error) == (RunState.DONE, "")
    found = done.result["figures"]["benchmark"]
    subsets = {one["name"]: (one["value"], one["n"], one["kind"]) for one in found["subsets"]}
    assert subsets == {
        "alpacaeval-easy": (1.0, 4, "pairs"),
        "alpacaeval-hard": (0.0, 4, "pairs"),
        "math-prm": (1.0, 6, "pairs"),
        "hep-python": (0.0, 4, "pairs"),
    }
    sections = {one["name"]: one for one in found["sections"]}
    assert sections["Chat"]["value"] == pytest.approx(0.5)
    weight = 6 * 984 / 447
    assert sections["Reasoning"]["value"] == pytest.approx(weight / (weight + 4))
    assert found["overall"]["value"] == pytest.approx((0.5 + weight / (weight + 4)) / 2)
    assert found["overall"]["low"] < found["overall"]["value"] < found["overall"]["high"]
    assert found["without"] == 0
    assert found["overall"]["n"] == 18


def test_columns_of_sections_and_the_table_format_are_kept_too(tmp_path: Path) -> None:
    project = factories.project()
    rows = [
        {
            "prompt": f"Q {at}?", "response_a": f"yes {at}", "response_b": f"no {at}",
            "winner": "a" if at % 2 else "b", "subset": f"part {at % 3}", "section": "Mine",
        }
        for at in range(12)
    ]  # fmt: skip
    imported(project, rows, tmp_path)
    kept = Response.objects.filter(project=project).values_list("extra", flat=True)
    assert {one["section"] for one in kept} == {"Mine"}
    model = make_model(project)
    score_all(model, {"yes"})
    done = evaluated(model, splits=["train", "validation", "test"])
    found = done.result["figures"]["benchmark"]
    assert [(one["name"], one["n"], len(one["subsets"])) for one in found["sections"]] == [
        ("Mine", 12, 3)
    ]
    assert found["overall"]["value"] == pytest.approx(0.5)


def test_best_of_four_credits_prompts_and_ties_have_their_own_score(tmp_path: Path) -> None:
    project = factories.project()
    rows = [
        {
            "id": f"focus {at}", "prompt": f"Focus {at}?", "subset": "Focus",
            "chosen": f"good {at}", "rejected": f"{word} {at}",
        }
        for at in range(6)
        for word in ("bad", "worse", "good" if at == 0 else "worst")
    ]  # fmt: skip
    rows[2]["rejected"] = "good but not"
    for kind, right in (("ref", ["good 1"]), ("tied", ["good 1", "good 2"])):
        rows += [
            {
                "id": f"{kind}:1", "prompt": f"Tie {kind}?", "subset": "Ties",
                "chosen": one, "rejected": wrong,
            }
            for one in right
            for wrong in ("bad 1", "bad 2")
        ]  # fmt: skip
    imported(project, rows, tmp_path)
    model = make_model(project)
    score_all(model, {"good"})
    done = evaluated(model, splits=["train", "validation", "test"])
    assert (done.state, done.error) == (RunState.DONE, ""), done.log
    found = {one["name"]: one for one in done.result["figures"]["benchmark"]["subsets"]}
    focus = found["Focus"]
    assert (focus["kind"], focus["n"]) == ("best-of", 6)
    assert focus["value"] == pytest.approx((0.5 + 5) / 6)  # one shares the top with a wrong one
    ties = found["Ties"]
    assert (ties["kind"], ties["n"]) == ("ties", 2)
    assert ties["value"] == pytest.approx(1.01)
    overall = done.result["figures"]["benchmark"]["overall"]
    assert overall["value"] == pytest.approx((5.5 / 6 + 1.01) / 2)
