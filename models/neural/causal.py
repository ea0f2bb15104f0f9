"""Causal language models for reading, not for writing: loaded, examined, run."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.errors import BadBackbone
from models.neural.conversations import plain_template
from models.neural.memory import guard_memory

PROBE: Final = 8  # tokens that a model is tried on
LOGITS_AT_ONCE: Final = (
    2**25
)  # 128 MiB of float32: all that is ever held of (positions, vocabulary)
WHOLE_AT_ONCE: Final = 2**28  # where the head cannot be run apart
ADVICE: Final = "Choose a causal language model, such as an instruction-tuned Qwen or Llama."


class CausalModel:
    """A causal language model with its tokenizer, examined once when it is made.

    ``columns``: how many columns of the logits are tokens; vocabularies are padded to round
    numbers, and those columns would pollute every logsumexp. ``has_own_head``: hidden states go
    through the head in pieces. ``is_normalized``: what it calls logits are log-probabilities.
    """

    def __init__(
        self, module: Any, tokenizer: Any, *, device: torch.device, name: str = ""
    ) -> None:
        self.module, self.tokenizer, self.device = module.eval(), tokenizer, device
        self.name = name or type(module).__name__
        if not getattr(tokenizer, "chat_template", None):
            tokenizer.chat_template = plain_template(tokenizer)
        tokens = max(tokenizer.get_vocab().values()) + 1  # ids may have gaps: not len(tokenizer)
        self.rows = module.get_input_embeddings().num_embeddings
        self.columns, self.has_own_head, self.is_normalized = tokens, False, False
        self._examine()

    @classmethod
    def load(cls, name: str, *, device: str = "", precision: str = "auto") -> CausalModel:
        """A pretrained model by hub id or folder, safetensors only, its own code never run.

        ``device`` as torch names it; empty is CUDA where there is one, else the CPU. bf16 on CUDA, else float32, where ``precision`` is "auto". Raises BadBackbone and
        OutOfMemory.
        """
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        bf16 = precision == "bf16" or (
            precision == "auto"
            and where.type == "cuda"
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )
        kind = torch.bfloat16 if bf16 else torch.float32
        try:
            with guard_memory(f"The model {name!r} does not fit."):
                tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    name,
                    dtype=kind,
                    trust_remote_code=False,
                    use_safetensors=True,
                    output_loading_info=True,
                )
                module, info = loaded[0].to(where), loaded[1]
        except (OSError, ValueError, KeyError, ImportError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            first = str(error).strip().split("\n")[0]
            raise BadBackbone(
                f"The model {name!r} cannot be loaded: {first}",
                advice="Check the id or path. Without access to the hub, give a local folder. "
                "Weights must be safetensors.",
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise BadBackbone(
                f"The model {name!r} is not a language model: it lacks {missing[0]}.", advice=ADVICE
            )
        return cls(module, tokenizer, device=where, name=name)

    def limit(self, max_length: int) -> int:
        """The least of ``max_length``, the tokenizer's limit and the positions there are."""
        positions = getattr(self.module.config, "max_position_embeddings", None)
        limits = [max_length, int(self.tokenizer.model_max_length)]
        return min([*limits, positions] if isinstance(positions, int) and positions > 0 else limits)

    def tokens_at_once(self, tokens: int) -> int:
        """At most ``tokens`` per forward pass; fewer where it gives logits of all positions."""
        return tokens if self.has_own_head else min(tokens, WHOLE_AT_ONCE // self.columns)

    def logits_at(
        self, ids: Tensor, mask: Tensor, rows: Tensor, places: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """Logits after the tokens at (rows, places), a piece at a time.

        ids, mask (b, t), padded on the right: no token sees what comes after it. rows, places (n,).
        Yields (piece of the n, float32 (c, columns)).
        """
        if self.has_own_head:
            states = self._states(ids, mask)[rows, places]  # (n, h): the prompt needs no logits
            head = self.module.get_output_embeddings()
        else:
            states, head = self._logits(ids, mask)[rows, places], None  # (n, V)
        step = max(1, LOGITS_AT_ONCE // self.columns)
        for start in range(0, len(rows), step):
            piece = slice(start, start + step)
            logits = head(states[piece]) if head else states[piece]  # (c, V)
            yield piece, logits[:, : self.columns].float()

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Hidden states (b, t, h) of the last layer, normalized where the model does that.

        ids, mask (b, t), padded on the right. Raises BadBackbone where it shows none.
        """
        if self.module.base_model is not self.module:
            return self._states(ids, mask)
        output = self.module(
            input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True
        )
        if not getattr(output, "hidden_states", None):
            raise BadBackbone(f"The model {self.name!r} shows no hidden states.", advice=ADVICE)
        return output.hidden_states[-1]

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        output = self.module.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        return output.last_hidden_state  # (b, t, h)

    def _logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.module(input_ids=ids, attention_mask=mask, use_cache=False).logits  # (b, t, V)

    @torch.inference_mode()
    def _examine(self) -> None:
        """Try the model on two short texts that differ in their last token only."""
        ids = torch.arange(PROBE, device=self.device).repeat(2, 1) % min(self.columns, self.rows)
        ids[1, -1] = ids[0, 1]
        mask = torch.ones_like(ids)
        whole = self._logits(ids, mask).float()  # (2, PROBE, V)
        if whole.isnan().any() or not whole.logsumexp(-1).isfinite().all():
            raise BadBackbone(
                f"The model {self.name!r} gives values that are not numbers.",
                advice="Its weights may be damaged; or set the precision to fp32.",
            )
        self.columns = min(self.columns, whole.shape[-1])
        finite = whole[whole.isfinite()].abs().max().item()
        kind = next((p.dtype for p in self.module.parameters()), torch.float32)
        close = (1e-4 if kind == torch.float32 else 3e-2) * (1 + finite)
        if not torch.allclose(whole[0, :-1], whole[1, :-1], rtol=0, atol=close):
            raise BadBackbone(
                f"The model {self.name!r} reads ahead: it is no causal language model.",
                advice=ADVICE,
            )
        sums = torch.stack([whole.logsumexp(-1), whole[..., : self.columns].logsumexp(-1)])
        self.is_normalized = bool((sums.abs() < 1e-3).all(dim=(1, 2)).any())
        self.has_own_head = self._head_gives(whole, ids, mask, close)

    def _head_gives(self, whole: Tensor, ids: Tensor, mask: Tensor, close: float) -> bool:
        """Whether the head alone gives the model's logits: some scale or bend them afterwards."""
        head = self.module.get_output_embeddings()
        if head is None or self.module.base_model is self.module:
            return False
        states = self._states(ids, mask)
        if states.shape[-1] != head.weight.shape[-1]:
            return False
        return torch.allclose(head(states).float(), whole, rtol=0, atol=close)
