"""Who gets in where: every address of a project, every kind of visitor, GET and POST.

Alice owns, Bob reviews, Charlie annotates; Mallory is signed in and a stranger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from django.test import Client
from django.urls import URLPattern, reverse

from annotator import urls
from annotator.models import Project, Role, Run, User
from annotator.queries.access import RANK
from annotator.services import members
from tests import factories

pytestmark = pytest.mark.django_db

# The smallest role that may open each address. An address that is not here fails the test.
LEAST: Final = {
    "overview": Role.REVIEWER,
    "settings": Role.OWNER,
    "project_archive": Role.OWNER,
    "members": Role.OWNER,
    "member_change": Role.OWNER,
    "member_remove": Role.OWNER,
    "member_limits": Role.OWNER,
    "group_new": Role.OWNER,
    "group": Role.OWNER,
    "project_pause": Role.OWNER,
    "tasks": Role.OWNER,
    "tasks_change": Role.OWNER,
    "invite": Role.OWNER,
    "invite_revoke": Role.OWNER,
    "annotate": Role.ANNOTATOR,
    "undo": Role.ANNOTATOR,
    "answer": Role.ANNOTATOR,
    "skip": Role.ANNOTATOR,
    "draft": Role.ANNOTATOR,
    "reopen": Role.ANNOTATOR,
    "remark": Role.ANNOTATOR,
    "history": Role.ANNOTATOR,
    "review": Role.REVIEWER,
    "review_item": Role.REVIEWER,
    "task": Role.REVIEWER,
    "task_decide": Role.REVIEWER,
    "task_comment": Role.REVIEWER,
    "rater_judgments": Role.REVIEWER,
    "image": Role.ANNOTATOR,
    "imports": Role.OWNER,
    "import_new": Role.OWNER,
    "import_bad_rows": Role.OWNER,
    "import_undo": Role.OWNER,
    "runs": Role.REVIEWER,
    "run": Role.REVIEWER,
    "run_log": Role.REVIEWER,
    "run_cancel": Role.OWNER,
    "run_pause": Role.OWNER,
    "run_failures": Role.REVIEWER,
    "run_retry_failed": Role.OWNER,
    "run_resume": Role.OWNER,
    "run_retry": Role.OWNER,
    "raters": Role.REVIEWER,
    "rater_change": Role.OWNER,
    "quality": Role.REVIEWER,
    "quality_measure": Role.REVIEWER,
    "judges": Role.REVIEWER,
    "judge_new": Role.OWNER,
    "calls": Role.OWNER,
    "call": Role.OWNER,
    "endpoint_new": Role.OWNER,
    "endpoint": Role.OWNER,
    "endpoint_check": Role.OWNER,
    "endpoint_archive": Role.OWNER,
    "judge": Role.REVIEWER,
    "judge_run": Role.OWNER,
    "judge_battery": Role.OWNER,
    "judge_measure": Role.REVIEWER,
    "judge_accept": Role.REVIEWER,
    "judge_accept_change": Role.OWNER,
    "judge_archive": Role.OWNER,
    "rubrics": Role.REVIEWER,
    "rubric": Role.REVIEWER,
    "rubric_archive": Role.OWNER,
    "rubric_version": Role.REVIEWER,
    "rubric_change": Role.OWNER,
    "rubric_add": Role.OWNER,
    "rubric_decide": Role.OWNER,
    "rubric_edit": Role.OWNER,
    "rubric_merge": Role.OWNER,
    "rubric_compare": Role.REVIEWER,
    "rubric_use": Role.REVIEWER,
    "rubric_try": Role.REVIEWER,
    "rubric_induce": Role.OWNER,
    "rubric_import": Role.OWNER,
    "rubric_new": Role.OWNER,
    "rubric_gaps": Role.REVIEWER,
    "rubric_gaps_queue": Role.OWNER,
    "rubric_gaps_induce": Role.OWNER,
    "rubric_file": Role.REVIEWER,
    "reward_models": Role.OWNER,
    "train": Role.OWNER,
    "reward_model": Role.OWNER,
    "reward_model_evaluate": Role.OWNER,
    "reward_models_compare": Role.OWNER,
    "reward_model_artifact": Role.OWNER,
    "reward_model_score": Role.OWNER,
    "reward_compare": Role.OWNER,
    "reward_try": Role.OWNER,
    "workers": Role.REVIEWER,
    "rubric_use_judge": Role.OWNER,
    "rubric_use_people": Role.OWNER,
    "rubric_use_scores": Role.REVIEWER,
    "datasets": Role.OWNER,
    "export": Role.OWNER,
    "dataset": Role.OWNER,
    "dataset_download": Role.OWNER,
    "recipes": Role.OWNER,
    "recipe": Role.OWNER,
    "recipe_archive": Role.OWNER,
    "recipe_compare": Role.OWNER,
    "recipe_file": Role.OWNER,
    "recipe_import": Role.OWNER,
    "dataset_compare": Role.OWNER,
    "dataset_archive": Role.OWNER,
    "dataset_links": Role.OWNER,
    "dataset_downloads": Role.OWNER,
    "dataset_delete": Role.OWNER,
}
METHODS: Final = ("get", "post")
NAMES: Final = [pattern.name for pattern in urls.project]


def address(pattern: URLPattern, project: Project, run: Run) -> str:
    """The address with values that exist where a view looks them up before anything else."""
    filled = {"run_id": run.pk, "name": "data.jsonl"}
    values = {name: filled.get(name, 1) for name in pattern.pattern.converters}
    return reverse(pattern.name, kwargs={"slug": project.slug} | values)


@pytest.fixture
def project() -> Project:
    return factories.project("vault")


@pytest.fixture
def run(project: Project) -> Run:
    return Run.objects.create(
        project=project, kind=Run.Kind.EXPORT, title="Export", state="done", log="a line\n"
    )


@pytest.fixture
def people(project: Project) -> dict[Role, User]:
    return {
        Role.OWNER: factories.member(project, Role.OWNER, name="Alice"),
        Role.REVIEWER: factories.member(project, Role.REVIEWER, name="Bob"),
        Role.ANNOTATOR: factories.member(project, Role.ANNOTATOR, name="Charlie"),
    }


def visits(project: Project, run: Run) -> Iterator[tuple[str, str, str]]:
    for pattern in urls.project:
        for method in METHODS:
            yield pattern.name, method, address(pattern, project, run)


def signed_in(user: User) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def test_table_names_every_address() -> None:
    assert sorted(NAMES) == sorted(LEAST)


def test_anonymous_is_sent_to_sign_in(project: Project, run: Run) -> None:
    client = Client(raise_request_exception=False)
    wrong = {}
    for name, method, url in visits(project, run):
        response = getattr(client, method)(url)
        if response.status_code != 302 or not response["Location"].startswith(
            reverse("account_login")
        ):
            wrong[name, method] = response.status_code
    assert not wrong


def test_stranger_finds_nothing(project: Project, run: Run, people: dict[Role, User]) -> None:
    # Mallory owns another project, which opens no door here.
    client = signed_in(factories.member(factories.project(), Role.OWNER, name="Mallory"))
    wrong = {
        (name, method): status
        for name, method, url in visits(project, run)
        if (status := getattr(client, method)(url).status_code) != 404
    }
    assert not wrong


def test_stranger_cannot_tell_a_project_from_none(project: Project, run: Run) -> None:
    client = signed_in(factories.user("Mallory"))
    there = client.get(reverse("overview", args=[project.slug]))
    nowhere = client.get(reverse("overview", args=["no-such-project"]))
    assert there.status_code == nowhere.status_code == 404
    assert project.name not in there.content.decode()


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
def test_smaller_roles_are_refused(
    project: Project, run: Run, people: dict[Role, User], role: Role
) -> None:
    client = signed_in(people[role])
    wrong = {
        (name, method): status
        for name, method, url in visits(project, run)
        if RANK[role] < RANK[LEAST[name]]
        and (status := getattr(client, method)(url).status_code) not in (403, 404)
    }
    assert not wrong


@pytest.mark.parametrize("role", list(Role))
def test_roles_get_in_where_they_may(
    project: Project, run: Run, people: dict[Role, User], role: Role
) -> None:
    """With a GET only: what a POST does is for the tests of each page."""
    client = signed_in(people[role])
    wrong = {}
    for name, method, url in visits(project, run):
        if method == "post" or RANK[role] < RANK[LEAST[name]]:
            continue
        status = client.get(url).status_code
        # 405: let in, but it takes a POST. 404: let in, but there is no row 1 of that kind.
        missing_is_fine = name in (
            "import_bad_rows",
            "import_undo",
            "reward_model",
            "reward_model_evaluate",
            "reward_model_artifact",
            "reward_try",
            "dataset",
            "dataset_download",
            "dataset_archive",
            "dataset_downloads",
            "dataset_delete",
            "image",
            "member_change",
            "member_remove",
            "review_item",
            "task",
            "rater_judgments",
            "judge",
            "judge_accept",
            "endpoint",
            "run_failures",
            "call",
        )
        missing_is_fine |= name.startswith("rubric_") or name == "rubric"
        missing_is_fine |= name.startswith("recipe_") or name == "recipe"
        if status not in (200, 302, 405) and not (status == 404 and missing_is_fine):
            wrong[name] = status
    assert not wrong


def test_removed_member_is_a_stranger_at_once(project: Project, people: dict[Role, User]) -> None:
    client, url = signed_in(people[Role.REVIEWER]), reverse("overview", args=[project.slug])
    assert client.get(url).status_code == 200
    members.remove(
        membership=project.memberships.get(user=people[Role.REVIEWER]), by=people[Role.OWNER]
    )
    assert client.get(url).status_code == 404


def test_run_of_another_project_is_not_found(
    project: Project, run: Run, people: dict[Role, User]
) -> None:
    elsewhere = factories.project()
    foreign = Run.objects.create(project=elsewhere, kind="export", title="Secret", state="failed")
    client = signed_in(people[Role.OWNER])
    for name, method in (
        ("run", "get"),
        ("run_log", "get"),
        ("run_cancel", "post"),
        ("run_resume", "post"),
        ("run_retry", "post"),
    ):
        url = reverse(name, args=[project.slug, foreign.pk])
        assert getattr(client, method)(url).status_code == 404, name
    foreign.refresh_from_db()
    assert foreign.state == "failed"


def test_fragment_is_guarded_like_its_page(
    project: Project, run: Run, people: dict[Role, User]
) -> None:
    """htmx asks for parts of pages: the check is in the view, not in the page around them."""
    url = reverse("run", args=[project.slug, run.pk])
    headers = {"HX-Request": "true"}
    assert signed_in(people[Role.ANNOTATOR]).get(url, headers=headers).status_code == 403
    stranger = signed_in(factories.user("Mallory"))
    assert stranger.get(url, headers=headers).status_code == 404


def test_post_needs_a_csrf_token(project: Project, people: dict[Role, User]) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(people[Role.OWNER])
    assert client.post(reverse("project_archive", args=[project.slug])).status_code == 403
    project.refresh_from_db()
    assert project.archived_at is None
