"""CHES in an export: read by a child process before the build, kept, resumed, filtered by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.errors import Invalid
from annotator.exporters.ches import FILE, RECORD
from annotator.jobs import exports as jobs
from annotator.jobs.base import routing
from annotator.models import Prompt, Response, Run, RunState
from annotator.services import deliveries, exports
from models import gateway
from tests import factories
from tests.annotator.planted_pairs import Planted, planted, votes
from tests.annotator.test_exports import rows_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.neural]

COUNT = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models import tiny

    return tiny.qwen(tmp_path_factory.mktemp("roots") / "tiny")


@pytest.fixture
def world(folder: Path, settings: Any) -> Planted:
    """Ten pairs; the last three have answers that are nearly one."""
    settings.MODEL_ROOTS = [folder.parent]
    of = planted(COUNT, splits=("train",))
    for n in range(COUNT):
        long = "step by step, for example bread and tea " * 3
        texts = (long, f"{long} so") if n >= 7 else ("tea", f"whales {n} whales to be honest")
        for pk, text in zip(of.responses[n].tolist(), texts, strict=True):
            Response.objects.filter(pk=pk).update(text=text)
    votes(of, [(n, 0, 1, 0, 1) for n in range(COUNT)])
    return of


def started(of: Planted, folder: Path, **options: Any) -> Run:
    return exports.start(
        project=of.project, format="trl-preference", by=None,
        options={"variants": ["ches"], "causal_model": str(folder), **options},
    )  # fmt: skip


def finished(run: Run) -> Run:
    jobs.export(run_id=run.pk)
    gateway.release()
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.DONE, ""), run.log
    return run


def test_a_build_goes_on_with_what_was_read_and_drops_the_highest(
    world: Planted, folder: Path
) -> None:
    run = started(world, folder, drop_ches=30.0)
    assert routing(run) == {"queue": "gpu"}
    run.folder.mkdir(parents=True, exist_ok=True)
    kept = np.zeros(1, RECORD)  # as an attempt that was killed left it, with half a record
    kept[0] = (*world.responses[0].tolist(), -7.0, 1.0, 2.0)
    (run.folder / FILE).write_bytes(kept.tobytes() + kept.tobytes()[:13])
    version = finished(run).dataset_version
    rows = {row["prompt_id"]: row for row in rows_of(version)["train"]}
    assert set(rows) == {prompt.pk for prompt in world.prompts[:7]}
    assert version.manifest["counts"]["dropped"] == {"filter_ches": 3}
    assert rows[world.prompts[0].pk]["ches_ln"] == -8.0, "what was known is not asked again"
    aim = scores_of(world, folder)
    for n in range(1, 7):
        assert rows[world.prompts[n].pk]["ches_ln"] == pytest.approx(aim[n], rel=1e-4)
    assert version.manifest["filter_ches"]["cut_at"] == pytest.approx(
        max(aim[1:7].max(), -8.0), rel=1e-4
    )
    told = version.manifest["variants"]["ches"]
    assert told["model"] == str(folder)
    assert told["missing"] == {"ches_ln": 0}
    assert "ches_ln" in (deliveries.folder_of(version) / "README.md").read_text()


def scores_of(of: Planted, folder: Path) -> np.ndarray:
    """The same by the library, first answers chosen."""
    from models.neural.causal import CausalModel
    from models.neural.hidden import products

    texts = dict(Response.objects.filter(project=of.project).values_list("pk", "text"))
    prompts = dict(Prompt.objects.filter(project=of.project).values_list("pk", "messages"))
    pairs = [
        (prompts[prompt.pk], *(texts[pk] for pk in ids))
        for prompt, ids in zip(of.prompts, of.responses.tolist(), strict=True)
    ]
    found, _ = products(CausalModel.load(str(folder), device="cpu"), pairs)
    return found[:, 0] - found[:, 1]


def test_answers_of_several_messages_lack_the_score(world: Planted, folder: Path) -> None:
    several = [{"role": "assistant", "content": "tea"}, {"role": "assistant", "content": "or so"}]
    Response.objects.filter(pk=int(world.responses[4, 1])).update(messages=several)
    version = finished(started(world, folder)).dataset_version
    found = {row["prompt_id"]: row["ches_ln"] for row in rows_of(version)["train"]}
    assert found.pop(world.prompts[4].pk) is None
    assert None not in found.values()
    assert version.manifest["variants"]["ches"]["missing"] == {"ches_ln": 1}
    dropping = finished(started(world, folder, drop_ches=10.0)).dataset_version
    assert dropping.manifest["counts"]["dropped"] == {"no_score": 1}, "a tenth of nine is none"


def test_projects_of_images_are_refused(folder: Path, settings: Any) -> None:
    settings.MODEL_ROOTS = [folder.parent]
    project = factories.project(modality="image")
    with pytest.raises(Invalid, match="CHES reads texts"):
        exports.start(
            project=project, format="trl-preference", by=None,
            options={"variants": ["ches"], "causal_model": str(folder)},
        )  # fmt: skip
