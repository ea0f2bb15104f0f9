"""The tasks page, groups, limits and pauses, as owners and annotators meet them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from annotator.models import Comment, Group, Project, Rater, Role, Run, Task, User
from annotator.queries import tasks as queries
from annotator.queries.tasks import Filter
from annotator.services import groups, judgments, queue, tasks
from tests import factories
from tests.annotator.test_api import caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return factories.project("work", settings={"overlap": 2, "gold_rate": 0.0})


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def claim(rater: Rater) -> queue.Claim:
    return queue.claim(project=Project.objects.get(pk=rater.project_id), rater=rater)


def judge(rater: Rater) -> int:
    """Judge the next task; returns its id."""
    lease = claim(rater).lease
    judgments.answer(
        assignment_id=lease.assignment_id,
        rater=rater,
        answers={"verdict": "a1"},
        options=rater.project.options,
    )
    return lease.task_id


def test_group_sees_its_tasks_and_those_for_everybody_by_priority(project: Project) -> None:
    common = factories.pairwise_task(project)
    theirs = factories.pairwise_task(project, priority=1)
    group = groups.create(project=project, name="Doctors", by=None)
    inside, outside = factories.rater(project), factories.rater(project)
    groups.set_raters(group=group, raters=[inside], by=None)
    tasks.change(
        project=project, task_ids=[theirs.pk], change=tasks.Change("assign", group.pk), by=None
    )
    assert [judge(inside), judge(inside)] == [theirs.pk, common.pk]
    assert judge(outside) == common.pk
    assert claim(outside).withheld.key == "nothing_left"
    groups.set_raters(group=group, raters=[inside, outside], by=None)
    assert judge(outside) == theirs.pk, "the mark was reset"


def test_task_for_one_person_waits_for_them(project: Project, owner: User) -> None:
    task = factories.pairwise_task(project, overlap=1)
    named, other = factories.rater(project), factories.rater(project)
    signed_in(owner).post(
        "/p/work/tasks/change/", {"action": "assign", "to": f"rater-{named.pk}", "task": task.pk}
    )
    assert claim(other).lease is None
    assert judge(named) == task.pk
    assert groups.of_person(named) == Group.objects.get(), "made once"


def test_group_with_tasks_is_not_deleted(project: Project, owner: User) -> None:
    group = groups.create(project=project, name="Doctors", by=owner)
    factories.pairwise_task(project, group_id=group.pk)
    client = signed_in(owner)
    page = client.post(f"/p/work/members/groups/{group.pk}/", {"delete": "1"}, follow=True)
    assert "Tasks are assigned" in page.content.decode()
    Task.objects.update(group_id=0)
    client.post(f"/p/work/members/groups/{group.pk}/", {"delete": "1"})
    assert not Group.objects.exists()


def test_person_of_another_project_cannot_be_named(project: Project, owner: User) -> None:
    task = factories.pairwise_task(project)
    stranger = factories.rater(factories.project())
    page = signed_in(owner).post(
        "/p/work/tasks/change/",
        {"action": "assign", "to": f"rater-{stranger.pk}", "task": task.pk},
        follow=True,
    )
    assert "of this project" in page.content.decode()
    assert not Group.objects.exists()


def test_quota_and_cap_are_kept_and_said(project: Project, owner: User) -> None:
    for _ in range(6):
        factories.pairwise_task(project)
    rater = factories.rater(project)
    Project.objects.update(settings={**project.settings, "daily_cap": 2, "quota": 4})
    client = signed_in(rater.user)
    for _ in range(2):
        judge(rater)
    page = client.get("/p/work/annotate/").content.decode()
    assert "You have done today’s 2. More tomorrow." in page
    rater.judgments.update(submitted_at=timezone.now() - timedelta(days=1))
    for _ in range(2):
        judge(rater)
    assert claim(rater).withheld.key == "quota"
    status, asked = caller(rater.user)("POST", "/projects/work/tasks/claim")
    assert (status, asked["task"]) == (200, None)
    assert (asked["reason"]["key"], "4" in asked["reason"]["message"]) == ("quota", True)
    membership = project.memberships.get(user=rater.user)
    signed_in(owner).post(
        f"/p/work/members/{membership.pk}/limits/", {"quota": "5", "daily_cap": "0"}
    )
    judge(rater)
    assert claim(rater).withheld.key == "quota"


@pytest.mark.parametrize("whom", ["person", "project"])
def test_pause_hands_out_nothing_new_but_what_is_held_is_finished(
    project: Project, owner: User, whom: str
) -> None:
    for _ in range(2):
        factories.pairwise_task(project)
    rater = factories.rater(project)
    held = claim(rater).lease
    membership = project.memberships.get(user=rater.user)
    path = {
        "person": f"/p/work/members/{membership.pk}/limits/",
        "project": "/p/work/members/pause/",
    }
    signed_in(owner).post(path[whom], {"pause": "1"})
    assert claim(rater).lease == held
    page = signed_in(rater.user).post(
        f"/p/work/annotate/{held.assignment_id}/", {"verdict": "a1"}, follow=True
    )
    assert "paused" in page.content.decode()
    assert "paused" in claim(rater).withheld.key
    signed_in(owner).post(path[whom], {"resume": "1"})
    assert claim(rater).lease is not None


def test_removal_asks_first(project: Project, owner: User) -> None:
    person = factories.member(project)
    membership = project.memberships.get(user=person)
    page = signed_in(owner).get(f"/p/work/members/{membership.pk}/remove/")
    assert "Keep" in page.content.decode()
    assert project.memberships.filter(pk=membership.pk).exists()


def test_ticked_rows_change_and_no_others(project: Project, owner: User) -> None:
    one, other = (factories.pairwise_task(project) for _ in range(2))
    elsewhere = factories.pairwise_task(factories.project())
    client = signed_in(owner)
    for action, value in (("overlap", "5"), ("priority", "-3")):
        sent = {"action": action, "value": value, "task": [one.pk, elsewhere.pk]}
        assert client.post("/p/work/tasks/change/", sent).status_code == 302
    one.refresh_from_db()
    assert (one.overlap, one.free, one.priority) == (5, 5, -3)
    for task in (other, elsewhere):
        before = (task.overlap, task.free, task.priority)
        task.refresh_from_db()
        assert (task.overlap, task.free, task.priority) == before


def test_stopped_task_keeps_its_verdicts_and_lets_the_held_be_finished(project: Project) -> None:
    task = factories.pairwise_task(project, overlap=4)
    first, second, third = (factories.rater(project) for _ in range(3))
    judge(first)
    claim(second)
    tasks.change(project=project, task_ids=[task.pk], change=tasks.Change("stop"), by=None)
    assert claim(third).lease is None
    judge(second)
    task.refresh_from_db()
    assert (task.judged, task.overlap, task.free) == (2, 2, 0)


@pytest.mark.parametrize(
    "sent",
    [
        {"action": "overlap", "value": "0"},
        {"action": "overlap", "value": "²"},
        {"action": "priority", "value": "99999999999"},
        {"action": "explode"},
        {"action": "assign", "to": "group-99999999"},
        {"action": "assign", "to": "rater-" + "9" * 40},
        {},
    ],
    ids=["zero", "superscript", "huge", "unknown", "no-group", "long", "empty"],
)
def test_nonsense_changes_nothing(project: Project, owner: User, sent: dict[str, str]) -> None:
    task = factories.pairwise_task(project)
    before = Task.objects.values().get(pk=task.pk)
    for which in ({"task": str(task.pk)}, {"all": "1"}, {"task": "1\0"}, {}):
        assert signed_in(owner).post("/p/work/tasks/change/", sent | which).status_code == 302
    assert Task.objects.values().get(pk=task.pk) == before


def test_filters_find_what_they_say(project: Project) -> None:
    plain = factories.pairwise_task(project)
    tagged = factories.pairwise_task(project, of=factories.prompt(project, tags=["math"]))
    asked = factories.pairwise_task(project, of=factories.prompt(project, "Why 100 % of ÄPFEL?"))
    ranking = factories.task_of(project, "ranking", 3)
    gold = factories.pairwise_task(project, is_gold=True)
    closed = factories.pairwise_task(project, judged=2)
    Task.objects.filter(pk__in=[gold.pk, closed.pk]).update(free=0)
    Comment.objects.create(project=project, task=plain, author=factories.user(), is_flag=True)
    found = {
        Filter(tag="math"): [tagged],
        Filter(text="100 % of äpfel"): [asked],
        Filter(text="100 _ of"): [],
        Filter(kind="ranking"): [ranking],
        Filter(state="gold"): [gold],
        Filter(state="done"): [closed],
        Filter(state="flagged"): [plain],
        Filter(state="settled"): [],
        Filter(state="open", kind="pairwise"): [plain, tagged, asked],
    }
    for chosen, expected in found.items():
        ids = [row.task_id for row in queries.tasks(project.pk, chosen).rows]
        assert ids == [task.pk for task in expected], chosen
        everything = list(Task.objects.values_list("pk", flat=True))
        assert queries.matching(project.pk, chosen, everything) == ids


def test_pages_go_on_where_a_window_or_a_page_ended(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PAGE", 2)
    monkeypatch.setattr(queries, "WINDOW", 3)
    ids = [factories.pairwise_task(project).pk for _ in range(8)]
    for chosen, expected in ((Filter(), ids), (Filter(text="nowhere"), [])):
        seen, after, pages = [], None, 0
        while True:
            page = queries.tasks(project.pk, chosen, after=after)
            seen += [row.task_id for row in page.rows]
            pages += 1
            assert pages < 10
            after = page.next
            if after is None:
                break
        assert seen == expected


def test_all_that_fit_change_at_once_in_a_small_project_and_in_a_run_in_a_large_one(
    project: Project, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, k in (("pairwise", 2), ("ranking", 3), ("ranking", 3)):
        factories.task_of(project, kind, k)
    sent = {"action": "priority", "value": "4", "all": "1", "kind": "ranking"}
    client = signed_in(owner)
    client.post("/p/work/tasks/change/", sent)
    assert Task.objects.filter(priority=4).count() == 2
    monkeypatch.setattr(tasks, "INLINE", 2)
    answer = client.post("/p/work/tasks/change/", sent | {"value": "9"})
    run = Run.objects.get(kind=Run.Kind.TASKS)
    assert answer.headers["Location"] == f"/p/work/runs/{run.pk}/"
    assert not Task.objects.filter(priority=9).exists()
    assert client.get(answer.headers["Location"]).status_code == 200


def test_tasks_page_takes_few_statements_and_any_words(
    project: Project, owner: User, django_assert_max_num_queries: Callable
) -> None:
    for _ in range(5):
        factories.pairwise_task(project)
    client = signed_in(owner)
    with django_assert_max_num_queries(14):
        page = client.get("/p/work/tasks/?q=%25%27%22%00&tag=%00&group=x&state=%F0&after=zz")
    assert page.status_code == 200
    assert client.get("/p/work/tasks/", headers={"HX-Request": "true"}).status_code == 200
    assert client.get("/p/work/tasks/").content.decode().count('name="task"') == 5
