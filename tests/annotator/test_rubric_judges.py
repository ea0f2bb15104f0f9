"""Judges that a version of a rubric conditions: made, shown, run, killed and gone on with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.core.management import call_command
from django.core.management.base import CommandError
from django.template.loader import render_to_string
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from annotator.celery import app
from annotator.errors import Conflict, Invalid
from annotator.jobs.judging import battery as battery_job
from annotator.jobs.judging import judge as judge_job
from annotator.models import (
    Endpoint,
    Judge,
    JudgeAnswer,
    JudgeOutcome,
    JudgeReport,
    Judgment,
    LlmCall,
    Project,
    Role,
    RubricVersion,
    Run,
    RunState,
)
from annotator.queries.access import access_or_404
from annotator.services import battery as batteries
from annotator.services import (
    endpoints,
    judge_report,
    judges,
    judging,
    rubric_judges,
    rubrics,
    runs,
    tokens,
)
from annotator.views import rubric_use_judge
from rubrics.judging.conditioning import AGAINST
from rubrics.llm.budget import Budget
from tests import factories, serving
from tests.simulated import SimulatedServer, simulated

CITES, FLATTERS, EXAMPLE = "Cites a source", "Flatters the user", "Gives an example"
FULL = ({"text": CITES, "weight": 3.0}, {"text": FLATTERS, "polarity": -1, "weight": -1.0})
WORK = (
    "import sys, django; django.setup()\n"
    "from annotator.jobs.judging import judge\n"
    "judge(run_id=int(sys.argv[1]))\n"
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return factories.project("letters")


@pytest.fixture
def owner(project: Project) -> Client:
    return client_of(project, Role.OWNER)


def client_of(project: Project, role: Role) -> Client:
    client = Client()
    client.force_login(factories.member(project, role))
    return client


def version_of(
    project: Project, *criteria: Any, name: str = "Letters", approved: bool = True
) -> RubricVersion:
    """A version of these criteria, by text or by fields."""
    rubric = rubrics.Rubric.objects.filter(project=project, name=name).first()
    rubric = rubric or rubrics.create(project=project, name=name, by=None)
    version = rubrics.draft(rubric=rubric, by=None)
    for one in criteria or FULL:
        fields = {"text": one} if isinstance(one, str) else one
        rubrics.add(version=version, by=None, **fields)
    return rubrics.approve(version=version, by=None) if approved else version


def add(project: Project, version: RubricVersion | None, **fields: Any) -> Judge:
    kind = fields.pop("kind", "llm")
    values: dict[str, Any] = {
        "name": "careful", "kind": kind, "options": {"models": ["sim"]}, "by": None
    }  # fmt: skip
    if "endpoint" not in fields:
        found = Endpoint.objects.filter(project=project).first()
        fields["endpoint"] = found or factories.endpoint(project)
    return judges.add(project=project, rubric_version=version, **(values | fields))


def at(name: str, project: Project, *args: object) -> str:
    return reverse(name, args=[project.slug, *args])


def text_of(response: Any) -> str:
    return str(response.content.decode())


# The service ------------------------------------------------------------------------------------


def test_criteria_of_an_approved_version_are_copied_in_words(project: Project) -> None:
    version = version_of(project, *FULL, {"text": "Is kind", "weight": 0.0})
    judge = add(project, version)
    assert judge.options["criteria"] == [
        f"{CITES} (weight 75.0 %)", f"{AGAINST}{FLATTERS} (weight 25.0 %)"
    ]  # fmt: skip
    assert judge.rubric_version == version
    checking = add(project, version, kind="rubric")
    assert [(one["text"], one["weight"]) for one in checking.options["criteria"]] == [
        (CITES, 3.0), (FLATTERS, -1.0), ("Is kind", 0.0)
    ]  # fmt: skip
    judges.check_usable(judge)
    judges.check_usable(checking)


def test_same_version_and_settings_are_the_same_judge_and_another_version_is_not(
    project: Project,
) -> None:
    first = version_of(project)
    judge = add(project, first)
    assert add(project, first) == judge
    again = version_of(project)  # the same criteria, approved again
    assert again.digest == first.digest
    other = add(project, again)
    assert (other.version, other.rubric_version) == (2, again)
    assert other.digest != judge.digest
    by_hand = add(project, None, options={"models": ["sim"], "criteria": judge.options["criteria"]})
    assert (by_hand.version, by_hand.rubric_version) == (3, None)


@pytest.mark.parametrize("kind", ["llm", "rubric"])
def test_draft_is_refused(project: Project, kind: str) -> None:
    with pytest.raises(Invalid, match="is a draft") as refused:
        add(project, version_of(project, approved=False), kind=kind)
    assert "Approve it first" in refused.value.advice


def test_what_a_judge_cannot_take_over_is_refused_plainly(project: Project) -> None:
    many = version_of(project, *(f"Criterion {n}" for n in range(61)), name="Many")
    with pytest.raises(Invalid, match="has 61 criteria: one prompt takes 60"):
        add(project, many)
    assert len(add(project, many, kind="rubric").options["criteria"]) == 61
    long = version_of(project, *(f"{n} {'x' * 490}" for n in range(45)), name="Long")
    with pytest.raises(Invalid, match="longer than 20,000 characters"):
        add(project, long)
    version = version_of(project)
    with pytest.raises(Invalid, match="not both"):
        add(project, version, options={"models": ["sim"], "criteria": ["Mine"]})
    with pytest.raises(Invalid, match="does not read a rubric"):
        add(project, version, kind="program", options={}, endpoint=None)
    with pytest.raises(Invalid, match="of another project"):
        add(factories.project("else"), version)
    with pytest.raises(Invalid, match="Choose a rubric, or write criteria"):
        add(project, None, kind="rubric")
    with pytest.raises(Invalid, match="Choose an endpoint"):
        add(project, version, kind="rubric", endpoint=None)
    twice = version_of(project, "Same", "same", name="Twice")
    with pytest.raises(Invalid, match="there twice"):
        add(project, twice, kind="rubric")


def test_narrow_criteria_and_those_with_nobody_to_ask_are_left_out_and_counted(
    project: Project,
) -> None:
    version = version_of(
        project,
        CITES,
        {"text": "Only here", "scope": "prompt", "group": "7"},
        {"text": "By people", "verifier": "person"},
    )
    assert add(project, version).options["criteria"] == [CITES, "By people"]
    taken = rubric_judges.take("rubric", version)
    assert [one["text"] for one in taken.criteria] == [CITES]
    assert taken.left_out == "1 of one prompt or tag only and 1 that it has nobody to ask about"
    people = version_of(project, {"text": "By people", "verifier": "person"}, name="People")
    with pytest.raises(Invalid, match="no criterion that this judge could use"):
        add(project, people, kind="rubric")


@pytest.mark.django_db(transaction=True)
def test_judge_of_programs_alone_asks_nobody(project: Project) -> None:
    version = version_of(
        project,
        {"text": "Answers", "verifier": "program", "program": "answered"},
        {"text": "Has code", "verifier": "program", "program": "code-block"},
    )
    judge = add(project, version, kind="rubric")
    assert (judge.endpoint, judge.model, judge.options["models"]) == (None, "programs", [])
    assert judges.queue_of(judge) == "default"
    for n in range(batteries.LEAST_TRIES):
        factories.pairwise_task(project, texts=(f"So it is {n}.", f"So it is {n}.\n```\nx\n```"))
    n_pairs = batteries.LEAST_TRIES
    run = judging.start(project=project, judge=judge, by=None)
    judge_job(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.DONE, "")
    assert run.counters["calls"] == 0
    assert list(Judgment.objects.values_list("ranks", flat=True)) == [[2, 1]] * n_pairs
    assert not LlmCall.objects.exists()
    why = Judgment.objects.values_list("rationale", flat=True)[0]
    probed = batteries.start(judge=judge, tries=batteries.LEAST_TRIES, by=None)
    battery_job(run_id=probed.pk)
    probed.refresh_from_db()
    assert (probed.state, probed.error) == (RunState.DONE, "")
    assert not LlmCall.objects.exists()
    assert "“Has code”: no, yes → second answer +0.50" in why


def test_changed_words_of_the_question_make_a_checking_judge_unusable(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = add(project, version_of(project), kind="rubric")
    comparing = add(project, judge.rubric_version, name="compares")
    monkeypatch.setattr("rubrics.judging.rubric.question_text", lambda: "Another question?")
    with pytest.raises(Conflict, match="the words of the question"):
        judges.check_usable(judge)
    judges.check_usable(comparing)


# Pages, command, API ------------------------------------------------------------------------------


def test_form_takes_the_version_in_the_address_and_keeps_it_in_a_new_version(
    owner: Client, project: Project
) -> None:
    verifier = factories.judge(project, name="checks", options={"models": ["sim-careful"]})
    version = version_of(project)
    RubricVersion.objects.filter(pk=version.pk).update(verifier=verifier)
    page = text_of(owner.get(at("judge_new", project), {"rubric": version.pk}))
    assert f'<option value="{version.pk}" selected>Letters v1</option>' in page
    assert "2 criteria</b> of Letters v1 are copied" in page
    assert 'value="Letters"' in page
    assert "sim-careful</textarea>" in page
    assert 'name="option_criteria"' not in page
    sent = {"kind": "llm", "shown": "llm", "name": "Letters", "rubric": version.pk,
            "endpoint": verifier.endpoint_id, "option_models": "sim", "option_reasoning": "on"}  # fmt: skip
    made = owner.post(at("judge_new", project), sent)
    judge = Judge.objects.get(project=project, name="Letters")
    assert made.url == at("judge", project, judge.pk)
    assert judge.rubric_version == version
    shown = text_of(owner.get(at("judge", project, judge.pk)))
    link = at("rubric_version", project, version.rubric_id, version.number)
    assert f'conditioned on <a href="{link}">Letters v1</a>' in shown
    assert "speaks against" in shown
    assert f'2 criteria of <a href="{link}">Letters v1</a>' in text_of(
        owner.get(at("judges", project))
    )
    like = text_of(owner.get(at("judge_new", project), {"like": judge.pk}))
    assert f'<option value="{version.pk}" selected>' in like
    assert 'name="option_criteria"' not in like


def test_form_of_a_draft_says_why_and_offers_what_is_approved(
    owner: Client, project: Project
) -> None:
    factories.endpoint(project)
    draft = version_of(project, approved=False)
    other = version_of(project, name="Other")
    page = text_of(owner.get(at("judge_new", project), {"rubric": draft.pk, "kind": "rubric"}))
    assert "Letters v1 is a draft. Approve it first" in page
    assert f'<option value="{draft.pk}"' not in page
    assert f'<option value="{other.pk}"' in page
    elsewhere = version_of(factories.project("else"), name="Foreign")
    page = text_of(owner.get(at("judge_new", project), {"rubric": elsewhere.pk}))
    assert "Foreign" not in page
    for hostile in ("x", "9" * 30, "²", "-1"):
        assert owner.get(at("judge_new", project), {"rubric": hostile}).status_code == 200
    sent = {"kind": "llm", "shown": "llm", "name": "n", "rubric": elsewhere.pk,
            "endpoint": Endpoint.objects.get(project=project).pk, "option_models": "sim"}  # fmt: skip
    refused = owner.post(at("judge_new", project), sent)
    assert refused.status_code == 422
    assert not Judge.objects.filter(name="n").exists()


@pytest.mark.parametrize("method", ["arr", ""])
def test_report_says_that_it_is_of_pairs_its_rubric_was_induced_from(
    method: str, owner: Client, project: Project
) -> None:
    version = version_of(project)
    RubricVersion.objects.filter(pk=version.pk).update(method=method)
    judge = add(project, version)
    JudgeReport.objects.create(judge=judge, figures=judge_report.compute(judge))
    shown = text_of(owner.get(at("judge", project, judge.pk)))
    assert ("On them these figures flatter it" in shown) == bool(method)


def test_choosing_another_rubric_keeps_what_was_typed(owner: Client, project: Project) -> None:
    factories.endpoint(project)
    version = version_of(project)
    sent = {"kind": "llm", "shown": "llm", "name": "Mine", "rubric": version.pk,
            "option_models": "typed-model", "option_repeats": "3"}  # fmt: skip
    part = text_of(owner.get(at("judge_new", project), sent, headers={"HX-Request": "true"}))
    assert "typed-model" in part
    assert 'name="option_repeats" value="3"' in part
    assert 'name="option_reasoning"' in part
    assert 'checked aria-describedby="id_option_reasoning' not in part
    assert "2 criteria</b> of Letters v1 are copied" in part


def test_kind_rubric_takes_lines_written_by_hand(owner: Client, project: Project) -> None:
    endpoint = factories.endpoint(project)
    sent = {"kind": "rubric", "shown": "rubric", "name": "hand", "endpoint": endpoint.pk,
            "option_models": "sim", "option_criteria": f"{CITES}\n-0.5 {FLATTERS} \n"}  # fmt: skip
    owner.post(at("judge_new", project), sent)
    judge = Judge.objects.get(name="hand")
    assert [(one["text"], one["weight"]) for one in judge.options["criteria"]] == [
        (CITES, 1.0), (FLATTERS, -0.5)
    ]  # fmt: skip
    like = text_of(owner.get(at("judge_new", project), {"like": judge.pk}))
    assert f"+1 {CITES}\n-0.5 {FLATTERS}</textarea>" in like
    assert CITES in text_of(owner.get(at("judge", project, judge.pk)))
    bad = owner.post(at("judge_new", project), sent | {"option_criteria": "+0 Nothing"})
    assert bad.status_code == 422
    assert "every criterion weighs 0" in text_of(bad)


def test_section_of_use_makes_a_judge_and_lists_it(owner: Client, project: Project) -> None:
    version = version_of(project)
    here = at("rubric_use_judge", project, version.rubric_id, version.number)
    empty = section(project, version)
    assert "There is no endpoint to ask" in empty
    endpoint = factories.endpoint(project)
    sent = {"name": "Reader", "kind": "rubric", "endpoint": endpoint.pk, "model": "sim"}
    made = owner.post(here, sent)
    judge = Judge.objects.get(name="Reader")
    assert (judge.kind, judge.rubric_version) == ("rubric", version)
    assert made.url == at("judge", project, judge.pk)
    filled = section(project, version)
    assert at("judge", project, judge.pk) in filled
    assert "not measured yet" in filled
    missing = owner.post(here, sent | {"name": "", "model": ""}, follow=False)
    assert missing.url.endswith("#judge")
    told = [str(one) for one in messages_of(missing)][-2:]
    assert told == ["Name: This field is required.", "Model: Name the model to ask."]
    assert Judge.objects.filter(rubric_version=version).count() == 1


def messages_of(response: Any) -> list[Any]:
    return list(get_messages(response.wsgi_request))


def section(project: Project, version: RubricVersion, role: Role = Role.OWNER) -> str:
    """The part of the page of use, as its frame includes it."""
    request = RequestFactory().get("/")
    request.user = factories.member(project, role)
    access = access_or_404(request.user, project.slug, at_least=role)
    context = {"access": access, "version": version, **rubric_use_judge.context(access, version)}
    return render_to_string("rubrics/use_judge.html", context, request)


def test_only_owners_make_judges_and_drafts_make_none(project: Project) -> None:
    version = version_of(project)
    here = at("rubric_use_judge", project, version.rubric_id, version.number)
    factories.endpoint(project)
    assert client_of(project, Role.REVIEWER).post(here, {"name": "x"}).status_code == 403
    assert "<form" not in section(project, version, Role.REVIEWER)
    draft = version_of(project, name="New", approved=False)
    assert "Approve it first" in section(project, draft)
    there = at("rubric_use_judge", project, draft.rubric_id, draft.number)
    sent = {"name": "x", "kind": "llm", "endpoint": Endpoint.objects.get().pk, "model": "sim"}
    refused = client_of(project, Role.OWNER).post(there, sent)
    assert "is a draft" in str(messages_of(refused)[0])
    assert not Judge.objects.exists()


def test_command_takes_a_rubric_by_name_and_number(project: Project) -> None:
    factories.endpoint(project, name="hosted")
    version = version_of(project)
    newest = version_of(project, EXAMPLE)

    def run(rubric: str, **options: Any) -> dict[str, Any]:
        out = StringIO()
        call_command(
            "add_judge", project.slug, name="careful", kind="llm", endpoint="hosted",
            option=["models=sim"], rubric=rubric, json=True, stdout=out, **options,
        )  # fmt: skip
        return dict(json.loads(out.getvalue()))

    assert run("Letters:v1")["rubric"] == str(version)
    assert run("Letters")["rubric"] == str(newest)
    assert run("Letters")["version"] == 2
    with pytest.raises(CommandError, match=r"There is no rubric 'Words'\. Known: Letters"):
        run("Words")
    with pytest.raises(CommandError, match="There is no rubric 'Letters:v9'"):
        run("Letters:v9")
    version_of(project, name="Open", approved=False)
    with pytest.raises(CommandError, match="Approve it first"):
        run("Open")
    with pytest.raises(CommandError, match="Approve it first"):
        run("Open:v1")


def test_api_names_the_version(project: Project) -> None:
    add(project, version_of(project))
    user = factories.member(project, Role.REVIEWER)
    _, secret = tokens.create(user=user, name="test")
    headers = {"Authorization": f"Bearer {secret}"}
    found = Client().get(f"/api/v1/projects/{project.slug}/judges", headers=headers).json()
    assert [one["rubric"] for one in found] == ["Letters v1"]


# Runs -------------------------------------------------------------------------------------------


def served(
    server: SimulatedServer, project: Project, settings: Any, *, kind: str, **fields: Any
) -> Judge:
    settings.LLM_HOSTS = [server.host]
    endpoint = endpoints.add(
        project=project, name="sim", base_url=server.url, by=None, concurrency=4,
        has_logprobs=True,
    )  # fmt: skip
    return add(project, version_of(project), kind=kind, endpoint=endpoint, **fields)


def pairs(project: Project, n: int) -> None:
    """The first answer cites, the second flatters."""
    for at_ in range(n):
        cites = f"Of case {at_}: it stands at https://example.org/a to read."
        factories.pairwise_task(project, texts=(cites, f"What a wonderful question, case {at_}."))


@pytest.mark.django_db(transaction=True)
def test_budget_stops_it_and_going_on_pays_for_the_rest_only(
    project: Project, settings: Any
) -> None:
    pairs(project, 6)
    with simulated(slip=0) as server:
        judge = served(server, project, settings, kind="rubric")
        budget = Budget(calls=10)
        first = judging.start(project=project, judge=judge, by=None, budget=budget)
        judge_job(run_id=first.pk)
        first.refresh_from_db()
        assert first.result["stopped"] == "budget"
        assert LlmCall.objects.count() == 10
        assert 0 < JudgeOutcome.objects.count() <= 2
        judge_job(run_id=judging.start(project=project, judge=judge, by=None).pk)
        stats = server.stats()
    assert LlmCall.objects.count() == 6 * 2 * 2
    assert stats["charged_per_key_max"] == 1
    assert list(Judgment.objects.values_list("ranks", flat=True)) == [[1, 2]] * 6
    rows = JudgeAnswer.objects.filter(call_key__isnull=False)
    assert rows.count() == 6 * 2 * 2, "every verdict has its call"


@pytest.mark.django_db(transaction=True)
def test_failed_and_unreadable_calls_are_retried_without_paying_for_the_others(
    project: Project, settings: Any
) -> None:
    pairs(project, 6)
    with simulated(slip=0, malformed=1.0) as server:
        judge = served(server, project, settings, kind="rubric")
        run = judging.start(project=project, judge=judge, by=None)
        judge_job(run_id=run.pk)
        failed = JudgeOutcome.objects.filter(error="unreadable").values_list("task_id", flat=True)
        answers = JudgeAnswer.objects.filter(task__in=failed)
        silent = answers.filter(error="unreadable").count()
        assert silent > 0
        server.turn(malformed=0.0)
        run.refresh_from_db()
        again = judging.retry_failed(run=run, by=None)
        judge_job(run_id=again.pk)
    assert JudgeOutcome.objects.filter(error="").count() == 6
    again.refresh_from_db()
    assert again.counters["calls"] == silent, "what said nothing is asked afresh, the rest is paid"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_killed_worker_is_resumed_at_no_cost(project: Project, settings: Any) -> None:
    pairs(project, 12)
    with simulated(slip=0, latency_ms=60) as server:
        judge = served(server, project, settings, kind="rubric")
        run = judging.start(project=project, judge=judge, by=None)
        env = serving.child_env(
            DJANGO_SETTINGS_MODULE="annotator.settings",
            LLM_HOSTS=server.host,
            QUEUE_PREFIX=app.conf.broker_transport_options["global_keyprefix"],
            OMP_NUM_THREADS="1",
        )
        worker = subprocess.Popen(
            [sys.executable, "-c", WORK, str(run.pk)], cwd=serving.ROOT, env=env
        )
        try:
            deadline = time.monotonic() + 120
            while LlmCall.objects.count() < 12:
                assert worker.poll() is None, "it ended by itself"
                assert time.monotonic() < deadline, "it does not get on"
                time.sleep(0.02)
        finally:
            worker.kill()
            worker.wait()
        before = LlmCall.objects.count()
        assert before < 12 * 4
        Run.objects.filter(pk=run.pk).update(heartbeat_at=timezone.now() - timedelta(hours=1))
        assert runs.reap() == [run]
        server.turn(latency_ms=0)
        Endpoint.objects.update(concurrency=8)
        judge_job(run_id=run.pk)
        run.refresh_from_db()
        stats = server.stats()
    assert (run.state, run.error, run.attempt) == (RunState.DONE, "", 2)
    assert stats["charged_per_key_max"] == 1
    assert LlmCall.objects.count() == run.counters["calls"] == 12 * 4
    assert Judgment.objects.count() == 12


@pytest.mark.django_db(transaction=True)
def test_conditioned_judge_that_compares_is_told_what_speaks_against(
    project: Project, settings: Any
) -> None:
    pairs(project, 2)
    with simulated(noise=0) as server:
        judge = served(server, project, settings, kind="llm")
        judge_job(run_id=judging.start(project=project, judge=judge, by=None).pk)
    sent = json.dumps(LlmCall.objects.first().request)
    assert f"- {CITES} (weight 75.0 %)" in sent
    assert f"- {AGAINST}{FLATTERS} (weight 25.0 %)" in sent
    assert list(Judgment.objects.values_list("ranks", flat=True)) == [[1, 2]] * 2
