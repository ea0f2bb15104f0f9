"""Rows through a chat template and through a trainer's own preprocessing, as the trainer would.

The tokenizer is one of bytes with a plain template: it needs no download, and every text and every
boundary between messages comes back. A tokenizer of the operator's is tried beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Final

TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\\n' + message['content']"
    " + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)
Row = dict[str, Any]
Flaw = tuple[int, str]  # place among the rows, why


def own_tokenizer() -> Any:
    """A tokenizer of the 256 bytes and three marks, with TEMPLATE."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={one: n for n, one in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|start|>"],
        clean_up_tokenization_spaces=False,
    )
    found.chat_template = TEMPLATE
    return found


def named_tokenizer(name: str) -> Any:
    """The operator's. Raises OSError or ValueError where it cannot be had or has no template."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(name)
    if not found.chat_template:
        raise ValueError(f"{name} has no chat template")
    return found


def check_template(
    rows: list[Row], tokenizer: Any, *, prompt: str, answers: tuple[str, ...]
) -> Iterator[Flaw]:
    """The prompt, rendered so that an answer is due, must begin the whole conversation, in tokens
    as in text; what follows must be the answer, nothing of the prompt."""
    for place, row in enumerate(rows):
        due = _render(tokenizer, row[prompt], add_generation_prompt=True)
        for name in answers:
            whole = _render(tokenizer, row[prompt] + row[name])
            if not whole[0].startswith(due[0]):
                yield place, f"the template writes the prompt otherwise when {name} follows it"
            elif whole[1][: len(due[1])] != due[1]:
                yield place, f"tokens merge across the boundary of prompt and {name}"
            elif any(one["content"].strip() not in whole[0] for one in row[name]):
                yield place, f"the template leaves out text of {name}"


def _render(tokenizer: Any, messages: Any, **options: Any) -> tuple[str, list[int]]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return text, tokenizer(text, add_special_tokens=False)["input_ids"]


# Preprocessing of TRL -----------------------------------------------------------------------------

# Trainer -> (columns of tokens, of which two must differ)
TOKENS: Final = {
    "DPO": (("prompt_ids", "chosen_ids", "rejected_ids"), ("chosen_ids", "rejected_ids")),
    "Reward": (("chosen_ids", "rejected_ids"), ("chosen_ids", "rejected_ids")),
    "KTO": (("prompt_ids", "completion_ids"), ()),
}


def knows(trainer: str) -> bool:
    return trainer in TOKENS or trainer == "GRPO"


def check_trainer(rows: Any, tokenizer: Any, *, trainer: str) -> Iterator[Flaw]:
    """Take a ``datasets.Dataset`` through the preprocessing of a trainer of TRL.

    What it raises is looked for row by row, so that the rows it stumbles over are named.
    """
    if trainer == "GRPO":
        yield from _check_prompts(rows, tokenizer)
        return
    prepare = _preprocessing(trainer, tokenizer)
    try:
        made = prepare(rows)
    except Exception:  # noqa: BLE001 - whatever a library says of rows is told of the row it is of
        yield from _one_by_one(rows, prepare)
        return
    if len(made) != len(rows):
        yield 0, f"{trainer}Trainer makes {len(made)} of {len(rows)} rows"
        return
    names, differ = TOKENS[trainer]
    for place, row in enumerate(made.select_columns(list(names))):
        if empty := [name for name in names if not row[name]]:
            yield place, f"{trainer}Trainer finds no tokens for {', '.join(empty)}"
        elif differ and row[differ[0]] == row[differ[1]]:
            yield place, f"{trainer}Trainer makes the same tokens of both answers"


def _preprocessing(trainer: str, tokenizer: Any) -> Callable[[Any], Any]:
    """The method that the trainer runs over its dataset when it is made."""
    import trl

    method = getattr(trl, f"{trainer}Trainer")._prepare_dataset
    # What the method reads of its trainer and its configuration; no model is needed.
    own = SimpleNamespace(_tokenizer=tokenizer, calculate_KL=False)
    args = SimpleNamespace(
        dataset_num_proc=None,
        max_length=None,
        truncation_mode="keep_start",
        per_device_train_batch_size=8,
        desirable_weight=1.0,
        undesirable_weight=1.0,
    )
    return lambda rows: method(own, rows, tokenizer, args, "check")


def _one_by_one(rows: Any, prepare: Callable[[Any], Any]) -> Iterator[Flaw]:
    is_any = False
    for place in range(len(rows)):
        try:
            prepare(rows.select([place]))
        except Exception as error:  # noqa: BLE001 - as above
            is_any = True
            yield place, f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:200]}"
    if not is_any:
        yield 0, "the trainer takes every row by itself and not all of them together"


def _check_prompts(rows: Any, tokenizer: Any) -> Iterator[Flaw]:
    from trl.data_utils import is_conversational, maybe_apply_chat_template

    for place, row in enumerate(rows):
        if is_conversational(row):
            row = maybe_apply_chat_template(row, tokenizer)
        if not tokenizer(row["prompt"])["input_ids"]:
            yield place, "the prompt has no tokens"
