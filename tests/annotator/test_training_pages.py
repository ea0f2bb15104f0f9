"""The pages of reward models: who may see them, what they say, what they never run."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotator.models import Project, RewardModel, Role, Run, RunState, User
from annotator.services import archives
from tests import factories
from tests.annotator import planted

pytestmark = pytest.mark.django_db

PAGES = ("", "train/", "1/", "1/artifact.zip")
METRICS: dict[str, Any] = {
    "accuracy": 0.741,
    "interval": [0.699, 0.779],
    "interval_method": "wilson",
    "loss": 0.52,
    "test_pairs": 462,
    "test_ties": 7,
    "prompts": 231,
    "baselines": {
        "longer_wins": {
            "accuracy": 0.541,
            "interval": [0.496, 0.586],
            "n": 462,
            "groups": 231,
            "ties": 2,
        },
        "human_ceiling": {
            "accuracy": 0.784,
            "interval": [0.76, 0.806],
            "n": 1210,
            "groups": 404,
            "ties": 9,
        },
    },
    "train_pairs": 1840,
    "validation_pairs": 230,
    "texts": {"train": {"answers_cut": 3}},
    "steps": 580,
    "ended": "complete",
    "kept": {"step": 522, "why": "lowest validation loss"},
    "seconds": 31.0,
    "pairs_per_second": 593.0,
    "seed": 0,
    "data_sha256": "4be1" * 16,
    "versions": {"torch": "2.13.0", "device": "cpu"},
}


def model(project: Project, *, number: int = 1, files: bool = True, **fields: Any) -> RewardModel:
    run = Run.objects.create(
        project=project, kind=Run.Kind.TRAIN, title="Train", state=RunState.DONE
    )
    made = RewardModel.objects.create(
        project=project,
        run=run,
        number=number,
        objective="bradley-terry",
        backbone=fields.pop("backbone", "hashing"),
        options={"epochs": 10, "learning_rate": 0.02},
        metrics=fields.pop("metrics", METRICS),
        artifact=f"runs/{run.pk}/artifact",
    )
    if files:
        folder = Path(django_settings.WORK_ROOT) / made.artifact
        (folder / "nested").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"\x00weights" * 400_000)
        (folder / "nested" / "touchstone.json").write_text('{"format": 1}')
    return made


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


@pytest.fixture
def project() -> Project:
    return planted.preferences(120)


@pytest.fixture
def owner(project: Project) -> Client:
    return signed_in(factories.member(project, Role.OWNER))


def at(project: Project, page: str = "") -> str:
    return f"/p/{project.slug}/reward-models/{page}"


@pytest.mark.parametrize("page", PAGES)
def test_page_is_for_owners_only(project: Project, page: str) -> None:
    model(project)
    url = at(project, page)
    assert Client().get(url).status_code == 302
    assert signed_in(factories.user()).get(url).status_code == 404
    assert signed_in(factories.member(project, Role.ANNOTATOR)).get(url).status_code == 403
    assert signed_in(factories.member(project, Role.REVIEWER)).get(url).status_code == 403
    assert signed_in(factories.member(project, Role.OWNER)).get(url).status_code == 200


def test_model_of_another_project_is_not_found(project: Project, owner: Client) -> None:
    model(factories.project())
    assert owner.get(at(project, "1/")).status_code == 404
    assert owner.get(at(project, "1/artifact.zip")).status_code == 404


def test_training_by_post_needs_the_owner(project: Project) -> None:
    reviewer = signed_in(factories.member(project, Role.REVIEWER))
    assert reviewer.post(at(project, "train/"), {"backbone": "hashing"}).status_code == 403
    assert not Run.objects.exists()


def test_empty_list_says_how_exact_a_first_estimate_would_be(
    project: Project, owner: Client
) -> None:
    page = owner.get(at(project)).content.decode()
    assert "No reward model yet" in page
    assert "120 preferences are enough for a first, wide estimate" in page
    assert "± 24 points" in page  # Wilson on 12 test prompts at 70 %: [.42, .88], rounded up
    assert at(project, "train/") in page


def test_empty_list_without_enough_says_what_is_missing(owner: Client, project: Project) -> None:
    small = planted.preferences(9)
    client = signed_in(factories.member(small, Role.OWNER))
    page = client.get(at(small)).content.decode()
    assert "There are 8 preferences to train on and 0 to test on" in page
    nothing = factories.project()
    client = signed_in(factories.member(nothing, Role.OWNER))
    assert "There are none yet" in client.get(at(nothing)).content.decode()


def test_list_shows_interval_count_baseline_and_ceiling(project: Project, owner: Client) -> None:
    model(project)
    page = owner.get(at(project)).content.decode().replace("\xa0", " ")
    for shown in ("74.1", "[69.9, 77.9]", "462", "54.1", "[49.6, 58.6]", "78.4 %", "[76.0, 80.6]"):
        assert shown in page
    assert '<line class="ref"' in page, "the ceiling is drawn"


def test_list_shows_trainings_under_way(project: Project, owner: Client) -> None:
    Run.objects.create(
        project=project,
        kind=Run.Kind.TRAIN,
        title="Train <b>it</b>",
        state=RunState.RUNNING,
        progress=60,
        total=100,
        unit="steps",
        started_at=timezone.now(),
    )
    page = owner.get(at(project)).content.decode()
    assert "60 of 100 steps" in page
    assert "60 %" in page.replace("\xa0", " ")
    assert "Train &lt;b&gt;it" in page


def test_list_costs_the_same_for_one_model_and_for_many(project: Project, owner: Client) -> None:
    model(project, files=False)
    owner.get(at(project))
    with CaptureQueriesContext(connection) as one:
        owner.get(at(project))
    for number in range(2, 60):
        model(project, number=number, files=False)
    with CaptureQueriesContext(connection) as many:
        page = owner.get(at(project)).content.decode()
    assert len(many) == len(one) <= 12
    assert "50 shown" in page
    assert "?after=" in page


def test_detail_page_costs_few_queries(project: Project, owner: Client) -> None:
    model(project)
    owner.get(at(project, "1/"))
    with CaptureQueriesContext(connection) as queries:
        page = owner.get(at(project, "1/")).content.decode().replace("\xa0", " ")
    assert len(queries) <= 8
    for shown in ("74.1 %", "462 pairs of 231 prompts", "4be1" * 16, "2.13.0", "Learning rate"):
        assert shown in page
    assert "its interval overlaps" not in page
    assert "clearly more than the longer answer" in page


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({}, "no test pair has a preference"),
        (METRICS | {"accuracy": None, "interval": None}, "no test pair has a preference"),
        (METRICS | {"baselines": {}}, "no overlap on the test split"),
        (METRICS | {"interval": [0.45, 0.9]}, "its interval overlaps"),
    ],
)
def test_detail_page_holds_without_numbers(
    project: Project, owner: Client, metrics: dict[str, Any], shown: str
) -> None:
    model(project, metrics=metrics)
    assert shown in owner.get(at(project, "1/")).content.decode()
    assert owner.get(at(project)).status_code == 200


HOSTILE = 'hf:/srv/"><script>alert(1)</script>{{ 7|add:7 }}'


def test_hostile_names_are_text(owner: Client, project: Project) -> None:
    model(
        project, backbone=HOSTILE, metrics=METRICS | {"versions": {"<img src=x>": "<svg/onload>"}}
    )
    for page in ("", "1/"):
        html = owner.get(at(project, page)).content.decode()
        assert "<script>alert" not in html
        assert "<img src=x" not in html.lower()
        assert "{{ 7|add:7 }}" in html or page == ""


def test_artifact_is_one_archive_of_all_files(project: Project, owner: Client) -> None:
    made = model(project)
    response = owner.get(at(project, "1/artifact.zip"))
    assert response.streaming
    assert response["Content-Disposition"] == f'attachment; filename="{project.slug}-rm-1.zip"'
    with zipfile.ZipFile(io.BytesIO(b"".join(response.streaming_content))) as archive:
        assert archive.testzip() is None
        folder = f"{project.slug}-{made.name}"
        assert archive.namelist() == [
            f"{folder}/README.md",
            f"{folder}/model.safetensors",
            f"{folder}/nested/touchstone.json",
        ]
        assert archive.read(archive.namelist()[1]) == b"\x00weights" * 400_000


def test_archive_comes_in_pieces_and_follows_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "weights").write_bytes(b"w" * (5 * archives.PIECE))
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    (folder / "link").symlink_to(secret)
    pieces = list(archives.stream(folder, inside="m"))
    assert max(map(len, pieces)) < 2 * archives.PIECE
    assert b"not yours" not in b"".join(pieces)


def test_artifact_that_is_gone_says_so(project: Project, owner: Client) -> None:
    model(project, files=False)
    response = owner.get(at(project, "1/artifact.zip"))
    assert response.status_code == 410
    assert "no longer on the server" in response.content.decode()
    assert "no longer on the server" in owner.get(at(project, "1/")).content.decode()


def test_form_asks_for_the_options_of_the_chosen_methods(project: Project, owner: Client) -> None:
    page = owner.get(at(project, "train/")).content.decode()
    assert 'name="option_l2"' in page
    assert 'name="option_gradient_checkpointing"' not in page
    assert 'name="model"' not in page
    page = owner.get(at(project, "train/?backbone=hf")).content.decode()
    assert 'name="model"' in page
    assert 'name="option_gradient_checkpointing"' in page
    assert 'name="option_l2"' not in page
    part = owner.get(at(project, "train/?backbone=hf"), headers={"HX-Request": "true"})
    assert part.content.decode().lstrip().startswith('<div class="stack" id="options"')
    assert owner.get(at(project, "train/?backbone=nonsense&objective=%00")).status_code == 200


def test_form_says_what_there_is(project: Project, owner: Client) -> None:
    page = " ".join(owner.get(at(project, "train/")).content.decode().split())
    assert '<th scope="row">Train</th><td class="num">96</td><td class="num">0</td>' in page
    assert "± 24 points" in page


@pytest.mark.django_db(transaction=True)
def test_posting_starts_a_run_with_every_option(project: Project, owner: Client) -> None:
    sent = {
        "objective": "bradley-terry",
        "backbone": "hashing",
        "shown": "bradley-terry hashing",
        "option_epochs": "3",
        "option_l2": "",
        "option_center": "0.5",
        "option_ties": "drop",
        "seed": "7",
        "minutes": "2",
    }
    response = owner.post(at(project, "train/"), sent)
    run = Run.objects.get()
    assert (response.status_code, response["Location"]) == (
        302,
        f"/p/{project.slug}/runs/{run.pk}/",
    )
    config = run.config
    assert config["options"]["epochs"] == 3
    assert config["options"]["l2"] == 30.0, "an empty field is the default"
    assert config["options"]["ties"] == "drop"
    assert config["options"]["weighting"] is False, "a box that was shown and not ticked"
    assert (config["seed"], config["time_limit"]) == (7, 120.0)
    assert run.created_by is not None


def test_options_that_were_never_shown_keep_their_defaults(project: Project, owner: Client) -> None:
    """Without a script, the backbone can be changed and sent before its options were seen."""
    sent = {
        "objective": "bradley-terry",
        "backbone": "hf",
        "shown": "bradley-terry hashing",
        "model": "org/tiny",
        "option_epochs": "9",
    }
    assert owner.post(at(project, "train/"), sent).status_code == 302
    config = Run.objects.get().config
    assert config["backbone"] == "hf:org/tiny"
    assert config["options"]["epochs"] == 2, "nine was meant for the other backbone"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"option_epochs": "0"}, "greater than or equal to 1"),
        ({"option_epochs": "x"}, "whole number"),
        ({"option_learning_rate": "0"}, "greater than 0"),
        ({"option_learning_rate": "nan"}, "Enter a number"),
        ({"option_ties": "<script>"}, "not one of the available choices"),
        ({"backbone": "magic"}, "not one of the available choices"),
        ({"objective": ""}, "required"),
        ({"backbone": "hf", "model": ""}, "needs a model"),
        ({"backbone": "hf", "model": "/etc"}, "nor a folder the operator allows"),
        ({"backbone": "hf", "model": "x" * 400}, "at most 290"),
        ({"seed": "-1"}, "greater than or equal to 0"),
        ({"minutes": "-1"}, "greater than or equal to"),
    ],
)
def test_wrong_input_comes_back_with_what_is_wrong(
    project: Project, owner: Client, sent: dict[str, str], said: str
) -> None:
    values = {"objective": "bradley-terry", "backbone": "hashing"} | sent
    values["shown"] = f"{values['objective']} {values['backbone']}"
    response = owner.post(at(project, "train/"), values)
    assert response.status_code == 422
    assert said in response.content.decode()
    assert "<script>" not in response.content.decode().replace("<script src", "")
    assert not Run.objects.exists()


def test_too_few_pairs_are_refused_on_the_page(owner: Client, project: Project) -> None:
    small = planted.preferences(9)
    client = signed_in(factories.member(small, Role.OWNER))
    page = client.get(at(small, "train/")).content.decode()
    assert "Too few preferences" in page
    response = client.post(
        at(small, "train/"), {"objective": "bradley-terry", "backbone": "hashing", "shown": ""}
    )
    assert response.status_code == 422
    assert "There are 8 preferences to train on and 0 to test on" in response.content.decode()


def test_images_are_offered_what_reads_them(project: Project, owner: Client) -> None:
    Project.objects.filter(pk=project.pk).update(modality=Project.Modality.IMAGE)
    page = owner.get(at(project, "train/?backbone=clip")).content.decode()
    assert 'value="pixels"' in page
    assert 'value="hashing"' not in page
    assert "openai/clip-vit-base-patch32" in page
    response = owner.post(
        at(project, "train/"), {"objective": "bradley-terry", "backbone": "hashing", "shown": ""}
    )
    assert response.status_code == 422
    assert "not one of the available choices" in response.content.decode()
    assert not Run.objects.filter(project=project, kind="train").exists()
