"""Reading rows for an import: checked chunks out, refused rows noted with line and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from annotator.importers import checking, leaks, values
from annotator.importers.grouping import read_rows
from annotator.importers.readers import Culprit
from annotator.importers.sources import Source
from annotator.importers.types import BadRow, Grouped, Options, Row, RowReader
from annotator.models import ImportIssue
from annotator.services import hashing, runs
from annotator.services.import_chunk import Checked
from annotator.services.import_images import Intake
from annotator.services.import_rows import Loader

CHUNK: Final = 1_000  # rows
KEPT_ISSUES: Final = 10_000
LISTED_ISSUES: Final = 100  # in the command's JSON
PREVIEW_ROWS: Final = 5
PREVIEW_LABELS: Final = 3  # of one row
SHOWN_LEAKS: Final = 5
EXCERPT: Final = 240


@dataclass
class Tally:
    """What was read and refused so far."""

    lines: int = 0
    bad: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    listed: list[dict[str, Any]] = field(default_factory=list)
    preview: list[dict[str, Any]] = field(default_factory=list)
    leaks: int = 0  # responses that give their model away
    leaked: list[dict[str, Any]] = field(default_factory=list)  # the first of them


class Reading:
    """The rows of one source on their way to a loader."""

    def __init__(
        self,
        work: runs.Work,
        source: Source,
        reader: RowReader | Grouped,
        options: Options,
        loader: Loader,
    ) -> None:
        self.tally = Tally()
        self._work, self._source, self._reader = work, source, reader
        self._options, self._loader = options, loader
        self._run = work.run
        self._intake = Intake(work.run.project, work.run, source.files)
        self._good: list[tuple[int, Checked]] = []
        self._issues: list[ImportIssue] = []

    def chunks(self) -> Iterator[list[Checked]]:
        """Checked rows, a chunk at a time; bad ones are noted on the way."""
        kind, leak_mode = self._loader.options.kind, self._loader.options.leaks
        good, issues = self._good, self._issues
        for number, raw, found in read_rows(self._source.rows, self._reader, on_row=self._count):
            if isinstance(found, BadRow):
                issues.append(self._issue(number, found, raw))
            else:
                try:
                    if self._options.judges:
                        _mark_judges(found, self._options)
                    if leak_mode != "ignore":
                        self._check_leaks(number, found, leak_mode)
                    tasks = checking.check(found, self._options, project_kind=kind)
                    self._intake.take(found)
                except BadRow as bad:
                    issues.append(self._issue(number, bad, raw, lines=found.lines))
                else:
                    good.append((number, (found, tasks)))
                    if len(self.tally.preview) < PREVIEW_ROWS:
                        self.tally.preview.append(_preview(number, found))
            if len(good) + len(issues) >= CHUNK:
                yield self._flush()
        yield self._flush()

    def show(self) -> None:
        """Progress by rows where their number is known, else by bytes."""
        tally, source = self.tally, self._source
        message = f"{tally.lines:,} {source.unit}s read"
        if source.total_rows is not None:
            self._work.progress(tally.lines, source.total_rows, unit="rows", message=message)
        else:
            self._work.progress(source.bytes_read(), source.size, unit="bytes", message=message)

    def _count(self) -> None:
        self.tally.lines += 1
        # A grouped file is read to its end before its first chunk comes.
        if isinstance(self._reader, Grouped) and self.tally.lines % CHUNK == 0:
            self._work.check()
            self.show()

    def _check_leaks(self, number: int, row: Row, mode: str) -> None:
        for leak in leaks.check(row, mode=mode):
            self.tally.leaks += 1
            if len(self.tally.leaked) < SHOWN_LEAKS:
                self.tally.leaked.append(
                    {"line": number, "name": shown(leak.name), "quote": shown(leak.quote)}
                )

    def _flush(self) -> list[Checked]:
        good = self._good
        ids = [(row.external_id, row.messages) for _, (row, _) in good]
        refused = {
            place: BadRow("duplicate-id", repr(ids[place][0]))
            for place in (self._loader.taken_ids(ids) if any(one for one, _ in ids) else ())
        }
        refused |= self._find_references()
        for place, bad in sorted(refused.items()):
            number, (row, _) = good[place]
            self._issues.append(self._issue(number, bad, {"id": row.external_id}, lines=row.lines))
        self._keep()
        kept = [checked for place, (_, checked) in enumerate(good) if place not in refused]
        good.clear()
        self._issues.clear()
        return kept

    def _find_references(self) -> dict[int, BadRow]:
        """Tell rows that speak of a task by its id which one it is; refuse where it is unclear."""
        places = [at for at, (_, (row, _)) in enumerate(self._good) if row.is_reference]
        if not places:
            return {}
        rows = {at: self._good[at][1][0] for at in places}
        known = self._loader.tasks_named([row.external_id for row in rows.values()])
        refused = {}
        for at, row in rows.items():
            found = known.get(row.external_id, [])
            if len(found) > 1:
                refused[at] = BadRow("ambiguous", repr(row.external_id))
            elif found:
                row.onto = found[0]
        return refused

    def _issue(self, number: int, bad: BadRow, raw: Any, *, lines: int = 1) -> ImportIssue:
        tally = self.tally
        tally.bad += lines
        tally.reasons[bad.code] += lines
        if len(tally.listed) < LISTED_ISSUES:
            tally.listed.append({"line": number, "reason": bad.reason})
        return ImportIssue(
            run=self._run,
            line=number,
            code=bad.code,
            reason=bad.reason,
            excerpt=excerpt(raw, bad),
        )

    def _keep(self) -> None:
        room = KEPT_ISSUES - (self.tally.bad - len(self._issues))
        if room > 0 and self._issues:
            ImportIssue.objects.bulk_create(self._issues[:room])


def _mark_judges(row: Row, options: Options) -> None:
    """Which labels of a row are an AI judge's, by the names that were given."""
    for one in (*row.votes, *row.verdicts):
        one.is_judge = one.is_judge or options.is_judge(one.rater)


def excerpt(raw: Any, bad: BadRow) -> str:
    """The part of a row to show beside its reason, fit to be stored."""
    if isinstance(raw, Culprit):
        text = raw.text
    else:
        text = _as_text({key: raw[key] for key in bad.columns if key in raw} or raw)
    return shown(text)


def shown(text: str) -> str:
    """A foreign text as it may be stored beside a run."""
    text = text.replace("\0", "␀").encode(errors="replace").decode()
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


def _as_text(row: dict[str, Any]) -> str:
    try:
        return orjson.dumps(row, default=str).decode()
    except TypeError:  # nested too deeply, or text that is no UTF-8
        return ", ".join(f"{key}: {_cell(value)}" for key, value in row.items())


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "…"


def _preview(number: int, row: Row) -> dict[str, Any]:
    answers = [
        reply.text[:200] if reply.image is None else values.shown(f"image {reply.image.path}")
        for reply in row.replies[:2]
    ]
    return {
        "line": number,
        "prompt": row.messages[-1]["content"][:200],
        "answers": answers,
        "more": max(0, len(row.replies) - 2),
        "kind": row.kind,
        "turn": row.turn,
        "labels": _labels(row),
        "more_labels": max(0, len(row.votes) + len(row.verdicts) - PREVIEW_LABELS),
        "hash": hashing.of_prompt(row.messages).hex(),
    }


def _labels(row: Row) -> list[str]:
    """The first labels of a row in words."""
    said = []
    for vote in row.votes[:PREVIEW_LABELS]:
        if vote.unread is not None:
            said.append(f"{vote.rater}: not readable")
            continue
        one, other = vote.first + 1, vote.second + 1
        better = one if vote.outcome > 0 else other
        said.append(f"{vote.rater}: {f'{better} better' if vote.outcome else 'tie'}")
    for judged in row.verdicts[:PREVIEW_LABELS]:
        if judged.ratings is None:
            what = "places " + " ".join(str(rank or "–") for rank in judged.ranks)
        else:
            what = "; ".join(
                f"{name} " + " ".join("–" if value is None else str(value) for value in rated)
                for name, rated in list(judged.ratings.items())[:PREVIEW_LABELS]
            )
        said.append(f"{judged.rater}: {what}")
    return [shown(one) for one in said]
