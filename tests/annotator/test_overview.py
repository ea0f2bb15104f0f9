"""The overview: figures that are true, whatever there is; the next step; cost that stays put."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import combinations

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.models import (
    DatasetVersion,
    Judgment,
    Preference,
    Project,
    Rater,
    RewardModel,
    Role,
    Run,
    User,
)
from annotator.queries import figures, overview, steps
from annotator.queries.figures import Figures
from annotator.queries.steps import Facts
from annotator.services import raters
from models.intervals import wilson
from tests import factories
from tests.annotator import measured

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return factories.project("letters")


@pytest.fixture
def alice(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Alice")


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page(user: User, project: Project) -> str:
    response = client_of(user).get(reverse("overview", args=[project.slug]))
    assert response.status_code == 200
    return response.content.decode()


def count(project: Project) -> Figures:
    figures.forget(project.pk)
    return figures.figures([project.pk])[project.pk]


def train(project: Project, number: int = 1, **metrics: object) -> RewardModel:
    run = Run.objects.create(project=project, kind="train", title="Train", state="done")
    return RewardModel.objects.create(
        project=project, run=run, number=number, objective="bradley-terry", backbone="hashing",
        metrics=metrics, artifact="x",
    )  # fmt: skip


def build(project: Project, number: int = 1) -> DatasetVersion:
    run = Run.objects.create(project=project, kind="export", title="Export", state="done")
    return DatasetVersion.objects.create(
        project=project, run=run, number=number, format="trl-preference", folder="x", rows=5,
        checksum="0" * 64,
    )  # fmt: skip


# Counts -----------------------------------------------------------------------------------------


def test_empty_project_says_what_fills_it(project: Project, alice: User) -> None:
    text = page(alice, project)
    assert "Import prompts and answers" in text
    assert "There is nothing to judge yet." in text
    assert text.count("primary") == 1


def test_counts_are_of_this_project_alone(project: Project) -> None:
    rater = factories.rater(project)
    done = factories.pairwise_task(project, overlap=1)
    factories.pairwise_task(project, overlap=3)
    factories.judgment(rater, done, "tie")
    elsewhere = factories.project()
    factories.judgment(factories.rater(elsewhere), factories.pairwise_task(elsewhere))
    found = count(project)
    assert (found.prompts, found.tasks, found.tasks_done) == (2, 2, 1)
    assert (found.wanted, found.judged, found.open, found.percent) == (4, 1, 3, 25)
    assert (found.edges, found.decided, found.ties) == (1, 0, 1)
    assert found.daily[-1][1] == 1
    assert not found.is_complete


def test_extra_judgments_do_not_make_a_project_look_done(project: Project) -> None:
    task = factories.pairwise_task(project, overlap=1)
    factories.pairwise_task(project, overlap=1)
    for _ in range(2):
        factories.judgment(factories.rater(project), task)
    found = count(project)
    assert (found.judged, found.open) == (1, 1)


def test_imported_votes_are_counted_apart(project: Project) -> None:
    task = factories.pairwise_task(project, overlap=1)
    outside = raters.imported(project=project, name="crowd")
    now = timezone.now()
    judgment = Judgment.objects.create(
        project=project, task=task, rater=outside, kind=Judgment.Kind.IMPORTED, ranks=[1, 2],
        strength=1, submitted_at=now,
    )  # fmt: skip
    Preference.objects.create(
        project=project, judgment=judgment, task=task, prompt_id=task.prompt_id, rater=outside,
        a_id=task.response_ids[0], b_id=task.response_ids[1], outcome=1, strength=1,
    )  # fmt: skip
    found = count(project)
    assert found.imported == 1
    assert found.judged == 0
    assert sum(n for _, n in found.daily) == 0
    assert found.decided == 1


def test_figures_are_counted_once_a_minute(project: Project) -> None:
    first = count(project)
    factories.pairwise_task(project)
    with CaptureQueriesContext(connection) as queries:
        assert figures.figures([project.pk])[project.pk] == first
    assert len(queries) == 0
    assert count(project).tasks == 1


def test_old_figures_stand_in_while_one_request_counts(project: Project) -> None:
    """Of many requests that find an old value, one counts again."""
    old, calls = Figures(tasks=7), []

    def compute(ids: list[int]) -> dict[int, Figures]:
        calls.append(ids)
        # Another request arrives while this one is counting.
        seen = figures.cached("figures", [project.pk], compute)
        assert seen[project.pk] == old
        return {project.pk: Figures(tasks=8)}

    cache.set(f"figures:1:{project.pk}", (0.0, old), 60)
    assert figures.cached("figures", [project.pk], compute)[project.pk].tasks == 8
    assert calls == [[project.pk]]


# Agreement --------------------------------------------------------------------------------------


def add_votes(project: Project, votes: list[list[int]], people: list[Rater]) -> None:
    """One pair per row, one outcome per rater; two pairs to a prompt."""
    prompt = None
    for place, outcomes in enumerate(votes):
        prompt = factories.prompt(project) if place % 2 == 0 or prompt is None else prompt
        task = factories.pairwise_task(project, of=prompt)
        for rater, outcome in zip(people, outcomes, strict=False):
            judgment = Judgment.objects.create(
                project=project, task=task, rater=rater, ranks=[1, 2], strength=1,
                submitted_at=timezone.now(),
            )  # fmt: skip
            Preference.objects.create(
                project=project, judgment=judgment, task=task, prompt_id=task.prompt_id,
                rater=rater, a_id=task.response_ids[0], b_id=task.response_ids[1],
                outcome=outcome, strength=1,
            )  # fmt: skip


def by_hand(votes: list[list[int]]) -> tuple[int, int, int]:
    agreeing = comparisons = pairs = 0
    for outcomes in votes:
        found = list(combinations(outcomes, 2))
        pairs += bool(found)
        comparisons += len(found)
        agreeing += sum(a == b for a, b in found)
    return agreeing, comparisons, pairs


outcomes = st.lists(st.sampled_from([-1, 0, 1]), max_size=5)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(votes=st.lists(outcomes, max_size=8), sampled=st.booleans())
def test_agreement_is_that_of_every_pair_of_raters(votes: list[list[int]], sampled: bool) -> None:
    project = factories.project()
    people = [factories.rater(project) for _ in range(5)]
    add_votes(project, votes, people)
    edges = figures.FULL_EDGES + 1 if sampled else sum(map(len, votes))
    found = figures._agreements({project.pk: edges}).get(project.pk)
    agreeing, comparisons, pairs = by_hand(votes)
    if not comparisons:
        assert found is None
        return
    assert found is not None
    assert found.share == pytest.approx(agreeing / comparisons)
    assert (found.comparisons, found.pairs, found.sampled) == (comparisons, pairs, sampled)
    assert 0 <= found.low <= found.high <= 1
    assert found.low < 1
    assert found.high > 0


def test_agreement_of_a_sample_reads_only_its_prompts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [factories.rater(project) for _ in range(2)]
    add_votes(project, [[1, 1]] * 40, people)  # 20 prompts
    monkeypatch.setattr(figures, "SAMPLE_PROMPTS", 5)
    found = figures._agreements({project.pk: figures.FULL_EDGES + 1})[project.pk]
    assert found.pairs == 10
    # All agree: a bootstrap would claim certainty, Wilson over the five prompts does not.
    assert (found.low, found.high) == pytest.approx(wilson(5, 5))


def test_agreement_leaves_golds_out(project: Project) -> None:
    people = [factories.rater(project) for _ in range(2)]
    add_votes(project, [[1, 1], [1, 1]], people)
    Preference.objects.filter(project=project).update(is_gold=True)
    assert count(project).agreement is None
    add_votes(project, [[1, -1]], people)
    found = count(project).agreement
    assert found is not None
    assert (found.share, found.pairs) == (0.0, 1)


def test_agreement_leaves_judges_out_and_names_imported_raters(project: Project) -> None:
    person = factories.rater(project)
    judge = Rater.objects.create(project=project, kind=Rater.Kind.JUDGE, name="judge v1")
    add_votes(project, [[1, 1]], [person, judge])
    assert count(project).agreement is None
    add_votes(project, [[1, -1]], [person, raters.imported(project=project, name="crowd")])
    found = count(project).agreement
    assert found is not None
    assert (found.share, found.comparisons, found.imported) == (0.0, 1, True)


# Pace -------------------------------------------------------------------------------------------


def days(*counts: int) -> list[tuple[date, int]]:
    today = timezone.localdate()
    return [(today - timedelta(days=len(counts) - 1 - n), c) for n, c in enumerate(counts)]


def test_pace_is_the_mean_of_whole_days_with_its_interval() -> None:
    found = figures.pace(days(*[10, 20] * 14, 3))
    assert found is not None
    assert found.a_day == 15
    assert found.days == figures.PACE_DAYS
    assert found.low < 15 < found.high


def test_pace_begins_with_the_first_judgment() -> None:
    found = figures.pace(days(*[0] * 20, 40, 60, 5))
    assert found is not None
    assert (found.a_day, found.days) == (50, 2)


def test_pace_of_a_first_day_is_a_wide_guess() -> None:
    found = figures.pace(days(*[0] * 27, 12))
    assert found is not None
    assert (found.a_day, found.low, found.high, found.days) == (12, 0, 24, 1)


def test_pace_of_nothing_is_none() -> None:
    assert figures.pace(days(*[0] * 28)) is None
    assert figures.pace([]) is None


@given(
    open_=st.integers(0, 10**9),
    counts=st.lists(st.integers(0, 10**6), min_size=28, max_size=28),
)
def test_forecast_is_in_order_and_ahead(open_: int, counts: list[int]) -> None:
    today = date(2026, 3, 1)
    found = figures.forecast(open_, figures.pace(days(*counts)), today=today)
    if found is None:
        return
    assert today < found.earliest <= found.about
    assert found.latest is None or found.latest >= found.about


def test_forecast_knows_when_it_may_stall() -> None:
    uneven = figures.pace(days(*[0] * 26, 100, 0, 0))
    found = figures.forecast(500, uneven, today=timezone.localdate())
    assert found is not None
    assert found.latest is None
    assert found.range_text.endswith("or later")


# What to do next --------------------------------------------------------------------------------

EMPTY = Figures()
NEW = Figures(prompts=9, tasks=9, wanted=90)
SOME = Figures(prompts=9, tasks=9, wanted=90, judged=60, edges=60, decided=55)
FULL = Figures(prompts=9, tasks=9, tasks_done=9, wanted=90, judged=90, edges=90, decided=80)


@pytest.mark.parametrize(
    ("counted", "known", "label"),
    [
        (EMPTY, Facts(), "Import prompts and answers"),
        (NEW, Facts(), "Invite people"),
        (NEW, Facts(helpers=2), "Annotate"),
        (SOME, Facts(helpers=2), "Train a reward model"),
        (SOME, Facts(training_run=4, active_run=4), "Export a dataset"),
        (SOME, Facts(model=1), "Export a dataset"),
        (SOME, Facts(model=1, dataset=2, new_votes=9), "Build version 3"),
        (SOME, Facts(model=1, dataset=2), "Induce a rubric"),
        (SOME, Facts(model=1, dataset=2, rubrics=1), "Annotate"),
        (SOME, Facts(model=1, dataset=2, rubrics=1, rubric_run=9), "Annotate"),
        (FULL, Facts(model=1, dataset=2, rubrics=1), None),
        (FULL, Facts(model=1, dataset=2, rubrics=1, rubric_run=9), "Watch run 9"),
        (FULL, Facts(model=1, dataset=2, rubrics=1, training_run=4), "Watch run 4"),
        (
            FULL,
            Facts(model=1, dataset=2, rubrics=1, draft=5, draft_number=2, draft_waiting=3),
            "Decide on criteria",
        ),
        (FULL, Facts(model=1, dataset=2, rubrics=1, draft=5, draft_number=2), "Approve the draft"),
        (FULL, Facts(latest_run=7, latest_state="failed"), "Look at run 7, which failed"),
    ],
)
def test_best_step_follows_the_loop(counted: Figures, known: Facts, label: str | None) -> None:
    step = steps.best("letters", counted, known)
    assert (step and step.label) == label


def test_facts_are_read_off_the_tables(project: Project, alice: User) -> None:
    factories.member(project, Role.REVIEWER)
    old = Run.objects.create(project=project, kind="train", title="T", state="running")
    train(project, number=3)
    version = build(project, number=2)
    factories.judgment(factories.rater(project), factories.pairwise_task(project))
    last = Run.objects.create(project=project, kind="export", title="E", state="failed")
    other = factories.project()
    train(other, number=9)
    found = steps.facts([project.pk, other.pk])
    assert found[project.pk] == Facts(
        helpers=2, active_run=old.pk, training_run=old.pk, latest_run=last.pk,
        latest_state="failed", latest_title="E", model=3, dataset=2, dataset_rows=5,
        dataset_at=version.created_at, new_votes=1,
    )  # fmt: skip
    assert found[other.pk].model == 9
    assert steps.facts([]) == {}


# The page ---------------------------------------------------------------------------------------


def test_page_shows_the_model_with_interval_and_ceiling(project: Project, alice: User) -> None:
    factories.pairwise_task(project)
    train(
        project, accuracy=0.741, interval=[0.699, 0.779], test_pairs=460,
        baselines={
            "longer_wins": {"accuracy": 0.541, "interval": [0.496, 0.586], "n": 460},
            "human_ceiling": {"accuracy": 0.784, "interval": [0.76, 0.806], "n": 900},
        },
    )  # fmt: skip
    text = page(alice, project)
    assert "74.1\u00a0%" in text
    assert "[69.9,\u00a077.9]" in text
    assert "longer wins" in text
    assert "people 78.4" in text


@pytest.mark.parametrize("baselines", [{}, {"human_ceiling": {"accuracy": None, "n": 0}}, None])
def test_page_lives_with_a_model_that_was_not_measured(
    project: Project, alice: User, baselines: object
) -> None:
    train(project, accuracy=None, interval=None, test_pairs=0, baselines=baselines)
    assert "nothing to measure it on" in page(alice, project)


def test_page_says_how_far_an_export_is_behind(project: Project, alice: User) -> None:
    build(project)
    assert "Nothing was judged since version 1." in page(alice, project)
    factories.judgment(factories.rater(project), factories.pairwise_task(project))
    assert "1 judgment came in since version 1." in page(alice, project)


def test_page_has_one_primary_button_and_none_that_a_reviewer_may_not_press(
    project: Project, alice: User
) -> None:
    bob = factories.member(project, Role.REVIEWER)
    factories.pairwise_task(project)
    assert page(alice, project).count("primary") == 1
    text = page(bob, project)
    assert text.count("primary") == 0
    for name in ("settings", "members", "import_new", "train", "export"):
        assert reverse(name, args=[project.slug]) not in text


def test_page_leads_to_the_draft_that_waits(project: Project, alice: User) -> None:
    factories.pairwise_task(project)
    version = measured.version_of(project)
    measured.measure(version)
    text = page(alice, project)
    assert "4 criteria wait for you." in text
    assert reverse("rubric_version", args=[project.slug, version.rubric_id, 1]) in text
    assert "75.0" in text  # held out, as its measurement says


def test_project_text_is_shown_as_text(project: Project, alice: User) -> None:
    Project.objects.filter(pk=project.pk).update(
        name="<script>alert(1)</script>", question="<img src=x onerror=alert(2)>"
    )
    Run.objects.create(project=project, kind="import", title="<b>x</b>", state="failed",
                       error="<svg onload=alert(3)>")  # fmt: skip
    text = page(alice, project)
    for payload in ("<script>alert", "<img src=x", "<b>x</b>", "<svg onload"):
        assert payload not in text


def test_page_costs_the_same_as_its_rows_double(project: Project, alice: User) -> None:
    client, url = client_of(alice), reverse("overview", args=[project.slug])

    def fill(number: int) -> None:
        for _ in range(4):
            task = factories.pairwise_task(project, overlap=3)
            for _ in range(2):
                factories.judgment(factories.rater(project), task)
        train(project, number=number, accuracy=0.7, interval=[0.6, 0.8], test_pairs=40)
        build(project, number=number)

    def cost() -> int:
        factories.forget_cached()
        with CaptureQueriesContext(connection) as found:
            assert client.get(url).status_code == 200
        return len(found)

    fill(1)
    few = cost()
    fill(2)
    fill(3)
    assert cost() == few
    with CaptureQueriesContext(connection) as warm:
        client.get(url)
    assert len(warm) <= 12


def test_overview_is_made_of_what_it_shows(project: Project) -> None:
    found = overview.overview(project, is_owner=False)
    assert found.best is None
    assert found.models == []
    assert found.version is None
