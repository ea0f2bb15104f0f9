"""The demo's AI judges: a simulated endpoint, two judges that ask it, and what it knows.

The simulated judge (rubrics.simulated) goes by the same hand-set qualities as the simulated
raters. Everything it says is simulated and labelled so.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from annotator import pictures
from annotator.demo import scenes, simulate
from annotator.models import Endpoint, Judge, Project
from annotator.services import demo_scenes, endpoints, judges
from rubrics.simulated.mind import Known, key_of

NAME: Final = "simulated"
MODELS: Final = ("sim-careful", "sim-position")  # keys of rubrics.simulated.dials.MODELS
CONCURRENCY: Final = 16
SPREAD: Final = 1.9  # over which quality 0..1 makes differences within a prompt spread by one
MIDDLE: Final = 0.5


def known() -> dict[str, Known]:
    """What the simulated judge knows: answers, prompts and pictures of both demo projects.

    Takes seconds, since the pictures are drawn for it.
    """
    table: dict[str, Known] = {}
    for prompt in simulate.load_prompts():
        turns = (f"{turn['role']}: {turn['content']}" for turn in prompt.messages)
        table[key_of(" ".join(turns))] = Known(0.0)
        for response in prompt.responses:
            table[key_of(response.text)] = _known(response.quality, response.generator)
    for scene in scenes.SCENES:
        asked = dict.fromkeys(scene.criteria, False)
        table[key_of(f"user: {scene.text}")] = Known(0.0, checks=asked, mended=scenes.CRITERIA)
        for picture in scenes.draw_all(scene, seed=demo_scenes.SEED):
            # Judges are sent the picture as it is kept.
            digest = sha256(pictures.encode(picture.png).data).hexdigest()
            checks = {name: picture.failed.get(name) for name in scenes.FAILURES}
            table[digest] = _known(picture.quality, picture.model, checks)
    return table


def _known(quality: float, family: str, checks: dict[str, bool | None] | None = None) -> Known:
    mended = scenes.CRITERIA if checks else {}
    return Known((quality - MIDDLE) * SPREAD, family, checks or {}, mended)


def address() -> tuple[str, int]:
    """Where the simulated judge listens, by settings.SIMULATED_JUDGE."""
    host, _, port = settings.SIMULATED_JUDGE.rpartition(":")
    if not host or not port.isdecimal():
        raise ImproperlyConfigured("SIMULATED_JUDGE must be HOST:PORT, such as 127.0.0.1:8790")
    return host.strip("[]"), int(port)


def add_endpoint(project: Project) -> Endpoint:
    """The project's endpoint "simulated", made where it is missing, moved where it has moved."""
    base_url = f"http://{settings.SIMULATED_JUDGE}/v1"
    found = Endpoint.objects.filter(project=project, name=NAME).first()
    if found is None:
        return endpoints.add(
            project=project,
            name=NAME,
            base_url=base_url,
            by=None,
            simulated=True,
            has_schema=True,
            has_logprobs=True,
            has_images=True,
            concurrency=CONCURRENCY,
        )
    if found.is_simulated and found.archived_at is None and found.base_url != base_url:
        return endpoints.change(endpoint=found, by=None, base_url=base_url)
    return found


def add_judges(project: Project) -> list[Judge]:
    """The demo's judges in their newest versions: made where they are missing.

    A judge is its address too, so where the endpoint has moved there is a new version. What was
    archived stays so.
    """
    before = Endpoint.objects.filter(project=project, name=NAME).first()
    endpoint = add_endpoint(project)
    if not endpoint.is_simulated or endpoint.archived_at is not None:
        return []
    has_moved = before is not None and before.base_url != endpoint.base_url
    kept = []
    for model in MODELS:
        judge = Judge.objects.filter(project=project, name=model).order_by("-version").first()
        if judge is None or (has_moved and judge.archived_at is None):
            judge = judges.add(
                project=project,
                name=model,
                kind="llm",
                options={"models": [model]},
                endpoint=endpoint,
                by=None,
            )
        if judge.archived_at is None:
            kept.append(judge)
    return kept
