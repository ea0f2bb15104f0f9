"""The raters' and the agreement page: what they say, who may do what, known values on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.template.loader import render_to_string
from django.test import Client
from django.urls import reverse

from annotator.charts_heat import heat_map
from annotator.jobs.quality import measure
from annotator.models import AuditEvent, Project, Rater, Role, Run, User
from annotator.queries import quality as queries
from annotator.services import quality, tokens
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project("letters", settings={"overlap": 2})


@pytest.fixture
def alice(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Alice")


@pytest.fixture
def bob(project: Project) -> User:
    return factories.member(project, Role.REVIEWER, name="Bob")


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page(user: User, project: Project, name: str = "raters", **filters: str) -> str:
    response = client_of(user).get(reverse(name, args=[project.slug]), filters)
    assert response.status_code == 200
    return response.content.decode()


def judged(project: Project, n: int = 24) -> list[Rater]:
    """Two people who agree on three of four tasks."""
    people = [factories.rater(project, name=name) for name in ("Uma", "<b>Vic</b>")]
    for number in range(n):
        task = factories.pairwise_task(project, overlap=2)
        for person, choice in zip(people, ["a1", "a1" if number % 4 else "b1"], strict=True):
            factories.judgment(person, task, choice)
    return people


def compute(project: Project) -> None:
    run, _ = quality.start(project=project, by=None)
    measure(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == "done", run.log


@pytest.mark.parametrize("name", ["raters", "quality"])
def test_nothing_computed_says_so_with_one_button(project: Project, alice: User, name: str) -> None:
    text = page(alice, project, name)
    assert "Nobody has judged yet" in text
    assert text.count("primary") == 1
    judged(project, 1)
    text = page(alice, project, name)  # looking at it starts a run
    assert "is reading the judgments" in text
    Run.objects.filter(project=project).update(state="failed")
    text = page(alice, project, name)
    assert "Nothing computed yet" in text
    assert text.count("primary") == 1


def test_raters_stand_in_one_table_with_their_intervals(project: Project, bob: User) -> None:
    judged(project)
    compute(project)
    text = page(bob, project)
    assert "Uma" in text
    assert "&lt;b&gt;Vic&lt;/b&gt;" in text
    assert "<b>Vic" not in text
    assert "75.0\u00a0%" in text
    assert "from 48 judgments" in text
    assert "Who agrees with whom" in text
    assert "Leave the votes out" not in text  # a reviewer looks; owners act


def test_filters_are_plain_addresses_and_nonsense_means_all(project: Project, bob: User) -> None:
    judged(project, 2)
    compute(project)
    assert '<option value="7" selected>' in page(bob, project, since="7")
    assert '<option value="start" selected>' in page(bob, project, since="'; --", kind="x")


def test_votes_left_out_are_said_so_and_counted_again(project: Project, alice: User) -> None:
    uma, _ = judged(project)
    compute(project)
    client = client_of(alice)
    for action, is_excluded in (("exclude", True), ("include", False)):
        address = reverse("rater_change", args=[project.slug, uma.pk, action])
        response = client.post(address, follow=True)
        assert response.status_code == 200
        uma.refresh_from_db()
        assert uma.is_excluded is is_excluded
        assert ("left out" in response.content.decode()) is is_excluded
        Run.objects.filter(project=project, state="queued").update(state="canceled")
    said = AuditEvent.objects.filter(project=project, actor=alice, verb__startswith="rater.")
    assert [event.verb for event in said.order_by("pk")] == ["rater.exclude", "rater.include"]


def test_a_rater_of_another_project_is_not_touched(project: Project, alice: User) -> None:
    other = factories.rater(factories.project())
    client_of(alice).post(reverse("rater_change", args=[project.slug, other.pk, "exclude"]))
    other.refresh_from_db()
    assert not other.is_excluded


def test_pages_say_how_many_judgments_are_newer(project: Project, bob: User) -> None:
    judged(project, 2)
    compute(project)
    factories.judgment(factories.rater(project), factories.pairwise_task(project, overlap=2))
    assert "; 1 is newer" in page(bob, project, "quality")


def test_button_starts_one_run(project: Project, bob: User) -> None:
    judged(project, 1)
    address = reverse("quality_measure", args=[project.slug])
    client = client_of(bob)
    first, second = client.post(address), client.post(address)
    run = Run.objects.get(project=project, kind="quality")
    where = reverse("run", args=[project.slug, run.pk])
    assert first.headers["Location"] == second.headers["Location"] == where
    measure(run_id=run.pk)
    assert client.get(where).status_code == 200


def test_every_chart_of_agreement_has_its_numbers_in_a_table(project: Project, bob: User) -> None:
    judged(project)
    compute(project)
    text = page(bob, project, "quality")
    assert "How far raters agree" in text
    assert text.count('role="img"') == text.count("<summary>Numbers</summary>") > 2
    assert " style=" not in text  # the policy forbids them


def test_api_gives_the_report_and_starts_one(project: Project, bob: User) -> None:
    _, secret = tokens.create(user=bob, name="test")
    headers = {"Authorization": f"Bearer {secret}"}
    client, address = Client(), f"/api/v1/projects/{project.slug}/quality"
    assert client.get(address, headers=headers).status_code == 404
    judged(project, 4)
    started = client.post(address, headers=headers)
    assert started.status_code == 200, started.content
    measure(run_id=started.json()["id"])
    found = client.get(address, headers=headers).json()
    assert found["judgments"] == 8
    assert found["agreement"]["whole"]["percent"]["value"] == pytest.approx(0.75)
    assert len(found["raters"]) == 2


def test_heat_map_holds_whatever_names_and_shares_there_are() -> None:
    names = ["<script>", "x" * 500, "", "Ünal"]
    shares = [[None, 0.5, float("nan"), 1.0]] * 4
    found = heat_map(names, shares, label="Finding.", groups=[0, 0, 1, 1])
    drawn = render_to_string(found.template, {"chart": found})
    assert "<script>" not in drawn
    assert len(found.cells) == 12
    assert {one.text for one in found.cells} == {"50", "100", "–"}
    assert {one.shade for one in found.cells} == {0, 6, None}
    assert found.cells[1].x - found.cells[0].x > found.cells[2].x - found.cells[1].x
    assert len(found.table.rows) == 6
    assert heat_map([], [], label="Nobody.").cells == ()


# Known values, through the product's own import and page ----------------------------------------


def measured(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[User, Project, dict[str, Any]]:
    """A file imported and measured by the commands; the figures of its report."""
    owner = factories.user()
    call_command("create_project", "golden", owner=owner.email)
    call_command("import_dataset", "golden", str(path))
    call_command("measure_quality", "golden", wait=True, json=True)
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["judgments"]
    project = Project.objects.get(slug="golden")
    report = queries.report(project)
    assert report is not None
    return owner, project, report.figures


@pytest.mark.data
def test_pandalm_shows_the_published_kappas(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, project, _ = measured(data_dir / "pandalm" / "testset-v1.json", capsys)
    text = page(owner, project, "quality")
    for value in (".8520", ".8789", ".8617", ".8642"):
        assert value in text
    assert "pythia-6.9b" in text


@pytest.mark.data
def test_dsg_shows_the_published_alphas(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owner, project, _ = measured(data_dir / "dsg_tifa160_likert" / "likert.csv", capsys)
    text = page(owner, project, "quality")
    for value in (".3969", ".6854", ".6844"):
        assert value in text


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "majority", "learned"),
    [("rte", "89.69", "92.75"), ("temp", "93.61", "94.16")],
)
def test_snow_shows_what_dawid_skene_gains_over_voting(
    data_dir: Path, capsys: pytest.CaptureFixture[str], name: str, majority: str, learned: str
) -> None:
    owner, project, _ = measured(data_dir / "crowdtruth" / f"snow2008_{name}.csv.gz", capsys)
    text = page(owner, project, "quality")
    assert majority in text
    assert learned in text


@pytest.mark.data
def test_llmbar_warns_that_judges_share_their_errors(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, project, figures = measured(data_dir / "llmbar" / "judgments.jsonl.gz", capsys)
    right = {one["key"]: one["value"] for one in figures["known"]}
    assert right["dawid-skene"] < right["majority"]
    for name in ("raters", "quality"):
        assert "Raters share errors" in page(owner, project, name)
