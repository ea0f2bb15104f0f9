"""The named orders of tasks, and changes of a whole queue."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.utils import timezone

from annotator.models import Consensus, Project, ProjectSettings, Rater, Role, Run, Task
from annotator.samplers import SAMPLERS
from annotator.services import judgments, projects, queue, queue_order, runs, tasks
from tests import factories
from tests.annotator.imported import jsonl, pair, read

pytestmark = pytest.mark.django_db
TASKS = 12


def of(sampler: str, **settings: object) -> tuple[Project, list[int]]:
    """A project in this order and its tasks as imported."""
    project = factories.project(settings={"sampler": sampler, "gold_rate": 0.0, **settings})
    ids = [factories.pairwise_task(project).pk for _ in range(TASKS)]
    queue.reorder(project.pk)
    return project, ids


def drain(rater: Rater) -> list[int]:
    """Everything this rater gets, in order."""
    order = []
    while lease := queue.claim_next(project=rater.project, rater=rater):
        order.append(lease.task_id)
        submit(rater, lease)
    return order


def submit(rater: Rater, lease: queue.Lease) -> None:
    judgments.answer(
        assignment_id=lease.assignment_id,
        rater=rater,
        answers={"verdict": "a1"},
        options=rater.project.options,
    )


def consensus(task_id: int, agreement: float | None) -> None:
    project_id = Task.objects.values_list("project_id", flat=True).get(pk=task_id)
    Consensus.objects.create(
        task_id=task_id, project_id=project_id, aggregator="majority", ranks=[1, 2],
        posterior=0.9, votes=2, agreement=agreement, computed_at=timezone.now(),
    )  # fmt: skip


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_order_hands_out_each_task_once(sampler: str) -> None:
    project, ids = of(sampler, overlap=2)
    people = [factories.rater(project) for _ in range(3)]
    had = [drain(person) for person in people]
    assert sorted(had[0]) == sorted(had[1]) == ids
    assert had[2] == []


def test_sequential_is_the_order_of_import() -> None:
    project, ids = of("sequential")
    assert drain(factories.rater(project)) == ids


def test_random_is_an_order_of_its_own_and_the_same_for_everybody() -> None:
    project, ids = of("random", overlap=2)
    one, other = drain(factories.rater(project)), drain(factories.rater(project))
    assert one == other
    assert one != ids, "one in 479 million by chance, and the ids of a test run vary"
    assert queue.reorder(project.pk) == 0, "written again it is the same"


def test_fewest_votes_first_gives_each_task_one_vote_before_any_gets_two() -> None:
    project, ids = of("fewest-votes-first", overlap=3)
    people = [factories.rater(project) for _ in range(3)]
    handed = []
    for turn in range(3 * TASKS):
        person = people[turn % 3]
        lease = queue.claim_next(project=project, rater=person)
        handed.append(lease.task_id)
        submit(person, lease)
    assert handed[:TASKS] == ids, "whoever asks, the first round comes first"
    for turn in range(1, 3):
        counts = [handed[: turn * TASKS].count(pk) for pk in ids]
        # Nobody gets a task twice, so a round may end a little ragged, never by a whole round.
        assert max(counts) - min(counts) <= 1


def test_fewest_votes_first_stays_exact_when_places_come_back() -> None:
    project, ids = of("fewest-votes-first", overlap=2)
    picky, other = factories.rater(project), factories.rater(project)
    for _ in range(TASKS):
        lease = queue.claim_next(project=project, rater=picky)
        judgments.skip(assignment_id=lease.assignment_id, rater=picky, reason="")
    places = dict(Task.objects.filter(project=project).values_list("pk", "position"))
    assert places == {pk: pk for pk in ids}, "as if nobody had held them"
    assert drain(other) == ids


def test_least_agreed_first_puts_disputes_before_the_unknown_and_unanimity_last() -> None:
    project, ids = of("least-agreed-first", overlap=2)
    for pk, agreement in zip(ids[:4], [1.0, 0.5, 0.1, None], strict=True):
        consensus(pk, agreement)
    queue.reorder(project.pk)
    assert drain(factories.rater(project)) == [ids[2], ids[1], *ids[3:], ids[0]]


def test_changed_setting_reorders_open_tasks_and_import_order_comes_back() -> None:
    project, ids = of("sequential", overlap=2)
    owner = factories.member(project, Role.OWNER)
    for sampler, expected in (("random", None), ("sequential", ids)):
        options = ProjectSettings.model_validate({**project.settings, "sampler": sampler})
        projects.change(project=project, by=owner, texts={}, options=options)
        project.refresh_from_db()
        order = list(Task.objects.filter(project=project).order_by("position").values_list("pk"))
        order = [pk for (pk,) in order]
        assert order == expected or (expected is None and order != ids)


def test_reorder_resets_marks_so_that_nothing_is_lost() -> None:
    project, ids = of("sequential", overlap=2)
    rater = factories.rater(project)
    first = queue.claim_next(project=project, rater=rater)
    submit(rater, first)
    Project.objects.filter(pk=project.pk).update(settings={**project.settings, "sampler": "random"})
    queue.reorder(project.pk)
    rater.refresh_from_db()
    assert rater.mark_position is None
    assert sorted(drain(Rater.objects.get(pk=rater.pk))) == ids[1:]


def test_overlap_of_a_large_project_changes_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "INLINE", 5)
    monkeypatch.setattr(queue_order, "CHUNK", 5)
    project, ids = of("sequential")
    owner = factories.member(project, Role.OWNER)
    Task.objects.filter(pk=ids[0]).update(overlap=4, free=4)  # set apart by its owner
    options = ProjectSettings.model_validate({**project.settings, "overlap": 3})
    projects.change(project=project, by=owner, texts={}, options=options)
    assert Task.objects.filter(project=project, overlap=3).count() == 0, "not in the request"
    run = Run.objects.get(project=project, kind=Run.Kind.TASKS)
    pen = runs.begin(run_id=run.pk, worker="test")
    assert tasks.perform(pen) == {"changed": TASKS - 1}
    assert tasks.perform(pen) == {"changed": 0}, "a second time changes nothing"
    assert set(Task.objects.filter(project=project).values_list("overlap", "free")) == {
        (3, 3),
        (4, 4),
    }


def test_run_stops_after_a_whole_chunk_and_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "INLINE", 5)
    monkeypatch.setattr(queue_order, "CHUNK", 5)
    project, ids = of("sequential")
    owner = factories.member(project, Role.OWNER)
    run = tasks.change_matching(
        project=project,
        chosen=tasks.Filter(),
        change=tasks.Change("priority", 7),
        by=owner,
    )
    pen = runs.begin(run_id=run.pk, worker="test")
    runs.cancel(run=pen.run, by=owner)
    with pytest.raises(runs.Stopped):
        tasks.perform(pen)
    changed = Task.objects.filter(project=project, priority=7)
    assert list(changed.order_by("pk").values_list("pk", flat=True)) == ids[:5]
    Run.objects.filter(pk=run.pk).update(state="running")
    assert tasks.perform(pen)["changed"] == TASKS - 5
    assert changed.count() == TASKS


@pytest.mark.django_db(transaction=True)  # an import has a connection of its own
def test_imported_tasks_take_their_place_in_the_order(tmp_path: Path) -> None:
    project, _ = of("fewest-votes-first", overlap=3)
    first = factories.rater(project)
    drain(first)
    read(project, jsonl(tmp_path / "more.jsonl", [pair(n) for n in range(3)]))
    fresh = set(Task.objects.filter(project=project, judged=0).values_list("pk", flat=True))
    assert len(fresh) == 3
    assert set(drain(factories.rater(project))[:3]) == fresh, "nobody has judged them yet"
