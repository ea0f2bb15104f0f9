"""Rubrics over the API: the rules of the pages, for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from annotator.models import Judge, Project, Role, Rubric, RubricMeasurement, RubricVersion, Run
from annotator.services import rubric_files, rubrics, tokens
from tests import factories
from tests.annotator.test_api import caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return factories.project("api")


@pytest.fixture
def call(project: Project) -> Any:
    return caller(factories.member(project, Role.OWNER))


def preferences(project: Project, count: int = 3) -> None:
    rater = factories.rater(project)
    for _ in range(count):
        factories.judgment(rater, factories.pairwise_task(project))


def draft(project: Project, name: str = "Clear") -> RubricVersion:
    rubric = rubrics.create(project=project, name=name, by=None)
    version = rubrics.draft(rubric=rubric, by=None)
    rubrics.add(version=version, by=None, text="It names both sides.", weight=0.5)
    return version


def judge(project: Project, **fields: Any) -> Judge:
    return factories.judge(project, options={"models": ["sim"]}, model="sim", **fields)


def test_list_has_every_rubric_with_its_versions(project: Project, call: Any) -> None:
    version = draft(project)
    rubrics.approve(version=version, by=None)
    rubrics.draft(rubric=version.rubric, by=None, like=version)
    other = draft(project, "Other")
    draft(factories.project())
    status, rows = call("GET", "/projects/api/rubrics")
    assert status == 200
    assert [row["name"] for row in rows] == ["Other", "Clear"]
    assert [(one["number"], one["state"]) for one in rows[1]["versions"]] == [
        (2, "draft"), (1, "approved"),
    ]  # fmt: skip
    before = call("GET", f"/projects/api/rubrics?before={other.rubric_id}")[1]
    assert [row["name"] for row in before] == ["Clear"]


def test_version_is_its_file_and_what_was_measured(project: Project, call: Any) -> None:
    version = draft(project)
    path = f"/projects/api/rubrics/{version.rubric_id}/versions/1"
    status, found = call("GET", path)
    assert status == 200
    assert found["file"] == rubric_files.as_json(version)
    assert found["measured"] is None
    row = version.criteria.get()
    assert found["criteria"] == [
        {"id": row.pk, "text": row.text, "decision": "accepted", "figures": {}}
    ]
    figures = {"n_held": 9, "criteria": {str(row.pk): {"support": 4}}}
    RubricMeasurement.objects.create(version=version, sheet=b"", figures=figures)
    assert call("GET", path)[1]["measured"]["figures"] == figures
    assert call("GET", f"/projects/api/rubrics/{version.rubric_id}/versions/2")[0] == 404
    assert call("GET", "/projects/api/rubrics/99999999999999999999/versions/1")[0] == 404


def test_induction_is_queued(project: Project, call: Any) -> None:
    preferences(project)
    asked = judge(project)
    body = {"method": "arr", "judge": asked.pk, "pairs": 40, "calls": 90, "name": "Ours"}
    status, run = call("POST", "/projects/api/rubrics/induce", body)
    assert (status, run["state"], run["kind"]) == (200, "queued", "rubric")
    config = Run.objects.get(pk=run["id"]).config
    assert config["budget"] == {"calls": 90, "tokens": None, "money": None}
    assert config["options"]["pairs"] == config["pairs"] == 40
    assert config["rubric"] == "Ours"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"method": "magic"}, 422, "There is no method"),
        ({"method": "arr"}, 422, "This method asks a model"),
        ({"method": "arr", "judge": 10**9}, 404, "Nothing here"),
        ({"method": "program", "options": {"nothing": 1}}, 422, "nothing"),
        ({"method": "program", "options": {"top": "many"}}, 422, "top"),
        ({"method": "program", "raters": "no\0body"}, 422, "Whose votes"),
        ({"method": "program", "name": "n" * 81}, 422, "1 to 80 characters"),
        ({"method": "program", "pairs": 10**8}, 422, "is given 1 to"),
        ({"method": "program", "calls": 0}, 422, "greater than"),
        ({"method": "program", "raters": "imported"}, 422, "has a majority"),
    ],
    ids=["method", "no-judge", "judge", "option", "value", "raters", "name", "pairs", "budget",
         "no-pairs"],
)  # fmt: skip
def test_induction_is_refused_as_on_the_page(
    project: Project, call: Any, body: dict[str, Any], status: int, says: str
) -> None:
    preferences(project)
    found, answer = call("POST", "/projects/api/rubrics/induce", body)
    assert found == status, answer
    assert says in str(answer)
    assert not Run.objects.exists()


def test_file_goes_round(project: Project, call: Any) -> None:
    version = draft(project)
    file = rubric_files.as_json(version)
    assert call("POST", "/projects/api/rubrics/import", file)[0] == 422, "its draft is open"
    status, made = call("POST", "/projects/api/rubrics/import?name=Copy", file)
    assert (status, made["name"], made["state"]) == (200, "Copy", "draft")
    assert made["file"]["criteria"][0]["weight"] == 0.5
    status, answer = call("POST", "/projects/api/rubrics/import", {"format": "no"})
    assert status == 422
    assert "no rubric" in answer["detail"]
    assert Rubric.objects.count() == 2


def test_file_sent_as_curl_sends_it_is_read(project: Project) -> None:
    _, secret = tokens.create(user=factories.member(project, Role.OWNER), name="test")
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    data = json.dumps(rubric_files.as_json(draft(factories.project())))
    response = client.generic(
        "POST", "/api/v1/projects/api/rubrics/import", data, "application/x-www-form-urlencoded"
    )
    assert response.status_code == 200
    assert RubricVersion.objects.filter(rubric__project=project).exists()
    large = client.generic("POST", "/api/v1/projects/api/rubrics/import", "x" * 2_000_001)
    assert large.status_code == 422


def test_approval_is_once_and_for_decided_drafts(project: Project, call: Any) -> None:
    version = draft(project)
    row = version.criteria.get()
    path = f"/projects/api/rubrics/{version.rubric_id}/versions/1/approve"
    rubrics.decide(criterion=row, decision="proposed", by=None)
    status, answer = call("POST", path)
    assert (status, "not decided on" in answer["detail"]) == (409, True)
    rubrics.decide(criterion=row, decision="accepted", by=None)
    assert call("POST", path)[1]["state"] == "approved"
    assert call("POST", path)[0] == 409


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", "/projects/api/rubrics", "reviewer"),
        ("GET", "/projects/api/rubrics/{}/versions/1", "reviewer"),
        ("POST", "/projects/api/rubrics/{}/versions/1/approve", "owner"),
        ("POST", "/projects/api/rubrics/induce", "owner"),
        ("POST", "/projects/api/rubrics/import", "owner"),
    ],
    ids=["list", "version", "approve", "induce", "import"],
)
def test_only_those_who_may_get_in(project: Project, method: str, path: str, least: str) -> None:
    path = path.format(draft(project).rubric_id)
    body = {"method": "program"} if path.endswith("induce") else None
    assert caller(factories.user())(method, path, body)[0] == 404
    assert caller(factories.member(project))(method, path, body)[0] == 403
    status = caller(factories.member(project, Role.REVIEWER))(method, path, body)[0]
    assert status == (200 if least == "reviewer" else 403)
    assert Client().generic(method, f"/api/v1{path}").status_code == 401
