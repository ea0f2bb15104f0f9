"""Rubrics: proposed, worked on, approved, told apart, written to a file and read again."""

from __future__ import annotations

import json
from threading import Thread
from typing import Any

import pytest
from django.db import DatabaseError, connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotator.errors import AppError, Conflict, Invalid
from annotator.models import (
    AuditEvent,
    Criterion,
    CriterionEvidence,
    Project,
    Rubric,
    RubricVersion,
    Run,
)
from annotator.queries import rubrics as queries
from annotator.services import rubric_files, rubrics
from rubrics.generators.types import CandidateCriterion, Evidence, Generated
from tests import factories

pytestmark = pytest.mark.django_db

PAIRS = {1: rubrics.Pair(11, 21, 22), 2: rubrics.Pair(12, 23, 24)}


@pytest.fixture
def project() -> Project:
    return factories.project()


@pytest.fixture
def rubric(project: Project) -> Rubric:
    return rubrics.create(project=project, name="Plain letters", by=None)


def proposal(*texts: str, **values: Any) -> Generated:
    return Generated(
        criteria=tuple(
            CandidateCriterion(
                text=text,
                evidence=(Evidence(1, True, quote="so clear"), Evidence(2, False)),
                figures={"coverage": 0.5},
                **values,
            )
            for text in texts
        ),
        figures={"held_out": 0.7},
        dropped={"not verified": 3},
    )


def propose(rubric: Rubric, *texts: str, **values: Any) -> RubricVersion:
    return rubrics.propose(
        rubric=rubric, generated=proposal(*texts, **values), pairs=PAIRS, method="arr", options={},
        run=None, by=None,
    )  # fmt: skip


def lines(version: RubricVersion) -> list[str]:
    return [one.text for one in rubrics.in_force(version)]


def test_proposal_becomes_a_draft_with_its_evidence(rubric: Rubric) -> None:
    version = propose(rubric, "It is short.", "It names the dose.", weight=0.8)
    assert version.is_draft
    assert version.number == 1
    assert version.figures == {"held_out": 0.7, "dropped": {"not verified": 3}}
    first = version.criteria.first()
    assert first.decision == Criterion.Decision.PROPOSED
    assert first.weight == 0.8
    found = first.evidence.order_by("pk").values_list("prompt_id", "chosen_id", "supports", "quote")
    assert list(found) == [(11, 21, True, "so clear"), (12, 23, False, "")]


def test_untouched_draft_is_replaced_and_one_with_decisions_is_not(rubric: Rubric) -> None:
    run = Run.objects.create(project=rubric.project, kind="rubric", title="T")
    made = rubrics.propose(
        rubric=rubric, generated=proposal("One."), pairs=PAIRS, method="arr", options={}, run=run,
        by=None,
    )  # fmt: skip
    other = propose(rubric, "Two.")
    assert not RubricVersion.objects.filter(pk=made.pk).exists()
    with pytest.raises(Conflict, match="somebody works on"):
        propose(rubric, "Three.")  # one without a run is somebody's
    rubrics.discard(version=other, by=None)
    propose(rubric, "Four.")


def test_approval_needs_every_decision_and_then_nothing_changes(rubric: Rubric) -> None:
    version = propose(rubric, "It is short.", "It rhymes.")
    short, rhymes = version.criteria.all()
    with pytest.raises(Conflict, match="2 criteria are not decided"):
        rubrics.approve(version=version, by=None)
    rubrics.decide(criterion=rhymes, decision="rejected", by=None)
    with pytest.raises(Conflict, match="1 criterion is not decided"):
        rubrics.approve(version=version, by=None)
    rubrics.decide(criterion=short, decision="accepted", by=None)
    approved = rubrics.approve(version=version, by=None)
    assert lines(approved) == ["It is short."]
    assert len(approved.digest) == 64
    for change in (
        lambda: rubrics.edit(criterion=short, text="Other.", by=None),
        lambda: rubrics.decide(criterion=short, decision="rejected", by=None),
        lambda: rubrics.add(version=approved, text="More.", by=None),
        lambda: rubrics.discard(version=approved, by=None),
        lambda: rubrics.approve(version=approved, by=None),
    ):
        with pytest.raises(Conflict, match="never changes"):
            change()
    verbs = set(AuditEvent.objects.values_list("verb", flat=True))
    assert {"rubric.create", "rubric.propose", "rubric.approve"} <= verbs


def test_empty_draft_cannot_be_approved(rubric: Rubric) -> None:
    version = rubrics.draft(rubric=rubric, by=None)
    with pytest.raises(Conflict, match="no accepted criterion"):
        rubrics.approve(version=version, by=None)


def test_new_draft_begins_with_what_was_approved(rubric: Rubric) -> None:
    version = propose(rubric, "It is short.", "It rhymes.")
    for one, decision in zip(version.criteria.all(), ("accepted", "rejected"), strict=True):
        rubrics.decide(criterion=one, decision=decision, by=None)
    approved = rubrics.approve(version=version, by=None)
    following = rubrics.draft(rubric=rubric, by=None, like=approved)
    assert following.number == 2
    assert following.parent == approved
    assert following.figures == {}
    assert lines(following) == ["It is short."]
    assert CriterionEvidence.objects.filter(criterion__version=following).count() == 2
    assert CriterionEvidence.objects.filter(criterion__version=approved).count() == 4
    assert rubrics.draft(rubric=rubric, by=None) == following  # one draft at a time
    assert rubrics.approve(version=following, by=None).digest == approved.digest


def test_merging_keeps_the_evidence_and_adds_up_the_weights(rubric: Rubric) -> None:
    version = propose(rubric, "It is short.", "It is brief.", "It is concise.", weight=0.25)
    one, two, three = version.criteria.all()
    rubrics.merge(criteria=[two, three], text="Brief and concise.", by=None)
    merged = rubrics.merge(criteria=[one, two], text="It is short and brief.", by=None)
    assert merged.pk == one.pk
    assert merged.weight == 0.75
    assert merged.figures == {}
    assert lines(version) == ["It is short and brief."]
    assert merged.evidence.count() == 6
    assert set(merged.merged.values_list("text", flat=True)) == {
        "Brief and concise.", "It is concise."
    }  # fmt: skip
    with pytest.raises(Conflict, match="merged"):
        rubrics.decide(criterion=two, decision="accepted", by=None)


def test_opposites_are_not_merged(rubric: Rubric) -> None:
    version = rubrics.draft(rubric=rubric, by=None)
    good = rubrics.add(version=version, text="It is short.", by=None)
    bad = rubrics.add(version=version, text="It rambles.", polarity=-1, by=None)
    with pytest.raises(Invalid, match="not the same"):
        rubrics.merge(criteria=[good, bad], text="Length.", by=None)


def test_editing_the_text_forgets_what_was_measured_of_it(rubric: Rubric) -> None:
    version = propose(rubric, "It is short.")
    one = version.criteria.first()
    weighed = rubrics.edit(criterion=one, weight=2, by=None)
    assert weighed.figures == {"coverage": 0.5}
    assert not weighed.is_edited
    edited = rubrics.edit(criterion=one, text="It is  brief.\n", by=None)
    assert (edited.text, edited.figures, edited.is_edited) == ("It is brief.", {}, True)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"text": "  "}, "a sentence"),
        ({"text": "x" * 501}, "a sentence"),
        ({"polarity": 0}, "for an answer"),
        ({"polarity": True}, "for an answer"),
        ({"weight": float("nan")}, "number"),
        ({"weight": "2"}, "number"),
        ({"scope": "galaxy"}, "scope"),
        ({"scope": "group"}, "narrower"),
        ({"group": "code"}, "narrower"),
        ({"verifier": "program"}, "program checks"),
        ({"verifier": "program", "program": "no-such"}, "program checks"),
        ({"program": "answered"}, "Only what a program"),
        ({"verifier": "reward-model", "program": "best"}, "model's number"),
        ({"color": "red"}, "has no color"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_criterion_is_refused_with_the_reason(
    rubric: Rubric, values: dict[str, Any], says: str
) -> None:
    version = rubrics.draft(rubric=rubric, by=None)
    with pytest.raises(Invalid, match=says):
        rubrics.add(version=version, by=None, **({"text": "It is short."} | values))
    assert not version.criteria.exists()


def test_file_gives_back_the_same_rubric(rubric: Rubric, project: Project) -> None:
    version = rubrics.draft(rubric=rubric, by=None)
    rubrics.add(version=version, text="Ist sie kürzer? 短い", weight=1.5, theme="Länge", by=None)
    rubrics.add(version=version, text="It refuses.", polarity=-1, verifier="program",
                program="refusal", by=None)  # fmt: skip
    rubrics.add(version=version, text="It runs.", scope="group", group="code", by=None)
    approved = rubrics.approve(version=version, by=None)
    data = json.dumps(rubric_files.as_json(approved)).encode()
    other = rubric_files.read(project=factories.project(), data=data, by=None)
    assert other.rubric.name == rubric.name
    assert rubrics.approve(version=other, by=None).digest == approved.digest
    named = rubric_files.read(project=project, data=data, name="A copy", by=None)
    assert lines(named) == lines(approved)
    with pytest.raises(Invalid, match="has a draft"):
        rubric_files.read(project=project, data=data, name="A copy", by=None)


def test_half_a_file_leaves_nothing_behind(project: Project) -> None:
    body = {"format": "touchstone-rubric", "version": 1, "rubric": "R",
            "criteria": [{"text": "Fine."}, {"text": ""}]}  # fmt: skip
    with pytest.raises(Invalid, match="Criterion 2"):
        rubric_files.read(project=project, data=json.dumps(body).encode(), by=None)
    assert not Rubric.objects.exists()


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.fixed_dictionaries(
            {
                "format": st.just("touchstone-rubric"),
                "version": st.just(1),
                "rubric": hostile,
                "criteria": st.lists(
                    st.fixed_dictionaries({}, optional=dict.fromkeys(rubrics.FIELDS, hostile)),
                    max_size=3,
                ),
            }
        ).map(lambda found: json.dumps(found).encode()),
    )
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_files_are_refused_and_nothing_else(project: Project, data: bytes) -> None:
    try:
        version = rubric_files.read(project=project, data=data, by=None)
    except AppError:
        return
    assert rubrics.in_force(version)
    version.rubric.delete()


def test_versions_are_told_apart(rubric: Rubric) -> None:
    old = rubrics.draft(rubric=rubric, by=None)
    for text in ("It is short.", "It is kind.", "It rhymes.", "It is warm."):
        rubrics.add(version=old, text=text, by=None)
    rubrics.approve(version=old, by=None)
    old.refresh_from_db()
    new = rubrics.draft(rubric=rubric, by=None, like=old)
    short, kind, rhymes, _ = new.criteria.all()
    rubrics.edit(criterion=short, weight=2.0, by=None)
    rubrics.edit(criterion=kind, text="It is kind and plain.", by=None)
    rubrics.decide(criterion=rhymes, decision="rejected", by=None)
    rubrics.add(version=new, text="It names the dose.", by=None)
    found = rubric_files.diff(old, new)
    assert [one.text for one in found.added] == ["It names the dose."]
    assert [one.text for one in found.removed] == ["It rhymes."]
    changed = {(one.before.text, one.after.text, one.fields) for one in found.changed}
    assert changed == {
        ("It is short.", "It is short.", ("weight",)),
        ("It is kind.", "It is kind and plain.", ("text",)),
    }
    assert found.same == 1


@pytest.mark.django_db(transaction=True)
def test_two_people_deciding_at_once_lose_nothing() -> None:
    rubric = rubrics.create(project=factories.project(), name="R", by=None)
    version = propose(rubric, *(f"Criterion {n}." for n in range(12)))
    rows = list(version.criteria.all())
    errors: list[Exception] = []

    def decide(some: list[Criterion], decision: str) -> None:
        try:
            for one in some:
                rubrics.decide(criterion=one, decision=decision, by=None)
                rubrics.add(version=version, text=f"{decision} beside {one.pk}", by=None)
        except (AppError, DatabaseError) as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [
        Thread(target=decide, args=(rows[:6], "accepted")),
        Thread(target=decide, args=(rows[6:], "rejected")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert version.criteria.count() == 24
    assert len(rubrics.in_force(rubrics.approve(version=version, by=None))) == 18


@pytest.mark.parametrize("mark", [":", "@", " "])
def test_version_is_named_by_number_or_is_the_newest(rubric: Rubric, mark: str) -> None:
    first = rubrics.draft(rubric=rubric, by=None)
    rubrics.add(version=first, by=None, text="It is short.")
    first = rubrics.approve(version=first, by=None)
    second = rubrics.draft(rubric=rubric, by=None, like=first)
    project, name = rubric.project, rubric.name
    assert queries.named(project, name) == second
    assert queries.named(project, name, only_approved=True) == first
    assert queries.named(project, f"{name}{mark}v1") == first
    assert queries.named(project, f"{name}{mark}v2", only_approved=True) == second
    assert queries.named(project, f"{name}{mark}v3") is None
    assert queries.named(factories.project(), name) is None
    twin = rubrics.create(project=project, name=f"{name}{mark}v1", by=None)
    assert queries.named(project, twin.name) is None  # it has no version of its own
