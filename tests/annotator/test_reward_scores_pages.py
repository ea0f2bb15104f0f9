"""A rubric as a reward on its pages, in the API and by command."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from annotator.formats import percent
from annotator.models import CriterionVerdict, Response, RewardScore, Role, Run, RunState
from annotator.queries import reward_scores as queries
from annotator.services import reward_scores, rubrics, tokens, training
from tests import factories
from tests.annotator.rewarding import (
    CITES,
    LISTED,
    PROGRAM,
    approved,
    give_scores,
    make_model,
    scored,
    world,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker takes what a page queues."""
    monkeypatch.setattr("annotator.jobs.base.send", lambda run: True)


def address(version: Any, name: str = "rubric_use_scores") -> str:
    slug = version.rubric.project.slug
    return reverse(name, args=[slug, version.rubric_id, version.number])


def client_of(project: Any, role: Role) -> Client:
    client = Client()
    client.force_login(factories.member(project, role))
    return client


def test_page_says_the_cost_in_calls_before_anything_is_asked() -> None:
    project = world()
    owner = client_of(project, Role.OWNER)
    asking = approved(project, CITES, {"text": "Is kind", "verifier": "llm"})
    page = owner.get(address(asking)).content.decode()
    assert "All 12 answers × 2 criteria that a language model checks: 24 calls" in page
    free = owner.get(address(approved(project))).content.decode()
    assert "it costs no calls" in free


def test_page_counts_no_more_verdicts_than_it_has_to(monkeypatch) -> None:
    """A version that scored a million answers has tens of millions of verdicts."""
    project = world()
    asking = approved(project, CITES)
    criterion = asking.criteria.get(verifier="llm")
    responses = Response.objects.filter(project=project)[:3]
    CriterionVerdict.objects.bulk_create(
        CriterionVerdict(criterion=criterion, response=one, value=1, call_key=b"k" * 32)
        for one in responses
    )
    owner = client_of(project, Role.OWNER)
    assert ", 3 of them answered already; 9 to pay" in owner.get(address(asking)).content.decode()
    monkeypatch.setattr(queries, "MOST_COUNTED", 2)
    page = owner.get(address(asking)).content.decode()
    assert ", 2 or more of them answered already; 10 to pay for at most" in page


def test_owner_starts_a_run_with_what_the_form_says() -> None:
    project = world()
    version = approved(project)
    owner = client_of(project, Role.OWNER)
    form = {
        "form": "share",
        "not_applicable": "half",
        "only": "compared",
        "split": "test",
        "sample": "5",
    }
    answer = owner.post(address(version), form)
    run = Run.objects.get(kind=Run.Kind.SCORE)
    assert answer["Location"] == reverse("run", args=[project.slug, run.pk])
    assert run.config["basis"]["form"] == "share"
    assert run.config["basis"]["not_applicable"] == "half"
    assert (run.config["only"], run.config["splits"], run.config["sample"]) == (
        "compared",
        ["test"],
        5,
    )
    again = owner.post(address(version), form, follow=True).content.decode()
    assert "A run scores by it already." in again
    assert Run.objects.filter(kind=Run.Kind.SCORE).count() == 1


def test_nonsense_in_the_form_and_a_reviewer_start_nothing() -> None:
    project = world(1)
    version = approved(project)
    owner = client_of(project, Role.OWNER)
    assert "At most" in owner.post(address(version), {"sample": "-1"}, follow=True).content.decode()
    reviewer = client_of(project, Role.REVIEWER)
    told = reviewer.post(address(version), {}, follow=True).content.decode()
    assert "Only an owner" in told
    assert not Run.objects.filter(kind=Run.Kind.SCORE).exists()


def test_scored_version_shows_its_rewards_and_stands_beside_a_model() -> None:
    project = world(pairs=8, test=6)
    version = approved(project, PROGRAM | {"weight": 2.0})
    scored(version)
    reviewer = client_of(project, Role.REVIEWER)
    page = reviewer.get(address(version)).content.decode()
    assert "16 of 16 answers scored" in page
    assert "Rewards of 16 answers from 0 to 2" in page
    assert "No reward model has scored answers yet." in page
    model = make_model(project)
    texts = dict(Response.objects.filter(project=project).values_list("pk", "text"))
    give_scores(model, {pk: -1.0 if text.startswith(LISTED) else 1.0 for pk, text in texts.items()})
    page = reviewer.get(address(version), {"model": "1", "weight": "0.5"}).content.decode()
    assert "Right on 6 held-out pairs" in page
    assert f"rm-1 {percent(0)}, rubric {percent(1)}, both {percent(0)}." in page
    assert "reward = rm-1 + 0.5 * (rubric - 1) / 1" in page
    part = reviewer.get(
        address(version), {"model": "1", "weight": "3"}, headers={"HX-Request": "true"}
    ).content.decode()
    assert f"both {percent(1)}" in part
    assert "<html" not in part
    for weight in ("nan", "1e999", "x", ""):
        assert reviewer.get(address(version), {"model": "\0", "weight": weight}).status_code == 200


def test_draft_has_no_form_and_another_project_s_version_is_not_there() -> None:
    project = world(1)
    version = approved(project)
    draft = rubrics.draft(rubric=version.rubric, by=None, like=version)
    owner = client_of(project, Role.OWNER)
    assert "It is a draft" in owner.get(address(draft)).content.decode()
    other = client_of(factories.project(), Role.OWNER)
    assert other.get(address(version)).status_code == 404
    assert client_of(project, Role.ANNOTATOR).get(address(version)).status_code == 403


def test_export_form_offers_what_has_scores_and_nothing_else() -> None:
    project = world()
    owner = client_of(project, Role.OWNER)
    page = reverse("export", args=[project.slug])
    assert 'name="rubric"' not in owner.get(page).content.decode()
    version = approved(project)
    scored(version)
    shown = owner.get(page).content.decode()
    assert f'value="{version.rubric.name}:v1"' in shown
    assert 'name="reward_model"' not in shown
    sent = {"format": "trl-preference", "rubric": f"{version.rubric.name}:v1",
            "rubric_criteria": "on"}  # fmt: skip
    owner.post(page, sent)
    run = Run.objects.get(kind=Run.Kind.EXPORT)
    assert run.config["options"]["rubric"] == f"{version.rubric.name}:v1"
    assert run.config["options"]["rubric_criteria"] is True
    answer = owner.post(page, sent | {"rubric": "Another:v1"})
    assert answer.status_code == 422


def api(project: Any, role: Role = Role.REVIEWER) -> dict[str, str]:
    person = factories.member(project, role)
    _, secret = tokens.create(user=person, name="t")
    return {"Authorization": f"Bearer {secret}"}


def test_api_lists_rewards_page_by_page() -> None:
    project = world()
    version = approved(project, PROGRAM | {"weight": 2.0})
    scored(version)
    url = f"/api/v1/projects/{project.slug}/rubrics/{version.rubric_id}/v1/scores"
    headers, found, after = api(project), [], None
    while True:
        query = {"limit": 5} | ({"after": after} if after else {})
        answer = Client().get(url, query, headers=headers).json()
        found += answer["scores"]
        after = answer["next"]
        if after is None:
            break
    own = RewardScore.objects.filter(rubric_version=version).order_by("response_id")
    assert [(one["response"], one["reward"]) for one in found] == list(
        own.values_list("response_id", "mean")
    )
    assert answer["form"] == "weighted"
    assert answer["summary"]["n"] == 12
    binary = Client().get(url, {"limit": 100, "form": "binary"}, headers=headers).json()["scores"]
    assert sorted({one["reward"] for one in binary}) == [-0.1, 1.0]
    assert Client().get(url).status_code == 401
    assert Client().get(url, headers=api(project, Role.ANNOTATOR)).status_code == 403
    assert Client().get(url, {"limit": 0}, headers=headers).status_code == 422


def test_command_scores_and_prints_what_it_came_to() -> None:
    project = world()
    version = approved(project)
    out = StringIO()
    call_command(
        "score_rubric", project.slug, version.rubric.name, wait=True, json=True, stdout=out,
        stderr=StringIO(),
    )  # fmt: skip
    told = json.loads(out.getvalue().splitlines()[-1])
    assert (told["rubric"], told["form"], told["scored"]) == (str(version), "share", 12)
    assert Run.objects.get(pk=told["run"]).state == RunState.DONE
    out = StringIO()
    call_command(
        "score_rubric", project.slug, f"{version.rubric.name}:v1", form="weighted", wait=True,
        stdout=out, stderr=StringIO(),
    )  # fmt: skip
    assert "12 of 12 answers scored" in out.getvalue()
    with pytest.raises(CommandError, match="no rubric version"):
        call_command("score_rubric", project.slug, "Nothing:v3")


def test_model_s_page_scores_every_response_once_at_a_time() -> None:
    project = world(2)
    model = make_model(project)
    folder = training.artifact_folder(model)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    owner = client_of(project, Role.OWNER)
    page = reverse("reward_model", args=[project.slug, 1])
    assert "Score all responses" in owner.get(page).content.decode()
    start = reverse("reward_model_score", args=[project.slug, 1])
    assert owner.post(start).status_code == 302
    run = Run.objects.get(kind=Run.Kind.SCORE)
    assert (run.config["reward_model"], run.config["queue"]) == (model.pk, "gpu")
    shown = owner.get(page).content.decode()
    assert "is scoring the project" in shown
    assert "Score all responses" not in shown
    assert "A run scores by it already." in owner.post(start, follow=True).content.decode()
    assert owner.get(start).status_code == 405


def test_run_s_page_says_what_came_of_it_and_how_to_do_it_again() -> None:
    project = world()
    version = approved(project, PROGRAM, {"text": "Is true", "verifier": "person"})
    run = scored(version, form="share")
    reviewer = client_of(project, Role.REVIEWER)
    page = reviewer.get(reverse("run", args=[project.slug, run.pk])).content.decode()
    assert "0 of 12 answers scored" in page or "No answer has a score." in page
    assert "score_rubric" in page
    scored(approved(project))
    last = Run.objects.order_by("-pk").first()
    page = reviewer.get(reverse("run", args=[project.slug, last.pk])).content.decode()
    assert "12 of 12 answers" in page
    listing = reviewer.get(reverse("runs", args=[project.slug])).content.decode()
    assert "12 of 12 answers scored" in listing
    queued = reward_scores.start(version=version, by=None)
    assert reviewer.get(reverse("run", args=[project.slug, queued.pk])).status_code == 200


def test_api_s_binary_pages_hold_whole_prompts() -> None:
    project = world()
    version = approved(project, PROGRAM | {"weight": 2.0})
    scored(version)
    url = f"/api/v1/projects/{project.slug}/rubrics/{version.rubric_id}/v1/scores"
    headers, found, after = api(project), [], 0
    while after is not None:
        query = {"limit": 3, "form": "binary", "lose": -0.5, "after": after}
        answer = Client().get(url, query, headers=headers).json()
        assert len(answer["scores"]) % 2 == 0
        found += answer["scores"]
        after = answer["next"]
    assert sorted(one["reward"] for one in found) == [-0.5] * 6 + [1.0] * 6
    assert len({one["response"] for one in found}) == 12


def test_api_starts_a_run_for_owners_only() -> None:
    project = world(2)
    version = approved(project)
    url = f"/api/v1/projects/{project.slug}/rubrics/{version.rubric_id}/v1/scores"
    how = {"form": "share", "sample": 2, "calls": 9}
    refused = Client().post(url, how, "application/json", headers=api(project))
    assert refused.status_code == 403
    owner = api(project, Role.OWNER)
    assert Client().post(url, how, "application/json", headers=owner).status_code == 200
    run = Run.objects.get(kind=Run.Kind.SCORE)
    assert (run.config["sample"], run.config["budget"]["calls"]) == (2, 9)
    assert Client().post(url, {}, "application/json", headers=owner).status_code == 409
    unknown = Client().post(url, {"judge": 2**40}, "application/json", headers=owner)
    assert unknown.status_code == 404
    missing = url.replace("/v1/scores", "/v7/scores")
    assert Client().get(missing, headers=owner).status_code == 404
