"""Handing out datasets: links that expire, everything at once, deletion, who took what."""

from __future__ import annotations

import io
import re
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import signing
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from annotator.errors import Gone, Invalid, NotAllowed, NotFound
from annotator.models import AuditEvent, DatasetVersion, Membership, Project, Role, User
from annotator.queries import downloads as log
from annotator.services import dataset_versions, deliveries, links, tokens
from tests import factories
from tests.annotator.ballots import judged_pair, raters
from tests.annotator.test_exports import version_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    project = factories.project()
    people = raters(project, 2)
    judged_pair(project, [1, 1], by=people)
    judged_pair(project, [-1], by=people, of=factories.prompt(project, split="test"))
    return project


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Alice")


@pytest.fixture
def version(project: Project) -> DatasetVersion:
    return version_of(project)


@pytest.fixture
def page(owner: User) -> Client:
    client = Client()
    client.force_login(owner)
    return client


def url(view: str, version: DatasetVersion, /, **more: Any) -> str:
    return reverse(view, kwargs={"slug": version.project.slug, "number": version.number, **more})


def address(version: DatasetVersion, by: User, name: str = "train.jsonl") -> str:
    link = links.make(version=version, name=name, lifetime="1h", by=by)
    return reverse("dataset_link", args=[link.token, link.name])


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


# Links ------------------------------------------------------------------------------------------


def test_a_link_opens_one_file_for_anybody_and_is_logged(
    version: DatasetVersion, owner: User
) -> None:
    whole = deliveries.path_of(version, "train.jsonl").read_bytes()
    where = address(version, owner)
    response = Client().get(where)
    assert (response.status_code, body(response)) == (200, whole)
    assert f"{version.project.slug}-v1-train.jsonl" in response["Content-Disposition"]
    made = AuditEvent.objects.get(verb="dataset.link")
    taken = AuditEvent.objects.get(verb="dataset.download")
    assert (made.actor, taken.actor) == (owner, None)
    assert taken.data["link"] == {"id": made.data["link"], "maker": owner.pk}
    assert made.data["link"] not in where, "the log does not hold the link"
    assert not re.search(re.escape(where.split("/")[2]), str(made.data))


def test_a_link_goes_on_where_a_download_stopped(version: DatasetVersion, owner: User) -> None:
    whole = deliveries.path_of(version, "train.jsonl").read_bytes()
    where = address(version, owner)
    first = Client().get(where, headers={"Range": "bytes=0-9"})
    rest = Client().get(where, headers={"Range": "bytes=10-", "If-Range": first["ETag"]})
    assert (first.status_code, rest.status_code) == (206, 206)
    assert body(first) + body(rest) == whole
    assert Client().get(where, headers={"Range": "bytes=99999999-"}).status_code == 416
    version.refresh_from_db()
    assert version.downloads == 1
    head = Client().head(where)
    assert head["Content-Length"] == str(len(whole))
    assert AuditEvent.objects.filter(verb="dataset.download").count() == 2


def test_a_link_is_of_one_file_of_one_version(version: DatasetVersion, owner: User) -> None:
    token = address(version, owner).split("/")[2]
    for name in ("test.jsonl", "all.zip", "manifest.json", "..", "train.jsonl "):
        assert Client().get(reverse("dataset_link", args=[token, name])).status_code == 404
    with pytest.raises(Gone):
        links.make(version=version, name="preview.json", lifetime="1h", by=owner)
    with pytest.raises(Invalid):
        links.make(version=version, name="train.jsonl", lifetime="9y", by=owner)


def test_a_link_expires(
    version: DatasetVersion, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = address(version, owner)
    later = timezone.now() + timedelta(minutes=61)
    monkeypatch.setattr(links.timezone, "now", lambda: later)
    response = Client().get(where)
    assert response.status_code == 410
    assert b"This link worked until" in response.content


def test_a_link_stops_with_its_maker_and_with_its_version(
    version: DatasetVersion, owner: User
) -> None:
    where = address(version, owner)
    membership = Membership.objects.filter(user=owner)
    membership.update(role=Role.REVIEWER)
    assert Client().get(where).status_code == 410
    membership.update(role=Role.OWNER)
    assert Client().get(where).status_code == 200
    User.objects.filter(pk=owner.pk).update(is_active=False)
    assert Client().get(where).status_code == 410
    User.objects.filter(pk=owner.pk).update(is_active=True)
    dataset_versions.delete(version=version, by=owner)
    response = Client().get(where)
    assert response.status_code == 410
    assert b"was deleted on" in response.content


def test_only_owners_make_links(version: DatasetVersion) -> None:
    reviewer = factories.member(version.project, Role.REVIEWER)
    with pytest.raises(NotAllowed):
        links.make(version=version, name="train.jsonl", lifetime="1h", by=reviewer)
    other = factories.member(factories.project(), Role.OWNER)
    with pytest.raises(NotAllowed):
        links.make(version=version, name="train.jsonl", lifetime="1h", by=other)


def test_a_changed_link_opens_nothing(version: DatasetVersion, owner: User) -> None:
    token = address(version, owner).split("/")[2]
    forged = signing.dumps({"v": version.pk, "f": "train.jsonl", "u": owner.pk, "e": 2**33})
    payload, rest = token.split(":", 1)
    changed = f"{payload[:-1]}{'A' if payload[-1] != 'A' else 'B'}:{rest}"
    for bad in (forged, changed, token[:-1], token + "x", "x" * 600, ":", "a:b:c"):
        with pytest.raises(NotFound):
            links.open_link(bad, "train.jsonl")


@given(token=st.text(max_size=80))
@with_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_no_link(token: str) -> None:
    with pytest.raises(NotFound):
        links.open_link(token, "train.jsonl")


def test_one_link_is_asked_for_a_limited_number_of_times(
    version: DatasetVersion, owner: User, settings: Any
) -> None:
    settings.LINK_REQUESTS_PER_MINUTE = 8
    first, second = address(version, owner), address(version, owner, "test.jsonl")
    codes = [Client().head(first).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert Client().head(second).status_code == 200


def test_the_form_makes_a_link_without_a_script(version: DatasetVersion, page: Client) -> None:
    response = page.post(url("dataset_links", version), {"name": "train.jsonl", "lifetime": "7d"})
    found = re.search(r'value="(http://[^"]+/d/[^"]+)"', response.content.decode())
    assert found
    assert body(Client().get(found[1])) == deliveries.path_of(version, "train.jsonl").read_bytes()
    (line,) = log.links(version)
    assert (line.who, line.file) == ("Alice", "train.jsonl")
    for bad in ({"name": "preview.json", "lifetime": "1h"}, {"name": "train.jsonl"}, {}):
        assert page.post(url("dataset_links", version), bad).status_code == 422


# Everything at once -----------------------------------------------------------------------------


def test_the_archive_holds_every_file_and_no_other(version: DatasetVersion, page: Client) -> None:
    response = page.get(url("dataset_archive", version))
    with zipfile.ZipFile(io.BytesIO(body(response))) as archive:
        inside = f"{version.project.slug}-v1"
        assert sorted(archive.namelist()) == sorted(
            f"{inside}/{name}" for name in deliveries.file_names(version)
        )
        for name in deliveries.file_names(version):
            assert (
                archive.read(f"{inside}/{name}") == deliveries.path_of(version, name).read_bytes()
            )
    assert AuditEvent.objects.get(verb="dataset.download").data["file"] == "all.zip"


def test_the_archive_comes_by_link_and_by_token_too(version: DatasetVersion, owner: User) -> None:
    by_link = body(Client().get(address(version, owner, "all.zip")))
    _, secret = tokens.create(user=owner, name="laptop")
    headers = {"Authorization": f"Bearer {secret}"}
    by_token = body(Client().get(url("dataset_archive", version), headers=headers))
    assert zipfile.ZipFile(io.BytesIO(by_link)).testzip() is None
    assert len(by_link) == len(by_token)
    ways = [one.data["via"] for one in AuditEvent.objects.filter(verb="dataset.download")]
    assert sorted(ways) == ["link", "token"]
    head = Client().head(address(version, owner, "all.zip"))
    assert (head.status_code, body(head)) == (200, b"")


# Deletion ---------------------------------------------------------------------------------------


def test_a_deleted_version_keeps_its_record_and_loses_its_files(
    version: DatasetVersion, page: Client, owner: User
) -> None:
    folder = deliveries.folder_of(version)
    asked = page.get(url("dataset_delete", version))
    assert b"removed for good" in asked.content
    assert folder.is_dir(), "asking deletes nothing"
    page.post(url("dataset_delete", version))
    assert not folder.exists()
    version.refresh_from_db()
    assert version.deleted_by == owner
    assert version.manifest["counts"]["out"] == version.rows == 2
    event = AuditEvent.objects.get(verb="dataset.delete")
    assert event.data == {"rows": 2, "checksum": version.checksum}
    for name in ("train.jsonl", "manifest.json", "README.md"):
        gone = page.get(url("dataset_download", version, name=name))
        assert gone.status_code == 410
        assert b"was deleted on" in gone.content
    assert page.get(url("dataset_archive", version)).status_code == 410
    sent = {"name": "train.jsonl", "lifetime": "1h"}
    assert page.post(url("dataset_links", version), sent).status_code == 410
    assert page.get(url("dataset", version)).status_code == 200
    assert page.get(reverse("datasets", args=[version.project.slug])).status_code == 200
    run = page.get(reverse("run", args=[version.project.slug, version.run_id]))
    assert run.status_code == 200
    assert page.get(url("dataset_downloads", version)).status_code == 200


def test_deleting_twice_is_recorded_once_and_clears_what_a_kill_left(
    version: DatasetVersion, project: Project, page: Client
) -> None:
    folder = deliveries.folder_of(version)
    assert dataset_versions.delete(version=version, by=None)
    folder.mkdir()  # as if the process had died between the row and the files
    (folder / "train.jsonl").write_text("half")
    assert page.get(url("dataset_download", version, name="train.jsonl")).status_code == 410
    assert not dataset_versions.delete(version=version, by=None)
    assert not folder.exists()
    folder.mkdir()
    dataset_versions.delete(version=version_of(project), by=None)
    assert not folder.exists(), "the next deletion in the project clears it too"
    assert AuditEvent.objects.filter(verb="dataset.delete").count() == 2
    assert page.get(url("dataset_delete", version)).status_code == 302


def test_a_number_is_never_given_again(version: DatasetVersion, project: Project) -> None:
    dataset_versions.delete(version=version, by=None)
    assert version_of(project).number == 2


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
def test_others_than_owners_delete_nothing(version: DatasetVersion, role: Role) -> None:
    client = Client()
    client.force_login(factories.member(version.project, role))
    assert client.post(url("dataset_delete", version)).status_code == 403
    assert DatasetVersion.objects.get().deleted_at is None


def test_rows_in_a_manifest_go_with_the_files() -> None:
    facts = {"counts": {"in": 1}, "health": {"samples": ["a row"], "list": [{"examples": [1]}]}}
    assert dataset_versions.without_samples(facts) == {
        "counts": {"in": 1},
        "health": {"list": [{}]},
    }


def test_a_deleted_version_is_not_delivered(version: DatasetVersion, tmp_path: Path) -> None:
    dataset_versions.delete(version=version, by=None)
    with pytest.raises(Gone):
        deliveries.deliver(version, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The log ----------------------------------------------------------------------------------------


def test_the_log_says_who_took_what_and_how(
    version: DatasetVersion, owner: User, page: Client
) -> None:
    size = deliveries.path_of(version, "train.jsonl").stat().st_size
    body(page.get(url("dataset_download", version, name="train.jsonl")))
    body(Client().get(address(version, owner), headers={"Range": "bytes=2-5"}))
    body(page.get(url("dataset_archive", version)))
    rows = log.downloads(version).rows
    assert [(one.who, one.file, one.bytes, one.is_part, one.via) for one in rows] == [
        ("Alice", "all.zip", sum(one["bytes"] for one in version.files), False, "in the browser"),
        ("whoever has Alice’s link", "train.jsonl", 4, True, "by a link"),
        ("Alice", "train.jsonl", size, False, "in the browser"),
    ]
    html = page.get(url("dataset_downloads", version)).content.decode()
    assert "whoever has Alice’s link" in html


def test_the_log_is_read_page_by_page_and_of_one_version(
    version: DatasetVersion, project: Project, owner: User, django_assert_num_queries: Any
) -> None:
    other = version_of(project)
    for number in range(log.PAGE_SIZE + 5):
        deliveries.record_download(
            version=version, name="train.jsonl", by=owner, span=(number, number + 9)
        )
        deliveries.record_download(version=other, name="train.jsonl", by=owner, span=None)
    with django_assert_num_queries(1):
        first = log.downloads(version)
    second = log.downloads(version, after=first.next)
    assert (len(first.rows), len(second.rows), second.next) == (log.PAGE_SIZE, 5, None)
