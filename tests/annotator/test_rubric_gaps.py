"""What a rubric does not explain: shown, sent to people exactly once, given to the next round."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotator.errors import Conflict, Invalid
from annotator.jobs import tasks as jobs
from annotator.models import (
    AuditEvent,
    Criterion,
    Project,
    Role,
    Rubric,
    RubricMeasurement,
    RubricVersion,
    Run,
    Task,
)
from annotator.services import queue, rubric_gaps, rubrics, tokens
from rubrics.sheet import Sheet
from tests import factories

pytestmark = pytest.mark.django_db


class World:
    """A version with two criteria, measured on pairs of one task each; the last one is held out.

    Each row of ``differences`` is one pair, chosen minus rejected under both criteria.
    """

    def __init__(
        self, differences: Any, *, votes: int = 3, settings: dict[str, Any] | None = None
    ) -> None:
        self.project = factories.project(settings=settings)
        self.owner = factories.member(self.project, Role.OWNER)
        rubric = Rubric.objects.create(project=self.project, name="Tone")
        self.version = RubricVersion.objects.create(rubric=rubric, number=1, method="program")
        self.criteria = [
            Criterion.objects.create(
                version=self.version, position=at, text=text, verifier="program", program=program,
                decision="accepted",
            )
            for at, (text, program) in enumerate(
                [("Says what it assumes.", "has_list"), ("Opens with the answer.", "has_code")]
            )
        ]  # fmt: skip
        self.tasks = [self._task(at) for at in range(len(differences))]
        self.sheet = self._sheet(np.asarray(differences, dtype=np.float32), votes)
        self.measure()

    def _task(self, at: int) -> Task:
        of = factories.prompt(self.project, f"Question <b>{at}</b>?")
        texts = (f"Good answer {at}.", f"Poor answer {at}.")
        task = factories.task_of(self.project, texts=texts, of=of, overlap=3)
        Task.objects.filter(pk=task.pk).update(judged=3, free=0)
        return Task.objects.get(pk=task.pk)

    def _sheet(self, differences: Any, votes: int) -> Sheet:
        n = len(differences)
        return Sheet(
            criteria=np.array([one.pk for one in self.criteria]),
            prompts=np.array([task.prompt_id for task in self.tasks]),
            chosen=np.array([task.response_ids[0] for task in self.tasks]),
            rejected=np.array([task.response_ids[1] for task in self.tasks]),
            votes_for=np.full(n, votes),
            votes=np.full(n, votes),
            is_held=np.arange(n) == n - 1,
            scores=np.stack([0.5 + differences / 2, 0.5 - differences / 2], axis=1),
        )

    def measure(self) -> RubricMeasurement:
        return RubricMeasurement.objects.create(version=self.version, sheet=self.sheet.to_bytes())

    @property
    def basis(self) -> Any:
        return rubric_gaps.basis(self.version)

    def queue(self, kind: str = "") -> Any:
        return rubric_gaps.queue_votes(found=self.basis, kind=kind, by=self.owner)

    def places(self) -> list[tuple[int, int]]:
        rows = {pk: (overlap, free) for pk, overlap, free in
                Task.objects.values_list("pk", "overlap", "free")}  # fmt: skip
        return [rows[task.pk] for task in self.tasks]

    def url(self, name: str = "rubric_gaps") -> str:
        return reverse(name, args=[self.project.slug, self.version.rubric_id, 1])

    def client(self, role: Role = Role.OWNER) -> Client:
        client = Client()
        person = self.owner if role == Role.OWNER else factories.member(self.project, role)
        client.force_login(person)
        return client


EXPLAINED, SILENT, CONTRARY = [1.0, 1.0], [0.0, 0.05], [-1.0, -1.0]
HELD = SILENT  # the last row of every world


@pytest.fixture
def world() -> World:
    return World([EXPLAINED, SILENT, CONTRARY, EXPLAINED, HELD])


# The page -------------------------------------------------------------------------------------


def test_page_lists_what_is_unexplained_with_the_votes_and_never_held_out_pairs(
    world: World,
) -> None:
    page = world.client(Role.REVIEWER).get(world.url())
    assert page.status_code == 200
    text = page.content.decode()
    assert "2 pairs no criterion explains" in text
    assert text.count("3 of 3 agree on the chosen one") == 2
    assert "Question &lt;b&gt;1&lt;/b&gt;?" in text
    assert "Question &lt;b&gt;2&lt;/b&gt;?" in text
    assert "Good answer 4." not in text  # held out
    assert "margin -2" in text or "margin −2" in text
    assert reverse("task", args=[world.project.slug, world.tasks[2].pk]) in text
    assert "for another vote" not in text  # a reviewer does not change tasks
    ids = world.tasks[2].response_ids
    assert f"chosen={ids[0]}&amp;rejected={ids[1]}" in text


def test_filters_show_one_kind_and_nonsense_means_all(world: World) -> None:
    client = world.client()
    contrary = client.get(world.url(), {"kind": "contrary"}).content.decode()
    assert "Poor answer 2." in contrary
    assert "Poor answer 1." not in contrary
    silent = client.get(world.url(), {"kind": "silent"}).content.decode()
    assert "Poor answer 1." in silent
    assert "Poor answer 2." not in silent
    odd = client.get(world.url(), {"kind": "\0x", "after": "-1", "view": "<script>"})
    assert "2 pairs no criterion explains" in odd.content.decode()


def test_pages_go_on_where_the_last_one_ended() -> None:
    many = World([SILENT] * 60 + [HELD])
    client = many.client()
    pages = [client.get(many.url(), {"after": at}).content.decode() for at in (0, 50, 500)]
    seen = [[at for at in range(60) if f"Good answer {at}." in text] for text in pages]
    assert [len(one) for one in seen] == [50, 10, 0]
    assert sorted(seen[0] + seen[1]) == list(range(60))
    assert "?after=50" in pages[0]
    assert "The list has become shorter" in pages[2]


def test_page_costs_the_same_statements_however_many_pairs(
    django_assert_max_num_queries: Any,
) -> None:
    counts = []
    for many in (5, 30):
        client = (there := World([SILENT] * many + [HELD])).client()
        with django_assert_max_num_queries(30) as found:
            assert client.get(there.url()).status_code == 200
        counts.append(len(found))
    assert counts[0] == counts[1]


def test_version_without_a_measurement_says_so_and_queues_nothing(world: World) -> None:
    RubricMeasurement.objects.all().delete()
    client = world.client()
    assert "Nothing measured yet" in client.get(world.url()).content.decode()
    answer = client.post(world.url("rubric_gaps_queue"), follow=True)
    assert "was not measured yet" in answer.content.decode()


def test_criterion_rejected_since_explains_nothing_any_more() -> None:
    world = World([[1.0, 0.0], [0.0, 1.0], HELD])
    assert len(rubric_gaps.listed(world.basis, "")) == 0
    Criterion.objects.filter(pk=world.criteria[0].pk).update(decision="rejected")
    listed = rubric_gaps.listed(world.basis, "")
    assert list(world.basis.sheet.prompts[listed.rows]) == [world.tasks[0].prompt_id]


def test_single_votes_are_enough_where_there_are_no_others() -> None:
    world = World([SILENT, EXPLAINED, HELD], votes=1)
    text = world.client().get(world.url()).content.decode()
    assert "1 pair no criterion explains" in text
    assert "One vote is all there is" in text
    assert "1 of 1 agree on the chosen one" in text


def test_contradictions_name_both_criteria_with_counts_and_examples() -> None:
    world = World([[1.0, -1.0]] * 30 + [HELD])
    page = world.client().get(world.url(), {"view": "contradictions"})
    text = page.content.decode().replace("\N{NO-BREAK SPACE}", " ")
    assert "Says what it assumes." in text
    assert "differ on 30 of the 30 pairs that both tell apart" in text
    assert "[88.6, 100.0]" in text  # Wilson, 30 of 30
    assert "correlation -1" in text or "correlation −1" in text
    assert "3 examples" in text
    # The second criterion is with the votes on none of its pairs.
    assert "Criteria that work against their own direction" in text
    assert "the votes go its way on 0.0 %" in text


def test_no_contradiction_is_said_plainly(world: World) -> None:
    text = world.client().get(world.url(), {"view": "contradictions"}).content.decode()
    assert "No two criteria in force differ more often than they agree" in text
    assert "no criterion goes against the votes beyond chance" in text


def test_panel_counts_like_the_page(world: World) -> None:
    from annotator.views.rubric_gaps import panel

    found = panel(world.version, world.sheet, [1.0, 1.0])
    assert found is not None
    assert (found["count"], found["agreed"], len(found["rows"])) == (2, 4, 2)
    assert found["rows"][0].pair.task_id == world.tasks[2].pk  # the contrary one first
    assert panel(world.version, None, []) is None


# To people ------------------------------------------------------------------------------------


def test_queue_asks_for_one_more_vote_on_each_pair_and_pressing_twice_changes_nothing(
    world: World,
) -> None:
    client = world.client()
    said = client.post(world.url("rubric_gaps_queue"), follow=True).content.decode()
    assert "2 tasks ask for another vote" in said
    expected = [(3, 0), (4, 1), (4, 1), (3, 0), (3, 0)]
    assert world.places() == expected
    again = client.post(world.url("rubric_gaps_queue"), follow=True).content.decode()
    assert "Nobody is asked anew. 2 pairs left out: a vote is still to come on them." in again
    assert world.places() == expected
    events = AuditEvent.objects.filter(verb="tasks.another-vote").order_by("pk")
    assert [event.data["raised"] for event in events] == [2, 0]
    assert events[0].actor == world.owner


def test_queue_of_a_filter_reaches_no_other_pair(world: World) -> None:
    assert world.queue("contrary").raised == 1
    assert world.places() == [(3, 0), (3, 0), (4, 1), (3, 0), (3, 0)]
    with pytest.raises(Invalid):
        world.queue("nonsense")


def test_queued_pair_is_handed_out_once_and_not_again_before_it_is_measured(world: World) -> None:
    rater = factories.rater(world.project)
    assert queue.claim_next(project=world.project, rater=rater) is None  # the mark is at the end
    world.queue("contrary")
    lease = queue.claim_next(project=world.project, rater=rater)
    assert lease is not None
    assert lease.task_id == world.tasks[2].pk
    held = world.queue("contrary")
    assert (held.raised, held.refused) == (0, {rubric_gaps.WAITING: 1})
    assert world.places()[2] == (4, 0)  # held, and no second place
    assert queue.claim_next(project=world.project, rater=factories.rater(world.project)) is None


def test_pair_with_a_vote_since_the_measurement_waits_for_the_next_one(world: World) -> None:
    world.queue("contrary")
    factories.judgment(factories.rater(world.project), world.tasks[2])
    assert world.places()[2] == (4, 0)
    done = world.queue("contrary")
    assert (done.raised, done.refused) == (0, {rubric_gaps.VOTED: 1})
    world.measure()
    assert world.queue("contrary").raised == 1
    assert world.places()[2] == (5, 1)


def test_task_with_more_judgments_than_it_asked_for_gets_exactly_one_place(world: World) -> None:
    Task.objects.filter(pk=world.tasks[1].pk).update(judged=7, free=F("overlap") - 7)
    world.queue("silent")
    task = Task.objects.get(pk=world.tasks[1].pk)
    assert (task.overlap, task.free) == (8, 1)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"is_gold": True}, rubric_gaps.GOLD),
        ({"is_settled": True}, rubric_gaps.SETTLED),
        ({"overlap": 50, "judged": 50}, rubric_gaps.FULL),
    ],
    ids=["gold", "settled", "full"],
)
def test_some_tasks_are_not_asked_again(world: World, values: dict[str, Any], reason: str) -> None:
    Task.objects.filter(pk=world.tasks[1].pk).update(**values)
    before = world.places()
    done = world.queue("silent")
    assert (done.raised, done.made, done.refused) == (0, 0, {reason: 1})
    assert world.places() == before


def test_pair_without_a_task_gets_one_and_only_one(world: World) -> None:
    ids = world.tasks[1].response_ids
    Task.objects.filter(pk=world.tasks[1].pk).delete()
    done = world.queue("silent")
    assert (done.raised, done.made) == (0, 1)
    made = Task.objects.get(prompt_id=world.tasks[1].prompt_id)
    assert (made.kind, made.response_ids, made.overlap, made.free) == ("pairwise", ids, 1, 1)
    assert made.position == made.pk  # in the order of import, as the project hands out
    assert world.queue("silent").refused == {rubric_gaps.WAITING: 1}
    lease = queue.claim_next(project=world.project, rater=factories.rater(world.project))
    assert lease is not None
    assert lease.task_id == made.pk


def test_pair_of_a_ranking_is_asked_by_its_ranking(world: World) -> None:
    task = world.tasks[1]
    third = factories.response(task.prompt)
    Task.objects.filter(pk=task.pk).update(
        kind="ranking", response_ids=[third.pk, *task.response_ids]
    )
    assert (world.queue("silent").raised, world.places()[1]) == (1, (4, 1))


def test_pair_whose_answer_is_gone_is_said_so(world: World) -> None:
    task = world.tasks[1]
    Task.objects.filter(pk=task.pk).delete()
    task.prompt.responses.get(pk=task.response_ids[0]).delete()
    assert world.queue("silent").refused == {rubric_gaps.GONE: 1}
    assert "Not there any more." in world.client().get(world.url()).content.decode()


def test_archived_project_queues_nothing(world: World) -> None:
    Project.objects.filter(pk=world.project.pk).update(archived_at=timezone.now())
    with pytest.raises(Conflict):
        world.queue()


def test_many_pairs_are_queued_by_a_run_that_may_be_done_twice(
    world: World, monkeypatch: Any
) -> None:
    monkeypatch.setattr(rubric_gaps, "INLINE", 1)
    monkeypatch.setattr(rubric_gaps, "CHUNK", 1)
    answer = world.client().post(world.url("rubric_gaps_queue"))
    run = Run.objects.get(kind=Run.Kind.TASKS)
    assert answer["Location"] == reverse("run", args=[world.project.slug, run.pk])
    # Decided meanwhile, and it is still the pairs of that moment that are queued.
    Criterion.objects.filter(version=world.version).update(decision="rejected")
    jobs.change(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.result["raised"], run.progress) == ("done", 2, 2)
    assert world.places() == [(3, 0), (4, 1), (4, 1), (3, 0), (3, 0)]
    Run.objects.filter(pk=run.pk).update(state="queued")
    jobs.change(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.result["raised"]) == ("done", 0)
    assert world.places() == [(3, 0), (4, 1), (4, 1), (3, 0), (3, 0)]


@pytest.mark.django_db(transaction=True)
def test_two_people_at_once_ask_once() -> None:
    world = World([SILENT, CONTRARY, SILENT, HELD])
    Task.objects.filter(pk=world.tasks[2].pk).delete()
    start, done = threading.Barrier(2), []

    def press() -> None:
        try:
            found = world.basis
            start.wait()
            try:
                done.append(rubric_gaps.queue_votes(found=found, kind="", by=world.owner))
            except Conflict:  # the other one writes the missing task: nothing of this is kept
                done.append(rubric_gaps.Queued())
        finally:
            connection.close()

    threads = [threading.Thread(target=press) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.raised for one in done) == 2
    assert sum(one.made for one in done) == 1
    free = Task.objects.filter(prompt_id__in=world.sheet.prompts.tolist()).values_list("free")
    assert sorted(one[0] for one in free) == [0, 1, 1, 1]


# To the next round ----------------------------------------------------------------------------


def test_next_round_learns_from_these_pairs_only(world: World) -> None:
    answer = world.client().post(world.url("rubric_gaps_induce"), {"kind": "contrary"})
    run = Run.objects.get(kind=Run.Kind.RUBRIC)
    assert answer["Location"] == reverse("run", args=[world.project.slug, run.pk])
    task = world.tasks[2]
    assert run.config["only"] == {
        "version": world.version.pk, "rows": [[task.prompt_id, *task.response_ids]]
    }  # fmt: skip
    assert (run.config["rubric"], run.config["method"]) == ("Tone, round 2", "program")


def test_next_round_never_gets_held_out_pairs(world: World) -> None:
    run = rubric_gaps.next_round(found=world.basis, kind="", by=world.owner)
    given = {row[0] for row in run.config["only"]["rows"]}
    assert given == {world.tasks[1].prompt_id, world.tasks[2].prompt_id}


def test_next_round_pressed_twice_starts_once(world: World) -> None:
    client = world.client()
    client.post(world.url("rubric_gaps_induce"))
    said = client.post(world.url("rubric_gaps_induce"), follow=True).content.decode()
    assert "is inducing “Tone, round 2” already" in said
    assert Run.objects.filter(kind=Run.Kind.RUBRIC).count() == 1


@pytest.mark.django_db(transaction=True)
def test_next_round_asked_for_by_two_at_once_starts_once() -> None:
    world = World([SILENT, CONTRARY, SILENT, HELD])
    refused: list[str] = []

    def press() -> None:
        try:
            rubric_gaps.next_round(found=world.basis, kind="", by=world.owner)
        except Conflict as error:
            refused.append(error.message)
        finally:
            connection.close()

    other = threading.Thread(target=press)
    with transaction.atomic():
        rubric_gaps.next_round(found=world.basis, kind="", by=world.owner)
        other.start()
        other.join(timeout=2)  # it waits for the first, whose run it cannot see yet
    other.join()
    assert Run.objects.filter(kind=Run.Kind.RUBRIC).count() == 1
    assert "is inducing “Tone, round 2” already" in refused[0]


def test_next_round_says_that_its_draft_is_in_work(world: World) -> None:
    rubric = Rubric.objects.create(project=world.project, name="Tone, round 2")
    rubrics.draft(rubric=rubric, by=world.owner)
    said = world.client().post(world.url("rubric_gaps_induce"), follow=True).content.decode()
    assert "“Tone, round 2” has a draft that somebody works on." in said
    assert not Run.objects.filter(kind=Run.Kind.RUBRIC).exists()


def test_version_written_by_hand_goes_on_by_the_method_of_its_parent(world: World) -> None:
    RubricVersion.objects.filter(pk=world.version.pk).update(state="approved")
    by_hand = RubricVersion.objects.create(
        rubric=world.version.rubric, number=2, parent=world.version
    )
    assert rubric_gaps.method_of(by_hand) == world.version
    RubricVersion.objects.filter(pk=by_hand.pk).update(parent=None)
    alone = RubricVersion.objects.get(pk=by_hand.pk)
    RubricMeasurement.objects.create(version=alone, sheet=world.sheet.to_bytes())
    with pytest.raises(Invalid, match="written by hand"):
        rubric_gaps.next_round(found=rubric_gaps.basis(alone), kind="", by=world.owner)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Tone", "Tone, round 2"),
        ("Tone, round 2", "Tone, round 3"),
        ("Tone, round 09", "Tone, round 09, round 2"),
        ("x" * 80, "x" * 71 + ", round 2"),
    ],
    ids=["first", "next", "odd", "long"],
)
def test_rounds_count_on_within_the_length_of_a_name(name: str, expected: str) -> None:
    assert rubric_gaps.name_of_round(name) == expected
    assert len(expected) <= rubrics.MAX_NAME


# Access and API -------------------------------------------------------------------------------


def test_reviewer_reads_and_changes_nothing(world: World) -> None:
    client = world.client(Role.REVIEWER)
    assert client.get(world.url()).status_code == 200
    for name in ("rubric_gaps_queue", "rubric_gaps_induce"):
        assert client.post(world.url(name)).status_code == 403
    assert world.places()[2] == (3, 0)
    assert not Run.objects.exists()


def test_version_of_another_project_is_not_found(world: World) -> None:
    other = World([SILENT, HELD])
    for name in ("rubric_gaps", "rubric_gaps_queue", "rubric_gaps_induce"):
        url = reverse(name, args=[other.project.slug, world.version.rubric_id, 1])
        method = "get" if name == "rubric_gaps" else "post"
        assert getattr(other.client(), method)(url).status_code == 404


def asked(world: World, role: Role = Role.REVIEWER, **query: Any) -> Any:
    _, secret = tokens.create(user=factories.member(world.project, role), name="test")
    address = f"/api/v1/projects/{world.project.slug}/rubrics/{world.version.rubric_id}"
    return Client().get(
        f"{address}/versions/1/gaps", query, headers={"Authorization": f"Bearer {secret}"}
    )


def test_api_tells_pairs_and_contradictions_page_by_page(world: World) -> None:
    body = asked(world).json()
    assert body["counts"] == {"silent": 1, "contrary": 1, "unscored": 0}
    assert (body["agreed"], body["least_votes"], body["next"]) == (4, 2, None)
    first = body["pairs"][0]
    task = world.tasks[2]
    assert (first["prompt"], first["chosen"], first["rejected"]) == (
        task.prompt_id, *task.response_ids
    )  # fmt: skip
    assert (first["kind"], first["votes_for"], first["votes"], first["task"]) == (
        "contrary", 3, 3, task.pk
    )  # fmt: skip
    assert first["margin"] == pytest.approx(-2.0)
    assert first["against"] == [one.pk for one in world.criteria]
    assert body["contradictions"] == body["inverted"] == []
    page = asked(world, kind="silent", limit=1).json()
    assert [one["kind"] for one in page["pairs"]] == ["silent"]
    one = asked(world, limit=1).json()
    assert one["next"] == 1
    assert asked(world, limit=1, after=1).json()["pairs"][0]["kind"] == "silent"
    told = asked(World([[1.0, -1.0]] * 30 + [HELD])).json()["contradictions"]
    assert [(one["both"], one["opposed"]) for one in told] == [(30, 30)]
    assert told[0]["share"]["value"] == 1.0


def test_api_refuses_annotators_and_unknown_kinds(world: World) -> None:
    assert asked(world, Role.ANNOTATOR).status_code == 403
    assert asked(world, kind="odd").status_code == 422
    assert asked(world, after=-1).status_code == 422
    RubricMeasurement.objects.all().delete()
    assert asked(world).status_code == 409


def test_page_of_the_version_shows_what_is_unexplained_beside_the_criteria(world: World) -> None:
    text = world.client().get(world.url("rubric_version")).content.decode()
    assert "2 pairs no criterion explains" in text
    assert "Queue all 2 for another vote" in text
    assert world.url() in text
    assert "for another vote" not in world.client(Role.REVIEWER).get(
        world.url("rubric_version")
    ).content.decode()  # fmt: skip


def test_criterion_that_was_not_measured_counts_nothing_and_is_told(world: World) -> None:
    Criterion.objects.create(
        version=world.version, position=2, text="Greets.", decision="accepted", verifier="llm"
    )
    text = world.client().get(world.url()).content.decode()
    assert "1 criterion in force was not measured and counts nothing here" in text
    assert "2 pairs no criterion explains" in text


def test_pairs_without_any_score_are_counted_apart() -> None:
    world = World([EXPLAINED, [np.nan, np.nan], SILENT, HELD])
    client = world.client()
    text = client.get(world.url()).content.decode()
    assert "1 pair no criterion explains" in text
    assert "Not scored" in text
    assert "Poor answer 1." not in text
    unscored = client.get(world.url(), {"kind": "unscored"}).content.decode()
    assert "1 pair without a score" in unscored
    assert "Poor answer 1." in unscored
