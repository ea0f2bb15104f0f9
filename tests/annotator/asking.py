"""A reward model that knows the planted rule, for tests that ask it for scores."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from django.conf import settings

from annotator.models import Project, Prompt, Response, RewardModel, Run, RunState
from annotator.services import hashing
from models.pairs import Pair
from models.training import supervise
from models.workdir import ARTIFACT, read_metrics
from tests import factories
from tests.annotator.planted import BAD, GOOD
from tests.annotator.rewarding import make_model
from tests.models.planted import write_run

GOOD_TEXT, BAD_TEXT, EVEN_TEXT = " ".join(GOOD), " ".join(BAD), "bread and rivers"


@lru_cache(maxsize=4)
def _trained(backbone: str, epochs: int, members: int) -> Path:
    """A model fitted to the planted words, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="asked-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    dice = np.random.default_rng(0)

    def pairs(split: str, n: int) -> list[Pair]:
        return [
            Pair(
                [{"role": "user", "content": f"{split} {i}?"}],
                " ".join(dice.choice(GOOD, 5)), " ".join(dice.choice(BAD, 5)),
            )
            for i in range(n)
        ]  # fmt: skip

    write_run(
        folder, train=pairs("train", 200), validation=pairs("validation", 20),
        test=pairs("test", 20), objective="bradley-terry", backbone=backbone,
        options={"epochs": epochs}, members=members, prior_scale=1.0 if members > 1 else 0.0,
    )  # fmt: skip
    ended = supervise(folder, on_event=lambda _: None, should_stop=lambda: False)
    assert ended.outcome == "done", ended
    return folder / ARTIFACT


def model_of(
    project: Project,
    number: int = 1,
    *,
    backbone: str = "hashing",
    epochs: int = 2,
    members: int = 1,
) -> RewardModel:
    """A reward model of the project with real files; of several members, an ensemble."""
    trained = _trained(backbone, epochs, members)
    model = make_model(project, number)
    Run.objects.filter(pk=model.run_id).update(state=RunState.DONE)
    model.backbone = backbone
    model.artifact = f"runs/{model.run_id}/artifact"
    if members > 1:
        model.metrics = read_metrics(trained.parent)
    model.save()
    shutil.copytree(trained, Path(settings.WORK_ROOT) / model.artifact)
    return model


def stored_prompt(project: Project, text: str, *answers: str, split: str = "test") -> Prompt:
    """A prompt as an import stores it, with its answers."""
    messages = [{"role": "user", "content": text}]
    prompt = Prompt.objects.create(
        project=project, messages=messages, content_hash=hashing.of_prompt(messages), split=split
    )
    for answer in answers:
        factories.response(prompt, answer)
    return prompt


def answers_of(prompt: Prompt) -> list[Response]:
    return list(Response.objects.filter(prompt=prompt).order_by("pk"))
