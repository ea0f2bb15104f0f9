"""Look at a dataset as its readers will: ``python -m models.neural.dataset_check``, by models.gateway.

A child process, because ``datasets``, a tokenizer and a trainer bring torch and gigabytes that no
worker should keep. What is not installed is not checked, and said so.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Final

import orjson

from models.neural import serve
from models.neural.dataset_rows import (
    AT_ONCE,
    MOST_TOLD,
    Found,
    Promise,
    check_rows,
    odd_lines,
    wrong_columns,
)

MOST_ROWS: Final = 2_000  # taken through templates and trainers, evenly spaced


@dataclass
class Check:
    """One line of what was checked; ``ok`` None where it was not, and ``note`` says why."""

    key: str
    what: str
    rows: int
    of: int
    used: str
    ok: bool | None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self)
        found["with"] = found.pop("used")
        return found


class Checking:
    """All checks of one dataset; the job is what models.gateway.check_dataset describes."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.promise = job, Promise.read(job)
        self.total = sum(one["rows"] for files in job["files"].values() for one in files)
        self.checks: list[Check] = []
        self.failures: list[dict[str, Any]] = []
        self.count = 0

    def run(self) -> dict[str, Any]:
        """What was checked, and what is wrong: {"checks", "failures", "count"}."""
        loaded = self._load()
        if loaded is not None and self._rows(loaded):
            self._template(loaded)
            self._trainer(loaded)
        return {
            "checks": [one.as_dict() for one in self.checks],
            "failures": self.failures,
            "count": self.count,
        }

    def _load(self) -> Any:
        what = "every file loads with datasets"
        if not (used := installed("datasets")):
            self._skip("load", what, "datasets")
            return None
        import datasets

        datasets.disable_progress_bars()
        try:
            loaded = datasets.load_dataset(self.job["folder"], cache_dir=self.job["scratch"])
        except Exception as error:  # noqa: BLE001 - the check's result: whatever a reader meets
            for split in self.job["files"]:
                self._name_odd_lines(split)
            self._fail("", None, f"datasets cannot load it: {_first_line(error)}")
            self.checks.append(Check("load", what, 0, self.total, used, False))
            return None
        for split, files in self.job["files"].items():
            rows = sum(one["rows"] for one in files)
            if split not in loaded or len(loaded[split]) != rows:
                found = len(loaded[split]) if split in loaded else 0
                self._fail(files[0]["name"], None, f"{found:,} rows load, {rows:,} were written")
        self.checks.append(Check("load", what, self.total, self.total, used, not self.count))
        return None if self.count else loaded

    def _name_odd_lines(self, split: str) -> bool:
        """Fail for the rows of a split that do not read as promised; whether there is any."""
        before = self.count
        for one in self.job["files"][split]:
            path = Path(self.job["folder"], one["name"])
            if path.suffix in (".jsonl", ".gz"):
                for row, why in islice(odd_lines(path, self.promise), MOST_TOLD):
                    self._fail(path.name, row + 1, why)
        return self.count > before

    def _rows(self, loaded: Any) -> bool:
        """Whether the columns and every row are what the format promises."""
        found = Found()
        has_types = self.job["container"] != "csv"
        for split in self.job["files"]:
            rows = loaded[split].with_format("arrow")
            if why := wrong_columns(rows.data.schema, self.promise, has_types=has_types):
                if not self._name_odd_lines(split):
                    found.add(split, -1, why)
                continue
            for n, table in enumerate(rows.iter(batch_size=AT_ONCE)):
                check_rows(split, table, n * AT_ONCE, self.promise, found)
        words = ["columns and types"]
        if self.promise.differ:
            words.append(f"{' differs from '.join(self.promise.differ)}")
        if self.promise.answers:
            words.append("no message missing")
        self._tell(found, Check("rows", ", ".join(words), self.total, self.total, "pyarrow", None))
        return not self.count

    def _template(self, loaded: Any) -> None:
        promise = self.promise
        if not promise.prompt or promise.columns.get(promise.prompt) != "messages":
            return
        what = "prompt + answer renders to the tokens of the whole conversation"
        if not (used := installed("transformers")):
            self._skip("template", what, "transformers")
            return
        from models.neural import dataset_template as templates

        tokenizers = [("a plain template", templates.own_tokenizer())]
        if name := self.job["tokenizer"]:
            try:
                tokenizers.append((name, templates.named_tokenizer(name)))
            except (OSError, ValueError) as error:
                note = f"not checked: {_first_line(error)}"
                self.checks.append(Check("template", what, 0, self.total, name, None, note))
        for name, tokenizer in tokenizers:
            found, looked = Found(), 0
            for split, places, rows in self._some(loaded):
                looked += len(places)
                flaws = templates.check_template(
                    list(rows), tokenizer, prompt=promise.prompt, answers=promise.answers
                )
                _add(found, split, places, flaws)
            used_with = f"{used}, {name}"
            self._tell(found, Check("template", what, looked, self.total, used_with, None))

    def _trainer(self, loaded: Any) -> None:
        trainer = self.job["trainer"]
        if not trainer:
            return
        what = f"rows pass the preprocessing of {trainer}Trainer"
        if not (used := installed("trl")) or not installed("torch"):
            self._skip("trainer", what, "trl")
            return
        from models.neural import dataset_template as templates

        if not templates.knows(trainer):
            raise ValueError(f"no preprocessing is known of {trainer}Trainer")
        found, looked, tokenizer = Found(), 0, templates.own_tokenizer()
        for split, places, rows in self._some(loaded):
            looked += len(places)
            flaws = templates.check_trainer(rows, tokenizer, trainer=trainer)
            _add(found, split, places, flaws)
        self._tell(found, Check("trainer", what, looked, self.total, used, None))

    def _some(self, loaded: Any) -> Iterable[tuple[str, list[int], Any]]:
        """Of every split rows that are evenly spaced over all: split, places, rows."""
        step = max(1.0, self.total / MOST_ROWS)
        begin = 0
        for split, files in self.job["files"].items():
            size = sum(one["rows"] for one in files)
            first = -(-begin // step)
            places = [int(n * step) - begin for n in range(int(first), int(first) + MOST_ROWS + 1)]
            places = sorted({place for place in places if 0 <= place < size})
            begin += size
            if places:
                yield split, places, loaded[split].select(places)

    def _skip(self, key: str, what: str, package: str) -> None:
        note = f"not checked: {package} is not installed"
        self.checks.append(Check(key, what, 0, self.total, package, None, note))

    def _tell(self, found: Found, check: Check) -> None:
        check.ok = not found.count
        self.checks.append(check)
        for split, row, why in found.told:
            name, line = self._line(split, row)
            self._fail(name, line, why)
        self.count += found.count - len(found.told)

    def _fail(self, file: str, line: int | None, reason: str) -> None:
        self.count += 1
        self.failures.append({"file": file, "line": line, "reason": reason})

    def _line(self, split: str, row: int) -> tuple[str, int | None]:
        """File and line, from 1, of a row of a split."""
        files = self.job["files"][split]
        if row < 0:
            return files[0]["name"], None
        ends = list(accumulate(one["rows"] for one in files))
        at = next(n for n, end in enumerate(ends) if row < end)
        return files[at]["name"], row - (ends[at] - files[at]["rows"]) + 1


def installed(package: str) -> str:
    """Name and version of a package, "" where it is not there."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


def _add(found: Found, split: str, places: list[int], flaws: Iterable[tuple[int, str]]) -> None:
    for at, why in flaws:
        found.add(split, places[at], why)


def _first_line(error: BaseException) -> str:
    """What went wrong at the bottom of it: libraries wrap errors in errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}".strip()


def main() -> int:
    """Check datasets until stdin closes."""
    home = Path(tempfile.mkdtemp(prefix="touchstone-check-"))
    os.environ |= {
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_MODULES_CACHE": str(home / "modules"),
    }
    try:
        return serve.run(load)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def load() -> Callable[[bytes], None]:
    """What answers a job on stdout, which libraries that print shall not reach."""
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def reply(line: bytes) -> None:
        stdout.write(orjson.dumps(Checking(orjson.loads(line)).run()) + b"\n")
        stdout.flush()

    return reply


if __name__ == "__main__":
    os._exit(main())  # without waiting for the thread that listens
