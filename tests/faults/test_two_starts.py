"""Two processes are started in one run folder: one runs, the other waits and then does what is left to do."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import SAVE_OFTEN
from forked import ForkedRun
from tiny import job
from trainings import ALONE, TOGETHER, end, start, wait_for

from velocitune_core.checkpoint.store import step_of
from velocitune_core.train.events import Checkpointed, Started, read_events
from velocitune_core.train.outcome import end_of, read_outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(100)]  # each takes 10 s
SECONDS_TO_WAIT = 40


class Starts:
    """Starts runs, and leaves none behind when a test fails: one may be stopped (SIGSTOP) for ever."""

    def __init__(self) -> None:
        self._runs: list[ForkedRun] = []

    def __call__(self, tree: dict[str, Any], ranks: int = ALONE) -> ForkedRun:
        self._runs.append(start(tree, ranks))
        return self._runs[-1]

    def kill(self) -> None:
        for run in self._runs:
            run.kill()


@pytest.fixture
def begin() -> Iterator[Starts]:
    starts = Starts()
    yield starts
    starts.kill()


def halted_inside_a_step(begin: Starts, tree: dict[str, Any]) -> ForkedRun:
    """Start a run and stop it (SIGSTOP) once it has a checkpoint."""
    process = begin(tree)
    events = Path(tree["output"]) / "events.jsonl"
    wait_for(lambda: any(isinstance(event, Checkpointed) for event in read_events(events)), every_seconds=0.002)
    process.send_signal(signal.SIGSTOP)
    return process


def waits(process: ForkedRun, holder: ForkedRun) -> None:
    """Return once a process has said that it waits for another one; it must then do nothing."""

    def has_said_so() -> bool:
        assert process.poll() is None, f"it did not wait: {process.log}"
        return f"(process {holder.pid} on " in process.log and "it goes on when that one has ended" in process.log

    wait_for(has_said_so, SECONDS_TO_WAIT)
    time.sleep(0.5)
    assert process.poll() is None


def test_the_second_takes_the_result_of_the_first(begin: Starts, tiny_inputs: Path, tmp_path: Path) -> None:
    tree = job(tiny_inputs, tmp_path / "run", **SAVE_OFTEN)
    first = halted_inside_a_step(begin, tree)
    second = begin(tree, TOGETHER)
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
    begin: Starts, tiny_inputs: Path, tmp_path: Path
) -> None:
    """It must not have looked for checkpoints before it had the folder to itself."""
    tree = job(tiny_inputs, tmp_path / "run", **SAVE_OFTEN)
    first = halted_inside_a_step(begin, tree)
    second = begin(tree, TOGETHER)
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


def test_the_second_can_be_stopped_while_it_waits(begin: Starts, tiny_inputs: Path, tmp_path: Path) -> None:
    tree = job(tiny_inputs, tmp_path / "run", **SAVE_OFTEN)
    first = halted_inside_a_step(begin, tree)
    second = begin(tree | {"start_id": "second"}, TOGETHER)
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
