"""Has a causal language model read the pairs of an export, for CHES: in a child process, resumable.

What is measured does not depend on which answer is chosen, so it is measured once per pair, before
the build, and stands in the run's folder (exporters.ches): a run that is killed goes on there. Pairs
that are voted on while this works are not in it, and then lack the score.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from annotator.exporters.ches import FILE, RECORD, read_records
from annotator.exporters.recipe import ExportOptions
from annotator.queries import datasets as queries
from annotator.queries.pair_texts import Compared, with_texts
from annotator.queries.pairs import chunks
from annotator.queries.snapshot import snapshot
from annotator.services import backbones, evaluation_scores, runs
from models import gateway
from models.pairs import clean_text

AT_ONCE: Final = 32  # pairs of one request: what a kill loses
PRETRAINED: Final = "hf"  # the backbone whose names these are
MAX_LENGTH: Final = 4096
TOKENS_PER_FORWARD: Final = 16_384


def allowed_model(name: str) -> str:
    """A hub id, or a folder made absolute. Raises Invalid for one that may not be named."""
    return backbones.allowed(f"{PRETRAINED}:{name.strip()}").partition(":")[2]


def measure(work: runs.Work, options: ExportOptions) -> Path:
    """The file of products, whole. Raises Invalid, MethodFailed, Stopped."""
    path = work.run.folder / FILE
    work.stage("ches", "Read by the language model")
    name = allowed_model(options.causal_model)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = read_records(path)
    with path.open("ab") as file, snapshot() as connection:
        file.truncate(known.nbytes)  # a kill may have left half a record
        measured = set(zip(known["a"].tolist(), known["b"].tolist(), strict=True))
        if measured:
            work.resumed(f"{len(measured):,} pairs were read before")
        total = queries.count_pairs(work.run.project, connection=connection)
        read = with_texts(
            chunks(work.run.project, options.selection(), connection=connection),
            connection=connection,
        )
        pairs = (one for batch in read for one in batch if _counts(one, options))
        done = len(measured)
        with evaluation_scores.holding_device(work):
            for some in _parts(one for one in pairs if one.pair[1:3] not in measured):
                _ask(work, name, some).tofile(file)
                os.fsync(file.fileno())
                done += len(some)
                work.progress(min(done, total), total, unit="pairs")
                work.check()
    return path


def _counts(one: Compared, options: ExportOptions) -> bool:
    return options.decided_by != "votes" or one.pair.votes > 0


def _parts(pairs: Iterator[Compared]) -> Iterator[list[Compared]]:
    some: list[Compared] = []
    for one in pairs:
        some.append(one)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _ask(work: runs.Work, name: str, some: list[Compared]) -> Any:
    """Records (n,); not a number where an answer is not one text."""
    records = np.zeros(len(some), RECORD)
    records["a"] = [one.pair.a_id for one in some]
    records["b"] = [one.pair.b_id for one in some]
    is_text = np.array([not (one.a.source or one.b.source) for one in some])
    found = np.full((len(some), 3), np.nan)
    asked = [
        (
            [
                {"role": message["role"], "content": clean_text(message["content"])}
                for message in one.prompt.messages
            ],
            clean_text(one.a.text),
            clean_text(one.b.text),
        )
        for one, is_one in zip(some, is_text, strict=True)
        if is_one
    ]
    if asked:
        request = {
            "method": "hidden-products",
            "models": [name],
            "precision": "auto",
            "pairs": asked,
            "max_length": MAX_LENGTH,
            "tokens_per_forward": TOKENS_PER_FORWARD,
        }
        scores = gateway.score_in_child(request, check=work.check)["scores"]
        values = [np.nan if score is None else score for score in scores]
        found[is_text] = np.reshape(values, (-1, 3))
    for column, field in enumerate(("between", "of_a", "of_b")):
        records[field] = found[:, column]
    return records
