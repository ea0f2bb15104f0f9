"""Rankings and ratings of a project as a training run reads them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from django.test import Client
from django.utils import timezone

from annotator.errors import Invalid
from annotator.jobs.training import train
from annotator.kinds.rating import rated
from annotator.kinds.verdict import Verdict, widest
from annotator.management.commands.train_reward_model import option_models
from annotator.models import Judgment, Preference, Project, Rater, Role, Run, RunState, Task
from annotator.services import judgments, runs, training
from annotator.services.training_data import collect
from models.gateway import load_reward_model
from models.objectives import OBJECTIVES, RATED, READS_LISTS
from tests import factories
from tests.annotator import planted

pytestmark = pytest.mark.django_db(transaction=True)

ATTRIBUTES = ["helpfulness", "verbosity"]


@pytest.fixture
def project() -> Project:
    """Enough pairs to train on, and two attributes to rate."""
    made = factories.project(settings={"attributes": ATTRIBUTES})
    return planted.preferences(40, in_project=made)


def say(task: Task, by: Rater, verdict: Verdict, **fields: Any) -> Judgment:
    """A verdict in force with its edges."""
    judgment = Judgment.objects.create(
        project=task.project, task=task, rater=by, ranks=verdict.ranks, strength=verdict.strength,
        ratings=verdict.ratings, submitted_at=timezone.now(),
        revision=1 + Judgment.objects.filter(task=task, rater=by).count(), **fields,
    )  # fmt: skip
    judgments.write_preferences(judgment=judgment, task=task, options=task.project.options)
    Task.objects.filter(pk=task.pk).update(judged=task.judged + 1)
    return judgment


def rank(task: Task, by: Rater, ranks: list[int], **fields: Any) -> Judgment:
    return say(task, by, Verdict(ranks=ranks, strength=widest(ranks)), **fields)


def rate(task: Task, by: Rater, **ratings: Any) -> Judgment:
    kind = ratings.pop("kind", Judgment.Kind.VOTE)
    return say(task, by, rated(ratings), kind=kind)


def collected(project: Project, objective: str, **options: Any) -> tuple[dict[str, Any], Run]:
    run = training.start(
        project=project, objective=objective, backbone="hashing", options=options, by=None
    )
    work = runs.begin(run_id=run.pk, worker="here")
    return collect(work, training.stored_config(run)), run


def lines(run: Run, name: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (run.folder / name).read_bytes().splitlines()]


def test_rankings_come_as_lists_and_not_as_pairs_too(project: Project) -> None:
    one, two = factories.rater(project), factories.rater(project)
    twice = factories.task_of(project, "ranking", texts=["first", "second", "third", "fourth"])
    rank(twice, one, [1, 2, 2, 0])
    rank(twice, two, [2, 1, 3, 4])
    once = factories.task_of(project, "ranking", texts=["a", "b", "c"])
    rank(once, one, [3, 2, 1])
    rank(factories.task_of(project, "ranking", texts=["p", "q", "r"]), one, [0, 0, 0])
    held_out = factories.task_of(
        project, "ranking", 3, of=factories.prompt(project, split="validation")
    )
    rank(held_out, one, [1, 2, 3])

    found, run = collected(project, "plackett-luce")
    assert found["rankings"] == 3
    rows = {tuple(row["answers"]): row for row in lines(run, "lists-train.jsonl")}
    assert {answers: (row["ranks"], row["weight"]) for answers, row in rows.items()} == {
        ("first", "second", "third"): ([1, 2, 2], 0.5),
        ("first", "second", "third", "fourth"): ([2, 1, 3, 4], 0.5),
        ("a", "b", "c"): ([3, 2, 1], 1.0),
    }
    row = rows[("a", "b", "c")]
    assert row["prompt"] == once.prompt.messages
    assert Preference.objects.get(pk=row["pair_id"]).task_id == once.pk
    # The pairs of rankings are not learned a second time, but the model is measured on them.
    assert found["splits"]["train"]["decided"] == len(lines(run, "pairs-train.jsonl")) == 32
    assert found["splits"]["validation"]["decided"] == 4 + 3
    _, plain = collected(project, "bradley-terry")
    assert len(lines(plain, "pairs-train.jsonl")) > 32
    assert not (plain.folder / "lists-train.jsonl").exists()


def test_rankings_that_do_not_count_are_not_learned(project: Project) -> None:
    people = [factories.rater(project) for _ in range(3)]
    counted = factories.task_of(project, "ranking", texts=["a", "b", "c"])
    rank(counted, people[0], [1, 2, 3])
    gold = factories.task_of(project, "ranking", texts=["d", "e", "f"], is_gold=True)
    rank(gold, people[0], [1, 2, 3])
    rank(counted, people[1], [3, 2, 1])
    Rater.objects.filter(pk=people[1].pk).update(is_excluded=True)
    settled = factories.task_of(project, "ranking", texts=["g", "h", "i"])
    rank(settled, people[0], [1, 2, 3])
    Preference.objects.filter(task=settled).update(is_overruled=True)
    Task.objects.filter(pk=settled.pk).update(is_settled=True)
    rank(settled, people[2], [3, 1, 2], kind=Judgment.Kind.ADJUDICATION, is_counted=False)
    judged = factories.task_of(project, "ranking", texts=["j", "k", "l"])
    rank(judged, factories.judge(project).rater, [1, 2, 3])
    Preference.objects.filter(task=judged).update(is_held=True)

    _, run = collected(project, "plackett-luce")
    assert [(row["answers"], row["ranks"], row["weight"]) for row in
            lines(run, "lists-train.jsonl")] == [
        (["a", "b", "c"], [1, 2, 3], 1.0),
        (["g", "h", "i"], [3, 1, 2], 1.0),
    ]  # fmt: skip


def test_ratings_are_averaged_over_people(project: Project) -> None:
    people = [factories.rater(project) for _ in range(4)]
    task = factories.task_of(project, "rating", texts=["good", "bad"])
    rate(task, people[0], helpfulness=[4, 1], verbosity=[2, None])
    rate(task, people[1], helpfulness=[3, 1], verbosity=[1, None])
    rate(task, people[2], helpfulness=[0, 4])
    Rater.objects.filter(pk=people[2].pk).update(is_excluded=True)
    rate(task, factories.judge(project).rater, helpfulness=[0, 4], wit=[1, 2])

    found, run = collected(project, "regression", score="helpfulness")
    assert found["attributes"] == ATTRIBUTES
    assert orjson.loads((run.folder / "attributes.json").read_bytes()) == ATTRIBUTES
    rows = {row["chosen"]: row for row in lines(run, "pairs-train.jsonl")}
    assert rows["good"]["chosen_ratings"] == {"helpfulness": 3.5, "verbosity": 1.5}
    assert rows["good"]["rejected_ratings"] == {"helpfulness": 1.0}
    assert {row["chosen_ratings"] for text, row in rows.items() if text != "good"} == {None}
    _, plain = collected(project, "bradley-terry")
    assert not (plain.folder / "attributes.json").exists()
    assert not any(row["chosen_ratings"] for row in lines(plain, "pairs-train.jsonl"))


def test_ratings_that_do_not_count_are_not_learned(project: Project) -> None:
    one, reviewer = factories.rater(project), factories.rater(project)
    settled = factories.task_of(project, "rating", texts=["good", "bad"])
    rate(settled, one, helpfulness=[1, 4])
    Preference.objects.filter(task=settled).update(is_overruled=True)
    Task.objects.filter(pk=settled.pk).update(is_settled=True)
    rate(settled, reviewer, kind=Judgment.Kind.ADJUDICATION, helpfulness=[3, 2])
    gold = factories.task_of(project, "rating", texts=["x", "y"], is_gold=True)
    rate(gold, one, helpfulness=[4, 1])
    other = factories.task_of(project, "rating", 2, of=factories.prompt(project, split="test"))
    rate(other, one, verbosity=[4, 1])

    found, run = collected(project, "helpsteer2")
    assert found["attributes"] == ["helpfulness"], "verbosity is rated in the test split only"
    rated_rows = [row for row in lines(run, "pairs-train.jsonl") if row["chosen_ratings"]]
    assert [(row["chosen"], row["chosen_ratings"]) for row in rated_rows] == [
        ("good", {"helpfulness": 3.0})
    ]


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("plackett-luce", "no rankings on prompts of the training split"),
        ("regression", "no ratings on prompts of the training split"),
        ("helpsteer2", "no ratings on prompts of the training split"),
    ],
)
def test_what_nobody_gave_is_refused(project: Project, objective: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as refused:
        collected(project, objective)
    assert refused.value.advice
    assert not Run.objects.exists()


def test_rankings_taken_back_before_the_run_are_refused_by_it(project: Project) -> None:
    rank(factories.task_of(project, "ranking", 3), factories.rater(project), [1, 2, 3])
    run = training.start(
        project=project, objective="plackett-luce", backbone="hashing", options={}, by=None
    )
    Preference.objects.filter(task__kind="ranking").delete()
    train(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "no rankings" in run.error


@pytest.mark.neural
def test_a_recipe_is_trained_from_start_to_scores(project: Project) -> None:
    by = factories.rater(project)
    for pair in Task.objects.filter(prompt__split="train")[:20]:
        task = factories.task_of(project, "rating", texts=["clear exact", "vague rude"],
                                 of=pair.prompt)  # fmt: skip
        rate(task, by, helpfulness=[4, 1], verbosity=[2, 2])
    run = training.start(
        project=project, objective="helpsteer2", backbone="hashing", by=None,
        options={"score": "helpfulness", "epochs": 4},
    )  # fmt: skip
    train(run_id=run.pk)
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.DONE, "")
    scores = load_reward_model(run.folder / "artifact").score(
        [([{"role": "user", "content": "?"}], text) for text in ("clear exact", "vague rude")]
    )
    assert scores[0] > scores[1]


@pytest.mark.neural
def test_an_attribute_that_is_not_there_ends_the_run_with_those_that_are(project: Project) -> None:
    task = factories.task_of(project, "rating", texts=["good", "bad"])
    rate(task, factories.rater(project), helpfulness=[4, 1])
    run = training.start(
        project=project, objective="regression", backbone="hashing", by=None,
        options={"score": "wit"},
    )  # fmt: skip
    train(run_id=run.pk)
    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "Nothing is rated on wit" in run.error
    assert "helpfulness" in run.error


@pytest.mark.neural
def test_the_tables_say_of_objectives_what_their_code_says() -> None:
    for key, method in OBJECTIVES.items():
        made = method.load()
        assert (made.reads == "lists") == (key in READS_LISTS), key
        assert made.rated == (key in RATED), key


def test_page_and_command_ask_for_the_options_of_every_objective(project: Project) -> None:
    client = Client()
    client.force_login(factories.member(project, Role.OWNER))
    for key, method in OBJECTIVES.items():
        page = client.get(f"/p/{project.slug}/reward-models/train/?objective={key}")
        shown = page.content.decode()
        assert method.label in shown
        fields = set(method.load_options().model_fields)
        assert [name for name in fields if f'name="option_{name}"' not in shown] == [], key
        named = [set(model.model_fields) for model in option_models(key, "hashing")]
        assert fields <= set.union(*named), key


@pytest.mark.parametrize(
    ("key", "option", "value", "said"),
    [
        ("gpm", "dim", "3", "multiple of 2"),
        ("regression", "score", "a=b", "not a number"),
        ("regression", "", "", "no ratings"),
        ("plackett-luce", "", "", "no rankings"),
    ],
)
def test_page_says_why_an_objective_cannot_be_trained(
    project: Project, key: str, option: str, value: str, said: str
) -> None:
    client = Client()
    client.force_login(factories.member(project, Role.OWNER))
    response = client.post(
        f"/p/{project.slug}/reward-models/train/",
        {"objective": key, "backbone": "hashing", "shown": f"{key} hashing"}
        | ({f"option_{option}": value} if option else {}),
    )
    assert response.status_code in (409, 422)
    assert said in response.content.decode()
    assert not Run.objects.exists()
