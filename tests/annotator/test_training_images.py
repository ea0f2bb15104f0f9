"""Reward models of an image project: trained, scored, used as a judge; what does not fit is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage
from PIL import Image

from annotator.errors import Invalid
from annotator.jobs.evaluations import evaluate
from annotator.jobs.scoring import score
from annotator.jobs.training import train
from annotator.models import Project, Response, RewardModel, RewardScore, Run, RunState
from annotator.queries.judging import items
from annotator.services import (
    backbones,
    images,
    picture_files,
    reward_evaluation,
    reward_scores,
    training,
)
from models.local_judge_options import RewardModelOptions
from models.local_judges import RewardModelJudge
from models.saved import read_backbone
from tests.annotator import planted

pytestmark = pytest.mark.django_db(transaction=True)

SHADES = range(4)  # of either color: equal pictures are one image


def picture(color: tuple[int, int, int]) -> bytes:
    """A square of a color on a pale ground."""
    image = Image.new("RGB", (48, 48), (236, 232, 222))
    image.paste(color, (12, 12, 36, 36))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def project() -> Project:
    """The better of two pictures is the red one, the other is blue."""
    found = planted.preferences(60)
    Project.objects.filter(pk=found.pk).update(modality=Project.Modality.IMAGE)
    found.refresh_from_db()
    colors = {"good": (200, 30, 30), "bad": (30, 60, 200)}
    kept = {
        (side, shade): images.ingest(
            project=found, data=picture((r + 4 * shade, g + 4 * shade, b + 4 * shade))
        )
        for side, (r, g, b) in colors.items()
        for shade in SHADES
    }
    for number, response in enumerate(Response.objects.filter(project=found).order_by("pk")):
        side = "good" if set(response.text.split()) & set(planted.GOOD) else "bad"
        response.image, response.text = kept[side, number // 2 % len(SHADES)], ""
        response.save()
    return found


def trained(project: Project) -> Run:
    run = training.start(
        project=project, objective="bradley-terry", backbone="pixels", options={"epochs": 3},
        by=None,
    )  # fmt: skip
    train(run_id=run.pk)
    run.refresh_from_db()
    return run


@pytest.mark.neural
def test_pictures_are_learned_from_scored_and_judged(project: Project) -> None:
    run = trained(project)
    assert run.state == RunState.DONE, (run.error, run.log)
    model = RewardModel.objects.get(run=run)
    assert model.metrics["accuracy"] == 1.0
    assert model.metrics["train_pairs"] == 48
    assert read_backbone(training.artifact_folder(model)) == "pixels"
    assert not (run.folder / "images").exists(), "a finished training needs its pictures no more"

    scoring = reward_scores.start(reward_model=model, by=None)
    score(run_id=scoring.pk)
    scoring.refresh_from_db()
    assert (scoring.state, scoring.error) == (RunState.DONE, "")
    assert scoring.result["scored"] == 120
    means = dict(RewardScore.objects.values_list("response_id", "mean"))

    evaluation = reward_evaluation.start(reward_model=model, by=None)
    RewardScore.objects.filter(response__prompt__split="test").delete()
    evaluate(run_id=evaluation.pk)
    evaluation.refresh_from_db()
    assert (evaluation.state, evaluation.error) == (RunState.DONE, ""), evaluation.log
    found = evaluation.result["figures"]
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (1.0, 6)
    assert found["longer"] is None
    assert found["missing"]["length"] == "The answers are pictures: none is longer."
    assert [one["key"] for one in found["rivals"]] == []
    assert found["order"]["is_invariant"]
    scored = RewardScore.objects.filter(response__prompt__split="test")
    assert dict(scored.values_list("response_id", "mean")).items() <= means.items()

    tasks = list(project.tasks.values_list("pk", "response_ids")[:5])
    from models.gateway import score_here

    judge = RewardModelJudge(
        RewardModelOptions(), folder=training.artifact_folder(model), ask=score_here
    )
    decided = judge.judge(items(project, [pk for pk, _ in tasks]))
    by_id = dict(tasks)
    for (pk, _), decision in zip(sorted(tasks), decided, strict=True):
        first, second = (means[one] for one in by_id[pk])
        assert decision.error == ""
        assert decision.ranks == ((1, 2) if first > second else (2, 1))


@pytest.mark.neural
def test_a_lost_picture_costs_its_pairs_only(project: Project) -> None:
    lost = Response.objects.filter(project=project).order_by("pk").first()
    assert lost is not None
    shown = Response.objects.filter(project=project, image=lost.image).count()
    default_storage.delete(lost.image.file.name)
    run = trained(project)
    assert run.state == RunState.DONE, (run.error, run.log)
    model = RewardModel.objects.get(run=run)
    assert model.metrics["train_pairs"] < 48
    assert "the file of its picture is gone" in run.log
    scoring = reward_scores.start(reward_model=model, by=None)
    score(run_id=scoring.pk)
    scoring.refresh_from_db()
    assert (scoring.result["scored"], scoring.result["unscored"]) == (120 - shown, shown)


@pytest.mark.parametrize("backbone", ["hashing", "hf:org/tiny", "frozen:org/tiny"])
def test_a_backbone_of_texts_is_refused_with_what_to_choose(
    project: Project, backbone: str
) -> None:
    with pytest.raises(Invalid, match="answers of this project are images") as refused:
        training.start(
            project=project, objective="bradley-terry", backbone=backbone, options={}, by=None
        )
    assert refused.value.advice == "Choose pixels or clip:<id>."


@pytest.mark.parametrize("backbone", ["pixels", "clip:org/tiny"])
def test_a_backbone_of_pictures_is_refused_for_texts(backbone: str) -> None:
    with pytest.raises(Invalid, match=r"are texts, and the backbone .* reads pictures") as refused:
        training.start(
            project=planted.preferences(20),
            objective="bradley-terry",
            backbone=backbone,
            options={},
            by=None,
        )
    assert refused.value.advice == "Choose hashing or hf:<id> or frozen:<id>."


@pytest.mark.parametrize("key", ["frozen", "clip", "hf"])
def test_folders_are_the_operators_for_every_backbone(key: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="nor a folder the operator allows"):
        backbones.allowed(f"{key}:{tmp_path}")
    assert backbones.allowed(f"{key}:{tmp_path}", by_operator=True) == f"{key}:{tmp_path}"


def test_a_picture_is_brought_without_room_or_copied(
    project: Project, tmp_path: Path, monkeypatch: Any
) -> None:
    name = Response.objects.filter(project=project)[0].image.file.name
    linked = picture_files.bring(name, tmp_path / "one")
    assert linked.stat().st_ino == Path(default_storage.path(name)).stat().st_ino
    assert picture_files.bring(name, tmp_path / "one") == linked

    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_link)
    copied = picture_files.bring(name, tmp_path / "two")
    assert copied.read_bytes() == linked.read_bytes()
    assert copied.stat().st_ino != linked.stat().st_ino
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]
    with pytest.raises(FileNotFoundError):
        picture_files.bring("images/none.webp", tmp_path / "two")
