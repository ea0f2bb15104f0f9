"""This trainer beside TRL's RewardTrainer: the same backbone, pairs, token limit and updates.

    python -m tests.bench.bench_trainers [--json] [--size tiny|small|large] [--kind encoder|decoder]
        [--pairs 256] [--rounds 3] [--only ours,trl-best] [--model FOLDER]

Random weights from a configuration, or those in ``--model``; a tokenizer learned from the pairs. All
train on the same tokens: those of this trainer's encoder, given to TRL as ``chosen_ids`` and
``rejected_ids``. Each run is a process of its own, the trainers in alternation, medians over rounds.

    ours        the defaults; texts packed, a decoder's prompts read once for both answers
    trl         RewardConfig's defaults: bf16 (also where the CPU has to emulate it) and
                gradient checkpointing, batches at random
    trl-fp32    the same in fp32
    trl-best    no checkpointing, lengths grouped, bf16 only where the hardware has it

Wall time is of the updates alone. CPU time is beside it since the machine may be shared. On CUDA
there are also tokens per second and the share of the card's arithmetic that the model itself needs
(MFU: 6 operations a weight and token, attention left out, padding and shared tokens not counted).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from models.pairs import Pair, pairs_path, read_pairs, write_pairs
from models.training import TrainingConfig
from tests.bench.bench_training import ROOT, pairs

TRAINERS: Final = ("ours", "trl", "trl-fp32", "trl-best")
SIZES: Final[dict[str, dict[str, int]]] = {
    "tiny": {"hidden": 64, "layers": 2, "heads": 4, "vocabulary": 2000},
    "small": {"hidden": 256, "layers": 6, "heads": 4, "vocabulary": 16_000},
    "large": {"hidden": 1280, "layers": 24, "heads": 20, "vocabulary": 32_000},  # 0.6 B
}
BATCH, RATE = 16, 1e-4
PEAK: Final = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}


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


def build(folder: Path, rows: list[Pair], *, size: str, kind: str, longest: int) -> None:
    """A sequence classifier with random weights and its tokenizer."""
    import torch
    from transformers import AutoModelForSequenceClassification, BertConfig, Qwen2Config

    from models.neural.conversations import prepare_tokenizer

    texts = [str(side) for row in rows for side in (row.prompt, *row.answers)]
    s = SIZES[size]
    tokenizer = learn_tokenizer(texts, s["vocabulary"])
    prepare_tokenizer(tokenizer)
    shape: dict[str, Any] = {
        "vocab_size": s["vocabulary"],
        "hidden_size": s["hidden"],
        "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"],
        "intermediate_size": 4 * s["hidden"],
        "max_position_embeddings": longest,
        "pad_token_id": tokenizer.pad_token_id,
        "num_labels": 1,
    }
    decoder = Qwen2Config(**shape | {"num_key_value_heads": s["heads"] // 2})
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        BertConfig(**shape) if kind == "encoder" else decoder
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def one_ours(work: Path) -> dict[str, Any]:
    """Train with this trainer, in this process."""
    import torch

    from models.neural.loop import Trainer
    from models.neural.process import Events, Stop

    class Timed(Trainer):
        cpu, read = 0.0, None

        def resume(self) -> None:
            super().resume()  # after memory was estimated on a few tokens
            self.read = count_tokens(self.backbone.module)

        def step(self) -> Any:
            began = time.process_time()
            values = super().step()
            self.cpu += time.process_time() - began
            return values

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = TrainingConfig.read(work)
    trainer = Timed(work, config, device=device, emit=Events(None), stop=Stop())
    metrics = trainer.run()
    return {
        "seconds": metrics["seconds"],
        "cpu": trainer.cpu,
        "updates": metrics["steps"],
        "tokens_read": trainer.read(),
    }


def count_tokens(module: Any) -> Any:
    """A function that says how many tokens, padding included, went through so far."""
    seen = [0]

    def count(_: Any, given: Any) -> None:
        seen[0] += given[0].numel() if module.training else 0

    module.get_input_embeddings().register_forward_pre_hook(count)
    return lambda: seen[0]


def one_trl(work: Path, trainer: str, ids: list[dict[str, list[int]]]) -> dict[str, Any]:
    """Train with TRL, in this process."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    source = TrainingConfig.read(work).backbone.partition(":")[2]
    best = {
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
        "remove_unused_columns": False,
        "logging_strategy": "no",
        "bf16": torch.cuda.is_available() or has_bf16(),
    }
    more: dict[str, Any] = {"trl": {}, "trl-fp32": {"bf16": False}, "trl-best": best}[trainer]
    given = RewardConfig(
        output_dir=str(work / "trl"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=RATE,
        max_length=None,  # they are cut already
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),  # else bf16, its default, is refused on a CPU
        disable_tqdm=True,
        seed=0,
        **more,
    )
    clock: dict[str, float] = {}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.update(wall=time.perf_counter(), cpu=time.process_time())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            clock.update(
                wall=time.perf_counter() - clock["wall"], cpu=time.process_time() - clock["cpu"]
            )

    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    read = count_tokens(model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    data = Dataset.from_list(ids)
    run = RewardTrainer(model=model, args=given, train_dataset=data, processing_class=tokenizer)
    run.add_callback(Clock())
    run.train()
    run.model.save_pretrained(work / "artifact")
    tokenizer.save_pretrained(work / "artifact")
    return {
        "seconds": clock["wall"],
        "cpu": clock["cpu"],
        "updates": run.state.global_step,
        "tokens_read": read(),
    }


def has_bf16() -> bool:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def encoded(work: Path) -> list[dict[str, Any]]:
    """The training pairs as this trainer's own encoder makes them."""
    import torch

    from models.neural.transformer import TransformerBackbone

    config = TrainingConfig.read(work)
    backbone = TransformerBackbone.create(
        config.backbone.partition(":")[2],
        config.backbone_options,  # type: ignore[arg-type]
        device=torch.device("cpu"),
    )
    rows = list(read_pairs(pairs_path(work, "train")))
    found = backbone.encode([(row.prompt, side) for row in rows for side in row.answers])
    sides: list[list[int]] = []
    at = 0
    for length in found.lengths.tolist():
        sides.append(found.ids[at : at + length].tolist())
        at += length
    return [
        {"chosen_ids": a, "rejected_ids": b, "length": len(a) + len(b)}
        for a, b in zip(sides[::2], sides[1::2], strict=True)
    ]


def one(trainer: str, work: Path) -> dict[str, Any]:
    """One run of one trainer, measured, with the accuracy of what it made on the test pairs."""
    import torch

    from models.gateway import load_reward_model

    ids = encoded(work)
    found = one_ours(work) if trainer == "ours" else one_trl(work, trainer, ids)
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * peak_kb()
    model = load_reward_model(work / "artifact")
    test = list(read_pairs(pairs_path(work, "test")))
    scores = model.score([(row.prompt, side) for row in test for side in row.answers])
    accuracy = float((scores[::2] > scores[1::2]).mean())
    tokens = sum(row["length"] for row in ids)
    useful = min(tokens, found["tokens_read"])
    card = torch.cuda.get_device_name() if cuda else "cpu"
    weights = core_weights(work)
    whole = next((peak for name, peak in PEAK.items() if name in card), None)
    return found | {
        "pairs": len(ids),
        "tokens": tokens,
        "peak_mb": peak / 1e6,
        "accuracy": accuracy,
        "device": card,
        "weights": weights,
        "mfu": 6 * weights * useful / found["seconds"] / whole if whole else None,
    }


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def core_weights(work: Path) -> int:
    """Weights that are multiplied for every token: all but the tables of tokens and positions."""
    from transformers import AutoModelForSequenceClassification

    source = TrainingConfig.read(work).backbone.partition(":")[2]
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1)
    return sum(p.numel() for n, p in model.named_parameters() if "embed" not in n)


def prepare(work: Path, model: Path, rows: list[Pair], *, longest: int, test: int) -> None:
    options = {"epochs": 1, "batch_size": BATCH, "learning_rate": RATE, "max_length": longest}
    TrainingConfig(
        backbone=f"hf:{model}", options=options | {"center": 0.0}, checkpoint_every=10**9
    ).write(work)
    write_pairs(pairs_path(work, "train"), rows[test:])
    write_pairs(pairs_path(work, "validation"), [])
    write_pairs(pairs_path(work, "test"), rows[:test])


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Every trainer in turn, so many rounds; a row of medians for each, ratios against ours."""
    rows, source = pairs(given.test + given.pairs)
    names = given.only.split(",")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(given.model or Path(folder) / "model")
        if not given.model:
            build(model, rows, size=given.size, kind=given.kind, longest=given.max_length)
        for turn in range(given.rounds):
            for name in names:
                work = Path(folder) / f"{name}-{turn}"
                work.mkdir()
                prepare(work, model, rows, longest=given.max_length, test=given.test)
                found[name].append(child(name, work))
                say(name, found[name][-1])
    return [row(name, runs, found, given, source, load) for name, runs in found.items()]


def child(name: str, work: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_trainers", "--one", name, "--work", str(work)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def say(name: str, result: dict[str, Any]) -> None:
    cpu, wall = result["cpu"], result["seconds"]
    print(f"{name}: {wall:.1f} s, {cpu:.1f} s of CPU", file=sys.stderr, flush=True)


def row(
    name: str,
    runs: list[dict[str, Any]],
    found: dict[str, list[dict[str, Any]]],
    given: argparse.Namespace,
    source: str,
    load: float,
) -> dict[str, Any]:
    def middle(key: str, of: list[dict[str, Any]] = runs) -> float:
        return statistics.median(run[key] for run in of)

    first = found.get("ours", runs)
    told: dict[str, Any] = {
        "trainer": name,
        "backbone": given.model or f"{given.kind}, {given.size}",
        "data": f"{source}, {runs[0]['pairs']} pairs, {runs[0]['updates']} updates",
        "pairs_per_second": runs[0]["pairs"] / middle("seconds"),
        "pairs_per_cpu_second": runs[0]["pairs"] / middle("cpu"),
        "ours_is_faster_wall": middle("seconds") / middle("seconds", first),
        "ours_is_faster_cpu": middle("cpu") / middle("cpu", first),
        "cpu_rounds": " ".join(f"{run['cpu']:.1f}" for run in runs),
        "tokens_read": int(middle("tokens_read")),
        "tokens": runs[0]["tokens"],
        "peak_mb": round(middle("peak_mb")),
        "accuracy": f"{middle('accuracy'):.3f} of {given.test}",
        "device": runs[0]["device"],
        "load": f"{load:.1f} to {os.getloadavg()[0]:.1f}",
    }
    if runs[0]["device"] != "cpu":
        told["tokens_per_second"] = runs[0]["tokens"] / middle("seconds")
        told["mfu"] = middle("mfu") if runs[0]["mfu"] else "unknown card"
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="rows as JSON, on the last line")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--kind", choices=["encoder", "decoder"], default="encoder")
    parser.add_argument("--model", default="", help="a folder, instead of random weights")
    parser.add_argument("--pairs", type=int, default=256, help="to train on")
    parser.add_argument("--test", type=int, default=200, help="pairs to measure accuracy on")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(TRAINERS))
    parser.add_argument("--one", choices=TRAINERS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.work)))
        return
    rows = run(given)
    if given.json:
        print(json.dumps(rows))
        return
    for told in rows:
        print("  ".join(f"{name} {value}" for name, value in told.items()))


if __name__ == "__main__":
    main()
