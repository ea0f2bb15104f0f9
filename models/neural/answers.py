"""What a scoring process answers: requests to scores, by models that it keeps in memory."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.errors import BadOptions, OutOfMemory
from models.neural.causal import CausalModel
from models.neural.ensemble_scoring import open_scorer
from models.neural.hidden import products
from models.neural.likelihood import Limits
from models.neural.memory import guard_memory
from models.neural.scoring import Scorer
from models.neural.training_free import Scores, density_ratio, endogenous, yes_no
from models.workdir import EMBEDDINGS

Request = Mapping[str, Any]


class Models:
    """Models in memory: those that the last request named, and no others."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Any] = {}

    def causal(self, names: Sequence[str], *, precision: str) -> list[CausalModel]:
        """Models by name; one name given twice is one model."""
        keys = [(name, precision) for name in names]
        self._keep(keys)
        for key in keys:
            if key not in self.held:
                self.held[key] = CausalModel.load(key[0], precision=precision)
        return [self.held[key] for key in keys]

    def reward(self, folder: str) -> Scorer:
        key = (folder, "reward-model")
        self._keep([key])
        if key not in self.held:
            with guard_memory("The reward model does not fit."):
                self.held[key] = open_scorer(Path(folder))
        return self.held[key]

    def clear(self) -> None:
        """Free all."""
        self._keep([])

    def _keep(self, keys: Sequence[tuple[str, str]]) -> None:
        gone = [key for key in self.held if key not in keys]
        for key in gone:
            del self.held[key]
        if gone:
            gc.collect()
            torch.cuda.empty_cache()


def answer(request: Request, models: Models, check: Callable[[], None]) -> dict[str, Any]:
    """``{"scores": [number or None, ...], "notes": {...}}`` for one request.

    ``method`` names a key of METHODS, which says what else stands in it. Raises ModelsError.
    """
    method = METHODS.get(request["method"])
    if method is None:
        raise BadOptions(f"There is no scorer {request['method']!r}. Known: {', '.join(METHODS)}.")
    with guard_memory("The scorer ran out while it worked."):
        scores, notes = method(request, models, check)
    finite = [float(score) if np.isfinite(score) else None for score in scores]
    return {"scores": finite, "notes": {name: count for name, count in notes.items() if count}}


def _reward_model(request: Request, models: Models, check: Callable[[], None]) -> Scores:
    """folder, asked; embeddings, the folder where they are kept, where there is one."""
    return _by_reward_model(request, models, check, lambda scorer: scorer.score(_asked(request)))


def _reward_members(request: Request, models: Models, check: Callable[[], None]) -> Scores:
    """folder, asked; embeddings. What each member says in turn: k times as many scores as asked."""
    asked = _asked(request)
    return _by_reward_model(
        request, models, check, lambda scorer: scorer.score_members(asked).reshape(-1)
    )


def _pair_margins(request: Request, models: Models, check: Callable[[], None]) -> Scores:
    """folder, pairs [prompt, first, second]; embeddings. Log-odds that the first is better."""
    pairs = [(prompt, first, second) for prompt, first, second in request["pairs"]]
    return _by_reward_model(request, models, check, lambda scorer: scorer.margins(pairs))


def _by_reward_model(
    request: Request,
    models: Models,
    check: Callable[[], None],
    ask: Callable[[Scorer], NDArray[np.float64]],
) -> Scores:
    """What a reward model says, with less of it in memory at once where it does not fit."""
    check()
    if folder := request.get("embeddings"):
        os.environ[EMBEDDINGS] = folder
    scorer = models.reward(request["folder"])
    while True:
        try:
            with guard_memory("A single text does not fit."):
                return ask(scorer), Counter()
        except OutOfMemory:
            if not scorer.read_less():
                raise
        torch.cuda.empty_cache()


def _yes_no(request: Request, models: Models, check: Callable[[], None]) -> Scores:
    """models [one], questions, words."""
    (model,) = models.causal(request["models"], precision=request["precision"])
    first, second = request["words"]
    return yes_no(model, request["questions"], (first, second), limits=_limits(request, check))


def _density_ratio(request: Request, models: Models, check: Callable[[], None]) -> Scores:
    """models [strong, weak], asked, average, count_end."""
    strong, weak = models.causal(request["models"], precision=request["precision"])
    return density_ratio(
        strong,
        weak,
        _asked(request),
        average=request["average"],
        count_end=request["count_end"],
        limits=_limits(request, check),
    )


def _endogenous(request: Request, models: Models, check: Callable[[], None]) -> Scores:
    """models [one], asked, form, criteria, alpha, count_end."""
    (model,) = models.causal(request["models"], precision=request["precision"])
    return endogenous(
        model,
        _asked(request),
        form=request["form"],
        criteria=request["criteria"],
        alpha=request["alpha"],
        count_end=request["count_end"],
        limits=_limits(request, check),
    )


def _hidden_products(request: Request, models: Models, check: Callable[[], None]) -> Scores:
    """models [one], pairs [prompt, a, b]. Three numbers a pair: <a, b>, |a|^2, |b|^2."""
    (model,) = models.causal(request["models"], precision=request["precision"])
    pairs = [(prompt, first, second) for prompt, first, second in request["pairs"]]
    found, notes = products(model, pairs, limits=_limits(request, check))
    return found.reshape(-1), notes


METHODS: Final[dict[str, Callable[[Request, Models, Callable[[], None]], Scores]]] = {
    "reward-model": _reward_model,
    "reward-members": _reward_members,
    "pair-margins": _pair_margins,
    "yes-no": _yes_no,
    "density-ratio": _density_ratio,
    "endogenous": _endogenous,
    "hidden-products": _hidden_products,
}


def _asked(request: Request) -> list[tuple[Any, Any]]:
    return [(prompt, reply) for prompt, reply in request["asked"]]


def _limits(request: Request, check: Callable[[], None]) -> Limits:
    return Limits(request["max_length"], request["tokens_per_forward"], check)
