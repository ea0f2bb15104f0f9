"""The frozen backbone: embeddings by a pretrained model, computed once, and a probe on them.

The reward is head(pooled hidden states of (prompt, answer)). Embeddings are found again by the
digest of the conversation (models.neural.embeddings), so the encoder is loaded only where there is
something new to read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from models.backbones import FrozenOptions
from models.errors import BadArtifact, BadBackbone
from models.neural import encoders
from models.neural.conversations import RENDER_VERSION, Renderer, prepare_tokenizer
from models.neural.embeddings import KEY_BYTES, EmbeddingCache, shared_root
from models.neural.memory import in_batches
from models.neural.probe import Probe, ProbeBackbone, as_encoded
from models.neural.store import Conversation, Encoded
from models.neural.transformer import longest_text, use_bf16
from models.pairs import require_texts

VERSION: Final = 1  # of the pooling below


class FrozenBackbone(ProbeBackbone):
    """A pretrained encoder or decoder that stays as it is, and a probe."""

    module: Probe
    options: FrozenOptions

    def __init__(
        self, argument: str, options: FrozenOptions, *, device: torch.device, outputs: int = 1
    ) -> None:
        super().__init__(options, device=device)
        self.argument, self.outputs = argument, outputs
        self.config = encoders.read_config(argument)
        if getattr(self.config, "is_encoder_decoder", False):
            raise BadBackbone(
                f"The model {argument!r} is an encoder-decoder.",
                advice="Choose an encoder such as BERT, or a decoder such as Llama.",
            )
        self.identity = encoders.identity(argument, self.config)
        self.tokenizer: Any = encoders.load(
            argument, lambda: AutoTokenizer.from_pretrained(argument)
        )
        # A model without a mark for the whole text is read as decoders are: at its last token.
        has_cls = self.tokenizer.cls_token is not None
        prepare_tokenizer(self.tokenizer)
        self.pooling = options.pooling
        if self.pooling == "auto":
            self.pooling = "mean" if has_cls else "last"
        text = self.config.get_text_config()
        self.width = int(getattr(text, "hidden_size", 0))
        if not self.width:
            raise BadBackbone(f"The model {argument!r} is no transformer that reads texts.")
        self.renderer = Renderer(
            self.tokenizer, longest_text(text, self.tokenizer, options.max_length)
        )
        self.bf16 = use_bf16(options.precision, device)
        self.cache = EmbeddingCache(shared_root(), f"frozen-{self.fingerprint}", self.width)
        self.module = Probe(
            self.width,
            outputs,
            layers=options.layers,
            hidden=options.width,
            dropout=options.dropout,
        ).to(device)
        self.encoder: Any = None

    @classmethod
    def create(
        cls, argument: str, options: FrozenOptions, *, device: torch.device, outputs: int = 1
    ) -> FrozenBackbone:
        """A new probe on a model named by hub id or local path. Raises BadBackbone."""
        return cls(argument, options, device=device, outputs=outputs)

    @classmethod
    def load(
        cls, folder: Path, options: FrozenOptions, *, device: torch.device, outputs: int = 1
    ) -> FrozenBackbone:
        """A saved probe with the model it was trained on. Raises BadArtifact."""
        argument, known = encoders.noted(folder)
        try:
            backbone = cls(argument, options, device=device, outputs=outputs)
        except BadBackbone as error:
            raise BadArtifact(error.message, advice=error.advice) from error
        encoders.require_same(argument, known=known, now=backbone.identity)
        backbone.load_module(folder)
        return backbone

    def save(self, folder: Path) -> None:
        """Write the probe, and which model it reads; that model is not copied."""
        self.save_module(folder)
        encoders.note(folder, self.argument, self.identity)

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes an embedding."""
        parts = [
            VERSION, RENDER_VERSION, self.identity, self.pooling, self.renderer.max_length,
            self.bf16, self.tokenizer.chat_template, len(self.tokenizer),
        ]  # fmt: skip
        return blake2b(orjson.dumps(parts), digest_size=16).hexdigest()

    @property
    def versions(self) -> dict[str, str]:
        return {"transformers": transformers.__version__}

    def standardize(self, vectors: Tensor) -> None:
        self.module.standardize(vectors)

    @property
    def probe(self) -> Probe:
        return self.module

    def encode(self, conversations: list[Conversation]) -> Encoded:
        """The embedding of every conversation, computed where it is not known yet."""
        require_texts(answer for _, answer in conversations)
        notes: Counter[str] = Counter()

        def compute(places: NDArray[np.int64]) -> NDArray[np.float32]:
            encoded = self.renderer.encode([conversations[place] for place in places])
            notes.update(encoded.notes)
            return self.embed(encoded)

        keys = [_key(conversation) for conversation in conversations]
        vectors, computed = self.cache.embed(keys, compute, check=self.check)
        notes["embeddings_computed"] += computed
        return as_encoded(vectors, notes)

    def embed(self, encoded: Encoded) -> NDArray[np.float32]:
        """Pooled hidden states (m, d) of token sequences."""
        ends = np.cumsum(encoded.lengths)
        rows = np.split(encoded.ids, ends[:-1])
        found = np.zeros((len(rows), self.width), np.float32)

        def run(batch: list[int]) -> None:
            found[batch] = self.read([rows[i] for i in batch])

        in_batches(
            list(range(len(rows))),
            encoded.lengths.tolist(),
            run,
            tokens=self.options.tokens_per_forward,
            check=self.check,
        )
        return found

    @torch.no_grad()
    def read(self, rows: list[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Embeddings (b, d) of b token sequences in one forward pass."""
        lengths = np.array([len(row) for row in rows])
        shown = np.arange(lengths.max()) < lengths[:, None]  # (b, t)
        ids = np.full(shown.shape, self.tokenizer.pad_token_id, np.int64)  # (b, t)
        ids[shown] = np.concatenate(rows)
        mask = torch.from_numpy(shown).long().to(self.device)
        model = self.loaded()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            hidden = model(
                input_ids=torch.from_numpy(ids).to(self.device), attention_mask=mask
            ).last_hidden_state  # (b, t, d)
        pooled: NDArray[np.float32] = POOL[self.pooling](hidden.float(), mask).cpu().numpy()
        return pooled

    def loaded(self) -> Any:
        """The encoder, loaded when it is first needed."""
        if self.encoder is None:
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            model = encoders.load(
                self.argument, lambda: AutoModel.from_pretrained(self.argument, dtype=dtype)
            )
            if len(self.tokenizer) > model.get_input_embeddings().num_embeddings:
                model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
            self.encoder = model.to(self.device).eval()
        return self.encoder


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weight = mask[:, :, None]
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1)


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, mask.sum(dim=1) - 1]


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[:, 0]


# hidden (b, t, d), mask (b, t) -> (b, d); padding is on the right.
POOL: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "mean": _mean,
    "last": _last,
    "cls": _first,
}


def _key(conversation: Conversation) -> bytes:
    return blake2b(orjson.dumps(conversation), digest_size=KEY_BYTES).digest()
