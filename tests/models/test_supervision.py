"""The child process: real ones, stopped, killed, orphaned and starved."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from models.neural.process import Events, Stop
from models.neural.train import work
from models.supervision import EXIT_DONE, EXIT_FAILED, ROOT
from models.training import read_events, read_metrics, supervise
from tests.models.planted import make_world, write_run

pytestmark = pytest.mark.neural

WORLD = make_world(64, seed=9)
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
SMALL = {"buckets_log2": 12, "batch_size": 1}
FOREVER = SMALL | {"epochs": 1000}  # 64,000 updates: nobody waits for their end


def never() -> bool:
    return False


def run(workdir, *, on_event=lambda event: None, should_stop=never, **more):
    return supervise(
        workdir, on_event=on_event, should_stop=should_stop, poll=0.05, environ=ONE_THREAD, **more
    )


def on(name, action):
    """Call ``action(pid)`` at the first event of that name."""
    seen = {}

    def handle(event):
        if event["event"] == "started":
            seen["pid"] = event["pid"]
        if event["event"] == name and "done" not in seen:
            seen["done"] = True
            action(seen["pid"])

    return handle


def test_a_run_tells_what_it_does_and_keeps_it(tmp_path):
    write_run(
        tmp_path,
        train=WORLD.pairs,
        validation=WORLD.pairs[:5],
        test=WORLD.pairs[:7],
        options=SMALL | {"epochs": 2},
        evaluate_every=50,
    )
    events = []
    result = run(tmp_path, on_event=events.append)
    assert result.outcome == "done", result
    assert result.metrics == read_metrics(tmp_path)
    assert result.metrics["steps"] == 128
    assert result.metrics["kept"]["why"].startswith("last step: fewer than 50")
    assert read_events(tmp_path) == events
    stages = [(e["stage"], e["state"]) for e in events if e["event"] == "stage"]
    for stage in ("load", "tokenize", "train", "evaluate", "save"):
        assert stages.index((stage, "running")) < stages.index((stage, "done"))
    steps = [e for e in events if e["event"] == "step"]
    assert (steps[0]["step"], steps[-1]["step"]) == (1, 128)
    fields = {"loss", "margin", "grad_norm", "lr", "pairs_per_second", "memory_mb", "epoch"}
    assert fields <= set(steps[0])
    assert [e["step"] for e in events if e["event"] == "evaluate"] == [50, 100, 128]
    assert [e["step"] for e in events if e["event"] == "checkpoint"] == [50, 100, 128]
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"step-100", "step-128"}

    again = []
    assert run(tmp_path, on_event=again.append) == result
    assert [e["event"] for e in again] == ["done"]


def test_asked_to_stop_it_saves_and_later_continues(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=FOREVER)
    asked = []
    result = run(
        tmp_path,
        on_event=lambda e: e["event"] == "step" and asked.append(e["step"]),
        should_stop=lambda: bool(asked),
    )
    assert (result.outcome, result.exit_code) == ("stopped", 75)
    saved = [e for e in read_events(tmp_path) if e["event"] == "checkpoint"][-1]["step"]
    assert saved >= asked[0]
    assert read_events(tmp_path)[-1] == {"event": "stopped"}
    assert read_metrics(tmp_path) is None

    resumed = []
    run(
        tmp_path,
        on_event=lambda e: e["event"] == "resumed" and resumed.append(e["step"]),
        should_stop=lambda: bool(resumed),
    )
    assert resumed == [saved]


def test_asked_before_it_could_begin_it_stops_at_once(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=FOREVER)
    result = run(tmp_path, should_stop=lambda: True)
    assert result.outcome == "stopped"
    assert read_metrics(tmp_path) is None


def test_a_child_that_does_not_stop_is_killed(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=FOREVER)
    frozen = []

    def freeze(pid):
        os.kill(pid, signal.SIGSTOP)
        frozen.append(pid)

    result = run(tmp_path, on_event=on("step", freeze), should_stop=lambda: bool(frozen), grace=0.5)
    assert result.outcome == "stopped"
    assert "was killed" in result.reason


def test_a_killed_child_is_a_failed_run_with_a_reason(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=FOREVER)
    result = run(tmp_path, on_event=on("step", lambda pid: os.kill(pid, signal.SIGKILL)))
    assert (result.outcome, result.kind, result.exit_code) == ("failed", "out-of-memory", -9)
    assert "memory" in result.reason
    assert "batch size" in result.advice


def test_a_crashed_child_is_a_failed_run_with_the_signal(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=FOREVER)
    result = run(tmp_path, on_event=on("step", lambda pid: os.kill(pid, signal.SIGSEGV)))
    assert (result.outcome, result.kind) == ("failed", "crashed")
    assert "Segmentation fault" in result.reason


def test_an_error_in_the_listener_ends_the_child_and_is_raised(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=FOREVER)
    pids = []

    def listen(event):
        if event["event"] == "started":
            pids.append(event["pid"])
        if event["event"] == "step":
            raise LookupError("the run's row is gone")

    with pytest.raises(LookupError, match="row is gone"):
        run(tmp_path, on_event=listen)
    assert not alive(pids[0])


def test_a_child_whose_supervisor_is_killed_ends_by_itself(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=FOREVER)
    code = (
        "import sys; from models.training import supervise;"
        "supervise(sys.argv[1], should_stop=lambda: False,"
        "on_event=lambda e: print(e.get('pid') or e['event'], flush=True))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(parent.stdout.readline())
    while parent.stdout.readline().strip() != "step":
        assert parent.poll() is None
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)
    events = [event["event"] for event in read_events(tmp_path)]
    assert events[-2:] == ["checkpoint", "stopped"]


def test_a_folder_takes_one_child_at_a_time(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=FOREVER)
    second = []

    def start_another(pid):
        told = io.BytesIO()
        second.append(work(tmp_path, emit=Events(told), stop=Stop(), lock_wait=0.3))
        second.append(json.loads(told.getvalue()))

    run(tmp_path, on_event=on("step", start_another), should_stop=lambda: bool(second))
    assert second[0] == EXIT_FAILED
    assert (second[1]["event"], second[1]["kind"]) == ("failed", "busy")
    assert not [e for e in read_events(tmp_path) if e["event"] == "failed"]


def limit(kind, amount):
    """Starve the child of something once it has started."""
    return on("started", lambda pid: resource.prlimit(pid, kind, (amount, amount)))


def test_out_of_memory_is_told_with_advice(tmp_path):
    write_run(tmp_path, train=WORLD.pairs, options=FOREVER | {"buckets_log2": 24})

    def starve(event):
        if event["event"] == "started":
            used = int(Path(f"/proc/{event['pid']}/statm").read_text().split()[0])
            room = used * resource.getpagesize() + 10_000_000  # the weights alone take 67 MB
            resource.prlimit(event["pid"], resource.RLIMIT_AS, (room, room))

    result = run(tmp_path, on_event=starve)
    assert (result.outcome, result.kind) == ("failed", "out-of-memory"), result
    assert result.reason.startswith("Memory ran out.")
    assert "batch size" in result.advice


@pytest.mark.parametrize("room", [1000, 30_000])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path, room):
    """1,000 bytes do not hold the encoded pairs, 30,000 not the first checkpoint."""
    write_run(tmp_path, train=WORLD.pairs, options=SMALL)
    result = run(tmp_path, on_event=limit(resource.RLIMIT_FSIZE, room))
    assert (result.outcome, result.kind) == ("failed", "disk-full"), result
    assert "Free some space" in result.advice
    left = {path.name for path in tmp_path.rglob("*")}
    assert not [name for name in left if name.endswith(".partial") or name.startswith("step-")]
    with_room = work(tmp_path, emit=Events(None), stop=Stop())
    assert with_room == EXIT_DONE


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
