"""One run in three attempts: killed while it saves, signalled twice to stop, its newest checkpoint corrupted."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults import SAVE_OFTEN, being_written, newest_tensors, stopped_inside_a_save
from tiny import job
from trainings import Run, assert_ends_like, end, start, train

pytestmark = pytest.mark.slow

STOPPED = 75  # the program's status for "saved; start it again"


@dataclass(frozen=True)
class Attempts:
    killed: Run
    whole_when_killed: list[str]
    cut_off: list[str]
    stopped: Run
    leftovers: set[Path]  # after the second life
    newest: str  # which was then corrupted
    corrupted: Path
    last: Run


@pytest.fixture(scope="module")
def attempts(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    tree = job(tiny_inputs, tmp_path_factory.mktemp("disturbed") / "run", **SAVE_OFTEN)
    checkpoints = Path(tree["output"]) / "checkpoints"

    process = start(tree)
    while True:
        assert stopped_inside_a_save(process, checkpoints), "ended before it was caught"
        if list(checkpoints.glob("step-*")):
            break  # not the first save: there is one to fall back to
        process.send_signal(signal.SIGCONT)
    process.kill()
    killed = end(process, tree)
    whole = sorted(path.name for path in checkpoints.glob("step-*"))
    cut_off = [path.name for path in being_written(checkpoints)]

    for _ in range(4):  # a save of milliseconds may be over before it is seen
        process = start(tree)
        assert stopped_inside_a_save(process, checkpoints), "ended before it was caught"
        process.send_signal(signal.SIGTERM)  # noted, and heeded at the end of the next step
        process.send_signal(signal.SIGCONT)
        seen = stopped_inside_a_save(process, checkpoints)
        if seen:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        stopped = end(process, tree)
        if seen:
            break
    else:
        pytest.fail("no second signal met a save")
    leftovers = being_written(checkpoints)

    newest, corrupted = max(checkpoints.glob("step-*")).name, newest_tensors(checkpoints)
    with corrupted.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    return Attempts(killed, whole, cut_off, stopped, leftovers, newest, corrupted, train(tree))


def test_a_kill_in_the_middle_of_saving_costs_only_that_save(attempts: Attempts) -> None:
    assert attempts.killed.returncode == -signal.SIGKILL
    assert attempts.cut_off, "nothing was left half written"
    assert f"step-{attempts.last.resumed_from[1]:08d}" == attempts.whole_when_killed[-1]


def test_what_it_left_half_written_is_cleaned_up(attempts: Attempts) -> None:
    assert attempts.leftovers == set()
    assert all(name.startswith("step-") for name in attempts.last.checkpoints)


def test_a_second_sigterm_during_the_save_corrupts_nothing(attempts: Attempts) -> None:
    assert attempts.stopped.returncode == STOPPED
    assert "stopped after step " in attempts.stopped.stderr and "saved" in attempts.stopped.stderr


def test_a_flipped_bit_is_found_named_and_the_one_before_used(attempts: Attempts) -> None:
    warning = next(message for message in attempts.last.warnings if "corrupt" in message)
    assert str(attempts.corrupted) in warning and "sha256" in warning
    assert f"step-{attempts.last.resumed_from[-1]:08d}" < attempts.newest
    assert (attempts.last.resumed_from[-1] or 0) >= (attempts.last.resumed_from[1] or 0)


def test_after_all_of_it_the_training_ends_like_the_unbroken_one(attempts: Attempts, unbroken: Run) -> None:
    assert_ends_like(attempts.last, unbroken)
