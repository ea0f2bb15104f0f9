"""The pages of datasets: the recipe with its counts, a version, its files."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from annotator.exporters import EXPORTERS, dry
from annotator.exporters.preview import foretell
from annotator.exporters.recipe import SPLITS
from annotator.exporters.trl import Options
from annotator.models import AuditEvent, DatasetVersion, Project, Rater, Role, Run
from annotator.queries import datasets as queries
from annotator.queries.pairs import Selection
from annotator.services import deliveries, tokens
from annotator.views import dataset_page
from annotator.views.ranges import Unsatisfiable, asked_range
from tests import factories
from tests.annotator.ballots import judged_pair, raters, task_of, vote
from tests.annotator.exported import built
from tests.annotator.test_exports import version_of

pytestmark = pytest.mark.django_db(transaction=True)

HTMX = {"HX-Request": "true"}


@pytest.fixture
def project() -> Project:
    project = factories.project()
    people = raters(project, 3)
    for split in SPLITS:
        prompt = factories.prompt(project, split=split)
        judged_pair(project, [1, 1, -1], by=people, of=prompt)
    judged_pair(project, [1], by=people)
    judged_pair(project, [0, 0], by=people)
    judged_pair(project, [1, -1], by=people)
    judged_pair(project, [1, 1], by=people, is_gold=True)
    factories.pairwise_task(project)
    return project


def signed_in(project: Project, role: Role = Role.OWNER) -> Client:
    client = Client()
    client.force_login(factories.member(project, role))
    return client


def url(view: str, project: Project, /, **more: Any) -> str:
    return reverse(view, kwargs={"slug": project.slug, **more})


def text_of(html: bytes, id: str) -> str:
    """The text of the element with this id."""
    found = re.search(rf'<(\w+)[^>]*\bid="{id}"[^>]*>(.*?)</\1>', html.decode(), re.DOTALL)
    assert found, f"no element {id}"
    return re.sub(r"<[^>]*>|\s+", " ", found[2]).strip()


DEFAULTS = {
    "sent": "1",
    "format": "trl-preference",
    "raters": "all",
    "min_votes": "1",
    "min_agreement": "0",
    "both_bad": "drop",
    "ties": "drop",
    "container": "jsonl",
    "style": "auto",
    "repeats": "keep",
    "empty": "keep",
    "splits": list(SPLITS),
    "columns": ["margin"],
}


@pytest.mark.parametrize("role", [None, Role.ANNOTATOR, Role.REVIEWER])
def test_only_owners_reach_datasets_and_files(project: Project, role: Role | None) -> None:
    version = version_of(project)
    client = signed_in(project, role) if role else signed_in(factories.project())
    expected = 403 if role else 404
    for address in (
        url("datasets", project),
        url("export", project),
        url("dataset", project, number=version.number),
        url("dataset_download", project, number=version.number, name="train.jsonl"),
    ):
        assert client.get(address).status_code == expected, address
    assert client.post(url("export", project), DEFAULTS).status_code == expected
    anonymous = Client().get(url("datasets", project))
    assert anonymous.status_code == 302
    assert "login" in anonymous["Location"]


def test_the_list_is_empty_then_shows_versions(project: Project) -> None:
    client = signed_in(project)
    assert b"No dataset yet" in client.get(url("datasets", project)).content
    version_of(project)
    page = client.get(url("datasets", project)).content.decode()
    assert url("dataset", project, number=1) in page
    assert "No dataset yet" not in page


def test_counts_follow_what_is_filled_in(project: Project) -> None:
    client = signed_in(project)
    html = client.get(url("export", project), DEFAULTS, headers=HTMX).content
    assert text_of(html, "left-all") == "8"
    assert text_of(html, "dropped-raters") == "2", "one unvoted, one control"
    assert text_of(html, "dropped-ties") == "2", "a tie, and one vote for each"
    assert text_of(html, "rows-out") == "4"
    assert text_of(html, "by-split") == "2 train, 1 validation, 1 test"
    strict = DEFAULTS | {"min_votes": "2", "min_agreement": "90", "splits": ["train"]}
    html = client.get(url("export", project), strict, headers=HTMX).content
    assert text_of(html, "dropped-min_votes") == "1"
    assert text_of(html, "dropped-agreement") == "1"
    assert text_of(html, "rows-out") == "0"
    assert b"<form" not in html, "only the counts are sent"


def test_counts_foretell_the_build(project: Project) -> None:
    for values in ({}, {"min_votes": 2}, {"raters": "people"}, {"min_agreement": 0.9}):
        options = Options.model_validate(values)
        kinds = queries.kinds(project, Selection(options.raters))
        assert kinds is not None
        found = foretell(kinds, options)
        if not found.out:
            continue
        counts = version_of(project, **values).manifest["counts"]
        assert (found.total, found.out) == (counts["in"], counts["out"])
        assert found.rows == counts["rows"]


def test_counts_are_kept_for_a_while_so_that_a_change_costs_no_walk(
    project: Project, django_assert_max_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry, "WHOLE", 0)  # a project too large to read whole
    client = signed_in(project)
    client.get(url("export", project), DEFAULTS, headers=HTMX)
    with django_assert_max_num_queries(7) as captured:
        client.get(url("export", project), DEFAULTS | {"min_votes": "2"}, headers=HTMX)
    assert not any("annotator_preference" in one["sql"] for one in captured.captured_queries)
    page = client.get(url("export", project)).content
    assert text_of(page, "rows-out") == "4", "a page opened anew shows what is known"


def test_counting_that_takes_too_long_says_so_and_is_not_tried_again_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry, "WHOLE", 0)  # a project too large to read whole
    monkeypatch.setattr(queries, "TIMEOUT_MS", 50)
    monkeypatch.setattr(
        queries, "KINDS", "SELECT 'train', 1, 0, 0, 0, false, 1 FROM pg_sleep(5) /* {counted} */"
    )
    client = signed_in(project)
    for _ in range(2):
        html = client.get(url("export", project), DEFAULTS, headers=HTMX).content
        assert "Too many votes" in text_of(html, "counted")
        monkeypatch.setattr(queries, "KINDS", "nothing that PostgreSQL would run")
    assert client.post(url("export", project), DEFAULTS).status_code == 302, "it can be built"


def test_the_form_without_a_script_counts_and_builds(project: Project) -> None:
    client = signed_in(project)
    page = client.get(url("export", project))
    assert page.status_code == 200
    counted = client.post(url("export", project), DEFAULTS | {"count": "1"})
    assert text_of(counted.content, "rows-out") == "4"
    assert not Run.objects.exists()
    sent = client.post(url("export", project), DEFAULTS | {"min_agreement": "67"})
    run = Run.objects.get()
    assert sent.headers["Location"] == url("run", project, run_id=run.pk)
    assert run.config["options"] == Options(min_agreement=0.67, columns=["margin"]).model_dump(
        mode="json"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_votes": "many"}, "whole number"),
        ({"min_votes": "0"}, "greater than or equal to 1"),
        ({"min_agreement": "150"}, "less than or equal to 100"),
        ({"splits": []}, "at least 1 item"),
        ({"container": "xml"}, "xml is not one of the available choices"),
        ({"raters": "named"}, "needs names"),
        ({"variants": ["madpo-weight"]}, "variants=madpo-weight needs a reward model: have one"),
        ({"raters": "named", "rater_names": "Nobody"}, "called Nobody"),
    ],
)
def test_a_bad_recipe_is_refused_where_it_is_wrong(
    project: Project, change: dict[str, Any], words: str
) -> None:
    answer = signed_in(project).post(url("export", project), DEFAULTS | change)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert not Run.objects.exists()


def test_a_recipe_without_a_name_is_said_not_to_be_saved(project: Project) -> None:
    answer = signed_in(project).post(url("export", project), DEFAULTS | {"save": "1"})
    assert answer.status_code == 422
    assert "Not saved" in text_of(answer.content, "recipe")
    assert "Not started" not in text_of(answer.content, "recipe")


def test_no_box_ticked_means_no_columns_and_named_raters_are_taken(project: Project) -> None:
    values = DEFAULTS | {"raters": "named", "rater_names": "imported 1\nimported 2\n"}
    del values["columns"]
    assert signed_in(project).post(url("export", project), values).status_code == 302
    options = Run.objects.get().config["options"]
    assert options["columns"] == []
    assert options["rater_names"] == ["imported 1", "imported 2"]


def test_a_version_shows_its_counts_and_escapes_its_texts() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    prompt = factories.prompt(project, "<script>alert(1)</script>")
    hostile = [factories.response(prompt, text) for text in ("<img src=x onerror=1>", "no")]
    vote(task_of(prompt, *hostile), rater, 1)
    judged_pair(project, [0], by=[rater])
    version_of(project, columns=[])
    page = signed_in(project).get(url("dataset", project, number=1))
    html = page.content.decode()
    assert page.status_code == 200
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<img src=x" not in html
    assert "a tie, or no answer with the most votes" in html
    assert url("dataset_download", project, number=1, name="train.jsonl") in html


def test_a_version_whose_files_are_gone_still_shows_and_says_so(project: Project) -> None:
    version = version_of(project)
    for path in deliveries.folder_of(version).iterdir():
        path.unlink()
    deliveries.folder_of(version).rmdir()
    client = signed_in(project)
    assert b"no longer on the server" in client.get(url("dataset", project, number=1)).content
    gone = client.get(url("dataset_download", project, number=1, name="train.jsonl"))
    assert gone.status_code == 410


def test_the_run_page_leads_to_the_version(project: Project) -> None:
    version = version_of(project)
    page = signed_in(project).get(url("run", project, run_id=version.run_id))
    assert url("dataset", project, number=1) in page.content.decode()


def test_the_run_page_says_in_words_what_was_asked_and_left_out(project: Project) -> None:
    version = version_of(project, min_votes=2)
    html = signed_in(project).get(url("run", project, run_id=version.run_id)).content.decode()
    assert "Left out: no verdict sets one beside the other" in html
    assert "no_votes" not in html
    asked, _, others = html.partition("as usual</summary>")
    assert "<dt>Least votes</dt><dd>2</dd>" in asked
    assert "<dt>Format</dt><dd>TRL preference</dd>" in asked
    assert "Ties" not in asked.partition("Configuration")[2]
    assert "<dt>Ties</dt><dd>drop</dd>" in others


def test_a_version_offers_every_file_that_lies_in_its_folder(project: Project) -> None:
    version = version_of(project)
    html = signed_in(project).get(url("dataset", project, number=1)).content.decode()
    names = deliveries.file_names(version)
    assert "train_weighted_dpo.py" in names
    for name in names:
        assert f'href="{url("dataset_download", project, number=1, name=name)}"' in html


@pytest.mark.parametrize(("sent", "words"), [("0.0", "scores: none"), ("5", "scores, below")])
def test_a_default_that_was_sent_is_no_filter(project: Project, sent: str, words: str) -> None:
    asks = HTMX | {"HX-Trigger-Name": "format"}
    values = DEFAULTS | {"sent": "1", "drop_ches": sent}
    page = signed_in(project).get(url("export", project), values, headers=asks)
    assert f"Filters by {words}" in page.content.decode()


@pytest.mark.parametrize("key", EXPORTERS)
def test_health_counts_rows_unless_they_are_of_whole_prompts(key: str) -> None:
    of_prompts = {"trl-unpaired", "trl-prompt-only", "ranked-lists"}
    assert dataset_page.noun_of(key) == ("pairs" if key in of_prompts else "rows")


def test_a_row_of_a_whole_prompt_is_told_from_its_pairs(project: Project) -> None:
    prompt = factories.prompt(project, split="train")
    people = list(Rater.objects.filter(project=project)[:1])
    for _ in range(2):
        judged_pair(project, [1], by=people, of=prompt)
    values = DEFAULTS | {"sent": "1", "format": "ranked-lists", "splits": ["train"]}
    client = signed_in(project)
    html = client.get(url("export", project), values, headers=HTMX).content
    rows, pairs = int(text_of(html, "rows-out")), text_of(html, "by-split")
    assert pairs == f"{rows} train, from {rows + 1} pairs"
    assert "pairs behind" in html.decode()
    built(project, "ranked-lists")
    page = client.get(url("dataset", project, number=1)).content.decode()
    assert "one has up to 2 pairs" in page
    assert "pairs behind the first rows" in page


# Files ------------------------------------------------------------------------------------------


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def test_a_download_is_the_file_and_is_written_to_the_audit(project: Project) -> None:
    version = version_of(project)
    whole = deliveries.path_of(version, "train.jsonl").read_bytes()
    client = signed_in(project)
    address = url("dataset_download", project, number=1, name="train.jsonl")
    response = client.get(address)
    assert (response.status_code, body(response)) == (200, whole)
    assert response["Content-Length"] == str(len(whole))
    assert response["Accept-Ranges"] == "bytes"
    assert (
        response["Content-Disposition"] == f'attachment; filename="{project.slug}-v1-train.jsonl"'
    )
    assert response["X-Content-Type-Options"] == "nosniff"
    event = AuditEvent.objects.get(verb="dataset.download")
    assert event.data["file"] == "train.jsonl"
    assert event.actor is not None
    assert DatasetVersion.objects.get().downloads == 1
    for name in ("manifest.json", "README.md", "SHA256SUMS"):
        found = client.get(url("dataset_download", project, number=1, name=name))
        assert body(found) == deliveries.path_of(version, name).read_bytes()


def test_head_says_the_size_and_counts_as_no_download(project: Project) -> None:
    version = version_of(project)
    size = deliveries.path_of(version, "train.jsonl").stat().st_size
    address = url("dataset_download", project, number=1, name="train.jsonl")
    response = signed_in(project).head(address)
    assert (response["Content-Length"], body(response)) == (str(size), b"")
    assert not AuditEvent.objects.filter(verb="dataset.download").exists()


@pytest.mark.parametrize(
    "name", ["preview.json", "..%2f..%2fetc%2fpasswd", "train.parquet", "validation.jsonl.gz", "."]
)
def test_nothing_but_the_files_of_the_version_is_sent(project: Project, name: str) -> None:
    version_of(project)
    base = url("dataset_download", project, number=1, name="x")[:-1]
    assert signed_in(project).get(base + name).status_code in (404, 410)


def test_a_personal_token_downloads_and_a_bad_one_does_not(project: Project) -> None:
    version = version_of(project)
    owner = factories.member(project, Role.OWNER)
    _, secret = tokens.create(user=owner, name="laptop")
    address = url("dataset_download", project, number=1, name="train.jsonl")
    response = Client().get(address, headers={"Authorization": f"Bearer {secret}"})
    assert body(response) == deliveries.path_of(version, "train.jsonl").read_bytes()
    assert AuditEvent.objects.get(verb="dataset.download").actor == owner
    assert Client().get(address, headers={"Authorization": "Bearer no"}).status_code == 401
    _, other = tokens.create(user=factories.user(), name="laptop")
    stranger = Client().get(address, headers={"Authorization": f"Bearer {other}"})
    assert stranger.status_code == 404


def test_a_broken_download_goes_on_with_the_same_bytes(project: Project) -> None:
    version = version_of(project)
    whole = deliveries.path_of(version, "train.jsonl").read_bytes()
    client = signed_in(project)
    address = url("dataset_download", project, number=1, name="train.jsonl")
    etag = client.head(address)["ETag"]

    def part(value: str, **headers: str) -> Any:
        return client.get(address, headers={"Range": value, **headers})

    first, rest = part("bytes=0-99"), part("bytes=100-")
    assert (first.status_code, rest.status_code) == (206, 206)
    assert first["Content-Range"] == f"bytes 0-99/{len(whole)}"
    assert body(first) + body(rest) == whole
    assert DatasetVersion.objects.get().downloads == 1, "one download, in two parts"
    assert body(part("bytes=-7")) == whole[-7:]
    assert body(part("bytes=5-5")) == whole[5:6]
    beyond = part(f"bytes={len(whole)}-")
    assert beyond.status_code == 416
    assert beyond["Content-Range"] == f"bytes */{len(whole)}"
    assert part("bytes=0-1", **{"If-Range": etag}).status_code == 206
    assert body(part("bytes=0-1", **{"If-Range": '"another"'})) == whole
    for nonsense in ("bytes=1-0", "bytes=a-b", "bytes=0-1,3-4", "lines=1-2", "bytes=-"):
        assert body(part(nonsense)) == whole


@given(st.text("bytes=-,0123456789 ", max_size=20), st.integers(1, 50))
def test_any_range_header_gives_a_range_inside_the_file_or_none(header: str, size: int) -> None:
    try:
        span = asked_range(f"bytes={header}", size)
    except Unsatisfiable:
        return
    if span is not None:
        first, last = span
        assert 0 <= first <= last < size
