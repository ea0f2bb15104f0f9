"""Try it: what a version says of a pair, on the page and through the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from annotator.celery import app
from annotator.errors import Conflict, Invalid, NotFound
from annotator.jobs.rubric_tries import try_rubric
from annotator.models import (
    Criterion,
    CriterionVerdict,
    Judge,
    LlmCall,
    Project,
    Response,
    RewardModel,
    RewardScore,
    Role,
    Rubric,
    RubricVersion,
    Run,
    RunState,
    Task,
    User,
)
from annotator.queries import runs as run_queries
from annotator.queries.access import Access
from annotator.services import images, rubric_tries, tokens
from tests import factories
from tests.annotator.pictures import picture
from tests.simulated import SimulatedServer, simulated

pytestmark = pytest.mark.django_db

PROMPT = "List three fruits in at most 5 words."
SHORT, LONG = "Apple, pear and plum.", "I am sorry, but here they are: apples, pears and plums."
HOSTILE = (
    "<script>alert(1)</script> [x](javascript:alert(2)) ![y](https://evil.example/z.png) $\\x$"
)


@pytest.fixture
def project() -> Project:
    return factories.project("fruit")


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Alice")


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """Task, run and queue of the messages that were sent."""
    found: list[tuple[str, int, str]] = []

    def send_task(name: str, kwargs: dict[str, int], queue: str = "") -> None:
        found.append((name, kwargs["run_id"], queue))

    monkeypatch.setattr(app, "send_task", send_task)
    return found


@pytest.fixture
def server(settings: Any) -> Iterator[SimulatedServer]:
    with simulated(slip=0.0) as running:
        settings.LLM_HOSTS = [running.host]
        yield running


def version_of(project: Project, *, by: Judge | None = None, **own: Any) -> RubricVersion:
    """A draft of two programs; ``own`` are the fields of a third criterion."""
    rubric = Rubric.objects.create(project=project, name=f"Rubric {Rubric.objects.count()}")
    version = RubricVersion.objects.create(rubric=rubric, number=1, verifier=by)
    rows = [
        {"text": "As short as asked", "verifier": "program", "program": "asked-words", "weight": 2},
        {"text": "Apologizes", "verifier": "program", "program": "apology", "polarity": -1},
    ]
    for position, row in enumerate([*rows, own] if own else rows):
        Criterion.objects.create(version=version, position=position, **row)
    return version


def judge_at(project: Project, server: SimulatedServer) -> Judge:
    at = factories.endpoint(project, base_url=server.url, has_logprobs=True, has_images=True)
    return factories.judge(project, endpoint=at, options={"models": ["sim"]}, is_simulated=True)


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def address(version: RubricVersion) -> str:
    return reverse("rubric_try", args=[version.rubric.project.slug, version.rubric_id, 1])


def pasted(**fields: str) -> dict[str, str]:
    return {"prompt": PROMPT, "a": SHORT, "b": LONG} | fields


def judged(project: Project, *choices: str, split: str = "test", **fields: Any) -> Task:
    """A pair that people compared."""
    task = factories.pairwise_task(
        project, texts=(SHORT, LONG), of=factories.prompt(project, PROMPT, split=split), **fields
    )
    Task.objects.filter(pk=task.pk).update(free=len(choices))
    for choice in choices:
        factories.judgment(factories.rater(project), task, choice)
    return task


def pair(task: Task) -> dict[str, int]:
    return dict(zip(("chosen", "rejected"), task.response_ids, strict=True))


def done(run: Run) -> Run:
    try_rubric(run_id=run.pk)
    run.refresh_from_db()
    return run


def test_pasted_pair_is_answered_by_programs_at_once(project: Project, owner: User) -> None:
    version = version_of(project)
    page = client_of(owner).post(address(version), pasted())
    text = page.content.decode()
    assert page.status_code == 200
    assert "A comes out first" in text
    assert "by 3.00 of at most 3.00, on 2 of 2 criteria" in text
    assert "4 words; at most 5 asked" in text
    assert "says “i am sorry”" in text
    assert 'data-said="no" data-good="1"' in text  # no apology speaks for it
    assert not Run.objects.exists()
    assert not CriterionVerdict.objects.exists()


def test_one_answer_is_told_what_it_satisfies(project: Project, owner: User) -> None:
    text = client_of(owner).post(address(version_of(project)), pasted(b="")).content.decode()
    assert "It satisfies 2 of 2" in text
    assert "Speaks for A" not in text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": " "}, "Say what was asked"),
        ({"a": ""}, "This field is required"),
        ({"a": "x" * 50_001}, "at most 50,000 characters"),
        ({"prompt": "x" * 20_001}, "at most 20,000 characters"),
        ({"b": "nul\0"}, "Null characters are not allowed"),
    ],
    ids=["no prompt", "no answer", "long answer", "long prompt", "nul"],
)
def test_text_that_cannot_be_tried_is_refused_and_kept(
    project: Project, owner: User, fields: dict[str, str], says: str
) -> None:
    page = client_of(owner).post(address(version_of(project)), pasted(**fields))
    text = page.content.decode().replace("50000", "50,000").replace("20000", "20,000")
    assert page.status_code == 422
    assert says in text
    assert PROMPT in text or "prompt" in fields


def test_hostile_text_stays_text(project: Project, owner: User) -> None:
    version = version_of(project, text=HOSTILE, verifier="program", program="bold")
    client = client_of(owner)
    shown = client.post(address(version), pasted(a=HOSTILE, b="**</textarea><script>")).content
    task = factories.pairwise_task(project, texts=(HOSTILE, "fine"))
    stored = client.get(address(version), pair(task)).content
    for html in (shown.decode(), stored.decode()):
        assert "<script>alert" not in html
        assert "</textarea><script>" not in html
        assert 'href="javascript:' not in html
        assert 'evil.example/z.png"' not in html
        assert "&lt;script&gt;alert(1)" in html


def test_strangers_find_nothing_and_annotators_are_refused(project: Project) -> None:
    version = version_of(project)
    stranger = factories.member(factories.project(), Role.OWNER)
    annotator = factories.member(project, Role.ANNOTATOR)
    reviewer = factories.member(project, Role.REVIEWER)
    assert client_of(stranger).get(address(version)).status_code == 404
    assert client_of(annotator).get(address(version)).status_code == 403
    assert client_of(reviewer).post(address(version), pasted()).status_code == 200


def test_pair_of_another_project_is_not_there(project: Project, owner: User) -> None:
    version, theirs = version_of(project), factories.pairwise_task(factories.project())
    client = client_of(owner)
    assert client.get(address(version), pair(theirs)).status_code == 404
    first, second = theirs.response_ids
    page = client.post(address(version), {"first": first, "second": second})
    assert page.status_code == 404
    assert "no such answers" in page.content.decode()
    other = factories.pairwise_task(project)  # two prompts of the project make no pair
    mixed = (other.response_ids[0], factories.pairwise_task(project).response_ids[0])
    with pytest.raises(NotFound):
        rubric_tries.pick(project=project, response_ids=mixed)


def test_stored_pair_stands_beside_what_people_said(project: Project, owner: User) -> None:
    version, task = version_of(project), judged(project, "a1", "a1", "b1")
    text = client_of(owner).get(address(version), pair(task)).content.decode()
    assert "A comes out first" in text
    assert '<span class="state" data-state="done">People prefer A too: 2 of 3.' in text
    for choice in ("b1", "b1"):
        Task.objects.filter(pk=task.pk).update(free=1)
        factories.judgment(factories.rater(project), task, choice)
    text = client_of(owner).get(address(version), pair(task)).content.decode()
    assert '<span class="state" data-state="warn">People prefer B instead: 3 of 5.' in text


def test_random_pair_is_of_the_test_split(project: Project, owner: User) -> None:
    version, client = version_of(project), client_of(owner)
    judged(project, "a1", split="train")
    nothing = client.get(address(version), {"pick": "random"})
    assert nothing["Location"] == address(version)
    prompt = factories.prompt(project, "Held out", split="test")
    task = factories.pairwise_task(project, of=prompt)
    factories.judgment(factories.rater(project), task)
    found = client.get(address(version), {"pick": "random"})
    first, second = sorted(task.response_ids)
    assert found["Location"] == f"{address(version)}?chosen={first}&rejected={second}"
    assert client.get(found["Location"]).status_code == 200


def test_narrower_scope_applies_to_its_own_prompts(project: Project, owner: User) -> None:
    version = version_of(
        project, text="Has a list", verifier="program", program="list", scope="group", group="news"
    )
    task = judged(project, "a1")
    trial = {"version": version, "subject": rubric_tries.pick(
        project=project, response_ids=task.response_ids), "by": owner}  # fmt: skip
    outside = rubric_tries.begin(**trial)
    assert outside["criteria"][2]["a"]["said"] == "n/a"
    assert "tag “news”" in outside["criteria"][2]["a"]["reason"]
    task.prompt.tags = ["news"]
    task.prompt.save()
    assert rubric_tries.begin(**trial)["criteria"][2]["a"]["said"] == "no"
    Criterion.objects.filter(group="news").update(scope="prompt", group=str(task.prompt_id))
    assert rubric_tries.begin(**trial)["criteria"][2]["b"]["said"] == "no"


def test_people_and_reward_models_speak_of_stored_answers_alone(
    project: Project, owner: User
) -> None:
    version = version_of(project, text="Is kind", verifier="person")
    reward = Criterion.objects.create(
        version=version, position=3, text="Liked by rm-1", verifier="reward-model", program="1"
    )
    task = judged(project, "a1")
    first, second = task.response_ids
    for value in (1, 1, 0, None):
        CriterionVerdict.objects.create(
            criterion=version.criteria.get(text="Is kind"), response_id=first,
            rater=factories.rater(project), value=value,
        )  # fmt: skip
    run = Run.objects.create(project=project, kind="train", title="Train")
    model = RewardModel.objects.create(project=project, run=run, number=1, artifact="x")
    for mean, response in enumerate(
        [second, *factories.pairwise_task(project).response_ids, first]
    ):
        RewardScore.objects.create(
            project=project, reward_model=model, response_id=response, mean=mean
        )
    subject = rubric_tries.pick(project=project, response_ids=task.response_ids)
    rows = rubric_tries.begin(version=version, subject=subject, by=owner)["criteria"]
    assert rows[2]["a"]["reason"] == "people said yes 2 of 4, does not apply 1"
    assert rows[2]["a"]["said"] == "yes"
    assert rows[2]["b"]["reason"] == "a person has to say"
    assert rows[3]["a"]["reason"] == "scored higher than 3 of 4 answers"
    assert [rows[3][side]["said"] for side in ("a", "b")] == ["yes", "no"]
    paste = rubric_tries.paste(prompt=PROMPT, answers=[SHORT, LONG])
    rows = rubric_tries.begin(version=version, subject=paste, by=owner)["criteria"]
    assert {row["a"]["said"] for row in rows[2:]} == {""}
    Criterion.objects.filter(pk=reward.pk).update(program="9" * 40)
    rows = rubric_tries.begin(version=version, subject=subject, by=owner)["criteria"]
    assert rows[3]["a"]["said"] == ""


def test_without_a_model_to_ask_it_says_whom_it_lacks(project: Project, owner: User) -> None:
    version = version_of(project, text="Is kind", verifier="llm")
    text = client_of(owner).post(address(version), pasted()).content.decode()
    assert "choose whom to ask" in text
    assert "no model was asked" in text
    assert "on 2 of 3 criteria" in text


@pytest.mark.django_db(transaction=True)
def test_model_is_asked_in_a_run_that_the_page_follows(
    project: Project, owner: User, server: SimulatedServer, sent: list[tuple[str, int, str]]
) -> None:
    judge = judge_at(project, server)
    version, client = version_of(project, by=judge, text="Is polite"), client_of(owner)
    begun = client.post(address(version), pasted(judge=str(judge.pk)))
    run = Run.objects.get(kind=Run.Kind.TRY)
    assert begun["Location"] == f"{address(version)}?run={run.pk}"
    assert sent == [("annotator.jobs.rubric_tries.try_rubric", run.pk, "llm")]
    assert run.config["budget"]["calls"] == 4
    waiting = client.get(begun["Location"]).content.decode()
    assert "Waits for a free worker" in waiting
    assert 'hx-trigger="load delay:1s"' in waiting
    assert SHORT in waiting  # the form is filled as it was
    assert done(run).state == RunState.DONE, run.error
    fragment = client.get(begun["Location"], headers={"HX-Request": "true"}).content.decode()
    assert "hx-trigger" not in fragment
    assert "<html" not in fragment
    assert "(Simulated.)" in fragment
    assert "P(yes)" in fragment
    assert "2 calls paid, 0 from the cache" in fragment
    assert '<span class="tag">simulated</span>' in fragment
    assert not CriterionVerdict.objects.exists()
    own = client.get(reverse("run", args=[project.slug, run.pk])).content.decode()
    assert begun["Location"] in own
    again = rubric_tries.begin(
        version=version, subject=rubric_tries.paste(prompt=PROMPT, answers=[SHORT, LONG]), by=owner
    )
    assert isinstance(again, Run)
    assert done(again).result["asked"]["calls"] == 0
    assert LlmCall.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_stored_images_are_tried_and_nothing_can_be_pasted(
    owner: User, server: SimulatedServer
) -> None:
    project = factories.project(modality=Project.Modality.IMAGE)
    owner = factories.member(project, Role.OWNER)
    version = version_of(project, by=judge_at(project, server), text="Shows a cat")
    prompt = factories.prompt(project, split="test")
    shown = [images.ingest(project=project, data=picture(size)) for size in ((40, 20), (20, 40))]
    answers = [
        factories.response(prompt, image=one, text=" ", generator=str(one.pk)) for one in shown
    ]
    Response.objects.update(text="")
    client = client_of(owner)
    blank = client.get(address(version)).content.decode()
    assert "cannot be pasted" in blank
    assert "<textarea" not in blank
    page = client.get(address(version), {"chosen": answers[0].pk, "rejected": answers[1].pk})
    assert reverse("image", args=[project.slug, shown[1].pk, "full"]) in page.content.decode()
    client.post(address(version), {"first": answers[0].pk, "second": answers[1].pk,
                                   "judge": version.verifier_id})  # fmt: skip
    run = done(Run.objects.get(kind=Run.Kind.TRY))
    assert run.state == RunState.DONE, run.error
    rows = run.result["criteria"]
    assert rows[2]["a"]["said"] in ("yes", "no")
    assert "is a picture" in rows[2]["a"]["reason"]
    assert "this is a picture" in rows[0]["a"]["reason"]


@pytest.mark.django_db(transaction=True)
def test_budget_bounds_what_a_try_asks(
    project: Project, owner: User, server: SimulatedServer
) -> None:
    server.turn(malformed=1.0)  # every reply is asked for again
    version = version_of(project, by=judge_at(project, server), text="Is polite")
    subject = rubric_tries.paste(prompt=PROMPT, answers=[SHORT, LONG])
    run = rubric_tries.begin(version=version, subject=subject, by=owner)
    Run.objects.filter(pk=run.pk).update(config=run.config | {"budget": {"calls": 1}})
    run = done(run)
    assert run.state == RunState.DONE, run.error  # the programs have spoken
    assert run.counters["calls"] == 1
    assert "the run's budget is spent" in run.result["notes"][0]


@pytest.mark.django_db(transaction=True)
def test_endpoint_that_fails_is_named_with_its_reason(
    project: Project, owner: User, server: SimulatedServer
) -> None:
    judge = judge_at(project, server)
    version = version_of(project, by=judge, text="Is polite")
    subject = rubric_tries.paste(prompt=PROMPT, answers=[SHORT, LONG])
    mixed = rubric_tries.begin(version=version, subject=subject, by=owner)
    version.criteria.filter(verifier="program").update(decision="rejected")
    alone = rubric_tries.begin(version=version, subject=subject, by=owner)
    judge.options = {"models": ["no-such-model"]}
    judge.save()
    version.criteria.filter(verifier="program").update(decision="proposed")
    note = f"The endpoint {judge.endpoint} did not answer 2 questions: the endpoint refused the request."
    assert done(mixed).result["notes"] == [note]
    assert note in client_of(owner).get(f"{address(version)}?run={mixed.pk}").content.decode()
    version.criteria.filter(verifier="program").update(decision="rejected")
    assert done(alone).state == RunState.FAILED
    assert alone.error.startswith(f"The endpoint {judge.endpoint} gives no answers")
    text = client_of(owner).get(f"{address(version)}?run={alone.pk}").content.decode()
    assert "gives no answers: the endpoint refused the request." in text
    assert "Check the endpoint" in text


def test_tries_are_bounded_and_stay_out_of_the_lists_of_runs(
    project: Project, owner: User, server: SimulatedServer
) -> None:
    judge = judge_at(project, server)
    version = version_of(project, by=judge, text="Is polite")
    subject = rubric_tries.paste(prompt=PROMPT, answers=[SHORT])
    for _ in range(rubric_tries.MOST_AT_ONCE):
        run = rubric_tries.begin(version=version, subject=subject, by=owner)
    with pytest.raises(Conflict, match="wait for a model"):
        rubric_tries.begin(version=version, subject=subject, by=owner)
    assert run_queries.runs(project).rows == []
    assert run_queries.recent(project) == []
    assert run_queries.running([project.pk]) == []
    assert Access(project, Role.OWNER).active_runs == 0
    assert len(run_queries.runs(project, kind="try").rows) == rubric_tries.MOST_AT_ONCE
    client = client_of(owner)
    assert client.get(reverse("run", args=[project.slug, run.pk])).status_code == 200
    other = version_of(project)
    assert client.get(f"{address(other)}?run={run.pk}").status_code == 404


def test_judge_of_another_project_is_never_asked(project: Project, owner: User) -> None:
    version = version_of(project, text="Is polite")
    theirs = factories.judge(factories.project(), options={"models": ["sim"]})
    subject = rubric_tries.paste(prompt=PROMPT, answers=[SHORT])
    with pytest.raises(Invalid, match="of this project"):
        rubric_tries.begin(version=version, subject=subject, judge=theirs, by=owner)
    page = client_of(owner).post(address(version), pasted(judge=str(theirs.pk)))
    assert page.status_code == 422
    mine = factories.judge(project, options={"models": ["sim"]})
    mine.endpoint.archived_at = mine.created_at
    mine.endpoint.save()
    with pytest.raises(Conflict, match="archived"):
        rubric_tries.begin(version=version, subject=subject, judge=mine, by=owner)


class Api:
    def __init__(self, user: User, version: RubricVersion) -> None:
        _, token = tokens.create(user=user, name="test")
        self._headers = {"Authorization": f"Bearer {token}"}
        slug = version.rubric.project.slug
        self._url = f"/api/v1/projects/{slug}/rubrics/{version.rubric_id}/versions/1/try"

    def post(self, url: str = "", **body: Any) -> tuple[int, dict[str, Any]]:
        answer = Client().post(
            url or self._url, json.dumps(body), "application/json", headers=self._headers
        )
        return answer.status_code, answer.json()


def test_api_answers_at_once_where_programs_say_everything(project: Project, owner: User) -> None:
    api = Api(owner, version_of(project))
    status, body = api.post(prompt=PROMPT, a=SHORT, b=LONG)
    assert (status, body["run"], body["state"]) == (200, None, "done")
    assert body["result"]["outcome"]["winner"] == "a"
    assert body["result"]["totals"]["a"] == {
        "met": 2, "of": 2, "share": 1.0, "weighted": 2.0, "not_applicable": 0, "unknown": 0
    }  # fmt: skip
    task = judged(project, "b1")
    status, body = api.post(responses=task.response_ids)
    assert (status, body["result"]["people"]) == (200, {"a": 0, "b": 1, "ties": 0})


def test_api_gives_the_run_of_a_model(
    project: Project, owner: User, sent: list[tuple[str, int, str]],
    django_capture_on_commit_callbacks: Any,
) -> None:  # fmt: skip
    judge = factories.judge(project, options={"models": ["sim"]})
    api = Api(owner, version_of(project, text="Is polite"))
    with django_capture_on_commit_callbacks(execute=True):
        status, body = api.post(prompt=PROMPT, a=SHORT, judge=judge.pk)
    assert (status, body["state"], body["result"]) == (202, "queued", None)
    assert [run for _, run, _ in sent] == [body["run"]]


def test_api_refuses_what_is_hostile_and_whom_it_does_not_know(
    project: Project, owner: User
) -> None:
    version = version_of(project)
    api = Api(owner, version)
    assert api.post(prompt=PROMPT, a="")[0] == 422
    assert api.post(prompt="", a=SHORT)[0] == 422
    assert api.post(prompt=PROMPT, a="x" * 50_001)[0] == 422
    assert api.post(responses=[2**70])[0] == 422
    assert api.post(responses=[1, 1])[0] == 422
    assert api.post(responses=[987654321])[0] == 404
    assert api.post(prompt=PROMPT, a=SHORT, judge=987654321)[0] == 404
    assert api.post(prompt=PROMPT, a="\ud800")[0] == 422
    status, body = api.post(prompt="nul\0", a="a\0", b="\0")
    assert status == 200
    assert body["result"]["criteria"][1]["a"]["said"] == "no"
    url = f"/api/v1/projects/{project.slug}/rubrics/{10**30}/versions/{10**30}/try"
    assert api.post(url, prompt=PROMPT, a=SHORT)[0] == 404
    assert Api(factories.user(), version).post(prompt=PROMPT, a=SHORT)[0] == 404
    annotator = factories.member(project, Role.ANNOTATOR)
    assert Api(annotator, version).post(prompt=PROMPT, a=SHORT)[0] == 403
