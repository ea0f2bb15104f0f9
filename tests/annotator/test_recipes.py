"""Recipes: saved under a name, in versions, told apart, as files, used by builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.errors import AppError, Invalid, NotFound
from annotator.jobs import exports as jobs
from annotator.models import AuditEvent, Project, Recipe, RecipeVersion, Role
from annotator.services import exports, recipe_files, recipes
from tests import factories
from tests.annotator.ballots import judged_pair, raters

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    project = factories.project()
    judged_pair(project, [1, 1, -1], by=raters(project, 3))
    return project


def save(project: Project, name: str = "Strict", /, **options: Any) -> RecipeVersion:
    return recipes.save(
        project=project, name=name, format="trl-preference", options=options, by=None
    )


def test_saving_the_same_again_makes_no_version_and_a_change_makes_the_next(
    project: Project,
) -> None:
    first = save(project, min_votes=2)
    assert save(project, min_votes=2) == first
    assert save(project, "  Strict ", min_votes=2, ties="drop") == first, "a default, said"
    second = save(project, min_votes=3)
    assert (first.number, second.number) == (1, 2)
    assert first.digest != second.digest
    assert save(project, min_votes=2).number == 3, "back again is a change too"
    assert AuditEvent.objects.filter(verb="recipe.save").count() == 3


def test_options_that_came_later_are_no_change(project: Project) -> None:
    first = save(project, min_votes=2)
    first.options.pop("container")
    first.save()
    assert save(project, min_votes=2).number == 1
    assert not recipes.diff(first, save(project, min_votes=2))


def test_what_no_build_could_use_is_not_saved(project: Project) -> None:
    with pytest.raises(Invalid, match="min_votes"):
        save(project, min_votes=0)
    with pytest.raises(Invalid, match="Nobody"):
        save(project, raters="named", rater_names=["Nobody"])
    with pytest.raises(Invalid, match="no method"):
        recipes.save(project=project, name="x", format="nothing", options={}, by=None)
    for name in ("", "  ", "x" * 81, "Strict:v2", "two\x07"):
        with pytest.raises(Invalid):
            save(project, name)
    assert not Recipe.objects.exists()


def test_a_recipe_is_found_by_its_name_and_by_a_version_of_it(project: Project) -> None:
    first, second = save(project, min_votes=2), save(project, min_votes=3)
    other = save(project, "a:b", min_votes=4)
    assert recipes.named(project, "Strict") == second
    assert recipes.named(project, " Strict:v1 ") == first
    assert recipes.named(project, recipes.reference_of(second)) == second
    assert recipes.named(project, "a:b") == other
    for missing in ("Strict:v3", "Strict:v0", "strict", "", ":v1", "\0"):
        with pytest.raises(NotFound):
            recipes.named(project, missing)
    with pytest.raises(NotFound):
        recipes.named(factories.project(), "Strict")


def test_differences_are_told_in_words_and_across_formats(project: Project) -> None:
    first = save(project, min_votes=2, splits=["train"])
    second = save(project, min_votes=3, rubric_criteria=False)
    assert [(one.title, one.old, one.new) for one in recipes.diff(first, second)] == [
        ("Least votes", "2", "3"),
        ("Splits", "train", "train, validation, test"),
    ]
    raw = recipes.save(project=project, name="Strict", format="judgments", options={}, by=None)
    found = {one.name: (one.old, one.new) for one in recipes.diff(second, raw)}
    assert found["format"] == ("TRL preference", "Raw judgments")
    assert found["min_votes"] == ("3", "")
    assert found["revisions"] == ("", "current")
    gone = recipes.differences("withdrawn", {"speed": 9}, "judgments", raw.options)
    assert ("speed", "9", "") in [(one.name, one.old, one.new) for one in gone]


def test_an_archived_recipe_is_found_and_offered_again_once_it_is_saved(project: Project) -> None:
    version = save(project)
    recipes.archive(recipe=version.recipe, by=None)
    recipes.archive(recipe=version.recipe, by=None)
    assert recipes.named(project, "Strict") == version
    assert save(project) == version
    assert Recipe.objects.get().archived_at is None
    assert AuditEvent.objects.filter(verb="recipe.archive").count() == 1


def test_a_build_remembers_its_recipe_unless_it_was_told_otherwise(project: Project) -> None:
    version = save(project, min_votes=2)
    for options, expected in ((version.options, version.pk), ({"min_votes": 1}, None)):
        run = exports.start(
            project=project, format="trl-preference", options=options, by=None, recipe=version
        )
        jobs.export(run_id=run.pk)
        run.refresh_from_db()
        assert run.dataset_version.recipe_version_id == expected
    assert list(version.datasets.values_list("number", flat=True)) == [1]


def test_why_a_recipe_cannot_be_built_now_is_said(project: Project) -> None:
    version = save(project, raters="named", rater_names=["imported 1"])
    assert recipes.why_not(project, version) == ""
    project.raters.filter(name="imported 1").update(name="someone else")
    assert "imported 1" in recipes.why_not(project, version)


# Files ------------------------------------------------------------------------------------------

TOML = b"""
name = "Strict"
format = "trl-preference"

[options]
min_votes = 2
splits = ["train"]
"""


def test_a_file_comes_back_as_it_was_written(project: Project) -> None:
    import orjson

    version = save(project, min_votes=2, consent="naïve – \u202e “words”")
    data = orjson.dumps(recipe_files.as_json(version))
    assert recipe_files.read(project=project, data=data, by=None) == version
    renamed = recipe_files.read(project=project, data=data, name="Other", by=None)
    assert (renamed.recipe.name, renamed.options) == ("Other", version.options)
    toml = recipe_files.read(project=project, data=TOML, by=None)
    assert (toml.number, toml.options["splits"]) == (2, ["train"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "names no format"),
        (b"[1]", "A recipe has no .1."),
        (b'{"format": 3}', "no recipe"),
        (b'{"format": "trl-preference", "options": []}', "no recipe"),
        (b'{"format": "trl-preference", "option": {}}', "It has name, format, options"),
        (b"{" * 100_000, "too large"),
        (b'{"a":' * 9_000, "no recipe"),
        (b"\xff\xfe", "no recipe"),
        (b"x = " + b"[" * 20_000, "no recipe"),
    ],
)
def test_what_is_no_recipe_is_refused_in_words(data: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        recipe_files.parse(data)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_recipe_or_refused(data: bytes) -> None:
    try:
        told = recipe_files.parse(data)
    except AppError:
        return
    assert told.format


def test_a_word_is_a_file_by_its_ending_or_by_being_there(tmp_path: Path) -> None:
    (tmp_path / "strict").write_bytes(TOML)
    assert recipe_files.is_file(str(tmp_path / "strict"))
    assert recipe_files.is_file("missing.toml")
    assert not recipe_files.is_file("Strict")
    assert not recipe_files.is_file("x" * 10_000)
    assert not recipe_files.is_file("\0")
    assert recipe_files.load(tmp_path / "strict").options["min_votes"] == 2


# Pages ------------------------------------------------------------------------------------------


@pytest.fixture
def owner(project: Project) -> Client:
    client = Client()
    client.force_login(factories.member(project, Role.OWNER))
    return client


def url(name: str, project: Project, *args: Any) -> str:
    return reverse(name, args=[project.slug, *args])


def test_pages_show_versions_what_changed_and_lead_to_the_form(
    project: Project, owner: Client
) -> None:
    assert b"No recipe yet" in owner.get(url("recipes", project)).content
    first, second = save(project, "<b>Two & three", min_votes=2), None
    second = save(project, "<b>Two & three", min_votes=3)
    page = owner.get(url("recipes", project)).content.decode()
    assert "&lt;b&gt;Two &amp; three" in page
    assert "<b>Two" not in page
    assert "?recipe=%3Cb%3ETwo%20%26%20three%3Av2" in page
    page = owner.get(url("recipe", project, first.recipe_id)).content.decode()
    assert "<del>2</del> → <ins>3</ins>" in page
    assert url("recipe_compare", project, first.recipe_id, 2, 1) in page
    page = owner.get(url("recipe_compare", project, first.recipe_id, 2, 1)).content.decode()
    assert "1 option changed" in page
    file = owner.get(url("recipe_file", project, first.recipe_id, 1))
    assert file.json()["options"]["min_votes"] == 2
    assert second.recipe_id == first.recipe_id


def test_a_list_of_recipes_asks_the_same_whatever_its_length(
    project: Project, owner: Client, django_assert_num_queries: Any
) -> None:
    save(project, "one")
    with django_assert_num_queries(7) as few:
        owner.get(url("recipes", project))
    for number in range(5):
        save(project, f"more {number}")
        save(project, f"more {number}", min_votes=2)
    with django_assert_num_queries(len(few.captured_queries)):
        owner.get(url("recipes", project))


def test_a_recipe_is_archived_and_taken_back(project: Project, owner: Client) -> None:
    recipe = save(project).recipe
    owner.post(url("recipe_archive", project, recipe.pk))
    assert b"Strict" not in owner.get(url("recipes", project)).content
    assert b"Strict" in owner.get(url("recipes", project) + "?show=archived").content
    owner.post(url("recipe_archive", project, recipe.pk), {"restore": "1"})
    assert b"Strict" in owner.get(url("recipes", project)).content


def test_a_file_is_imported_or_refused_with_its_reason(project: Project, owner: Client) -> None:
    sent = owner.post(
        url("recipe_import", project), {"file": SimpleUploadedFile("recipe.toml", TOML)}
    )
    assert sent.headers["Location"] == url("recipe", project, Recipe.objects.get().pk)
    for data in (b"nonsense", TOML.replace(b"= 2", b"= 0"), b"x" * 70_000, b""):
        sent = owner.post(
            url("recipe_import", project), {"file": SimpleUploadedFile("recipe.toml", data)}
        )
        assert sent.status_code == 422
        assert b"Not imported" in sent.content
    assert RecipeVersion.objects.count() == 1


def test_recipes_of_another_project_are_not_found(project: Project) -> None:
    version = save(project)
    stranger = Client()
    elsewhere = factories.project()
    stranger.force_login(factories.member(elsewhere, Role.OWNER))
    for address in (
        url("recipe", elsewhere, version.recipe_id),
        url("recipe_file", elsewhere, version.recipe_id, 1),
        url("recipe_compare", elsewhere, version.recipe_id, 1, 1),
        url("recipe", project, version.recipe_id),
    ):
        assert stranger.get(address).status_code == 404
