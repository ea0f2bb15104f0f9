"""Importing in a real browser: an upload with progress, a result that runs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from annotator.jobs import base
from annotator.models import Project, Role, Run, User
from annotator.services import imports
from tests import factories

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

HOSTILE = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"


def rows() -> bytes:
    good = [
        {
            "prompt": f"Which stores sold less in week {n} than in week {n - 1}? {HOSTILE}",
            "chosen": f"Six stores did. Ordered by the drop: Leith, Gdynia and {n} more.",
            "rejected": "You can find out by comparing the two weeks in a pivot table.",
        }
        for n in range(1, 90)
    ]
    bad = [
        {"prompt": HOSTILE, "chosen": HOSTILE, "rejected": HOSTILE},
        {"prompt": "Why?", "chosen": "Use a LEFT JOIN.", "rejected": "Use a LEFT JOIN."},
        {"prompt": "Why is the sum of the regions not the total?", "chosen": "Rounding."},
    ]
    lines = [json.dumps(row) for row in [*good, *bad, good[0]]]
    lines.append('{"prompt": "How many "active" customers are there?"}')
    return "\n".join(lines).encode()


@pytest.fixture
def project() -> Project:
    return factories.project("analyst-assistant")


@pytest.fixture
def owner(project: Project) -> User:
    return factories.member(project, Role.OWNER)


def test_upload_leads_to_a_result_that_runs_nothing(
    project: Project, owner: User, open_page: Callable[..., Page], tmp_path: Path, settings: Any
) -> None:
    (tmp_path / "answers-batch-3.jsonl").write_bytes(rows())
    page = open_page(owner, f"/p/{project.slug}/imports/new/")
    page.set_input_files("input[type=file]", tmp_path / "answers-batch-3.jsonl")
    page.get_by_role("button", name="Import", exact=True).click()
    page.wait_for_url("**/runs/*/")
    run = Run.objects.get(project=project)
    base.perform(run.pk, imports.perform)
    page.goto(page.url)
    expect(page.get_by_role("heading", name="4 bad lines")).to_be_visible()
    expect(page.get_by_text("The two answers are identical")).to_be_visible()
    assert page.evaluate("window.ran") is None
    page.get_by_role("link", name="Undo import").click()
    page.get_by_role("button", name="Undo the import").click()
    expect(page.get_by_text("89 pairs and 89 votes were removed").first).to_be_visible()


def test_upload_that_is_refused_says_so_beside_the_form(
    project: Project, owner: User, open_page: Callable[..., Page], tmp_path: Path, settings: Any
) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows())
    page = open_page(owner, f"/p/{project.slug}/imports/new/")
    page.set_input_files("input[type=file]", tmp_path / "a.jsonl")
    page.get_by_label("Columns").fill("answer = a")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("there is no field “answer”")).to_be_visible()
    assert ["422" in said for said in page.problems] == [True]  # the browser reports the answer
    page.problems.clear()
    settings.MAX_UPLOAD_BYTES = 1000
    page.reload()
    page.set_input_files("input[type=file]", tmp_path / "a.jsonl")
    expect(page.get_by_text("more than this server takes")).to_be_visible()
    expect(page.get_by_role("button", name="Import", exact=True)).to_be_disabled()
    assert not Run.objects.filter(project=project).exists()
