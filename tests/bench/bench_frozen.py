"""A probe on 100,000 pairs whose embeddings are known, as a worker would train it.

    python -m tests.bench.bench_frozen [--json] [--pairs 100000] [--width 384] [--rounds 1]

The embeddings are made up, with a planted direction that labels follow by chance, and are put into
the cache before; the encoder they claim to be of is never loaded. ``fit`` is reading them from the
cache's tables in every update, the updates and the evaluations between; ``pairs_read`` is parsing
the texts and finding their embeddings; ``whole`` is the child process from its start to the saved
model. The budget is 30 seconds of ``fit`` on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
if not __package__:  # started as a file
    sys.path.insert(0, str(ROOT))

import numpy as np

from models.pairs import Pair, pairs_path, write_pairs
from models.training import TrainingConfig, supervise
from models.workdir import EMBEDDINGS

BUDGET: Final = 30.0  # seconds of fit
VALIDATION, TEST = 2000, 5000
STRENGTH: Final = 3.0  # spread of the planted log-odds
ROWS_AT_ONCE: Final = 4096
WORDS: Final = 12  # of an answer


class Planted:
    """Pairs whose embeddings are normal and whose labels follow one direction of them."""

    def __init__(self, backbone: Any) -> None:
        self.cache, self.width = backbone.cache, backbone.width
        self.rng = np.random.default_rng(0)
        direction = self.rng.normal(size=self.width)
        self.direction = direction / np.linalg.norm(direction) / 2**0.5  # of a difference: sd 1
        self.words = np.array([f"w{i}" for i in range(2000)])
        self.made = 0

    def pairs(self, count: int) -> tuple[list[Pair], float]:
        """Pairs, known to the cache, and the share whose label is the likelier one."""
        made, right = [], 0.0
        while len(made) < count:
            some = min(ROWS_AT_ONCE, count - len(made))
            vectors = self.rng.normal(size=(some, 2, self.width)).astype(np.float32)
            odds = STRENGTH * (vectors @ self.direction) @ np.array([1, -1])  # (some,)
            is_first = self.rng.random(some) < 1 / (1 + np.exp(-odds))
            made += self._known(vectors, is_first)
            right += float(((odds > 0) == is_first).sum())
        return made, right / count

    def _known(self, vectors: Any, is_first: Any) -> list[Pair]:
        from models.neural.frozen import _key

        keys, pairs = [], []
        texts = self.rng.choice(self.words, (2 * len(vectors), WORDS))
        for i, first in enumerate(is_first.tolist()):
            self.made += 1
            prompt = [{"role": "user", "content": f"Question {self.made}?"}]
            answers = [" ".join(texts[2 * i + side]) for side in (0, 1)]
            keys += [_key((prompt, answer)) for answer in answers]
            better, worse = answers if first else answers[::-1]
            pairs.append(Pair(prompt, better, worse, prompt_id=self.made, pair_id=self.made))
        found = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
        self.cache.add(found, vectors.reshape(-1, self.width))
        return pairs


def encoder(folder: Path, width: int) -> Path:
    """A model of that width to name the embeddings after; it is never run."""
    from tests.bench.random_models import Size, build

    size = Size(hidden=width, layers=1, heads=4, vocabulary=300)
    return build(folder, [], size, kind="encoder", longest=128)


def prepare(work: Path, model: Path, *, pairs: int) -> float:
    """Write a run with all embeddings known. Returns the accuracy that the planted truth has."""
    import torch

    from models.neural.frozen import FrozenBackbone

    config = TrainingConfig(backbone=f"frozen:{model}")
    options: Any = config.backbone_options
    planted = Planted(FrozenBackbone.create(str(model), options, device=torch.device("cpu")))
    ceiling = 0.0
    for split, count in (("train", pairs), ("validation", VALIDATION), ("test", TEST)):
        rows, ceiling = planted.pairs(count)
        write_pairs(pairs_path(work, split), rows)
    config.write(work)
    return ceiling


def measure(work: Path) -> dict[str, Any]:
    """Train once in a child process; seconds of each stage. Raises SystemExit where it failed."""
    began, stages = time.perf_counter(), {}
    load = os.getloadavg()[0]

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "stage" and event["state"] in ("running", "done"):
            now = time.perf_counter() - began
            first = stages.setdefault(event["stage"], (now, now))[0]
            stages[event["stage"]] = first, now

    result = supervise(work, on_event=on_event, should_stop=lambda: False)
    whole = time.perf_counter() - began
    if result.metrics is None:
        raise SystemExit(f"{result.reason} {result.advice}")
    seconds = {stage: last - first for stage, (first, last) in stages.items()}
    told = result.metrics
    if told["texts"]["train"].get("embeddings_computed"):
        raise SystemExit("Embeddings were computed: the cache did not know them.")
    return {
        "start": stages["tokenize"][0],
        "pairs_read": seconds["tokenize"],
        "fit": seconds["train"],
        "whole": whole,
        "updates": told["steps"],
        "accuracy": told["accuracy"],
        "interval": told["interval"],
        "load": load,
    }


def run(*, pairs: int, width: int, rounds: int) -> list[dict[str, Any]]:
    """One row: medians over rounds, and all rounds of the fit."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[EMBEDDINGS] = str(Path(folder) / "embeddings")
        model = encoder(Path(folder) / "model", width)
        for turn in range(rounds):
            work = Path(folder) / f"run-{turn}"
            work.mkdir()
            ceiling = prepare(work, model, pairs=pairs)
            found.append(measure(work))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)

    def middle(name: str) -> float:
        return statistics.median(one[name] for one in found)

    low, high = found[-1]["interval"]
    return [
        {
            "pairs": pairs,
            "width": width,
            "updates": found[-1]["updates"],
            "start_seconds": middle("start"),
            "read_seconds": middle("pairs_read"),
            "fit_seconds": middle("fit"),
            "fit_rounds": " ".join(f"{one['fit']:.1f}" for one in found),
            "share_of_budget": middle("fit") / BUDGET,
            "whole_seconds": middle("whole"),
            "accuracy": f"{found[-1]['accuracy']:.3f} [{low:.3f}, {high:.3f}] of {TEST:,}",
            "planted": f"{ceiling:.3f}",
            "load": " ".join(f"{one['load']:.1f}" for one in found),
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="rows as JSON, on the last line")
    parser.add_argument("--pairs", type=int, default=100_000, help="to train on")
    parser.add_argument("--width", type=int, default=384, help="numbers of an embedding")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    rows = run(pairs=given.pairs, width=given.width, rounds=given.rounds)
    if given.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
