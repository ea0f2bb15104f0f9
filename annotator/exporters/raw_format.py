"""What raw formats share: rows of what was said, one by one, nothing added up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import psycopg
from pydantic import ConfigDict, Field

from annotator.exporters.files import DEFAULT_SHARD_MB, Row, RowFile, open_file
from annotator.exporters.fitting import check_container
from annotator.exporters.pair_format import load_call
from annotator.exporters.recipe import SPLITS, Container, SplitName, WhoseVotes
from annotator.exporters.verdicts import Ledger
from annotator.models import Project
from annotator.queries.datasets import RaterVotes, pseudonym

CHUNK: Final = 1_000  # judgments or verdicts fetched at a time
# Split -> how many judgments or verdicts were read, and their rows.
Chunk = dict[str, tuple[int, list[Row]]]


class RawOptions(WhoseVotes):
    """What every raw format can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    container: Container = Field("jsonl", title="File type")
    shard_mb: int = Field(
        DEFAULT_SHARD_MB,
        ge=1,
        le=100_000,
        title="Megabytes of a Parquet file",
        description="From here on another one begins: train-00000-of-00003.parquet.",
    )
    raters: Literal["all", "people", "imported", "judges", "named"] = Field(
        "all", title="Judgments of"
    )
    rater_names: list[str] = Field(
        default_factory=list,
        title="Names",
        max_length=1000,
        description="Whose judgments are written when the raters are named.",
    )
    names: Literal["names", "pseudonyms"] = Field(
        "names",
        title="Raters are called by",
        description="Pseudonyms are the same in every version.",
    )
    splits: list[SplitName] = Field(
        default_factory=lambda: list(SPLITS),
        min_length=1,
        title="Splits",
        description="Each is a file of its own.",
    )


class Facts:
    """What is counted on the way, as exporters.health counts pairs.

    ``kinds``: judgments by kind of task, or verdicts by who verified.
    """

    def __init__(self) -> None:
        self.prompts = 0
        self.kinds: dict[str, int] = {}
        self.leaked = 0
        self._raters: dict[int, list[Any]] = {}  # id -> kind, is simulated, judgments

    def count_rater(self, pk: int, kind: str, is_simulated: bool) -> None:
        known = self._raters.setdefault(pk, [kind, is_simulated, 0])
        known[2] += 1

    def count_kind(self, kind: str) -> None:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def raters(self) -> list[RaterVotes]:
        """Everyone whose judgments were written, with how many."""
        return [
            RaterVotes(pseudonym(pk), kind, is_simulated, votes)
            for pk, (kind, is_simulated, votes) in sorted(self._raters.items())
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "prompts": self.prompts,
            "judgments_by_kind": self.kinds,
            "judgments_on_responses_that_name_their_model": self.leaked,
        }


class RawFormat(ABC):
    """``EXPORTERS[key].load()(options)``. A subclass reads ``chunks`` and says its columns.

    ``noun``: what the counts count.
    """

    style: ClassVar[str] = "raw"
    rendering: ClassVar[str] = "messages"
    noun: ClassVar[str]

    def __init__(self, options: Any) -> None:
        self.options = options
        self.ledger, self.health = Ledger(), Facts()

    @property
    @abstractmethod
    def columns(self) -> dict[str, str]:
        """Column -> kind, in the order of a row."""

    @property
    @abstractmethod
    def column_notes(self) -> dict[str, str]: ...

    @abstractmethod
    def chunks(self, project: Project, connection: psycopg.Connection) -> Iterator[Chunk]:
        """Rows, a list of judgments or verdicts at a time; counts them in ``health``."""

    def write(
        self,
        project: Project,
        folder: Path,
        *,
        connection: psycopg.Connection,
        on_rows: Callable[[int], object],
    ) -> dict[str, RowFile]:
        """Write the files of every split into a folder. ``on_rows`` hears how much was read."""
        check_container(self.columns, self.options.container)
        files: dict[str, RowFile] = {}
        folder.mkdir(parents=True)
        connection.execute("SET LOCAL jit = off")
        for chunk in self.chunks(project, connection):
            for split, (count, rows) in chunk.items():
                if split not in files and rows:
                    files[split] = open_file(
                        folder,
                        split,
                        self.columns,
                        container=self.options.container,
                        shard_mb=self.options.shard_mb,
                    )
                if rows:
                    files[split].write(rows)
                self.ledger.keep(split, count, rows=len(rows))
            on_rows(self.ledger.pairs)
        return files

    def called(self, name: str) -> str:
        """A rater's name as the recipe lets it out."""
        return name if self.options.names == "names" else ""

    def loading(self, files: dict[str, list[str]]) -> str:
        """Python that loads the files (split -> names)."""
        call = load_call(self.options.container, files)
        return f"from datasets import load_dataset\n\nrows = {call}\n"

    def extra_files(self, files: dict[str, list[str]]) -> dict[str, str]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def notes(self) -> list[str]:
        """What a reader of the card should know."""
