"""Pages, the command and the API of evaluations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from annotator.models import Role, Run, RunState
from annotator.services import tokens
from tests import factories
from tests.annotator.evaluating import World, evaluated, plant, world
from tests.annotator.rewarding import make_model

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker takes what a page queues."""
    monkeypatch.setattr("annotator.jobs.base.send", lambda run: True)


def owner(made: World) -> Client:
    client = Client()
    client.force_login(factories.member(made.project, Role.OWNER))
    return client


def page(made: World, number: int = 1, more: str = "") -> str:
    return f"/p/{made.project.slug}/reward-models/{number}/{more}"


def two() -> World:
    made = world()
    plant(made, make_model(made.project, 2), right=20)
    return made


def test_page_offers_an_evaluation_and_then_shows_it_with_intervals_and_counts() -> None:
    made = two()
    client = owner(made)
    body = client.get(page(made)).content.decode()
    assert "Not evaluated yet" in body
    evaluated(made.model)
    body = client.get(page(made)).content.decode()
    assert "Not evaluated yet" not in body
    assert "75.0" in body
    assert "Calibration error" in body
    assert "Against each, on the pairs that both speak of" in body
    assert "rm-2, Bradley" in body
    assert "not told apart" in body or "ahead" in body
    assert "?beside=rm-2#evaluation" in body
    other = client.get(page(made), {"beside": "rm-2"}).content.decode()
    assert "Evaluation, beside rm-2" in other
    assert "rm-1 is right on 10 pairs that rm-2 misses, wrong on 0" in other
    assert client.get(page(made), {"beside": "nobody\x01"}).status_code == 200


def test_form_starts_a_run_and_its_page_shows_what_came_of_it() -> None:
    made = two()
    client = owner(made)
    form = client.get(page(made, more="evaluate/")).content.decode()
    assert 'value="rm-2"' in form
    told = {"splits": ["test"], "most": "1000", "gold": "people", "against": ["rm-2"]}
    found = client.post(page(made, more="evaluate/"), told)
    run = Run.objects.get(kind=Run.Kind.EVALUATE)
    assert found["Location"] == f"/p/{made.project.slug}/runs/{run.pk}/"
    assert run.config["against"] == ["rm-2"]
    again = client.post(page(made, more="evaluate/"), told)
    assert again.status_code == 422
    assert "being evaluated already" in again.content.decode()
    Run.objects.filter(pk=run.pk).update(state=RunState.CANCELED)
    done = evaluated(made.model)
    body = client.get(f"/p/{made.project.slug}/runs/{done.pk}/").content.decode()
    assert "rm-1 on 40 pairs" in body
    assert f"evaluate_reward_model {made.project.slug} 1 --split test" in body


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"most": "10", "gold": "people"}, "Choose at least one split"),
        ({"splits": "test", "most": "0", "gold": "people"}, "greater than or equal to 1"),
        ({"splits": "test", "most": "5", "gold": "rm-7"}, "not one of the available"),
        ({"splits": "test", "most": "5", "gold": "people", "against": "x"}, "not one of the"),
        ({"splits": "test", "most": "5", "gold": "people", "import_run": "9"}, "not one of the"),
    ],
    ids=["no-split", "no-pairs", "gold", "against", "import"],
)
def test_form_says_what_is_wrong(told: dict[str, Any], says: str) -> None:
    made = two()
    found = owner(made).post(page(made, more="evaluate/"), told)
    assert found.status_code == 422
    assert says in found.content.decode()
    assert not Run.objects.filter(kind=Run.Kind.EVALUATE).exists()


def test_list_shows_headlines_and_two_are_compared() -> None:
    made = two()
    client = owner(made)
    listing = f"/p/{made.project.slug}/reward-models/"
    assert "Compare two" in client.get(listing).content.decode()
    compare = f"{listing}compare/"
    found = client.get(compare, {"model": ["1", "2"]})
    assert found["Location"] == page(made, more="evaluate/")
    evaluated(made.model)
    body = client.get(listing).content.decode()
    assert "Follows length" in body
    found = client.get(compare, {"model": ["2", "1"]})
    assert found["Location"] == f"{page(made)}?beside=rm-2#evaluation"
    assert client.get(compare, {"model": "1"})["Location"] == listing
    assert client.get(compare, {"model": ["1", "99"]}).status_code == 404
    assert client.get(compare, {"model": ["1", "x\x00"]})["Location"] == listing


def test_a_hostile_name_stays_text() -> None:
    made = world(pairs=12, right=12)
    task = made.tasks[0]
    task.prompt.tags = ["<script>alert(1)</script>"]
    task.prompt.save()
    evaluated(made.model)
    assert "<script>alert(1)" not in owner(made).get(page(made)).content.decode()


def test_command_gives_figures_as_json_and_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    made = two()
    slug = made.project.slug
    call_command("evaluate_reward_model", slug, "1", "--json", "--against", "rm-2")
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["reward_model"], result["pairs"]) == (1, 40)
    assert result["figures"]["rivals"][1]["key"] == "rm-2"
    call_command("evaluate_reward_model", slug, "1", "--wait", "--split", "test", "--most", "9")
    said = capsys.readouterr().out
    assert "rm-1 on 9 pairs" in said
    assert "people with people" in said
    for wrong in (["nowhere", "1"], [slug, "9"], [slug, "1", "--against", "rm-9"]):
        with pytest.raises(CommandError):
            call_command("evaluate_reward_model", *wrong)


def test_api_starts_and_reads_the_newest() -> None:
    made = two()
    secret = tokens.create(user=factories.member(made.project, Role.OWNER), name="t")[1]
    client = Client(headers={"authorization": f"Bearer {secret}"})
    address = f"/api/v1/projects/{made.project.slug}/reward-models/1/evaluation"
    assert client.get(address).status_code == 404
    found = client.post(address, {"most": 20}, content_type="application/json")
    assert found.status_code == 200, found.content
    assert found.json()["kind"] == "evaluate"
    again = client.post(address, {}, content_type="application/json")
    assert again.status_code == 409
    Run.objects.filter(kind=Run.Kind.EVALUATE).update(state=RunState.CANCELED)
    run = evaluated(made.model)
    read = client.get(address).json()
    assert (read["run"], read["figures"]["accuracy"]["n"]) == (run.pk, 40)
    refused = client.post(address, {"most": 0}, content_type="application/json")
    assert refused.status_code == 422
    wrong = client.post(address, {"splits": ["no"]}, content_type="application/json")
    assert wrong.status_code == 422
    assert "no split" in wrong.json()["detail"]
    assert client.get(address.replace("/1/", "/99999999999/")).status_code == 404
