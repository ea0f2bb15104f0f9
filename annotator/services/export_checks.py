"""What is looked at before a dataset is offered, and how a failure reads.

The files are loaded, rendered and preprocessed by a child process (models.gateway.check_dataset).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from annotator.errors import MethodFailed
from annotator.exporters import manifest as manifests
from annotator.exporters.build import Built
from annotator.exporters.files import write_text
from annotator.exporters.recipe import ExportOptions
from models import gateway
from models.errors import ScoringFailed

LIMIT_SECONDS: Final = 3600.0
SHOWN: Final = 3  # failures told in the error; the log has those that the child named
OFF: Final = "not checked: switched off on this server (DATASET_CHECKS)"
MISSING: Final = "not checked: datasets is not installed"
WHAT: Final = "every file loads with datasets"

# Format -> columns of prompt ("" where the answers hold it) and answers.
TEXTS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "trl-preference": ("prompt", ("chosen", "rejected")),
    "trl-preference-implicit": ("", ("chosen", "rejected")),
    "trl-reward": ("", ("chosen", "rejected")),
    "trl-unpaired": ("prompt", ("completion",)),
    "trl-prompt-only": ("prompt", ()),
    "openai-preference": ("", ("preferred_output", "non_preferred_output")),
    "llama-factory": ("", ("chosen", "rejected")),
    "openrlhf": ("prompt", ("chosen", "rejected")),
    "nemo": ("", ("chosen_response", "rejected_response")),
    "pick-a-pic": ("", ("jpg_0", "jpg_1")),
}
FILLED: Final = {"trl-reward": ("margin",), "trl-unpaired": ("label",)}
ALIEN: Final = frozenset({"llama-factory"})  # whose messages have other keys than role and content


def check(
    folder: Path,
    scratch: Path,
    *,
    title: str,
    key: str,
    built: Built,
    options: ExportOptions,
    on_wait: Callable[[], None],
    log: Callable[[str], None],
) -> list[dict[str, Any]]:
    """What was checked, for the manifest. Raises MethodFailed where a row does not hold.

    ``title`` is the project's name; ``scratch`` is made and removed; ``on_wait`` is called about once a second and may raise.
    """
    total = built.ledger.out
    if not settings.DATASET_CHECKS:
        return [_unchecked(total, OFF)]
    if not _is_installed("datasets"):
        return [_unchecked(total, MISSING)]
    _write_head(folder, title, options, built)
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        found = gateway.check_dataset(
            _job(folder, scratch, key=key, built=built, options=options),
            check=_within(LIMIT_SECONDS, on_wait),
        )
    except ScoringFailed as error:
        raise MethodFailed(
            f"The files could not be checked. {error.message}",
            advice="Nothing was published. Resume the run.",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if found["count"]:
        raise _refused(found, log)
    for one in found["checks"]:
        log(_line(one))
    checks: list[dict[str, Any]] = found["checks"]
    return checks


def _job(
    folder: Path, scratch: Path, *, key: str, built: Built, options: ExportOptions
) -> dict[str, Any]:
    prompt, answers = TEXTS.get(key, ("", ()))
    if key in ALIEN and built.format.rendering == "messages":
        prompt, answers = "", ()
    return {
        "folder": str(folder),
        "scratch": str(scratch),
        "container": options.container,
        "files": {
            split: [{"name": facts.name, "rows": facts.rows} for facts in files]
            for split, files in built.files.items()
        },
        "columns": built.columns,
        "prompt": prompt,
        "answers": answers,
        "differ": answers if len(answers) == 2 else (),
        "filled": [name for name in FILLED.get(key, ()) if name in built.columns],
        "is_text_needed": getattr(options, "empty", "keep") == "drop",
        "trainer": getattr(built.format, "trainer", ""),
        "tokenizer": settings.DATASET_CHECK_TOKENIZER,
    }


def _write_head(folder: Path, title: str, options: ExportOptions, built: Built) -> None:
    """The card's header, by which ``load_dataset`` finds the files, and the format's own files:
    the folder as it will be handed out, save for the words."""
    write_text(folder / manifests.CARD, manifests.header(title, options, built))
    for name, text in built.format.extra_files(built.names).items():
        write_text(folder / name, text)


def _refused(found: dict[str, Any], log: Callable[[str], None]) -> MethodFailed:
    named = [_where(one) for one in found["failures"]]
    for line in named:
        log(f"Refused: {line}")
    more = found["count"] - min(len(named), SHOWN)
    rest = f" and {more:,} more" if more else ""
    return MethodFailed(
        f"The dataset does not hold what its format promises: {'; '.join(named[:SHOWN])}{rest}.",
        advice="Nothing was published. Leave these rows out, or correct what was imported.",
    )


def _where(failure: dict[str, Any]) -> str:
    file, line = failure["file"], failure["line"]
    place = f"{file}, line {line:,}: " if line else f"{file}: " if file else ""
    return f"{place}{failure['reason']}"


def _line(one: dict[str, Any]) -> str:
    if not one["ok"]:
        return f"{one['what']}: {one['note']}"
    some = "" if one["rows"] == one["of"] else f" of {one['of']:,}"
    return f"Checked: {one['what']}, {one['rows']:,}{some} rows, with {one['with']}"


def _unchecked(total: int, note: str) -> dict[str, Any]:
    return {
        "key": "load", "what": WHAT, "rows": 0, "of": total, "with": "", "ok": None, "note": note,
    }  # fmt: skip


def _within(seconds: float, on_wait: Callable[[], None]) -> Callable[[], None]:
    end = time.monotonic() + seconds

    def wait() -> None:
        on_wait()
        if time.monotonic() > end:
            raise MethodFailed(
                f"The files were not checked within {seconds / 60:.0f} minutes.",
                advice="Nothing was published. Resume the run when the machine is less busy.",
            )

    return wait


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
