"""Images: what is taken, what is kept of it, who sees it, and what goes when an import goes."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.files.storage import default_storage
from django.db import connection
from django.test import Client
from django.urls import reverse
from PIL import Image as Pillow

from annotator import pictures
from annotator.errors import Invalid
from annotator.importers import files
from annotator.models import Image, Project, Response, Role, Run, Task
from annotator.services import images, import_undo, imports
from tests import factories
from tests.annotator.imported import counts, jsonl, last_run, read
from tests.annotator.pictures import decoded, picture, png_header, zip_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project() -> Project:
    return factories.project()


def stored_files() -> list[Path]:
    return [path for path in Path(django_settings.MEDIA_ROOT).rglob("*") if path.is_file()]


# Storing -------------------------------------------------------------------------------------


def test_same_pixels_are_kept_once_per_project(project: Project) -> None:
    one = images.ingest(project=project, data=picture(), alt="a  red\nfield")
    again = images.ingest(project=project, data=io.BytesIO(picture(compress_level=0)))
    other = images.ingest(project=factories.project(), data=picture())
    assert one.pk == again.pk != other.pk
    assert one.alt == "a red field"
    assert len(stored_files()) == 4
    assert one.file.name != other.file.name
    assert bytes(one.digest).hex() not in one.file.name


def test_refused_picture_leaves_no_file(project: Project) -> None:
    with pytest.raises(pictures.BadPicture):
        images.ingest(project=project, data=b"nothing")
    assert stored_files() == []
    assert not Image.objects.exists()


# Serving -------------------------------------------------------------------------------------


def at(image: Image, size: str = "full", slug: str = "") -> str:
    return reverse("image", args=[slug or image.project.slug, image.pk, size])


def signed_in(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def test_members_get_the_picture_and_nothing_else_about_it(project: Project) -> None:
    image = images.ingest(project=project, data=picture((900, 600)))
    client = signed_in(factories.member(project, Role.ANNOTATOR))
    response = client.get(at(image))
    assert response.status_code == 200
    assert decoded(body(response)).size == (900, 600)
    assert response["Content-Type"] == "image/webp"
    assert response["Content-Disposition"] == "inline"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Cache-Control"].startswith("private")
    assert Path(image.file.name).stem not in str(response.headers)
    small = client.get(at(image, "thumb"))
    assert decoded(body(small)).size == (640, 427)
    assert small["ETag"] != response["ETag"]
    kept = client.get(at(image), headers={"If-None-Match": response["ETag"]})
    assert (kept.status_code, kept.content) == (304, b"")


def test_strangers_and_other_projects_find_nothing(project: Project) -> None:
    image = images.ingest(project=project, data=picture())
    elsewhere = factories.project()
    stranger = signed_in(factories.member(elsewhere, Role.OWNER))
    assert stranger.get(at(image)).status_code == 404
    assert stranger.get(at(image, slug=elsewhere.slug)).status_code == 404
    assert Client().get(at(image)).status_code == 302
    member = signed_in(factories.member(project))
    assert member.get(at(image, "original")).status_code == 404
    missing = reverse("image", args=[project.slug, 10**30, "full"])
    assert member.get(missing).status_code == 404


def test_file_that_is_gone_is_not_found(project: Project) -> None:
    image = images.ingest(project=project, data=picture())
    default_storage.delete(image.file.name)
    assert signed_in(factories.member(project)).get(at(image)).status_code == 404


# Importing -----------------------------------------------------------------------------------

COLORS = ("red", "green", "blue", "gold")


def four() -> dict[str, bytes]:
    return {f"images/{color}.png": picture(color=color) for color in COLORS}


def shown_colors(response_ids: list[int]) -> list[str]:
    """The plain colors of some responses' images, by name."""
    known = {Pillow.new("RGB", (1, 1), name).getpixel((0, 0)): name for name in COLORS}
    result = []
    for pk in response_ids:
        with Response.objects.get(pk=pk).image.file.open() as file:
            result.append(known[decoded(file.read()).convert("RGB").getpixel((3, 3))])
    return result


def test_zip_of_prompts_and_images_becomes_tasks(project: Project, tmp_path: Path) -> None:
    row = {
        "prompt": "A red field",
        "images": [
            {"path": "images/red.png", "generator": "model-x", "alt": "a red field"},
            {"path": "./images/green.png", "generator": "model-y", "seed": 3},
            "images/blue.png",
        ],
    }
    result = read(project, zip_of(tmp_path / "rows.zip", [row], four()))
    assert (result["prompts"], result["responses"], result["tasks"]) == (1, 3, 3)
    assert result["format"] == "images"
    first = Response.objects.get(generator="model-x")
    assert (first.text, first.image.alt, first.extra) == ("", "a red field", {})
    assert Response.objects.get(generator="model-y").extra == {"seed": 3}
    task = Task.objects.order_by("position").first()
    assert shown_colors(task.response_ids) == ["red", "green"]


def test_two_columns_of_images_bring_their_votes(project: Project, tmp_path: Path) -> None:
    row = {"caption": "Blue", "image_a": "images/red.png", "image_b": "images/blue.png",
           "model_a": "x", "model_b": "y", "winner": "b"}  # fmt: skip
    result = read(project, zip_of(tmp_path / "rows.zip", [row], four()))
    assert (result["judgments"], result["bad_rows_total"]) == (1, 0)
    preference = project.tasks.get().judgments.get().preferences.get()
    winner = preference.a_id if preference.outcome > 0 else preference.b_id
    assert shown_colors([winner]) == ["blue"]
    assert Response.objects.get(pk=winner).generator == "y"


def test_edit_keeps_source_and_mask(project: Project, tmp_path: Path) -> None:
    rows = [
        {
            "instruction": "Make it green",
            "source_image": f"images/{source}.png",
            "mask": "images/gold.png",
            "images": ["images/green.png", "images/blue.png"],
        }
        for source in ("red", "blue")
    ]
    read(project, zip_of(tmp_path / "rows.zip", rows, four()))
    one, other = project.prompts.order_by("pk")
    assert one.messages == other.messages
    assert one.source_image_id != other.source_image_id
    assert one.mask_image_id == other.mask_image_id
    assert one.split == other.split, "the same words stay on one side"
    assert project.images.count() == 4


def test_equal_images_are_two_responses(project: Project, tmp_path: Path) -> None:
    row = {"prompt": "Red", "images": ["images/red.png", "images/red.png"]}
    path = zip_of(tmp_path / "rows.zip", [row], four())
    assert read(project, path)["tasks"] == 1
    task = project.tasks.get()
    assert len(set(task.response_ids)) == 2
    assert project.images.count() == 1
    assert read(project, path)["rows_known"] == 1, "the second time adds nothing"


def test_images_inside_the_rows_are_read(project: Project, tmp_path: Path) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    rows = [{"prompt": "Red", "images": [uri, {"image": uri, "generator": "x"}]}]
    assert read(project, jsonl(tmp_path / "rows.jsonl", rows))["responses"] == 2


def test_parquet_of_the_hub_is_read(project: Project, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    def column(color: str) -> list[dict[str, Any]]:
        return [{"bytes": picture(color=color), "path": "of-model-x.png"}]

    table = pyarrow.table(
        {"caption": ["Red"], "jpg_0": column("red"), "jpg_1": [picture(color="blue")],
         "model_0": ["x"], "model_1": ["y"], "label_0": [1.0]}
    )  # fmt: skip
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert read(project, tmp_path / "rows.parquet")["judgments"] == 1
    preference = project.tasks.get().judgments.get().preferences.get()
    winner = preference.a_id if preference.outcome > 0 else preference.b_id
    assert shown_colors([winner]) == ["red"]


def test_command_reads_images_beside_its_file_only(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture(color="gold"))
    for name, data in four().items():
        (folder / name).write_bytes(data)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    good = ["images/red.png", "images/blue.png"]
    rows = [{"prompt": "Ok", "images": good}]
    outside = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "images/../../secret.png"]
    rows += [{"prompt": path, "images": [path, *good]} for path in outside]
    result = read(project, jsonl(folder / "rows.jsonl", rows))
    assert result["prompts"] == 1
    assert result["reasons"] == {"image-outside": 4}
    assert len(stored_files()) == 4


def test_lone_upload_reaches_no_file_of_the_server(project: Project, tmp_path: Path) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    from annotator.jobs import base

    data = b'{"prompt": "q", "images": ["upload", "../secret_key", "log.txt"]}\n'
    upload = SimpleUploadedFile("rows.jsonl", data)
    run = imports.receive(project=project, upload=upload, config={}, by=None)
    base.perform(run.pk, imports.perform)
    run.refresh_from_db()
    assert run.state == "failed"
    assert "did not come along" in run.advice


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ("https://example.org/a.png", "image-remote"),
        ("//example.org/a.png", "image-remote"),
        ("file:///etc/passwd", "image-remote"),
        ("s3://bucket/a.png", "image-remote"),
        ("../images/red.png", "image-outside"),
        ("images/../../x.png", "image-outside"),
        ("/images/red.png", "image-outside"),
        ("C:\\x.png", "image-outside"),
        ("images/none.png", "image"),
        ("images/text.png", "image-kind"),
        ("images/cut.png", "image-broken"),
        ("images/bomb.png", "image-large"),
        ("images/zeros.png", "image-large"),
        ("data:image/png;base64,%%%", "image-broken"),
        ("data:image/svg+xml;utf8,<svg/>", "image-kind"),
        ({"generator": "x"}, "missing"),
        (7, "image"),
        (None, "missing"),
    ],
)  # fmt: skip
def test_bad_image_costs_its_row_only(
    project: Project, tmp_path: Path, image: Any, code: str
) -> None:
    spoiled = {
        "images/text.png": b"no picture",
        "images/cut.png": picture((100, 100))[:-30],
        "images/bomb.png": png_header(50_000, 50_000),
        "images/zeros.png": bytes(files.MAX_FILE + 1),
    }
    good = {"prompt": "Red or blue", "images": ["images/red.png", "images/blue.png"]}
    bad = {"prompt": "Bad", "images": ["images/red.png", image]}
    result = read(project, zip_of(tmp_path / "rows.zip", [good, bad], four() | spoiled))
    assert result["prompts"] == 1
    assert result["reasons"] == {code: 1}


def test_mask_must_fit_its_source(project: Project, tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "images": ["images/red.png"], "source_image": "images/red.png",
         "mask": "wide.png"},
        {"prompt": "r", "images": ["images/red.png"], "mask": "wide.png"},
        {"prompt": "s", "images": ["images/red.png", "images/blue.png"]},
    ]  # fmt: skip
    path = zip_of(tmp_path / "rows.zip", rows, four() | {"wide.png": picture((90, 30))})
    assert read(project, path)["reasons"] == {"image-mask": 1, "missing": 1}


def archives(folder: Path) -> Iterator[tuple[str, Path, str]]:
    two = zip_of(folder / "two.zip", [{"a": 1}], {"more.csv": b"a,b\n"})
    yield "two", two, "2 data files"
    none = folder / "none.zip"
    with zipfile.ZipFile(none, "w") as archive:
        archive.writestr("a.png", picture())
    yield "none", none, "without a data file"
    cut = folder / "cut.zip"
    cut.write_bytes(zip_of(folder / "whole.zip", [{"a": 1}], four()).read_bytes()[:-40])
    yield "cut", cut, "cut short"
    many = folder / "many.zip"
    data = bytearray(two.read_bytes())
    at = data.rfind(b"PK\x05\x06")
    data[at + 12 : at + 16] = (files.MAX_DIRECTORY + 1).to_bytes(4, "little")
    many.write_bytes(data)
    yield "many", many, "too many files"
    # The same in zip64's record, which is believed although the short one is harmless.
    size = (files.MAX_DIRECTORY + 1).to_bytes(8, "little")
    record = b"PK\x06\x06" + bytes(36) + size + bytes(8)
    hidden = folder / "hidden.zip"
    hidden.write_bytes(
        two.read_bytes()[:at] + record + b"PK\x06\x07" + bytes(16) + two.read_bytes()[at:]
    )
    yield "hidden", hidden, "too many files"
    long = folder / "long.zip"
    with zipfile.ZipFile(long, "w") as archive:
        for number in range(65_540):  # more than the short record can count
            archive.writestr(str(number), b"")
    yield "long", long, "without a data file"


def test_unfit_archives_are_refused_whole(project: Project, tmp_path: Path) -> None:
    for name, path, said in archives(tmp_path):
        with pytest.raises(Invalid, match=said):
            read(project, path)
        assert not project.prompts.exists(), name


def test_data_file_that_swells_is_refused(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "RATIO_FROM", 1 << 20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", b" " * (8 << 20))
    with pytest.raises(Invalid, match="unpacks to more"):
        read(project, path)


def test_addresses_do_not_tell_whose_image_comes_first(project: Project, tmp_path: Path) -> None:
    """Ids rise in no order of the row: with 40 rows, one order throughout has 2 in 10^12."""
    rows, pictures_of = [], {}
    for number in range(40):
        for side in (0, 1):
            color = f"#{number * 2 + side:02x}8040"
            pictures_of[f"{number}-{side}.png"] = picture((8, 8), color)
        rows.append({"prompt": f"q{number}", "images": [f"{number}-0.png", f"{number}-1.png"]})
    read(project, zip_of(tmp_path / "rows.zip", rows, pictures_of))
    rises = set()
    for task in project.tasks.all():
        first, second = (Response.objects.get(pk=pk).image_id for pk in task.response_ids)
        rises.add(first < second)
    assert rises == {True, False}


# Taking back ---------------------------------------------------------------------------------


def two_of(*colors: str) -> dict[str, Any]:
    return {"prompt": " or ".join(colors), "images": [f"images/{color}.png" for color in colors]}


def test_undo_removes_images_nobody_else_shows(project: Project, tmp_path: Path) -> None:
    read(project, zip_of(tmp_path / "one.zip", [two_of("red", "green")], four()))
    first = last_run(project)
    read(project, zip_of(tmp_path / "two.zip", [two_of("green", "blue")], four()))
    second = last_run(project)
    by_hand = images.ingest(project=project, data=picture(color="gold"))
    assert len(stored_files()) == 8
    import_undo.undo(run=first, by=None)
    assert project.images.count() == 3
    assert len(stored_files()) == 6
    assert shown_colors(project.tasks.get().response_ids) == ["green", "blue"]
    import_undo.undo(run=second, by=None)
    assert list(project.images.all()) == [by_hand]
    assert len(stored_files()) == 2


def test_failed_import_leaves_no_images(project: Project, tmp_path: Path) -> None:
    rows = [two_of("red", "green"), {"prompt": "Bad", "images": ["none.png"]}]
    with pytest.raises(Invalid, match="strict"):
        read(project, zip_of(tmp_path / "rows.zip", rows, four()), strict=True)
    assert stored_files() == []
    assert not project.images.exists()
    assert sum(counts(project).values()) == 0


def test_nothing_is_swept_from_under_a_running_import(project: Project) -> None:
    run = Run.objects.create(project=project, kind=Run.Kind.IMPORT, title="Import", state="running")
    images.ingest(project=project, data=picture(), run=run)
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(images.TRY_LOCK, [project.pk])
        assert images.sweep(project_id=project.pk) == 0
        assert project.images.count() == 1
        with other.cursor() as cursor:
            cursor.execute("ROLLBACK")  # a connection that is closed lets go a moment later
    finally:
        other.close()
    assert images.sweep(project_id=project.pk) == 1
    assert stored_files() == []


def test_run_that_was_killed_writes_over_what_it_left(project: Project) -> None:
    run = Run.objects.create(project=project, kind=Run.Kind.IMPORT, title="Import", state="running")
    image = images.ingest(project=project, data=picture(), run=run)
    left = {path.name for path in stored_files()}
    Image.objects.filter(pk=image.pk).delete()  # killed between the files and the row
    images.ingest(project=project, data=picture(), run=run)
    assert {path.name for path in stored_files()} == left
