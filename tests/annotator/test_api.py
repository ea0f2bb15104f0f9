"""The API: the desk's rules for programs, and nobody else's data."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.test import Client
from PIL import Image as Pillow

from annotator.models import Assignment, Judgment, Response, Role
from annotator.services import images, runs, tokens
from tests import factories

pytestmark = pytest.mark.django_db


def caller(user: Any) -> Any:
    """``call(method, path, body)`` with this user's token: (status, decoded answer)."""
    _, secret = tokens.create(user=user, name="test")
    client = Client(headers={"Authorization": f"Bearer {secret}"})

    def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        response = client.generic(
            method, f"/api/v1{path}", json.dumps(body), content_type="application/json"
        )
        return response.status_code, json.loads(response.content or "null")

    return call


def test_claim_and_judge_round_the_queue() -> None:
    project = factories.project("api")
    task = factories.pairwise_task(project, texts=("left", "right"))
    call = caller(factories.member(project))
    status, answer = call("POST", "/projects/api/tasks/claim")
    assert status == 200
    held = answer["task"]
    assert sorted(held["responses"]) == ["left", "right"]
    assert "generator" not in json.dumps(held)
    path = f"/projects/api/tasks/{held['assignment']}/judgment"
    status, answer = call("POST", path, {"verdict": "b2", "why": "clearer"})
    assert (status, answer["is_counted"]) == (200, True)
    judgment = Judgment.objects.get()
    best = task.response_ids[judgment.ranks.index(1)]
    assert held["responses"][1] == task.prompt.responses.get(pk=best).text
    status, answer = call("POST", path, {"verdict": "b2", "why": "clearer"})
    assert (status, answer["was_repeat"]) == (200, True)
    status, answer = call("POST", path, {"verdict": "a1"})
    assert status == 409, "another verdict is not dropped in silence"
    assert Judgment.objects.get().strength == 2
    status, nothing = call("POST", "/projects/api/tasks/claim")
    assert (status, nothing["task"], nothing["reason"]["key"]) == (200, None, "nothing_left")
    status, answer = call("POST", "/projects/api/tasks/undo")
    assert answer["task"]["draft"]["verdict"] == "b2"


def test_skip_records_the_reason() -> None:
    project = factories.project("api")
    factories.pairwise_task(project)
    call = caller(factories.member(project))
    held = call("POST", "/projects/api/tasks/claim")[1]["task"]
    path = f"/projects/api/tasks/{held['assignment']}/skip"
    assert call("POST", path, {"reason": "broken"}) == (204, None)
    assert Assignment.objects.get().skip_reason == "broken"


def test_judgment_that_does_not_fit_is_refused_with_its_reason() -> None:
    project = factories.project("api", settings={"allow_tie": False, "rationale": "required"})
    factories.pairwise_task(project)
    call = caller(factories.member(project))
    held = call("POST", "/projects/api/tasks/claim")[1]["task"]
    path = f"/projects/api/tasks/{held['assignment']}/judgment"
    assert call("POST", path, {"verdict": "tie", "why": "x"})[0] == 422
    assert call("POST", path, {"verdict": "a1"}) == (422, {"detail": "Say why in a few words."})
    assert call("POST", path, {"verdict": "c"})[0] == 422
    assert not Judgment.objects.exists()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/projects/api/tasks/claim"),
        ("POST", "/projects/api/tasks/undo"),
        ("GET", "/projects/api/runs"),
        ("GET", "/projects/api/progress"),
        ("GET", "/projects/api/datasets"),
    ],
)
def test_strangers_and_bad_tokens_get_nothing(method: str, path: str) -> None:
    factories.project("api")
    assert caller(factories.user())(method, path)[0] == 404
    refused = Client(headers={"Authorization": "Bearer nonsense"}).generic(method, f"/api/v1{path}")
    assert refused.status_code == 401
    assert Client().generic(method, f"/api/v1{path}").status_code == 401


@pytest.mark.parametrize("path", ["/projects/api/datasets", "/projects/api/runs"])
def test_annotators_do_not_reach_what_owners_see(path: str) -> None:
    project = factories.project("api")
    assert caller(factories.member(project))("GET", path)[0] == 403


def test_owner_lists_and_cancels_runs() -> None:
    project = factories.project("api")
    owner = factories.member(project, Role.OWNER)
    call = caller(owner)
    run = runs.start(project=project, kind="train", title="Train rm-1", config={}, by=owner)
    assert [row["id"] for row in call("GET", "/projects/api/runs")[1]] == [run.pk]
    status, answer = call("POST", f"/projects/api/runs/{run.pk}/cancel")
    assert (status, answer["state"]) == (200, "canceled")
    assert call("GET", f"/projects/api/runs/{run.pk + 1}")[0] == 404
    assert [row["slug"] for row in call("GET", "/projects")[1]] == ["api"]
    assert call("GET", "/projects")[1][0]["role"] == "owner"
    assert call("GET", "/projects/api/progress")[1] == {"judgments": 0, "wanted": 0}


def test_openapi_describes_every_operation() -> None:
    from annotator.api import api

    schema = api.get_openapi_schema()
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            assert operation["security"], path


@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_unknown_address_answers_in_json(method: str) -> None:
    answer = getattr(Client(enforce_csrf_checks=True), method)("/api/v1/nothing/of/the/kind")
    assert answer.status_code == 404
    assert answer["content-type"].startswith("application/json")
    assert "openapi.json" in answer.json()["detail"]


def test_image_task_comes_with_addresses_the_token_opens(settings: Any) -> None:
    project = factories.project("api", settings={"steps": 3})
    task = factories.pairwise_task(project)
    for shade, pk in enumerate(task.response_ids):
        file = io.BytesIO()
        Pillow.new("RGB", (8, 8), (shade * 90, 0, 0)).save(file, "PNG")
        image = images.ingest(project=project, data=file.getvalue())
        Response.objects.filter(pk=pk).update(image=image, text="")
    person = factories.member(project)
    held = caller(person)("POST", "/projects/api/tasks/claim")[1]["task"]
    shown = [task.response_ids[place] for place in Assignment.objects.get().shown_order]
    assert held["asked"]["steps"] == 3
    assert "gold_rate" not in held["asked"]
    for pk, address in zip(shown, held["images"], strict=True):
        assert f"/images/{Response.objects.get(pk=pk).image_id}/" in address
        secret = tokens.create(user=person, name="robot")[1]
        opened = Client().get(address, headers={"Authorization": f"Bearer {secret}"})
        assert (opened.status_code, opened["content-type"]) == (200, "image/webp")
        assert b"".join(opened.streaming_content)
        assert Client().get(address).status_code == 302, "not without it"
