"""Faults that several tests make happen."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from forked import ForkedRun

from velocitune_core.parallel.ranks import join_ranks
from velocitune_core.train.events import Event, Warned
from velocitune_core.train.job import TrainJob
from velocitune_core.train.trainer import Trainer

SAVE_OFTEN = {"execution__checkpoint_every_steps": 4}


def train_here(tree: dict[str, Any], act: Callable[[Event], None] = lambda event: None, **options: Any) -> list[Event]:
    """Train in this process, so that a listener can meddle between two steps; returns what was said.

    Raises what the training raises, with the events so far in `said`.
    """
    said: list[Event] = []

    def listen(event: Event) -> None:
        said.append(event)
        act(event)

    trainer = Trainer(TrainJob.model_validate(tree, strict=False), join_ranks(), [listen], **options)
    try:
        trainer.run()
    except Exception as error:
        error.said = said  # type: ignore[attr-defined]
        raise
    return said


def warnings(said: list[Event]) -> list[str]:
    return [event.message for event in said if isinstance(event, Warned)]


def stopped_inside_a_save(process: ForkedRun, checkpoints: Path, seconds: float = 100) -> bool:
    """Stop a training (SIGSTOP) while it writes a new checkpoint. False if it ended before it was seen to write one."""
    deadline, known = time.monotonic() + seconds, being_written(checkpoints)
    while process.poll() is None:
        assert time.monotonic() < deadline, f"no save was seen within {seconds} s"
        if being_written(checkpoints) - known:
            process.send_signal(signal.SIGSTOP)
            while process.poll() is None and psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                time.sleep(0.001)
            if process.poll() is None and being_written(checkpoints) - known:
                return True
            process.send_signal(signal.SIGCONT)  # it had finished just before
        time.sleep(0.0005)
    return False


def being_written(checkpoints: Path) -> set[Path]:
    """Checkpoints that are not whole yet, or never will be."""
    return set(checkpoints.glob("*.tmp"))


def newest_tensors(checkpoints: Path) -> Path:
    """A file of tensors of the newest whole checkpoint."""
    newest = max(checkpoints.glob("step-*"))
    return sorted(newest.glob("*.safetensors"))[0]


class Payload:
    """Unpickled, it leaves a file behind; any other code could run in its place."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self._mark),)


def malicious(mark: Path) -> bytes:
    """A pickle that makes the folder `mark` when it is loaded."""
    content = pickle.dumps({"weight": Payload(mark)})
    pickle.loads(content)  # noqa: S301 - it would do harm, or the tests would prove nothing
    mark.rmdir()
    return content
