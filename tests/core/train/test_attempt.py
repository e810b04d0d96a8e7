"""One attempt: when the run folder is given back, and what is written there."""

from __future__ import annotations

import errno
import fcntl
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import job, write_job
from trainings import ALONE, ENVIRONMENT, TOGETHER, TORCHRUN, end, start

from velocitune_core.checkpoint import background
from velocitune_core.checkpoint.store import save_checkpoint
from velocitune_core.parallel.agreement import PhaseError
from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.train.__main__ import train
from velocitune_core.train.attempt import run_attempt
from velocitune_core.train.job import read_job
from velocitune_core.train.outcome import FILE, end_of, has_finished, message_of, read_outcome, write_outcome
from velocitune_core.train.run_lock import RunLock
from velocitune_core.train.stop import STOP_SIGNALS, StopRequest
from velocitune_core.train.trainer import TrainingError


@pytest.fixture
def stop_request() -> Iterator[StopRequest]:
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield StopRequest()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_failed_run_holds_its_folder_until_its_checkpoint_is_written(
    tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of its steps is saved slowly, and three without a finite loss end the run meanwhile."""
    folder, held = tmp_path / "run", []

    def save_slowly(*arguments: Any, **options: Any) -> Path:
        time.sleep(0.8)
        path = save_checkpoint(*arguments, **options)
        held.append(not RunLock(folder).acquire())
        return path

    monkeypatch.setattr(background, "save_checkpoint", save_slowly)
    changes = {"training__optimizer__learning_rate": 1e30, "execution__checkpoint_every_steps": 1}
    diverging = read_job(write_job(job(tiny_inputs, folder, **changes)))
    with pytest.raises(TrainingError, match="in a row without a finite loss"):
        run_attempt(diverging, SINGLE_RANK, lambda: False)
    assert held and all(held)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]
    assert [path.name[:5] for path in (folder / "checkpoints").iterdir()] == ["step-"]


def test_a_result_alone_marks_the_end_of_its_recipe(
    tiny_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoints of a finished run are deleted, so that another start would begin at step 0."""
    folder = tmp_path / "run"
    tree = job(tiny_inputs, folder, total_steps=2, save_model=False)
    finished, other = read_job(write_job(tree)), read_job(write_job(tree | {"total_steps": 3}))
    assert run_attempt(finished, SINGLE_RANK, lambda: False) == 0
    result, events = (folder / "result.json").read_bytes(), (folder / "events.jsonl").read_bytes()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / FILE).unlink()  # killed just before it was written
    assert end_of(folder, "killed", 1, finished.fingerprint()) == "finished"  # with the process that it was forked from
    assert end_of(folder, "killed", 1, other.fingerprint()) == "failed"
    (folder / "outcome-waited.json").touch()
    assert run_attempt(finished.model_copy(update={"start_id": "again"}), SINGLE_RANK, lambda: False) == 0
    assert end_of(folder, "again", 1) == "finished" and not (folder / "outcome-waited.json").exists()
    write_outcome(other, "refused", "of another recipe")
    assert run_attempt(finished, SINGLE_RANK, lambda: False) == 0
    assert capsys.readouterr().err.count("tiny is finished: its result is in") == 2
    assert ((folder / "result.json").read_bytes(), (folder / "events.jsonl").read_bytes()) == (result, events)
    assert not has_finished(other)


def test_a_job_file_that_cannot_be_read_is_refused_whatever_the_status_says(
    tiny_inputs: Path, tmp_path: Path, stop_request: StopRequest
) -> None:
    (tmp_path / "run").mkdir()
    path = write_job(job(tiny_inputs, tmp_path / "run", start_id="now", total_steps="many"))
    assert train(path, stop_request) == 2
    assert end_of(tmp_path / "run", "now", status=1) == "refused"  # torchrun turns 2 into 1
    assert "total_steps" in message_of(tmp_path / "run", "now")
    path.write_text("{")
    assert train(path, stop_request) == 2


@pytest.mark.parametrize("ranks", [ALONE, TOGETHER])
def test_a_run_folder_that_cannot_be_locked_is_refused_on_every_rank(
    tiny_inputs: Path, tmp_path: Path, ranks: int
) -> None:
    (tmp_path / "run/run.lock").mkdir(parents=True)
    tree = job(tiny_inputs, tmp_path / "run", start_id="now")
    run = end(start(tree, ranks), tree)
    said = f"{tmp_path}/run/run.lock: cannot be locked: Is a directory; remove what is in its place"
    assert run.returncode == 2 and run.stderr.count(said) == 1 and "Traceback" not in run.stderr
    assert end_of(tmp_path / "run", "now", status=1) == "refused"  # as under torchrun
    assert said in message_of(tmp_path / "run", "now")


def test_a_file_in_place_of_the_run_folder_is_refused(
    tiny_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").touch()
    assert run_attempt(read_job(write_job(job(tiny_inputs, tmp_path / "run"))), SINGLE_RANK, lambda: False) == 2
    assert f"{tmp_path}/run: cannot be locked: File exists" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), TypeError("a bug")])
def test_what_may_pass_or_is_a_bug_is_no_refusal(
    tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A refusal is never tried again."""

    def fail(lock: object) -> None:
        raise error

    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: fail(descriptor))
    with pytest.raises(PhaseError, match=error.args[-1]):
        run_attempt(read_job(write_job(job(tiny_inputs, tmp_path / "run"))), SINGLE_RANK, lambda: False)


@pytest.mark.slow
def test_torchrun_turns_a_refusal_into_a_failure_and_the_folder_tells_it(tiny_inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = write_job(job(tiny_inputs, tmp_path / "run", start_id="now", total_steps="many"))
    command = [*TORCHRUN, "-m", "velocitune_core.train", str(path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False, timeout=120)
    assert done.returncode == 1 and end_of(tmp_path / "run", "now", done.returncode) == "refused"


def test_a_stop_while_waiting_leaves_the_outcome_to_the_holder(
    tiny_inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = read_job(write_job(job(tiny_inputs, tmp_path / "run")))
    holder = RunLock(tmp_path / "run")
    assert holder.acquire()
    write_outcome(waiting, "finished")
    assert run_attempt(waiting.model_copy(update={"start_id": "second"}), SINGLE_RANK, lambda: True) == 75
    outcome = read_outcome(tmp_path / "run")
    assert outcome is not None and outcome.ended == "finished"
    assert end_of(tmp_path / "run", "second", status=1) == "stopped"  # torchrun turns 75 into 1
    assert "stopped while it waited for" in message_of(tmp_path / "run", "second")
    assert end_of(tmp_path / "run", "third", status=1) == "failed"
    (tmp_path / "run" / FILE).unlink()
    assert run_attempt(waiting, SINGLE_RANK, lambda: True) == 75
    assert read_outcome(tmp_path / "run") is None
    assert "tiny stopped while it waited for" in capsys.readouterr().err
    holder.release()
    assert run_attempt(waiting.model_copy(update={"start_id": "third"}), SINGLE_RANK, lambda: True) == 75
    assert end_of(tmp_path / "run", "third", status=1) == "stopped" and holder.acquire()  # it was given back
    assert not (tmp_path / "run/events.jsonl").exists()
    holder.release()
