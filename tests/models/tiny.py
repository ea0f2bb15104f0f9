"""Tiny transformers with random weights, built on the spot: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordPiece
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.models.planted import FILLER, PHRASES, TOPICS

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PIECES = Path(__file__).parent / "wordpieces.txt"
CORPUS = [*PHRASES, " ".join(FILLER), " ".join(TOPICS), "User: Question 0: tell me about.", "so"]
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = {
    **SIZE,
    "num_key_value_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}


def bert(folder: Path, *, positions: int = 128) -> Path:
    """An encoder with [CLS], [SEP] and [PAD]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # Trained once and kept: a trainer of word pieces breaks ties otherwise in every process.
    pieces = PIECES.read_text(encoding="utf-8").split()
    vocabulary = {piece: place for place, piece in enumerate([*special, *pieces])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{f"{name}_token": token for name, token in zip(names, special, strict=True)},
    )
    config = BertConfig(
        vocab_size=len(fast),
        intermediate_size=64,
        max_position_embeddings=positions,
        type_vocab_size=1,
        **SIZE,
    )
    return _save(folder, fast, BertForSequenceClassification, config)


def llama(folder: Path) -> Path:
    """A decoder with BOS and EOS, no pad token and no chat template."""
    fast = _bpe(["<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    config = LlamaConfig(vocab_size=len(fast), **DECODER)
    return _save(folder, fast, LlamaForCausalLM, config)


def qwen(folder: Path) -> Path:
    """A decoder with a chat template whose pad token is its end token."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    fast = _bpe(
        special,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special[1:],
    )
    fast.chat_template = CHATML
    config = Qwen2Config(vocab_size=len(fast), **DECODER)
    return _save(folder, fast, Qwen2ForCausalLM, config)


FAMILIES = {"bert": bert, "llama": llama, "qwen": qwen}


def _bpe(special: list[str], **named: object) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def _save(folder: Path, tokenizer: PreTrainedTokenizerFast, kind: type, config: object) -> Path:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
