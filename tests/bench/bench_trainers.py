"""This trainer beside TRL's RewardTrainer: the same backbone, pairs, token limit and updates.

    python -m tests.bench.bench_trainers [--json] [--backbone FOLDER] [--pairs 256] [--rounds 3]
        [--size tiny|small|large] [--kind encoder|decoder] [--layers N] [--hidden N] [--heads N]
        [--device auto|cpu|cuda] [--only ours,trl-best]

The backbone is a folder of transformers, or random weights of a size, which learn little in so few
updates. All start from the same weights and train on the same tokens: those of this trainer's
encoder, given to TRL as ``chosen_ids`` and ``rejected_ids``. Each run is a process of its own
(tests.bench.trainers), the trainers take turns, every round begins with another one and has a seed
of its own.

    ours        the defaults; texts packed, a decoder's prompts read once for both answers
    trl         RewardConfig's defaults: bf16 (also where the CPU has to emulate it) and
                gradient checkpointing, batches at random
    trl-fp32    the same in fp32
    trl-best    no checkpointing, lengths grouped, bf16 only where the hardware has it

Where the processor has no bf16, TRL's literal default is so slow that it makes few updates, once
(``--literal-pairs``); its accuracy is not told. Seconds are of the updates alone; CPU seconds stand
beside them since the machine may be shared. Ratios are of the two runs of one round; shown are the
median and the range over rounds. Accuracy is of all rounds together, with an interval over prompts,
and so is its difference from ours, on the same pairs.

On CUDA some updates come before the clock, and two figures more: tokens per second, as all trainers
are given them, and model FLOPs utilization (MFU), the arithmetic that the texts need without
padding or recomputing (tests.bench.flops) over what the card can do in bf16. A prompt that ours
reads once for two answers counts once. ``--device cpu --size tiny --peak-tflops 0.1 --warm 1`` goes
the same way without a card.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
if not __package__:  # started as a file
    sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray

from models.intervals import cluster_bootstrap, estimate_accuracy
from models.pairs import Pair, pairs_path, read_pairs, write_pairs
from models.training import TrainingConfig
from models.workdir import ARTIFACT, write_json
from tests.bench.bench_training import pairs
from tests.bench.flops import needed, peak_of, shape_of
from tests.bench.random_models import SIZES, build
from tests.bench.trainers import HELD_OUT, IDS, REWARDS, Job

TRAINERS: Final = ("ours", "trl", "trl-fp32", "trl-best")
WARM: Final = 8  # updates before the clock on CUDA
RESULT, ASKED = "result.json", "asked.json"
CPUINFO: Final = Path("/proc/cpuinfo")
BF16_FLAGS: Final = {"avx512_bf16", "amx_bf16", "bf16"}
Found = dict[str, list[dict[str, Any]]]  # what was measured, by trainer and round


class Bench:
    """One comparison: the folder it works in, and what all its runs have in common."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.is_cuda = on_cuda(given.device)
        self.bf16 = given.precision == "bf16" or (
            given.precision == "auto" and (self.is_cuda or has_bf16())
        )
        self.warm = given.warm if given.warm >= 0 else WARM * self.is_cuda
        rows, self.source = pairs(given.test + given.pairs)
        self.held_out, self.rows = rows[: given.test], rows[given.test :]
        if not self.held_out or not self.rows:
            raise SystemExit(f"There are {len(rows):,} pairs: too few for --test {given.test}.")
        self.backbone = self.model(rows)
        self.ids = self.encode()
        self.shape = shape_of(self.model_config())

    def model(self, rows: list[Pair]) -> Path:
        given = self.given
        if given.backbone:
            return Path(given.backbone).resolve()
        asked = {name: getattr(given, name) for name in ("layers", "hidden", "heads", "vocabulary")}
        size = replace(SIZES[given.size], **{k: v for k, v in asked.items() if v})
        return build(self.folder / "model", rows, size, kind=given.kind, longest=given.max_length)

    def model_config(self) -> Any:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.backbone, num_labels=1)

    def config(self, seed: int) -> TrainingConfig:
        given = self.given
        options = {
            "epochs": 1,
            "batch_size": given.batch,
            "learning_rate": given.rate,
            "max_length": given.max_length,
            "center": 0.0,
            "precision": "bf16" if self.bf16 else "fp32",
            "compile": given.compile,
        }
        return TrainingConfig(
            backbone=f"hf:{self.backbone}", options=options, seed=seed, checkpoint_every=10**9
        )

    def encode(self) -> list[dict[str, Any]]:
        """The training pairs as this trainer's own encoder makes them."""
        import torch

        from models.neural.transformer import TransformerBackbone

        options: Any = self.config(0).backbone_options
        backbone = TransformerBackbone.create(
            str(self.backbone), options, device=torch.device("cpu")
        )
        # As a child reads them back: writing may clean a text.
        path = self.folder / "pairs-all.jsonl"
        write_pairs(path, self.rows)
        found = backbone.encode([(r.prompt, side) for r in read_pairs(path) for side in r.answers])
        sides = [s.tolist() for s in np.split(found.ids, np.cumsum(found.lengths)[:-1])]
        return [
            {"chosen_ids": a, "rejected_ids": b, "length": len(a) + len(b)}
            for a, b in zip(sides[::2], sides[1::2], strict=True)
        ]

    def one(self, trainer: str, turn: int) -> dict[str, Any]:
        """A run of one trainer in a process of its own."""
        given = self.given
        count = given.literal_pairs if self.is_emulated(trainer) else len(self.rows)
        work = self.folder / f"{trainer}-{turn}"
        if (work / RESULT).exists():
            return self.result(work)
        shutil.rmtree(work, ignore_errors=True)  # of a run that was cut short
        work.mkdir()
        self.config(turn).write(work)
        Job(
            trainer=trainer,
            seed=turn,
            batch=given.batch,
            rate=given.rate,
            bf16=self.bf16,
            compile=given.compile,
            warm=self.warm,
        ).write(work)
        (work / IDS).write_text(json.dumps(self.ids[:count]))
        for split, rows in (("train", self.rows[:count]), ("validation", []), ("test", [])):
            write_pairs(pairs_path(work, split), rows)
        write_pairs(pairs_path(work, HELD_OUT), self.held_out)
        before = os.getloadavg()[0]
        told = self.child(work) | {"round": turn, "load": [before, os.getloadavg()[0]]}
        wall, cpu = told["seconds"], told["cpu"]
        print(f"{trainer}: {wall:.1f} s, {cpu:.1f} s of CPU", file=sys.stderr, flush=True)
        write_json(work / RESULT, told)
        shutil.rmtree(work / ARTIFACT)
        return self.result(work)

    def result(self, work: Path) -> dict[str, Any]:
        rewards = np.load(work / REWARDS)  # (n, 2)
        told: dict[str, Any] = json.loads((work / RESULT).read_text())
        return told | {"correct": rewards[:, 0] > rewards[:, 1]}

    def child(self, work: Path) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.trainers", str(work)],
            cwd=ROOT,
            env=os.environ | self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{work.name}: {done.stderr[-2000:]}")
        told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return told

    def environment(self) -> dict[str, str]:
        """One card at most: TRL spreads over all it sees. One thread unless more were asked for."""
        cards = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] if self.is_cuda else ""
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return quiet | {
            "CUDA_VISIBLE_DEVICES": cards,
            "OMP_NUM_THREADS": str(self.given.threads),
            "TOKENIZERS_PARALLELISM": "false",
        }

    def is_emulated(self, trainer: str) -> bool:
        """Whether this trainer uses bf16 that the processor does not have."""
        return trainer == "trl" and not self.is_cuda and not has_bf16()

    def run(self) -> Found:
        """Every trainer in turn, so many rounds."""
        names = self.given.only.split(",") if self.given.only else self.names()
        found: Found = {name: [] for name in names}
        for turn in range(self.given.first_round, self.given.rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                if not found[name] or not self.is_emulated(name):
                    found[name].append(self.one(name, turn))
        return {name: sorted(runs, key=lambda run: run["round"]) for name, runs in found.items()}

    def names(self) -> list[str]:
        """All that differ here: with bf16 in hardware its defaults need no fp32 beside them."""
        return [t for t in TRAINERS if t != "trl-fp32" or not (self.is_cuda or has_bf16())]

    def row(self, name: str, found: Found) -> dict[str, Any]:
        """What is told of one trainer."""
        runs, first = found[name], found.get("ours", [])
        size = runs[0]["pairs"]
        tokens = sum(row["length"] for row in self.ids[:size])
        loads = [pick(load for run in runs for load in run["load"]) for pick in (min, max)]
        told: dict[str, Any] = {
            "trainer": name,
            "backbone": self.given.backbone or f"random {self.given.kind}, {self.given.size}",
            "weights": self.shape.weights,
            "data": self.source,
            "pairs": size,
            "updates": runs[0]["updates"],
            "rounds": len(runs),
            "pairs_per_second": spread([size / run["seconds"] for run in runs]),
            "pairs_per_cpu_second": spread([size / run["cpu"] for run in runs]),
            "ours_is_faster": spread(ratios(first, runs, "seconds")),
            "ours_is_faster_cpu": spread(ratios(first, runs, "cpu")),
            "tokens": tokens,
            "tokens_read": int(statistics.median(run["tokens_read"] for run in runs)),
            "peak_mb": round(statistics.median(run["peak_mb"] for run in runs)),
            "accuracy": "" if self.is_emulated(name) else self.accuracy(runs),
            "minus_ours": "" if self.is_emulated(name) or not first else difference(runs, first),
            "precision": self.precision(name),
            "device": runs[0]["device"],
            "threads": self.given.threads,
            "load": "{:.1f} to {:.1f}".format(*loads),
        }
        peak = 1e12 * self.given.peak_tflops or peak_of(runs[0]["device"])
        if self.is_cuda or peak:
            told["tokens_per_second"] = spread([tokens / run["seconds"] for run in runs])
            work = self.arithmetic(runs[0], tokens)
            shares = [work / run["seconds"] / peak for run in runs] if peak else []
            told["mfu"] = spread(shares) or "unknown card"
        return told

    def precision(self, name: str) -> str:
        is_bf16 = name == "trl" or (self.bf16 and name != "trl-fp32")
        return "bf16, emulated" if self.is_emulated(name) else "bf16" if is_bf16 else "fp32"

    def arithmetic(self, run: dict[str, Any], tokens: int) -> float:
        """Operations that the texts of a run need, a shared beginning once where it was read once."""
        some = self.ids[: run["pairs"]]
        sides = [side for row in some for side in (row["chosen_ids"], row["rejected_ids"])]
        lengths = np.array([len(side) for side in sides])
        before = np.zeros(len(sides), dtype=np.int64)
        if run["tokens_read"] < tokens:
            before[1::2] = [shared(*pair) for pair in zip(sides[::2], sides[1::2], strict=True)]
        return needed(self.shape, lengths, before)

    def accuracy(self, runs: list[dict[str, Any]]) -> str:
        """Of all rounds, a prompt a cluster, and how far rounds differ."""
        correct = np.stack([run["correct"] for run in runs])  # (rounds, n)
        told = estimate_accuracy(correct.reshape(-1), self.prompts(len(runs)), seed=0)
        assert told is not None
        low, high = told.interval
        each = correct.mean(axis=1)
        return (
            f"{told.accuracy:.3f} [{low:.3f}, {high:.3f}] of {len(self.held_out):,},"
            f" rounds {each.min():.3f} to {each.max():.3f}"
        )

    def prompts(self, rounds: int) -> NDArray[np.int64]:
        return np.tile([row.prompt_id for row in self.held_out], rounds)


def difference(runs: list[dict[str, Any]], first: list[dict[str, Any]]) -> str:
    """Accuracy less that of ours, over the same held-out pairs, with an interval."""
    both = [np.stack([run["correct"] for run in some]).mean(axis=0) for some in (runs, first)]
    less = both[0] - both[1]  # (n,)
    if not less.any():
        return "+0.000, equal on every pair"
    low, high = cluster_bootstrap(less, np.arange(len(less)), seed=0)
    return f"{less.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def ratios(first: list[dict[str, Any]], runs: list[dict[str, Any]], what: str) -> list[float]:
    """How many times as fast ours was in the same round, per pair."""
    ours = {run["round"]: run[what] / run["pairs"] for run in first}
    return [run[what] / run["pairs"] / ours[run["round"]] for run in runs if run["round"] in ours]


def spread(values: list[float]) -> str:
    """Median, and range where there are several."""
    if not values:
        return ""
    middle = f"{statistics.median(values):.3g}"
    return f"{middle} ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else middle


def shared(one: list[int], other: list[int]) -> int:
    """Tokens that both begin with, as packing shares them: every text keeps one of its own."""
    from models.neural.packed import SHORTEST_SHARED

    size = min(len(one), len(other)) - 1
    differ = np.flatnonzero(np.array(one[:size]) != np.array(other[:size]))
    found = int(differ[0]) if len(differ) else size
    return found if found >= SHORTEST_SHARED else 0


def on_cuda(device: str) -> bool:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here.")
    return device != "cpu" and torch.cuda.is_available()


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself."""
    return CPUINFO.exists() and bool(BF16_FLAGS & set(CPUINFO.read_text().split()))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    found.add_argument("--json", action="store_true", help="rows as JSON, on the last line")
    found.add_argument("--backbone", default="", help="a folder, instead of random weights")
    found.add_argument("--size", choices=SIZES, default="small", help="of random weights")
    found.add_argument("--kind", choices=["encoder", "decoder"], default="encoder")
    for name in ("layers", "hidden", "heads", "vocabulary"):
        found.add_argument(f"--{name}", type=int, default=0, help="instead of that size's")
    found.add_argument("--pairs", type=int, default=256, help="to train on, once each")
    found.add_argument("--literal-pairs", type=int, default=16, help="for bf16 that is emulated")
    found.add_argument("--test", type=int, default=400, help="pairs to measure accuracy on")
    found.add_argument("--batch", type=int, default=16, help="pairs of an update")
    found.add_argument("--rate", type=float, default=1e-4, help="peak learning rate")
    found.add_argument("--max-length", type=int, default=128, help="tokens of a text")
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--first-round", type=int, default=0, help="where another process has those")
    found.add_argument("--only", default="", help=f"some of {', '.join(TRAINERS)}")
    found.add_argument("--folder", type=Path, help="keep runs here; one cut short goes on")
    found.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    found.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    found.add_argument("--compile", action="store_true", help="ours and trl-best")
    found.add_argument("--warm", type=int, default=-1, help=f"updates first; {WARM} on CUDA")
    found.add_argument("--threads", type=int, default=1, help="of the processor")
    found.add_argument("--peak-tflops", type=float, default=0.0, help="of a card not known here")
    return found


@contextmanager
def kept(given: argparse.Namespace) -> Iterator[Path]:
    """The folder of the runs: one that goes away, or one given, which holds one comparison only."""
    if not given.folder:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    free = ("json", "folder", "rounds", "first_round", "only")
    asked = {name: value for name, value in vars(given).items() if name not in free}
    path = given.folder / ASKED
    if path.exists() and json.loads(path.read_text()) != asked:
        raise SystemExit(f"{given.folder} holds runs with other arguments: {path.read_text()}")
    write_json(path, asked)
    yield given.folder


def main() -> None:
    given = parser().parse_args()
    with kept(given) as folder:
        bench = Bench(given, folder)
        found = bench.run()
        rows = [bench.row(name, found) for name in found]
    if given.json:
        print(json.dumps(rows))
        return
    for told in rows:
        print("  ".join(f"{name} {value}" for name, value in told.items()))


if __name__ == "__main__":
    main()
