"""Starting an induction from the browser, what it is said to take, and the page of its run."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from annotator import formats
from annotator.jobs.induction import induce
from annotator.models import (
    Judge,
    Project,
    Prompt,
    Role,
    Rubric,
    RubricMeasurement,
    RubricVersion,
    Run,
    RunState,
)
from annotator.queries import run_commands
from annotator.services import induction, induction_plan, rubrics, runs
from rubrics.generators import GENERATORS, costs
from rubrics.llm.budget import Budget
from tests import factories

pytestmark = pytest.mark.django_db


def owner(project: Project) -> Client:
    client = Client()
    client.force_login(factories.member(project, Role.OWNER))
    return client


def judged(train: int = 12, test: int = 4, *, why: str = "", **fields: Any) -> Project:
    """People prefer the list."""
    project = factories.project(**fields)
    rater = factories.rater(project)
    for number in range(train + test):
        texts = (f"Steps of {number}:\n\n- one\n- two", f"First one, and then two, of {number}.")
        task = factories.pairwise_task(project, texts=texts)
        if number >= train:
            Prompt.objects.filter(pk=task.prompt_id).update(split="test")
        factories.judgment(rater, task, "a1", rationale=why)
    return project


def asking(project: Project, **fields: Any) -> Judge:
    endpoint = factories.endpoint(
        project, has_images=fields.pop("has_images", False), prices=fields.pop("prices", {})
    )
    options = {"models": ["sim"]}
    return factories.judge(project, endpoint=endpoint, options=options, model="sim", **fields)


def page(project: Project, client: Client, query: str = "", **headers: str) -> Any:
    return client.get(reverse("rubric_induce", args=[project.slug]) + query, headers=headers)


def send(project: Project, client: Client, **values: Any) -> Any:
    given = {"shown": values.get("method", ""), "raters": "all"} | values
    return client.post(reverse("rubric_induce", args=[project.slug]), given)


def checked(html: str) -> str:
    found = re.search(r'name="method" value="([^"]+)" checked', html)
    return found.group(1) if found else ""


def test_project_without_preferences_is_told_what_to_do() -> None:
    project = factories.project()
    html = page(project, owner(project)).content.decode()
    assert "There is nothing to learn from yet" in html
    assert reverse("import_new", args=[project.slug]) in html
    assert 'id="induce"' not in html


def test_without_a_judge_the_method_that_asks_nobody_is_preselected() -> None:
    project = judged()
    html = page(project, owner(project)).content.decode()
    assert checked(html) == "program"
    assert "no judge can be asked" in html
    assert "12 pairs of 12 prompts" in html
    assert "4 pairs of 4 prompts" in html
    assert 'name="judge"' not in html


def test_with_a_judge_a_method_that_asks_it_is_preselected_and_priced() -> None:
    project = judged()
    judge = asking(project, prices={"sim": [1, 2]})
    html = page(project, owner(project)).content.decode()
    assert checked(html) == "autorule"
    assert f'<option value="{judge.pk}"' in html
    assert "no price is set" not in html
    assert "asks a model: about" in html


def test_address_prefills_the_form() -> None:
    project = judged()
    asking(project)
    wanted = asking(project)
    rubric = rubrics.create(project=project, name="Clear & kind", by=None)
    query = f"?method=arr&rubric={rubric.pk}&judge={wanted.pk}"
    html = page(project, owner(project), query).content.decode()
    assert checked(html) == "arr"
    assert 'value="Clear &amp; kind"' in html
    assert f'<option value="{wanted.pk}" selected' in html
    assert "option_held_out" not in html, "the run measures every draft itself"
    strange = page(project, owner(project), "?method=no&rubric=9x&judge=0")
    assert strange.status_code == 200


@pytest.mark.parametrize("method", sorted(GENERATORS))
def test_every_method_starts_as_its_form_stands(method: str) -> None:
    project = judged()
    judge, client = asking(project), owner(project)
    # As the page asks once a method is chosen: with the judge that stands beside it.
    html = page(project, client, f"?method={method}&judge={judge.pk}").content.decode()
    values: dict[str, Any] = {}
    for tag in re.findall(r"<input[^>]+>", html[html.index('id="options"') :]):
        name, value = re.search(r'name="([^"]+)"', tag), re.search(r'value="([^"]*)"', tag)
        if name and ('type="checkbox"' not in tag or " checked" in tag):
            values[name.group(1)] = value.group(1) if value else "on" * ("checkbox" in tag)
    for name, body in re.findall(r'<select name="([^"]+)".*?>(.*?)</select>', html, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', body)
        values[name] = chosen.group(1) if chosen else re.findall(r'value="([^"]*)"', body)[0]
    assert values["shown"] == method
    response = send(project, client, **values | {"method": method, "name": "Theirs"})
    run = Run.objects.get()
    assert response.url == reverse("run", args=[project.slug, run.pk])
    assert run.config["method"] == method
    assert run.config["judge"] == (judge.pk if induction.needs_model(method) else None)
    usual = GENERATORS[method].load_options()().model_dump(mode="json")
    forced = induction.ALREADY.get(method, {})
    differs = {name for name, value in run.config["options"].items() if value != usual[name]}
    assert differs <= {*forced, "pairs"}


def test_method_chosen_without_a_script_starts_with_its_defaults() -> None:
    project = judged()
    asking(project)
    client = owner(project)
    response = send(project, client, method="program", shown="autorule", pairs="9", option_top="0")
    assert response.status_code == 302
    run = Run.objects.get()
    assert (run.config["pairs"], run.config["options"]["top"]) == (None, 20)


def test_pairs_of_the_run_are_those_the_method_learns_from() -> None:
    project = judged()
    judge = asking(project)
    values = {"method": "arr", "judge": judge.pk, "pairs": "5000"}
    send(project, owner(project), **values)
    run = Run.objects.get()
    assert run.config["pairs"] == 5000
    assert run.config["options"]["pairs"] == 2000, "the most that its options allow"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"method": "autorule"}, "Choose the judge whose model is asked."),
        ({"method": "autorule", "judge": "999999"}, "This judge cannot be asked."),
        ({"method": "autorule", "judge": "OWN", "calls": "0"}, "greater than or equal to 1"),
        ({"method": "autorule", "judge": "OWN", "money": "0"}, "greater than or equal to"),
        ({"method": "autorule", "judge": "OWN", "money": "nan"}, "Enter a number."),
        ({"method": "program", "pairs": "-4"}, "greater than or equal to 1"),
        ({"method": "program", "raters": "nobody"}, "Select a valid choice"),
        ({"method": "program", "option_top": "1000"}, "less than or equal to 100"),
        ({"method": "program", "option_leave_out": "no-such"}, "no group or program"),
        ({"method": "program", "name": "n" * 81}, "at most 80 characters"),
        ({"method": "program", "name": "a\0b"}, "Null characters are not allowed."),
        ({"method": "arr", "judge": "OWN", "option_others": "1", "option_others_needed": "2"},
         "no more than others"),
    ],
    ids=["no-judge", "other-judge", "calls", "money", "nan", "pairs", "raters", "option", "group",
         "name", "null", "together"],
)  # fmt: skip
def test_mistakes_are_said_in_place(values: dict[str, str], says: str) -> None:
    project = judged()
    judge = asking(project)
    given = {name: str(judge.pk) if value == "OWN" else value for name, value in values.items()}
    response = send(project, owner(project), **given)
    assert response.status_code == 422
    assert says in response.content.decode()
    assert "Not started" in response.content.decode()
    assert not Run.objects.exists()


def test_no_pairs_of_the_raters_chosen_is_refused_in_place() -> None:
    project = judged()
    response = send(project, owner(project), method="program", raters="imported")
    assert response.status_code == 422
    assert "No pair outside the test split has a majority" in response.content.decode()


def test_only_test_pairs_are_nothing_to_learn_from() -> None:
    project = judged(train=0, test=3)
    response = send(project, owner(project), method="program")
    assert response.status_code == 422
    assert "outside the test split" in response.content.decode()


def test_draft_that_somebody_works_on_is_refused_before_anything_is_spent() -> None:
    project = judged()
    rubric = rubrics.create(project=project, name="Mine", by=None)
    rubrics.add(version=rubrics.draft(rubric=rubric, by=None), by=None, text="It is short.")
    response = send(project, owner(project), method="program", name="Mine")
    assert response.status_code == 422
    assert "has a draft that somebody works on" in response.content.decode()


def test_archived_judges_and_endpoints_are_not_offered() -> None:
    project = judged()
    gone = asking(project)
    Judge.objects.filter(pk=gone.pk).update(archived_at="2026-01-01T00:00Z")
    away = asking(project)
    assert away.endpoint is not None
    away.endpoint.archived_at = "2026-01-01T00:00Z"
    away.endpoint.save()
    other = asking(factories.project())
    assert induction_plan.usable_judges(project) == []
    response = send(project, owner(project), method="autorule", judge=str(other.pk))
    assert response.status_code == 422


def test_images_need_an_endpoint_that_reads_them() -> None:
    project = judged(modality=Project.Modality.IMAGE)
    client, blind = owner(project), asking(project)
    html = page(project, client).content.decode()
    assert checked(html) == "autorubric-t2i"
    assert "No judge can be asked about images" in html
    response = send(project, client, method="program")
    assert response.status_code == 422
    assert "Programs read text" in response.content.decode()
    with pytest.raises(induction_plan.Invalid, match="reads none"):
        induction_plan.check(
            project=project, method="arr", judge=blind, raters="all", budget=Budget()
        )
    sees = asking(project, has_images=True)
    assert send(project, client, method="arr", judge=str(sees.pk)).status_code == 302


def test_estimate_follows_the_form_and_its_budget() -> None:
    project = judged()
    judge = asking(project, prices={"*": [1.0, 2.0]})
    client = owner(project)
    query = f"?method=autorule&shown=autorule&raters=all&judge={judge.pk}&pairs=8"
    target = {"HX-Request": "true", "HX-Target": "estimate"}
    html = page(project, client, query, **target).content.decode()
    assert html.lstrip().startswith('<div class="stack" id="estimate">')
    assert "<b>8 pairs</b>" in html
    assert "end it early" not in html
    cut = page(project, client, query + "&calls=15", **target).content.decode()
    assert "The budget would end it early" in cut
    assert "not reached" in cut
    most = int(re.findall(r"All calls</th>.*?>([\d,]+)</td></tr>", html)[0].replace(",", ""))
    nearly = page(project, client, f"{query}&calls={most - 1}", **target).content.decode()
    assert "The budget may end it early" in nearly
    wrong = page(project, client, query + "&calls=0", **target).content.decode()
    assert "Correct what is filled in" in wrong


def test_options_are_shown_for_the_method_just_chosen() -> None:
    project = judged()
    asking(project)
    target = {"HX-Request": "true", "HX-Target": "options"}
    html = page(project, owner(project), "?method=rlbff", **target).content.decode()
    assert 'name="option_least_raters"' in html
    assert "<html" not in html


def plan_of(project: Project, judge: Judge, **values: Any) -> induction_plan.Plan:
    given = {"raters": "all", "pairs": None, "budget": Budget(), "method": "autorule"} | values
    options = GENERATORS[given["method"]].load_options()()
    return induction_plan.plan(project=project, judge=judge, options=options, **given)


def test_plan_ends_where_its_budget_does() -> None:
    project = judged()
    judge = asking(project, prices={"sim": [10.0, 10.0]})
    plan = plan_of(project, judge)
    whole = plan.most
    assert [stage.share for stage in whole.stages] == [1.0] * len(whole.stages)
    assert whole.cost == pytest.approx(10 * whole.tokens / 1e6)
    assert plan.typical.calls < whole.calls
    half = plan_of(project, judge, budget=Budget(calls=whole.stages[0].calls // 2)).most
    assert [stage.share for stage in half.stages] == [0.5] + [0.0] * (len(half.stages) - 1)
    assert plan_of(project, judge, budget=Budget(money=whole.cost)).most.cut_at is None
    less = plan_of(project, judge, budget=Budget(money=whole.cost * 0.99)).most
    assert less.cut_at == less.stages[-1]
    assert 0 < less.stages[-1].share < 1


def test_calls_are_as_measured_of_each_method() -> None:
    """docs/methods.md has the measured figures: 38 and 15 a pair of ARR, 7,504 of AutoRubric."""
    arr = GENERATORS["arr"].load_options()
    assert costs.per_pair("arr", arr(held_out=0)) == pytest.approx(38, rel=0.05)
    assert costs.per_pair("arr", arr(held_out=0, criteria=1)) == pytest.approx(15, rel=0.2)
    assert costs.per_pair("arr", arr(held_out=0, mode="zero-shot")) == 1
    learn = costs.Given(pairs=120, held=0)
    options = GENERATORS["autorubric-t2i"].load_options()(most_candidates=23)
    rows = costs.stages("autorubric-t2i", options, learn)
    assert sum(row.calls for row in rows) == pytest.approx(7504, rel=0.15)
    assert costs.stages("program", GENERATORS["program"].load_options()(), learn) == []


def test_run_page_leads_to_the_draft_and_says_what_it_is_worth() -> None:
    project = judged(36, 12)
    client = owner(project)
    send(project, client, method="program", name="Lists", option_top="5", option_bootstraps="0")
    run = Run.objects.get()
    induce(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.DONE, run.error
    version = RubricVersion.objects.get()
    html = client.get(reverse("run", args=[project.slug, run.pk])).content.decode()
    address = reverse("rubric_version", args=[project.slug, version.rubric_id, version.number])
    assert address in html
    assert "Decide on its criteria" in html
    assert "Longer answer wins" in html
    assert "to decide on" in html
    command = run_commands.command(run)
    assert command.startswith(f"python manage.py induce_rubric {project.slug} --method program")
    assert "--name Lists" in command
    assert "--option top=5" in command
    assert "seed" not in command, "what is as usual is not said"
    assert "--option top=5" in html
    listed = client.get(reverse("runs", args=[project.slug])).content.decode()
    assert "right on" in listed


def test_run_page_says_that_the_budget_ended_it_and_what_was_kept() -> None:
    project = judged()
    judge = asking(project)
    values = {"options": {}, "judge": judge, "raters": "all", "pairs": 4, "name": "Few"}
    run = induction_plan.start(
        project=project, method="autorule", budget=Budget(calls=3), by=None, **values
    )
    pen = runs.begin(run_id=run.pk, worker="w")
    rubric = rubrics.create(project=project, name="Few", by=None)
    version = rubrics.draft(rubric=rubric, by=None)
    rubrics.add(version=version, by=None, text="It says why.")
    figures = {"dropped": {"names-answer": 3}, "stopped": "budget"}
    RubricVersion.objects.filter(pk=version.pk).update(run=run, figures=figures)
    pen.count({"calls": 3, "cached": 1, "tokens_in": 900, "tokens_out": 100, "cost": 0.25,
               "retries": {}, "errors": {"timeout": 2}})  # fmt: skip
    pen.finish({"stopped": "budget", "criteria": [{"text": "It says why."}], "held_out": {
        "accuracy": None, "n": 0, "baselines": {}, "reason": "The budget was spent."}})  # fmt: skip
    html = owner(project).get(reverse("run", args=[project.slug, run.pk])).content.decode()
    assert "Its budget is spent" in html
    assert "1 criterion" in html
    assert "Not measured: The budget was spent." in html
    assert "Names answer" in html
    assert "Calls paid" in html
    assert "2 calls failed" in html
    assert f"--judge {judge.name}@v1" in html
    assert "--calls 3" in html


def test_canceled_run_says_what_is_kept() -> None:
    project = judged()
    client = owner(project)
    send(project, client, method="program")
    run = Run.objects.get()
    client.post(reverse("run_cancel", args=[project.slug, run.pk]))
    html = client.get(reverse("run", args=[project.slug, run.pk])).content.decode()
    assert "Canceling keeps every reply that was paid for" in html
    assert "no draft was written" in html
    assert not Rubric.objects.exists()


def test_page_of_a_measurement_tells_the_positional_gaps() -> None:
    project = judged()
    rubric = rubrics.create(project=project, name="Clear", by=None)
    version = rubrics.draft(rubric=rubric, by=None)
    rubrics.add(version=version, by=None, text="It says why.")
    run = runs.start(project=project, kind=Run.Kind.MEASURE, title="Measure", config={}, by=None)
    RubricMeasurement.objects.create(version=version, run=run, sheet=b"")
    right = {"accuracy": 0.75, "interval": [0.5, 0.9], "n": 40, "ties": 1}
    gap = {"gap": {"value": 0.125, "low": -0.05, "high": 0.3}}
    beside = {
        "judge": right | {"accuracy": 0.6},
        "reward_model": {"accuracy": None, "interval": None, "n": 0, "reason": "None is trained."},
        "position": {"judge": gap, "judge_with_rubric": None},
    }
    pen = runs.begin(run_id=run.pk, worker="w")
    pen.finish({"held_out": right | {"baselines": beside}})
    html = owner(project).get(reverse("run", args=[project.slug, run.pk])).content.decode()
    assert reverse("rubric_version", args=[project.slug, rubric.pk, 1]) in html
    assert "None is trained." in html
    assert "The judge’s positional gap" in html
    assert f"+12.5 <small>points {formats.interval(-0.05, 0.3)}" in html
    assert "The same with the rubric" not in html
    assert f"75.0 <small>{formats.interval(0.5, 0.9)}" in html
