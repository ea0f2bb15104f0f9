"""The web and job side never loads torch, proven in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "accelerate", "datasets", "trl")

LOAD_EVERYTHING = """
import importlib, os, pkgutil, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "annotator.settings"
import django
django.setup()
import annotator, models, rubrics
def names(package):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.startswith("models.neural") and ".migrations" not in found.name:
            yield found.name
count = 0
for package in (annotator, models, rubrics):
    for name in names(package):
        if name != "annotator.gunicorn_conf":
            importlib.import_module(name)
            count += 1
heavy = sorted(set(sys.argv[1:]) & set(sys.modules))
print(count, *heavy)
"""


def test_web_and_jobs_never_load_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD_EVERYTHING, *HEAVY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, *heavy = done.stdout.split()
    assert int(count) > 40, "the walk found the modules"
    assert heavy == []


# Half a second and 40 MB of every process that shows a page or imports a file.
SLOW = ("openai", "scipy.stats", "scipy.optimize", "sklearn", "pandas")
LOAD_PAGES = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "annotator.settings"
import django
django.setup()
import annotator.urls
print(len(sys.modules), *sorted(set(sys.argv[1:]) & set(sys.modules)))
"""


def test_pages_begin_without_slow_libraries() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD_PAGES, *SLOW],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, *slow = done.stdout.split()
    assert int(count) > 500, "the pages were loaded"
    assert slow == []


@pytest.mark.parametrize("package", ["annotator", "models", "rubrics"])
def test_modules_stay_short(package: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts and (lines := path.read_text().count("\n")) > 500
    }
    assert long == {}


# Where everything is caught, and where what was caught is recorded.
BOUNDARIES = {
    "annotator/jobs/base.py": "a job: on its run",
    "annotator/jobs/watch.py": "the thread that rescues runs: logged, and it looks again",
    "annotator/exporters/ahead.py": "a reading thread: raised again by the thread that waits",
    "annotator/services/judging_pump.py": "one task of a judge: on its outcome; its loop: in the job",
    "annotator/services/reward_asking.py": "an asking thread: raised again by the job that opens it",
    "annotator/rendering.py": "a Markdown parser fed with hostile text: shown as plain text, logged",
    "annotator/rendering_math.py": "a LaTeX converter fed with hostile text: shown as source, logged",
    "models/neural/dataset_check.py": "what a reader says of files: a failure of the check, told",
    "models/neural/dataset_template.py": "what a trainer says of rows: told with the row",
    "models/neural/train.py": "the training child: told to its parent as an event",
}


def test_only_boundaries_catch_everything() -> None:
    found = set()
    for package in ("annotator", "models", "rubrics"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.ExceptHandler):
                    continue
                broad = node.type is None or getattr(node.type, "id", "") in {
                    "Exception",
                    "BaseException",
                }
                passes_on = isinstance(node.body[-1], ast.Raise)
                if broad and not passes_on:
                    found.add(str(path.relative_to(ROOT)))
    assert found <= set(BOUNDARIES)
