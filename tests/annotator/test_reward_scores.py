"""Scoring responses by a rubric version and by a reward model, as runs that can die."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from annotator.celery import app
from annotator.errors import Conflict, Invalid
from annotator.models import (
    CriterionVerdict,
    LlmCall,
    Prompt,
    Response,
    RewardModel,
    RewardScore,
    Run,
    RunState,
)
from annotator.queries import reward_pairs
from annotator.queries import reward_scores as queries
from annotator.services import import_undo, reward_rows, reward_scores, rubrics, runs
from rubrics.llm.budget import Budget
from rubrics.rewards import spread
from tests import factories, serving
from tests.annotator.rewarding import (
    CITED,
    CITES,
    EXAMPLE,
    LISTED,
    PLAIN,
    PROGRAM,
    approved,
    done,
    give_scores,
    make_model,
    scored,
    sim_judge,
    world,
)
from tests.simulated import simulated

pytestmark = pytest.mark.django_db(transaction=True)


def means(version: Any) -> dict[int, float]:
    rows = RewardScore.objects.filter(rubric_version=version)
    return dict(rows.values_list("response_id", "mean"))


def texts(project: Any) -> dict[int, str]:
    return dict(Response.objects.filter(project=project).values_list("pk", "text"))


def test_programs_score_every_response_and_sum_up() -> None:
    project = world()
    version = approved(project, PROGRAM | {"weight": 2.0})
    run = scored(version)
    assert (run.state, run.error) == (RunState.DONE, "")
    found = means(version)
    for pk, text in texts(project).items():
        assert found[pk] == (2.0 if text.startswith(LISTED) else 0.0)
    result = run.result
    assert (result["responses"], result["scored"], result["calls"]) == (12, 12, 0)
    assert (result["form"], result["test_pairs"], result["incomplete"]) == ("weighted", 3, {})
    summary = result["summary"]
    assert (summary["n"], summary["mean"], sum(summary["bins"])) == (12, 1.0, 12)
    prompts = dict(Response.objects.values_list("pk", "prompt_id"))
    own = spread(list(found.values()), [prompts[pk] for pk in found])
    assert summary["spread"] == pytest.approx(own)
    verdicts = CriterionVerdict.objects.filter(criterion__version=version)
    assert set(verdicts.values_list("rater_id", "value")) == {(None, 1), (None, 0)}
    assert verdicts.count() == 12


def test_share_is_the_form_without_weights_and_counts_what_does_not_apply_as_asked() -> None:
    project = world()
    against = PROGRAM | {"text": "Has a list, which is bad", "polarity": -1}
    version = approved(project, PROGRAM, against, PROGRAM | {"text": "Lists"})
    run = scored(version)
    assert run.result["form"] == "share"
    found = means(version)
    for pk, text in texts(project).items():
        assert found[pk] == pytest.approx(2 / 3 if text.startswith(LISTED) else 1 / 3)


def test_another_form_replaces_the_rewards_of_the_first() -> None:
    project = world()
    version = approved(project, PROGRAM | {"weight": 3.0})
    scored(version)
    assert set(means(version).values()) == {0.0, 3.0}
    again = scored(version, form="share")
    assert again.result["scored"] == 12
    assert set(means(version).values()) == {0.0, 1.0}
    assert "gone" in again.log


def test_rewards_of_two_forms_never_stand_in_one_column() -> None:
    project = world()
    version = approved(project, PROGRAM | {"weight": 3.0})
    first = reward_scores.start(version=version, by=None)
    pen = runs.begin(run_id=first.pk, worker="w")
    job = reward_scores._ByRubric(pen)
    other = job.scoring.basis.as_json() | {"form": "share", "not_applicable": "satisfied"}
    assert reward_rows.settle_basis(version, other)
    with pytest.raises(Conflict, match="in another way"):
        job.score_all()
    assert not means(version)


def test_model_is_asked_and_a_repeat_costs_nothing(settings: Any) -> None:
    project = world(texts=(f"{LISTED} {CITED}", PLAIN))
    with simulated(slip=0) as server:
        judge = sim_judge(project, server, settings)
        version = approved(project, CITES, PROGRAM, verifier=judge)
        run = scored(version)
        assert (run.state, run.error) == (RunState.DONE, "")
        assert (run.counters["calls"], run.counters["cached"]) == (12, 0)
        found = means(version)
        for pk, text in texts(project).items():
            assert found[pk] == (1.0 if CITED in text else 0.0)
        by_judge = CriterionVerdict.objects.filter(rater=judge.rater)
        assert by_judge.count() == 12
        assert by_judge.filter(call_key=None).count() == 0
        RewardScore.objects.all().delete()
        again = scored(version)
    assert (again.counters["calls"], again.counters["cached"]) == (0, 12)
    assert again.result["tokens"] == 0
    assert means(version) == found
    assert CriterionVerdict.objects.count() == 24, "the same verdicts, not others"


def test_only_what_has_no_score_is_scored(settings: Any) -> None:
    project = world()
    with simulated(slip=0) as server:
        version = approved(project, CITES, verifier=sim_judge(project, server, settings))
        assert scored(version, splits=["test"]).result["scored"] == 6
        assert LlmCall.objects.count() == 6
        run = scored(version)
        assert run.result["scored"] == 12
        assert LlmCall.objects.count() == 12
        assert run.counters["cached"] == 0, "scored ones are not even looked up"


def test_budget_ends_it_and_keeps_what_is_scored(settings: Any) -> None:
    project = world(pairs=10)
    with simulated(slip=0) as server:
        judge = sim_judge(project, server, settings)
        version = approved(project, CITES, EXAMPLE, verifier=judge)
        run = scored(version, budget=Budget(calls=17))
        assert (run.state, run.result["stopped"]) == (RunState.DONE, "budget")
        assert run.counters["calls"] == 17
        assert run.result["incomplete"] == {}, "what was not asked is not owed"
        kept = means(version)
        assert 4 <= len(kept) <= 8
        assert run.result["summary"]["n"] == len(kept)
        rest = scored(version)
    assert rest.result["scored"] == 20
    assert run.counters["calls"] + rest.counters["calls"] == 40, "no call was paid for twice"
    assert kept.items() <= means(version).items()


def test_canceled_run_stops_and_goes_on_where_it_was(settings: Any) -> None:
    project = world(pairs=8)
    with simulated(slip=0) as server:
        version = approved(project, CITES, verifier=sim_judge(project, server, settings))
        run = reward_scores.start(version=version, by=None)
        pen = runs.begin(run_id=run.pk, worker="w")
        runs.cancel(run=run, by=None)
        with pytest.raises(runs.Stopped):
            reward_scores.perform(pen)
        pen.canceled()
        runs.resume(run=run, by=None)
        assert done(run).state == RunState.DONE
        assert server.stats()["charged_per_key_max"] == 1
    assert len(means(version)) == 16


def test_endpoint_that_refuses_everything_fails_with_advice(settings: Any) -> None:
    project = world(pairs=8)
    with simulated(api_key="another") as server:
        version = approved(project, CITES, verifier=sim_judge(project, server, settings))
        run = scored(version)
    assert run.state == RunState.FAILED
    assert "answers nothing: 16 refused" in run.error
    assert "resume" in run.advice
    assert not means(version)


def test_person_s_verdicts_count_and_a_response_without_one_has_no_reward() -> None:
    project = world()
    version = approved(project, PROGRAM, {"text": "Is true", "verifier": "person"})
    criterion = version.criteria.get(verifier="person")
    one, two, three, *_ = sorted(texts(project))
    people = [factories.rater(project) for _ in range(3)]
    for rater, value in zip(people, (1, 1, 0), strict=True):
        CriterionVerdict.objects.create(
            criterion=criterion, response_id=one, rater=rater, value=value
        )
    CriterionVerdict.objects.create(
        criterion=criterion, response_id=two, rater=people[0], value=None
    )
    judge = factories.judge(project)
    CriterionVerdict.objects.create(
        criterion=criterion, response_id=three, rater=judge.rater, value=1
    )
    run = scored(version, form="weighted")
    has_list = {pk: float(text.startswith(LISTED)) for pk, text in texts(project).items()}
    assert means(version) == {
        one: pytest.approx(has_list[one] + 2 / 3),
        two: pytest.approx(has_list[two] + 0.5),
    }
    assert run.result["incomplete"] == {"person": 10}


def test_criterion_of_a_tag_counts_where_it_is_about_the_prompt() -> None:
    project = world()
    tagged = Prompt.objects.filter(project=project).first()
    Prompt.objects.filter(pk=tagged.pk).update(tags=["code"])
    narrow = PROGRAM | {"text": "Lists", "scope": "group", "group": "code", "weight": 5.0}
    version = approved(project, PROGRAM | {"weight": 1.0}, narrow)
    scored(version)
    of_prompt = dict(Response.objects.values_list("pk", "prompt_id"))
    for pk, mean in means(version).items():
        listed = texts(project)[pk].startswith(LISTED)
        assert mean == (6.0 if of_prompt[pk] == tagged.pk else 1.0) * listed


def test_reward_model_s_criterion_is_the_share_it_scores_lower() -> None:
    project = world()
    model = make_model(project)
    ids = sorted(texts(project))
    give_scores(model, {pk: float(place) for place, pk in enumerate(ids[:8])})
    version = approved(project, {"text": "Is helpful", "verifier": "reward-model", "program": "1"})
    run = scored(version, form="weighted")
    assert means(version) == {pk: place / 8 for place, pk in enumerate(ids[:8])}
    assert run.result["incomplete"] == {"reward-model": 4}


def test_reward_model_without_scores_says_what_to_do() -> None:
    project = world()
    version = approved(project, {"text": "Is helpful", "verifier": "reward-model", "program": "7"})
    run = scored(version)
    assert run.state == RunState.FAILED
    assert "Score all responses by it" in run.advice


def test_sample_takes_whole_prompts_and_a_larger_one_holds_the_smaller() -> None:
    project = world(pairs=12)
    small, large = (
        set(
            queries.Wanted(project.pk, "rubric_version", 0, splits=("train", "test"), sample=n).ids(
                after=0, size=100
            )
        )
        for n in (6, 13)
    )
    assert len(small) == 6
    assert len(large) == 14
    assert small < large
    of_prompt = dict(Response.objects.values_list("pk", "prompt_id"))
    assert len({of_prompt[pk] for pk in small}) == 3


def test_compared_are_those_that_a_vote_tells_apart() -> None:
    project = world(pairs=3)
    factories.pairwise_task(project)
    tied = factories.pairwise_task(project)
    factories.judgment(factories.rater(project), tied, "tie")
    wanted = queries.Wanted(
        project.pk, "rubric_version", 0, only="compared", splits=("train", "test")
    )
    assert wanted.count() == 6


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"form": "median"}, "A reward is"),
        ({"not_applicable": "sometimes"}, "does not apply"),
        ({"only": "some"}, "Score all or"),
        ({"splits": ["dev"]}, "no split"),
        ({"sample": 0}, "Sample"),
        ({"budget": Budget(calls=0)}, "Calls"),
    ],
    ids=["form", "n/a", "only", "split", "sample", "budget"],
)
def test_start_is_refused_with_the_reason(how: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        reward_scores.start(version=approved(world(1)), by=None, **how)


def test_draft_and_missing_verifier_are_refused_and_two_runs_at_a_time() -> None:
    project = world(1)
    rubric = rubrics.create(project=project, name="R", by=None)
    draft = rubrics.draft(rubric=rubric, by=None)
    rubrics.add(version=draft, by=None, **CITES)
    with pytest.raises(Conflict, match="draft"):
        reward_scores.start(version=draft, by=None)
    version = rubrics.approve(version=draft, by=None)
    with pytest.raises(Invalid, match="none is named"):
        reward_scores.start(version=version, by=None)
    other = factories.judge(factories.project())
    with pytest.raises(Invalid, match="of this project"):
        reward_scores.start(version=version, by=None, judge=other)
    reward_scores.start(version=version, by=None, judge=factories.judge(project))
    with pytest.raises(Conflict, match="already"):
        reward_scores.start(version=version, by=None, judge=factories.judge(project))


def test_both_together_are_measured_on_test_pairs_of_which_both_sides_are_scored() -> None:
    project = world(pairs=12, test=8)
    version = approved(project, PROGRAM | {"weight": 4.0})
    run = scored(version)
    model = make_model(project)
    ids = sorted(texts(project))
    rng = np.random.default_rng(0)
    give_scores(model, {pk: float(rng.normal()) for pk in ids[2:]})
    found = reward_pairs.beside(version, model, folder=run.folder, weight=100.0)
    assert found.n == 7
    assert found.rubric.accuracy == 1.0
    assert found.both.accuracy == 1.0, "a weight of 100 leaves nothing to the model"
    alone = reward_pairs.beside(version, model, folder=run.folder, weight=0.0)
    assert alone.both.accuracy == alone.model.accuracy < 1.0
    assert found.scaling.center == pytest.approx(2.0)
    assert reward_pairs.beside(version, model, folder=Path("/nowhere"), weight=1.0) is None


@pytest.mark.neural
def test_reward_model_scores_every_response_once_as_it_would_itself() -> None:
    from annotator.jobs.training import train
    from annotator.services import training
    from models import gateway
    from tests.annotator import planted

    project = planted.preferences(60, raters=1)
    trained = training.start(
        project=project, objective="bradley-terry", backbone="hashing", options={"epochs": 1},
        by=None,
    )  # fmt: skip
    train(run_id=trained.pk)
    trained.refresh_from_db()
    assert trained.state == RunState.DONE, (trained.error, trained.log)
    model = RewardModel.objects.get(run=trained)
    run = done(reward_scores.start(reward_model=model, by=None))
    assert (run.state, run.error) == (RunState.DONE, "")
    n = Response.objects.filter(project=project).count()
    assert run.result["scored"] == run.result["summary"]["n"] == n
    first = (
        RewardScore.objects.filter(reward_model=model)
        .order_by("?")
        .select_related("response__prompt")[:5]
    )
    conversations = [(one.response.prompt.messages, one.response.text) for one in first]
    own = gateway.load_reward_model(training.artifact_folder(model)).score(conversations)
    assert [one.mean for one in first] == pytest.approx(own.tolist(), abs=1e-5)
    before = set(RewardScore.objects.values_list("pk", "at"))
    said = io.StringIO()
    call_command("score_reward_model", project.slug, "1", "--json", stdout=said, stderr=said)
    again = json.loads(said.getvalue().splitlines()[-1])
    assert (again["scored"], again["reward_model"]) == (n, 1), "by command, and nothing anew"
    assert set(RewardScore.objects.values_list("pk", "at")) == before
    with pytest.raises(CommandError, match="no reward model 7"):
        call_command("score_reward_model", project.slug, "7")


WORK = (
    "import sys, django; django.setup()\n"
    "from annotator.jobs.scoring import score\n"
    "score(run_id=int(sys.argv[1]))\n"
)


@pytest.mark.slow
def test_killed_worker_is_resumed_and_no_call_is_paid_twice(
    settings: Any, monkeypatch: Any
) -> None:
    project = world(pairs=15)
    with simulated(latency_ms=40) as server:
        judge = sim_judge(project, server, settings, concurrency=4)
        version = approved(
            project, *({"text": f"Has quality {n}"} for n in range(32)), verifier=judge
        )
        run = reward_scores.start(version=version, by=None)
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
            while not RewardScore.objects.exists():
                run.refresh_from_db()
                assert worker.poll() is None, (run.state, run.error, run.log)
                assert time.monotonic() < deadline, "it does not get on"
                time.sleep(0.02)
        finally:
            worker.kill()
            worker.wait()
        before = means(version)
        assert 0 < len(before) < 30
        Run.objects.filter(pk=run.pk).update(heartbeat_at=timezone.now() - timedelta(hours=1))
        assert runs.reap() == [run]
        server.turn(latency_ms=0)
        judge.endpoint.__class__.objects.filter(pk=judge.endpoint_id).update(concurrency=16)
        done(run)
        stats = server.stats()
    assert (run.state, run.error, run.attempt) == (RunState.DONE, "", 2)
    assert run.resumed_from.startswith("response ")
    assert stats["charged_per_key_max"] == 1
    assert LlmCall.objects.count() == run.counters["calls"] == 30 * 32
    assert len(means(version)) == 30
    assert before.items() <= means(version).items()
    assert CriterionVerdict.objects.count() == 30 * 32


def test_undone_import_takes_scores_and_verdicts_of_its_responses_along() -> None:
    project = world(pairs=3)
    run = Run.objects.create(
        project=project, kind=Run.Kind.IMPORT, title="I", state=RunState.DONE, result={"raters": {}}
    )
    prompt = factories.prompt(project, import_run_id=run.pk)
    gone = [factories.response(prompt, import_run_id=run.pk) for _ in range(2)]
    version = approved(project)
    scored(version)
    assert len(means(version)) == 8
    import_undo.undo(run=run, by=None)
    assert len(means(version)) == 6
    assert CriterionVerdict.objects.count() == 6
    left = set(CriterionVerdict.objects.values_list("response_id", flat=True))
    assert not left & {one.pk for one in gone}


def test_two_who_press_at_once_start_one_run() -> None:
    version = approved(world())
    refused: list[str] = []

    def press() -> None:
        try:
            reward_scores.start(version=version, by=None)
        except Conflict as error:
            refused.append(error.message)
        finally:
            connection.close()

    other = threading.Thread(target=press)
    with transaction.atomic():
        reward_scores.start(version=version, by=None)
        other.start()
        other.join(timeout=2)  # it waits for the first, whose run it cannot see yet
    other.join()
    assert Run.objects.filter(kind=Run.Kind.SCORE).count() == 1
    assert refused == ["A run scores by it already."]
