"""Remarks and flags: who may write them, who reads them, and hostile ones."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from annotator.errors import Conflict, Invalid, NotFound
from annotator.models import Assignment, Comment, Project, Rater, ReviewItem, Role, Task
from annotator.queries import task_history
from annotator.services import adjudication, comments, queue
from tests import factories

pytestmark = pytest.mark.django_db


def desk(project: Project, rater: Rater) -> tuple[Assignment, Client]:
    lease = queue.claim_next(project=project, rater=rater)
    client = Client()
    client.force_login(rater.user)
    return Assignment.objects.get(pk=lease.assignment_id), client


@pytest.fixture
def project() -> Project:
    project = factories.project("remarks", settings={"overlap": 2})
    factories.pairwise_task(project)
    return project


def test_flag_opens_an_item_at_once_and_another_makes_it_worse(project: Project) -> None:
    first, second = factories.rater(project), factories.rater(project)
    for rater in (first, second):
        held, _ = desk(project, rater)
        comments.remark(assignment_id=held.pk, rater=rater, text="Both are wrong.", is_flag=True)
    item = ReviewItem.objects.get()
    assert (item.reason, item.detail) == ("flagged", {"flags": 2})
    assert item.severity > 3
    reviewer = factories.member(project, Role.REVIEWER)
    adjudication.dismiss(task=item.task, by=reviewer)
    assert set(Comment.objects.values_list("resolved_by", flat=True)) == {reviewer.pk}


def test_remark_needs_a_text_of_bearable_length(project: Project) -> None:
    rater = factories.rater(project)
    held, _ = desk(project, rater)
    for text in ("", " \0 ", "x" * (comments.MAX_TEXT + 1)):
        with pytest.raises(Invalid):
            comments.remark(assignment_id=held.pk, rater=rater, text=text, is_flag=False)
    Comment.objects.bulk_create(
        Comment(project=project, task=held.task, author=rater.user, text="x")
        for _ in range(comments.MAX_PER_TASK)
    )
    with pytest.raises(Conflict):
        comments.remark(assignment_id=held.pk, rater=rater, text="one more", is_flag=False)


def test_remark_on_anothers_assignment_is_refused(project: Project) -> None:
    held, _ = desk(project, factories.rater(project))
    with pytest.raises(NotFound):
        comments.remark(
            assignment_id=held.pk, rater=factories.rater(project), text="x", is_flag=False
        )


def test_annotator_reads_own_remarks_and_the_answers_to_them(project: Project) -> None:
    mine, theirs = factories.rater(project), factories.rater(project)
    reviewer = factories.member(project, Role.REVIEWER, name="Ravi Menon")
    task = Task.objects.get()
    own = comments.remark(
        assignment_id=desk(project, mine)[0].pk, rater=mine, text="Is B even legal?", is_flag=False
    )
    other = comments.remark(
        assignment_id=desk(project, theirs)[0].pk, rater=theirs, text="I chose A.", is_flag=False
    )
    comments.comment(task=task, by=reviewer, text="It is.", reply_to=own.pk)
    comments.comment(task=task, by=reviewer, text="Why?", reply_to=other.pk)
    comments.comment(task=task, by=reviewer, text="Most say A.")
    read = task_history.own_remarks(task.pk, viewer=mine.user)
    assert [one.text for one in read] == ["Is B even legal?", "It is."]
    _, client = desk(project, mine)
    page = client.get(reverse("annotate", args=["remarks"])).content.decode()
    assert "It is." in page
    assert "I chose A." not in page
    assert "Most say A." not in page
    assert len(task_history.remarks(task, viewer=reviewer)) == 5


def test_answer_to_a_remark_elsewhere_is_refused(project: Project) -> None:
    elsewhere = factories.project()
    stranger = Comment.objects.create(
        project=elsewhere,
        task=factories.pairwise_task(elsewhere),
        author=factories.user(),
        text="x",
    )
    reviewer = factories.member(project, Role.REVIEWER)
    with pytest.raises(NotFound):
        comments.comment(
            task=Task.objects.get(project=project), by=reviewer, text="y", reply_to=stranger.pk
        )


def test_remark_without_a_script_keeps_what_was_entered(project: Project) -> None:
    held, client = desk(project, factories.rater(project))
    answer = client.post(
        reverse("remark", args=["remarks", held.pk]),
        {"verdict": "b1", "why": "half a", "remark": "A names itself.", "remark_flag": "on"},
    )
    assert answer["Location"].endswith(f"?assignment={held.pk}")
    held.refresh_from_db()
    assert (held.state, held.draft) == ("leased", {"verdict": "b1", "why": "half a"})
    assert Comment.objects.get().is_flag


def test_remark_by_htmx_answers_with_the_list(project: Project) -> None:
    held, client = desk(project, factories.rater(project))
    url = reverse("remark", args=["remarks", held.pk])
    hostile = "<script>alert(1)</script>"
    answer = client.post(url, {"remark": hostile}, headers={"HX-Request": "true"})
    page = answer.content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert hostile not in page
    assert 'name="remark"' in page
    again = client.post(url, {"remark": ""}, headers={"HX-Request": "true"})
    assert "Write something" in again.content.decode()


def test_remark_that_was_not_sent_goes_along_with_the_verdict(project: Project) -> None:
    held, client = desk(project, factories.rater(project))
    client.post(
        reverse("answer", args=["remarks", held.pk]),
        {"verdict": "a1", "remark": "Typed, not sent."},
    )
    assert Comment.objects.get().text == "Typed, not sent."
    held.refresh_from_db()
    assert held.state == "submitted"


def test_reviewer_answers_on_the_page_and_hostile_text_stays_text(project: Project) -> None:
    rater = factories.rater(project)
    held, _ = desk(project, rater)
    own = comments.remark(
        assignment_id=held.pk, rater=rater, text="<img src=x onerror=alert(1)>", is_flag=True
    )
    reviewer = Client()
    reviewer.force_login(factories.member(project, Role.REVIEWER))
    item = ReviewItem.objects.get()
    page = reviewer.get(reverse("review", args=["remarks"])).content.decode()
    assert "&lt;img src=x onerror" in page
    answer = reviewer.post(
        reverse("task_comment", args=["remarks", held.task_id]),
        {"remark": "Seen.", "reply_to": str(own.pk), "item": str(item.pk)},
    )
    assert answer["Location"] == reverse("review_item", args=["remarks", item.pk]) + "#remarks"
    assert Comment.objects.get(reply_to=own).text == "Seen."
