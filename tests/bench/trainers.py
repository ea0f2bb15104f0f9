"""One run of one trainer in a process of its own: what ``bench_trainers`` starts.

    python -m tests.bench.trainers FOLDER

The folder holds ``config.json`` and the pairs as any training does, ``job.json`` and, for TRL, the
token ids that this trainer's encoder made of the pairs. What was measured is one JSON object on
the last line; rewards of the held-out pairs go to ``rewards.npy``.

The clock runs from before the first update to after the last, data loading and logging within;
loading, tokenizing and saving are outside. On CUDA it waits for the card at both ends.
"""

from __future__ import annotations

import gc
import json
import resource
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from models.gateway import load_reward_model
from models.neural.loop import Trainer
from models.neural.process import Events, Stop
from models.pairs import pairs_path, read_pairs, write_pairs
from models.training import TrainingConfig
from models.workdir import ARTIFACT

IDS: Final = "ids.json"
HELD_OUT: Final = "held-out"  # pairs that no trainer sees
REWARDS: Final = "rewards.npy"
STATUS: Final = Path("/proc/self/status")


@dataclass
class Job:
    """What to run. ``warm`` updates are made before the clock starts, by a trainer of their own."""

    trainer: str
    seed: int
    batch: int
    rate: float
    bf16: bool  # for those that do not insist on their default
    compile: bool = False
    warm: int = 0

    def write(self, work: Path) -> None:
        (work / "job.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, work: Path) -> Job:
        return cls(**json.loads((work / "job.json").read_text()))


@dataclass
class Clock:
    """Wall and CPU seconds, and tokens that went into the model, padding included."""

    wall: float = 0.0
    cpu: float = 0.0
    tokens: int = 0
    peak: int = 0  # bytes held until the clock stopped: what is written afterwards is left out
    began: tuple[float, float] = field(default=(0.0, 0.0))

    def start(self) -> None:
        wait()
        self.tokens = 0
        self.began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        wait()
        self.wall = time.perf_counter() - self.began[0]
        self.cpu = time.process_time() - self.began[1]
        self.peak = peak_bytes()


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Timed(Trainer):
    """This trainer, with the clock on its loop."""

    clock: Clock

    def train(self) -> None:
        def count(_: Any, given: Any) -> None:
            self.clock.tokens += given[0].numel() if module.training else 0

        module: Any = self.backbone.module
        module.get_input_embeddings().register_forward_pre_hook(count)
        self.clock.start()
        super().train()

    def step(self) -> torch.Tensor:
        values = super().step()
        if self.progress.step == self.total_steps:
            self.clock.stop()
        return values


def ours(work: Path) -> tuple[Clock, int]:
    """(clock, updates) of this trainer as a worker runs it, the process apart."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = TrainingConfig.read(work)
    trainer = Timed(work, config, device=device, emit=Events(None), stop=Stop())
    trainer.clock = Clock()
    metrics = trainer.run()
    return trainer.clock, metrics["steps"]


def trl(work: Path, job: Job, ids: list[dict[str, Any]]) -> tuple[Clock, int]:
    """(clock, updates) of TRL's RewardTrainer."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl import RewardConfig, RewardTrainer

    clock = Clock()

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            clock.stop()

    source = TrainingConfig.read(work).backbone.partition(":")[2]

    class Counted(RewardTrainer):
        def training_step(self, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
            clock.tokens += inputs["input_ids"].numel()  # a hook would be compiled with the model
            return super().training_step(model, inputs, *more, **named)

    given = RewardConfig(
        output_dir=str(work / "trl"),
        per_device_train_batch_size=job.batch,
        num_train_epochs=1,
        learning_rate=job.rate,
        max_length=None,  # they are cut already
        save_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),  # else bf16, its default, is refused on a CPU
        disable_tqdm=True,
        seed=job.seed,
        **options(job),
    )
    torch.manual_seed(job.seed)  # of a new head: this trainer seeds before it loads, too
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=1, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(source)
    data = Dataset.from_list(ids)
    run = Counted(model=model, args=given, train_dataset=data, processing_class=tokenizer)
    run.add_callback(Watch())
    run.train()
    run.model.save_pretrained(work / ARTIFACT)
    tokenizer.save_pretrained(work / ARTIFACT)
    return clock, run.state.global_step


def options(job: Job) -> dict[str, Any]:
    """What is not left to TRL's defaults."""
    if job.trainer == "trl":
        return {}
    if job.trainer == "trl-fp32":
        return {"bf16": False}
    return {
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
        "remove_unused_columns": False,
        "logging_strategy": "no",
        "bf16": job.bf16,
        "torch_compile": job.compile,
    }


def warm_up(work: Path, job: Job, ids: list[dict[str, Any]]) -> None:
    """Some updates on the longest pairs, so that the clock finds kernels and memory ready."""
    few = work / "warm"
    few.mkdir()
    rows = list(read_pairs(pairs_path(work, "train")))
    longest = sorted(range(len(ids)), key=lambda i: -ids[i]["length"])[: job.warm * job.batch]
    write_pairs(pairs_path(few, "train"), [rows[i] for i in longest])
    for split in ("validation", "test"):
        write_pairs(pairs_path(few, split), [])
    shutil.copy(work / "config.json", few)
    train(few, job, [ids[i] for i in longest])
    shutil.rmtree(few)
    gc.collect()  # a trainer and its model hold each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def train(work: Path, job: Job, ids: list[dict[str, Any]]) -> tuple[Clock, int]:
    return ours(work) if job.trainer == "ours" else trl(work, job, ids)


def measure(work: Path) -> dict[str, Any]:
    """Train, then score the held-out pairs, all by this product's own scorer."""
    job = Job.read(work)
    ids = json.loads((work / IDS).read_text())
    if job.warm:
        warm_up(work, job, ids)
    is_cuda = torch.cuda.is_available()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    clock, updates = train(work, job, ids)
    model = load_reward_model(work / ARTIFACT)
    held_out = read_pairs(pairs_path(work, HELD_OUT))
    rewards = model.score([(row.prompt, side) for row in held_out for side in row.answers])
    np.save(work / REWARDS, rewards.reshape(-1, 2))
    return {
        "seconds": clock.wall,
        "cpu": clock.cpu,
        "tokens_read": clock.tokens,
        "updates": updates,
        "pairs": len(ids),
        "peak_mb": clock.peak / 1e6,
        "device": torch.cuda.get_device_name() if is_cuda else "cpu",
    }


def peak_bytes() -> int:
    """The most memory held, of a card where there is one, else by this process.

    Linux hands getrusage's figure on from who started it, so its own is asked for.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if STATUS.exists():
        return 1024 * int(STATUS.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
