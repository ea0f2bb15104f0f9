"""Secrets at rest."""

from __future__ import annotations

from typing import Any

import pytest

from annotator.errors import Conflict
from annotator.services import secrets

TEXT = "sk-planted é"


def test_unseal_gives_back_what_was_sealed() -> None:
    sealed = secrets.seal(TEXT)
    assert b"planted" not in sealed
    assert secrets.seal(TEXT) != sealed
    assert secrets.unseal(memoryview(sealed)) == TEXT


def test_unseal_takes_the_keys_of_before(settings: Any) -> None:
    settings.SECRET_KEY = "first"
    sealed = secrets.seal(TEXT)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "second", ["zeroth", "first"]
    assert secrets.unseal(sealed) == TEXT
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(Conflict, match="SECRET_KEY"):
        secrets.unseal(sealed)


@pytest.mark.parametrize("sealed", [b"", b"nonsense", b"\x00\xff"])
def test_unseal_refuses_what_was_never_sealed(sealed: bytes) -> None:
    with pytest.raises(Conflict):
        secrets.unseal(sealed)
