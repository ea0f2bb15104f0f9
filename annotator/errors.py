"""Errors with an HTTP status and a message fit for the person who sees it."""

from __future__ import annotations


class AppError(Exception):
    """Something the user can understand and usually mend."""

    status = 400

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class NotAllowed(AppError):
    status = 403


class NotFound(AppError):
    status = 404


class Conflict(AppError):
    status = 409


class Gone(AppError):
    status = 410


class Invalid(AppError):
    status = 422


class TooMany(AppError):
    """Asked for too often; ``seconds`` until it would be granted."""

    status = 429

    def __init__(self, message: str, *, advice: str = "", seconds: float = 1.0) -> None:
        super().__init__(message, advice=advice)
        self.seconds = seconds


class Unavailable(AppError):
    """Something that it needs is away for now."""

    status = 503


class MethodFailed(AppError):
    """A named method (an importer, a trainer, an exporter) could not do its work."""

    status = 502
