"""What a format has to offer, and what it may ask about a project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from annotator.exporters.recipe import Verdict
from annotator.queries.pair_texts import PromptText, ResponseText
from annotator.queries.pairs import Pair


@dataclass(frozen=True)
class Shape:
    """What a whole project's texts look like: one style must fit all rows.

    ``has_turns``: some prompt is more than one message of the user, or some answer more than one
    message. ``has_transcripts``: some prompt came in as a transcript.
    """

    has_turns: bool = False
    has_transcripts: bool = False


class SeveralMessages(Exception):
    """An answer of several messages in a project that looked like single turns."""


class RowFormat(Protocol):
    """One export format: ``EXPORTERS[key].load()(options, shape)``."""

    @property
    def style(self) -> str: ...

    @property
    def rendering(self) -> str: ...

    @property
    def columns(self) -> dict[str, str]: ...

    def prompt(self, prompt: PromptText) -> Any: ...

    def answer(self, response: ResponseText) -> Any: ...

    def row(
        self,
        pair: Pair,
        prompt: Any,
        chosen: ResponseText,
        rejected: ResponseText,
        verdict: Verdict,
        strength: float,
    ) -> dict[str, Any]: ...

    def loading(self, files: dict[str, str]) -> str: ...

    def notes(self) -> list[str]: ...
