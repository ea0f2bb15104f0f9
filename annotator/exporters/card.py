"""The card of a dataset: README.md of the bundle, read by people, by the hub and by ``datasets``."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from annotator.exporters import EXPORTERS
from annotator.exporters.build import Built
from annotator.exporters.recipe import REASONS

KNOWN_LICENCE: Final = re.compile(r"[a-z0-9][a-z0-9.\-]{1,40}")  # as the hub writes them
FEW: Final = 8  # lines of a table

# Kind of a column -> its type as ``datasets`` writes it. Told, because a column that is empty in one
# file and not in the next is no column to a reader who goes by what he sees.
FEATURES: Final = {
    "text": "dtype: string",
    "int": "dtype: int64",
    "float": "dtype: float64",
    "bool": "dtype: bool",
    "texts": "list: string",
    "ints": "list: int64",
    "floats": "list: float64",
    "messages": "list: [{name: role, dtype: string}, {name: content, dtype: string}]",
    "turns": "list: [{name: from, dtype: string}, {name: value, dtype: string}]",
    "turn": "struct: [{name: from, dtype: string}, {name: value, dtype: string}]",
}

Facts = dict[str, Any]


def card(facts: Facts, built: Built, *, manifest: str, checksums: str) -> str:
    """All of it. ``facts`` is the manifest; ``manifest`` and ``checksums`` are names of files."""
    names = built.names
    parts = [
        header(names, built.columns, title=facts["title"], licence=facts["terms"]["licence"]),
        f"# {facts['name']}\n",
        *_opening(facts),
        "## Load\n",
        f"```python\n{built.format.loading(names)}```\n",
        *(f"{note}\n" for note in built.format.notes()),
        *(f"{note}\n" for note in (built.sources.notes() if built.sources else [])),
        "## Columns\n",
        _columns(built),
        "## Counts\n",
        _counts(facts),
        "## Before you train\n",
        _health(facts),
        "## Checked\n",
        _checked(facts["checked"]),
        "## Terms\n",
        _terms(facts["terms"]),
        (
            f"`{manifest}` has everything above and more; `sha256sum -c {checksums}` checks the files."
            "\n"
        ),
    ]
    return "\n".join(part for part in parts if part)


def header(
    names: dict[str, list[str]], columns: dict[str, str], *, title: str, licence: str
) -> str:
    """Split -> names of files and column -> kind, as ``load_dataset`` reads them.

    Strings are JSON, so valid YAML. Parquet knows its types itself.
    """
    lines = [f"pretty_name: {_quoted(title)}"]
    if KNOWN_LICENCE.fullmatch(licence.lower()):
        lines.append(f"license: {_quoted(licence.lower())}")
    elif licence:
        lines += ["license: other", f"license_name: {_quoted(licence)}"]
    lines += ["configs:", "- config_name: default", "  data_files:"]
    for split, files in names.items():
        lines.append(f"  - split: {split}")
        if len(files) == 1:
            lines.append(f"    path: {_quoted(files[0])}")
        else:
            lines += ["    path:", *(f"    - {_quoted(name)}" for name in files)]
    is_parquet = all(name.endswith(".parquet") for files in names.values() for name in files)
    if not is_parquet and FEATURES.keys() >= set(columns.values()):
        lines += ["dataset_info:", "  features:"]
        for name, kind in columns.items():
            lines += [f"  - name: {_quoted(name)}", f"    {FEATURES[kind]}"]
    return "\n".join(["---", *lines, "---", ""])


def _quoted(text: str) -> str:
    """On one line, without what YAML does not let stand between quotation marks."""
    plain = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    return orjson.dumps(plain).decode()


def _opening(facts: Facts) -> list[str]:
    found = [
        (
            f"{facts['counts']['out']:,} {_unit(facts)}, {EXPORTERS[facts['format']].label},"
            f" {facts['style']}. Built by Touchstone {facts['software']['touchstone']}"
            f" on {facts['finished_at'][:10]}.\n"
        )
    ]
    if facts["is_simulated"]:
        found.append(
            f"**Simulated.** {facts['simulated_votes']:,} of {facts['votes']:,} votes are by"
            " simulated raters. Nothing here says what people prefer.\n"
        )
    if facts["judge_votes"]:
        found.append(
            f"**AI judges.** {facts['judge_votes']:,} of {facts['votes']:,} votes are by AI"
            " judges.\n"
        )
    return found


def _unit(facts: Facts) -> str:
    return EXPORTERS[facts["format"]].load().noun if facts["style"] == "raw" else "rows"


def _columns(built: Built) -> str:
    notes = dict(built.format.column_notes)
    if built.sources is not None:
        notes |= built.sources.column_notes
    return "".join(f"- `{name}`: {notes[name]}\n" for name in built.columns)


def _counts(facts: Facts) -> str:
    counts = facts["counts"]
    noun = _unit(facts) if facts["style"] == "raw" else "pairs"
    rows = [(f"{noun} in", counts["in"], "")]
    rows += [(f"− {key}", count, REASONS[key]) for key, count in counts["dropped"].items()]
    rows += [("rows out", counts["out"], "")]
    rows += [(split, count, "") for split, count in counts["rows"].items()]
    return _table(("", "count", ""), [[name, f"{n:,}", note] for name, n, note in rows])


def _health(facts: Facts) -> str:
    health = facts["health"]
    if "chosen_longer" not in health:
        return _raw_health(health)
    lines = [
        *_on_rows(health),
        *_on_labels(health),
        *_on_answers(health),
        *_on_splits(health),
        *_on_rest(health),
    ]
    parts = ["".join(f"- {line}\n" for line in lines)]
    if health["generators"]["list"]:
        parts.append(_generators(health["generators"]))
    return "\n".join(parts)


def _raw_health(health: Facts) -> str:
    lines = [f"{health['prompts']:,} prompts."]
    if kinds := health.get("judgments_by_kind"):
        said = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())
        lines.append(f"Judgments by kind of task: {said}.")
    leaked = health.get("judgments_on_responses_that_name_their_model")
    if leaked is not None:
        lines.append(f"{leaked:,} judgments are on responses that name their model.")
    return "".join(f"- {line}\n" for line in lines)


def _on_rows(health: Facts) -> list[str]:
    over = health["prompts_over"]
    found = [
        (
            f"{health['prompts']:,} prompts; one gives up to {health['most_rows_of_one_prompt']:,}"
            " rows, which are not independent."
        )
    ]
    if over["prompts"]:
        found.append(
            f"{over['prompts']:,} prompts give more than {over['limit']} rows each, together"
            f" {over['rows']:,}."
        )
    again = health["duplicates"]
    found.append(
        f"{again['repeats']:,} rows repeat the two answers of another row of their prompt;"
        f" the two answers of {again['elsewhere']:,} also stand under another prompt."
    )
    if near := again.get("near"):
        found.append(
            f"Near-duplicates from {near['percent']} % of shared word triples: {near['rows']:,} rows"
            f" left out, {near['across_splits']:,} of them for a prompt almost like one in a cleaner"
            f" split. A pair just at the limit is found with probability"
            f" {near['found_at_threshold']:.2f}."
        )
    else:
        found.append(f"Near-duplicates: {again.get('near_reason', 'not looked for')}.")
    return found


def _on_labels(health: Facts) -> list[str]:
    found = [
        (
            f"{health['contradictions_resolved']:,} pairs had votes for both answers. Mean agreement"
            f" {health['mean_agreement']:.2f}."
        )
    ]
    for key, what in (("rows", "behind the rows"), ("all", "of all pairs that were voted on")):
        one = health["agreement"][key]
        if one["alpha"]["value"] is not None:
            found.append(
                f"Votes {what}: Krippendorff's alpha {_estimate(one['alpha'])}, equal"
                f" {_percent(one['percent'])} of the time, over {one['pairs']:,} pairs with two"
                f" votes or more; {one['single']:,} pairs have one."
            )
        else:
            found.append(
                f"Votes {what}: agreement cannot be told, {one['reason']} ({one['pairs']:,} pairs"
                f" with two votes or more, {one['single']:,} with one)."
            )
    noise = health.get("noise")
    if noise and noise["value"] is not None:
        found.append(
            f"Label noise: {_percent(noise)} of the labels are wrong by estimate, from"
            f" {noise['n']:,} {noise['unit']}. {noise['how']}"
        )
    elif noise:
        found.append(f"Label noise cannot be told: {noise['reason']}.")
    return found


def _on_answers(health: Facts) -> list[str]:
    longer, lengths = health["chosen_longer"], health["lengths"]
    gap, median = lengths["gap"], lengths["median"]
    found = [
        f"Chosen is the longer answer in {_percent(longer, 'share')} of rows.",
        (
            f"Chosen is {gap['mean']:,.1f} {lengths['unit']} longer in the mean"
            f"{_range(gap['interval'])}; medians {median['chosen']:,} and {median['rejected']:,}."
        ),
    ]
    if sides := health["shown_first_wins"]:
        found.append(
            f"The answer that stood first on the screen won {_percent(sides, 'share')} of"
            f" {sides['votes']:,} votes."
        )
    if health["empty_chosen"] or health["empty_rejected"]:
        found.append(
            f"{health['empty_chosen']:,} chosen and {health['empty_rejected']:,} rejected answers"
            " have no text."
        )
    if health["leaks"]["rows"]:
        found.append(
            f"In {health['leaks']['rows']:,} rows an answer names its model: votes on them are less"
            " than blind."
        )
    return found


def _on_splits(health: Facts) -> list[str]:
    splits = health.get("splits")
    if not splits:
        return []
    found = [f"{splits['shared']:,} prompts stand in two splits."]
    if splits["earlier"]:
        said = ", ".join(f"{one['prompts']:,} in v{one['version']}" for one in splits["earlier"])
        found.append(
            f"Prompts that stood in another split of an earlier version: {said}. A model trained on"
            " that one has seen them."
        )
    elif splits["compared"]:
        found.append(f"No prompt changed its split since {splits['compared']:,} earlier versions.")
    return found


def _on_rest(health: Facts) -> list[str]:
    found = []
    if sources := health.get("sources"):
        said = ", ".join(
            f"{one['votes']:,} by {one['raters']:,} {'simulated ' if one['is_simulated'] else ''}"
            f"{one['kind']} rater{'' if one['raters'] == 1 else 's'}"
            for one in sources["votes"]
        )
        found.append(f"Votes of the recipe: {said or 'none'}.")
        if tags := sources["tags"][:FEW]:
            said = ", ".join(f"{_cell(one['tag'])} {one['rows']:,}" for one in tags)
            found.append(f"Rows by tag of the prompt: {said}.")
    if (golds := health.get("golds")) and golds["pairs"]:
        found.append(
            f"{golds['votes']:,} votes on {golds['pairs']:,} pairs of control questions are left"
            " out."
        )
    if (skips := health.get("skips")) and skips["skips"]:
        found.append(
            f"Raters passed {skips['tasks']:,} tasks of the project on {skips['skips']:,} times."
        )
    return found


def _generators(found: Facts) -> str:
    rows = [
        [_cell(one["generator"]), f"{one['rows']:,}", _percent(one, "share")]
        for one in found["list"][:FEW]
    ]
    more = len(found["list"]) - len(rows) + found["more"]
    note = f"\n{more:,} more are in the manifest or not told apart.\n" if more else ""
    return _table(("generator", "rows against another", "chosen"), rows) + note


def _checked(checks: list[Facts]) -> str:
    if not checks:
        return "Every file was read again from the disk.\n"
    lines = ["Every file was read again from the disk: size, SHA-256, rows, columns."]
    for one in checks:
        if one["ok"]:
            some = (
                f"{one['rows']:,} rows"
                if one["rows"] == one["of"]
                else (f"{one['rows']:,} of {one['of']:,} rows, evenly spaced")
            )
            lines.append(f"{one['what']}: {some}, with {one['with']}.")
        else:
            lines.append(f"{one['what']}: {one['note']}.")
    return "".join(f"- {line}\n" for line in lines)


def _terms(terms: Facts) -> str:
    consent = "".join(f"> {line}\n" for line in terms["consent"].splitlines())
    return (
        f"Licence: {_cell(terms['licence']) or 'not stated'}.\n\n"
        f"Consent and origin{':' if consent else ': not stated.'}\n"
        + (f"\n{consent}" if consent else "")
    )


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """The second column holds numbers."""
    marks = "|".join("---:" if place == 1 else "---" for place in range(len(head)))
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"| {' | '.join(head)} |\n|{marks}|\n{lines}"


def _cell(text: str) -> str:
    """Anybody's words on one line of a table."""
    return " ".join(re.sub(r"([|\\`<*_\[])", r"\\\1", text).split())[:200]


def _percent(found: Facts, key: str = "value") -> str:
    low_high = found["interval"]
    said = f"{100 * found[key]:.1f} %"
    return (
        said if low_high is None else f"{said} [{100 * low_high[0]:.1f}, {100 * low_high[1]:.1f}]"
    )


def _estimate(found: Facts) -> str:
    return f"{found['value']:.2f}{_range(found['interval'])}"


def _range(interval: list[float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:,.2f}, {interval[1]:,.2f}]"
