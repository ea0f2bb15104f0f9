"""The transformer backbone: any Hugging Face encoder or decoder with a small head.

It is plain ``AutoModelForSequenceClassification`` with one output (or as many as the objective
wants), before, during and after
training. Decoders read the reward at the last token that is not padding, so the pad token is
written into the configuration and never occurs in a text.
"""

from __future__ import annotations

import errno
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.compiler import set_stance
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from models.backbones import HfOptions
from models.errors import BadArtifact, BadBackbone, BadOptions
from models.neural import packed, priors, room
from models.neural.conversations import RENDER_VERSION, Renderer, prepare_tokenizer
from models.neural.store import Conversation, Encoded, Store
from models.pairs import require_texts

# Learned position tables of the RoBERTa family start after the pad token's place.
OFFSET_POSITIONS: Final = frozenset({"roberta", "xlm-roberta", "camembert", "longformer", "mpnet"})
UNBOUNDED: Final = 10**9  # tokenizers without a limit claim a number far above this
GPU_MULTIPLE: Final = 8  # lengths are padded to this on CUDA, for its matrix units
FEWEST_TOKENS: Final = 16  # in one forward pass; a longer text is a pass by itself


class TransformerBackbone:
    """A model with a scalar head and its tokenizer."""

    group_by_length = True
    evaluations = 5  # per run, where the configuration does not say: about a tenth of its time
    cpu_threads = 0  # as many as torch likes
    shares = 1  # devices that weights, gradients and optimizer are spread over

    def __init__(
        self, module: Any, tokenizer: Any, options: HfOptions, *, device: torch.device
    ) -> None:
        self.module, self.tokenizer, self.options, self.device = module, tokenizer, options, device
        self.outputs = module.config.num_labels
        self.check: Callable[[], None] = lambda: None
        self.clip = options.clip
        self.renderer = Renderer(
            tokenizer, longest_text(module.config, tokenizer, options.max_length)
        )
        if not options.dropout:
            for part in module.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
        self.bf16 = use_bf16(options.precision, device)
        self.packing = (
            packed.prepare(module, offset=offset(module.config)) if options.packing else None
        )
        self.memory: room.Room | None = None
        self.recomputes = False
        if options.gradient_checkpointing:
            self.recompute()
        if options.compile:
            compile_layers(base_of(module))

    @classmethod
    def create(
        cls, argument: str, options: HfOptions, *, device: torch.device, outputs: int = 1
    ) -> TransformerBackbone:
        """A pretrained model by hub id or local path; its head is new unless it has as many outputs.

        Raises BadBackbone where there is none, or none that can be used.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(argument)
            module = AutoModelForSequenceClassification.from_pretrained(
                argument, num_labels=outputs, dtype=torch.float32, ignore_mismatched_sizes=True
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            first = str(error).strip().split("\n")[0]
            raise BadBackbone(
                f"The model {argument!r} cannot be loaded: {first}",
                advice="Check the id or path. Without access to the hub, give a local folder.",
            ) from error
        prepare_tokenizer(tokenizer)
        if len(tokenizer) > module.get_input_embeddings().num_embeddings:
            module.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        module.config.pad_token_id = tokenizer.pad_token_id
        if options.lora_rank:
            module = adapted(module, options)
        return cls(module.to(device), tokenizer, options, device=device)

    @classmethod
    def load(
        cls, folder: Path, options: HfOptions, *, device: torch.device, outputs: int = 1
    ) -> TransformerBackbone:
        """A saved model. Raises BadArtifact."""
        try:
            whole = options.model_copy(update={"lora_rank": 0})  # what was added is in the weights
            return cls.create(str(folder), whole, device=device, outputs=outputs)
        except BadBackbone as error:
            raise BadArtifact(error.message) from error

    def save(self, folder: Path) -> None:
        """Write model and tokenizer so that plain transformers loads them.

        A low-rank part and a prior are added into the weights, here too: training is over.
        """
        priors.fold(self.module)
        if hasattr(self.module, "merge_and_unload"):
            self.module = self.module.merge_and_unload()
        self.module.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes the encoding."""
        template = self.tokenizer.chat_template
        vocabulary = len(self.tokenizer), type(self.tokenizer).__name__
        return f"{RENDER_VERSION}-{self.renderer.max_length}-{vocabulary}-{template}"

    @property
    def versions(self) -> dict[str, str]:
        return {"transformers": transformers.__version__}

    def fit(self, store: Store, rows: NDArray[np.int64], *, seed: int) -> None:
        """Estimate the memory; read less at once, or recompute, where there is too little."""
        pairs = np.sort(store.longest(rows))[-self.options.batch_size :] * 2  # (b,) tokens
        most, least = int(pairs.sum()), int(pairs.max(initial=0))
        while True:
            tokens = min(most, max(self.options.tokens_per_forward, least))
            self.memory = self.estimate(tokens)
            if self.memory.fits or not self.read_less(tokens=tokens, least=least):
                return

    def estimate(self, tokens: int) -> room.Room:
        """Bytes that training takes with so many tokens in one forward pass."""

        def run(length: int) -> Tensor:
            ids = np.arange(length, dtype=np.int32) % (len(self.tokenizer) - 1)
            with set_stance("force_eager"):  # compiled, what autograd keeps is not seen
                return self.logits(ids, np.zeros(1, np.int64), np.array([length]))

        per_token = room.bytes_per_token(self.module, run)
        return room.estimate(
            self.module,
            per_token=per_token,
            tokens=tokens,
            device=self.device,
            shares=self.shares,
        )

    def read_less(self, *, tokens: int, least: int) -> bool:
        """Where ``tokens`` did not fit: half as many at once, then recomputing; False if neither.

        ``least`` are those of one row, which cannot be halved. Neither changes what is learned.
        """
        self.module.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        tokens = min(tokens, self.options.tokens_per_forward)
        if tokens <= least:
            return self.recompute()
        self.options.tokens_per_forward = max(tokens // 2, FEWEST_TOKENS)
        return True

    @property
    def reads(self) -> str:
        """How much goes through the model at once, in words."""
        how = ", activations recomputed" if self.recomputes else ""
        return f"{self.options.tokens_per_forward:,} tokens at a time{how}"

    def recompute(self) -> bool:
        """Checkpoint activations from now on; False where that is done or cannot be."""
        if self.recomputes or not base_of(self.module).supports_gradient_checkpointing:
            return False
        base_of(self.module).activation_checkpointing_enable({"use_reentrant": False})
        self.recomputes = True
        return True

    def optimizer(self, train_pairs: int) -> torch.optim.Optimizer:
        """AdamW; biases and norms are not decayed."""
        matrices = [p for p in self.module.parameters() if p.requires_grad and p.ndim >= 2]
        others = [p for p in self.module.parameters() if p.requires_grad and p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": self.options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.options.learning_rate, fused=True)

    def attach_prior(self, generator: torch.Generator) -> priors.Prior:
        """Add a random prior (models.neural.priors) to the head."""
        last = [
            layer
            for layer in self.module.modules()
            if isinstance(layer, nn.Linear) and layer.out_features == self.outputs
        ][-1]  # what peft trains of a head stands after what it keeps of it
        return priors.attach(last, generator)

    def schedule(self, progress: float) -> float:
        """Share of the peak learning rate at ``progress`` in 0..1: a ramp, then a half cosine."""
        warmup = self.options.warmup
        if progress < warmup:
            return progress / warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))

    def encode(self, conversations: list[Conversation]) -> Encoded:
        """Token ids of every conversation."""
        require_texts(answer for _, answer in conversations)
        return self.renderer.encode(conversations)

    def parts(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Split rows of k sequences that stay together to keep within ``tokens_per_forward``.

        lengths (b, k). Returns row indices, shortest first; a part is padded to its own longest.
        """
        longest, together = lengths.max(axis=1), lengths.shape[1]  # (b,)
        parts: list[list[int]] = [[]]
        packed_tokens = 0
        for row in np.argsort(longest, kind="stable"):  # the longest comes last and sets the cost
            packed_tokens += int(lengths[row].sum())
            padded = (len(parts[-1]) + 1) * together * longest[row]
            tokens = packed_tokens if self.packing else padded
            if parts[-1] and tokens > self.options.tokens_per_forward:
                parts.append([])
                packed_tokens = int(lengths[row].sum())
            parts[-1].append(int(row))
        return [np.array(part) for part in parts]

    def forward(self, store: Store, sequences: NDArray[np.int64]) -> Tensor:
        """Outputs (m, d) fp32 of the given sequences of a store."""
        starts = store.offsets[sequences]
        return self.logits(store.ids, starts, store.offsets[sequences + 1] - starts).float()

    def logits(
        self, ids: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Tensor:
        """Outputs (m, d) of the sequences ids[start:start + length]."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if self.packing:
                return self.packing(ids, starts, lengths)
            tokens, mask = self.pad(ids, starts, lengths)  # (m, t) each
            logits: Tensor = self.module(input_ids=tokens, attention_mask=mask).logits
            return logits

    def pad(
        self, source: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask (m, t), padded on the right to the longest."""
        longest = int(lengths.max())
        if self.device.type == "cuda":
            longest = -(-longest // GPU_MULTIPLE) * GPU_MULTIPLE
            longest = min(longest, self.renderer.max_length)
        mask = np.arange(longest) < lengths[:, None]  # (m, t)
        ids = np.full(mask.shape, self.tokenizer.pad_token_id, dtype=np.int64)  # (m, t)
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        ids[mask] = source[np.repeat(starts, lengths) + within]
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).long().to(self.device)


def adapted(module: Any, options: HfOptions) -> Any:
    """A model whose weights are frozen but for its head, and low-rank matrices beside its layers.

    Raises BadOptions for layers that it does not have. Source: Hu et al. 2021, arXiv 2106.09685.
    """
    from peft import LoraConfig, TaskType, get_peft_model  # a second to import; few need it

    targets = [name.strip() for name in options.lora_targets.split(",") if name.strip()]
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,  # the head is trained whole
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets or "all-linear",
    )
    try:
        with warnings.catch_warnings():  # peft asks transformers by a name that it gives up
            warnings.simplefilter("ignore", FutureWarning)
            return get_peft_model(module, config)
    except ValueError as error:
        first = str(error).split("\n")[0]
        raise BadOptions(f"LoRA cannot be set up: {first}") from error


def compile_layers(model: Any, *, backend: Any = "inductor") -> None:
    """Compile each layer by itself: alike as they are, all are compiled once, for any length.

    Packed attention stands outside (models.neural.packed), and so does what picks the texts' states.
    """
    lists = [part for part in model.base_model.modules() if isinstance(part, nn.ModuleList)]
    alike = [part for part in lists if len(part) == model.config.num_hidden_layers]
    for layer in alike[0] if alike else [model.base_model]:
        layer.compile(dynamic=True, backend=backend)


def base_of(module: Any) -> Any:
    """The model itself, where low-rank matrices were put around it."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module


def offset(config: Any) -> int:
    """The place of a text's first token in the table of positions."""
    return (config.pad_token_id or 0) + 1 if config.model_type in OFFSET_POSITIONS else 0


def longest_text(config: Any, tokenizer: Any, asked: int) -> int:
    """The least of what was asked for, what the tokenizer says and what positions there are."""
    limits = [asked]
    if tokenizer.model_max_length < UNBOUNDED:
        limits.append(tokenizer.model_max_length)
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - offset(config))
    return min(limits)


def use_bf16(precision: str, device: torch.device) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"
