"""Scenes drawn by code: what they show is what is known of them, and the votes follow it."""

from __future__ import annotations

import io
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageColor

from annotator.demo import drawing, scenes
from annotator.demo.scenes import SCENES, Drawn
from annotator.kinds.base import from_gold, kind
from annotator.management.commands.demo import start_loop
from annotator.models import Judgment, Project, Task
from annotator.services import demo, demo_scenes
from annotator.services.judgments import as_verdict


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Drawn]]:
    return {scene.id: scenes.draw_all(scene, seed=demo_scenes.SEED) for scene in SCENES}


def share(picture: Drawn, color: str) -> float:
    """The share of a picture's pixels that are of a color, within what shrinking changes."""
    pixels = np.asarray(Pillow.open(io.BytesIO(picture.png)).convert("RGB"), dtype=int)
    wanted = np.array(ImageColor.getrgb(drawing.COLORS[color]))
    return float((np.abs(pixels - wanted).max(axis=2) < 6).mean())


def test_there_are_enough_prompts_of_every_sort() -> None:
    assert len(SCENES) >= 24
    assert (
        len({scene.id for scene in SCENES}) == len({scene.text for scene in SCENES}) == len(SCENES)
    )
    uses = Counter(name for scene in SCENES for name in scene.criteria)
    assert all(uses[name] >= 4 for name in scenes.FAILURES)


def test_pictures_show_the_colors_asked_for_unless_they_fail_in_that(
    drawn: dict[str, list[Drawn]],
) -> None:
    for scene in SCENES:
        for picture in drawn[scene.id]:
            wrong = picture.failed.get(scenes.COLOR) or picture.failed.get(scenes.MISSING)
            for group in scene.groups:
                if not wrong:
                    assert share(picture, group.color) > 0.001, (scene.id, group.color)
            if scene.absent and scene.absent.color not in {one.color for one in scene.groups}:
                is_there = share(picture, scene.absent.color) > 0.004
                if not picture.failed.get(scenes.COLOR):
                    assert is_there == picture.failed[scenes.NEGATION], scene.id


def test_a_missing_thing_takes_its_color_away(drawn: dict[str, list[Drawn]]) -> None:
    met = 0
    for scene in SCENES:
        for picture in drawn[scene.id]:
            if picture.failed.get(scenes.MISSING):
                met += 1
                assert share(picture, scene.groups[-1].color) < 0.001, scene.id
    assert met > 5


def test_larger_models_fail_less(drawn: dict[str, list[Drawn]]) -> None:
    shares = defaultdict(list)
    for pictures in drawn.values():
        for picture in pictures:
            shares[picture.model] += picture.failed.values()
    means = [np.mean(shares[model]) for model in scenes.MODELS]
    assert means == sorted(means, reverse=True)
    assert means[0] > 3 * means[-1]


def test_quality_follows_what_is_met(drawn: dict[str, list[Drawn]]) -> None:
    for picture in (one for pictures in drawn.values() for one in pictures):
        met = 1 - np.mean(list(picture.failed.values()))
        assert abs(picture.quality - met) < 5 * scenes.TASTE
        assert bool(picture.flaw) == any(picture.failed.values())


def test_seed_decides_every_byte() -> None:
    one, again = (scenes.draw_all(SCENES[6], seed=3) for _ in range(2))
    assert one == again
    assert one != scenes.draw_all(SCENES[6], seed=4)


@pytest.mark.parametrize("words", ["OPEN", "TEA TIME", "AAB"])
def test_misspelled_words_differ(words: str) -> None:
    rng = np.random.default_rng(1)
    assert all(scenes._misspelled(words, rng) != words for _ in range(20))


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_demo_of_scenes_is_loaded_once_and_knows_its_truth() -> None:
    first = demo_scenes.load(demo.people())
    project = Project.objects.get(slug=demo_scenes.SLUG)
    assert project.is_simulated
    assert first.prompts == len(SCENES)
    kinds = Counter(project.tasks.values_list("kind", flat=True))
    assert kinds["pairwise"] > 80
    assert kinds["ranking"] == kinds["checklist"] >= 10
    assert not project.responses.filter(image=None).exists()
    assert set(
        Judgment.objects.filter(project=project).values_list("rater__is_simulated", flat=True)
    ) == {True}
    again = demo_scenes.load(demo.people())
    assert (again.prompts, again.tasks, again.votes) == (first.prompts, first.tasks, first.votes)

    started = start_loop(project)
    assert [(run.kind, run.config["backbone"]) for run in started] == [("train", "pixels")]
    assert start_loop(project) == [], "once"

    hits = defaultdict(list)
    for judgment in Judgment.objects.filter(project=project).select_related("task", "rater"):
        known = from_gold(judgment.task.gold)
        if judgment.task.kind == "pairwise" and known.strength:
            hits[judgment.rater.name].append(kind("pairwise").matches(as_verdict(judgment), known))
    careful = [hit for name, own in hits.items() if "careful" in name for hit in own]
    assert np.mean(careful) > 0.75, "careful raters find the truth that was planted"
    assert Task.objects.filter(project=project, gold=None).count() == 0
