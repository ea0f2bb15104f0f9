"""Programs over many responses at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rubrics.programs import PROGRAMS, Program
from rubrics.programs.case import Case, Prompt, Value
from rubrics.registry import find

Messages = Sequence[dict[str, str]]


@cache
def _load(key: str) -> Callable[[Case], Value]:
    return cast("Callable[[Case], Value]", find(PROGRAMS, key).load())


def value(key: str, messages: Messages, text: str) -> Value:
    """What one program says of one response. Raises UnknownMethod."""
    return compute(key, Case(Prompt(messages), text))


def compute(key: str, case: Case) -> Value:
    """The same of a case that is taken apart already."""
    return _load(key)(case)


def evaluate(
    messages_list: Sequence[Messages], texts: Sequence[str], keys: Sequence[str]
) -> NDArray[np.float64]:
    """What each program says of each response: shape (responses, keys), NaN where none applies.

    Yes is 1, no 0, a share in [0, 1], a measure as it is (``as_shares`` brings all to [0, 1]).
    Responses of one prompt should stand together: then the prompt is read once. Raises
    UnknownMethod, and ValueError where the two lists are not of one length.
    """
    programs = [_load(key) for key in keys]
    values = np.full((len(texts), len(keys)), np.nan)
    before: Messages | None = None
    for at, (messages, text) in enumerate(zip(messages_list, texts, strict=True)):
        if messages is not before and messages != before:
            prompt, before = Prompt(messages), messages
        case = Case(prompt, text)
        for column, program in enumerate(programs):
            found = program(case)
            if found is not None:
                values[at, column] = found
    return values


def as_shares(values: NDArray[np.float64], keys: Sequence[str]) -> NDArray[np.float64]:
    """Values of ``evaluate`` in [0, 1]: a measure x counts x / (x + half)."""
    halves = np.array([cast(Program, find(PROGRAMS, key)).half for key in keys])
    return np.where(halves > 0, values / (values + np.where(halves > 0, halves, 1)), values)
