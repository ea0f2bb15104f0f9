"""Pairs on a scale, ratings and checklists: what is read, shown again, refused and derived."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from annotator.forms.judgments import read_answers
from annotator.kinds.base import LABELS, Kind, Unfit, kind
from annotator.kinds.checklist import IMAGE_FAILURES, lines
from annotator.kinds.pairwise import scale
from annotator.kinds.verdict import Edge, Verdict
from annotator.models import Judgment, Preference, Project, ProjectSettings, Role, User
from annotator.services import judgments, queue, raters
from tests import factories

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
LINES = TEXTS.filter(lambda text: bool(text.strip()))
FIELDS = st.from_regex(
    r"(verdict|both_bad|why|active_ms|(rate|check)-[0-9]{1,2}-[A-K]|reason-[0-9])", fullmatch=True
)
VALUES = st.one_of(
    st.sampled_from(
        ["0", "1", "4", "9", "10", "-1", "²", "٣", "1", " 1", "01", "yes", "na", "tie"]
    ),
    st.sampled_from(["a1", "b3", "a9", "c1", "on", ""]),
    TEXTS,
)


@st.composite
def asked(draw: st.DrawFn, of: str) -> tuple[ProjectSettings, list[int]]:
    """Settings, and an order of as many responses as the kind takes."""
    of_kind = kind(of)
    low = draw(st.integers(0, 1))
    named = draw(st.lists(LINES, unique=True, max_size=8))
    cut = draw(st.integers(0, len(named)))
    options = ProjectSettings(
        steps=draw(st.sampled_from([3, 5, 7])),
        allow_tie=draw(st.booleans()),
        allow_both_bad=draw(st.booleans()),
        allow_not_applicable=draw(st.booleans()),
        rationale=draw(st.sampled_from(["off", "optional", "required"])),
        reasons=draw(st.lists(LINES, unique=True, max_size=12)),
        attributes=draw(st.lists(LINES, unique=True, min_size=1, max_size=5)),
        rating_low=low,
        rating_high=draw(st.integers(low + 1, 10)),
        criteria=named[:cut],
        failures=named[cut:],
    )
    slots = draw(st.integers(of_kind.fewest, min(of_kind.most, 5)))
    return options, draw(st.permutations(range(slots)))


def legal_answers(draw: st.DrawFn, of: str, options: ProjectSettings, slots: int) -> dict[str, str]:
    answers = {}
    if of == "pairwise":
        answers["verdict"] = draw(st.sampled_from([value for value, _ in scale(options)]))
        if draw(st.booleans()):
            answers["both_bad"] = "on"
    if of == "rating":
        values = [str(n) for n in range(options.rating_low, options.rating_high + 1)]
        fields = [f"rate-{at}" for at in range(len(options.attributes))]
    if of == "checklist":
        values = ["yes", "no"]
        fields = [f"check-{at}" for at, _ in enumerate(lines(options))]
    if of != "pairwise":
        values += ["na"] if options.allow_not_applicable else []
        for field in fields:
            for label in LABELS[:slots]:
                answers[f"{field}-{label}"] = draw(st.sampled_from(values))
    answers["why"] = "because" if options.rationale == "required" else draw(TEXTS)
    for at in range(len(options.reasons)):
        if draw(st.booleans()):
            answers[f"reason-{at}"] = "on"
    return answers


@pytest.mark.parametrize("of", ["pairwise", "rating", "checklist"])
@given(data=st.data())
def test_what_was_read_is_shown_again_in_any_order(of: str, data: st.DataObject) -> None:
    options, order = data.draw(asked(of))
    if of == "checklist" and not list(lines(options)):
        return
    of_kind = kind(of)
    given_answers = legal_answers(data.draw, of, options, len(order))
    verdict = of_kind.read(given_answers, options=options, shown_order=order)
    verdict.check(responses=len(order))
    shown = of_kind.show(verdict, options=options, shown_order=order)
    assert of_kind.read(shown, options=options, shown_order=order) == verdict
    if not (of == "pairwise" and not options.allow_both_bad):
        kept = {name: value for name, value in given_answers.items() if name != "why"}
        assert {name: value for name, value in shown.items() if name != "why"} == kept
    other = data.draw(st.permutations(order))
    again = of_kind.show(verdict, options=options, shown_order=other)
    assert of_kind.read(again, options=options, shown_order=other) == verdict
    of_kind.say(verdict, options=options, shown_order=other)
    assert of_kind.matches(verdict, verdict)
    check_edges(of_kind, verdict, options)
    form = of_kind.present(again, options=options, slots=len(order))
    assert not form.get("first_missing")


def check_edges(of_kind: Kind, verdict: Verdict, options: ProjectSettings) -> None:
    """Edges say what the ranks say, once per pair."""
    edges = of_kind.edges(verdict, options=options)
    assert len({(edge.a, edge.b) for edge in edges}) == len(edges)
    for edge in edges:
        one, other = verdict.ranks[edge.a], verdict.ranks[edge.b]
        assert edge.a < edge.b
        assert edge.outcome == (other > one) - (other < one)
        assert (edge.strength == 0) == (edge.outcome == 0)
        assert edge.strength <= 3


@pytest.mark.parametrize("of", ["pairwise", "rating", "checklist"])
@given(data=st.data())
def test_any_answers_are_a_legal_verdict_or_refused(of: str, data: st.DataObject) -> None:
    options, order = data.draw(asked(of))
    answers = read_answers(data.draw(st.dictionaries(FIELDS, VALUES, max_size=30)))
    of_kind = kind(of)
    of_kind.present(answers, options=options, slots=len(order))
    verdict = None
    with suppress(Unfit):
        verdict = of_kind.read(answers, options=options, shown_order=order)
    if verdict is not None:
        verdict.check(responses=len(order))


# Pairs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "ties", "values"),
    [
        (3, True, "a1 tie b1"),
        (3, False, "a1 b1"),
        (5, True, "a2 a1 tie b1 b2"),
        (7, True, "a3 a2 a1 tie b1 b2 b3"),
        (7, False, "a3 a2 a1 b1 b2 b3"),
    ],
)
def test_scale_runs_from_a_to_b(steps: int, ties: bool, values: str) -> None:
    options = ProjectSettings(steps=steps, allow_tie=ties)
    assert [value for value, _ in scale(options)] == values.split()
    keys = [s["key"] for s in kind("pairwise").present({}, options=options, slots=2)["steps"]]
    assert keys == list(range(1, len(keys) + 1))


@pytest.mark.parametrize(
    ("asks", "answers"),
    [
        ({}, {}),
        ({"steps": 3}, {"verdict": "a2"}),
        ({"steps": 5}, {"verdict": "b3"}),
        ({"allow_tie": False}, {"verdict": "tie"}),
        ({}, {"verdict": "a²"}),
        ({}, {"verdict": "A1"}),
        ({"rationale": "required"}, {"verdict": "a1", "why": "  "}),
    ],
)
def test_step_that_is_not_offered_is_refused(asks: dict, answers: dict) -> None:
    with pytest.raises(Unfit):
        kind("pairwise").read(answers, options=ProjectSettings(**asks), shown_order=[0, 1])


def test_seven_steps_reach_the_strength_of_three() -> None:
    options = ProjectSettings(steps=7)
    said = kind("pairwise").read({"verdict": "a3"}, options=options, shown_order=[1, 0])
    assert (said.ranks, said.strength) == ([2, 1], 3)
    assert kind("pairwise").say(said, options=options, shown_order=[1, 0]) == "A very much better"
    assert kind("pairwise").say(said, options=options, shown_order=[0, 1]) == "B very much better"
    assert kind("pairwise").edges(said, options=options) == [Edge(0, 1, -1, 3)]


def test_reasons_not_ticked_are_not_kept() -> None:
    options = ProjectSettings(reasons=["Wrong", "Padding", "Unsafe"])
    answers = {"verdict": "a1", "reason-0": "on", "reason-2": "on", "reason-7": "on"}
    said = kind("pairwise").read(answers, options=options, shown_order=[0, 1])
    assert said.reasons == ["Wrong", "Unsafe"]


# Rating -----------------------------------------------------------------------------------------


def rated(*columns: str, **settings: object) -> Verdict:
    """A verdict from one string per attribute, a character per answer; - does not apply."""
    options = ProjectSettings(attributes=[f"q{at}" for at in range(len(columns))], **settings)
    answers = {
        f"rate-{at}-{label}": "na" if value == "-" else value
        for at, column in enumerate(columns)
        for label, value in zip(LABELS, column, strict=False)
    }
    order = list(range(len(columns[0])))
    return kind("rating").read(answers, options=options, shown_order=order)


@pytest.mark.parametrize(
    ("columns", "ranks", "strength", "edges"),
    [
        (["40"], [1, 2], 3, [Edge(0, 1, 1, 3)]),
        (["12"], [2, 1], 1, [Edge(0, 1, -1, 1)]),
        (["33", "04"], [1, 1], 0, []),  # only the first attribute decides
        (["3-", "04"], [1, 0], 0, []),
        (["--"], [0, 0], 0, []),
        (["4"], [1], 0, []),
        (["420"], [1, 2, 3], 3, [Edge(0, 1, 1, 2), Edge(0, 2, 1, 3), Edge(1, 2, 1, 2)]),
        (["4-4"], [1, 0, 1], 0, []),
    ],
)
def test_first_attribute_decides(
    columns: list[str], ranks: list[int], strength: int, edges: list[Edge]
) -> None:
    said = rated(*columns)
    assert (said.ranks, said.strength) == (ranks, strength)
    assert kind("rating").edges(said, options=ProjectSettings()) == edges


@pytest.mark.parametrize("value", ["5", "-1", "²", "٣", "１", " 1", "01", "1.0", "", "yes"])
def test_rating_off_the_scale_is_refused_by_name(value: str) -> None:
    options = ProjectSettings(attributes=["clarity"])
    answers = {"rate-0-A": "3", "rate-0-B": value}
    with pytest.raises(Unfit, match="clarity of B"):
        kind("rating").read(answers, options=options, shown_order=[0, 1])
    form = kind("rating").present(answers, options=options, slots=2)
    assert form["first_missing"] == "rate-0-B"


def test_does_not_apply_is_refused_where_it_is_not_offered() -> None:
    with pytest.raises(Unfit, match="q0 of A"):
        rated("-3", allow_not_applicable=False)
    options = ProjectSettings(criteria=["it rhymes"], allow_not_applicable=False)
    with pytest.raises(Unfit, match="it rhymes"):
        kind("checklist").read({"check-0-A": "na"}, options=options, shown_order=[0])


def test_long_lists_of_what_is_missing_are_cut() -> None:
    options = ProjectSettings()
    with pytest.raises(Unfit, match=r"helpfulness of A, helpfulness of B, .+ and 7 more"):
        kind("rating").read({}, options=options, shown_order=[0, 1])


@pytest.mark.parametrize(
    ("low", "high", "keys"),
    [(0, 4, "01234-"), (1, 10, "1234567890-"), (0, 10, "0123456789t-"), (0, 1, "01-")],
)
def test_every_rating_has_a_key_of_its_own(low: int, high: int, keys: str) -> None:
    options = ProjectSettings(rating_low=low, rating_high=high)
    form = kind("rating").present({}, options=options, slots=2)
    cell = form["blocks"][0]["lines"][0]["cells"][0]
    assert "".join(choice["key"] for choice in cell["choices"]) == keys


def test_renamed_attribute_is_asked_for_again() -> None:
    said = rated("40", "31")
    now = ProjectSettings(attributes=["q0", "new"])
    shown = kind("rating").show(said, options=now, shown_order=[0, 1])
    assert shown == {"rate-0-A": "4", "rate-0-B": "0"}
    assert kind("rating").present(shown, options=now, slots=2)["first_missing"] == "rate-1-A"


# Checklist --------------------------------------------------------------------------------------


def test_failure_passes_with_a_no() -> None:
    options = ProjectSettings(criteria=["red", "round"], failures=["blurred"])
    answers = {"check-0-A": "yes", "check-1-A": "na", "check-2-A": "no"}
    answers |= {"check-0-B": "yes", "check-1-B": "no", "check-2-B": "yes"}
    said = kind("checklist").read(answers, options=options, shown_order=[1, 0])
    assert said.ratings == {"red": [1, 1], "round": [0, None], "blurred": [1, 0]}
    assert said.ranks == [2, 1]
    assert kind("checklist").edges(said, options=options) == [Edge(0, 1, -1, 2)]
    words = kind("checklist").say(said, options=options, shown_order=[1, 0])
    assert words == "passes A 100%, B 33%"


def test_nothing_that_applies_is_not_ranked() -> None:
    options = ProjectSettings(criteria=["red"])
    answers = {"check-0-A": "na", "check-0-B": "yes"}
    said = kind("checklist").read(answers, options=options, shown_order=[0, 1])
    assert (said.ranks, said.strength) == ([0, 1], 0)
    assert kind("checklist").edges(said, options=options) == []


def test_checklist_without_lines_says_so() -> None:
    with pytest.raises(Unfit, match="no criteria"):
        kind("checklist").read({}, options=ProjectSettings(), shown_order=[0, 1])


def test_failures_stand_apart_from_criteria() -> None:
    options = ProjectSettings(criteria=["red"], failures=list(IMAGE_FAILURES))
    blocks = kind("checklist").present({}, options=options, slots=2)["blocks"]
    assert [len(block["lines"]) for block in blocks] == [1, len(IMAGE_FAILURES)]
    assert [bool(block.get("is_failure")) for block in blocks] == [False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rating_low": 1, "rating_high": 1},
        {"criteria": ["red"], "failures": ["red"]},
        {"attributes": []},
        {"attributes": ["a", "a"]},
        {"criteria": [f"line {n}" for n in range(41)]},
        {"steps": 4},
    ],
)
def test_settings_that_contradict_themselves_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(reversed(wrong))):
        ProjectSettings(**wrong)


# Over HTTP --------------------------------------------------------------------------------------


def desk(of: str, **settings: object) -> tuple[Client, Project, User]:
    project = factories.project(settings=settings)
    factories.task_of(project, of, 2)
    factories.task_of(project, of, 2)
    person = factories.member(project)
    client = Client()
    client.force_login(person)
    return client, project, person


def lease(project: Project, person: User) -> queue.Lease:
    rater = raters.for_member(project=project, user=person)
    found = queue.claim_next(project=project, rater=rater)
    assert found is not None
    return found


@pytest.mark.django_db
def test_verdict_in_the_database_is_what_was_sent() -> None:
    client, project, person = desk("rating", attributes=["clarity", "care"])
    held = lease(project, person)
    sent = {"rate-0-A": "4", "rate-0-B": "1", "rate-1-A": "na", "rate-1-B": "2"}
    url = reverse("answer", args=[project.slug, held.assignment_id])
    assert client.post(url, sent).status_code == 302
    judgment = Judgment.objects.get()
    a, b = judgment.shown_order
    assert judgment.ratings["clarity"][a] == 4
    assert judgment.ratings["clarity"][b] == 1
    assert judgment.ratings["care"][a] is None
    edge = Preference.objects.get()
    better = edge.a_id if edge.outcome == 1 else edge.b_id
    assert better == judgment.task.response_ids[a]
    rater = raters.for_member(project=project, user=person)
    reopened = judgments.undo(rater=rater, options=project.options)
    assert reopened.draft == sent
    assert not Preference.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("of", "answers"),
    [
        ("rating", {"rate-0-A": "4", "rate-0-B": "٣"}),
        ("rating", {"rate-0-A": "4\0", "rate-0-B": "9" * 5000}),
        ("checklist", {"check-0-A": "yes", "check-0-B": "maybe"}),
        ("pairwise", {"verdict": "a3"}),
    ],
)
def test_hostile_answers_are_refused_and_come_back(of: str, answers: dict) -> None:
    client, project, person = desk(of, attributes=["clarity"], criteria=["red"])
    held = lease(project, person)
    url = reverse("answer", args=[project.slug, held.assignment_id])
    for headers in ({}, {"HX-Request": "true"}):
        response = client.post(url, answers, headers=headers)
        assert response.status_code == 422
        page = response.content.decode()
        assert "Not saved yet" in page
        if of != "pairwise":
            assert page.count('aria-invalid="true"') == 1
            first = re.search(r"<[^>]* autofocus", page)
            assert first is not None
            assert f'name="{list(answers)[1]}"' in first.group()
    assert not Judgment.objects.exists()


# Settings ---------------------------------------------------------------------------------------


def settings_form(client: Client, project: Project) -> dict[str, object]:
    page = client.get(reverse("settings", args=[project.slug]))
    forms = [page.context["texts"], page.context["options"]]
    return {
        field.name: value
        for form in forms
        for field in form
        if (value := field.value()) not in (None, False) or (value == 0 and value is not False)
    }


@pytest.fixture
def owned(db: None) -> tuple[Client, Project]:
    project = factories.project(settings={"kind": "checklist", "failures": ["My own failure"]})
    client = Client()
    client.force_login(factories.member(project, Role.OWNER))
    return client, project


def test_refused_settings_are_listed_with_links(owned: tuple[Client, Project]) -> None:
    client, project = owned
    sent = settings_form(client, project) | {
        "name": "",
        "criteria": "My own failure",
        "rating_low": "1",
        "rating_high": "1",
    }
    response = client.post(reverse("settings", args=[project.slug]), sent)
    page = response.content.decode()
    assert response.status_code == 422
    summary = page[page.index('role="alert"') : page.index("</section>")]
    assert 'href="#id_name"' in summary
    sent["name"] = "Named"
    page = client.post(reverse("settings", args=[project.slug]), sent).content.decode()
    summary = page[page.index('role="alert"') : page.index("</section>")]
    assert 'href="#id_failures"' in summary
    assert 'href="#id_rating_high"' in summary
    assert '<details class="group" id="rating" open>' in page, "a refused field is never hidden"
    project.refresh_from_db()
    assert project.options.criteria == []


def test_image_failures_fill_the_box_and_save_nothing(owned: tuple[Client, Project]) -> None:
    client, project = owned
    url = reverse("settings", args=[project.slug])
    sent = settings_form(client, project) | {"criteria": "typed, not saved", "fill_failures": "1"}
    response = client.post(url, sent)
    assert response.status_code == 200
    filled = response.context["options"]["failures"].value().splitlines()
    assert filled == ["My own failure", *IMAGE_FAILURES]
    assert response.context["options"]["criteria"].value() == "typed, not saved"
    project.refresh_from_db()
    assert project.options.failures == ["My own failure"]
    del sent["fill_failures"]
    assert client.post(url, sent | {"failures": "\r\n".join(filled)}).status_code == 302
    project.refresh_from_db()
    assert project.options.failures == filled


@pytest.mark.parametrize(
    ("of", "is_open"),
    [
        ("pairwise", {"scale"}),
        ("ranking", {"scale"}),
        ("rating", {"rating"}),
        ("best-worst", set()),
        ("checklist", {"checklist"}),
    ],
)
def test_groups_of_other_kinds_are_closed(
    owned: tuple[Client, Project], of: str, is_open: set[str]
) -> None:
    client, project = owned
    project.set_options(project.options.model_copy(update={"kind": of}))
    project.save()
    options = client.get(reverse("settings", args=[project.slug])).context["options"]
    groups = {group.key: group for group in options.groups}
    assert {key for key in ("scale", "rating", "checklist") if groups[key].is_open} == is_open
    shown = [field.name for group in groups.values() for field in group.fields]
    assert sorted([*shown, *(f.name for f in options.split_fields)]) == sorted(options.fields)


def test_settings_say_how_many_verdicts_stand(owned: tuple[Client, Project]) -> None:
    client, project = owned
    url = reverse("settings", args=[project.slug])
    assert "keeps the lines" not in client.get(url).content.decode()
    by = factories.rater(project)
    for _ in range(2):
        factories.judgment(by, factories.pairwise_task(project))
    assert "2 verdicts of people stand in this project" in client.get(url).content.decode()


@pytest.mark.django_db
def test_new_project_is_of_the_chosen_kind() -> None:
    client = Client()
    client.force_login(factories.user(may_create_projects=True))
    url = reverse("project_new")
    data = {"name": "Images", "modality": "image", "overlap": "2", "kind": "rating"}
    assert client.post(url, data).headers["Location"] == reverse("overview", args=["images"])
    assert Project.objects.get().options.kind == "rating"
    data |= {"name": "Checks", "kind": "checklist"}
    assert client.post(url, data).headers["Location"] == reverse("settings", args=["checks"])
    assert client.post(url, data | {"name": "Odd", "kind": "telepathy"}).status_code == 422
    assert Project.objects.count() == 2
