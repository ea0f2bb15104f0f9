"""Errors of the library. Every message is fit for the user; ``advice`` says what to do next."""

from __future__ import annotations


class ModelsError(Exception):
    """Base of everything this library raises on purpose.

    ``kind`` is a stable word for programs, ``advice`` a sentence for people (may be empty).
    """

    kind = "error"

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class BadOptions(ModelsError):
    """An unknown option, or a value outside its range."""

    kind = "bad-options"


class BadData(ModelsError):
    """The pairs cannot be used: a broken line, nothing to train on, a wrong value."""

    kind = "bad-data"


class BadArtifact(ModelsError):
    """A saved reward model is missing a file, damaged, or of an unknown format."""

    kind = "bad-artifact"


class TrainingFailed(ModelsError):
    """Training ended without a model."""

    kind = "failed"


class Diverged(TrainingFailed):
    """The loss or its gradient is no longer a number."""

    kind = "diverged"


class WorkdirBusy(TrainingFailed):
    """Another process trains in the same working folder."""

    kind = "busy"


class BadBackbone(ModelsError):
    """A pretrained model that does not exist, cannot be reached or cannot be used."""

    kind = "bad-backbone"


class OutOfMemory(ModelsError):
    """A model or a text that does not fit where it is to be run."""

    kind = "out-of-memory"


class ScoringFailed(ModelsError):
    """The process that scores ended without an answer, or said why it has none.

    ``kind`` is that of what happened there: out-of-memory, bad-backbone, crashed, ...
    """

    kind = "failed"

    def __init__(self, message: str, *, advice: str = "", kind: str = "failed") -> None:
        super().__init__(message, advice=advice)
        self.kind = kind
