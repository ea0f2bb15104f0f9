"""Two steps of TRL's trainers on what its formats write: KTO, rewards, DPO on implicit prompts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from annotator.models import DatasetVersion, Project
from tests import factories
from tests.annotator.ballots import judged_pair, raters
from tests.annotator.exported import built, chat, paths_of
from tests.annotator.test_exports_loading import TEXTS

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when datasets and transformers are imported

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.neural,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::UserWarning",
        "ignore::FutureWarning",
        "ignore::ResourceWarning",
    ),
]
STYLES = ["explicit-standard", "explicit-conversational"]
LENGTH = 96


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A decoder of two layers with a chat template."""
    from tests.models import tiny

    return str(tiny.qwen(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def project() -> Project:
    """Odd texts in a conversation with an empty system message."""
    found = factories.project()
    (rater,) = raters(found, 1)
    for text in TEXTS:
        turns = [{"role": "system", "content": ""}, *chat("hello", "hi", f"{text}?")]
        prompt = factories.prompt(found, messages=turns)
        judged_pair(found, [1], by=[rater], of=prompt, texts=(text, "no"))
    return found


def rows_of(version: DatasetVersion, folder: Path) -> Any:
    from datasets import load_dataset

    paths = [str(path) for path in paths_of(version)["train"]]
    kind = "parquet" if paths[0].endswith(".parquet") else "json"
    return load_dataset(kind, data_files=paths, split="train", cache_dir=str(folder / "cache"))


def settings_of(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "trainer"),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "max_length": LENGTH,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


@pytest.mark.parametrize("style", STYLES)
def test_unpaired_rows_train_two_steps_of_kto(
    style: str, project: Project, model: str, tmp_path: Path
) -> None:
    from trl import KTOConfig, KTOTrainer

    version = built(project, "trl-unpaired", style=style, container="parquet")
    rows = rows_of(version, tmp_path)
    assert rows.features["label"].dtype == "bool"
    assert (sum(rows["label"]), len(rows)) == (len(TEXTS), 2 * len(TEXTS))
    told = version.manifest["health"]["balance"]
    weights = {name: told[name] for name in ("desirable_weight", "undesirable_weight")}
    trainer = KTOTrainer(
        model=model, args=KTOConfig(**settings_of(tmp_path), **weights), train_dataset=rows
    )
    done = trainer.train()
    assert done.global_step == 2
    assert 0 < done.training_loss < 10


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("format", ["trl-reward", "trl-preference-implicit"])
def test_implicit_rows_train_two_steps_of_a_reward_model(
    format: str, style: str, project: Project, model: str, tmp_path: Path
) -> None:
    from trl import RewardConfig, RewardTrainer

    rows = rows_of(built(project, format, style=style, margin_from="votes"), tmp_path)
    trainer = RewardTrainer(
        model=model, args=RewardConfig(**settings_of(tmp_path)), train_dataset=rows
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["margin"].tolist() == [1.0, 1.0], "what the rows say reaches the loss"
    done = trainer.train()
    assert done.global_step == 2
    assert 0 < done.training_loss < 10


def test_trl_finds_the_prompt_in_implicit_conversations(
    project: Project, model: str, tmp_path: Path
) -> None:
    from trl import DPOConfig, DPOTrainer
    from trl.data_utils import extract_prompt

    implicit = rows_of(built(project, "trl-preference-implicit"), tmp_path)
    explicit = rows_of(built(project, "trl-preference"), tmp_path)
    for one, other in zip(implicit, explicit, strict=True):
        found = extract_prompt({"chosen": one["chosen"], "rejected": one["rejected"]})
        assert found == {name: other[name] for name in ("prompt", "chosen", "rejected")}
    trainer = DPOTrainer(
        model=model, args=DPOConfig(**settings_of(tmp_path)), train_dataset=implicit
    )
    assert trainer.train().global_step == 2


@pytest.mark.parametrize("format", ["trl-preference", "trl-unpaired"])
def test_the_prompt_s_tokens_begin_the_conversation_s(
    format: str, project: Project, model: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    answer = "completion" if format == "trl-unpaired" else "chosen"
    for row in rows_of(built(project, format), tmp_path):
        prompt = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        whole = tokenizer.apply_chat_template(row["prompt"] + row[answer], return_dict=False)
        assert whole[: len(prompt)] == prompt
