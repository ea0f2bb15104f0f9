"""Tiny text-image models with random weights, and pictures with a known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from models.pairs import Pair

COLORS = {"red": (205, 50, 45), "green": (60, 150, 75), "blue": (45, 110, 190)}
NUMBERS = {"one": 1, "two": 2, "three": 3}
SIDE = 32
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 8,
}


def clip(folder: Path) -> Path:
    """A CLIP model: causal text tower read at its end token, two projections."""
    words = _tokenizer()
    text = TEXT | {"vocab_size": len(words), "eos_token_id": words.eos_token_id}
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24)
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE)
    return _save(folder, words, CLIPModel, config, processor)


def siglip(folder: Path) -> Path:
    """A SigLIP model: no projections, padding that is attended to."""
    words = _tokenizer()
    text = TEXT | {"vocab_size": len(words), "projection_size": 32}
    config = SiglipConfig(text_config=text, vision_config=VISION)
    processor = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    return _save(folder, words, SiglipModel, config, processor)


FAMILIES = {"clip": clip, "siglip": siglip}


def draw(folder: Path, color: str, number: int, seed: int) -> str:
    """A picture of so many squares of a color, and its name below ``folder``."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (64, 64), (236, 232, 222))
    pen = ImageDraw.Draw(image)
    for at in range(number):
        x, y = 4 + 20 * at + int(rng.integers(4)), int(rng.integers(4, 44))
        pen.rectangle((x, y, x + 14, y + 14), fill=COLORS[color])
    name = f"images/{color}-{number}-{seed}.png"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    image.save(folder / name)
    return name


def make_pairs(folder: Path, n: int, *, seed: int) -> list[Pair]:
    """n pairs of pictures: the chosen one has the color asked for."""
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(n):
        right, wrong = rng.permutation(list(COLORS))[:2].tolist()
        word = str(rng.choice(list(NUMBERS)))
        prompt = [{"role": "user", "content": f"{word} {right} squares"}]
        number = NUMBERS[word]
        sides = [draw(folder, color, number, int(rng.integers(40))) for color in (right, wrong)]
        chosen, rejected = ({"image": name} for name in sides)
        pairs.append(Pair(prompt, chosen, rejected, prompt_id=i, pair_id=i))
    return pairs


def _tokenizer() -> PreTrainedTokenizerFast:
    special = ["<pad>", "<unk>", "<start>", "<end>"]
    words = Tokenizer(WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    said = [*COLORS, *NUMBERS, "squares"]
    words.train_from_iterator(said, WordLevelTrainer(special_tokens=special))
    words.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>",
        eos_token="<end>",
    )


def _save(folder: Path, words: object, kind: type, config: object, processor: object) -> Path:
    torch.manual_seed(0)
    model = kind(config)
    for parameter in model.parameters():  # towers of random weights say the same of everything
        if parameter.ndim >= 2:
            parameter.data.normal_(std=0.2)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
