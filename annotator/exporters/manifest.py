"""The manifest of a version and the card that goes with it: what is in the files and why."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from django.conf import settings

from annotator.exporters import card as cards
from annotator.exporters.build import Built, manifest_parts
from annotator.exporters.files import FileFacts
from annotator.exporters.policy import policy
from annotator.exporters.project_health import with_near_duplicates
from annotator.exporters.recipe import REASONS, ExportOptions
from annotator.models import Project, Rater
from annotator.queries.datasets import RaterVotes, Sides

MANIFEST: Final = "manifest.json"
CARD: Final = "README.md"
CHECKSUMS: Final = "SHA256SUMS"
EXTRAS: Final = (MANIFEST, CARD, CHECKSUMS)
SCHEMA: Final = 1
READERS: Final = ("datasets", "transformers", "trl")  # where they are installed


@cache
def software() -> dict[str, str]:
    """Versions of what wrote the files."""
    with (settings.BASE_DIR / "pyproject.toml").open("rb") as file:
        own = tomllib.load(file)["project"]["version"]
    packages = ("django", "psycopg", "orjson", "pyarrow", "numpy", "scipy")
    return {
        "touchstone": own,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        **{name: found for name in READERS if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def data_files(built: Built) -> list[FileFacts]:
    """The files of rows, in the order of splits and shards."""
    return [facts for files in built.files.values() for facts in files]


def checksums(built: Built) -> str:
    """The data files in the form of ``sha256sum``."""
    return "".join(f"{facts.sha256}  {facts.name}\n" for facts in data_files(built))


def checksum(built: Built) -> str:
    """One SHA-256 for a version: that of its list of checksums. Equal rows give equal ones."""
    return sha256(checksums(built).encode()).hexdigest()


@dataclass(frozen=True)
class About:
    """What a version is called, what it was made of and when."""

    project: Project
    number: int
    key: str  # of the format
    options: ExportOptions
    started: datetime
    finished: datetime


def manifest(
    about: About,
    built: Built,
    *,
    raters: Sequence[RaterVotes],
    sides: Sides | None,
    postgres: str,
    beside: dict[str, Any],
    checked: list[dict[str, Any]],
) -> dict[str, Any]:
    """Everything that is known about a version, ready for JSON.

    ``beside``: exporters.project_health; ``checked``: what was looked at before it was offered.
    """
    counts, parts = built.ledger.as_dict(), manifest_parts(built)
    health = (
        built.health.as_dict()
        | beside
        | {"shown_first_wins": sides and sides.as_dict()}
        | built.format.facts()
    )
    return {
        "schema": SCHEMA,
        "name": f"{about.project.slug} v{about.number}",
        "title": about.project.name,
        "project": about.project.slug,
        "version": about.number,
        "format": about.key,
        "style": built.format.style,
        "rendering": built.format.rendering,
        "columns": list(built.columns),
        "counts": counts,
        "reasons": {reason: REASONS[reason] for reason in counts["dropped"]},
        "policy": {} if built.format.style == "raw" else policy(about.options),
        "options": about.options.model_dump(mode="json"),
        "split": _split(about.project),
        **_votes(about.project, raters),
        **parts,
        "health": with_near_duplicates(health, parts),
        "terms": _terms(about.options),
        "checked": checked,
        "files": [
            {"split": split, **facts.as_dict()}
            for split, files in built.files.items()
            for facts in files
        ],
        "extra_files": sorted(built.format.extra_files(built.names)),
        "checksum": checksum(built),
        "software": software() | {"postgresql": postgres},
        "started_at": about.started.isoformat(),
        "finished_at": about.finished.isoformat(),
    }


def _terms(options: Any) -> dict[str, str]:
    """Raw formats have no such options."""
    return {name: getattr(options, name, "").strip() for name in ("licence", "consent")}


def _split(project: Project) -> dict[str, Any]:
    return {
        "drawn_from": "the hash of the prompt, so that no prompt is in two files",
        "seed": project.options.split_seed,
        "shares": project.options.split.model_dump(),
    }


def _votes(project: Project, raters: Sequence[RaterVotes]) -> dict[str, Any]:
    simulated = sum(rater.votes for rater in raters if rater.is_simulated)
    return {
        "votes": sum(rater.votes for rater in raters),
        "simulated_votes": simulated,
        "judge_votes": sum(rater.votes for rater in raters if rater.kind == Rater.Kind.JUDGE),
        "is_simulated": project.is_simulated or simulated > 0,
        "raters": [rater.as_dict() for rater in raters],
    }


def card(facts: dict[str, Any], built: Built) -> str:
    """The README of a bundle."""
    return cards.card(facts, built, manifest=MANIFEST, checksums=CHECKSUMS)


def header(about_title: str, options: Any, built: Built) -> str:
    """The beginning of that README, by which ``load_dataset`` finds the files."""
    licence = _terms(options)["licence"]
    return cards.header(built.names, built.columns, title=about_title, licence=licence)


def names_of(files: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Split -> names of its files."""
    names: dict[str, list[str]] = {}
    for entry in files:
        names.setdefault(entry["split"], []).append(entry["name"])
    return names
