"""Exports of real sets load with ``datasets`` and train with TRL; transcripts come back exactly."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.core.management import call_command

from annotator.models import Project
from annotator.services import deliveries
from tests import factories
from tests.annotator.ballots import judged_pair, raters
from tests.annotator.test_exports import HOSTILE, chat, rows_of, version_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when datasets and transformers are imported

HH = "hh_rlhf/harmless-base-test.jsonl.gz"
PANDALM = "pandalm/testset-v1.json"
LLMBAR = "llmbar/LLMBar__Natural__dataset.json"

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def imported(path: Path, capsys: Any) -> tuple[Project, dict[str, Any]]:
    project = factories.project()
    call_command("import_dataset", project.slug, str(path), json=True)
    return project, json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.data
def test_prompt_and_chosen_of_hh_rows_are_the_original_transcripts(
    data_dir: Path, capsys: Any
) -> None:
    project, said = imported(data_dir / HH, capsys)
    with gzip.open(data_dir / HH) as file:
        originals = [orjson.loads(line) for line in file]
    assert (len(originals), said["bad_rows"]) == (2312, [])
    version = version_of(project, style="explicit-standard")
    rows = [row for some in rows_of(version).values() for row in some]
    assert version.manifest["counts"]["in"] == len(originals)
    assert Counter(
        (row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]) for row in rows
    ) == Counter((one["chosen"], one["rejected"]) for one in originals)


@pytest.mark.data
def test_hh_rows_as_conversations_render_to_the_same_transcripts(
    data_dir: Path, capsys: Any
) -> None:
    project, _ = imported(data_dir / HH, capsys)
    with gzip.open(data_dir / HH) as file:
        originals = {orjson.loads(line)["chosen"] for line in file}
    version = version_of(project)
    assert version.manifest["style"] == "explicit-conversational"
    names = {"user": "Human", "assistant": "Assistant", "system": "System"}
    rendered = {
        "".join(
            f"\n\n{names[message['role']]}: {message['content']}"
            for message in row["prompt"] + row["chosen"]
        )
        for some in rows_of(version).values()
        for row in some
    }
    assert rendered == originals


@pytest.mark.data
def test_pandalm_with_ties_dropped_and_a_majority_of_three_gives_the_count_of_a_short_script(
    data_dir: Path, capsys: Any
) -> None:
    items = json.loads((data_dir / PANDALM).read_text())
    expected = 0
    for item in items:
        votes = Counter(item[f"annotator{n}"] for n in (1, 2, 3))
        winner, count = votes.most_common(1)[0]
        expected += winner != 0 and count >= 2
    project, _ = imported(data_dir / PANDALM, capsys)
    version = version_of(project, min_votes=3)
    assert version.rows == expected == 894
    assert version.manifest["counts"]["dropped"] == {"tie": len(items) - expected}


# Training ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A one-layer model and a byte-level tokenizer with a chat template, made here."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<s>", "</s>", "<user>", "<assistant>", "<system>"]
    vocabulary = {token: place for place, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[3:],
    )
    fast.chat_template = CHAT_TEMPLATE

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    # TRL loads the reference model from where the model came from.
    folder = str(tmp_path_factory.mktemp("tiny"))
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder, fast


def trained_two_steps(version: Any, tiny: Any, folder: Path) -> tuple[Any, Any]:
    """Loads every file of a version with ``datasets``; two steps of DPOTrainer on the first."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    kind = "parquet" if version.recipe["container"] == "parquet" else "json"
    files = {
        entry["split"]: str(deliveries.path_of(version, entry["name"])) for entry in version.files
    }
    loaded = load_dataset(kind, data_files=files, cache_dir=str(folder / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {
        entry["split"]: entry["rows"] for entry in version.files
    }
    model, tokenizer = tiny
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(folder / "trainer"),
            max_steps=2,
            per_device_train_batch_size=2,
            max_length=2048,
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=loaded["train"].select(range(min(12, len(loaded["train"])))),
        processing_class=tokenizer,
    )
    return trainer.train(), loaded["train"]


trl = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
)


@trl
@pytest.mark.neural
@pytest.mark.data
@pytest.mark.parametrize("style", ["explicit-standard", "explicit-conversational"])
@pytest.mark.parametrize(
    ("path", "container"), [(HH, "jsonl"), (PANDALM, "parquet"), (LLMBAR, "jsonl.gz")]
)
def test_an_exported_real_set_trains_two_steps_of_dpo(
    path: str, container: str, style: str, data_dir: Path, tmp_path: Path, tiny: Any, capsys: Any
) -> None:
    project, _ = imported(data_dir / path, capsys)
    version = version_of(project, container=container, style=style)
    done, rows = trained_two_steps(version, tiny, tmp_path)
    assert done.global_step == 2
    assert 0 < done.training_loss < 10
    assert isinstance(rows[0]["prompt"], list) == (style == "explicit-conversational")


@trl
@pytest.mark.neural
@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_hostile_texts_train_too(container: str, tmp_path: Path, tiny: Any) -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    for text in HOSTILE:
        turns = [{"role": "system", "content": ""}, *chat(text, "well", f"{text}?")]
        judged_pair(
            project,
            [1],
            by=[rater],
            texts=(text, ""),
            of=factories.prompt(project, messages=turns),
        )
    version = version_of(project, container=container)
    done, rows = trained_two_steps(version, tiny, tmp_path)
    assert done.global_step == 2
    assert [row["chosen"][0]["content"] for row in rows] == HOSTILE
    _, tokenizer = tiny
    for row in rows:
        whole = tokenizer.apply_chat_template(row["prompt"] + row["chosen"], tokenize=False)
        prompt = tokenizer.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        assert whole.startswith(prompt), "the prompt is the beginning of the conversation"
