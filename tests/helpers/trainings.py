"""Trainings as processes of their own: start them, do something to them, look at what they left."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from forked import ForkedRun
from safetensors.numpy import load_file
from tiny import write_job

from velocitune_core.contracts import TrainResult
from velocitune_core.train import events
from velocitune_core.train.events import Event, read_events
from velocitune_core.train.timeline import timeline

ALONE, TOGETHER = 1, 2  # ranks
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SECONDS_FOR_ANYTHING = 120


@dataclass(frozen=True)
class Run:
    """What a finished process left behind."""

    output: Path
    returncode: int
    stderr: str

    @property
    def events(self) -> list[Event]:
        return list(read_events(self.output / "events.jsonl"))

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, events.Warned)]

    @property
    def resumed_from(self) -> list[int | None]:
        """The step at which each life of the run began."""
        return [event.resumed_from for event in self.events if isinstance(event, events.Started)]

    @property
    def result(self) -> TrainResult:
        return TrainResult.read(self.output / "result.json")

    @property
    def weights(self) -> dict[str, np.ndarray]:
        return load_file(self.output / "model" / "model.safetensors")

    @property
    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.output / "checkpoints").iterdir())


def start(tree: dict[str, Any], ranks: int = ALONE, **environment: str) -> ForkedRun:
    return ForkedRun([str(write_job(tree))], ranks, environment)


def start_two_ranks(tree: dict[str, Any]) -> list[ForkedRun]:
    """Start the two ranks of a run one by one, so that neither is ended as soon as the other fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    job = str(write_job(tree))
    return [ForkedRun([job], ALONE, meeting | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]


def end(process: ForkedRun, tree: Mapping[str, Any]) -> Run:
    _, stderr = process.communicate(timeout=SECONDS_FOR_ANYTHING)
    assert process.returncode is not None
    return Run(Path(tree["output"]), process.returncode, stderr)


def train(tree: dict[str, Any], ranks: int = ALONE) -> Run:
    return end(start(tree, ranks), tree)


def signal_at(
    step: int,
    number: signal.Signals,
    tree: dict[str, Any],
    kind: type[events.EventBase] = events.Stepped,
    ranks: int = ALONE,
    **environment: str,
) -> Run:
    """Train, and signal every rank as soon as this attempt has logged an event of that kind at `step` or later."""
    file = Path(tree["output"]) / "events.jsonl"
    offset = file.stat().st_size if file.exists() else 0
    process = start(tree, ranks, **environment)

    def logged() -> bool:
        assert process.poll() is None, f"ended before step {step} was seen: {process.communicate(1)[1]}"
        return any(isinstance(event, kind) and event.step >= step for event in read_events(file, offset))

    wait_for(logged, every_seconds=0.002)
    process.send_signal(number)
    return end(process, tree)


def wait_for(
    condition: Callable[[], object], seconds: float = SECONDS_FOR_ANYTHING, every_seconds: float = 0.1
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing after {seconds} s"
        time.sleep(every_seconds)


def what_was_said(run: Run) -> dict[tuple[str, int], dict[str, Any]]:
    """The timeline by kind and step, without what differs from run to run: clock times, resumptions, checkpoints."""
    timing = {"time", "seconds", "tokens_per_second", "attempt"}
    of_lives = events.Started | events.Warned | events.Checkpointed
    return {
        (event.event, event.step): event.model_dump(exclude=timing)
        for event in timeline(run.events)
        if not isinstance(event, of_lives)
    }


def assert_ends_like(resumed: Run, unbroken: Run) -> None:
    """Bit for bit: every loss, velocity, weight and count told of any step, the result, and the trained model."""
    assert resumed.returncode == 0, resumed.stderr
    assert what_was_said(resumed) == what_was_said(unbroken)
    assert resumed.result.final == unbroken.result.final
    assert resumed.result.domain_weights == unbroken.result.domain_weights
    assert resumed.result.tokens_per_domain == unbroken.result.tokens_per_domain
    ours, theirs = resumed.weights, unbroken.weights
    assert set(ours) == set(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
