"""Backbones that read pictures: learned, saved, loaded, refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image

from models import gateway
from models.errors import BadArtifact, BadData
from models.neural.pictures import open_picture
from models.neural.pixels import color_classes, named, regions
from models.pairs import BadRow, Pair, pairs_path, parse_pair, read_pairs, write_pairs
from tests.models import pictured, tiny
from tests.models.planted import write_run
from tests.models.test_artifact import initial_weights, train_here

pytestmark = pytest.mark.neural

PROMPT = [{"role": "user", "content": "two red squares"}]
OPTIONS = {
    "pixels": {"epochs": 5},
    "clip": {"epochs": 100, "learning_rate": 0.05, "batch_size": 64, "l2": 1},
    "siglip": {"epochs": 100, "learning_rate": 0.05, "batch_size": 64, "l2": 1},
    "tuned": {
        "epochs": 100, "learning_rate": 0.01, "batch_size": 64, "l2": 0.1,
        "tune": "projection", "projection_rate": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=list(OPTIONS))
def trained(request, tmp_path_factory):
    """(key, folder, weights before training, trainer)."""
    key, folder = request.param, tmp_path_factory.mktemp(request.param)
    backbone = "pixels"
    if key != "pixels":
        backbone = f"clip:{pictured.FAMILIES.get(key, pictured.clip)(folder / 'base')}"
    run = folder / "run"
    pairs = [pictured.make_pairs(run, n, seed=seed) for seed, n in enumerate((240, 60, 100))]
    write_run(
        run,
        train=pairs[0],
        validation=pairs[1],
        test=pairs[2],
        backbone=backbone,
        options=OPTIONS[key],
    )
    return key, run, initial_weights(run), train_here(run)


def asked(run):
    return [(pair.prompt, pair.chosen) for pair in read_pairs(pairs_path(run, "test"))][:9]


def test_a_planted_preference_is_learned(trained):
    key, run, _, _ = trained
    metrics = json.loads((run / "metrics.json").read_text())
    least = 0.95 if key == "pixels" else 0.75  # towers of random weights see colors dimly
    assert metrics["accuracy"] > least
    assert metrics["interval"][0] > 0.5
    longer = metrics["baselines"]["longer_wins"]
    assert (longer["accuracy"], longer["n"]) == (None, 0)
    assert "pictures" in longer["reason"]


def test_training_moves_every_parameter(trained):
    _, _, before, trainer = trained
    for name, parameter in trainer.backbone.module.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_a_saved_model_gives_its_scores_again(trained):
    _, run, _, trainer = trained
    conversations = asked(run)
    scores = gateway.load_reward_model(run / "artifact").score(conversations)
    encoded = trainer.backbone.encode(conversations)
    from models.neural.store import pack

    trainer.backbone.module.eval()
    with torch.no_grad():
        expected = trainer.backbone.forward(pack(encoded), np.arange(9))[:, 0].numpy()
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len(set(scores.tolist())) > 1


def test_an_untrained_text_image_model_scores_as_itself(tmp_path):
    """Before training: logits_per_text of the model in plain transformers."""
    from transformers import AutoModel, AutoProcessor, AutoTokenizer

    from models.neural.clip import ClipBackbone
    from models.neural.store import pack
    from models.training import TrainingConfig

    base = pictured.clip(tmp_path / "base")
    names = [tmp_path / pictured.draw(tmp_path, color, 2, 1) for color in pictured.COLORS]
    config = TrainingConfig(backbone=f"clip:{base}")
    backbone = ClipBackbone.create(str(base), config.backbone_options, device=torch.device("cpu"))
    store = pack(backbone.encode([(PROMPT, {"image": str(name)}) for name in names]))
    with torch.no_grad():
        found = backbone.forward(store, np.arange(3))[:, 0]
        words = AutoTokenizer.from_pretrained(base)(
            ["two red squares"], padding="max_length", max_length=16, return_tensors="pt"
        )
        pictures = AutoProcessor.from_pretrained(base)(
            images=[Image.open(name) for name in names], return_tensors="pt"
        )
        model = AutoModel.from_pretrained(base).eval()
        plain = model(**words, pixel_values=pictures["pixel_values"]).logits_per_text[0]
    assert found.numpy() == pytest.approx(plain.numpy(), abs=1e-4)


def test_a_model_whose_towers_changed_is_refused(tmp_path):
    base = pictured.clip(tmp_path / "base")
    pairs = pictured.make_pairs(tmp_path / "run", 12, seed=0)
    write_run(tmp_path / "run", train=pairs, backbone=f"clip:{base}", options={"epochs": 1})
    train_here(tmp_path / "run")
    pictured.siglip(base)
    with pytest.raises(BadArtifact, match="not the one"):
        gateway.load_reward_model(tmp_path / "run" / "artifact")


@pytest.mark.parametrize("backbone", ["hashing", "bert", "frozen"])
def test_a_backbone_of_texts_refuses_pictures(tmp_path, backbone):
    if backbone != "hashing":
        key = "hf" if backbone == "bert" else backbone
        backbone = f"{key}:{tiny.bert(tmp_path / 'base')}"
    pairs = pictured.make_pairs(tmp_path / "run", 4, seed=0)
    write_run(tmp_path / "run", train=pairs, backbone=backbone)
    with pytest.raises(BadData, match="this backbone reads texts") as refused:
        train_here(tmp_path / "run")
    assert "pixels" in refused.value.advice


def test_a_backbone_of_pictures_refuses_texts(tmp_path):
    write_run(tmp_path, train=[Pair(PROMPT, "a", "b")], backbone="pixels")
    with pytest.raises(BadData, match="this backbone reads pictures"):
        train_here(tmp_path)


BROKEN = {
    "gone": lambda path: path.unlink(),
    "no picture": lambda path: path.write_bytes(b"<svg/>"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:60]),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_picture_is_told_by_its_name(tmp_path, how):
    pairs = pictured.make_pairs(tmp_path, 4, seed=0)
    write_run(tmp_path, train=pairs, backbone="pixels")
    BROKEN[how](tmp_path / pairs[2].chosen["image"])
    with pytest.raises(BadData, match="cannot be read") as failed:
        train_here(tmp_path)
    assert pairs[2].chosen["image"].removeprefix("images/") in failed.value.message


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x.png", "images/../../x.png", "", "a\0b", "x" * 1001, "\ud800.png"]
)
def test_a_picture_outside_the_folder_is_no_answer(path):
    with pytest.raises(BadRow, match="inside the folder"):
        parse_pair({"prompt": [], "chosen": {"image": path}, "rejected": "b"})


def test_what_is_neither_text_nor_one_image_is_no_answer():
    for value in ({"image": 1}, {"image": "a.png", "more": 1}, {}, 7):
        with pytest.raises(BadRow):
            parse_pair({"prompt": [], "chosen": value, "rejected": "b"})


def test_pictures_are_found_beside_their_pairs(tmp_path):
    pair = Pair(PROMPT, {"image": "images/a.png"}, {"image": "images/b.png"})
    write_pairs(pairs_path(tmp_path, "train"), [pair])
    assert b'"images/a.png"' in pairs_path(tmp_path, "train").read_bytes()
    [read] = read_pairs(pairs_path(tmp_path, "train"))
    assert read.answers == [{"image": str(tmp_path / f"images/{name}.png")} for name in "ab"]


def test_pixels_see_how_many_and_in_which_color(tmp_path):
    path = tmp_path / pictured.draw(tmp_path, "green", 3, 5)
    pixels = np.asarray(open_picture(path))
    assert [region.color for region in regions(pixels)] == [4, 4, 4]
    gray = np.full((1, 3, 3), [[0], [128], [255]], np.uint8)
    assert color_classes(gray).tolist() == [[12, 13, 14]]


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("Three red circles", {"red": 3}, set()),
        ("a blue cup below 12 green stars", {"blue": 1, "green": 12}, set()),
        ("circles, all of them blue, none of them red", {"blue": 0}, {"red"}),
        ("the RED house without a green tree", {"red": 0}, {"green"}),
        ("no color at all", {}, set()),
        ("", {}, set()),
    ],
)
def test_pixels_read_what_a_prompt_asks_for(text, wanted, unwanted):
    assert named([{"role": "user", "content": text}]) == (wanted, unwanted)


def test_pixels_take_a_huge_prompt(tmp_path):
    model = {"buckets_log2": 10, "epochs": 1}
    pairs = pictured.make_pairs(tmp_path, 6, seed=0)
    huge = [
        Pair([{"role": "user", "content": "red " * 300_000}], p.chosen, p.rejected) for p in pairs
    ]
    write_run(tmp_path, train=huge, backbone="pixels", options=model)
    assert train_here(tmp_path).progress.step == 1
