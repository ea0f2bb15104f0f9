"""Secrets at rest: keys of endpoints, encrypted with a key derived from the server's own."""

from __future__ import annotations

import base64
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.views.decorators.debug import sensitive_variables

from annotator.errors import Conflict

PURPOSE: Final = b"touchstone secrets v1"


def _fernet() -> MultiFernet:
    """SECRET_KEY seals; SECRET_KEY_FALLBACKS still open."""
    return MultiFernet(
        Fernet(base64.urlsafe_b64encode(HKDF(SHA256(), 32, None, PURPOSE).derive(key.encode())))
        for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    )


@sensitive_variables("secret")
def seal(secret: str) -> bytes:
    """``secret`` encrypted, for a column."""
    return _fernet().encrypt(secret.encode())


def unseal(sealed: bytes | memoryview) -> str:
    """What was sealed. Raises Conflict when no key of the server opens it."""
    try:
        return _fernet().decrypt(bytes(sealed)).decode()
    except InvalidToken:
        raise Conflict(
            "The stored key cannot be opened: the server's SECRET_KEY is another one now.",
            advice="Enter the key again, or ask the operator to list the old SECRET_KEY in"
            " SECRET_KEY_FALLBACKS.",
        ) from None
