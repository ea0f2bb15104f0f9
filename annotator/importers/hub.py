"""Rows of a data set on the Hugging Face hub, streamed. Needs ``datasets`` and a way out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from annotator.errors import Invalid, MethodFailed
from annotator.importers.readers import Numbered

SCHEME: Final = "hf://"
ID: Final = re.compile(r"hf://([\w.-]+(?:/[\w.-]+)?)(?::([\w.-]+))?\Z")


def open_rows(where: str) -> tuple[Iterator[Numbered], int | None]:
    """(rows, how many there are if known) of ``hf://org/name[:split]``; the split is train.

    Raises Invalid for an id that is none, MethodFailed where the hub cannot be reached.
    """
    match = ID.match(where)
    if match is None:
        raise Invalid(f"“{where}” is no data-set id.", advice="Write hf://org/name or …:split.")
    name, split = match[1], match[2] or "train"
    try:
        import datasets
    except ImportError:
        raise MethodFailed(
            "Reading from the Hugging Face hub needs the “datasets” package.",
            advice="Install it on the server, or download the file and import that.",
        ) from None
    try:
        found = datasets.load_dataset(name, split=split, streaming=True)
        known = found.info.splits
        total = known[split].num_examples if known and split in known else None
    except Exception as error:  # the boundary to a library that raises what its network layer does
        raise _failed(name, split, error) from error
    return _numbered(found, name, split), total


def _numbered(found: Any, name: str, split: str) -> Iterator[Numbered]:
    rows = iter(found)
    number = 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # the same boundary: the connection may break at any row
            raise _failed(name, split, error) from error
        number += 1
        yield number, dict(row)


def _failed(name: str, split: str, error: Exception) -> MethodFailed:
    said = (str(error).strip().splitlines() or [""])[0][:200]
    return MethodFailed(
        f"“{name}” ({split}) could not be read from the Hugging Face hub:"
        f" {type(error).__name__}: {said}",
        advice="Check the id and the split, and whether this server reaches huggingface.co."
        " Nothing was imported.",
    )
