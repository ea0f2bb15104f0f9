"""A run's configuration in words: as rows of a ledger, and as the command that does the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from annotator.models import Run
from annotator.queries import option_titles
from rubrics.generators import GENERATORS

# What says most comes first: JSON in PostgreSQL keeps no order.
FIRST: Final = {
    name: place
    for place, name in enumerate(
        (
            "filename",
            "path",
            "format",
            "method",
            "rubric",
            "asked",
            "objective",
            "backbone",
            "options",
        )
    )
}
# Numbers and names of the server, and lists of them.
HIDDEN: Final = frozenset(
    {"absolute", "judge", "queue", "only", "version", "rubric_version", "reward_model", "request"}
)
STORED: Final = frozenset({"path"})  # where the server keeps an upload
UPLOADED: Final = frozenset({"path"})  # under its run's folder, by a name of the server
MAX_VALUE: Final = 200


def ledger(
    config: dict[str, Any], *, titles: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    """A run's configuration as rows of name and value; nested tables are laid flat.

    Options have the names and the order of the forms that set them (``titles``).
    """
    titles = option_titles.titles(config) if titles is None else titles
    places = {name: place for place, name in enumerate(titles)}
    rows = []
    hidden = HIDDEN if config.get("absolute", True) else HIDDEN | UPLOADED

    def place(name: str) -> tuple[int, int, str]:
        return FIRST.get(name, len(FIRST)), places.get(name, len(places)), name

    for name in sorted(config, key=place):
        value = config[name]
        if isinstance(value, dict) and name not in hidden:
            rows += ledger(value, titles=titles)
        elif name not in hidden and value not in (None, "", []):
            title = titles.get(name) or name.replace("_", " ").capitalize()
            rows.append((title, _shown(name, value)))
    return list(dict.fromkeys(rows))


def _shown(name: str, value: Any) -> str:
    if words := option_titles.shown(name, value):
        return words
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if "seed" in name else f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"


def command(run: Run) -> str:
    """The command line that starts the same work, quoted for a shell; "" for a kind without."""
    makers = {
        Run.Kind.IMPORT: _import,
        Run.Kind.TRAIN: _train,
        Run.Kind.EXPORT: _export,
        Run.Kind.QUALITY: lambda _: iter(["measure_quality"]),
        Run.Kind.JUDGE: _judge,
        Run.Kind.RUBRIC: _induce,
        Run.Kind.SCORE: _score,
        Run.Kind.EVALUATE: _evaluate,
    }
    is_by_model = run.kind == Run.Kind.SCORE and "rubric" not in run.config
    if run.kind not in makers or is_by_model:  # which has no command
        return ""
    name, *arguments = makers[Run.Kind(run.kind)](run.config)
    return shlex.join(["python", "manage.py", name, run.project.slug, *arguments])


def _import(config: dict[str, Any]) -> Iterator[str]:
    yield "import_dataset"
    # An upload lies in its run's folder: whoever sent it has it under the name it came with.
    yield str(config.get("path" if config.get("absolute", True) else "filename") or "FILE")
    if config.get("format"):
        yield from ("--format", str(config["format"]))
    options = config.get("options") or {}
    for field, columns in sorted((options.get("mapping") or {}).items()):
        yield from ("--map", f"{field}={','.join(columns)}")
    for flag in ("rater", "labels", "pairs"):
        if options.get(flag):
            yield from (f"--{flag}", str(options[flag]))
    yield from (f"--{flag}" for flag in ("strict", "simulated") if config.get(flag))


def _train(config: dict[str, Any]) -> Iterator[str]:
    yield "train_reward_model"
    named = ("objective", "backbone")
    for flag in named:
        if config.get(flag):
            yield from (f"--{flag}", str(config[flag]))
    general = {k: v for k, v in config.items() if k not in (*named, "options")}
    yield from _options(general | (config.get("options") or {}))


def _export(config: dict[str, Any]) -> Iterator[str]:
    yield "export_dataset"
    if config.get("format"):
        yield from ("--format", str(config["format"]))
    yield from _options(config.get("options") or {})


def _judge(config: dict[str, Any]) -> Iterator[str]:
    yield "run_judge"
    stem, _, version = str(config.get("judged_by", "")).rpartition(" v")
    yield from ("--judge", f"{stem}@v{version}")
    values = {name: config.get(name) for name in ("tasks", "limit", "retry")}
    for flag, value in (values | (config.get("budget") or {})).items():
        if value:
            yield from (f"--{flag}", str(value))


def _induce(config: dict[str, Any]) -> Iterator[str]:
    yield from ("induce_rubric", "--method", str(config.get("method")))
    stem, _, version = str(config.get("asked") or "").rpartition(" v")
    if stem:
        yield from ("--judge", f"{stem}@v{version}")
    values = {"name": config.get("rubric"), "raters": config.get("raters")}
    values |= {"pairs": config.get("pairs")} | (config.get("budget") or {})
    for flag, value in values.items():
        if value:
            yield from (f"--{flag}", str(value))
    yield from _options(_unusual(str(config.get("method")), config.get("options") or {}))


def _unusual(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not as they would be without a word."""
    if method not in GENERATORS:
        return options
    usual = GENERATORS[method].load_options()().model_dump(mode="json")
    return {name: value for name, value in options.items() if value != usual.get(name)}


def _score(config: dict[str, Any]) -> Iterator[str]:
    stem, _, number = str(config.get("rubric", "")).rpartition(" v")
    yield from ("score_rubric", f"{stem}:v{number}")
    basis = config.get("basis") or {}
    for name in ("form", "not_applicable"):
        yield from (f"--{name.replace('_', '-')}", str(basis.get(name)))
    judge, _, version = str(config.get("verifier") or "").rpartition(" v")
    if judge:
        yield from ("--judge", f"{judge}@v{version}")
    for split in config.get("splits") or []:
        yield from ("--split", split)
    values = {name: config.get(name) for name in ("only", "sample")}
    for flag, value in (values | (config.get("budget") or {})).items():
        if value:
            yield from (f"--{flag}", str(value))


def _evaluate(config: dict[str, Any]) -> Iterator[str]:
    yield from ("evaluate_reward_model", str(config.get("model", "")).removeprefix("rm-"))
    data = config.get("data") or {}
    for split in data.get("splits") or []:
        yield from ("--split", split)
    for name in ("tag", "import_run", "most"):
        if data.get(name):
            yield from (f"--{name.replace('_', '-')}", str(data[name]))
    for key in config.get("against") or []:
        yield from ("--against", key)
    yield from ("--gold", str(config.get("gold", "")))


def _options(options: dict[str, Any]) -> Iterator[str]:
    for name, value in sorted(options.items()):
        if value is not None:
            yield from ("--option", f"{name}={_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
