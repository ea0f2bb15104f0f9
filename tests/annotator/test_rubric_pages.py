"""Pages of rubrics: what they show, what deciding does, what they refuse."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotator.models import Criterion, Project, Rater, Role, RubricVersion, Run
from annotator.queries import rubrics as queries
from annotator.queries.criteria import asked, digest
from annotator.services import rubrics
from tests import factories
from tests.annotator import measured

pytestmark = pytest.mark.django_db

HOSTILE = '<script>alert("x")</script> & <b>bold</b>'


@pytest.fixture
def project() -> Project:
    return factories.project()


@pytest.fixture
def version(project: Project) -> RubricVersion:
    found = measured.version_of(project)
    measured.measure(found)
    return found


@pytest.fixture
def owner(project: Project) -> Client:
    return signed_in(project, Role.OWNER)


def signed_in(project: Project, role: Role) -> Client:
    client = Client()
    client.force_login(factories.member(project, role))
    return client


def at(name: str, version: RubricVersion, *args: object) -> str:
    slug = version.rubric.project.slug
    return reverse(name, args=[slug, version.rubric_id, version.number, *args])


def page(client: Client, url: str, **query: object) -> str:
    response = client.get(url, query)
    assert response.status_code == 200
    return response.content.decode()


def words(html: str) -> str:
    """What is read, without marks and with single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("\xa0", " ")


def rows(html: str) -> list[str]:
    return re.findall(r"<small>(C\d+)</small>", html)


def accepted_so_far(client: Client, version: RubricVersion) -> float:
    """In percent, as the sentence beside the chart has it."""
    html = page(client, at("rubric_version", version)).replace("\xa0", " ")
    found = re.search(r"accepted so far ([\d.]+) %", html)
    assert found is not None
    return float(found[1])


def test_list_leads_to_the_draft_and_counts_what_is_left(owner: Client, version) -> None:
    html = page(owner, reverse("rubrics", args=[version.rubric.project.slug]))
    assert at("rubric_version", version) in html
    assert "draft, 4 to decide" in html
    assert "75.0" in html


def test_list_costs_the_same_for_many_rubrics(owner: Client, version, project) -> None:
    url = reverse("rubrics", args=[project.slug])

    def cost() -> int:
        with CaptureQueriesContext(connection) as found:
            page(owner, url)
        return len(found)

    cost()
    few = cost()
    for _ in range(4):
        measured.measure(measured.version_of(project), pairs=2, held=1)
    assert cost() == few


def test_empty_list_says_what_to_do(project: Project) -> None:
    html = page(signed_in(project, Role.OWNER), reverse("rubrics", args=[project.slug]))
    assert "No rubric yet" in html
    assert reverse("rubric_induce", args=[project.slug]) in html


def test_criteria_stand_in_the_order_of_their_weights(owner: Client, version) -> None:
    html = page(owner, at("rubric_version", version))
    assert rows(html) == ["C1", "C2", "C4", "C3"]  # 1.5, .8, -.6, .1
    assert "+1.50" in html
    assert "1,234" in html
    assert "like C1" in html  # its redundancy is .91


@pytest.mark.parametrize(
    ("r", "polarity", "says"),
    [(-0.91, 1, "opposite of C1"), (-0.91, -1, "like C1"), (0.91, -1, "opposite of C1")],
)
def test_criterion_that_asks_for_the_opposite_is_not_called_alike(
    r: float, polarity: int, says: str, owner: Client, version
) -> None:
    first, second, *_ = version.criteria.order_by("position")
    Criterion.objects.filter(pk=second.pk).update(polarity=polarity)
    measurement = queries.measurement(version)
    measurement.figures["criteria"][str(second.pk)]["redundancy"] = {"criterion": first.pk, "r": r}
    measurement.save()
    html = page(owner, at("rubric_version", version), criterion=second.pk)
    closed = page(owner, at("rubric_version", version))
    assert says in closed
    assert ("It asks for the opposite of C1" in html) == says.startswith("opposite")
    ticked = re.search(rf'name="with" value="{first.pk}"( checked)?', html)
    assert ticked is not None
    assert bool(ticked[1]) == says.startswith("like"), "opposites are no duplicates to merge"


def test_one_loose_interval_leaves_the_other_weights_to_be_seen(owner: Client, version) -> None:
    *_, last = version.criteria.order_by("position")
    measurement = queries.measurement(version)
    measurement.figures["criteria"][str(last.pk)]["fitted"]["high"] = 400.0
    measurement.save()
    html = page(owner, at("rubric_version", version))
    head = html[: html.index("<span>Decision</span>")]
    ticks = re.findall(r'text-anchor="middle">([^<]+)</text>', head)
    assert ticks
    assert max(map(float, (one.replace("−", "-") for one in ticks))) < 5
    assert "+400.00" in html


def test_accuracy_is_counted_again_with_what_is_accepted(owner: Client, version) -> None:
    first, second, *_ = version.criteria.order_by("position")
    assert "accepted so far" not in page(owner, at("rubric_version", version))
    rubrics.decide(criterion=first, decision="accepted", by=None)
    assert accepted_so_far(owner, version) == 100.0  # the first is right on every pair
    rubrics.decide(criterion=first, decision="rejected", by=None)
    rubrics.decide(criterion=second, decision="accepted", by=None)
    assert accepted_so_far(owner, version) == 50.0


def test_evidence_is_shown_for_the_open_one_only(owner: Client, version) -> None:
    first, second, *_ = version.criteria.order_by("position")
    sheet = queries.sheet(queries.measurement(version))
    quote = measured.note(first, sheet, 3, quote=HOSTILE)
    measured.note(second, sheet, 4, quote="never shown here")
    html = page(owner, at("rubric_version", version), criterion=first.pk)
    assert "&lt;script&gt;" in html
    assert "<script>alert" not in html
    assert "never shown here" not in html
    assert "1,000 with the vote, 234 against" in words(html)
    assert f"good {3}" in html
    assert quote.supports
    assert "1 pair noted for it, 0 against" in words(html)


def test_reasons_of_votes_stand_in_where_nobody_is_quoted(owner: Client, version) -> None:
    first = version.criteria.first()
    sheet = queries.sheet(queries.measurement(version))
    measured.note(first, sheet, 7)
    html = words(page(owner, at("rubric_version", version), criterion=first.pk))
    assert "because of 7" in html
    assert "because of 3" not in html


def test_deciding_goes_on_to_the_next_open_one(owner: Client, version) -> None:
    ids = [int(pk) for pk in re.findall(r'id="c(\d+)"', page(owner, at("rubric_version", version)))]
    response = owner.post(at("rubric_decide", version, ids[0]), {"decision": "accepted"})
    assert response["Location"].endswith(f"?criterion={ids[1]}#c{ids[1]}")
    owner.post(at("rubric_decide", version, ids[2]), {"decision": "rejected"})
    response = owner.post(at("rubric_decide", version, ids[1]), {"decision": "accepted"})
    assert response["Location"].endswith(f"?criterion={ids[3]}#c{ids[3]}")
    response = owner.post(at("rubric_decide", version, ids[3]), {"decision": "accepted"})
    assert response["Location"].endswith(f"?criterion={ids[3]}#c{ids[3]}")  # nothing is left
    states = dict(version.criteria.values_list("pk", "decision"))
    assert [states[pk] for pk in ids] == ["accepted", "accepted", "rejected", "accepted"]


def test_approval_waits_for_every_decision(owner: Client, version) -> None:
    response = owner.post(at("rubric_change", version), {"action": "approve"})
    assert response.status_code == 409
    assert "not decided on" in response.content.decode()
    rubrics.decide(criterion=version.criteria.first(), decision="rejected", by=None)
    owner.post(at("rubric_change", version), {"action": "accept-rest"})
    response = owner.post(at("rubric_change", version), {"action": "approve"}, follow=True)
    version.refresh_from_db()
    assert version.state == "approved"
    assert version.digest
    html = response.content.decode()
    assert at("rubric_use", version) in html
    assert 'data-key="a"' not in html
    assert "3 criteria in force" in words(html), "what was rejected is none of them"


def test_reason_for_several_missing_figures_is_told_once(owner: Client, version) -> None:
    measurement = queries.measurement(version)
    measurement.figures["missing"] = {"judge": "Nobody to ask.", "judge.rubric": "Nobody to ask."}
    measurement.save()
    assert page(owner, at("rubric_version", version)).count("Nobody to ask.") == 1


def test_edit_forgets_what_was_measured_of_other_words(owner: Client, version) -> None:
    first = version.criteria.first()
    given = {"text": "It names its source.", "polarity": "1", "weight": "", "verifier": "llm"}
    response = owner.post(at("rubric_edit", version, first.pk), given)
    assert response.status_code == 302
    first.refresh_from_db()
    assert first.text == "It names its source."
    assert first.is_edited
    refused = owner.post(at("rubric_edit", version, first.pk), given | {"verifier": "program"})
    assert refused.status_code == 422
    assert "names one that there is" in refused.content.decode()


def noted(version: RubricVersion) -> None:
    """The measurement knows what it was of, as a run of now writes it."""
    measurement, criteria = version.measurements.get(), rubrics.in_force(version)
    measurement.figures |= {
        "digest": digest(criteria), "asked": {str(one.pk): asked(one) for one in criteria},
    }  # fmt: skip
    measurement.save()


def all_of(client: Client, version: RubricVersion) -> tuple[str, float]:
    """What the first dot of the chart is of, and its percentage."""
    html = page(client, at("rubric_version", version)).replace("\xa0", " ")
    found = re.search(r"held-out pairs: v1, ([^,:]+?) ([\d.]+) %", html)
    assert found is not None
    return found[1], float(found[2])


@pytest.mark.parametrize(
    "change", [{"text": "It cites."}, {"verifier": "person"}, {"polarity": -1}]
)
def test_figures_of_what_a_criterion_asked_before_are_not_shown_as_its_own(
    owner: Client, version, change
) -> None:
    noted(version)
    first, second, *rest = version.criteria.order_by("position")
    for one in rest:
        rubrics.decide(criterion=one, decision="rejected", by=None)
    assert all_of(owner, version)[0] == "all 2"
    rubrics.edit(criterion=first, by=None, **change)
    told, value = all_of(owner, version)
    assert told == "1 of 2 measured"
    assert value == 50.0  # the second alone
    html = page(owner, at("rubric_version", version), criterion=first.pk)
    assert "1,000 with the vote, 234 against" not in words(html)
    html = page(owner, at("rubric_version", version), criterion=second.pk)
    assert "1,000 with the vote, 235 against" in words(html)
    refused = owner.post(at("rubric_change", version), {"action": "weigh"})
    assert refused.status_code == 422
    assert "1 criterion has no fitted weight" in refused.content.decode()
    rubrics.decide(criterion=second, decision="rejected", by=None)
    assert "of the test split, never used" not in page(owner, at("rubric_version", version))


def test_lists_say_that_a_figure_is_of_other_criteria(owner: Client, version, project) -> None:
    noted(version)
    url = reverse("rubrics", args=[project.slug])
    assert "before its last changes" not in page(owner, url)
    for one in version.criteria.order_by("position")[1:]:
        rubrics.decide(criterion=one, decision="rejected", by=None)
    assert "before its last changes" in page(owner, url)
    rubrics.accept_rest(version=version, by=None)
    rubrics.approve(version=version, by=None)
    assert "before its last changes" in page(owner, url)
    version.refresh_from_db()
    assert "before its last changes" in page(owner, at("rubric_compare", version, 1))
    version.measurements.update(figures={"held_out": {}, "digest": version.digest})
    assert "before its last changes" not in page(owner, url)


def test_pairs_of_the_test_split_are_never_an_example(owner: Client, version) -> None:
    """The clearest pairs of the first criterion are held out: 0 to 5."""
    first = version.criteria.first()
    shown = page(owner, at("rubric_version", version), criterion=first.pk)
    assert re.findall(r"good (\d+)", shown) == ["6"]


def test_version_that_names_no_verifier_is_measured_by_the_judge_that_is_chosen(
    owner: Client, version, project
) -> None:
    judge = factories.judge(project)
    foreign = factories.judge(factories.project())
    assert f'value="{judge.pk}" selected' in page(owner, at("rubric_version", version))
    url = at("rubric_change", version)
    refused = owner.post(url, {"action": "measure", "judge": foreign.pk})
    assert refused.status_code == 422
    assert not Run.objects.exists()
    owner.post(url, {"action": "measure", "judge": judge.pk})
    assert Run.objects.get().config["judge"] == judge.pk
    version.refresh_from_db()
    assert version.verifier == judge
    assert 'name="judge"' not in page(owner, at("rubric_version", version))


def test_what_judges_wrote_is_not_what_people_wrote(owner: Client, version) -> None:
    first = version.criteria.first()
    measured.note(first, queries.sheet(queries.measurement(version)), 7)
    raters = Rater.objects.filter(project=version.rubric.project)
    for change in ({"kind": Rater.Kind.JUDGE}, {"kind": Rater.Kind.HUMAN, "is_excluded": True}):
        raters.update(**change)
        html = page(owner, at("rubric_version", version), criterion=first.pk)
        assert "because of 7" not in html
        assert "Nobody gave a reason" in html


def test_next_draft_is_asked_as_the_version_it_is_made_of(version, project) -> None:
    judge = factories.judge(project)
    RubricVersion.objects.filter(pk=version.pk).update(verifier=judge, options={"concise": True})
    rubrics.accept_rest(version=version, by=None)
    rubrics.approve(version=version, by=None)
    version.refresh_from_db()
    made = rubrics.draft(rubric=version.rubric, like=version, by=None)
    made.refresh_from_db()
    assert made.verifier == judge
    assert made.options == {"concise": True}
    assert made.figures == {}


def test_merge_takes_only_what_is_ticked_of_this_version(owner: Client, version, project) -> None:
    first, second, _, fourth = version.criteria.order_by("position")
    foreign = measured.version_of(project).criteria.first()
    given = {"with": [fourth.pk, foreign.pk, "x"], "text": "It names a source in a list."}
    owner.post(at("rubric_merge", version, first.pk), given)
    first.refresh_from_db()
    fourth.refresh_from_db()
    assert (first.text, first.decision) == ("It names a source in a list.", "accepted")
    assert (fourth.decision, fourth.merged_into_id) == ("merged", first.pk)
    second.refresh_from_db()
    assert second.decision == "proposed"
    assert Criterion.objects.get(pk=foreign.pk).decision == "proposed"
    refused = owner.post(at("rubric_merge", version, second.pk), {"text": "Alone."})
    assert refused.status_code == 422


def test_weights_are_taken_and_given_back(owner: Client, version) -> None:
    owner.post(at("rubric_change", version), {"action": "weigh"})
    assert version.criteria.first().weight == 1.5
    owner.post(at("rubric_change", version), {"action": "equal"})
    assert version.criteria.filter(weight__isnull=False).count() == 0


def test_versions_are_compared(owner: Client, version) -> None:
    rubrics.accept_rest(version=version, by=None)
    rubrics.approve(version=version, by=None)
    owner.post(at("rubric_change", version), {"action": "draft"})
    draft = version.rubric.versions.get(number=2)
    gone, kept, *_ = draft.criteria.order_by("position")
    rubrics.decide(criterion=gone, decision="rejected", by=None)
    rubrics.edit(criterion=kept, by=None, text="It is very short.", weight=0.5)
    rubrics.add(version=draft, by=None, text=HOSTILE)
    html = page(owner, at("rubric_compare", draft, 1))
    assert "1 added, 1 removed, 1 changed, 2 the same" in words(html)
    assert "&lt;script&gt;" in html
    assert "<script>alert" not in html


def test_reviewers_read_and_do_not_decide(version: RubricVersion, project: Project) -> None:
    client, first = signed_in(project, Role.REVIEWER), version.criteria.first()
    html = page(client, at("rubric_version", version), criterion=first.pk)
    assert 'data-key="a"' not in html
    assert "Approve" not in html
    for name, args in (("rubric_decide", [first.pk]), ("rubric_change", []), ("rubric_add", [])):
        assert client.post(at(name, version, *args)).status_code == 403


def test_criterion_of_another_version_is_not_found(owner: Client, version, project) -> None:
    other = measured.version_of(factories.project()).criteria.first()
    for name in ("rubric_decide", "rubric_edit", "rubric_merge"):
        assert owner.post(at(name, version, other.pk), {"decision": "accepted"}).status_code == 404
    assert page(owner, at("rubric_version", version), criterion=other.pk)
    assert page(owner, at("rubric_version", version), criterion="9" * 40)


def test_version_without_measurement_says_so(owner: Client, project: Project) -> None:
    bare = measured.version_of(project)
    html = page(owner, at("rubric_version", bare), criterion=bare.criteria.first().pk)
    assert "Not measured yet" in html
    assert "No pair is at hand" in html
