"""The attack battery through a real server: what reaches the judge, what is kept, what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from scipy.stats import binom

from annotator.errors import Conflict, Invalid
from annotator.jobs import judging as jobs
from annotator.models import (
    Battery,
    Judge,
    Judgment,
    LlmCall,
    Preference,
    Project,
    Prompt,
    Response,
    Run,
    RunState,
    Task,
)
from annotator.queries import battery as queries
from annotator.services import battery, endpoints, judges, runs
from models.intervals import wilson
from rubrics.battery import BY_KEY, PROBES
from rubrics.judging.sections import read_sections
from tests import factories
from tests.simulated import MODEL, SimulatedServer, simulated

pytestmark = pytest.mark.django_db(transaction=True)

TRIES = 20
# What every probe is worth to the simulated judge where no key says otherwise: never good.
HARMLESS = {"noise": 0.0, "tie_margin": 0.0}


def filled(n: int = TRIES) -> Project:
    project = factories.project(question="Which answer is more helpful?")
    for number in range(n):
        factories.pairwise_task(
            project,
            texts=(
                f"The harbor at station {number} freezes in late autumn because the water is fresh.",
                f"Station {number} has a harbor that is closed when the ice comes, usually in May.",
            ),
        )
    return project


def judge_of(project: Project, server: SimulatedServer, **options: Any) -> Judge:
    endpoint = endpoints.add(
        project=project, name="sim", base_url=server.url, by=None,
        concurrency=8, simulated=True,
    )  # fmt: skip
    chosen = {"models": [MODEL], **options}
    return judges.add(
        project=project, name="Sim", kind="llm", options=chosen, endpoint=endpoint, by=None
    )


def done(run: Run, *, state: str = RunState.DONE) -> Run:
    jobs.battery(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == state, (run.error, run.log)
    return run


def by_key(found: Battery) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in found.probes}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A battery of four probes, where it does not matter which."""
    monkeypatch.setattr(battery, "PROBES", PROBES[:4])


@pytest.fixture
def allow(settings: Any) -> Any:
    def allowed(server: SimulatedServer) -> SimulatedServer:
        settings.LLM_HOSTS = [server.host]
        return server

    return allowed


def test_planted_weakness_fails_the_gate_and_the_rest_passes(allow: Any) -> None:
    project = filled()
    keys = {" ": 1.0, BY_KEY["opener"].make(None): 0.5}
    with simulated(keys=keys, **HARMLESS) as server:
        judge = judge_of(project, allow(server), orders="one")
        run = done(battery.start(judge=judge, tries=TRIES, by=None))
    found = Battery.objects.get(judge=judge)
    probes = by_key(found)
    assert list(probes) == [probe.key for probe in PROBES]
    assert probes["blank"]["fooled"] == probes["blank"]["tries"] == TRIES
    low, high = binom.interval(0.9999, TRIES, 0.5)
    assert low <= probes["opener"]["fooled"] <= high
    assert not found.is_passed
    assert run.result["failed"] == [key for key, one in probes.items() if not one["is_passed"]]
    assert {"blank", "opener"} <= set(run.result["failed"])
    for key in ("full-stop", "comma", "colon", "empty", "whitespace"):
        assert (probes[key]["fooled"], probes[key]["is_passed"]) == (0, True), key
    example = probes["blank"]["examples"][0]
    assert Prompt.objects.filter(pk=example["prompt"], project=project).exists()
    call = LlmCall.objects.get(project=project, key=bytes.fromhex(example["call"]))
    assert call.run_id == run.pk
    for one in probes.values():
        readable = one["tries"] - one["unreadable"]
        assert one["interval"] == pytest.approx(list(wilson(one["fooled"], readable)))


def test_blank_probe_is_in_the_request_to_the_letter(allow: Any) -> None:
    project = filled()
    with simulated(**HARMLESS) as server:
        judge = judge_of(project, allow(server), orders="one")
        done(battery.start(judge=judge, tries=TRIES, by=None))
    wanted = {probe.key: probe.make for probe in PROBES}
    genuine = {one.text: one for one in queries.genuines(project, judge, most=TRIES)}
    seen: dict[str, set[int]] = {}
    for request in LlmCall.objects.filter(project=project).values_list("request", flat=True):
        text = "".join(
            part["text"] for message in request["messages"] for part in message["content"]
        )
        sections = read_sections(text)
        pair = (sections["answer A"], sections["answer B"])
        for own, other in (pair, pair[::-1]):
            for key, make in wanted.items():
                if other in genuine and own == make(genuine[other]):
                    seen.setdefault(key, set()).add(genuine[other].id)
    assert {key: len(prompts) for key, prompts in seen.items()} == dict.fromkeys(wanted, TRIES)


@pytest.mark.usefixtures("few")
def test_again_costs_nothing_and_a_killed_run_pays_once(allow: Any) -> None:
    project = filled()
    with simulated(**HARMLESS) as server:
        judge = judge_of(project, allow(server), orders="one")
        first = battery.start(judge=judge, tries=TRIES, by=None, budget={"calls": 30})
        done(first, state=RunState.FAILED)
        assert "budget" in first.error
        assert not Battery.objects.exists()
        done(battery.start(judge=judge, tries=TRIES, by=None))
        paid = LlmCall.objects.count()
        assert server.stats()["requests"] == paid, "what the first one asked was not asked again"
        again = done(battery.start(judge=judge, tries=TRIES, by=None))
        assert server.stats()["requests"] == paid
        assert again.counters["calls"] == 0
        Run.objects.filter(pk=again.pk).update(state=RunState.QUEUED)
        done(again)
    one, two = Battery.objects.order_by("pk")
    assert two.run_id == again.pk, "an attempt that is done again replaces its own"
    assert one.probes == two.probes


@pytest.mark.usefixtures("few")
def test_unreadable_answers_are_counted_by_themselves(allow: Any) -> None:
    project = filled()
    with simulated(malformed=1.0, **HARMLESS) as server:
        judge = judge_of(project, allow(server), repairs=0, orders="one")
        run = done(battery.start(judge=judge, tries=TRIES, by=None))
    found = Battery.objects.get()
    unreadable = sum(one["unreadable"] for one in found.probes)
    assert run.result["unreadable"] == unreadable > run.result["tries"]
    assert not found.is_passed, "a judge that cannot be read has resisted nothing"


@pytest.mark.usefixtures("few")
def test_nothing_of_the_battery_gets_into_the_project(allow: Any) -> None:
    project = filled()
    tables = (Prompt, Response, Task, Judgment, Preference)
    before = [table.objects.count() for table in tables]
    with simulated(**HARMLESS) as server:
        judge = judge_of(project, allow(server), orders="one")
        done(battery.start(judge=judge, tries=TRIES, by=None))
    assert Battery.objects.exists()
    assert [table.objects.count() for table in tables] == before
    assert not Response.objects.filter(text__in=[" ", ".", ":", ",", "Solution"]).exists()


def test_programs_go_through_it_without_a_call() -> None:
    project = filled()
    judge = factories.judge(project, kind="program", options={"criteria": ["words"]})
    done(battery.start(judge=judge, tries=TRIES, by=None))
    probes = by_key(Battery.objects.get())
    assert probes["padding"]["fooled"] == TRIES, "the longer answer wins"
    assert probes["blank"]["fooled"] == 0


@pytest.mark.parametrize(
    "values", [{"tries": 19}, {"tries": 2_001}, {"limit": 0.0}, {"limit": 0.06}]
)
def test_nonsense_is_refused(values: dict[str, Any]) -> None:
    project = filled(1)
    with pytest.raises(Invalid):
        battery.start(judge=factories.judge(project), by=None, **values)


def test_too_few_prompts_are_refused_and_a_second_run_at_once_too() -> None:
    judge = factories.judge(filled(19))
    with pytest.raises(Conflict, match="there are 19"):
        battery.start(judge=judge, by=None)
    with pytest.raises(Conflict, match="no answers in text"):
        battery.start(judge=factories.judge(factories.project()), by=None)
    ready = factories.judge(filled())
    run = battery.start(judge=ready, by=None)
    with pytest.raises(Conflict, match="already running"):
        battery.start(judge=ready, by=None)
    runs.cancel(run=run, by=None)
    battery.start(judge=ready, by=None)


def test_what_a_number_of_tries_can_show() -> None:
    for limit in (0.01, 0.02, 0.05):
        n = battery.tries_to_prove(limit)
        assert wilson(0, n)[1] <= limit < wilson(0, n - 1)[1]
    assert battery.tries_to_prove(0.01) == 381
