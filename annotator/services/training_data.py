"""The data of a training run: its pairs and the human-human ceiling, collected once.

Whatever is judged afterwards, a run that was killed or canceled goes on with the data it began
with; its files appear whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson
import psycopg

from annotator.errors import Invalid
from annotator.models import Project
from annotator.queries import training as queries
from annotator.queries import training_rows
from annotator.queries.snapshot import current, snapshot
from annotator.queries.training import LEAST_TEST, LEAST_TRAIN
from annotator.services import picture_files, runs
from models.baselines import human_ceiling
from models.objectives import RATED, READS_LISTS
from models.pairs import (
    SPLITS,
    BadRow,
    Pair,
    Ranked,
    data_sha256,
    lists_path,
    pairs_path,
    parse_pair,
    parse_ranked,
    write_pairs,
)
from models.training import TrainingConfig
from models.workdir import ATTRIBUTES, write_json

COLLECTED: Final = "collected.json"  # its presence says that the pairs are whole
ROWS_AT_ONCE: Final = 1000
NAMED: Final = 20  # rows left out that the log names, per split
NO_RANKINGS: Final = "There are no rankings on prompts of the training split to learn from."
RANK_FIRST: Final = "Collect judgments on ranking tasks, or choose an objective on pairs."
NO_RATINGS: Final = "There are no ratings on prompts of the training split to learn from."
RATE_FIRST: Final = "Rate responses, import ratings, or choose an objective on preferences."


def require_enough(*, train: int, test: int) -> None:
    """Raise Invalid where too few pairs have a majority to train on or to measure on."""
    if train >= LEAST_TRAIN and test >= LEAST_TEST:
        return
    raise Invalid(
        f"There are {train:,} preferences to train on and {test:,} to test on;"
        f" at least {LEAST_TRAIN} and {LEAST_TEST} are needed.",
        advice="Judge or import more pairs. Ties and pairs whose votes cancel out do not count.",
    )


def require_enough_in(project: Project) -> None:
    """``require_enough`` on counts a minute old, or on new ones where those do not suffice."""
    for look in (queries.readiness, queries.count):
        ready = look(project)
        if ready.is_enough:
            return
    require_enough(train=ready.splits["train"].decided, test=ready.splits["test"].decided)


def require_kind_in(project: Project, objective: str) -> None:
    """Raise Invalid where the objective learns from what nobody has given."""
    if objective in READS_LISTS and not training_rows.has_rankings(project, connection=current()):
        raise Invalid(NO_RANKINGS, advice=RANK_FIRST)
    if objective in RATED and not training_rows.attributes_of(project, connection=current()):
        raise Invalid(NO_RATINGS, advice=RATE_FIRST)


def collect(work: runs.Work, config: TrainingConfig) -> dict[str, Any]:
    """Write configuration and pairs into the run's folder, once.

    A resumed run goes on with the data it began with, whatever was judged since.
    """
    run, folder = work.run, work.run.folder
    marker = folder / COLLECTED
    if marker.exists():
        work.log("the pairs collected by an earlier attempt are used again")
        collected: dict[str, Any] = orjson.loads(marker.read_bytes())
        return collected
    work.stage("collect", "Collect")
    config.write(folder)
    with snapshot() as connection:
        attributes = _write_attributes(work, config, connection)
        rankings = _write_rankings(work, config, connection)
        splits = {
            split: _write_split(
                work,
                split,
                connection,
                attributes=attributes,
                without_rankings=split == "train" and rankings > 0,
            )
            for split in SPLITS
        }
        votes = queries.test_votes(run.project, connection=connection)
    train = splits["train"]["decided"] + rankings
    require_enough(train=train, test=splits["test"]["decided"])
    collected = {
        "splits": splits,
        "rankings": rankings,
        "attributes": attributes,
        "data_sha256": data_sha256(folder),
        "human_ceiling": ceiling(votes),
    }
    write_json(marker, collected)
    return collected


def ceiling(votes: queries.Votes) -> dict[str, Any]:
    """How often a person agrees with the majority of the others, as JSON-ready values.

    ``accuracy`` is None, with a ``reason``, where no test pair was judged by two people.
    """
    found = human_ceiling(votes.pair, votes.rater, votes.outcome)
    if found is None:
        nothing = {"accuracy": None, "interval": None, "n": 0, "groups": 0, "ties": 0}
        return nothing | {"reason": "No pair of the test split was judged by two people."}
    return found.as_dict() | {"imported": votes.has_imported, "simulated": votes.has_simulated}


def _write_attributes(
    work: runs.Work, config: TrainingConfig, connection: psycopg.Connection
) -> list[str]:
    """Write what responses are rated on, for an objective that learns from it."""
    if config.objective not in RATED:
        return []
    attributes = training_rows.attributes_of(work.run.project, connection=connection)
    if not attributes:
        raise Invalid(NO_RATINGS, advice=RATE_FIRST)
    write_json(work.run.folder / ATTRIBUTES, attributes)
    work.log(f"ratings of people on: {', '.join(attributes)}")
    return attributes


def _write_rankings(work: runs.Work, config: TrainingConfig, connection: psycopg.Connection) -> int:
    """Write the rankings of the training split and count them, for an objective that reads them."""
    if config.objective not in READS_LISTS:
        return 0
    left_out = 0

    def rankings() -> Iterator[Ranked]:
        nonlocal left_out
        rows = training_rows.rankings_of(work.run.project, "train", connection=connection)
        for number, row in enumerate(rows, start=1):
            if number % ROWS_AT_ONCE == 0:
                work.check()
                work.progress(number, unit="rankings", message="collecting rankings")
            try:
                ranked = parse_ranked(row)
                picture_files.bring_answers(ranked.answers, work.run.folder)
                yield ranked
            except BadRow as error:
                left_out += 1
                if left_out <= NAMED:
                    work.log(f"the ranking of preference {row['pair_id']} is left out: {error}")

    count = write_pairs(lists_path(work.run.folder, "train"), rankings())
    work.log(f"collected train: {count:,} rankings, {left_out:,} left out")
    if not count:
        raise Invalid(NO_RANKINGS, advice=RANK_FIRST)
    return count


def _write_split(
    work: runs.Work,
    split: str,
    connection: psycopg.Connection,
    *,
    attributes: list[str],
    without_rankings: bool,
) -> dict[str, int]:
    """Write the pairs of one split and count them."""
    counts = {"decided": 0, "undecided": 0, "left_out": 0}

    def pairs() -> Iterator[Pair]:
        rows = queries.rows_of(
            work.run.project,
            split,
            attributes=attributes,
            without_rankings=without_rankings,
            connection=connection,
        )
        for number, row in enumerate(rows, start=1):
            if number % ROWS_AT_ONCE == 0:
                work.check()
                work.progress(number, unit="pairs", message=f"collecting the {split} split")
            try:
                pair = parse_pair(row)
                picture_files.bring_answers(pair.answers, work.run.folder)
            except BadRow as error:
                counts["left_out"] += 1
                if counts["left_out"] <= NAMED:
                    work.log(f"preference {row['pair_id']} is left out: {error}")
                continue
            counts["decided" if pair.p != 0.5 else "undecided"] += 1
            yield pair

    write_pairs(pairs_path(work.run.folder, split), pairs())
    work.log(
        f"collected {split}: {counts['decided']:,} preferences,"
        f" {counts['undecided']:,} without a majority, {counts['left_out']:,} left out"
    )
    return counts
