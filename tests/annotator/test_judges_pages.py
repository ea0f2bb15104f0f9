"""Pages of judges and endpoints: what they ask for, what they show, what they refuse."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from annotator.models import AuditEvent, Endpoint, Judge, LlmCall, Project, Role, Run
from annotator.services import secrets
from annotator.views import judge_trust
from rubrics.judging import JUDGES
from rubrics.programs import PROGRAMS
from tests import factories

pytestmark = pytest.mark.django_db

KEY = "sk-planted-7f3a9c51"
ENDPOINT = {
    "name": "hosted",
    "base_url": "http://127.0.0.1:8790/v1",
    "key": KEY,
    "concurrency": "8",
    "per_minute": "0",
    "timeout_seconds": "30",
    "has_schema": "on",
    "prices": "sim-fair 0.5 1.5\n* 1 2",
}


@pytest.fixture(autouse=True)
def allowed(settings) -> None:
    settings.LLM_HOSTS = ["127.0.0.1:8790"]


@pytest.fixture
def project() -> Project:
    return factories.project()


@pytest.fixture
def owner(project: Project) -> Client:
    client = Client()
    client.force_login(factories.member(project, Role.OWNER))
    return client


def at(name: str, project: Project, *args: object) -> str:
    return reverse(name, args=[project.slug, *args])


def text_of(response) -> str:
    return response.content.decode()


def test_endpoint_is_added_and_its_key_is_sealed(owner: Client, project: Project) -> None:
    response = owner.post(at("endpoint_new", project), ENDPOINT, follow=True)
    assert response.status_code == 200
    assert KEY not in text_of(response)
    endpoint = Endpoint.objects.get(project=project)
    assert endpoint.prices == {"sim-fair": [0.5, 1.5], "*": [1.0, 2.0]}
    assert KEY.encode() not in bytes(endpoint.secret)
    assert secrets.unseal(endpoint.secret) == KEY
    assert KEY not in repr(list(AuditEvent.objects.values_list("data", flat=True)))


def test_endpoint_at_the_simulated_judge_is_marked_and_so_are_its_judges(
    owner: Client, project: Project, settings
) -> None:
    settings.SIMULATED_JUDGE = "127.0.0.1:8790"
    settings.LLM_HOSTS = ["127.0.0.1:8790", "127.0.0.1:9"]
    owner.post(at("endpoint_new", project), ENDPOINT | {"base_url": "http://127.0.0.1:9/v1"})
    endpoint = Endpoint.objects.get(project=project)
    assert not endpoint.is_simulated
    owner.post(at("endpoint", project, endpoint.pk), ENDPOINT)
    endpoint.refresh_from_db()
    assert endpoint.is_simulated
    sent = {"kind": "llm", "shown": "llm", "name": "fair", "endpoint": endpoint.pk,
            "option_models": "sim-fair", "option_mode": "listwise"}  # fmt: skip
    owner.post(at("judge_new", project), sent)
    judge = Judge.objects.get(project=project)
    assert judge.is_simulated
    assert judge.rater.is_simulated
    assert "Language model, sim-fair, listwise, both orders" in text_of(
        owner.get(at("judges", project))
    )


def test_stored_key_is_kept_by_an_empty_field_and_removed_on_request(
    owner: Client, project: Project
) -> None:
    owner.post(at("endpoint_new", project), ENDPOINT)
    endpoint = Endpoint.objects.get(project=project)
    page = text_of(owner.get(at("endpoint", project, endpoint.pk)))
    assert KEY not in page
    changed = ENDPOINT | {"key": "", "concurrency": "3"}
    owner.post(at("endpoint", project, endpoint.pk), changed)
    endpoint.refresh_from_db()
    assert endpoint.concurrency == 3
    assert secrets.unseal(endpoint.secret) == KEY
    owner.post(at("endpoint", project, endpoint.pk), changed | {"remove_key": "on"})
    endpoint.refresh_from_db()
    assert endpoint.secret is None


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("base_url", "http://169.254.169.254/latest", "may not call"),
        ("base_url", "http://127.0.0.1:6379", "may not call"),
        ("base_url", "file:///etc/passwd", "Enter a valid URL"),
        ("prices", "model one two", "is not a name and two prices"),
        ("prices", "model nan 1", "model"),
        ("concurrency", "0", "greater than or equal to 1"),
    ],
    ids=["metadata", "redis", "file", "words", "nan", "none-at-once"],
)
def test_endpoint_is_refused_with_the_reason(
    owner: Client, project: Project, field: str, value: str, says: str
) -> None:
    response = owner.post(at("endpoint_new", project), ENDPOINT | {field: value})
    assert response.status_code == 422
    assert says in text_of(response)
    assert KEY not in text_of(response)
    assert not Endpoint.objects.exists()


def test_endpoint_that_does_not_answer_says_so(owner: Client, project: Project, settings) -> None:
    settings.LLM_HOSTS = ["127.0.0.1:9"]
    endpoint = factories.endpoint(project, base_url="http://127.0.0.1:9/v1")
    page = text_of(owner.post(at("endpoint_check", project, endpoint.pk), follow=True))
    assert f"{endpoint.name}: " in page
    assert "Does a server run at http://127.0.0.1:9/v1?" in page


@pytest.mark.parametrize("kind", JUDGES)
def test_form_asks_for_the_options_of_every_kind(
    owner: Client, project: Project, kind: str
) -> None:
    factories.endpoint(project)
    page = text_of(owner.get(at("judge_new", project), {"kind": kind}))
    for name in JUDGES[kind].load_options().model_fields:
        assert f'name="option_{name}"' in page, name
    part = text_of(
        owner.get(at("judge_new", project), {"kind": kind}, headers={"HX-Request": "true"})
    )
    assert "<html" not in part
    assert f'name="shown" value="{kind}"' in part


def test_form_of_a_program_lists_what_it_can_be_made_of(owner: Client, project: Project) -> None:
    page = text_of(owner.get(at("judge_new", project), {"kind": "program"}))
    assert all(f"<code>{key}</code>" in page for key in PROGRAMS)
    assert "<code>refusal</code>" not in text_of(owner.get(at("judge_new", project)))


def test_judge_is_added_from_the_page_and_versioned(owner: Client, project: Project) -> None:
    endpoint = factories.endpoint(project)
    sent = {
        "kind": "llm",
        "shown": "llm",
        "name": "fair",
        "endpoint": endpoint.pk,
        "option_models": "sim-fair",
        "option_mode": "pairwise",
        "option_criteria": "It answers the question.\nIt is correct.",
        "option_reasoning": "on",
        "option_orders": "both",
    }
    response = owner.post(at("judge_new", project), sent, follow=True)
    judge = Judge.objects.get(project=project)
    assert str(judge) == "fair v1"
    assert judge.options["criteria"] == ["It answers the question.", "It is correct."]
    assert "fair v1" in text_of(response)
    assert "<dt>Reason first</dt>" in text_of(response)  # settings are called as in the form
    owner.post(at("judge_new", project), sent)
    assert Judge.objects.count() == 1  # nothing differs: the same version
    owner.post(at("judge_new", project), sent | {"option_orders": "one"})
    assert sorted(map(str, Judge.objects.all())) == ["fair v1", "fair v2"]
    like = text_of(owner.get(at("judge_new", project), {"like": judge.pk}))
    assert "It answers the question.\nIt is correct." in like
    assert 'value="fair"' in like


def test_judge_without_a_model_is_refused(owner: Client, project: Project) -> None:
    endpoint = factories.endpoint(project)
    sent = {"kind": "llm", "shown": "llm", "name": "x", "endpoint": endpoint.pk}
    response = owner.post(at("judge_new", project), sent)
    assert response.status_code == 422
    assert "Name at least one model" in text_of(response)


def test_endpoint_of_another_project_cannot_be_chosen(owner: Client, project: Project) -> None:
    factories.endpoint(project)
    other = factories.endpoint(factories.project())
    sent = {"kind": "llm", "shown": "llm", "name": "x", "endpoint": other.pk,
            "option_models": "m"}  # fmt: skip
    response = owner.post(at("judge_new", project), sent)
    assert response.status_code == 422
    assert not Judge.objects.exists()


def test_run_is_started_with_its_budget(owner: Client, project: Project) -> None:
    judge = _program(owner, project)
    factories.pairwise_task(project)
    sent = {"tasks": "all", "limit": "5", "calls": "10", "tokens": "", "money": "0.5"}
    response = owner.post(at("judge_run", project, judge.pk), sent)
    run = Run.objects.get(kind=Run.Kind.JUDGE)
    assert response.url == at("run", project, run.pk)
    assert run.config["judge"] == judge.pk
    assert run.config["limit"] == 5
    assert run.config["budget"]["calls"] == 10
    assert run.config["budget"]["tokens"] is None
    assert run.config["budget"]["money"] == 0.5
    page = text_of(owner.post(at("judge_run", project, judge.pk), sent | {"limit": "-1"}))
    assert "greater than or equal to 1" in page


def _program(owner: Client, project: Project) -> Judge:
    owner.post(at("judge_new", project), {"kind": "program", "shown": "program", "name": "checks"})
    return Judge.objects.get(project=project, name="checks")


def test_list_shows_judges_at_a_fixed_cost(
    owner: Client, project: Project, django_assert_num_queries
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    def cost() -> int:
        with CaptureQueriesContext(connection) as found:
            assert owner.get(at("judges", project)).status_code == 200
        return len(found)

    for _ in range(2):
        factories.judge(project)
    cost()
    few = cost()
    for _ in range(5):
        factories.judge(project)
    assert cost() == few


def test_unmeasured_judge_has_a_page(owner: Client, project: Project) -> None:
    judge = factories.judge(project)
    page = text_of(owner.get(at("judge", project, judge.pk)))
    assert "Nothing measured yet" in page
    assert "not tried yet" in page
    assert "no call yet" in page
    assert "Measure again" not in page
    part = text_of(owner.get(at("judge_accept", project, judge.pk)))
    assert "has not been through the attack battery" in part
    assert re.search(r"<button[^>]*value=\"on\"[^>]*disabled", part)


def test_acceptance_that_was_not_earned_is_refused(owner: Client, project: Project) -> None:
    judge = factories.judge(project)
    address = at("judge_accept_change", project, judge.pk)
    page = text_of(owner.post(address, {"action": "on", "limit": "5", "audit": "5"}, follow=True))
    assert "has not been through the attack battery" in page
    bad = owner.post(address, {"action": "on", "limit": "80", "audit": "5"})
    assert bad.status_code == 422
    assert owner.post(address, {"action": "fly"}).status_code == 404


def test_calls_are_listed_and_opened(owner: Client, project: Project) -> None:
    endpoint = factories.endpoint(project)
    request = {
        "model": "m",
        "temperature": 0,
        "max_tokens": 5,
        "schema": None,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "<script>alert(1)</script>"}]}
        ],
    }
    call = LlmCall.objects.create(
        project=project, key=bytes(32), endpoint=endpoint, model="m", request=request,
        reply="</pre><img src=x>", tokens_in=12, tokens_out=3, cost=0.25,
    )  # fmt: skip
    page = text_of(owner.get(at("calls", project)))
    assert at("call", project, call.pk) in page
    page = text_of(owner.get(at("call", project, call.pk)))
    assert "<script>alert" not in page
    assert "<img src=x>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_archived_judge_leaves_the_list_and_comes_back(owner: Client, project: Project) -> None:
    judge = factories.judge(project, name="retired")
    owner.post(at("judge_archive", project, judge.pk))
    assert "retired v1" not in text_of(owner.get(at("judges", project)))
    assert "retired v1" in text_of(owner.get(at("judges", project), {"show": "archived"}))
    owner.post(at("judge_archive", project, judge.pk))
    assert "retired v1" in text_of(owner.get(at("judges", project)))


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"checked": 0, "ties": 0, "no_confidence": 0}, "Nobody has judged the pairs"),
        ({"checked": 40, "ties": 3, "no_confidence": 37}, "on 37 it says which answer is better"),
        ({"checked": 1, "ties": 1, "no_confidence": 0}, "Of 1 pair that people have judged too"),
    ],
    ids=["none", "no confidence", "ties"],
)
def test_no_curve_says_why_by_what_was_measured(figures: dict[str, int], said: str) -> None:
    assert said in judge_trust.no_curve(figures)
