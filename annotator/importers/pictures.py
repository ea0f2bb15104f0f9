"""Rows whose answers are images: ``{"prompt": ..., "images": [...]}`` or two columns of images.

An image is a path inside the zip it came in (or beside the file, for the command), a data URI,
the bytes themselves, ``{"bytes", "path"}`` as Parquet files of the Hugging Face hub have it, or
an object with one of these under ``path`` or ``image`` and ``generator``, ``alt``, ``sampling``.
Addresses on the net are refused: the server asks nobody. Editing adds ``source_image``,
inpainting ``mask`` as well.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from annotator.errors import Invalid
from annotator.importers import presets, responses, table, values
from annotator.importers.types import (
    MAX_RESPONSES,
    BadRow,
    ImageRef,
    Options,
    Reply,
    Row,
    RowReader,
)

LISTS: Final = ("images", "image_paths")
# Pairs of columns that hold two images; Pick-a-Pic calls them jpg_0 and jpg_1.
PAIRS: Final = tuple(
    (f"{stem}{joint}{a}", f"{stem}{joint}{b}")
    for stem in ("image", "img", "jpg", "image_path", "output_image")
    for joint in ("_", "")
    for a, b in (("a", "b"), ("1", "2"), ("0", "1"))
)
OTHERS: Final[dict[str, Sequence[str]]] = {
    "source_image": ("source_image", "source_img", "input_image", "original_image"),
    "mask": ("mask", "mask_image", "mask_img"),
    "prompt": ("prompt", "messages", "instruction", "edit_instruction", "caption", "text"),
}
GENERATORS: Final = (("generator_0", "generator_1"), ("model_0", "model_1"))
SHARED: Final = (
    "prompt", "system", "id", "tags", "label", "rater", "strength", "rationale", "at",
    "generator_a", "generator_b",
)  # fmt: skip
HOLDERS: Final = ("path", "image", "file", "url", "data")
DATA_URI: Final = re.compile(r"data:[^,;]*(?:;[^,;]*)*?(;base64)?,", re.IGNORECASE)
ADDRESS: Final = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//|[a-z][a-z0-9+.-]{2,}:", re.IGNORECASE)
MAX_PATH: Final = 1_000


def is_image_table(sample: Sequence[dict[str, Any]], mapped: Sequence[str] = ()) -> bool:
    """Whether these rows compare images: by what was mapped, else by well-known columns."""
    if {"images", "image_a", "image_b"} & set(mapped):
        return True
    columns = {column for row in sample for column in row}
    # Rows that have a text answer beside their images are about the text.
    if columns & {"chosen", "rejected", "responses"}:
        return False
    return any(set(pair) <= columns for pair in PAIRS) or bool(columns & set(LISTS))


def prepare(options: Options, sample: list[dict[str, Any]]) -> RowReader:
    """A reader for rows of images. Raises Invalid where no columns hold any."""
    columns = {column for row in sample for column in row}
    mapping, scheme = _mapping(options, columns)
    ranks = next((name for name in responses.RANKS if name in columns), "")
    listed = mapping.get("images", [""])[0]
    source, mask = (mapping.get(name, [""])[0] for name in ("source_image", "mask"))
    pair = [mapping[name][0] for name in ("image_a", "image_b")] if not listed else []
    # The readers of texts serve: labels, raters and the rest are written the same way.
    as_texts = {**mapping, **({"response_a": [pair[0]], "response_b": [pair[1]]} if pair else {})}
    read_prompt = table.prompt_reader(mapping)
    read_rest = table.rest_reader({**as_texts, **({"item": [ranks]} if ranks else {})})
    read_votes = table.votes_reader(as_texts, options, scheme, sample) if pair else None
    read_verdict = responses.verdict_reader(mapping, options, ranks) if ranks else None
    writers = [mapping.get(name, [""])[0] for name in ("generator_a", "generator_b")]

    def read(row: table.Cells) -> Row:
        if listed:
            replies = _replies(values.cell(row, listed), listed)
        else:
            replies = [_reply(values.cell(row, column), column) for column in pair]
            for one, writer in zip(replies, writers, strict=True):
                if writer:
                    one.generator = values.name(row.get(writer), writer)
        external_id, tags, extra = read_rest(row)
        found = Row(read_prompt(row), replies, tags=tags, external_id=external_id, extra=extra)
        if source and row.get(source) is not None:
            found.source = reference(row[source], source)
        if mask and row.get(mask) is not None:
            if found.source is None:
                raise BadRow("missing", "a mask needs a source_image", columns=(mask,))
            found.mask = reference(row[mask], mask)
        if read_votes is not None:
            found.votes, found.pairs = read_votes(row, replies), [(0, 1)]
        if read_verdict is not None and row.get(ranks) is not None:
            found.verdicts = [read_verdict(row, len(replies))]
        return found

    return read


def _mapping(options: Options, columns: set[str]) -> tuple[presets.Mapping, str]:
    known, _, _ = presets.guess(columns)
    mapping = {name: known[name] for name in SHARED if name in known}
    for name, wanted in OTHERS.items():
        found = next((column for column in wanted if column in columns), None)
        if found:
            mapping[name] = [found]
    for a, b in GENERATORS:
        if {a, b} <= columns:
            mapping |= {"generator_a": [a], "generator_b": [b]}
    found = next((name for name in LISTS if name in columns), None)
    pair = next((pair for pair in PAIRS if set(pair) <= columns), None)
    if found:
        mapping["images"] = [found]
    elif pair:
        mapping |= {"image_a": [pair[0]], "image_b": [pair[1]]}
    mapping |= options.mapping
    if "images" in mapping and {"image_a", "image_b"} & set(options.mapping):
        del mapping["images"]
    _check(mapping, columns)
    return mapping, options.labels


def _check(mapping: presets.Mapping, columns: set[str]) -> None:
    needed = ["prompt", *(["images"] if "images" in mapping else ["image_a", "image_b"])]
    for name in [*needed, *mapping]:
        for column in mapping.get(name, [name]):
            if column not in columns:
                raise Invalid(
                    f"There is no column “{column}”.",
                    advice="This format needs prompt and images (or image_a and image_b). Map"
                    f" them, or name another format. The file has {values.listed(columns)}.",
                )


def _replies(value: Any, column: str) -> list[Reply]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [value]
    if isinstance(value, dict) and not _holder(value):
        named = [(str(name), one) for name, one in value.items()]  # {generator: image}
    elif isinstance(value, (list, tuple)):
        named = [("", one) for one in value]
    else:
        named = [("", value)]
    if not named:
        raise BadRow("no-responses", columns=(column,))
    if len(named) > MAX_RESPONSES:
        raise BadRow("too-many-responses", str(len(named)), columns=(column,))
    replies = [_reply(one, column) for _, one in named]
    for reply, (name, _) in zip(replies, named, strict=True):
        reply.generator = reply.generator or values.name(name, column)
    return replies


def _holder(value: dict[str, Any]) -> str:
    """The key under which an object has its image."""
    return "bytes" if "bytes" in value else next((key for key in HOLDERS if key in value), "")


def _reply(value: Any, column: str) -> Reply:
    reply = Reply("", image=reference(value, column))
    if not isinstance(value, dict):
        return reply
    rest = {key: one for key, one in value.items() if key not in (*HOLDERS, "bytes", "alt")}
    for name in responses.GENERATOR_KEYS:
        if rest.get(name) is not None:
            reply.generator = values.name(rest.pop(name), column)
            break
    if isinstance(rest.get("sampling"), dict):
        reply.sampling = rest.pop("sampling")
    reply.extra = {key: one for key, one in rest.items() if one is not None} or None
    return reply


def reference(value: Any, column: str) -> ImageRef:
    """Where an image is to be had. Raises BadRow for what is none, and for remote addresses."""
    alt = ""
    if isinstance(value, dict):
        alt = values.name(value.get("alt"), column, limit=1_000)
        data = value.get("bytes")
        value = data if data is not None else value.get(_holder(value) or "path")
        if value is None and data is None:
            raise BadRow("missing", f"an image of “{column}” has no “path”", columns=(column,))
        if isinstance(value, dict):
            return ImageRef(
                **{**_as_dict(reference(value, column)), **({"alt": alt} if alt else {})}
            )
    if isinstance(value, (bytes, bytearray, memoryview)):
        return ImageRef(data=bytes(value), alt=alt)
    path = values.text(value, column).strip()
    uri = DATA_URI.match(path)
    if uri:
        return ImageRef(data=_decoded(path[uri.end() :], bool(uri[1]), column), alt=alt)
    if ADDRESS.match(path):
        raise BadRow("image-remote", values.shown(path), columns=(column,))
    if not path or len(path) > MAX_PATH or "\0" in path:
        raise BadRow("missing", f"an image of “{column}”", columns=(column,))
    return ImageRef(path=path, alt=alt)


def _as_dict(found: ImageRef) -> dict[str, Any]:
    return {"path": found.path, "data": found.data, "alt": found.alt}


def _decoded(text: str, is_base64: bool, column: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if is_base64 else unquote_to_bytes(text)
    except (binascii.Error, ValueError):
        raise BadRow("image-broken", "its data URI cannot be read", columns=(column,)) from None
