"""The manifest of a version and the card that goes with it: what is in the files and why."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Final

from django.conf import settings

from annotator.exporters import EXPORTERS
from annotator.exporters.build import Built, manifest_parts
from annotator.exporters.files import FileFacts
from annotator.exporters.recipe import REASONS, ExportOptions
from annotator.models import Project, Rater
from annotator.queries.datasets import RaterVotes, Sides

MANIFEST: Final = "manifest.json"
CARD: Final = "README.md"
CHECKSUMS: Final = "SHA256SUMS"
EXTRAS: Final = (MANIFEST, CARD, CHECKSUMS)
SCHEMA: Final = 1

POLICY: Final = {
    "majority": "The answer with the most votes is chosen. It needs more votes than the other"
    " answer and more than there are calls of a tie.",
    "ties": "Left out and counted: under 'tie' where no answer leads, under 'contradiction' where"
    " both answers have equally many votes.",
    "both_bad": "With 'drop', left out where more than half of the votes call both answers bad.",
    "control": "Votes on control questions never count.",
    "directions": "A pair gives one row at most, whatever number of people voted on it.",
}


@cache
def software() -> dict[str, str]:
    """Versions of what wrote the files."""
    with (settings.BASE_DIR / "pyproject.toml").open("rb") as file:
        own = tomllib.load(file)["project"]["version"]
    packages = ("django", "psycopg", "orjson", "pyarrow", "numpy")
    return {
        "touchstone": own,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


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
) -> dict[str, Any]:
    """Everything that is known about a version, ready for JSON."""
    counts = built.ledger.as_dict()
    return {
        "schema": SCHEMA,
        "name": f"{about.project.slug} v{about.number}",
        "project": about.project.slug,
        "version": about.number,
        "format": about.key,
        "style": built.format.style,
        "rendering": built.format.rendering,
        "columns": list(built.columns),
        "counts": counts,
        "reasons": {reason: REASONS[reason] for reason in counts["dropped"]},
        "policy": {} if built.format.style == "raw" else POLICY,
        "options": about.options.model_dump(mode="json"),
        "split": _split(about.project),
        **_votes(about.project, raters),
        **manifest_parts(built),
        "health": built.health.as_dict()
        | {"shown_first_wins": sides and sides.as_dict()}
        | built.format.facts(),
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
    """The README of a bundle, with the header that the Hugging Face hub and ``datasets`` read."""
    names = names_of(facts["files"])
    counts, health = facts["counts"], facts["health"]
    parts = [
        _header(names),
        f"# {facts['name']}\n",
        (
            f"{counts['out']:,} {_unit(facts)}, {EXPORTERS[facts['format']].label},"
            f" {facts['style']}. Built by Touchstone {facts['software']['touchstone']}"
            f" on {facts['finished_at'][:10]}.\n"
        ),
    ]
    if facts["is_simulated"]:
        parts.append(
            f"**Simulated.** {facts['simulated_votes']:,} of {facts['votes']:,} votes are by"
            " simulated raters. Nothing here says what people prefer.\n"
        )
    if facts["judge_votes"]:
        parts.append(
            f"**AI judges.** {facts['judge_votes']:,} of {facts['votes']:,} votes are by AI"
            " judges.\n"
        )
    parts += [
        "## Load\n",
        f"```python\n{built.format.loading(names)}```\n",
        *(f"{note}\n" for note in built.format.notes()),
        *(f"{note}\n" for note in (built.sources.notes() if built.sources else [])),
        "## Columns\n",
        _columns(built),
        "## Counts\n",
        _counts(facts),
        "## Before you train\n",
        _health(health),
        (
            f"`{MANIFEST}` has everything above and more; `sha256sum -c {CHECKSUMS}` checks the files."
            "\n"
        ),
    ]
    return "\n".join(parts)


def names_of(files: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Split -> names of its files."""
    names: dict[str, list[str]] = {}
    for entry in files:
        names.setdefault(entry["split"], []).append(entry["name"])
    return names


def _unit(facts: dict[str, Any]) -> str:
    raw = EXPORTERS[facts["format"]].load()
    return raw.noun if facts["style"] == "raw" else "rows"


def _header(names: dict[str, list[str]]) -> str:
    files = "".join(
        f"  - split: {split}\n    path: {some[0]}\n"
        if len(some) == 1
        else f"  - split: {split}\n    path:\n" + "".join(f"    - {name}\n" for name in some)
        for split, some in names.items()
    )
    return f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"


def _columns(built: Built) -> str:
    notes = dict(built.format.column_notes)
    if built.sources is not None:
        notes |= built.sources.column_notes
    return "".join(f"- `{name}`: {notes[name]}\n" for name in built.columns)


def _counts(facts: dict[str, Any]) -> str:
    counts = facts["counts"]
    noun = _unit(facts) if facts["style"] == "raw" else "pairs"
    rows = [(f"{noun} in", counts["in"], "")]
    rows += [(f"− {key}", count, REASONS[key]) for key, count in counts["dropped"].items()]
    rows += [("rows out", counts["out"], "")]
    rows += [(split, count, "") for split, count in counts["rows"].items()]
    lines = "".join(f"| {name} | {count:,} | {note} |\n" for name, count, note in rows)
    return f"| | count | |\n|---|---:|---|\n{lines}"


def _health(health: dict[str, Any]) -> str:
    if "chosen_longer" not in health:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in health["judgments_by_kind"].items())
        leaked = health["judgments_on_responses_that_name_their_model"]
        return (
            f"- {health['prompts']:,} prompts; judgments by kind of task: {kinds}.\n"
            f"- {leaked:,} judgments are on responses that name their model.\n"
        )
    lines = [
        (
            f"- {health['prompts']:,} prompts; one gives up to"
            f" {health['most_rows_of_one_prompt']:,} rows, which are not independent."
        ),
        _interval("Chosen is the longer answer in", health["chosen_longer"]),
        (
            f"- {health['contradictions_resolved']:,} pairs had votes for both answers; the majority"
            f" decided. Mean agreement {health['mean_agreement']:.2f}."
        ),
    ]
    if sides := health["shown_first_wins"]:
        low, high = (100 * end for end in sides["interval"])
        lines.append(
            f"- The answer that stood first on the screen won {100 * sides['share']:.1f} % of"
            f" {sides['votes']:,} votes [{low:.1f}, {high:.1f}]."
        )
    if health["empty_chosen"] or health["empty_rejected"]:
        lines.append(
            f"- {health['empty_chosen']:,} chosen and {health['empty_rejected']:,} rejected answers"
            " have no text."
        )
    return "\n".join(lines) + "\n"


def _interval(what: str, share: dict[str, Any]) -> str:
    low, high = (100 * end for end in share["interval"])
    return f"- {what} {100 * share['share']:.1f} % of rows [{low:.1f}, {high:.1f}]."
