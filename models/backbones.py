"""What turns text into a score: a table of backbones and their options.

A backbone is named by its key, and by an argument after a colon where it takes one:
``hashing``, ``hf:distilbert-base-uncased``, ``frozen:/srv/models/qwen``, ``clip:org/model``.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.errors import BadOptions
from rubrics.registry import Method, UnknownMethod, find

TAKES_ARGUMENT: Final = frozenset({"hf", "frozen", "clip"})
READS_PICTURES: Final = frozenset({"pixels", "clip"})  # the answers of image projects


# What several backbones ask in the same words.
Epochs = Annotated[int, Field(ge=1, le=1000, title="Epochs", description="Passes over data.")]
BatchSize = Annotated[
    int, Field(ge=1, le=65_536, title="Batch size", description="Pairs per update.")
]
LinearRate = Annotated[
    float, Field(gt=0, le=10, title="Learning rate", description="Peak rate of Adam.")
]
Ridge = Annotated[
    float,
    Field(
        ge=0,
        le=1e6,
        title="Ridge",
        description="Strength of the pull of all weights to zero, in pairs: more data outweighs it.",
    ),
]
Buckets = Annotated[
    int,
    Field(
        ge=10,
        le=24,
        title="Buckets (log2)",
        description="The number of weights is 2 to this power.",
    ),
]
LongestText = Annotated[
    int,
    Field(
        ge=16,
        le=131_072,
        title="Longest text (tokens)",
        description="Longer conversations lose the start of the prompt first. "
        "Never more than the model itself can read.",
    ),
]


class HashingOptions(BaseModel):
    """Options of the hashing backbone. Defaults were chosen by cross-validation on real pairs."""

    model_config = ConfigDict(extra="forbid")

    word_ngrams: int = Field(
        default=2, ge=1, le=5, title="Word n-grams", description="Longest run of words counted."
    )
    char_ngrams: int = Field(
        default=0,
        ge=0,
        le=8,
        title="Character n-grams",
        description="Longest run of characters counted, from 3 up; 0 for none.",
    )
    buckets_log2: Buckets = 18
    max_words: int = Field(
        default=4096,
        ge=16,
        le=100_000,
        title="Longest text (words)",
        description="Longer texts are cut: a prompt at its start, a response at its end.",
    )
    epochs: Epochs = 10
    learning_rate: LinearRate = 0.01
    l2: Ridge = 30.0
    batch_size: BatchSize = 32


class HfOptions(BaseModel):
    """Options of a transformer."""

    model_config = ConfigDict(extra="forbid")

    max_length: LongestText = 1024
    epochs: int = Field(default=2, ge=1, le=100, title="Epochs", description="Passes over data.")
    learning_rate: float = Field(
        default=2e-5, gt=0, le=1, title="Learning rate", description="Peak rate of AdamW."
    )
    warmup: float = Field(
        default=0.1, ge=0, le=0.9, title="Warm-up", description="Share of updates with rising rate."
    )
    weight_decay: float = Field(
        default=0.01, ge=0, le=1, title="Weight decay", description="Of AdamW, on matrices only."
    )
    clip: float = Field(
        default=1.0, gt=0, le=1e6, title="Gradient clip", description="Largest gradient norm."
    )
    batch_size: int = Field(
        default=16, ge=1, le=4096, title="Batch size", description="Pairs per update."
    )
    tokens_per_forward: int = Field(
        default=16_384,
        ge=64,
        le=10_000_000,
        title="Tokens per forward pass",
        description="A batch of more tokens, padding included, is run in parts. Less needs less "
        "memory and gives the same result.",
    )
    dropout: bool = Field(
        default=False,
        title="Dropout",
        description="Keep the model's dropout on. Off, both sides of a pair see the same network.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        title="Precision",
        description="Auto is bf16 arithmetic on a GPU that has it, else fp32. Weights stay fp32.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        title="Gradient checkpointing",
        description="Recompute activations in the backward pass: less memory, about a third slower.",
    )
    packing: bool = Field(
        default=True,
        title="Packing",
        description="Read texts end to end without padding, and what both answers of a decoder "
        "share once. Where a model gives other rewards that way, it is padded.",
    )
    compile: bool = Field(
        default=False,
        title="Compile",
        description="Compile the model by torch.compile: minutes at the start, faster after.",
    )
    lora_rank: int = Field(
        default=0,
        ge=0,
        le=1024,
        title="LoRA rank",
        description="Train matrices of this rank beside the frozen ones, and the head. 0 trains "
        "all weights.",
    )
    lora_alpha: int = Field(
        default=32,
        ge=1,
        le=10_000,
        title="LoRA alpha",
        description="The low-rank part is multiplied by this over its rank.",
    )
    lora_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        title="LoRA dropout",
        description="Share of inputs of the low-rank part that are left out in training.",
    )
    lora_targets: str = Field(
        default="",
        max_length=500,
        title="LoRA targets",
        description="Names of the layers, with commas, such as q_proj,v_proj. Empty is every "
        "linear layer.",
    )


class _Probe(BaseModel):
    """A head on fixed features."""

    model_config = ConfigDict(extra="forbid")

    layers: int = Field(
        default=0, ge=0, le=2, title="Hidden layers", description="0 is a linear probe."
    )
    width: int = Field(
        default=256, ge=1, le=8192, title="Width", description="Units of a hidden layer."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, title="Dropout", description="After each hidden layer."
    )
    l2: Ridge = 30.0
    epochs: Epochs = 20
    learning_rate: float = Field(
        default=0.01, gt=0, le=1, title="Learning rate", description="Peak rate of Adam."
    )
    batch_size: BatchSize = 512
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        title="Precision",
        description="Of the pretrained model. Auto is bf16 on a GPU that has it, else fp32.",
    )


class FrozenOptions(_Probe):
    """Options of a probe on a frozen transformer."""

    pooling: Literal["auto", "mean", "last", "cls"] = Field(
        default="auto",
        title="Pooling",
        description="Which hidden states stand for a text: the mean of all, the last or the first. "
        "Auto is the mean for encoders, the last for decoders.",
    )
    max_length: LongestText = 1024
    tokens_per_forward: int = Field(
        default=16_384,
        ge=64,
        le=10_000_000,
        title="Tokens per forward pass",
        description="Padding included. Less needs less memory and gives the same embeddings.",
    )


class ClipOptions(_Probe):
    """Options of a text-image model. Its towers stay as they are."""

    tune: Literal["probe", "projection"] = Field(
        default="probe",
        title="What is trained",
        description="A probe beside the similarity of prompt and picture, or that and the two "
        "projections that it is measured in, as PickScore does.",
    )
    learning_rate: float = Field(
        default=0.003, gt=0, le=1, title="Learning rate", description="Peak rate of Adam."
    )
    projection_rate: float = Field(
        default=0.01,
        gt=0,
        le=1,
        title="Rate of the projections",
        description="Times the learning rate; only where they are trained.",
    )
    pictures_per_forward: int = Field(
        default=32,
        ge=1,
        le=4096,
        title="Pictures per forward pass",
        description="Less needs less memory and gives the same embeddings.",
    )


class PixelsOptions(BaseModel):
    """Options of the pixels backbone."""

    model_config = ConfigDict(extra="forbid")

    side: int = Field(
        default=64,
        ge=16,
        le=512,
        title="Side (pixels)",
        description="Pictures are shrunk to a square of this side before anything is measured.",
    )
    grid: int = Field(
        default=4,
        ge=1,
        le=16,
        title="Grid",
        description="The picture is also read as this many rows and columns of mean colors.",
    )
    prompt_words: int = Field(
        default=64,
        ge=0,
        le=1000,
        title="Words of the prompt",
        description="So many last words are crossed with what the picture shows. 0 leaves the "
        "prompt out.",
    )
    buckets_log2: Buckets = 18
    epochs: Epochs = 20
    learning_rate: LinearRate = 0.01
    l2: Ridge = 5.0
    batch_size: BatchSize = 32


BACKBONES: Final[dict[str, Method]] = {
    "hashing": Method(
        path="models.neural.hashing:HashingBackbone",
        label="Hashed n-grams",
        summary="A linear model on hashed word n-grams. Nothing to download, seconds on a CPU.",
        options="models.backbones:HashingOptions",
    ),
    "hf": Method(
        path="models.neural.transformer:TransformerBackbone",
        label="Transformer",
        summary="Any Hugging Face encoder or decoder, by id or local path, with a scalar head.",
        options="models.backbones:HfOptions",
    ),
    "frozen": Method(
        path="models.neural.frozen:FrozenBackbone",
        label="Frozen transformer",
        summary="Embeddings by a pretrained model, computed once and kept, and a small head.",
        options="models.backbones:FrozenOptions",
    ),
    "pixels": Method(
        path="models.neural.pixels:PixelsBackbone",
        label="Pixels",
        summary="For images: colors, edges and shapes, crossed with words of the prompt. "
        "Nothing to download.",
        options="models.backbones:PixelsOptions",
    ),
    "clip": Method(
        path="models.neural.clip:ClipBackbone",
        label="Text-image model",
        summary="For images: how well a CLIP or SigLIP model finds that prompt and picture match.",
        options="models.backbones:ClipOptions",
    ),
}


def split_backbone(name: str) -> tuple[str, str]:
    """(key, argument) of a backbone name. Raises BadOptions with what to write instead."""
    key, _, argument = name.partition(":")
    try:
        find(BACKBONES, key)
    except UnknownMethod as error:
        raise BadOptions(str(error)) from None
    if key in TAKES_ARGUMENT and not argument.strip():
        raise BadOptions(f"The backbone {key!r} needs a model: write {key}:<id or path>.")
    if key not in TAKES_ARGUMENT and argument:
        raise BadOptions(f"The backbone {key!r} takes nothing after a colon.")
    return key, argument.strip()
