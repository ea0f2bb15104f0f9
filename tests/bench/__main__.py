"""Every benchmark, one after another, as one table: ``make bench``.

    python -m tests.bench [NAME ...]
    python -m tests.bench NAME --option value ...

Options are those of the one benchmark that is named; ``-h`` after a name tells them. Figures of
one run on one machine; read them as ratios. Nothing here is asserted.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from itertools import takewhile
from typing import Any, Final

BENCHES: Final = {
    "queue": "tests.bench.bench_queue",
    "import": "tests.bench.bench_import",
    "export": "tests.bench.bench_export",
    "training": "tests.bench.bench_training",
    "trainers": "tests.bench.bench_trainers",
    "frozen": "tests.bench.bench_frozen",
    "agreement": "tests.bench.bench_agreement",
    "raters": "tests.bench.bench_raters",
    "quality": "tests.bench.bench_quality",
    "judging": "tests.bench.bench_judging",
}


def run(module: str, options: list[str]) -> list[dict[str, Any]]:
    """The rows a benchmark prints as JSON on its last line. Raises SystemExit where it failed."""
    command = [sys.executable, "-m", module, "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module} ended with {done.returncode}")
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


def asked(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Which benchmarks, and the options of the one that has any."""
    names = list(takewhile(lambda word: not word.startswith("-"), arguments))
    options = arguments[len(names) :]
    if len(names) != 1 and options and options[0] in ("-h", "--help"):
        print(f"{__doc__}\nBenchmarks: {', '.join(BENCHES)}")
        raise SystemExit(0)
    if unknown := [name for name in names if name not in BENCHES]:
        raise SystemExit(f"There is no benchmark {unknown[0]!r}, but {', '.join(BENCHES)}.")
    if options and len(names) != 1:
        raise SystemExit("Options go to one benchmark: name it first.")
    return names or list(BENCHES), options


def main() -> None:
    names, options = asked(sys.argv[1:])
    if options and options[0] in ("-h", "--help"):
        subprocess.run([sys.executable, "-m", BENCHES[names[0]], "-h"], check=True)
        return
    print(
        f"{time.strftime('%Y-%m-%d')}  {platform.machine()}  {os.cpu_count()} cores"
        f"  load {os.getloadavg()[0]:.1f}  Python {platform.python_version()}"
    )
    for name in names:
        began = time.perf_counter()
        rows = run(BENCHES[name], options)
        print(f"\n{name}, {time.perf_counter() - began:.0f} s")
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
