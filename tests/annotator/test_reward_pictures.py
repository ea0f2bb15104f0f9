"""Scores of pictures on demand: by the API, on the page to try a model, what is refused and kept."""

from __future__ import annotations

import atexit
import base64
import io
import json
import shutil
import tempfile
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotator.celery import app
from annotator.jobs.reward_asks import ask
from annotator.models import Image, Project, Prompt, Response, RewardModel, Role, Run, User
from annotator.services import asked_pictures, hashing, images, tokens
from models import gateway
from models.pairs import Pair
from models.training import supervise
from models.workdir import ARTIFACT
from tests import factories
from tests.annotator.pictures import picture, png_header, with_gps
from tests.annotator.rewarding import make_model
from tests.models.planted import write_run

pytestmark = pytest.mark.django_db(transaction=True)

WHICH = [{"role": "user", "content": "Which?"}]


@pytest.fixture(autouse=True, scope="module")
def _no_child_is_left() -> Any:
    yield
    gateway.release()


@pytest.fixture(autouse=True)
def _patient(settings: Any) -> None:
    settings.SCORE_REQUESTS_PER_MINUTE = 0
    settings.SCORE_WAIT_SECONDS = 120


@pytest.fixture
def project() -> Project:
    return factories.project("pictured", modality="image")


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER)


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A worker that is free: it has done the work when the message is sent."""
    found: list[int] = []

    def send(name: str, kwargs: dict[str, int], queue: str = "") -> None:
        found.append(kwargs["run_id"])
        ask(run_id=kwargs["run_id"])

    monkeypatch.setattr(app, "send_task", send)
    return found


@lru_cache(maxsize=1)
def _trained() -> Path:
    """A model that prefers red to blue, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="pictured-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "images").mkdir()

    def shown(color: str, number: int) -> dict[str, str]:
        name = f"images/{color}-{number}.png"
        (folder / name).write_bytes(picture((40 + number, 40), color))
        return {"image": name}

    def pairs(n: int) -> list[Pair]:
        return [Pair(WHICH, shown("red", i), shown("blue", i), prompt_id=i) for i in range(n)]

    write_run(
        folder, train=pairs(30), validation=pairs(5), test=pairs(5), objective="bradley-terry",
        backbone="pixels", options={"epochs": 3, "buckets_log2": 12},
    )  # fmt: skip
    ended = supervise(folder, on_event=lambda _: None, should_stop=lambda: False)
    assert ended.outcome == "done", ended
    return folder / ARTIFACT


def model_of(project: Project, *, files: bool = True) -> RewardModel:
    model = make_model(project)
    model.backbone, model.artifact = "pixels", f"runs/{model.run_id}/artifact"
    model.save()
    folder = Path(settings.WORK_ROOT) / model.artifact
    if files:
        shutil.copytree(_trained(), folder)
    else:
        folder.mkdir(parents=True)
    return model


def stored(project: Project, *colors: str, text: str = "Which?") -> list[Response]:
    """Answers to a held-out prompt, a picture of each color."""
    turns = [{"role": "user", "content": text}]
    prompt = Prompt.objects.create(
        project=project, messages=turns, content_hash=hashing.of_prompt(turns), split="test"
    )
    return [
        factories.response(prompt, image=images.ingest(project=project, data=picture(color=color)))
        for color in colors
    ]


def call(user: User, model: RewardModel, **body: Any) -> tuple[int, Any]:
    _, secret = tokens.create(user=user, name="test")
    client = Client(headers={"Authorization": f"Bearer {secret}"}, raise_request_exception=False)
    path = f"/api/v1/reward-models/{model.pk}/score"
    answer = client.post(path, json.dumps(body), content_type="application/json")
    return answer.status_code, json.loads(answer.content or "null")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sent(data: bytes, prompt: Any = "Which?", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response": {"image": b64(data)}, **more}


# By programs --------------------------------------------------------------------------------------


@pytest.mark.neural
def test_sent_and_stored_pictures_are_scored_alike_and_none_is_left(
    project: Project, owner: User
) -> None:
    model = model_of(project)
    red, blue = stored(project, "red", "blue")
    before = set(Image.objects.values_list("pk", flat=True))
    files = set(default_storage.listdir("images")[1])
    green = picture((44, 44), "green")
    items = [
        {"response": {"id": red.pk}},
        {"prompt": "Which?", "response": {"id": blue.pk}},
        sent(picture(color="red")),  # the project has this one
        sent(green),
        {"prompt": "Which?", "response": {"image": f"data:image/png;base64,{b64(green)}"}},
    ]
    status, answer = call(owner, model, items=items)
    assert (status, answer["run"]) == (200, None), answer
    first, second, again, other, same = answer["scores"]
    assert first > second
    assert again == first
    assert other == same
    assert set(Image.objects.values_list("pk", flat=True)) == before
    assert set(default_storage.listdir("images")[1]) == files
    assert not Run.objects.filter(kind=Run.Kind.ASK).exists()


@pytest.mark.neural
def test_pictures_are_measured_by_pictures(project: Project, owner: User) -> None:
    model = model_of(project)
    red, blue = stored(project, "red", "blue")
    items = [{"response": {"id": red.pk}}, {"response": {"id": blue.pk}}]
    status, answer = call(owner, model, items=items, transform="par")
    assert status == 200
    good, bad = answer["scores"]
    assert good > 0.5 > bad
    assert good + bad == pytest.approx(1)
    given = items[0] | {"references": [{"id": blue.pk}]}
    _, answer = call(owner, model, items=[given], transform="par")
    assert answer["scores"] == [good]
    _, answer = call(owner, model, items=items, transform="standardized")
    assert answer["reference"]["n"] == 2
    assert answer["scores"] == pytest.approx([1.0, -1.0], abs=0.5)


@pytest.mark.neural
def test_a_lost_picture_has_no_score(project: Project, owner: User) -> None:
    model = model_of(project)
    red, blue = stored(project, "red", "blue")
    default_storage.delete(red.image.file.name)
    items = [{"response": {"id": red.pk}}, {"response": {"id": blue.pk}}]
    status, answer = call(owner, model, items=items)
    assert (status, answer["scores"][0]) == (200, None)
    assert answer["scores"][1] is not None


def test_what_is_no_picture_of_the_project_is_refused(
    project: Project, owner: User, worker: list[int]
) -> None:
    model = model_of(project, files=False)
    (foreign,) = stored(factories.project(modality="image"), "red")
    small = picture((2, 2))
    refused = {
        "text": {"prompt": "a", "response": "b"},
        "no base64": {"prompt": "a", "response": {"image": "%%%"}},
        "svg": sent(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "broken": sent(picture()[:60]),
        "huge": sent(png_header(30_000, 30_000)),
        "address": {"prompt": "a", "response": {"image": "https://example.org/a.png"}},
        "data of an address": {"prompt": "a", "response": {"image": "data:image/png,abc"}},
        "foreign": {"response": {"id": foreign.pk}},
        "unknown": {"response": {"id": 2**60}},
        "negative": {"response": {"id": -1}},
        "no prompt": {"response": {"image": b64(small)}},
        "mixed references": sent(small, references=["a text"]),
    }
    told = {name: call(owner, model, items=[one], transform="par") for name, one in refused.items()}
    assert {name: status for name, (status, _) in told.items() if status != 422} == {}
    assert all(answer["detail"] for _, answer in told.values())
    many = [sent(small)] * (asked_pictures.MOST_SENT + 1)
    assert call(owner, model, items=many)[0] == 422
    assert not worker
    assert not Image.objects.filter(project=project).exists()


def test_pictures_of_a_request_have_a_size_together(
    project: Project, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_pictures, "MOST_PIXELS", 3000)
    items = [sent(picture((40, 40))), sent(picture((41, 40)))]
    status, answer = call(owner, model_of(project, files=False), items=items)
    assert status == 422
    assert "together" in answer["detail"]


def test_a_picture_is_refused_where_answers_are_texts(owner: User, worker: list[int]) -> None:
    other = factories.project("texts")
    user = factories.member(other, Role.OWNER)
    model = model_of(other, files=False)
    status, answer = call(user, model, items=[sent(picture())])
    assert (status, "are texts" in answer["detail"]) == (422, True)
    assert not worker


@pytest.mark.neural
def test_stored_texts_are_named_by_id_too() -> None:
    from tests.annotator.asking import BAD_TEXT, GOOD_TEXT, answers_of, stored_prompt
    from tests.annotator.asking import model_of as text_model

    other = factories.project("texts")
    user = factories.member(other, Role.OWNER)
    good, bad = answers_of(stored_prompt(other, "Which?", GOOD_TEXT, BAD_TEXT))
    items = [{"response": {"id": good.pk}}, {"prompt": "Which?", "response": GOOD_TEXT}]
    status, answer = call(user, text_model(other), items=[*items, {"response": {"id": bad.pk}}])
    assert status == 200
    assert answer["scores"][0] == answer["scores"][1] > answer["scores"][2]


# On the page --------------------------------------------------------------------------------------


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def address(model: RewardModel, query: str = "") -> str:
    return reverse("reward_try", args=[model.project.slug, model.number]) + query


def upload(name: str, data: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data, content_type="image/png")


@pytest.mark.neural
def test_uploaded_pictures_are_put_in_order_and_shown(project: Project, owner: User) -> None:
    model, client = model_of(project), client_of(owner)
    page = client.get(address(model)).content.decode()
    assert 'enctype="multipart/form-data"' in page
    assert 'type="file"' in page
    fields = {
        "prompt": "Which?",
        "a": upload("a.png", picture(color="blue")),
        "b": upload("b.png", with_gps()),
        "c": upload("c.png", picture(color="red")),
    }
    answer = client.post(address(model), fields)
    run = Run.objects.get(kind=Run.Kind.ASK)
    assert answer["Location"] == address(model, f"?run={run.pk}")
    page = client.get(answer["Location"])
    assert [row.name for row in page.context["table"].rows] == ["C", "B", "A"]
    text = page.content.decode()
    kept = Image.objects.filter(import_run_id=run.pk)
    assert kept.count() == 3
    for one in kept:
        assert reverse("image", args=[project.slug, one.pk, "full"]) in text
        with one.file.open() as file:
            assert b"SECRET-DESCRIPTION" not in file.read()
    assert "Which?" in text
    # An import's sweep leaves them; who looks again after a day is told that they are gone.
    images.sweep(project_id=project.pk)
    assert kept.all().count() == 3
    Run.objects.filter(pk=run.pk).update(finished_at=timezone.now() - timedelta(days=2))
    asked_pictures.drop(project, before=asked_pictures.KEPT)
    assert not kept.all().exists()
    assert "no longer kept" in client.get(answer["Location"]).content.decode()


@pytest.mark.neural
def test_stored_pictures_of_a_prompt_are_tried(project: Project, owner: User) -> None:
    model, client = model_of(project), client_of(owner)
    red, blue = stored(project, "red", "blue")
    task = factories.task_of(project, of=red.prompt, texts=("x", "y"), overlap=1)
    red.prompt.responses.filter(image=None).delete()
    task.response_ids = [red.pk, blue.pk]
    task.save()
    factories.judgment(factories.rater(project), task, "a1")
    found = client.get(address(model, "?pick=random"))
    assert found["Location"] == address(model, f"?prompt={red.prompt_id}")
    assert (
        reverse("image", args=[project.slug, red.image_id, "full"])
        in client.get(found["Location"]).content.decode()
    )
    answer = client.post(address(model), {"stored": red.prompt_id})
    page = client.get(answer["Location"])
    rows = page.context["table"].rows
    assert [(row.name, row.people) for row in rows] == [("A", "1 of 1 prefer it"), ("B", "")]
    assert rows[0].image == red.image


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"no picture", "Picture 2 cannot be read"), (b"", "empty"), (None, "required")],
    ids=["text", "empty", "missing"],
)
def test_what_is_no_picture_is_told_on_the_form(
    project: Project, owner: User, data: bytes | None, said: str, worker: list[int]
) -> None:
    fields: dict[str, Any] = {"prompt": "Which?", "a": upload("a.png", picture())}
    if data is not None:
        fields["b"] = upload("b.png", data)
    answer = client_of(owner).post(address(model_of(project, files=False)), fields)
    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert not worker


def test_what_is_too_large_is_told_and_not_kept(
    project: Project, owner: User, monkeypatch: pytest.MonkeyPatch, worker: list[int]
) -> None:
    monkeypatch.setattr("annotator.uploads.TRY_BYTES", 100_000)
    big = io.BytesIO(picture() + b"\0" * 200_000)
    fields = {"prompt": "Which?", "a": upload("a.png", picture()), "b": big}
    answer = client_of(owner).post(address(model_of(project, files=False)), fields)
    assert answer.status_code == 413
    assert "MB together" in answer.content.decode()
    assert not worker
