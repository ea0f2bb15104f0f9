"""How far people confirm the verifier of a criterion, and agree with each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from annotator.models import (
    Criterion,
    CriterionVerdict,
    Project,
    Rater,
    Response,
    RubricVersion,
)
from annotator.queries import rubric_checks
from rubrics.sheet import Sheet
from tests import factories
from tests.annotator.checked import RUDE, SHORT, STEPS, project, version

__all__ = ["project", "version"]

pytestmark = pytest.mark.django_db


# Agreement --------------------------------------------------------------------------------------


def say(criterion: Criterion, response: Response, rater: Rater | None, value: Any) -> None:
    CriterionVerdict.objects.create(
        criterion=criterion, response=response, rater=rater, value=value,
        probability=None if value is None or (rater and rater.kind == "human") else float(value),
    )  # fmt: skip


def answered(project: Project, count: int) -> list[Response]:
    return [factories.response(factories.prompt(project)) for _ in range(count)]


def test_people_confirm_the_verifier_so_often(project: Project, version: RubricVersion) -> None:
    judge = factories.judge(project)
    version.verifier = judge
    version.save()
    short, rude = version.criteria.get(text=SHORT), version.criteria.get(text=RUDE)
    bob, carol = factories.rater(project), factories.rater(project)
    for at, response in enumerate(answered(project, 20)):
        say(short, response, judge.rater, 1)
        say(short, response, bob, int(at >= 4))  # four are not confirmed
        say(short, response, carol, int(at >= 4) if at < 12 else None)
    found = rubric_checks.checks(version)
    assert list(found) == [short.pk]
    checks = found[short.pk]
    assert (checks.checks, checks.responses, checks.raters) == (32, 20, 2)
    assert checks.does_not_apply == 8
    assert (checks.confirmed, checks.compared) == (24, 32)
    low, high = checks.confirms.interval
    assert low < 0.75 < high
    assert checks.people.value == pytest.approx(12 / 20)  # n/a is an answer, and not Bob's
    assert checks.people.n_units_paired == 20
    assert checks.alpha.value == pytest.approx(
        alpha_of([[int(at >= 4) for at in range(20)],
                  [int(at >= 4) if at < 12 else 2 for at in range(20)]])
    )  # fmt: skip
    assert rude.pk not in found


def alpha_of(matrix: list[list[int]]) -> float:
    import krippendorff

    return float(krippendorff.alpha(np.array(matrix, dtype=float), level_of_measurement="nominal"))


def test_few_shared_answers_have_no_alpha(project: Project, version: RubricVersion) -> None:
    short = version.criteria.get(text=SHORT)
    bob, carol = factories.rater(project), factories.rater(project)
    for response in answered(project, 3):
        say(short, response, bob, 1)
        say(short, response, carol, 0)
    checks = rubric_checks.checks(version)[short.pk]
    assert (checks.people.value, checks.alpha, checks.confirms) == (0, None, None)


def test_raters_left_out_and_judges_are_not_people(
    project: Project, version: RubricVersion
) -> None:
    short = version.criteria.get(text=SHORT)
    (response,) = answered(project, 1)
    say(short, response, factories.judge(project).rater, 1)
    out = factories.rater(project)
    Rater.objects.filter(pk=out.pk).update(is_excluded=True)
    say(short, response, out, 1)
    assert rubric_checks.checks(version) == {}


def test_own_verifier_comes_before_other_judges_and_programs_before_all(
    project: Project, version: RubricVersion
) -> None:
    version.verifier = factories.judge(project)
    version.save()
    short, steps = version.criteria.get(text=SHORT), version.criteria.get(text=STEPS)
    (response,) = answered(project, 1)
    bob = factories.rater(project)
    say(short, response, version.verifier.rater, 1)
    say(short, response, factories.judge(project).rater, 0)
    say(short, response, bob, 1)
    say(steps, response, version.verifier.rater, 0)
    say(steps, response, None, 1)
    say(steps, response, bob, 1)
    found = rubric_checks.checks(version)
    assert found[short.pk].confirmed == found[steps.pk].confirmed == 1


def test_sheet_says_what_the_verifier_scored(project: Project, version: RubricVersion) -> None:
    short, steps = version.criteria.get(text=SHORT), version.criteria.get(text=STEPS)
    one, other = answered(project, 2)
    bob = factories.rater(project)
    for response, value in ((one, 1), (other, 1)):
        say(short, response, bob, value)
        say(steps, response, bob, value)
    sheet = Sheet(
        criteria=np.array([short.pk, steps.pk]),
        prompts=np.array([one.prompt_id]),
        chosen=np.array([one.pk]),
        rejected=np.array([other.pk]),
        votes_for=np.array([1]),
        votes=np.array([1]),
        is_held=np.array([True]),
        scores=np.array([[[0.5, np.nan], [0.49, 0.9]]], dtype=np.float32),
    )
    found = rubric_checks.checks(version, sheet)
    assert (found[short.pk].confirmed, found[short.pk].compared) == (1, 2)
    assert (found[steps.pk].confirmed, found[steps.pk].compared) == (1, 1)
