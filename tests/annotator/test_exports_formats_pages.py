"""Every format can be asked for on the page, and everything it writes can be fetched."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from annotator.exporters import EXPORTERS
from annotator.models import CriterionVerdict, Project, Role
from tests import factories
from tests.annotator.ballots import judged_pair, raters, task_of, vote
from tests.annotator.exported import built
from tests.annotator.rewarding import approved
from tests.annotator.test_exports_containers import pictured
from tests.annotator.test_exports_judgments import ANSWERS, answer

pytestmark = pytest.mark.django_db(transaction=True)


def project_for(key: str) -> Project:
    """A project with something of what the format writes."""
    if key == "pick-a-pic":
        project = factories.project(modality="image")
        red, blue = pictured(project, "train", "red", "blue")
        vote(task_of(red.prompt, red, blue), raters(project, 1)[0], 1)
        return project
    project = factories.project(settings={"attributes": ["zeal", "a"], "overlap": 1})
    if key == "ratings":
        answer(project, factories.task_of(project, "rating", 4), ANSWERS["rating"])
        return project
    judged_pair(project, [1], by=raters(project, 1))
    if key == "rubric-rows":
        criterion = approved(project).criteria.get()
        response = project.prompts.get().responses.first()
        CriterionVerdict.objects.create(criterion=criterion, response=response, value=1)
    return project


@pytest.mark.parametrize("key", EXPORTERS)
def test_page_asks_for_it_and_hands_out_all_of_it(key: str, client: Any) -> None:
    project = project_for(key)
    client.force_login(factories.member(project, Role.OWNER))
    asked = client.get(f"{reverse('export', args=[project.slug])}?format={key}")
    assert EXPORTERS[key].label in asked.content.decode()
    version = built(project, key)
    page = client.get(reverse("dataset", args=[project.slug, version.number]))
    assert page.status_code == 200
    names = [entry["name"] for entry in version.files] + version.manifest["extra_files"]
    for name in [*names, "README.md", "manifest.json", "SHA256SUMS"]:
        sent = client.get(reverse("dataset_download", args=[project.slug, version.number, name]))
        assert b"".join(sent.streaming_content), name
