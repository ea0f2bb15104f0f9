"""The pages of review: what they show, what each button does, what refusals keep."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotator.models import (
    Assignment,
    Consensus,
    Judgment,
    Project,
    QualityReport,
    Rater,
    Response,
    ReviewItem,
    Role,
    Run,
    Task,
)
from annotator.services import review
from annotator.templatetags.touchstone import moment
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return factories.project("court")


@pytest.fixture
def client(project: Project) -> Client:
    client = Client()
    client.force_login(factories.member(project, Role.REVIEWER, name="Ravi Menon"))
    return client


def split_task(project: Project, **fields: Any) -> Task:
    """Two people who disagree, and an open item about it."""
    task = factories.pairwise_task(project, overlap=2, **fields)
    for choice, why in (("a2", "A is shorter."), ("b1", "B <b>dates</b> it.")):
        factories.judgment(factories.rater(project), task, choice, rationale=why, active_ms=9_000)
    Consensus.objects.create(
        task=task, project=project, aggregator="majority", ranks=[1, 1], posterior=0.5, votes=2,
        agreement=0.0, computed_at=timezone.now(), pairs=[[*task.response_ids, 0.5, 0.0, 0.5]],
    )  # fmt: skip
    review.refresh(project.pk)
    return task


def text(client: Client, name: str, *args: Any, query: str = "") -> str:
    answer = client.get(reverse(name, args=["court", *args]) + query)
    assert answer.status_code == 200
    return answer.content.decode()


def act(client: Client, task: Task, action: str, **fields: Any) -> Any:
    return client.post(
        reverse("task_decide", args=["court", task.pk]), {"action": action, **fields}
    )


def test_page_shows_everybodys_words_escaped_and_the_generators(
    project: Project, client: Client
) -> None:
    task = split_task(project)
    Response.objects.filter(pk=task.response_ids[0]).update(
        generator="<i>gen-3</i>", sampling={"temperature": 0.7}, leak="ChatGPT"
    )
    page = text(client, "review")
    assert "Disagreement 1 of 1" in page
    assert "&lt;i&gt;gen-3&lt;/i&gt;, temperature 0.7, names itself: ChatGPT" in page
    assert "B &lt;b&gt;dates&lt;/b&gt; it." in page
    assert "1 × A much better, 1 × B better" in page
    assert '<span class="visually-hidden">A much better</span>' in page
    assert page.count('name="back"') == 2
    assert "<script>" not in page


def test_page_shows_reliability_of_the_latest_report(project: Project, client: Client) -> None:
    task = split_task(project)
    rater = Rater.objects.filter(judgments__task=task).earliest("pk")
    run = Run.objects.create(project=project, kind="quality", title="Quality", state="done")
    row = {"id": rater.pk, "reliability": {"value": 0.91, "low": 0.85, "high": 0.95}}
    nobody = {"id": 0, "reliability": None}
    QualityReport.objects.create(
        project=project, run=run, figures={"slices": {"start|all": {"raters": [row, nobody]}}}
    )
    page = text(client, "review")
    assert ".91</span>" in page
    assert "between .85 and .95" in page
    assert page.count("not known yet") == 1


def test_nothing_to_review_says_so(project: Project, client: Client) -> None:
    assert "Nothing to review" in text(client, "review")
    split_task(project)
    assert "1 for another" in text(client, "review", query="?reason=flagged")
    assert "Disagreement 1 of 1" in text(client, "review", query="?reason=nonsense")


def test_deciding_goes_on_to_the_next_item_and_keeps_the_filter(
    project: Project, client: Client
) -> None:
    first, second = split_task(project), split_task(project)
    items = list(ReviewItem.objects.order_by("pk"))
    fields = {"verdict": "b1", "why": "Dates.", "item": items[0].pk, "filter": "disagreement"}
    answer = act(client, first, "decide", **fields)
    url = reverse("review_item", args=["court", items[1].pk])
    assert answer["Location"] == f"{url}?reason=disagreement"
    last = act(client, second, "decide", verdict="a1", item=items[1].pk)
    assert last["Location"] == reverse("review", args=["court"])
    first.refresh_from_db()
    assert first.is_settled
    assert Judgment.objects.get(task=first, kind="adjudication").rationale == "Dates."
    closed = text(client, "review_item", items[0].pk)
    assert "closed" in closed
    assert "Decided: B better" in closed


def test_consensus_of_ratings_is_said_in_their_means(project: Project, client: Client) -> None:
    alone, both = split_task(project), split_task(project)
    for task, keep, means in ((alone, 1, [3.26]), (both, 2, [3.26, None])):
        Task.objects.filter(pk=task.pk).update(kind="rating", response_ids=task.response_ids[:keep])
        Consensus.objects.filter(task=task).update(
            ratings={"helpfulness": means}, ranks=[1, 2][:keep]
        )
        Judgment.objects.filter(task=task).update(
            ranks=[1, 2][:keep], ratings={"helpfulness": [3, 2][:keep]}
        )
    assert "<b>helpfulness: A 3.3</b>" in text(client, "task", alone.pk)
    assert "A, then B; helpfulness: A 3.3, B –</b>" in text(client, "task", both.pk)


def test_refused_decision_keeps_what_was_entered(project: Project, client: Client) -> None:
    task = split_task(project)
    item = ReviewItem.objects.get()
    rater = Rater.objects.filter(judgments__task=task).earliest("pk")
    answer = act(client, task, "decide", why="Half <done>", item=item.pk, back=[rater.pk])
    page = answer.content.decode()
    assert answer.status_code == 422
    assert "Choose which answer is better" in page
    assert "Half &lt;done&gt;" in page
    assert page.count("checked") == 1, "whose verdict was to go back is still ticked"
    assert act(client, task, "back", item=item.pk).status_code == 422
    assert act(client, task, "nonsense", item=item.pk).status_code == 422
    for back in ("x", "9" * 40, "-1"):
        assert act(client, task, "back", why="Again", back=back).status_code == 422
    item.refresh_from_db()
    assert item.closed_at is None


def test_sent_back_task_says_until_which_day_it_is_held(project: Project, client: Client) -> None:
    task = split_task(project)
    rater = Rater.objects.filter(judgments__task=task).earliest("pk")
    act(client, task, "back", why="Which date?", back=[rater.pk])
    held = Assignment.objects.get(task=task, rater=rater)
    assert rater.user is not None
    client.force_login(rater.user)
    page = client.get(reverse("annotate", args=["court"])).content.decode()
    assert "Which date?" in page
    assert f"Held for you until {moment(held.expires_at)}" in page
    assert "min left" not in page


def test_every_action_of_the_dock_does_what_it_says(project: Project, client: Client) -> None:
    back, gold, aside = (split_task(project) for _ in range(3))
    rater = Rater.objects.filter(judgments__task=back).earliest("pk")
    act(client, back, "back", why="Which date?", back=[rater.pk])
    assert Assignment.objects.get(task=back, rater=rater).sent_back_note == "Which date?"
    act(client, gold, "gold", verdict="a1")
    gold.refresh_from_db()
    assert gold.is_gold
    act(client, aside, "dismiss")
    assert not ReviewItem.objects.filter(closed_at__isnull=True).exists()
    assert set(ReviewItem.objects.values_list("decision", flat=True)) == {
        "sent-back", "gold", "dismissed",
    }  # fmt: skip
    act(client, aside, "decide", verdict="a1")
    answer = act(client, aside, "unsettle")
    assert answer["Location"] == reverse("task", args=["court", aside.pk])
    aside.refresh_from_db()
    assert not aside.is_settled


@pytest.mark.parametrize("kind", ["ranking", "rating", "best-worst", "checklist"])
def test_every_kind_has_a_page(client: Client, project: Project, kind: str) -> None:
    project.set_options(project.options.model_copy(update={"criteria": ["Is true"]}))
    project.save()
    task = factories.task_of(project, kind, 4)
    name = {"rating": "helpfulness", "checklist": "Is true"}.get(kind)
    for values in ([1, 0, 1, 1], [0, 0, 1, 1]):
        Judgment.objects.create(
            project=project, task=task, rater=factories.rater(project), ranks=[1, 2, 2, 3],
            strength=2, submitted_at=timezone.now(), ratings={name: values} if name else None,
        )  # fmt: skip
    Consensus.objects.create(
        task=task, project=project, aggregator="majority", ranks=[1, 2, 2, 3], posterior=0.5,
        votes=2, agreement=0.5, computed_at=timezone.now(),
    )  # fmt: skip
    page = text(client, "task", task.pk)
    assert "A, then B and C, then D" in page, "the consensus in words"
    assert "2 people" in page
    if name:
        assert f"<dt>{name}</dt>" in page


def test_task_page_has_the_whole_history(project: Project, client: Client) -> None:
    task = split_task(project)
    act(client, task, "decide", verdict="b1")
    act(client, task, "decide", verdict="tie")
    page = text(client, "task", task.pk)
    assert "adjudication, revision 2" in page
    assert "no longer in force" in page
    assert "settled" in page
    assert page.count("Submitted") == 2


def test_what_one_rater_said_by_kind_and_misses(project: Project, client: Client) -> None:
    rater = factories.rater(project, name="Tom Abara")
    tasks = [factories.pairwise_task(project) for _ in range(3)]
    factories.judgment(rater, tasks[0], "a1", rationale="Mine, <i>really</i>")
    factories.judgment(rater, tasks[1], "b1", is_hit=False)
    other = factories.judgment(factories.rater(project), tasks[2], rationale="Somebody else's")
    page = text(client, "rater_judgments", rater.pk)
    assert "What Tom Abara said" in page
    assert "Mine, &lt;i&gt;really&lt;/i&gt;" in page
    assert other.rationale not in page
    assert page.count("first-words") == 2
    assert text(client, "rater_judgments", rater.pk, query="?misses=1").count("first-words") == 1
    assert (
        text(client, "rater_judgments", rater.pk, query="?kind=ranking").count("first-words") == 0
    )
    assert (
        text(client, "rater_judgments", rater.pk, query="?days=7&q=mine").count("first-words") == 1
    )
    assert (
        text(client, "rater_judgments", rater.pk, query="?days=%00&after=x").count("first-words")
        == 2
    )


def test_pages_of_one_rater_meet(project: Project, client: Client) -> None:
    rater = factories.rater(project)
    for _ in range(25):
        factories.judgment(rater, factories.pairwise_task(project))
    Judgment.objects.update(submitted_at=timezone.now())
    first = text(client, "rater_judgments", rater.pk)
    after = Judgment.objects.order_by("-pk")[19].pk
    assert f"after={after}" in first
    second = text(client, "rater_judgments", rater.pk, query=f"?after={after}")
    assert (first.count("first-words"), second.count("first-words")) == (20, 5)


def test_nobody_reaches_another_projects_rows(project: Project, client: Client) -> None:
    elsewhere = factories.project()
    task = factories.pairwise_task(elsewhere)
    review.flag(task=task)
    names = {
        "task": task.pk,
        "review_item": ReviewItem.objects.get(task=task).pk,
        "rater_judgments": factories.rater(elsewhere).pk,
    }
    for name, pk in names.items():
        assert client.get(reverse(name, args=["court", pk])).status_code == 404, name
    assert act(client, task, "decide", verdict="a1").status_code == 404
    url = reverse("task_comment", args=["court", task.pk])
    assert client.post(url, {"remark": "x"}).status_code == 404
    own = split_task(project)
    foreign = names["review_item"]
    answer = act(client, own, "decide", verdict="a1", item=foreign)
    assert answer["Location"] == reverse("task", args=["court", own.pk])


def test_page_costs_the_same_for_many_verdicts(
    project: Project, client: Client, django_assert_max_num_queries: Any
) -> None:
    task = split_task(project)
    for _ in range(30):
        Judgment.objects.create(
            project=project, task=task, rater=factories.rater(project), ranks=[1, 2], strength=1,
            submitted_at=timezone.now(),
        )  # fmt: skip
    url = reverse("review", args=["court"])
    with django_assert_max_num_queries(26):
        client.get(url)
