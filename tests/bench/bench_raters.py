"""Raters and rankings on 1,000,000 judgments, beside crowd-kit and choix.

    python -m tests.bench.bench_raters [--json] [--rows 1000000] [--limit 300]

Every row is a process of its own on one core: its seconds and peak memory hold nothing of the
others. crowd-kit is measured where it can be imported, else said to be missing; what is not
done after ``--limit`` seconds is stopped and said so. ``agrees`` is the share of planted labels
found, or the correlation with the planted scores: a fast wrong answer is no answer.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
if not __package__:  # started as a file
    sys.path.insert(0, str(ROOT))

import numpy as np

from models.ranking import bradley_terry
from models.raters import CrowdBradleyTerry, DawidSkene, split_accuracy
from models.shared_errors import shared_errors

ONE_CORE: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS"), "1"
)
RATERS: Final = 500
Outcome = tuple[float, float, str]  # seconds, agreement with the truth, note


def labeled(rows: int) -> tuple[np.ndarray, ...]:
    """Items, raters, labels and truth: 5 labels per item, 3 classes, raters right at .4 to .95."""
    rng = np.random.default_rng(0)
    n = max(rows // 5, 1)
    truth = rng.integers(0, 3, n)
    items, raters = rng.integers(0, n, rows), rng.integers(0, RATERS, rows)
    quality = rng.uniform(0.4, 0.95, RATERS)
    guess = rng.integers(0, 3, rows)
    return items, raters, np.where(rng.random(rows) < quality[raters], truth[items], guess), truth


def compared(rows: int, n: int) -> tuple[np.ndarray, ...]:
    """Raters, two items, outcome and true scores; raters with reliability .5 to 1."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=n)
    raters, a = rng.integers(0, RATERS, rows), rng.integers(0, n, rows)
    b = (a + rng.integers(1, n, rows)) % n
    first = rng.random(rows) < 1 / (1 + np.exp(truth[b] - truth[a]))
    honest = rng.random(rows) < rng.uniform(0.5, 1, RATERS)[raters]
    return raters, a, b, np.where(first == honest, 1, -1), truth


def dawid_skene(rows: int) -> Outcome:
    items, raters, labels, truth = labeled(rows)
    began = time.perf_counter()
    fit = DawidSkene().fit(items, raters, labels, n_items=len(truth))
    seconds = time.perf_counter() - began
    return seconds, split_accuracy(fit.posterior_, truth) or 0.0, f"{fit.n_iter_} iterations"


def sharing(rows: int) -> Outcome:
    items, raters, labels, truth = labeled(rows)
    fit = DawidSkene().fit(items, raters, labels, n_items=len(truth))
    began = time.perf_counter()
    found = shared_errors(items, raters, labels, fit)
    return time.perf_counter() - began, float(not found.is_warning), f"{found.n_pairs:,} pairs"


def crowdkit_dawid_skene(rows: int) -> Outcome:
    import pandas as pd
    from crowdkit.aggregation.classification.dawid_skene import DawidSkene as Theirs

    items, raters, labels, truth = labeled(rows)
    table = pd.DataFrame({"task": items, "worker": raters, "label": labels})
    began = time.perf_counter()
    model = Theirs(n_iter=100).fit(table)
    seconds = time.perf_counter() - began
    found = model.labels_
    right = float(np.mean(found.to_numpy() == truth[found.index.to_numpy()]))
    return seconds, right, f"{len(model.loss_history_)} iterations"


def pairs(n: int) -> Callable[[int], Outcome]:
    def measure(rows: int) -> Outcome:
        _, a, b, outcome, truth = compared(rows, n)
        began = time.perf_counter()
        fit = bradley_terry(a, b, outcome, n_items=n)
        seconds = time.perf_counter() - began
        return seconds, correlation(fit.scores, truth), f"with intervals, {fit.n_iter} iterations"

    return measure


def crowdkit_pairs(rows: int) -> Outcome:
    import pandas as pd
    from crowdkit.aggregation.pairwise.bradley_terry import BradleyTerry

    raters, a, b, outcome, truth = compared(rows, 2_000)
    winner = np.where(outcome > 0, a, b)
    table = pd.DataFrame({"worker": raters, "left": a, "right": b, "label": winner})
    began = time.perf_counter()
    scores = BradleyTerry(n_iter=100).fit(table).scores_
    seconds = time.perf_counter() - began
    # Theirs are exponents of ours.
    return seconds, correlation(np.log(scores.to_numpy()), truth[scores.index]), "no intervals"


def choix_pairs(rows: int) -> Outcome:
    import choix

    _, a, b, outcome, truth = compared(rows, 2_000)
    wins = np.where(outcome > 0, (a, b), (b, a)).T
    data = [tuple(row) for row in wins.tolist()]
    began = time.perf_counter()
    scores = choix.ilsr_pairwise(2_000, data, alpha=1e-6)
    return time.perf_counter() - began, correlation(scores, truth), "no intervals"


def crowd_bt(rows: int) -> Outcome:
    raters, a, b, outcome, truth = compared(rows, 2_000)
    began = time.perf_counter()
    fit = CrowdBradleyTerry().fit(raters, a, b, outcome)
    seconds = time.perf_counter() - began
    return seconds, correlation(fit.scores_, truth), f"{fit.n_iter_} iterations"


def crowdkit_crowd_bt(rows: int) -> Outcome:
    import pandas as pd
    from crowdkit.aggregation.pairwise.noisy_bt import NoisyBradleyTerry

    raters, a, b, outcome, truth = compared(rows, 2_000)
    winner = np.where(outcome > 0, a, b)
    table = pd.DataFrame({"worker": raters, "left": a, "right": b, "label": winner})
    began = time.perf_counter()
    scores = NoisyBradleyTerry(n_iter=100).fit(table).scores_
    seconds = time.perf_counter() - began
    return seconds, correlation(scores.to_numpy(), truth[scores.index]), "reliabilities per rater"


def correlation(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.corrcoef(found, truth)[0, 1])


# name -> (what is measured, against which row its ratio is, package it needs)
MEASURES: Final[dict[str, tuple[Callable[[int], Outcome], str, str]]] = {
    "Dawid-Skene": (dawid_skene, "", ""),
    "Dawid-Skene, crowd-kit": (crowdkit_dawid_skene, "Dawid-Skene", "crowdkit"),
    "shared errors": (sharing, "", ""),
    "Bradley-Terry, 2,000 items": (pairs(2_000), "", ""),
    "Bradley-Terry, choix": (choix_pairs, "Bradley-Terry, 2,000 items", "choix"),
    "Bradley-Terry, crowd-kit": (crowdkit_pairs, "Bradley-Terry, 2,000 items", "crowdkit"),
    "Bradley-Terry, 100,000 items": (pairs(100_000), "", ""),
    "CrowdBT, 2,000 items": (crowd_bt, "", ""),
    "CrowdBT, crowd-kit": (crowdkit_crowd_bt, "CrowdBT, 2,000 items", "crowdkit"),
}


def measure(name: str, rows: int, limit: float) -> dict[str, Any]:
    """One row of the table, from a process of its own."""
    package = MEASURES[name][2]
    if package and importlib.util.find_spec(package) is None:
        return {"seconds": "", "note": f"{package} is not installed"}
    command = [sys.executable, "-m", "tests.bench.bench_raters", "--one", name, "--rows", str(rows)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | ONE_CORE,
            capture_output=True,
            text=True,
            check=not package,  # ours must not fail; theirs may, and it is said
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return {"seconds": f"over {limit:g}", "note": "stopped"}
    if done.returncode:
        return {"seconds": "failed", "note": done.stderr.strip().splitlines()[-1][:80]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def run(rows: int, limit: float) -> list[dict[str, Any]]:
    """All rows, each with the ratio of its seconds to ours."""
    table: dict[str, dict[str, Any]] = {}
    for name, (_, ours, _) in MEASURES.items():
        found = measure(name, rows, limit)
        seconds, base = found["seconds"], table.get(ours, {}).get("seconds")
        known = isinstance(seconds, float) and isinstance(base, float)
        ratio = round(seconds / base, 1) if known else ""
        table[name] = {
            "what": name,
            "judgments": rows,
            "seconds": seconds,
            "times_ours": ratio,
            "peak_mb": found.get("peak_mb", ""),
            "agrees": found.get("agrees", ""),
            "note": found["note"],
        }
    return list(table.values())


def one(name: str, rows: int) -> dict[str, Any]:
    seconds, agrees, note = MEASURES[name][0](rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {
        "seconds": round(seconds, 2),
        "peak_mb": peak,
        "agrees": round(agrees, 4),
        "note": note,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="rows as JSON, on the last line")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--limit", type=float, default=300, help="seconds for one row")
    parser.add_argument("--one", choices=MEASURES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.rows)))
        return
    rows = run(given.rows, given.limit)
    if given.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
