"""Operator pages: every table, no slow count, no statement per row, history read-only."""

from __future__ import annotations

import re

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotator import models
from annotator.admin import COUNTED, HistoryAdmin
from annotator.services import comments, groups, members, tokens
from tests import factories

pytestmark = pytest.mark.django_db

TABLES = list(apps.get_app_config("annotator").get_models())


@pytest.fixture
def operator() -> Client:
    user = models.User.objects.create_superuser("root@example.org", "x" * 12)
    client = Client()
    client.force_login(user)
    return client


def fill(count: int) -> None:
    """Rows in every table, each of a project and of people of its own."""
    for number in range(count):
        project = factories.project()
        owner = factories.member(project, models.Role.OWNER)
        rater = factories.rater(project)
        task = factories.pairwise_task(project)
        factories.judgment(rater, task)
        run = models.Run.objects.create(
            project=project, kind="train", title="T", state="done", created_by=owner
        )
        models.RunPoint.objects.create(run=run, kind="step", step=1, values={"loss": 1})
        models.ImportIssue.objects.create(run=run, line=1, code="c", reason="r")
        models.RewardModel.objects.create(
            project=project, run=run, number=number + 1, objective="bt", backbone="h", artifact="x"
        )
        export = models.Run.objects.create(project=project, kind="export", title="E", state="done")
        models.DatasetVersion.objects.create(
            project=project, run=export, number=1, format="f", folder="x", checksum="0" * 64
        )
        recipe = models.Recipe.objects.create(project=project, name="Plain")
        models.RecipeVersion.objects.create(recipe=recipe, number=1, format="f", digest="0" * 64)
        members.invite(project=project, role=models.Role.OWNER, note="", places=1, days=1, by=owner)
        tokens.create(user=owner, name="t")
        fill_feedback(project, task, rater, run)


def fill_feedback(
    project: models.Project, task: models.Task, rater: models.Rater, run: models.Run
) -> None:
    comments.comment(task=task, by=rater.user, text="Look.", is_flag=True)  # and a review item
    groups.of_person(rater)
    models.Image.objects.create(
        project=project, digest=bytes(16), file="i", thumbnail="t", width=1, height=1, size_bytes=1
    )
    models.Consensus.objects.create(
        task=task, project=project, aggregator="majority", ranks=[1, 2], posterior=1, votes=1,
        computed_at=timezone.now(),
    )  # fmt: skip
    models.QualityReport.objects.create(project=project, run=run, figures={})
    fill_judges(project, task, run)
    rubric = models.Rubric.objects.create(project=project, name="Plain")
    version = models.RubricVersion.objects.create(rubric=rubric, number=1)
    criterion = models.Criterion.objects.create(version=version, position=0, text="Short.")
    models.CriterionEvidence.objects.create(
        criterion=criterion, prompt_id=1, chosen_id=1, rejected_id=2, supports=True
    )
    models.CriterionVerdict.objects.create(
        criterion=criterion, response_id=task.response_ids[0], rater=rater, value=1
    )
    models.RubricMeasurement.objects.create(version=version, run=run, sheet=b"")
    models.RewardScore.objects.create(
        project=project, response_id=task.response_ids[0], rubric_version=version, mean=0.5
    )


def fill_judges(project: models.Project, task: models.Task, run: models.Run) -> None:
    judge = factories.judge(project)
    judgment = factories.judgment(judge.rater, task)
    models.LlmCall.objects.create(
        project=project, key=bytes(32), endpoint=judge.endpoint, run=run, model="m", request={},
        reply="",
    )  # fmt: skip
    models.JudgeAnswer.objects.create(judge=judge, task=task, run=run, shown_order=[0, 1])
    models.JudgeOutcome.objects.create(judge=judge, task=task, run=run, judgment=judgment)
    models.JudgeReport.objects.create(judge=judge, run=run, figures={})
    models.Battery.objects.create(judge=judge, run=run, limit=0.01, probes=[], is_passed=True)
    models.AcceptRule.objects.create(judge=judge, limit=0.05)
    models.Acceptance.objects.create(
        project=project, task=task, judge=judge, judgment=judgment, run=run, confidence=0.9,
        overlap_before=1,
    )  # fmt: skip


def address(model: type, what: str, *args: object) -> str:
    return reverse(f"admin:annotator_{model._meta.model_name}_{what}", args=args)


def test_every_table_is_there() -> None:
    missing = [model.__name__ for model in TABLES if not admin.site.is_registered(model)]
    assert not missing


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
def test_list_costs_the_same_for_many_rows(operator: Client, model: type) -> None:
    url = address(model, "changelist")

    def cost() -> int:
        with CaptureQueriesContext(connection) as found:
            assert operator.get(url).status_code == 200
        for one in found.captured_queries:
            if re.match(r"SELECT COUNT\(\*\)", one["sql"]) and model._meta.db_table in one["sql"]:
                assert f"LIMIT {COUNTED}" in one["sql"]
        return len(found)

    fill(2)
    cost()
    few = cost()
    fill(3)
    assert model.objects.count() >= 5
    assert cost() == few


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
def test_rows_open_and_can_be_searched(operator: Client, model: type) -> None:
    fill(1)
    row = model.objects.first()
    assert operator.get(address(model, "change", row.pk)).status_code == 200
    for query in (str(row.pk), "x'\"%\\", "ä"):
        assert operator.get(address(model, "changelist"), {"q": query}).status_code == 200


def test_search_for_a_number_uses_the_key(operator: Client) -> None:
    fill(2)
    judgment = models.Judgment.objects.first()
    with CaptureQueriesContext(connection) as found:
        url = address(models.Judgment, "changelist")
        text = operator.get(url, {"q": str(judgment.task_id)}).content.decode()
    assert address(models.Judgment, "change", judgment.pk) in text
    assert not any("::text" in one["sql"] for one in found.captured_queries)


HISTORY = [models.Judgment, models.Preference, models.AuditEvent, models.DatasetVersion,
           models.Assignment, models.RunPoint, models.ImportIssue, models.Comment,
           models.Consensus, models.Group, models.Image, models.ReviewItem,
           models.QualityReport, models.Judge, models.LlmCall, models.JudgeAnswer,
           models.JudgeOutcome, models.JudgeReport, models.Battery, models.AcceptRule,
           models.Acceptance, models.Rubric, models.RubricVersion, models.Criterion,
           models.CriterionEvidence, models.CriterionVerdict, models.RubricMeasurement,
           models.RewardScore, models.Recipe, models.RecipeVersion]  # fmt: skip


@pytest.mark.parametrize("model", HISTORY, ids=lambda model: model.__name__)
def test_history_cannot_be_rewritten(operator: Client, model: type) -> None:
    fill(1)
    row = model.objects.first()
    assert isinstance(admin.site.get_model_admin(model), HistoryAdmin)
    assert operator.post(address(model, "add"), {}).status_code == 403
    assert operator.post(address(model, "change", row.pk), {}).status_code == 403
    assert operator.post(address(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    action = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    operator.post(address(model, "changelist"), action)
    assert model.objects.filter(pk=row.pk).exists()


def test_secrets_are_nowhere_on_the_pages(operator: Client) -> None:
    fill(1)
    for model in (models.ApiToken, models.Invitation):
        row = model.objects.first()
        for url in (address(model, "changelist"), address(model, "change", row.pk)):
            assert row.token_hash not in operator.get(url).content.decode()


def test_new_account_is_made_with_an_email_address(operator: Client) -> None:
    data = {"email": "New@Example.org", "name": "New", "password1": "long-enough-pw-9",
            "password2": "long-enough-pw-9", "usable_password": "true"}  # fmt: skip
    response = operator.post(address(models.User, "add"), data)
    assert response.status_code == 302, response.context["errors"]
    account = models.User.objects.get(name="New")
    again = operator.post(address(models.User, "add"), data | {"email": "NEW@example.org"})
    assert again.status_code == 200  # shown again, with the reason
    assert account.check_password("long-enough-pw-9")
    assert models.User.objects.get_by_natural_key("NEW@example.org") == account


@pytest.mark.parametrize("staff", [False, True])
def test_pages_are_for_operators(staff: bool) -> None:
    client = Client()
    client.force_login(factories.user(is_staff=staff))
    status = client.get(address(models.Judgment, "changelist")).status_code
    # An operator without a permission for the table is refused too.
    assert status == (403 if staff else 302)


def test_run_list_reads_no_logs(operator: Client) -> None:
    project = factories.project()
    models.Run.objects.create(
        project=project, kind="train", title="T", state="done", log="x" * 1000,
        created_at=timezone.now(),
    )  # fmt: skip
    with CaptureQueriesContext(connection) as found:
        operator.get(address(models.Run, "changelist"))
    assert not any('"annotator_run"."log"' in one["sql"] for one in found.captured_queries)


def test_operators_sign_in_where_the_second_factor_is_asked_for() -> None:
    client = Client()
    models.User.objects.create_superuser("root@example.org", "correct horse battery")
    page = client.get(reverse("admin:login"), follow=True)
    assert page.redirect_chain[-1][0].startswith(reverse("account_login"))
    data = {"username": "root@example.org", "password": "correct horse battery"}
    client.post(reverse("admin:login"), data)
    assert client.get(reverse("admin:index")).status_code == 302
