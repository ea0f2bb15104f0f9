"""Exports: what goes in, what comes out, what is promised about every row."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from annotator.errors import Invalid
from annotator.exporters.recipe import REASONS, SPLITS
from annotator.importers import transcripts
from annotator.jobs import exports as jobs
from annotator.models import (
    AuditEvent,
    DatasetVersion,
    Preference,
    Project,
    Rater,
    Run,
    RunState,
)
from annotator.services import deliveries, exports, runs
from tests import factories
from tests.annotator.ballots import judged_pair, raters, task_of, vote
from tests.annotator.exported import built

pytestmark = pytest.mark.django_db(transaction=True)

HOSTILE = [
    "naïve – “quotes” 🪨 عربي \u202e",
    "line\u2028separator\u2029 and \x85 and \x1f\x7f",
    'a "json" {"looking": [1]} \\n \\u0000 text',
    "tabs\tand\r\nreturns\r",
    "\n\nHuman: not a turn\n\nAssistant: nor this",
    "<script>alert(1)</script>",
    "=HYPERLINK(1)",
]


def build(project: Project, **options: Any) -> Run:
    """A run built in this process, as its worker would."""
    run = exports.start(project=project, format="trl-preference", options=options, by=None)
    jobs.export(run_id=run.pk)
    run.refresh_from_db()
    return run


def version_of(project: Project, **options: Any) -> DatasetVersion:
    run = build(project, **options)
    assert (run.state, run.error, run.advice) == (RunState.DONE, "", ""), run.log
    return run.dataset_version


def rows_of(version: DatasetVersion) -> dict[str, list[dict[str, Any]]]:
    """Rows by split, read from the files alone."""
    found = {}
    for entry in version.files:
        path = deliveries.path_of(version, entry["name"])
        if path.suffix == ".parquet":
            found[entry["split"]] = parquet.read_table(path).to_pylist()
        else:
            data = path.read_bytes()
            lines = gzip.decompress(data) if path.suffix == ".gz" else data
            found[entry["split"]] = [orjson.loads(line) for line in lines.splitlines()]
    return found


def test_a_project_becomes_rows_in_a_file_per_split() -> None:
    project = factories.project()
    people = raters(project, 3)
    for split in SPLITS:
        judged_pair(
            project,
            [1, 1, -1],
            by=people,
            texts=(f"good {split}", f"bad {split}"),
            of=factories.prompt(project, f"About {split}?", split=split),
        )
    version = version_of(project)
    rows = rows_of(version)
    assert list(rows) == ["train", "validation", "test"]
    for split, (row,) in rows.items():
        preference = Preference.objects.get(pk=row["pair_id"])
        assert row == {
            "prompt": f"About {split}?",
            "chosen": f"good {split}",
            "rejected": f"bad {split}",
            "margin": 1.0,
            "votes": 3,
            "agreement": 0.666667,
            "prompt_id": preference.prompt_id,
            "chosen_id": preference.a_id,
            "rejected_id": preference.b_id,
            "pair_id": preference.pk,
        }
    assert (version.number, version.rows) == (1, 3)
    assert version.manifest["style"] == "explicit-standard"


def test_every_pair_is_a_row_or_dropped_for_one_reason() -> None:
    project = factories.project()
    people = raters(project, 3)
    prompt = factories.prompt(project)

    def pair(*outcomes: int, **fields: Any) -> None:
        judged_pair(project, list(outcomes), by=people, **fields)

    pair(1, 1)
    pair(1, 1, -1)
    pair(1)
    pair(0, 0)
    pair(1, 0)
    pair(1, -1)
    pair(1, 1, is_gold=True)
    factories.pairwise_task(project)
    factories.pairwise_task(project)
    pair(1, 1, texts=(" ", "something"))
    pair(1, 1, of=factories.prompt(project, messages=[{"role": "user", "content": ""}]))
    bad = factories.pairwise_task(project)
    for rater in people[:2]:
        vote(bad, rater, 1, both_bad=True)
    person = factories.rater(project)
    judged_pair(project, [1], by=[person])
    same = [factories.response(prompt, "same", generator=name) for name in ("x", "y")]
    alike = task_of(prompt, *same)
    for rater in people[:2]:
        vote(alike, rater, 1)
    version = version_of(project, min_votes=2, min_agreement=0.7, raters="imported", empty="drop")
    counts = version.manifest["counts"]
    assert counts["dropped"] == {
        "no_votes": 2,
        "unselected_votes": 1,
        "control": 1,
        "few_votes": 1,
        "both_bad": 1,
        "contradiction": 1,
        "tie": 2,
        "low_agreement": 1,
        "identical": 1,
        "empty_answer": 1,
        "empty_prompt": 1,
    }
    assert counts["out"] == 1
    assert counts["in"] == 1 + sum(counts["dropped"].values())
    assert set(version.manifest["reasons"]) == set(counts["dropped"]) <= set(REASONS)


def test_two_of_three_pass_a_least_agreement_of_67_percent_and_unanimity_means_all() -> None:
    project = factories.project()
    judged_pair(project, [1, 1, -1], by=raters(project, 3))
    assert version_of(project, min_agreement=0.67).rows == 1
    assert build(project, min_agreement=1.0).state == RunState.FAILED


def test_nothing_to_export_fails_and_says_why() -> None:
    project = factories.project()
    run = build(project)
    assert run.state == RunState.FAILED
    assert "no pairs yet" in run.advice
    judged_pair(project, [0], by=raters(project, 1))
    run = build(project)
    assert run.error == "No pair gives a row."
    assert "1 a tie" in run.advice
    assert not DatasetVersion.objects.exists()


@pytest.mark.parametrize("container", ["jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("style", ["explicit-standard", "explicit-conversational"])
def test_hostile_texts_come_back_as_they_were(container: str, style: str) -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    for text in HOSTILE:
        judged_pair(
            project,
            [1],
            by=[rater],
            texts=(text, f"{text} "),
            of=factories.prompt(project, f"{text}?"),
        )
    version = version_of(project, container=container, style=style)
    rows = rows_of(version)["train"]
    if style == "explicit-standard":
        assert [row["chosen"] for row in rows] == HOSTILE
        assert [row["prompt"] for row in rows] == [f"{text}?" for text in HOSTILE]
    else:
        assert [row["chosen"] for row in rows] == [
            [{"role": "assistant", "content": text}] for text in HOSTILE
        ]
        assert [row["prompt"] for row in rows] == [
            [{"role": "user", "content": f"{text}?"}] for text in HOSTILE
        ]


def chat(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant") * len(contents)
    return [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]


def test_one_prompt_of_several_turns_makes_every_row_conversational() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    judged_pair(project, [1], by=[rater])
    turns = chat("hello", "hi", "and now?")
    judged_pair(project, [1], by=[rater], of=factories.prompt(project, messages=turns))
    version = version_of(project)
    rows = rows_of(version)["train"]
    assert version.manifest["style"] == "explicit-conversational"
    assert all(isinstance(row["prompt"], list) for row in rows)
    assert rows[1]["prompt"] == turns


def test_a_system_message_even_empty_is_kept() -> None:
    project = factories.project()
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "hello"}]
    judged_pair(project, [1], by=raters(project, 1), of=factories.prompt(project, messages=turns))
    (row,) = rows_of(version_of(project))["train"]
    assert row["prompt"] == turns


def test_an_answer_of_several_messages_makes_a_single_turn_project_conversational() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    first = judged_pair(project, [1], by=[rater])
    prompt = factories.prompt(project)
    reply = [{"role": "assistant", "content": "wait"}, *chat("what?", "done")]
    long = factories.response(prompt, "wait", messages=reply)
    vote(task_of(prompt, long, factories.response(prompt)), rater, 1)
    version = version_of(project)
    rows = rows_of(version)["train"]
    assert version.manifest["counts"]["in"] == 2
    assert rows[0]["prompt"] == first.prompt.messages
    assert rows[1]["chosen"] == reply
    standard = rows_of(version_of(project, style="explicit-standard"))["train"]
    assert standard[1]["chosen"] == " wait\n\nHuman: what?\n\nAssistant: done"
    assert standard[0]["prompt"].startswith("\n\nHuman: ")


def test_transcripts_come_back_byte_for_byte() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    odd = "\n\nHuman:no space\n\nAssistant:"
    prompt = factories.prompt(
        project,
        messages=chat("no space"),
        extra={transcripts.FORM: "hh", transcripts.RAW: odd},
    )
    texts = ("fine", "poor")
    judged_pair(project, [1], by=[rater], of=prompt, texts=texts)
    turns = chat("one", " two ", "three")
    prompt = factories.prompt(project, messages=turns, extra={transcripts.FORM: "hh"})
    one = factories.response(prompt, "x", extra={transcripts.RAW: "  two spaces"})
    vote(task_of(prompt, one, factories.response(prompt, "y")), rater, -1)
    rows = rows_of(version_of(project, style="explicit-standard"))["train"]
    assert [row["prompt"] + row["chosen"] for row in rows] == [
        f"{odd} fine",
        "\n\nHuman: one\n\nAssistant:  two \n\nHuman: three\n\nAssistant: y",
    ]
    assert rows[1]["rejected"] == "  two spaces"


def test_prompts_that_read_alike_are_kept_once_and_out_of_training() -> None:
    project = factories.project()
    (rater,) = raters(project, 1)
    # As transcripts these two are one text: a turn holds what looks like the next.
    alike = [chat("a\n\nAssistant: b\n\nHuman: c"), chat("a", "b", "c")]
    for messages, split in zip(alike, ("test", "train"), strict=True):
        judged_pair(
            project,
            [1],
            by=[rater],
            of=factories.prompt(project, messages=messages, split=split),
        )
    judged_pair(project, [1], by=[rater])
    version = version_of(project, style="explicit-standard")
    rows = rows_of(version)
    assert {split: len(some) for split, some in rows.items()} == {"train": 1, "test": 1}
    assert version.manifest["counts"]["dropped"] == {"same_prompt": 1}
    assert version_of(project, style="explicit-conversational").rows == 3


PAIRS = st.lists(
    st.tuples(
        st.integers(0, 3),  # prompt
        st.sampled_from(["yes", "no", "maybe", ""]),
        st.sampled_from(["yes", "no", "maybe", ""]),
        st.lists(st.sampled_from([1, 0, -1]), max_size=4),
        st.booleans(),  # asked the other way round
    ),
    max_size=12,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(pairs=PAIRS, options=st.sampled_from([{}, {"repeats": "pool"}, {"empty": "drop"}]))
def test_promises_about_rows_hold_whatever_the_votes(
    pairs: list[tuple[int, str, str, list[int], bool]], options: dict[str, str]
) -> None:
    project = factories.project()
    people = raters(project, 4)
    judged_pair(project, [1], by=people)  # so that there is always a row
    prompts = [factories.prompt(project, split=SPLITS[n % 3]) for n in range(4)]
    tally: dict[tuple[int, frozenset[str]], Counter[str]] = defaultdict(Counter)
    for number, (prompt, one, other, votes, turned) in enumerate(pairs):
        first, second = (
            factories.response(prompts[prompt], text, generator=f"{number} {side}")
            for side, text in enumerate((one, other))
        )
        task = task_of(prompts[prompt], *((second, first) if turned else (first, second)))
        for rater, outcome in zip(people, votes, strict=False):
            vote(task, rater, -outcome if turned else outcome)
            winner = {1: one, -1: other, 0: ""}[outcome]
            tally[prompts[prompt].pk, frozenset((one, other))][winner] += 1
    version = version_of(project, **options)
    rows = rows_of(version)
    counts = version.manifest["counts"]
    assert counts["in"] == len(pairs) + 1
    assert counts["in"] == counts["out"] + sum(counts["dropped"].values())
    assert counts["rows"] == {split: len(some) for split, some in rows.items()}
    homes: dict[str, set[str]] = defaultdict(set)
    directions: dict[tuple[str, frozenset[str]], set[str]] = defaultdict(set)
    times: Counter[tuple[str, frozenset[str]]] = Counter()
    for split, some in rows.items():
        for row in some:
            assert row["chosen"] != row["rejected"]
            key = row["prompt"], frozenset((row["chosen"], row["rejected"]))
            homes[row["prompt"]].add(split)
            directions[key].add(row["chosen"])
            times[key] += 1
            assert row["agreement"] > 1 / 3
    assert all(len(home) == 1 for home in homes.values()), "a prompt in two files"
    assert all(len(said) == 1 for said in directions.values()), "a pair in both directions"
    if options.get("repeats") == "pool":
        assert set(times.values()) <= {1}


def test_a_rebuilt_version_has_the_same_bytes() -> None:
    project = factories.project()
    people = raters(project, 3)
    for number in range(7):
        judged_pair(project, [1, -1, 1], by=people, texts=(f"a{number}", f"b{number}"))
    for container in ("jsonl", "jsonl.gz", "parquet"):
        first, second = (version_of(project, container=container) for _ in range(2))
        assert first.number + 1 == second.number
        assert first.checksum == second.checksum
        assert first.files == second.files
    judged_pair(project, [1], by=people)
    assert version_of(project).checksum != first.checksum


def test_the_bundle_describes_and_checks_itself() -> None:
    project = factories.project()
    people = raters(project, 2)
    (robot,) = raters(project, 1, Rater.Kind.JUDGE, is_simulated=True)
    judged_pair(project, [1, 1, -1], by=[*people, robot], texts=("longer text", "short"))
    version = version_of(project)
    facts = orjson.loads(deliveries.path_of(version, "manifest.json").read_bytes())
    assert facts == version.manifest
    assert facts["votes"] == 3
    assert facts["simulated_votes"] == 1
    assert facts["is_simulated"]
    assert facts["health"]["chosen_longer"]["share"] == 1.0
    low, high = facts["health"]["chosen_longer"]["interval"]
    assert low < 0.5 < high == 1.0, "one row proves little"
    assert facts["health"]["contradictions_resolved"] == 1
    ids = {rater["id"] for rater in facts["raters"]}
    assert len(ids) == 3
    assert not any(person.name in str(facts) for person in people), "names stay here"
    sums = deliveries.path_of(version, "SHA256SUMS").read_text()
    data = deliveries.path_of(version, "train.jsonl").read_bytes()
    assert sums == f"{hashlib.sha256(data).hexdigest()}  train.jsonl\n"
    card = deliveries.path_of(version, "README.md").read_text()
    assert "Simulated" in card
    assert 'load_dataset("json", data_files={"train": "train.jsonl"})' in card


def test_columns_can_be_left_out_and_nobody_elses_project_comes_along() -> None:
    project, other = factories.project(), factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    judged_pair(other, [1], by=raters(other, 1))
    (row,) = rows_of(version_of(project, columns=[]))["train"]
    assert list(row) == ["prompt", "chosen", "rejected"]
    (row,) = rows_of(version_of(project, columns=["margin"]))["train"]
    assert list(row) == ["prompt", "chosen", "rejected", "margin"]


def test_options_are_checked_before_anything_is_queued() -> None:
    project = factories.project()
    for options, message in (
        ({"style": "implicit"}, "style"),
        ({"min_votes": 0}, "min_votes"),
        ({"ties": "keep"}, "ties"),
        ({"nonsense": 1}, "nonsense"),
        ({"raters": "named"}, "needs names"),
        ({"raters": "named", "rater_names": ["Nobody"]}, "Nobody"),
        ({"splits": []}, "splits"),
    ):
        with pytest.raises(Invalid, match=message):
            exports.start(project=project, format="trl-preference", options=options, by=None)
    with pytest.raises(Invalid, match="trl-preference"):
        exports.start(project=project, format="unheard-of", options={}, by=None)
    assert not Run.objects.exists()


# Interrupted and damaged builds -----------------------------------------------------------------


def begun(project: Project) -> runs.Work:
    run = exports.start(project=project, format="trl-preference", options={}, by=None)
    work = runs.begin(run_id=run.pk, worker="test")
    assert work is not None
    return work


def leftovers(run: Run) -> list[str]:
    return sorted(path.name for path in run.folder.iterdir()) if run.folder.exists() else []


def test_a_canceled_build_leaves_nothing() -> None:
    project = factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    work = begun(project)
    runs.cancel(run=work.run, by=None)
    with pytest.raises(runs.Stopped):
        exports.perform(work)
    assert leftovers(work.run) == []
    assert not DatasetVersion.objects.exists()


def test_a_build_begun_again_after_a_kill_starts_clean() -> None:
    project = factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    work = begun(project)
    half = work.run.folder / "build-of-the-dead.tmp"
    unpublished = work.run.folder / exports.FOLDER
    for folder in (half, unpublished):
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text("half a line")
    result = exports.perform(work)
    assert result["rows"] == 1
    assert leftovers(work.run) == [exports.FOLDER]
    assert rows_of(DatasetVersion.objects.get())["train"][0]["votes"] == 1


def test_a_run_that_had_published_gives_its_version_again() -> None:
    project = factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    work = begun(project)
    assert exports.perform(work) == exports.perform(work)
    assert DatasetVersion.objects.count() == 1


def test_a_worker_that_lost_its_run_publishes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    project = factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    work = begun(project)
    verify = exports._verify

    def taken_over(*args: Any) -> None:
        verify(*args)
        Run.objects.filter(pk=work.run.pk).update(token=None)

    monkeypatch.setattr(exports, "_verify", taken_over)
    with pytest.raises(runs.LostRun):
        exports.perform(work)
    assert leftovers(work.run) == []
    assert not DatasetVersion.objects.exists()


@pytest.mark.parametrize("container", ["jsonl", "jsonl.gz", "parquet"])
def test_a_file_damaged_on_the_disk_is_not_published(
    container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    verify = exports._verify

    def damaged(folder: Path, *args: Any) -> None:
        (path,) = folder.glob("train.*")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        verify(folder, *args)

    monkeypatch.setattr(exports, "_verify", damaged)
    run = build(project, container=container)
    assert run.state == RunState.FAILED
    assert "do not read back" in run.error
    assert leftovers(run) == []


def test_votes_cast_during_a_build_wait_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    project = factories.project()
    people = raters(project, 2)
    task = judged_pair(project, [1], by=people)
    shape_of = exports.queries.shape_of

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        vote(task, people[1], -1)
        judged_pair(project, [1], by=people)
        return shape_of(*args, **kwargs)

    monkeypatch.setattr(exports.queries, "shape_of", meanwhile)
    version = version_of(project)
    assert version.manifest["counts"] == {
        "in": 1,
        "used": 1,
        "out": 1,
        "dropped": {},
        "rows": {"train": 1},
    }
    assert version.manifest["votes"] == 1


def test_a_delivery_replaces_what_an_earlier_one_left(tmp_path: Path) -> None:
    project = factories.project()
    for split in ("train", "test"):
        judged_pair(
            project, [1], by=raters(project, 1, split), of=factories.prompt(project, split=split)
        )
    target = tmp_path / "deep" / "out"
    both = version_of(project)
    paths = deliveries.deliver(both, target)
    assert [path.name for path in paths] == ["train.jsonl", "test.jsonl"]
    (target / "mine.txt").write_text("keep")
    (target / "train.jsonl").write_text("changed")
    assert rows_of(both)["train"], "the version does not share its bytes with the copy"
    deliveries.deliver(version_of(project, splits=["train"], container="parquet"), target)
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md", "SHA256SUMS", "manifest.json", "mine.txt", "preference_losses.py",
        "train.parquet", "train_dpo.py", "train_weighted_dpo.py",
    ]  # fmt: skip
    deliveries.deliver(built(project, "trl-prompt-only"), target)
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md", "SHA256SUMS", "manifest.json", "mine.txt", "test.jsonl", "train.jsonl",
    ]  # fmt: skip
    assert sorted(path.name for path in target.parent.iterdir()) == ["out"]


def test_building_is_written_to_the_audit() -> None:
    project = factories.project()
    judged_pair(project, [1], by=raters(project, 1))
    version = version_of(project)
    event = AuditEvent.objects.get(verb="dataset.build")
    assert event.data == {"rows": 1, "checksum": version.checksum}
