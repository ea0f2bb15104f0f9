"""The API of datasets: built by recipe, read, linked to, compared, deleted, by owners only."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from django.test import Client

from annotator.jobs import exports as jobs
from annotator.models import DatasetVersion, Project, Role, Run
from annotator.services import deliveries, tokens
from tests import factories
from tests.annotator.ballots import judged_pair, raters
from tests.annotator.test_api import caller

pytestmark = pytest.mark.django_db(transaction=True)

BASE = "/projects/api"


@pytest.fixture
def project() -> Project:
    project = factories.project("api")
    people = raters(project, 3)
    judged_pair(project, [1, 1, -1], by=people)
    judged_pair(project, [1], by=people)
    judged_pair(project, [0], by=people)
    return project


@pytest.fixture
def owner(project: Project) -> Any:
    return factories.member(project, Role.OWNER)


@pytest.fixture
def call(owner: Any) -> Any:
    return caller(owner)


def built(call: Any, **body: Any) -> dict[str, Any]:
    """What the run of a build left."""
    status, run = call("POST", f"{BASE}/datasets", body)
    assert (status, run["state"], run["kind"]) == (200, "queued", "export"), run
    jobs.export(run_id=run["id"])
    status, run = call("GET", f"{BASE}/runs/{run['id']}")
    assert run["state"] == "done", run
    return run["result"]


def test_a_dataset_is_built_by_recipe_and_read_with_its_files(
    call: Any, owner: Any, project: Project
) -> None:
    recipe = {"name": "Two", "format": "trl-preference", "options": {"min_votes": 2}}
    status, saved = call("POST", f"{BASE}/recipes", recipe)
    assert (status, saved["reference"]) == (200, "Two:v1")
    assert call("POST", f"{BASE}/recipes", recipe)[1]["version"] == 1
    assert [one["reference"] for one in call("GET", f"{BASE}/recipes")[1]] == ["Two:v1"]
    assert built(call, recipe="Two")["rows"] == 1
    assert built(call, recipe="Two:v1", options={"min_votes": 1})["rows"] == 2
    assert built(call, format="judgments", recipe="Two")["rows"] == 5
    status, listed = call("GET", f"{BASE}/datasets")
    assert [(one["number"], one["recipe"]) for one in listed] == [(3, ""), (2, ""), (1, "Two:v1")]
    assert [one["number"] for one in call("GET", f"{BASE}/datasets?before=3")[1]] == [2, 1]
    status, whole = call("GET", f"{BASE}/datasets/1")
    assert (status, whole["manifest"]["counts"]["out"]) == (200, 1)
    file = whole["files"][0]
    _, secret = tokens.create(user=owner, name="curl")
    response = Client(headers={"Authorization": f"Bearer {secret}"}).get(file["url"])
    data = b"".join(response.streaming_content)
    assert hashlib.sha256(data).hexdigest() == file["sha256"]
    assert {one["name"] for one in whole["files"]} >= {"train.jsonl", "manifest.json"}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "Say a format"),
        ({"format": "nothing"}, 422, "no method"),
        ({"recipe": "Nobody's"}, 404, "no recipe"),
        ({"format": "trl-preference", "options": {"min_votes": 0}}, 422, "min_votes"),
        ({"format": "trl-preference", "options": {"speed": 9}}, 422, "speed"),
        ({"format": ["trl-preference"]}, 422, ""),
    ],
)
def test_a_build_that_cannot_be_is_refused_with_its_reason(
    call: Any, body: dict[str, Any], status: int, words: str
) -> None:
    found, answer = call("POST", f"{BASE}/datasets", body)
    assert found == status
    assert words in json.dumps(answer)
    assert not Run.objects.exists()


def test_links_comparing_and_deletion(call: Any, project: Project) -> None:
    built(call, format="trl-preference")
    built(call, format="trl-preference", options={"min_votes": 2})
    status, link = call("POST", f"{BASE}/datasets/1/links", {"file": "train.jsonl"})
    assert status == 200
    path = deliveries.path_of(DatasetVersion.objects.get(number=1), "train.jsonl")
    assert b"".join(Client().get(link["url"]).streaming_content) == path.read_bytes()
    refused = call("POST", f"{BASE}/datasets/1/links", {"file": "rows.npy"})
    assert refused[0] == 410
    bad = call("POST", f"{BASE}/datasets/1/links", {"file": "train.jsonl", "lifetime": "9y"})
    assert bad[0] == 422
    status, changes = call("GET", f"{BASE}/datasets/compare?a=1&b=2")
    assert (status, changes["removed"], changes["kept"]) == (200, 1, 1)
    assert changes["recipe"] == [
        {"name": "min_votes", "title": "Least votes", "old": "1", "new": "2"}
    ]
    status, gone = call("DELETE", f"{BASE}/datasets/1")
    assert (status, gone["files"], bool(gone["deleted_at"])) == (200, [], True)
    assert call("DELETE", f"{BASE}/datasets/1")[0] == 200
    assert call("GET", f"{BASE}/datasets/1")[1]["manifest"]["counts"]["out"] == 2
    assert Client().get(link["url"]).status_code == 410
    assert call("POST", f"{BASE}/datasets/1/links", {"file": "train.jsonl"})[0] == 410
    status, changes = call("GET", f"{BASE}/datasets/compare?a=1&b=2")
    assert (status, changes["comparable"], changes["kept"]) == (200, False, None)
    assert "was deleted" in changes["why_not"]


CALLS = [
    ("GET", "/datasets", None),
    ("POST", "/datasets", {"format": "trl-preference"}),
    ("GET", "/datasets/1", None),
    ("DELETE", "/datasets/1", None),
    ("POST", "/datasets/1/links", {"file": "train.jsonl"}),
    ("GET", "/datasets/compare?a=1&b=1", None),
    ("GET", "/recipes", None),
    ("POST", "/recipes", {"name": "x", "format": "trl-preference"}),
]


def test_only_owners_are_let_in(call: Any, project: Project) -> None:
    built(call, format="trl-preference")
    reviewer = caller(factories.member(project, Role.REVIEWER))
    stranger = caller(factories.member(factories.project(), Role.OWNER))
    for method, path, body in CALLS:
        assert reviewer(method, f"{BASE}{path}", body)[0] == 403, path
        assert stranger(method, f"{BASE}{path}", body)[0] == 404, path
        answer = Client().generic(method, f"/api/v1{BASE}{path}")
        assert answer.status_code == 401, path
    assert DatasetVersion.objects.get().deleted_at is None
    assert Run.objects.count() == 1


def test_what_is_not_there_is_not_found(call: Any) -> None:
    for path in ("/datasets/9", f"/datasets/{2**40}", f"/datasets/compare?a=1&b={2**70}"):
        assert call("GET", f"{BASE}{path}")[0] == 404, path
    assert call("GET", f"{BASE}/datasets/compare")[0] == 422
    assert call("GET", f"{BASE}/datasets?before={2**70}") == (200, [])
