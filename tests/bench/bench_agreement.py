"""Krippendorff's alpha of 1,000,000 judgments, beside the krippendorff package in the same run.

    python -m tests.bench.bench_agreement [--json]

Three people per unit. Every row is a process of its own, so that peaks do not mix; memory counts
the process with its libraries and the ratings. The package takes a table of raters x units, or
counts of units x values, and makes units x values x values numbers of either: with seven steps
and 30 raters both fit. With 3,000 raters the table does not, nor does anything with 1,000
distinct scores; rows that would need over 8 GB are left out and say so. Given counts, the package
is timed for the formula alone, while ours starts from the judgments. ``bootstrap`` is 1,000
replicates.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from models.agreement import Level, Ratings, krippendorff_alpha, measure

JUDGMENTS: Final = 1_000_000
PER_UNIT: Final = 3
UNITS: Final = -(-JUDGMENTS // PER_UNIT)
MOST: Final = 8e9  # bytes
ENOUGH: Final = 3.0  # seconds after which nothing is timed again

# raters, distinct values, level
SIZES: Final[tuple[tuple[int, int, Level], ...]] = (
    (30, 7, "nominal"),
    (30, 7, "ordinal"),
    (30, 7, "interval"),
    (3000, 7, "nominal"),
    (30, 1000, "ordinal"),
    (30, 1000, "interval"),
)


def judgments(raters: int, steps: int) -> tuple[Any, Any, Any]:
    """Codes of units and raters, and values 0..steps-1, each (n,); half copy the unit's truth."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(UNITS), PER_UNIT)[:JUDGMENTS]
    first = rng.integers(raters, size=UNITS)
    people = (first[units] + np.arange(JUDGMENTS) % PER_UNIT * (raters // PER_UNIT)) % raters
    truth, guess = rng.integers(steps, size=UNITS), rng.integers(steps, size=JUDGMENTS)
    return units, people, np.where(rng.random(JUDGMENTS) < 0.5, truth[units], guess)


def ours(raters: int, steps: int, level: Level) -> Callable[[], float | None]:
    columns = judgments(raters, steps)
    return lambda: krippendorff_alpha(Ratings(*columns), level)


def ours_bootstrap(raters: int, steps: int, level: Level) -> Callable[[], float | None]:
    columns = judgments(raters, steps)
    return lambda: measure(Ratings(*columns), level=level).value


def package_table(raters: int, steps: int, level: Level) -> Callable[[], float]:
    import krippendorff

    units, people, values = judgments(raters, steps)
    table = np.full((raters, UNITS), np.nan)
    table[people, units] = values
    return lambda: krippendorff.alpha(table, level_of_measurement=level)


def package_counts(raters: int, steps: int, level: Level) -> Callable[[], float]:
    import krippendorff

    units, _, values = judgments(raters, steps)
    counts = np.bincount(units * steps + values, minlength=UNITS * steps).reshape(UNITS, steps)
    return lambda: krippendorff.alpha(value_counts=counts, level_of_measurement=level)


# How to do it, and the bytes it needs at the least.
CASES: Final[dict[str, tuple[Callable[..., Any], Callable[[int, int], float]]]] = {
    "ours": (ours, lambda raters, steps: 0),
    "ours, bootstrap": (ours_bootstrap, lambda raters, steps: 0),
    "krippendorff, table": (
        package_table,
        lambda raters, steps: max(UNITS * raters * (8 + steps), UNITS * steps**2 * 8),
    ),
    "krippendorff, counts": (package_counts, lambda raters, steps: UNITS * steps**2 * 8),
}


def timed(case: str, size: tuple[int, int, Level], out: Any) -> None:
    """One case in this process: sends its seconds (best of up to three), peak and value."""
    work = CASES[case][0](*size)
    seconds: list[float] = []
    while len(seconds) < 3 and sum(seconds) < ENOUGH:
        began = time.perf_counter()
        value = work()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    out.put({"seconds": min(seconds), "peak_MB": peak / 1e6, "alpha": value})


def alone(case: str, size: tuple[int, int, Level]) -> dict[str, Any]:
    spawn = multiprocessing.get_context("spawn")
    out = spawn.SimpleQueue()
    process = spawn.Process(target=timed, args=(case, size, out))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{case}, {size}: exit {process.exitcode}")
    found: dict[str, Any] = out.get()
    return found


def run() -> list[dict[str, Any]]:
    rows = []
    for size in SIZES:
        raters, steps, level = size
        base = 0.0
        for case, (_, least) in CASES.items():
            row: dict[str, Any] = {"raters": raters, "values": steps, "level": level, "case": case}
            if (need := least(raters, steps)) > MOST:
                rows.append(row | {"note": f"needs {need / 1e9:,.0f} GB"})
                continue
            found = alone(case, size)
            base = base or found["seconds"]
            rows.append(row | found | {"times_ours": found["seconds"] / base})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = run()
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        name = "{raters:>5,} raters {values:>5,} values  {level:<8}  {case:<20}".format(**row)
        if "note" in row:
            print(f"{name}  {row['note']}")
        else:
            figures = "{seconds:7.3f} s  {times_ours:6.1f} x  {peak_MB:6,.0f} MB  {alpha:.6f}"
            print(f"{name}  {figures.format(**row)}")


if __name__ == "__main__":
    main()
