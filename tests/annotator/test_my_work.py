"""My work: four queues with search and pages, and correcting by a revision."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from annotator.models import Assignment, Comment, Judgment, Project, Rater, Role, Task
from annotator.queries import my_work
from annotator.services import adjudication, comments, judgments, queue
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return factories.project("own")


@pytest.fixture
def rater(project: Project) -> Rater:
    return factories.rater(project, name="Aiko Tanabe")


def work(rater: Rater, tab: str, **more: Any) -> my_work.Work:
    return my_work.work(rater, options=rater.project.options, tab=tab, **more)


def open_page(rater: Rater, query: str = "") -> str:
    client = Client()
    client.force_login(rater.user)
    return client.get(reverse("history", args=[rater.project.slug]) + query).content.decode()


def test_every_task_is_in_one_queue(project: Project, rater: Rater) -> None:
    tasks = [factories.pairwise_task(project) for _ in range(5)]
    done = factories.judgment(rater, tasks[0])
    back = factories.judgment(rater, tasks[1])
    adjudication.send_back(
        task=back.task,
        rater_ids=[rater.pk],
        note="Look at the date.",
        by=factories.member(project, Role.REVIEWER),
        options=project.options,
    )
    Assignment.objects.filter(task=tasks[1]).update(leased_at=timezone.now(), state="expired")
    lease = queue.claim_next(project=project, rater=rater)
    judgments.skip(assignment_id=lease.assignment_id, rater=rater, reason="I cannot tell")
    begun = queue.claim_next(project=project, rater=rater)
    judgments.save_draft(
        assignment_id=begun.assignment_id, rater=rater, draft={"why": "so far"}, lease_minutes=5
    )
    assert my_work.counts(rater) == {"pending": 1, "drafts": 1, "submitted": 1, "skipped": 1}
    (pending,) = work(rater, "pending").rows
    assert (pending.task_id, pending.note) == (back.task_id, "Look at the date.")
    (draft,) = work(rater, "drafts").rows
    assert (draft.assignment_id, draft.why) == (begun.assignment_id, "so far")
    (submitted,) = work(rater, "submitted").rows
    assert (submitted.task_id, submitted.verdict) == (done.task_id, "A better")
    (skipped,) = work(rater, "skipped").rows
    assert skipped.skip_reason == "I cannot tell"
    for tab in my_work.TABS:
        assert "My work" in open_page(rater, f"?tab={tab}")
    assert "Look at the date." in open_page(rater), "what was sent back is shown first"


def test_rows_of_one_prompt_are_told_apart_by_their_answers(project: Project, rater: Rater) -> None:
    prompt = factories.prompt(project, "Which is larger?")
    for texts in (("Two is larger.", "One."), ("Three, of course.", "Hard to say.")):
        factories.judgment(rater, factories.pairwise_task(project, of=prompt, texts=texts))
    page = open_page(rater, "?tab=submitted")
    for text in ("Two is larger.", "One.", "Three, of course.", "Hard to say."):
        assert text in page


def test_search_finds_prompts_and_own_reasons_as_typed(project: Project, rater: Rater) -> None:
    by_prompt = factories.pairwise_task(project, of=factories.prompt(project, "Is 100 % enough?"))
    by_reason = factories.pairwise_task(project)
    factories.judgment(rater, by_prompt)
    factories.judgment(rater, by_reason, rationale="A_is wrong about Ångström")
    for query, task in (("100 %", by_prompt), ("a_IS", by_reason), ("ångström", by_reason)):
        assert [row.task_id for row in work(rater, "submitted", query=query).rows] == [task.pk]
    for query in ("1000", "A is", "\\", "_____________________________", "x\0y"):
        assert work(rater, "submitted", query=query).rows == []
    assert "Nothing found" in open_page(rater, "?tab=submitted&q=nowhere")


@given(st.text(max_size=300))
def test_pattern_has_no_wildcard_of_the_query(query: str) -> None:
    pattern = my_work.like(query)
    inner = pattern[1:-1].replace("\\\\", "").replace("\\%", "").replace("\\_", "")
    assert not set(inner) & {"%", "_", "\0"}
    assert len(pattern) <= 2 * my_work.MAX_QUERY + 2


def test_pages_meet_without_gap_or_repeat(
    project: Project, rater: Rater, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(my_work, "PAGE", 4)
    for _ in range(10):
        factories.judgment(rater, factories.pairwise_task(project))
    same = timezone.now()  # equal moments: the id decides
    Assignment.objects.update(closed_at=same)
    seen, after = [], ""
    while True:
        page = work(rater, "submitted", after=after)
        seen += [row.assignment_id for row in page.rows]
        after = page.next
        if not after:
            break
    assert seen == sorted(Assignment.objects.values_list("pk", flat=True), reverse=True)
    for nonsense in ("x", "2026-01-01,", "2026-99-99T00:00,1", "2026-01-01T00:00:00,1"):
        assert work(rater, "submitted", after=nonsense).is_first


def test_correcting_adds_a_revision_and_says_so(project: Project, rater: Rater) -> None:
    first = factories.judgment(rater, factories.pairwise_task(project), "a1")
    held = Assignment.objects.get()
    client = Client()
    client.force_login(rater.user)
    client.post(reverse("reopen", args=["own", held.pk]))
    client.post(reverse("answer", args=["own", held.pk]), {"verdict": "b2", "why": "Better."})
    first.refresh_from_db()
    assert (first.is_current, first.rationale) == (False, "")
    current = Judgment.objects.get(is_current=True)
    assert (current.revision, current.rationale) == (3, "Better.")
    (row,) = work(rater, "submitted").rows
    assert (row.verdict, row.revisions) == ("B much better", 2)


def test_own_decisions_as_a_reviewer_are_not_own_votes(project: Project) -> None:
    reviewer = factories.rater(project, Role.REVIEWER)
    task = factories.pairwise_task(project)
    factories.judgment(reviewer, task, "a1")
    adjudication.decide(
        task=task, rater=reviewer, answers={"verdict": "b1"}, options=project.options
    )
    (row,) = work(reviewer, "submitted").rows
    assert row.verdict == "A better"


def test_page_shows_answers_to_own_remarks_and_nobody_elses_work(
    project: Project, rater: Rater
) -> None:
    task = factories.pairwise_task(project, overlap=2)
    factories.judgment(rater, task)
    other = factories.rater(project)
    factories.judgment(other, task, rationale="Their secret reason")
    held = Assignment.objects.get(rater=rater)
    own = comments.remark(assignment_id=held.pk, rater=rater, text="Unclear.", is_flag=False)
    comments.comment(
        task=task, by=factories.member(project, Role.REVIEWER), text="Go by C.", reply_to=own.pk
    )
    page = open_page(rater)
    assert "A reviewer answers: Go by C." in page
    assert "Their secret reason" not in page
    assert Comment.objects.count() == 2
    assert Task.objects.get().judged == 2
