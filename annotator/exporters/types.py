"""What a format has to offer, and what it may ask about a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from annotator.exporters.files import Row
from annotator.exporters.verdicts import Decided
from annotator.queries.pair_texts import PromptText, ResponseText


@dataclass(frozen=True)
class Shape:
    """What a whole project's texts look like: one style must fit all rows.

    ``has_turns``: some prompt is more than one message of the user, or some answer more than one
    message. ``has_transcripts``: some prompt came in as a transcript. ``has_images``: responses
    are images.
    """

    has_turns: bool = False
    has_transcripts: bool = False
    has_images: bool = False


class SeveralMessages(Exception):
    """An answer of several messages in a project that looked like single turns."""


class NotRepresentable(Exception):
    """A prompt or an answer that the format has no place for: counted under that reason."""


class Rendered(NamedTuple):
    """A decided pair as its format writes texts, with the cells of the columns beside them."""

    decided: Decided
    chosen: Any
    rejected: Any
    cells: Row


class Keyed(NamedTuple):
    """A row and what it is of: by this key versions are compared.

    ``a``, ``b``: ids of the two responses in order of id, or (id, 0) for one, (-prompt id, 0) for
    a list. ``side``: 1 where a is chosen or the one response is desirable, -1 where not, else 0,
    as for a tie.
    """

    row: Row
    a: int
    b: int
    side: int


class RowFormat(Protocol):
    """One export format: ``EXPORTERS[key].load()(options, shape, columns)``.

    ``unit`` says what a row is made of: "pair" formats have ``row``, "prompt" formats have
    ``rows`` of all decided pairs of a prompt. ``own`` are the format's columns (column -> kind of
    exporters.files), to which those of the sources come where ``carries_columns``; ``rows`` puts
    them there itself. ``reads``: the modality of project it is for.
    """

    unit: ClassVar[Literal["pair", "prompt"]]
    reads: ClassVar[str]
    carries_columns: ClassVar[bool]
    takes_both_bad: ClassVar[bool]

    @property
    def style(self) -> str: ...

    @property
    def rendering(self) -> str: ...

    @property
    def own(self) -> dict[str, str]: ...

    @property
    def column_notes(self) -> dict[str, str]: ...

    def prompt(self, prompt: PromptText) -> Any:
        """The prompt as it stands in a row; empty where there is none. Raises NotRepresentable."""
        ...

    def identity(self, prompt: Any, source: PromptText) -> str:
        """Equal for prompts that read alike; ``prompt`` is what ``prompt()`` gave."""
        ...

    def answer(self, response: ResponseText) -> Any:
        """An answer as it stands in a row. Raises SeveralMessages, NotRepresentable."""
        ...

    def row(self, prompt: Any, one: Rendered) -> Row:
        """The format's own cells of a pair."""
        ...

    def flaw(self, one: Rendered) -> str:
        """Why the format cannot hold a pair, a key of REASONS, or ""."""
        ...

    def rows(self, prompt: Any, source: PromptText, pairs: Sequence[Rendered]) -> list[Keyed]:
        """The rows of a prompt, whole; never called with no pair. None: the pairs are "even"."""
        ...

    def loading(self, files: dict[str, list[str]]) -> str:
        """Python that loads the files (split -> names) and trains on them."""
        ...

    def notes(self) -> list[str]:
        """What a reader of the card should know."""
        ...

    def extra_files(self, files: dict[str, list[str]]) -> dict[str, str]:
        """Small text files that go into the bundle: name -> content."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the format counted on its way, for the manifest's health."""
        ...
