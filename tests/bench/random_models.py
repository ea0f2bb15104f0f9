"""Sequence classifiers with random weights, of any size, and a tokenizer learned from the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from models.pairs import Pair

Kind = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class Size:
    """Hidden width, layers, attention heads and tokens known."""

    hidden: int
    layers: int
    heads: int
    vocabulary: int


SIZES: Final = {
    "tiny": Size(hidden=64, layers=2, heads=4, vocabulary=2000),
    "small": Size(hidden=256, layers=6, heads=4, vocabulary=16_000),  # 4.7 M weights in layers
    "large": Size(hidden=1280, layers=24, heads=20, vocabulary=32_000),  # 0.63 B as a decoder
}
MLP: Final = 4  # times the hidden width


def learn_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """Byte-level BPE with [CLS], [SEP] and [PAD]; both kinds of model can use it."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def configuration(size: Size, *, kind: Kind, longest: int, pad: int) -> Any:
    """A BERT of that size, or a Qwen2 with two queries to a key."""
    from transformers import BertConfig, Qwen2Config

    shape: dict[str, Any] = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": MLP * size.hidden,
        "max_position_embeddings": longest,
        "pad_token_id": pad,
        "num_labels": 1,
    }
    if kind == "encoder":
        return BertConfig(**shape)
    return Qwen2Config(**shape | {"num_key_value_heads": max(1, size.heads // 2)})


def build(folder: Path, rows: list[Pair], size: Size, *, kind: Kind, longest: int) -> Path:
    """Write a model and its tokenizer to a folder, fp32."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from models.neural.conversations import prepare_tokenizer

    texts = [str(side) for row in rows for side in (row.prompt, *row.answers)]
    tokenizer = learn_tokenizer(texts, size.vocabulary)
    prepare_tokenizer(tokenizer)
    config = configuration(size, kind=kind, longest=longest, pad=tokenizer.pad_token_id)
    torch.manual_seed(0)
    module = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
