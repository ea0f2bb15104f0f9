"""The demo's simulated judges: known answers, an endpoint and judges made once, a server."""

from __future__ import annotations

import io
import re
import signal
import socket
import subprocess
import sys
from typing import Any

import httpx2
import openai
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from annotator import pictures, supervisor
from annotator.demo import scenes, simulate
from annotator.management.commands import demo
from annotator.models import Endpoint, Judge, Project
from annotator.services import demo_judges, demo_scenes, endpoints, judges
from rubrics.simulated.dials import MODELS
from rubrics.simulated.mind import key_of
from tests.factories import project
from tests.serving import ROOT, child_env, free_port

AT = "127.0.0.1:8790"


@pytest.fixture(autouse=True)
def _address(settings: Any) -> None:
    settings.SIMULATED_JUDGE = AT
    settings.LLM_HOSTS = [AT]


@pytest.fixture
def owner(db: None) -> Project:
    return project()


def test_every_demo_answer_is_known_by_its_quality(monkeypatch):
    monkeypatch.setattr(scenes, "SCENES", scenes.SCENES[:2])
    known = demo_judges.known()
    responses = [one for prompt in simulate.load_prompts() for one in prompt.responses]
    utilities = [known[key_of(one.text)].utility for one in responses]
    assert sorted(range(len(utilities)), key=utilities.__getitem__) == sorted(
        range(len(responses)), key=lambda at: responses[at].quality
    )
    assert {known[key_of(one.text)].family for one in responses} == {
        one.generator for one in responses
    }


def test_pictures_are_known_as_they_are_kept(monkeypatch):
    monkeypatch.setattr(scenes, "SCENES", scenes.SCENES[:2])
    known = demo_judges.known()
    for scene in scenes.SCENES:
        for drawn in scenes.draw_all(scene, seed=demo_scenes.SEED):
            kept = pictures.encode(drawn.png).data
            row = known[demo_judges.sha256(kept).hexdigest()]
            assert row.family == drawn.model
            assert {name: row.checks[name] for name in drawn.failed} == drawn.failed
            assert all(row.checks[name] is None for name in set(row.checks) - set(drawn.failed))


def test_the_endpoint_and_its_judges_are_made_once(owner):
    first = demo_judges.add_judges(owner)
    assert [judge.name for judge in first] == list(demo_judges.MODELS)
    assert all(judge.is_simulated and judge.rater.is_simulated for judge in first)
    assert demo_judges.add_judges(owner) == first
    endpoint = Endpoint.objects.get(project=owner)
    assert endpoint.base_url == f"http://{AT}/v1"
    assert (endpoint.is_simulated, endpoint.has_images, endpoint.secret) == (True, True, None)
    assert set(demo_judges.MODELS) <= set(MODELS)


def test_what_was_archived_stays_archived(owner):
    judge, other = demo_judges.add_judges(owner)
    judges.archive(judge=judge, by=None)
    assert demo_judges.add_judges(owner) == [other]
    endpoints.archive(endpoint=demo_judges.add_endpoint(owner), by=None)
    assert demo_judges.add_judges(owner) == []
    assert Judge.objects.filter(project=owner).count() == 2


def test_another_address_is_another_version(owner, settings):
    before = demo_judges.add_judges(owner)
    settings.SIMULATED_JUDGE = "127.0.0.1:8791"
    settings.LLM_HOSTS = ["127.0.0.1:8791"]
    after = demo_judges.add_judges(owner)
    assert [judge.version for judge in before + after] == [1, 1, 2, 2]
    assert Endpoint.objects.get(project=owner).base_url.endswith(":8791/v1")


def test_somebody_elses_endpoint_of_that_name_is_left_alone(owner, settings):
    settings.LLM_HOSTS = ["127.0.0.1:9"]
    base_url = "http://127.0.0.1:9/other"
    endpoints.add(project=owner, name=demo_judges.NAME, base_url=base_url, by=None)
    assert demo_judges.add_judges(owner) == []
    assert Endpoint.objects.get(project=owner).base_url.endswith("/other")


@pytest.mark.parametrize("wrong", ["", "8790", "localhost:", "localhost:judge"])
def test_an_address_that_is_none_is_named(settings, wrong):
    settings.SIMULATED_JUDGE = wrong
    with pytest.raises(ImproperlyConfigured, match="HOST:PORT"):
        demo_judges.address()


def test_the_command_serves_and_says_that_it_is_simulated(db):
    port = free_port()
    command = [*supervisor.simulated_judge("127.0.0.1", port).command, "--no-demo"]
    with subprocess.Popen(
        [*command, "--dial", "noise=0", "--api-key", "sk-planted"],
        cwd=ROOT,
        env=child_env(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = [process.stdout.readline() for _ in range(1 + len(MODELS))]
            assert "simulated" in said[0]
            _wait(port)
            url = f"http://127.0.0.1:{port}/v1"
            with openai.OpenAI(base_url=url, api_key="sk-planted") as client:
                assert [one.id for one in client.models.list()] == list(MODELS)
        finally:
            process.terminate()
    assert process.returncode in (0, -signal.SIGTERM)


def _wait(port: int) -> None:
    """Until the port takes connections: the line before it is printed just before."""
    transport = httpx2.HTTPTransport(retries=10)
    with httpx2.Client(transport=transport) as client:
        assert client.get(f"http://127.0.0.1:{port}/stats").status_code == 200


def test_a_taken_port_and_a_wrong_dial_are_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=re.escape(f":{port}")):
            call_command("simulated_judge", "--port", str(port), "--no-demo", stdout=sys.stderr)
    with pytest.raises(CommandError, match="Write NAME=VALUE"):
        call_command("simulated_judge", "--dial", "loudness=3")


def test_the_demo_goes_on_where_the_port_is_taken(settings):
    said = io.StringIO()
    command = demo.Command(stdout=said)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings.SIMULATED_JUDGE = f"127.0.0.1:{taken.getsockname()[1]}"
        assert command._simulated_judge() == []
    assert settings.SIMULATED_JUDGE in said.getvalue()
    settings.SIMULATED_JUDGE = f"127.0.0.1:{free_port()}"
    assert [child.name for child in command._simulated_judge()] == ["simulated judge"]
