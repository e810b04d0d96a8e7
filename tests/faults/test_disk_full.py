"""The disk fills up while a run trains: a small tmpfs under the whole run folder, with events, log and checkpoints."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults import SAVE_OFTEN, train_here, warnings
from forked import ForkedRun
from tiny import job, write_job
from trainings import end, wait_for

from tasks.runs.launch import failure
from velocitune_core.checkpoint.store import load_latest
from velocitune_core.train.events import (
    Checkpointed,
    Event,
    EventFile,
    Finished,
    Stepped,
    read_events,
)
from velocitune_core.train.trainer import TrainingError

MEGABYTES = 2  # a checkpoint takes a tenth of one
STOP = {"execution__on_save_failure": "stop"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A run folder on a disk of its own."""
    folder = tmp_path / "run"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no `mount` here to make a small disk with")
    if done.returncode:
        pytest.skip(f"a small disk may not be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # lazy: a failed test may leave files open


def fill(folder: Path) -> None:
    """Leave no byte: less than a page is filled by growing files, such as events, and not by new ones."""
    with (folder / "ballast").open("ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass  # full


class FullFromTheFirstSaveOn:
    """Fills the disk once a checkpoint is on it; `relieve` says when there is room again."""

    def __init__(self, folder: Path, relieve: bool) -> None:
        self._folder, self._relieve = folder, relieve

    def __call__(self, event: Event) -> None:
        if isinstance(event, Checkpointed) and event.step == 4:
            fill(self._folder)
        elif self._relieve and event.step == 20:
            (self._folder / "ballast").unlink(missing_ok=True)


def train(tree: dict[str, Any], folder: Path, *, relieve: bool, **options: Any) -> list[Event]:
    """Train in this process with an event file in the folder; returns what was said to the other listener."""
    file, meddle = EventFile(folder / "events.jsonl"), FullFromTheFirstSaveOn(folder, relieve)

    def act(event: Event) -> None:
        file(event)
        meddle(event)

    try:
        return train_here(tree, act, **options)
    finally:
        file.close()


def test_the_run_goes_on_without_the_checkpoint_and_says_what_it_needs(tiny_inputs: Path, folder: Path) -> None:
    """No event is lost or doubled, though for sixteen steps none could be written."""
    said = train(job(tiny_inputs, folder, **SAVE_OFTEN), folder, relieve=True)
    assert isinstance(said[-1], Finished)
    problems = [message for message in warnings(said) if "cannot be saved" in message]
    assert 3 <= len(problems) <= 5
    assert "No space left" in problems[0] and "it needs 0." in problems[0] and "0.0 MB are free" in problems[0]
    saved = [event.step for event in said if isinstance(event, Checkpointed)]
    assert saved[0] == 4 and saved[1] >= 20 and saved[-1] == 44
    assert list((folder / "checkpoints").glob("*.tmp")) == []
    assert list(read_events(folder / "events.jsonl")) == said


@pytest.mark.slow
def test_a_run_that_is_to_stop_stops_with_its_last_checkpoint(tiny_inputs: Path, folder: Path) -> None:
    tree = job(tiny_inputs, folder, **SAVE_OFTEN, **STOP)
    with pytest.raises(TrainingError, match=r"on_save_failure is stop: .*step-00000008: cannot be saved"):
        train(tree, folder, relieve=False)
    latest, problems = load_latest(folder / "checkpoints")
    assert latest is not None and (latest.step, problems) == (4, [])
    (folder / "ballast").unlink()
    assert isinstance(train_here(tree)[-1], Finished)


def test_a_stop_that_could_not_save_does_not_say_that_it_did(tiny_inputs: Path, folder: Path) -> None:
    stop: list[Event] = []

    def ask(event: Event) -> None:
        FullFromTheFirstSaveOn(folder, relieve=False)(event)
        stop.extend([event] if event.step == 10 else [])

    with pytest.raises(Exception, match="stopped after step") as stopped:
        train_here(job(tiny_inputs, folder, **SAVE_OFTEN), ask, should_stop=lambda: bool(stop))
    assert "cannot be saved" in warnings(stopped.value.said)[-1]  # type: ignore[attr-defined]
    assert not str(stopped.value).endswith("; saved")


@pytest.mark.slow
def test_a_result_that_cannot_be_written_is_an_error_with_its_cause(tiny_inputs: Path, folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"all 45 steps are taken, .* cannot be written: .*No space"):
        train(job(tiny_inputs, folder, **SAVE_OFTEN), folder, relieve=False)
    assert not (folder / "result.json").exists()


@pytest.mark.slow
def test_two_ranks_on_a_disk_that_stays_full_fail_together_and_end_once_there_is_room(
    tiny_inputs: Path, folder: Path
) -> None:
    """As processes, with their log on the disk too."""
    tree = job(tiny_inputs, folder, **SAVE_OFTEN, total_steps=25)
    run = end(started_on_a_disk_that_fills(tree, folder, ranks=2), tree)
    assert run.returncode == 1
    assert not (folder / "result.json").exists()
    assert run.resumed_from == [None] and not any(isinstance(event, Finished) for event in run.events)
    assert "failed (exit status 1): 0.0 MB are free on its disk" in str(failure(folder, "", "failed", 1))
    (folder / "ballast").unlink()
    again = end(ForkedRun([str(write_job(tree))], 2, log=folder / "log.txt"), tree)
    assert again.returncode == 0, again.stderr
    assert (again.result.steps, again.result.resumed) == (25, 1)


@pytest.mark.slow
def test_the_log_has_what_was_said_while_the_disk_was_full(tiny_inputs: Path, folder: Path) -> None:
    tree = job(tiny_inputs, folder, **SAVE_OFTEN, total_steps=200)
    process = started_on_a_disk_that_fills(tree, folder, ranks=1)
    (folder / "ballast").unlink()
    run = end(process, tree)
    assert run.returncode == 0, run.stderr
    assert [event.step for event in run.events if isinstance(event, Stepped)] == list(range(1, 201))
    assert run.warnings and all(run.stderr.count(message) == 1 for message in run.warnings)


def started_on_a_disk_that_fills(tree: dict[str, Any], folder: Path, ranks: int) -> ForkedRun:
    """Start a run whose log is on its disk, fill the disk once a checkpoint is on it, and let it run some steps."""
    process = ForkedRun([str(write_job(tree))], ranks, log=folder / "log.txt")
    wait_for(lambda: list(folder.glob("checkpoints/step-*")), every_seconds=0.001)
    process.send_signal(signal.SIGSTOP)
    fill(folder)
    program = psutil.Process(process.pid)
    computed = program.cpu_times().user
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: process.poll() is not None or program.cpu_times().user > computed + 0.15, every_seconds=0.01)
    return process
