"""Scores on demand through the API: what is answered, what is refused, what waits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.test import Client

from annotator.celery import app
from annotator.jobs.reward_asks import ask
from annotator.models import Project, RewardModel, RewardScore, Role, Run, RunState, User
from annotator.services import reward_asks, runs, tokens, training, workers
from models import gateway, transforms
from models.transforms import Reference
from tests import factories
from tests.annotator.asking import (
    BAD_TEXT,
    EVEN_TEXT,
    GOOD_TEXT,
    answers_of,
    model_of,
    stored_prompt,
)
from tests.annotator.rewarding import give_scores, make_model

pytestmark = pytest.mark.django_db(transaction=True)

Call = Callable[..., tuple[int, Any]]


@pytest.fixture(autouse=True, scope="module")
def _no_child_is_left() -> Any:
    yield
    gateway.release()


@pytest.fixture(autouse=True)
def _patient(settings: Any) -> None:
    """A test is never told to wait by the clock; who wants the limit sets it."""
    settings.SCORE_REQUESTS_PER_MINUTE = 0
    settings.SCORE_WAIT_SECONDS = 120


@pytest.fixture
def project() -> Project:
    return factories.project("asked")


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Messages that nobody takes."""
    found: list[int] = []

    def send(name: str, kwargs: dict[str, int], queue: str = "") -> None:
        assert (name, queue) == ("annotator.jobs.reward_asks.ask", "gpu")
        found.append(kwargs["run_id"])

    monkeypatch.setattr(app, "send_task", send)
    return found


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, sent: list[int]) -> list[int]:
    """A worker that is free: it has done the work when the message is sent."""

    def send(name: str, kwargs: dict[str, int], queue: str = "") -> None:
        sent.append(kwargs["run_id"])
        ask(run_id=kwargs["run_id"])

    monkeypatch.setattr(app, "send_task", send)
    return sent


def caller(user: User) -> Call:
    _, secret = tokens.create(user=user, name="test")
    client = Client(headers={"Authorization": f"Bearer {secret}"}, raise_request_exception=False)

    def call(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        answer = client.generic(method, f"/api/v1{path}", data, content_type="application/json")
        call.last = answer  # type: ignore[attr-defined]
        return answer.status_code, json.loads(answer.content or "null")

    return call


def items(*texts: str, prompt: Any = "Which?", **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "response": text, **more} for text in texts]


def path(model: RewardModel, what: str = "score") -> str:
    return f"/reward-models/{model.pk}/{what}"


@pytest.mark.neural
def test_scores_are_those_of_the_model_and_nothing_is_left(
    project: Project, owner: User, worker: list[int]
) -> None:
    model = model_of(project)
    body = {"items": items(GOOD_TEXT, BAD_TEXT, GOOD_TEXT)}
    body["items"][2]["response"] = [{"role": "assistant", "content": GOOD_TEXT}]
    status, answer = caller(owner)("POST", path(model), body)
    assert (status, answer["run"], answer["state"]) == (200, None, "done")
    asked = [([{"role": "user", "content": "Which?"}], text) for text in (GOOD_TEXT, BAD_TEXT)]
    own = gateway.score_in_child({
        "method": "reward-model", "folder": str(training.artifact_folder(model)), "asked": asked,
    })["scores"]  # fmt: skip
    assert answer["scores"][:2] == own
    assert answer["scores"] == answer["raw"]
    assert answer["scores"][0] > answer["scores"][1]
    assert len(worker) == 1
    assert not Run.objects.filter(kind=Run.Kind.ASK).exists()


@pytest.mark.neural
def test_standardized_scores_are_on_a_scale_that_stays(
    project: Project, owner: User, worker: list[int]
) -> None:
    model, call = model_of(project), caller(owner)
    for number in range(6):
        text = GOOD_TEXT if number % 2 else BAD_TEXT
        stored_prompt(project, f"Held out {number}?", f"{text} {number}")
    stored_prompt(project, "Trained on?", EVEN_TEXT, split="train")
    body = {"items": items(GOOD_TEXT, BAD_TEXT), "transform": "standardized"}
    _, first = call("POST", path(model), body)
    reference = Reference(**first["reference"])
    assert reference.n == 6  # held-out answers alone
    expected = transforms.standardized(first["raw"], reference)
    assert first["scores"] == pytest.approx(expected.tolist())
    stored_prompt(project, "One more?", "endless rude broken cold")
    _, second = call("POST", path(model), body)
    assert second["reference"] == first["reference"]
    model.refresh_from_db()
    assert model.metrics["reference"] == first["reference"]


@pytest.mark.neural
def test_relative_scores_use_references_given_or_stored(
    project: Project, owner: User, worker: list[int]
) -> None:
    model, call = model_of(project), caller(owner)
    stored_prompt(project, "Which?", BAD_TEXT, EVEN_TEXT, GOOD_TEXT)
    given = items(GOOD_TEXT, references=[BAD_TEXT, EVEN_TEXT])
    body = {"items": [*given, *items(GOOD_TEXT), *items(GOOD_TEXT, prompt="Not stored?")]}
    status, answer = call("POST", path(model), body | {"transform": "par"})
    assert status == 200
    raw = caller(owner)("POST", path(model), {"items": items(GOOD_TEXT, BAD_TEXT, EVEN_TEXT)})
    good, *others = raw[1]["scores"]
    expected = float(transforms.par([good], [others])[0])
    # The stored answers are the same two, since the answer itself is no reference.
    assert answer["scores"][:2] == pytest.approx([expected, expected])
    assert answer["scores"][2] is None
    _, answer = call("POST", path(model), body | {"transform": "log-sigmoid"})
    expected = float(transforms.log_sigmoid([good], [others])[0])
    assert answer["scores"] == [pytest.approx(expected)] * 2 + [None]


def test_request_without_a_worker_is_a_run_to_look_at(
    project: Project, owner: User, sent: list[int]
) -> None:
    model, call = _with_folder(make_model(project)), caller(owner)
    began = time.monotonic()
    status, answer = call("POST", path(model), {"items": items("A", "B")})
    assert time.monotonic() - began < 60, "nobody is waited for who is not there"
    assert (status, answer["state"], answer["scores"]) == (202, "queued", None)
    assert sent == [answer["run"]]
    status, run = call("GET", f"/projects/{answer['project']}/runs/{answer['run']}")
    assert (status, run["kind"], run["state"]) == (200, "ask", "queued")


def test_request_is_waited_for_where_a_worker_answers(
    project: Project, owner: User, sent: list[int], settings: Any
) -> None:
    settings.SCORE_WAIT_SECONDS = 1
    model = _with_folder(make_model(project))
    workers.beat(hostname="gpu@here", queues=["gpu"], started=time.time())
    assert caller(owner)("POST", path(model), {"items": items("A")})[0] == 202
    taken = [reward_asks.WAITING.acquire(blocking=False) for _ in range(3)]
    assert taken == [True, True, True], "the place of who waited is free again"
    for _ in taken:
        reward_asks.WAITING.release()


def test_failed_request_says_why(
    project: Project, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _with_folder(make_model(project))  # a folder in which there is no model
    monkeypatch.setattr(app, "send_task", lambda name, kwargs, queue="": ask(**kwargs))
    status, answer = caller(owner)("POST", path(model), {"items": items("A")})
    assert status == 502
    assert "touchstone.json" in answer["detail"] or answer["detail"]
    assert Run.objects.get(kind=Run.Kind.ASK).state == RunState.FAILED


def _with_folder(model: RewardModel) -> RewardModel:
    training.artifact_folder(model).mkdir(parents=True)
    return model


# Who may ------------------------------------------------------------------------------------------


def test_strangers_find_nothing_and_smaller_roles_are_refused(
    project: Project, sent: list[int]
) -> None:
    model = _with_folder(make_model(project))
    body = {"items": items("A")}
    stranger = caller(factories.member(factories.project(), Role.OWNER))
    for method, what in (("POST", "score"), ("GET", "scores")):
        assert stranger(method, path(model, what), body)[0] == 404
        for role in (Role.ANNOTATOR, Role.REVIEWER):
            call = caller(factories.member(project, role))
            assert call(method, path(model, what), body)[0] == 403
    anonymous = Client().post(f"/api/v1{path(model)}", body, content_type="application/json")
    assert anonymous.status_code == 401
    assert stranger("GET", "/projects/asked/reward-models")[0] == 404
    assert not sent
    assert not Run.objects.filter(kind=Run.Kind.ASK).exists()


def test_token_is_slowed_down_and_told_for_how_long(
    project: Project, owner: User, sent: list[int], settings: Any
) -> None:
    settings.SCORE_REQUESTS_PER_MINUTE = 12  # two at once, then one in five seconds
    model, call = _with_folder(make_model(project)), caller(owner)
    body = {"items": items("A")}
    assert [call("POST", path(model), body)[0] for _ in range(2)] == [202, 202]
    status, answer = call("POST", path(model), body)
    assert status == 429
    assert 1 <= int(call.last["Retry-After"]) <= 5  # type: ignore[attr-defined]
    assert "12" in answer["detail"]
    assert len(sent) == 2
    other = caller(owner)  # another token has its own measure
    assert other("POST", path(model), body)[0] == 202


# What is refused ----------------------------------------------------------------------------------

LONG = "x" * (reward_asks.MAX_TEXT + 1)
HOSTILE = {
    "nothing": {},
    "no items": {"items": []},
    "too many": {"items": items(*["a"] * 257)},
    "too many with references": {
        "items": items(*["a"] * 90, references=["b", "c"]),
        "transform": "par",
    },
    "too long": {"items": items(LONG)},
    "too long together": {"items": items(*["y" * 40_000] * 26)},
    "empty prompt": {"items": items("a", prompt=" ")},
    "no messages": {"items": items("a", prompt=[])},
    "message without a role": {"items": items("a", prompt=[{"role": " ", "content": "b"}])},
    "number": {"items": items(7)},
    "null": {"items": [None]},
    "deep": {"items": items("a", prompt=[{"role": "user", "content": {"a": [1]}}])},
    "transform": {"items": items("a"), "transform": "softmax"},
    "too many references": {"items": items("a", references=["b"] * 11)},
}


def test_what_cannot_be_scored_is_refused(project: Project, owner: User, sent: list[int]) -> None:
    model, call = _with_folder(make_model(project)), caller(owner)
    told = {name: call("POST", path(model), body) for name, body in HOSTILE.items()}
    assert {name: status for name, (status, _) in told.items() if status != 422} == {}
    assert all(answer["detail"] for _, answer in told.values())
    assert not sent


def test_what_is_no_request_is_refused(project: Project, owner: User, sent: list[int]) -> None:
    model, call = _with_folder(make_model(project)), caller(owner)
    for body in (b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"items": NaN}'):
        assert call("POST", path(model), body)[0] in (400, 422), body
    assert not sent


def test_body_beyond_the_limit_is_refused(project: Project, owner: User, sent: list[int]) -> None:
    model = _with_folder(make_model(project))
    body = json.dumps({"items": items("a"), "more": "x" * 5_000_000})
    status = caller(owner)("POST", path(model), body)[0]
    assert status == 413
    assert not sent


@pytest.mark.neural
def test_odd_texts_are_scored_and_what_is_no_text_is_refused(
    project: Project, owner: User, worker: list[int]
) -> None:
    model = model_of(project)
    texts, call = ["", "\0", "a\u202eb", "🙂" * 1000, "<script>"], caller(owner)
    assert call("POST", path(model), {"items": items("\ud800 lone")})[0] == 422
    status, answer = call("POST", path(model), {"items": items(*texts, prompt="\0?")})
    assert status == 200
    assert all(isinstance(one, float) for one in answer["scores"])


def test_model_that_is_none_is_not_found(project: Project, owner: User) -> None:
    call = caller(owner)
    for pk in ("0", "999999999999999999999999", "1.5", "abc", "-1"):
        for method, what in (("POST", "score"), ("GET", "scores")):
            status, _ = call(method, f"/reward-models/{pk}/{what}", {"items": items("a")})
            assert status in (404, 422), (pk, status)


def test_images_and_lost_files_are_told(project: Project, owner: User, sent: list[int]) -> None:
    model = make_model(project)
    status, answer = caller(owner)("POST", path(model), {"items": items("a")})
    assert (status, "no longer on the server" in answer["detail"]) == (409, True)
    Project.objects.filter(pk=project.pk).update(modality="image")
    _with_folder(model)
    status, answer = caller(owner)("POST", path(model), {"items": items("a")})
    assert (status, "images" in answer["detail"]) == (422, True)


def test_line_of_a_project_has_an_end(project: Project, owner: User, sent: list[int]) -> None:
    model, call = _with_folder(make_model(project)), caller(owner)
    found = [
        call("POST", path(model), {"items": items("a")})[0]
        for _ in range(reward_asks.MOST_AT_ONCE + 1)
    ]
    assert found == [202] * reward_asks.MOST_AT_ONCE + [409]


def test_canceled_request_is_not_scored(project: Project, owner: User, sent: list[int]) -> None:
    model, call = _with_folder(make_model(project)), caller(owner)
    _, answer = call("POST", path(model), {"items": items("a")})
    run = Run.objects.get(pk=answer["run"])
    runs.cancel(run=run, by=owner)
    ask(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.attempt) == (RunState.CANCELED, 0)


# Stored scores ------------------------------------------------------------------------------------


def test_stored_scores_come_page_by_page_on_any_scale(project: Project, owner: User) -> None:
    model, call = make_model(project), caller(owner)
    prompts = [stored_prompt(project, f"{n}?", "a", "b", "c") for n in range(3)]
    ids = [one.pk for prompt in prompts for one in answers_of(prompt)]
    give_scores(model, {pk: float(n % 3) for n, pk in enumerate(ids)})
    RewardScore.objects.filter(response_id=ids[0]).update(variance=0.25)
    seen, after = [], 0
    while after is not None:
        status, page = call("GET", path(model, f"scores?limit=4&after={after}"))
        assert status == 200
        seen += page["scores"]
        after = page["next"]
    assert [one["response"] for one in seen] == ids
    assert [one["score"] for one in seen] == [0.0, 1.0, 2.0] * 3
    assert seen[0]["variance"] == 0.25
    _, page = call("GET", path(model, "scores?transform=par&limit=2"))
    expected = [
        float(transforms.par([mean], [[other for other in (0.0, 1.0, 2.0) if other != mean]])[0])
        for mean in (0.0, 1.0)
    ]
    assert [one["score"] for one in page["scores"]] == pytest.approx(expected)
    assert call("GET", path(model, "scores?transform=standardized"))[0] == 409
    reward_asks.keep_reference(model, Reference(1.0, 2.0, 9))
    _, page = call("GET", path(model, "scores?transform=standardized&limit=3"))
    assert [one["score"] for one in page["scores"]] == [-0.5, 0.0, 0.5]
    assert page["reference"] == {"center": 1.0, "scale": 2.0, "n": 9}


def test_stored_scores_refuse_nonsense(project: Project, owner: User) -> None:
    model, call = make_model(project), caller(owner)
    for query in ("after=-1", "after=x", "limit=0", "limit=100000", "transform=x"):
        assert call("GET", path(model, f"scores?{query}"))[0] == 422, query


def test_models_are_listed_with_the_id_to_ask(project: Project, owner: User) -> None:
    model = make_model(project)
    make_model(factories.project(), 7)
    status, found = caller(owner)("GET", "/projects/asked/reward-models")
    assert (status, [one["id"] for one in found]) == (200, [model.pk])
    assert found[0]["name"] == "rm-1"


def test_first_scale_stays(project: Project) -> None:
    model = make_model(project)
    reward_asks.keep_reference(model, Reference(0.0, 1.0, 2))
    reward_asks.keep_reference(model, Reference(5.0, 3.0, 9))
    model.refresh_from_db()
    assert model.metrics == {"reference": {"center": 0.0, "scale": 1.0, "n": 2}}
    assert np.isfinite(model.metrics["reference"]["center"])
