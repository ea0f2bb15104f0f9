"""Ensembles stopped and killed: they go on with the member and update they were at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import orjson

from models.neural.ensemble import Member
from models.neural.process import Events, Stop, Stopped
from models.neural.train import work
from models.supervision import ROOT
from tests.models.ensembling import (
    Quiet,
    ensemble_of,
    prepare,
    train,
    weights_of,
)

pytestmark = pytest.mark.neural


class Kill(Events):
    """Asks to stop after the first evaluation of every member, once each."""

    def __init__(self):
        super().__init__(None)
        self.stop, self.killed, self.resumed = Stop(), [], []

    def __call__(self, event, **fields):
        if event == "evaluate" and fields["member"] not in self.killed:
            self.killed.append(fields["member"])
            self.stop.event.set()
        if event == "resumed":
            self.resumed.append((fields["member"], fields["step"]))


@pytest.mark.parametrize("kind", ["hashing", "bert"])
def test_stopped_and_resumed_all_members_end_with_the_same_weights(kind, tmp_path):
    rest = {"members": 2, "prior_scale": 1.0, "evaluate_every": 2}
    run = prepare(tmp_path / "run", kind, **rest)
    metrics = train(run)
    broken = prepare(tmp_path / "broken", kind, base=tmp_path / f"base-{kind}", **rest)
    emit = Kill()
    for _ in range(2):
        with pytest.raises(Stopped):
            train(broken, stop=emit.stop, emit=emit)
        emit.stop.event.clear()
    again = train(broken, stop=emit.stop, emit=emit)
    one = metrics["steps"] // 2
    assert emit.resumed == [(1, 2), (2, one + 2)], "in the very member and update"
    assert weights_of(run / "artifact") == weights_of(broken / "artifact")
    same = ("accuracy", "loss", "steps", "fingerprint", "ensemble")
    assert {k: metrics[k] for k in same} == {k: again[k] for k in same}


def test_a_member_that_is_done_is_not_trained_again(tmp_path):
    run = prepare(tmp_path / "run", "hashing", members=3)
    whole = ensemble_of(run)
    Member(whole, 0).run()
    Member(whole, 1).run()
    kept = (run / "members" / "member-1" / "touchstone.json").stat().st_mtime_ns
    emit = Quiet()
    again = ensemble_of(run, emit=emit)
    assert [again.is_done(i) for i in range(3)] == [True, True, False]
    again.run()
    trained = {one["member"] for one in emit.told if one["event"] == "step"}
    assert trained == {3}
    about = run / "artifact" / "member-1" / "touchstone.json"
    assert about.stat().st_mtime_ns == kept
    assert not (run / "members").exists()


def test_members_of_other_data_or_options_are_trained_anew(tmp_path):
    run = prepare(tmp_path / "run", "hashing", members=2)
    Member(ensemble_of(run), 0).run()
    prepare(run, "hashing", members=2, seed=5)
    assert not ensemble_of(run).is_done(0)


def test_killed_between_the_last_member_and_the_artifact_it_is_put_together(tmp_path):
    run = prepare(tmp_path / "run", "hashing", members=2)
    expected = train(prepare(tmp_path / "other", "hashing", members=2))
    whole = ensemble_of(run)
    for number in range(2):
        Member(whole, number).run()
    (run / "members" / "half.partial").mkdir()
    metrics = train(run)
    assert metrics["ensemble"] == expected["ensemble"]
    assert weights_of(run / "artifact") == weights_of(tmp_path / "other" / "artifact")
    assert work(run, emit=Events(None), stop=Stop()) == 0, "done: answers at once"


@pytest.mark.slow
def test_a_killed_process_goes_on_with_the_member_it_was_at(tmp_path):
    rest = {"members": 3, "prior_scale": 1.0, "evaluate_every": 2, "checkpoint_every": 2}
    run = prepare(tmp_path / "run", "hashing", **rest)
    train(prepare(tmp_path / "other", "hashing", **rest))
    command = [sys.executable, "-m", "models.neural.train", str(run)]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environ) as child:
        for line in child.stdout:
            event = orjson.loads(line)
            if event["event"] == "checkpoint" and event["member"] == 2:
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL
    assert (run / "members" / "member-1" / "touchstone.json").exists()
    assert not (run / "artifact").exists()
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, env=environ, check=True)
    events = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert {one["member"] for one in events if one["event"] == "resumed"} == {2}
    assert {one["member"] for one in events if one["event"] == "step"} == {2, 3}
    assert weights_of(run / "artifact") == weights_of(tmp_path / "other" / "artifact")
