"""Training pairs per second, in the same child process that a worker starts.

    python -m tests.bench.bench_training [--json] [--pairs 2000] [--backbone hf:PATH ...]

On HH-RLHF harmless pairs where TOUCHSTONE_DATA holds them, else on made-up ones, which is said.
The transformer is tiny, with random weights: its rate says what the loop costs, not what a real
model does. ``--backbone`` measures others.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
if not __package__:  # started as a file
    sys.path.insert(0, str(ROOT))

from annotator.importers import transcripts
from models.pairs import SPLITS, Pair, pairs_path, write_pairs
from models.training import TrainingConfig, supervise

HH: Final = "hh_rlhf/harmless-base-test.jsonl.gz"
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "hashing": {},
    "tiny": {"max_length": 256, "epochs": 1, "learning_rate": 1e-3},
    "hf": {"epochs": 1},
}


def real_pairs(path: Path) -> Iterator[Pair]:
    """HH-RLHF transcripts as pairs: the shared turns are the prompt."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            chosen, rejected = transcripts.parse(row["chosen"]), transcripts.parse(row["rejected"])
            shared = transcripts.split_reply(chosen, rejected)
            if shared is None or chosen[shared:] == rejected[shared:]:
                continue
            yield Pair(chosen[:shared], chosen[shared:], rejected[shared:], prompt_id=number)


def made_up_pairs(count: int) -> Iterator[Pair]:
    """Random words, about as many as in an HH answer."""
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghij", k=dice.randint(2, 8))) for _ in range(5000)]
    for number in range(count):
        prompt = [{"role": "user", "content": " ".join(dice.choices(words, k=40))}]
        good, bad = (" ".join(dice.choices(words, k=60)) for _ in range(2))
        yield Pair(prompt, f"{good} indeed", bad, prompt_id=number)


def pairs(most: int) -> tuple[list[Pair], str]:
    """Pairs to train on, and where they are from."""
    path = Path(os.environ.get("TOUCHSTONE_DATA", str(ROOT / "../shared/data"))) / HH
    if path.exists():
        return list(real_pairs(path))[:most], "HH-RLHF harmless"
    return list(made_up_pairs(min(most, 2000))), "made up"


def split_of(pair: Pair) -> str:
    place = hashlib.blake2b(str(pair.prompt_id).encode(), digest_size=1).digest()[0] % 10
    return "test" if place == 0 else "validation" if place == 1 else "train"


def measure(backbone: str, options: dict[str, Any], rows: list[Pair]) -> dict[str, Any]:
    """Train once and report. Raises SystemExit where the training failed."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "run"
        TrainingConfig(backbone=backbone, options=options).write(work)
        for split in SPLITS:
            write_pairs(pairs_path(work, split), (row for row in rows if split_of(row) == split))
        peak = 0.0

        def on_event(event: dict[str, Any]) -> None:
            nonlocal peak
            peak = max(peak, event.get("memory_mb", 0.0))

        began = time.perf_counter()
        result = supervise(work, on_event=on_event, should_stop=lambda: False)
        seconds = time.perf_counter() - began
        if result.metrics is None:
            raise SystemExit(f"{backbone}: {result.reason} {result.advice}")
        found = result.metrics
    low, high = found["interval"]
    return {
        "pairs_per_second": round(found["pairs_per_second"], 1),
        "train_pairs": found["train_pairs"],
        "updates": found["steps"],
        "train_seconds": round(found["seconds"], 1),
        "whole_seconds": round(seconds, 1),
        "peak_mb": round(peak),
        "test_accuracy": f"{found['accuracy']:.3f} [{low:.3f}, {high:.3f}]",
        "device": found["versions"]["device"],
    }


def run(*, most: int, backbones: list[str]) -> list[dict[str, Any]]:
    """A row per backbone: hashing, a tiny transformer, and those that were named."""
    from tests.models import tiny  # builds it with torch, in this process only

    rows, source = pairs(most)
    with tempfile.TemporaryDirectory() as folder:
        named = {"hashing": ("hashing", OPTIONS["hashing"])}
        model = tiny.llama(Path(folder) / "tiny")
        named["tiny transformer"] = (f"hf:{model}", OPTIONS["tiny"])
        named |= {name: (name, OPTIONS[name.partition(":")[0]]) for name in backbones}
        return [
            {"backbone": name, "data": source, **measure(backbone, options, rows)}
            for name, (backbone, options) in named.items()
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="rows as JSON, on the last line")
    parser.add_argument("--pairs", type=int, default=2312, help="most pairs used")
    parser.add_argument("--backbone", action="append", default=[], help="measure this one too")
    given = parser.parse_args()
    rows = run(most=given.pairs, backbones=given.backbone)
    if given.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
