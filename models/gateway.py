"""The one door to torch: imports of ``models.neural`` happen here, inside functions."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.helper import Helper
from models.pairs import Answer, Message


class RewardModel(Protocol):
    """A loaded reward model."""

    about: dict[str, Any]
    """What was stored with it: config and metrics."""

    def score(self, conversations: Sequence[tuple[list[Message], Answer]]) -> NDArray[np.float64]:
        """Rewards (m,) of m (prompt messages, response). Comparable within one prompt only.

        Of an ensemble the mean of its members, each in its own standard deviations.
        """
        ...

    def score_members(
        self, conversations: Sequence[tuple[list[Message], Answer]]
    ) -> NDArray[np.float64]:
        """What each of k members says, (k, m), on one scale: for models.transforms.combine and
        ensemble_variance. Of a model that is no ensemble its rewards, (1, m)."""
        ...

    def margins(self, pairs: Sequence[tuple[list[Message], Answer, Answer]]) -> NDArray[np.float64]:
        """Log-odds (n,) that the first of two answers to a prompt is better than the second."""
        ...


def load_reward_model(path: Path | str, *, device: str = "") -> RewardModel:
    """The reward model saved in the folder ``path``, ready to score.

    ``device`` as torch names it; empty is CUDA where there is one, else the CPU. A plain
    transformers folder with one output is read too. Raises BadArtifact.
    """
    from models.neural.ensemble_scoring import open_scorer

    return open_scorer(Path(path), device=device)


class Reading(Protocol):
    """What a causal language model says at each of the n tokens of a reply."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """Tokens (n,)."""

    @property
    def logits(self) -> NDArray[np.float64]:
        """The raw logit (n,) of each token where it stands: Q(s_h, a_h)."""

    @property
    def values(self) -> NDArray[np.float64]:
        """V(s_h) (n,): alpha logsumexp(Q / alpha)."""

    @property
    def log_probabilities(self) -> NDArray[np.float64]:
        """log pi(a_h | s_h) (n,)."""


def read_tokens(
    name: str,
    conversations: Sequence[tuple[list[Message], str]],
    *,
    alpha: float = 1.0,
    count_end: bool = True,
    device: str = "",
) -> list[tuple[list[str], Reading, NDArray[np.float64]]]:
    """Per reply its tokens as text (n), the Reading and the rewards (n,) that its logits imply
    (models.neural.training_free.token_rewards).

    ``name`` is a hub id or a folder. Works in this process. Raises BadBackbone, OutOfMemory.
    """
    from models.neural import causal, likelihood, training_free

    model = causal.CausalModel.load(name, device=device)
    training_free.require_logits(model)
    readings, _ = likelihood.read(model, conversations, alpha=alpha, count_end=count_end)
    return [
        ([model.tokenizer.decode([i]) for i in r.ids], r, training_free.token_rewards(r))
        for r in readings
    ]


def score_here(
    request: Mapping[str, Any], *, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """What models.neural.answers says to ``request``, by this process, which then holds torch.

    The models it names stay in memory until another request names others. Raises ModelsError.
    """
    from models.neural.answers import answer

    return answer(request, _models_here(), check)


def score_in_child(
    request: Mapping[str, Any], *, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The same by a child process that outlives the call, and whose end is an error here.

    Its models stay loaded for the next request that names them, until ``release`` or five idle
    minutes. ``check`` is called about once a second and may raise, which ends the child.
    Raises ScoringFailed.
    """
    return _helper().ask(request, check=check)


def check_dataset(
    job: Mapping[str, Any], *, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Look at the files of a dataset as its readers will (models.neural.dataset_check), in a child.

    ``job``: "folder", whose README.md names the files; "scratch", a folder for what is read;
    "container"; "files" {split: [{"name", "rows"}]}; "columns" {name: kind}; "prompt" and "answers",
    names of columns; "differ", two of them or none; "filled", those without nulls;
    "is_text_needed"; "trainer" of TRL or ""; "tokenizer" to try beside the own one, or "".
    Gives {"checks", "failures": [{"file", "line", "reason"}], "count"}. ``check`` is called about
    once a second and may raise, which ends the child. Raises ScoringFailed where it died.
    """
    return _checker().ask(job, check=check)


def release() -> None:
    """End the scoring child, if there is one: the device's memory is free for something else."""
    if _helper.cache_info().currsize:
        _helper().close()


@lru_cache(maxsize=1)
def _helper() -> Helper:
    helper = Helper()
    atexit.register(helper.close)
    return helper


@lru_cache(maxsize=1)
def _checker() -> Helper:
    checker = Helper("models.neural.dataset_check", work="checking")
    atexit.register(checker.close)
    return checker


@lru_cache(maxsize=1)
def _models_here() -> Any:
    from models.neural.answers import Models

    return Models()


def torch_version() -> str | None:
    """The installed torch, without importing it; None where there is none."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return None
