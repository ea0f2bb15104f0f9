"""Rubrics as files: what is written is what is read, and whatever else is sent is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.errors import Invalid
from annotator.models import Criterion, Project, Role, Rubric, RubricVersion
from annotator.services import rubric_files, rubrics
from annotator.uploads import RUBRIC_BYTES
from rubrics.programs import PROGRAMS
from tests import factories

pytestmark = pytest.mark.django_db
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

# Anything that JSON can say, NUL and quotes and the far planes included.
words = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("\0\"'\\\n<&#*_[]()`|-+.1 ")),
    max_size=60,
)
plain = words.filter(lambda text: text.replace("\0", "").strip())
values = st.fixed_dictionaries(
    {"text": plain},
    optional={
        "polarity": st.sampled_from([1, -1]),
        "weight": st.none() | st.floats(-100, 100) | st.integers(-5, 5),
        "theme": words,
    },
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def written(criteria: Any, **fields: Any) -> bytes:
    head = {"format": rubric_files.FORMAT, "version": 1, "rubric": "Theirs"}
    return json.dumps(head | fields | {"criteria": criteria}).encode()


def fields_of(version: RubricVersion) -> list[dict[str, Any]]:
    return [
        {name: row[name] for name in rubrics.FIELDS}
        for row in rubric_files.as_json(version)["criteria"]
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(st.lists(values, min_size=1, max_size=3))
def test_what_is_written_is_what_is_read(rows: list[dict[str, Any]]) -> None:
    one, two = factories.project(), factories.project()
    first = rubric_files.read(project=one, data=written(rows), by=None)
    data = json.dumps(rubric_files.as_json(first), ensure_ascii=False).encode()
    second = rubric_files.read(project=two, data=data, by=None)
    assert fields_of(first) == fields_of(second)
    assert len(fields_of(first)) == len(rows)
    assert rubrics.digest(rubrics.in_force(first)) == rubrics.digest(rubrics.in_force(second))
    assert second.rubric.name == "Theirs"


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(
    st.dictionaries(
        st.sampled_from([*rubrics.FIELDS, "figures", "id", "version_id", "decision"]), anything
    ),
    anything,
)
def test_hostile_criteria_are_read_or_refused_and_nothing_half(
    row: dict[str, Any], name: Any
) -> None:
    project = factories.project()
    with suppress(Invalid):
        data = written([{"text": "It is short."}, row], rubric=name)
        rubric_files.read(project=project, data=data, by=None)
    rubric = Rubric.objects.filter(project=project).first()
    if rubric is not None:
        version = rubric.versions.get()
        assert version.criteria.count() == 2
        assert all("\0" not in str(value) for one in fields_of(version) for value in one.values())


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(st.binary(max_size=60) | anything.map(lambda one: json.dumps(one).encode()))
def test_what_is_no_rubric_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        rubric_files.read(project=factories.project(), data=data, by=None)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"format": "touchstone-rubric", "version": 1, "criteria": ' + b"[" * 100_000, "no rubric"),
        (b"x" * (RUBRIC_BYTES + 1), "too large"),
        (written([{"text": "a", "weight": float("nan")}]), "no rubric"),
        (written([{"text": "a", "weight": float("inf")}]), "no rubric"),
        (written([{"text": "a"}]).replace(b'"a"', b'"\\ud800"'), "no rubric"),
        (written([{"text": "a", "weight": 1e300}]), "Criterion 1: A weight is a number"),
        (written([{"text": "a"}, {"text": ["b"]}]), "Criterion 2: its text is not text"),
        (written([{"text": "a", "program": 7}]), "its program is not text"),
        (written([{"text": "a", "verifier": "magic"}]), "no such scope or verifier"),
        (written([{"text": "a", "polarity": 2}]), "speaks for an answer"),
        (written([{"text": "a" * 501}]), "1 to 500 characters"),
        (written([{"text": "a"}] * 201), "1 to 200 criteria"),
        (written([]), "1 to 200 criteria"),
        (written([7]), "Criterion 1: not an object"),
        (written([{"text": "a"}], version=2), "of version 2"),
        (written([{"text": "a"}], format="other"), "its format is not"),
        (written([{"text": "a"}], rubric={"a": 1}), "is not text"),
        (written([{"text": "a"}], rubric="n" * 81), "1 to 80 characters"),
        (written([{"text": "a"}], rubric=""), "1 to 80 characters"),
    ],
    ids=["deep", "huge", "nan", "infinite", "surrogate", "weight", "list", "number", "verifier",
         "polarity", "long", "many", "none", "no-object", "version", "format", "name", "long-name",
         "no-name"],
)  # fmt: skip
def test_file_is_refused_with_its_reason(data: bytes, says: str) -> None:
    project = factories.project()
    with pytest.raises(Invalid, match=says):
        rubric_files.read(project=project, data=data, by=None)
    assert not Rubric.objects.exists()


def test_unknown_fields_are_not_read() -> None:
    data = written([{"text": "It is short.", "decision": "rejected", "pk": 1, "figures": {"n": 9}}])
    version = rubric_files.read(project=factories.project(), data=data, by=None)
    made = version.criteria.get()
    assert (made.decision, made.figures) == (Criterion.Decision.ACCEPTED, {})


def sample(project: Project, name: str = "Clear") -> RubricVersion:
    rubric = rubrics.create(project=project, name=name, by=None)
    version = rubrics.draft(rubric=rubric, by=None)
    rubrics.add(
        version=version, by=None, text="It names *both* [sides](x).", theme="Care", weight=0.5
    )
    rubrics.add(version=version, by=None, text="1. <b>It</b> refuses.", polarity=-1)
    key = next(iter(PROGRAMS))
    rubrics.add(version=version, by=None, text="# It is a list.", verifier="program", program=key)
    return version


def client_of(project: Project, role: Role = Role.OWNER) -> Client:
    client = Client()
    client.force_login(factories.member(project, role))
    return client


def address(version: RubricVersion) -> str:
    slug = version.rubric.project.slug
    return reverse("rubric_file", args=[slug, version.rubric_id, version.number])


def test_download_has_a_safe_name_and_comes_back_whole() -> None:
    project = factories.project()
    version = sample(project, 'A "b"\r\n../c;d: é')
    response = client_of(project, Role.REVIEWER).get(address(version))
    assert response["Content-Disposition"] == 'attachment; filename="a-b-cd-e-v1.json"'
    assert response["X-Content-Type-Options"] == "nosniff"
    other = factories.project()
    again = rubric_files.read(project=other, data=response.content, by=None)
    assert fields_of(again) == fields_of(version)
    unnamed = sample(project, "好的回答")
    assert (
        f"rubric-{unnamed.rubric_id}-v1.json"
        in client_of(project).get(address(unnamed))["Content-Disposition"]
    )


def test_markdown_shows_texts_as_they_stand() -> None:
    project = factories.project()
    version = sample(project)
    response = client_of(project).get(address(version), {"format": "md"})
    assert response["Content-Type"] == "text/markdown; charset=utf-8"
    text = response.content.decode()
    assert text.startswith("# Clear, version 1\n\nWritten by hand. A draft")
    assert (
        "## Care\n\n1. It names \\*both\\* \\[sides\\](x). (+0.5; checked by a language model)"
        in text
    )
    assert "1. 1\\. \\<b\\>It\\</b\\> refuses. (-1;" in text
    assert "1. \\# It is a list. (+1; checked by a program" in text
    rubrics.approve(version=version, by=factories.user("Al*ice"))
    version.refresh_from_db()
    assert "by Al\\*ice." in rubric_files.as_markdown(version)


def test_upload_becomes_a_draft() -> None:
    project = factories.project()
    client = client_of(project)
    to = reverse("rubric_import", args=[project.slug])
    assert "touchstone-rubric" in client.get(to).content.decode()
    file = SimpleUploadedFile("r.json", b"\xef\xbb\xbf" + written([{"text": "Ein Häkchen ✓"}]))
    response = client.post(to, {"file": file})
    version = RubricVersion.objects.get()
    assert response.url == reverse(
        "rubric_version", args=[project.slug, version.rubric_id, version.number]
    )
    assert version.is_draft
    assert version.criteria.get().text == "Ein Häkchen ✓"
    again = SimpleUploadedFile("r.json", written([{"text": "Another."}]))
    refused = client.post(to, {"file": again})
    assert refused.status_code == 422
    assert "has a draft" in refused.content.decode()
    renamed = SimpleUploadedFile("r.json", written([{"text": "Another."}]))
    assert client.post(to, {"file": renamed, "name": " Ours  too "}).status_code == 302
    assert Rubric.objects.filter(name="Ours too").exists()


def test_upload_may_be_larger_than_other_small_files_and_no_larger_than_a_rubric() -> None:
    project = factories.project()
    client, to = client_of(project), reverse("rubric_import", args=[project.slug])
    fits = written([{"text": "It is short."}], note="x" * 200_000)
    assert client.post(to, {"file": SimpleUploadedFile("r.json", fits)}).status_code == 302
    large = written([{"text": "It is long."}], rubric="Large", note="x" * (RUBRIC_BYTES + 1))
    response = client.post(to, {"file": SimpleUploadedFile("r.json", large)})
    assert response.status_code == 422
    assert "no rubric is" in response.content.decode()
    assert not Rubric.objects.filter(name="Large").exists()


def test_upload_that_is_no_rubric_is_refused_in_place() -> None:
    project = factories.project()
    client, to = client_of(project), reverse("rubric_import", args=[project.slug])
    nothing = client.post(to, {})
    assert nothing.status_code == 422
    assert "Choose a file." in nothing.content.decode()
    for data in (b"\xff\xfe", b"[]", written([{"text": "a"}, {"text": ""}])):
        response = client.post(to, {"file": SimpleUploadedFile("r.json", data)})
        assert response.status_code == 422
        assert "Not imported" in response.content.decode()
    assert not Rubric.objects.exists()


def test_rubric_by_hand_begins_as_an_empty_draft() -> None:
    project = factories.project()
    client, to = client_of(project), reverse("rubric_new", args=[project.slug])
    assert client.get(to).status_code == 200
    response = client.post(to, {"name": " Good  manners "})
    version = RubricVersion.objects.get()
    assert (str(version), version.is_draft, version.method) == ("Good manners v1", True, "")
    assert response.url.endswith(f"/rubrics/{version.rubric_id}/v1/")
    for name in ("Good manners", "", "x" * 81):
        assert client.post(to, {"name": name}).status_code == 422
    assert RubricVersion.objects.count() == 1


def test_file_of_another_project_is_not_found() -> None:
    version = sample(factories.project())
    stranger = factories.project()
    to = reverse("rubric_file", args=[stranger.slug, version.rubric_id, version.number])
    assert client_of(stranger).get(to).status_code == 404


def test_commands_carry_a_rubric_from_one_project_to_another(tmp_path: Path) -> None:
    project, other = factories.project(), factories.project()
    version = sample(project)
    out = StringIO()
    call_command("export_rubric", project.slug, "Clear", stdout=out)
    path = tmp_path / "clear.json"
    path.write_text(out.getvalue())
    call_command("import_rubric", other.slug, str(path), stdout=(said := StringIO()))
    assert said.getvalue().strip() == "Clear v1: 3 criteria, a draft."
    assert fields_of(RubricVersion.objects.get(rubric__project=other)) == fields_of(version)
    call_command(
        "export_rubric", project.slug, "Clear:v1", markdown=True, stdout=(md := StringIO())
    )
    assert md.getvalue().startswith("# Clear, version 1")
    for bad in ("Clear:v2", "Nothing", "Clear:vx"):
        with pytest.raises(CommandError, match="There is no"):
            call_command("export_rubric", project.slug, bad, stdout=StringIO())
    with pytest.raises(CommandError, match="has a draft"):
        call_command("import_rubric", other.slug, str(path), stdout=StringIO())
    renamed = {"name": "Clearer", "json": True, "stdout": (said := StringIO())}
    call_command("import_rubric", other.slug, str(path), **renamed)
    found = json.loads(said.getvalue())
    assert found.pop("rubric_id") == Rubric.objects.get(project=other, name="Clearer").pk
    assert found == {"rubric": "Clearer", "version": 1, "criteria": 3}
    with pytest.raises(CommandError, match="No such file"):
        call_command("import_rubric", other.slug, str(tmp_path / "no.json"), stdout=StringIO())


def test_command_exports_the_approved_version_where_none_is_named() -> None:
    project = factories.project()
    version = sample(project)
    rubrics.approve(version=version, by=None)
    later = rubrics.draft(rubric=version.rubric, by=None, like=version)
    rubrics.add(version=later, by=None, text="It is new.")
    call_command("export_rubric", project.slug, "Clear", stdout=(out := StringIO()))
    assert json.loads(out.getvalue())["number"] == 1
