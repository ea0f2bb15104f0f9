"""Resolve pyproject.toml into requirements/*.lock, one file per image.

pip-tools rather than another resolver, because it asks the same pip that installs: a machine
that offers a CPU build of torch gets a lock without CUDA libraries.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "requirements"
LOCKS: Final = {  # dev first: the others take its versions
    "dev": ["--extra", "learn", "--extra", "dev"],
    "gpu": ["--extra", "learn"],
    "web": [],
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, options in LOCKS.items():
        # One resolution for all: the smaller images take the versions the tests ran with.
        constraint = ["--constraint", str(FOLDER / "dev.lock")] if name != "dev" else []
        target = FOLDER / f"{name}.lock"
        subprocess.run(
            [
                *(sys.executable, "-m", "piptools", "compile", "--quiet", "--upgrade"),
                *("--no-header", "--no-emit-index-url", "--no-emit-find-links"),
                *("--no-emit-trusted-host", "--no-emit-options", "--strip-extras"),
                *("--annotation-style=line", "--output-file", str(target)),
                *options,
                *constraint,
                "pyproject.toml",
            ],
            cwd=ROOT,
            check=True,
        )
        # A local build is named "+cpu" and is to be had on that machine only.
        text = target.read_text().replace("+cpu", "")
        target.write_text(text.replace(f"{ROOT}/", ""))
        print(f"{target.relative_to(ROOT)}: {text.count('==')} packages")


if __name__ == "__main__":
    main()
