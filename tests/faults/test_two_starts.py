"""Two processes are started in one run folder: one runs, the other waits and then does what is left to do."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from faults import SAVE_OFTEN
from forked import ForkedRun
from tiny import job
from trainings import TOGETHER, end, start, wait_for

from velocitune_core.checkpoint.store import step_of
from velocitune_core.train.events import Checkpointed, Started, read_events
from velocitune_core.train.outcome import end_of, read_outcome

pytestmark = pytest.mark.slow


def halted_inside_a_step(tree: dict[str, Any]) -> ForkedRun:
    """Start a run and stop it (SIGSTOP) once it has a checkpoint."""
    process = start(tree)
    events = Path(tree["output"]) / "events.jsonl"
    wait_for(lambda: any(isinstance(event, Checkpointed) for event in read_events(events)), every_seconds=0.002)
    process.send_signal(signal.SIGSTOP)
    return process


def waits(process: ForkedRun, holder: ForkedRun) -> None:
    """Return once a process has said that it waits for another one; it must then do nothing."""
    wait_for(
        lambda: f"(process {holder.pid} on " in process.log and "it goes on when that one has ended" in process.log
    )
    time.sleep(0.5)
    assert process.poll() is None


def test_the_second_takes_the_result_of_the_first(tiny_inputs: Path, tmp_path: Path) -> None:
    tree = job(tiny_inputs, tmp_path / "run", **SAVE_OFTEN)
    first = halted_inside_a_step(tree)
    second = start(tree, TOGETHER)
    waits(second, first)
    first.send_signal(signal.SIGCONT)
    assert end(first, tree).returncode == 0
    result = (tmp_path / "run" / "result.json").read_bytes()
    run = end(second, tree)
    assert run.returncode == 0, run.stderr
    assert "tiny is finished: its result is in" in run.stderr
    assert [event.resumed_from for event in run.events if isinstance(event, Started)] == [None]
    assert (run.output / "result.json").read_bytes() == result


def test_the_second_goes_on_from_the_newest_checkpoint_of_a_first_that_is_killed(
    tiny_inputs: Path, tmp_path: Path
) -> None:
    """It must not have looked for checkpoints before it had the folder to itself."""
    tree = job(tiny_inputs, tmp_path / "run", **SAVE_OFTEN)
    first = halted_inside_a_step(tree)
    second = start(tree, TOGETHER)
    waits(second, first)
    first.send_signal(signal.SIGCONT)
    wait_for(lambda: len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 2, every_seconds=0.001)
    first.kill()
    assert first.communicate(10)[0] is None
    newest = step_of(max((tmp_path / "run" / "checkpoints").glob("step-*")))
    run = end(second, tree)
    assert run.returncode == 0, run.stderr
    assert run.resumed_from == [None, newest]
    assert run.result.resumed == 1


def test_the_second_can_be_stopped_while_it_waits(tiny_inputs: Path, tmp_path: Path) -> None:
    tree = job(tiny_inputs, tmp_path / "run", **SAVE_OFTEN)
    first = halted_inside_a_step(tree)
    second = start(tree | {"start_id": "second"}, TOGETHER)
    waits(second, first)
    second.send_signal(signal.SIGTERM)
    run = end(second, tree)
    assert run.returncode == 75 and end_of(run.output, "second", status=1) == "stopped"  # as under torchrun
    assert "tiny stopped while it waited for" in run.stderr
    first.send_signal(signal.SIGCONT)
    run = end(first, tree)
    assert run.returncode == 0 and run.resumed_from == [None]
    outcome = read_outcome(run.output)
    assert outcome is not None and outcome.ended == "finished"
