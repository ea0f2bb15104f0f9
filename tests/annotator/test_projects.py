"""Projects: created, listed, set, archived; the command that makes one."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotator.errors import Conflict, Invalid
from annotator.forms.projects import OptionsForm
from annotator.models import (
    AuditEvent,
    Membership,
    Project,
    ProjectSettings,
    Role,
    Run,
    Task,
    User,
)
from annotator.queries import projects as lists
from annotator.services import projects, queue
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> User:
    return factories.user("Alice", may_create_projects=True)


@pytest.fixture
def project(alice: User) -> Project:
    return projects.create(slug="letters", name="Letters", owner=alice)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def settings_data(project: Project, **changes: object) -> dict[str, object]:
    """The settings page's form as a browser sends it back unchanged, then changed."""
    form = OptionsForm(None, project=project)
    data = {
        name: form[name].value()
        for name in form.fields
        # An unticked box is not sent; 0 is, though it equals False.
        if form[name].value() is not None
        and form[name].value() is not False
        and not form.fields[name].disabled
    }
    texts = {name: getattr(project, name) for name in projects.TEXTS}
    return {name: value for name, value in (data | texts | changes).items() if value is not None}


# The service ------------------------------------------------------------------------------------


def test_create_makes_an_owner_and_an_event(project: Project, alice: User) -> None:
    assert Membership.objects.get(project=project).user == alice
    assert Membership.objects.get(project=project).role == Role.OWNER
    assert AuditEvent.objects.get(project=project).verb == "project.create"


def test_create_refuses_a_taken_slug_and_changes_nothing(project: Project) -> None:
    other = factories.user()
    with pytest.raises(Conflict, match="letters"):
        projects.create(slug="letters", name="Mine", owner=other)
    project.refresh_from_db()
    assert project.name == "Letters"
    assert not Membership.objects.filter(user=other).exists()


@pytest.mark.parametrize("slug", ["", "a b", "ä", "a/b", "x" * 61, "../etc", "a\x00"])
def test_create_refuses_a_bad_slug(slug: str, alice: User) -> None:
    with pytest.raises(Invalid):
        projects.create(slug=slug, name="Name", owner=alice)


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Letters", "letters-2"), ("Ärzte & Briefe", "arzte-briefe"), ("!!!", "project")],
)
def test_free_slug_is_made_from_the_name(project: Project, name: str, slug: str) -> None:
    assert projects.free_slug(name) == slug


def test_change_of_overlap_reaches_every_task(project: Project, alice: User) -> None:
    tasks = [factories.pairwise_task(project) for _ in range(3)]
    options = project.options.model_copy(update={"overlap": 3})
    changed = projects.change(project=project, by=alice, texts={}, options=options)
    assert changed == ["overlap"]
    assert set(Task.objects.values_list("overlap", "free")) == {(3, 3)}
    event = AuditEvent.objects.get(verb="project.change")
    assert event.data == {"changed": ["overlap"], "tasks": len(tasks)}
    lease = queue.claim_next(project=project, rater=factories.rater(project))
    assert lease is not None


def test_change_to_the_same_is_no_event(project: Project, alice: User) -> None:
    texts = {name: getattr(project, name) for name in projects.TEXTS}
    assert projects.change(project=project, by=alice, texts=texts, options=project.options) == []
    assert not AuditEvent.objects.filter(verb="project.change").exists()


@pytest.mark.parametrize(
    "update",
    [{"split_seed": "other"}, {"split": {"train": 0.5, "validation": 0.25, "test": 0.25}}],
)
def test_split_is_locked_once_prompts_were_drawn(
    project: Project, alice: User, update: dict[str, object]
) -> None:
    options = ProjectSettings.model_validate(project.options.model_dump() | update)
    assert projects.change(project=project, by=alice, texts={}, options=options)
    factories.prompt(project)
    back = ProjectSettings()
    with pytest.raises(Conflict, match="locked"):
        projects.change(project=project, by=alice, texts={}, options=back)
    project.refresh_from_db()
    assert project.options == options


def test_archive_and_restore(project: Project, alice: User) -> None:
    projects.set_archived(project=project, archived=True, by=alice)
    projects.set_archived(project=project, archived=True, by=alice)
    project.refresh_from_db()
    assert project.archived_at is not None
    projects.set_archived(project=project, archived=False, by=alice)
    project.refresh_from_db()
    assert project.archived_at is None
    verbs = AuditEvent.objects.order_by("pk").values_list("verb", flat=True)
    assert list(verbs) == ["project.create", "project.archive", "project.restore"]


# The command ------------------------------------------------------------------------------------


def run_command(*args: str) -> str:
    out = StringIO()
    call_command("create_project", *args, stdout=out)
    return out.getvalue()


def test_command_prints_one_json_object_last() -> None:
    operator = User.objects.create_superuser("root@example.org", "x" * 12)
    report = json.loads(
        run_command("hh", "--name", "HH", "--overlap", "3", "--json").splitlines()[-1]
    )
    project = Project.objects.get(slug="hh")
    assert report == {
        "project": "hh",
        "id": project.pk,
        "name": "HH",
        "modality": "text",
        "overlap": 3,
        "owner": operator.email,
    }
    assert project.options.overlap == 3
    assert Membership.objects.get(project=project).user == operator


def test_command_works_on_an_empty_server() -> None:
    report = json.loads(run_command("first-one", "--json"))
    assert report["owner"] is None
    assert report["name"] == "First one"
    assert "no owner yet" in run_command("second-one")


def test_command_takes_no_owner_out_of_two_superusers() -> None:
    for name in ("a", "b"):
        User.objects.create_superuser(f"{name}@example.org", "x" * 12)
    assert json.loads(run_command("hh", "--json"))["owner"] is None
    owned = json.loads(run_command("mine", "--owner", "B@example.org", "--json"))
    assert owned["owner"] == "b@example.org"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["letters"], "already"),
        (["bad slug"], "address"),
        (["fine", "--overlap", "0"], "overlap"),
        (["fine", "--overlap", "51"], "overlap"),
        (["fine", "--owner", "nobody@example.org"], "no active account"),
        (["fine", "--modality", "smell"], "invalid choice"),
    ],
)
def test_command_says_what_is_wrong_and_makes_nothing(
    project: Project, args: list[str], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        run_command(*args)
    assert Project.objects.count() == 1


# New project ------------------------------------------------------------------------------------


def test_new_project_is_for_those_who_may() -> None:
    client = signed_in(factories.user())
    assert client.get(reverse("project_new")).status_code == 403
    assert client.post(reverse("project_new"), {"name": "Mine"}).status_code == 403
    assert "New project" not in client.get(reverse("projects")).content.decode()


def test_new_project_makes_its_address_from_its_name(alice: User) -> None:
    response = signed_in(alice).post(
        reverse("project_new"),
        {"name": "Data answers", "slug": "", "question": "Which?", "modality": "text",
         "overlap": "3", "guidelines": "# Look"},
    )  # fmt: skip
    project = Project.objects.get()
    assert response["Location"] == reverse("overview", args=["data-answers"])
    assert (project.slug, project.options.overlap, project.guidelines) == (
        "data-answers",
        3,
        "# Look",
    )
    assert Membership.objects.get(project=project, user=alice).role == Role.OWNER


@pytest.mark.parametrize(
    "bad",
    [
        {"name": ""},
        {"slug": "letters"},
        {"slug": "no good"},
        {"overlap": "0"},
        {"overlap": "x"},
        {"modality": "smell"},
        {"name": "x" * 121},
        {"guidelines": "x" * 100_001},
    ],
)
def test_new_project_says_what_is_wrong(project: Project, alice: User, bad: dict) -> None:
    data = {"name": "N", "slug": "n", "modality": "text", "overlap": "1"} | bad
    response = signed_in(alice).post(reverse("project_new"), data)
    assert response.status_code == 422
    assert 'class="error"' in response.content.decode()
    assert Project.objects.count() == 1


# Settings ---------------------------------------------------------------------------------------


def test_settings_save_everything_at_once(project: Project, alice: User) -> None:
    data = settings_data(
        project, name="Better letters", overlap="4", allow_tie=None, rationale="required",
        skip_reasons="Too long\n\n Too long \nWrong language\n", split_train="70",
        split_validation="20", split_test="10", lease_minutes="45",
    )  # fmt: skip
    response = signed_in(alice).post(reverse("settings", args=[project.slug]), data)
    assert response.status_code == 302
    project.refresh_from_db()
    options = project.options
    assert project.name == "Better letters"
    assert (options.overlap, options.allow_tie, options.rationale) == (4, False, "required")
    assert options.skip_reasons == ["Too long", "Wrong language"]
    assert options.split.model_dump() == {"train": 0.7, "validation": 0.2, "test": 0.1}
    assert options.lease_minutes == 45


def test_settings_sent_back_unchanged_change_nothing(project: Project, alice: User) -> None:
    before = project.options
    client, url = signed_in(alice), reverse("settings", args=[project.slug])
    assert client.post(url, settings_data(project)).status_code == 302
    project.refresh_from_db()
    assert project.options == before
    assert not AuditEvent.objects.filter(verb="project.change").exists()


@pytest.mark.parametrize(
    "bad",
    [
        {"overlap": "0"},
        {"overlap": "51"},
        {"lease_minutes": "0"},
        {"rationale": "maybe"},
        {"name": ""},
        {"split_train": "90"},
        {"split_test": "-1"},
        {"split_seed": ""},
        {"skip_reasons": "\n".join(f"reason {n}" for n in range(13))},
        {"skip_reasons": "x" * 201},
        {"overlap": ""},
        {"split_train": "nan"},
    ],
)
def test_settings_say_what_is_wrong_and_keep_what_was(
    project: Project, alice: User, bad: dict
) -> None:
    before = project.settings
    url = reverse("settings", args=[project.slug])
    response = signed_in(alice).post(url, settings_data(project, **bad))
    assert response.status_code == 422
    assert (
        'data-state="failed"' in response.content.decode() or "error" in response.content.decode()
    )
    project.refresh_from_db()
    assert project.settings == before
    assert project.name == "Letters"


def test_locked_split_ignores_what_is_sent_and_says_why(project: Project, alice: User) -> None:
    factories.prompt(project)
    client, url = signed_in(alice), reverse("settings", args=[project.slug])
    page = client.get(url).content.decode()
    assert "Locked" in page
    data = settings_data(
        project,
        split_train="10",
        split_validation="10",
        split_test="80",
        split_seed="mine",
        daily_target="99",
    )
    assert client.post(url, data).status_code == 302
    project.refresh_from_db()
    assert project.options.split.train == 0.8
    assert project.options.split_seed == "touchstone"
    assert project.options.daily_target == 99


def test_every_setting_has_a_field(project: Project) -> None:
    """A setting added to the pydantic model shows up on the page by itself, or fails here."""
    shown = set(OptionsForm(None, project=project).fields)
    for name in ProjectSettings.model_fields:
        assert name in shown or any(field.startswith(f"{name}_") for field in shown), name


def test_preview_works_with_and_without_htmx(project: Project, alice: User) -> None:
    client, url = signed_in(alice), reverse("settings", args=[project.slug])
    data = settings_data(project, guidelines="**bold** <img src=x onerror=alert(1)>", preview="1")
    page = client.post(url, data).content.decode()
    part = client.post(url, data, headers={"HX-Request": "true"}).content.decode()
    for answer in (page, part):
        assert "<strong>bold</strong>" in answer
        assert "<img src=x" not in answer
    assert "<html" in page
    assert "<html" not in part
    project.refresh_from_db()
    assert project.guidelines == ""


def test_archive_page_puts_away_and_takes_out(project: Project, alice: User) -> None:
    client, url = signed_in(alice), reverse("project_archive", args=[project.slug])
    assert client.post(url)["Location"] == reverse("projects")
    listed = client.get(reverse("projects")).content.decode()
    assert "No projects yet" in listed
    assert project.name in client.get(reverse("projects") + "?archived=1").content.decode()
    client.post(url, {"restore": "1"})
    assert project.name in client.get(reverse("projects")).content.decode()


# The list ---------------------------------------------------------------------------------------


def test_list_shows_only_own_projects(project: Project, alice: User) -> None:
    foreign = factories.project(name="Somebody else's secret")
    page = signed_in(alice).get(reverse("projects")).content.decode()
    assert "Letters" in page
    assert foreign.name not in page


def test_list_tells_an_annotator_nothing_but_the_own_work(project: Project) -> None:
    charlie = factories.member(project, Role.ANNOTATOR)
    pair = factories.pairwise_task(project, overlap=2)
    for _ in range(2):
        factories.judgment(factories.rater(project), pair)
    factories.pairwise_task(project)
    Run.objects.create(project=project, kind="train", title="Secret training", state="running")
    Run.objects.create(project=project, kind="train", title="Secret failure", state="failed")
    found = lists.projects(charlie)
    page = signed_in(charlie).get(reverse("projects")).content.decode()
    assert "Secret" not in page
    assert "100.0" not in page  # how often the others agree
    assert [item.label for item in found.waiting] == ["Annotate 1 pair"]
    assert found.running == []


def test_waiting_counts_down_to_the_share_of_today(project: Project, alice: User) -> None:
    rater = factories.raters.for_member(project=project, user=alice)
    project.set_options(project.options.model_copy(update={"daily_target": 2}))
    project.save()
    for _ in range(4):
        factories.pairwise_task(project)

    def annotate() -> list[str]:
        from annotator.queries import figures

        figures.forget(project.pk)
        return [w.label for w in lists.projects(alice).waiting if "Annotate" in w.label]

    assert annotate() == ["Annotate 2 pairs"]
    factories.judgment(rater, Task.objects.filter(judged=0).first())
    assert annotate() == ["Annotate 1 pair"]
    factories.judgment(rater, Task.objects.filter(judged=0).first())
    assert annotate() == []


def test_failed_run_waits_for_its_owner_first(project: Project, alice: User) -> None:
    factories.pairwise_task(project)
    run = Run.objects.create(project=project, kind="import", title="Import a", state="failed")
    waiting = lists.projects(alice).waiting
    assert waiting[0].label == f"Run {run.pk} failed"
    assert waiting[0].url == reverse("run", args=[project.slug, run.pk])


def test_list_costs_the_same_for_many_projects(project: Project, alice: User) -> None:
    client, url = signed_in(alice), reverse("projects")

    def fill(count: int) -> None:
        for _ in range(count):
            more = factories.project()
            Membership.objects.create(project=more, user=alice, role=Role.OWNER)
            pair = factories.pairwise_task(more, overlap=3)
            for _ in range(2):
                factories.judgment(factories.rater(more), pair)
            Run.objects.create(project=more, kind="export", title="E", state="running")

    def cost() -> int:
        factories.forget_cached()
        with CaptureQueriesContext(connection) as found:
            assert client.get(url).status_code == 200
        return len(found)

    fill(2)
    cost()
    few = cost()
    fill(6)
    assert cost() <= few <= 20


def test_list_goes_on_page_by_page(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAGE", 2)
    made = [projects.create(slug=f"p{n}", name=f"P{n}", owner=alice) for n in range(5)]
    seen, after = [], None
    while True:
        page = lists.projects(alice, after=after).page
        seen += [row.project.slug for row in page.rows]
        if page.next is None:
            break
        after = page.next
    assert seen == [project.slug for project in reversed(made)]


@pytest.mark.parametrize("value", ["x", "-1", "9" * 30, "²", ""])
def test_list_takes_nonsense_for_the_start(project: Project, alice: User, value: str) -> None:
    assert signed_in(alice).get(reverse("projects"), {"after": value}).status_code == 200
