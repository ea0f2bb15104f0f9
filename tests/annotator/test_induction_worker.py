"""Every generator on the demo sets, from its page to its draft, with workers killed on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from redis import Redis

from annotator.celery import app
from annotator.demo import scenes, simulate
from annotator.jobs import watch
from annotator.models import (
    LlmCall,
    Membership,
    Project,
    Prompt,
    Role,
    RubricVersion,
    Run,
    RunState,
)
from annotator.services import demo, demo_judges, demo_scenes, runs
from rubrics.simulated.app import SimulatedApp
from rubrics.simulated.dials import named
from rubrics.simulated.ledger import Ledger
from rubrics.simulated.mind import Known
from tests import serving
from tests.annotator.held_worker import Nursery, nursery
from tests.simulated import SimulatedServer

# Draws depend on ids: with the same ids in every run, so is what is asked.
pytestmark = [pytest.mark.django_db(transaction=True, reset_sequences=True), pytest.mark.slow]

PROMPTS: Final = 15  # of either demo set, few so that it is quick
HELD_OUT: Final = 3
JUDGE: Final = "sim-careful"


@dataclass(frozen=True)
class Stage:
    """Where a run is killed; ``asked`` and ``replies`` as held_worker has them."""

    key: str
    asked: str | None = None
    replies: int = 0


@dataclass(frozen=True)
class Method:
    """Small options of a generator, its own stages, and a budget that ends before they do."""

    options: dict[str, Any]
    stages: tuple[Stage, ...]
    calls: int | None = None


def asks(key: str, replies: int) -> Stage:
    return Stage(key, key, replies)


METHODS: Final = {
    "program": Method(
        {"option_top": 3, "option_bootstraps": 0, "option_outer_folds": 0},
        (Stage("evaluate"), Stage("refine")),
    ),
    "autorule": Method(
        {"pairs": 8, "option_most_rules": 3, "option_verify_pairs": 3},
        (asks("explain", 2), asks("merge", 0), asks("verify", 2)),
        calls=8,
    ),
    "rlbff": Method(
        {"option_least_raters": 1, "option_most_criteria": 3},
        (asks("extract", 2), Stage("group")),
        calls=8,
    ),
    "arr": Method(
        {"pairs": 8, "option_criteria": 2, "option_others": 2, "option_max_rounds": 1,
         "option_selection": "best-subset", "option_subset_pairs": 8, "option_max_criteria": 3,
         "option_structure": "on", "option_ties": "on", "option_concurrency": 2},
        (asks("propose", 3), asks("structure", 0), asks("select", 2)),
        calls=40,
    ),
    "autorubric-t2i": Method(
        {"pairs": 20, "option_rules_per_pair": 1, "option_most_candidates": 6, "option_top": 3,
         "option_rounds": 1, "option_hard_pairs": 8, "option_hard_margin": 100, "option_bootstraps": 0},
        (asks("trace", 2), asks("merge", 0), asks("score 0", 5), Stage("fit 0"),
         asks("propose 1", 0), asks("score 1", 2), Stage("fit 1"), asks("measure", 2)),
        calls=15,
    ),
}  # fmt: skip
READ, WRITE = Stage("read"), Stage("write")
MEASURED: Final = (Stage("measure", "", 3), Stage("measure", "learned", 3))


class CountingApp(SimulatedApp):
    """How often each request was answered, by the key that its caller gave it."""

    def __init__(self, known: dict[str, Known]) -> None:
        super().__init__(named(), known=known)
        self.answered: Counter[str] = Counter()

    def fresh(self) -> None:
        self.ledger, self.answered = Ledger(), Counter()

    def _paid_for(self, body: Any, dials: Any, request: bytes, attempt: int, key: bytes) -> Any:
        self.answered[key.decode()] += 1
        return super()._paid_for(body, dials, request, attempt, key)


def _few(patch: pytest.MonkeyPatch) -> None:
    some = simulate.load_prompts()[:PROMPTS]
    patch.setattr(simulate, "load_prompts", lambda: some)
    patch.setattr(scenes, "SCENES", scenes.SCENES[:PROMPTS])


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedServer]:
    with pytest.MonkeyPatch.context() as patch:
        _few(patch)
        found = SimulatedServer(CountingApp(demo_judges.known()))
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def workers(
    django_db_setup: None, server: SimulatedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nursery]:
    folder = tmp_path_factory.mktemp("workers")
    env = serving.child_env(
        DJANGO_SETTINGS_MODULE="annotator.settings",
        QUEUE_PREFIX=app.conf.broker_transport_options["global_keyprefix"],
        LLM_HOSTS=server.host,
        TOUCHSTONE_VAR=str(folder),
        OMP_NUM_THREADS="1",
        PYTHONWARNINGS="ignore:You're running the worker with superuser privileges",
    )
    with nursery(folder, env) as found:
        yield found


@dataclass
class Bench:
    """A demo project whose owner's browser starts runs, and the worker that is killed on them."""

    project: Project
    client: Client
    app: CountingApp
    workers: Nursery
    in_flight: Counter[str] = field(default_factory=Counter)

    def start(self, method: str, **values: Any) -> Run:
        """As its form sends it, and the run that it leads to."""
        judge = self.project.judges.filter(name=JUDGE).first()
        given = {"method": method, "shown": method, "raters": "all"} | values
        if method != "program":
            given["judge"] = judge.pk
        response = self.client.post(reverse("rubric_induce", args=[self.project.slug]), given)
        assert response.status_code == 302, response.content.decode()
        run = Run.objects.latest("pk")
        assert response.url == reverse("run", args=[self.project.slug, run.pk])
        return run

    def kill_in(self, run: Run, stage: Stage) -> None:
        """A worker goes on with the run and is killed in a stage; the run waits for the next."""
        self.workers.hold(stage.key, stage.asked, stage.replies)
        self.workers.start()
        self.workers.wait(lambda: self._is_in(run, stage), lambda: (stage, _told(run)))
        self.workers.kill()
        run.refresh_from_db()
        assert run.state == RunState.RUNNING, "nobody could say that it was killed"
        known = {bytes(key).hex() for key in LlmCall.objects.values_list("key", flat=True)}
        self.in_flight.update(set(self.workers.sent) - known)
        _free_places()
        Run.objects.filter(pk=run.pk).update(heartbeat_at=timezone.now() - timedelta(hours=1))
        assert watch.look() == 1

    def _is_in(self, run: Run, stage: Stage) -> bool:
        run.refresh_from_db()
        assert run.is_active, (stage, _told(run))
        at = next((row["state"] for row in run.stages if row["key"] == stage.key), "")
        assert at in ("", "running"), f"it went through {stage}: {run.stages}"
        return at == "running" and self.workers.is_holding

    def finish(self, run: Run) -> None:
        self.workers.hold()
        self.workers.start()
        self.workers.wait(lambda: not _now(run).is_active, lambda: _told(run))
        assert run.state == RunState.DONE, _told(run)

    def page(self, run: Run) -> str:
        address = reverse("run", args=[self.project.slug, run.pk])
        return self.client.get(address).content.decode()


def _now(run: Run) -> Run:
    run.refresh_from_db()
    return run


def _told(run: Run) -> tuple[Any, ...]:
    run.refresh_from_db()
    return run.state, run.error, run.message, run.stages, run.log


def _free_places() -> None:
    """A dead worker's places at the endpoint, as when their lease ends."""
    prefix = app.conf.broker_transport_options["global_keyprefix"]
    with Redis.from_url(django_settings.REDIS_URL) as client:
        for key in client.scan_iter(f"{prefix}*:llm:*"):
            client.delete(key)


@pytest.fixture
def bench(
    request: pytest.FixtureRequest,
    workers: Nursery,
    server: SimulatedServer,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    """Few prompts of a demo set; by its parameter of the first or the second."""
    settings.SIMULATED_JUDGE, settings.LLM_HOSTS = server.host, [server.host]
    settings.MEDIA_ROOT = Path(workers.folder) / "media"
    _few(monkeypatch)
    monkeypatch.setattr(runs, "MAX_ATTEMPTS", 99)  # every stage is more than it would stand
    server.app.fresh()
    made = demo_scenes.load(demo.people()) if request.param == "scenes" else demo.load()
    demo_judges.add_judges(made.project)
    ids = list(made.project.prompts.order_by("pk").values_list("pk", flat=True))
    Prompt.objects.filter(pk__in=ids).update(split="train")
    Prompt.objects.filter(pk__in=ids[:HELD_OUT]).update(split="test")
    client = Client()
    client.force_login(Membership.objects.get(project=made.project, role=Role.OWNER).user)
    yield Bench(made.project, client, server.app, workers)
    workers.kill()


ON_TEXT = [("demo", name) for name in METHODS]
ON_IMAGES = [("scenes", name) for name in METHODS if name != "program"]
BOTH = pytest.mark.parametrize(
    ("bench", "method"), ON_TEXT + ON_IMAGES, indirect=["bench"],
    ids=[f"{where}-{name}" for where, name in ON_TEXT + ON_IMAGES],
)  # fmt: skip


@BOTH
def test_killed_in_every_stage_it_pays_once_writes_once_and_repeats_for_nothing(
    bench: Bench, method: str
) -> None:
    known = METHODS[method]
    run = bench.start(method, **known.options)
    killed = [READ]
    bench.kill_in(run, READ)
    for stage in known.stages:
        named = Stage(f"{method}:{stage.key}", stage.asked, stage.replies)
        bench.kill_in(run, named)
        killed.append(named)
    assert not RubricVersion.objects.exists()
    bench.kill_in(run, WRITE)
    killed.append(WRITE)
    assert not RubricVersion.objects.exists(), "what was not committed is not there"
    for stage in MEASURED if known.calls else (Stage("measure"),):
        bench.kill_in(run, stage)
        killed.append(stage)
        version = RubricVersion.objects.get()
    ids = list(version.criteria.values_list("pk", flat=True))
    bench.finish(run)
    assert run.attempt == len(killed) + 1
    assert [row["key"] for row in run.stages] == list(dict.fromkeys(one.key for one in killed))
    assert {row["state"] for row in run.stages} == {"done"}
    version = RubricVersion.objects.get()
    assert (version.run, version.is_draft) == (run, True)
    assert list(version.criteria.values_list("pk", flat=True)) == ids != []
    assert run.result["held_out"]["n"] > 0
    assert paid(bench, run) == bool(known.calls)

    before = Counter(bench.app.answered)
    again = bench.start(method, **known.options)
    bench.finish(again)
    assert bench.app.answered == before, "nothing was asked a second time"
    assert again.counters.get("calls", 0) == 0
    assert again.result["held_out"] == run.result["held_out"]
    assert RubricVersion.objects.get().run == again
    texts = [one["text"] for one in run.result["criteria"]]
    assert [one["text"] for one in again.result["criteria"]] == texts != []


def paid(bench: Bench, run: Run) -> bool:
    """Every reply once, apart from what was in flight at a kill; whether there was any."""
    answered = bench.app.answered
    twice = {key: n for key, n in answered.items() if n > 1}
    assert all(n <= 1 + bench.in_flight[key] for key, n in twice.items()), twice
    ledger = bench.app.ledger.stats()
    kept = LlmCall.objects.count()
    assert ledger["charged"] == len(answered) == kept
    assert ledger["charged_per_key_max"] <= 1
    assert ledger["replayed"] == answered.total() - kept
    assert run.counters.get("calls", 0) == kept
    return kept > 0


@pytest.mark.parametrize(
    ("bench", "method"),
    [row for row in ON_TEXT + ON_IMAGES if METHODS[row[1]].calls],
    indirect=["bench"],
    ids=[f"{where}-{name}" for where, name in ON_TEXT + ON_IMAGES if METHODS[name].calls],
)
def test_small_budget_ends_it_with_its_candidates_kept(bench: Bench, method: str) -> None:
    known = METHODS[method]
    run = bench.start(method, **known.options, calls=known.calls, name="Short of money")
    bench.finish(run)
    assert bench.app.answered.total() == run.counters["calls"] == known.calls
    assert run.result["stopped"] == "budget"
    version = RubricVersion.objects.get()
    assert version.figures["stopped"] == "budget"
    assert version.criteria.filter(decision="proposed").exists()
    assert len(run.result["criteria"]) == version.criteria.count()
    assert run.result["held_out"]["accuracy"] is None
    assert "the budget was spent" in run.result["held_out"]["reason"]
    html = bench.page(run)
    assert "Its budget is spent" in html
    address = reverse(
        "rubric_version", args=[bench.project.slug, version.rubric_id, version.number]
    )
    assert address in html
    assert version.criteria.first().text in bench.client.get(address).content.decode()
