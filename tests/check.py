"""Every check that is not a test. Runs all of them, then says how many failed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parent.parent
PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;]+)", re.MULTILINE)
EXTRAS: Final = {"web": (), "gpu": ("learn",), "dev": ("learn", "dev")}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locks_fit() -> list[str]:
    """Every requirement of pyproject.toml is pinned, within its bounds, in every lock it is in."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    problems = []
    for name, extras in EXTRAS.items():
        text = (ROOT / "requirements" / f"{name}.lock").read_text()
        pins = {canonical(package): version for package, version in PIN.findall(text)}
        wanted = list(project["dependencies"])
        for extra in extras:
            wanted += project["optional-dependencies"][extra]
        for line in wanted:
            requirement = Requirement(line)
            version = pins.get(canonical(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                problems.append(f"{name}.lock has {version} for {line}: run `make lock`")
    return problems


def tracked(pattern: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def commands() -> dict[str, list[str]]:
    templates = tracked("templates/*.html")
    return {
        "ruff": ["ruff", "check", "."],
        "format": ["ruff", "format", "--check", "."],
        "imports": ["lint-imports"],
        "types": ["mypy"],
        "templates": ["djlint", "--lint", "--quiet", *templates],
        "template style": ["djade", "--check", "--target-version", "5.2", *templates],
        "migrations": [sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"],
        "deployment": [sys.executable, "manage.py", "check"],
    }


def main() -> int:
    failed = []
    for problem in locks_fit():
        print(problem)
        failed.append("lock")
    for name, command in commands().items():
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {name}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout + done.stderr, flush=True)
    print(f"{len(failed)} of {len(commands()) + 1} checks failed" if failed else "all checks pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
