"""Every benchmark, one after another, as one table: ``make bench``.

Figures of one run on one machine; read them as ratios. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from typing import Any, Final

BENCHES: Final = {
    "queue": "tests.bench.bench_queue",
    "import": "tests.bench.bench_import",
    "export": "tests.bench.bench_export",
    "training": "tests.bench.bench_training",
    "trainers": "tests.bench.bench_trainers",
    "agreement": "tests.bench.bench_agreement",
    "raters": "tests.bench.bench_raters",
    "quality": "tests.bench.bench_quality",
    "judging": "tests.bench.bench_judging",
}


def run(module: str) -> list[dict[str, Any]]:
    """The rows a benchmark prints as JSON on its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    rows = json.loads(done.stdout.strip().splitlines()[-1])
    return rows if isinstance(rows, list) else [rows]


def cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.3f}"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of equal columns as aligned text."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[name.replace("_", " ") for name in names]]
    lines += [[cell(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    return "\n".join(
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", choices=[[], *BENCHES], help="which ones; all if none")
    options = parser.parse_args()
    print(
        f"{time.strftime('%Y-%m-%d')}  {platform.machine()}  {os.cpu_count()} cores"
        f"  load {os.getloadavg()[0]:.1f}  Python {platform.python_version()}"
    )
    for name in options.only or BENCHES:
        began = time.perf_counter()
        rows = run(BENCHES[name])
        print(f"\n{name}, {time.perf_counter() - began:.0f} s")
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
