"""Time a few optimizer steps and held-out batches of a real model: `python -m velocitune_core.plan.probe probe.json`.

Started like a training run, alone or by `torchrun -m`, so that it uses the same threads and devices, and leaves nothing
allocated in the process that plans. Token ids are random, since times do not depend on the text.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from velocitune_core.config import Execution, Positive, Section, Training

if TYPE_CHECKING:
    from velocitune_core.parallel.ranks import Ranks

EVALUATIONS = 9  # at most; they are short, and the median of three was sometimes too high
DOMAIN = "random"


class Probe(Section):
    """What to time, as read from probe.json."""

    model: str  # transformers folder, with weights
    training: Training
    execution: Execution
    sequence_length: Positive
    vocabulary_size: Positive
    evaluation_sequences: Positive  # per forward pass and rank
    steps: Positive  # at most, after an untimed first one
    seconds: float  # after which no further step starts
    saves: bool  # also time a checkpoint, written beside probe.json
    threads: Positive


class ProbeTimings(Section):
    """Measured times, medians in seconds."""

    ready: float  # time of being ready for the first step, seconds since the epoch
    step: float  # of one step of training.batch_sequences
    steps: int  # number of timed steps
    evaluation: float  # of one forward pass of evaluation_sequences on every rank
    checkpoint: float | None  # None: not timed


def main(path: Path) -> None:
    """Run the probe that the file describes and write timings.json beside it."""
    probe = Probe.model_validate_json(path.read_text(encoding="utf-8"), strict=False)
    import torch

    torch.set_num_threads(probe.threads)
    from velocitune_core.parallel.ranks import join_ranks, leave_ranks

    ranks = join_ranks()
    try:
        timings = measure(probe, ranks, path.parent)
        if ranks.is_main:
            (path.parent / "timings.json").write_text(timings.model_dump_json(), encoding="utf-8")
    finally:
        leave_ranks()


def measure(probe: Probe, ranks: Ranks, scratch: Path) -> ProbeTimings:
    """Return times of steps, evaluations and a checkpoint; collective over all ranks. Write only below `scratch`."""
    import numpy as np
    import torch

    from velocitune_core.checkpoint.store import save_checkpoint
    from velocitune_core.train.learner import Learner

    learner = Learner(probe.model, probe.training, probe.execution, ranks)
    ready, random = time.time(), np.random.default_rng(ranks.rank)

    def tokens(sequences: int) -> np.ndarray:
        return random.integers(probe.vocabulary_size, size=(sequences, probe.sequence_length))

    def step() -> None:
        share = probe.training.batch_sequences // ranks.world_size
        batch = learner.gradients(torch.from_numpy(tokens(share)), np.zeros(share, dtype=np.int64), 1)
        assert batch.finite
        learner.apply(probe.training.optimizer.learning_rate)

    def evaluate() -> None:
        rows = tokens(probe.evaluation_sequences * ranks.world_size)
        learner.evaluate({DOMAIN: rows}, probe.evaluation_sequences)

    def save() -> None:
        save_checkpoint(scratch / "checkpoints", 1, learner.state(), {}, keep=1, ranks=ranks)

    steps = _timed(step, probe.steps, probe.seconds, ranks)
    return ProbeTimings(
        ready=ready,
        step=median(steps),
        steps=len(steps),
        evaluation=median(_timed(evaluate, EVALUATIONS, probe.seconds / 2, ranks)),
        checkpoint=_seconds_of(save) if probe.saves else None,
    )


def _timed(act: Callable[[], None], times: int, limit_seconds: float, ranks: Ranks) -> list[float]:
    """Return the seconds of up to `times` calls after an untimed first one; all ranks stop at the same call."""
    act()
    start, seconds = time.perf_counter(), [_seconds_of(act)]
    while len(seconds) < times and not ranks.any(time.perf_counter() - start > limit_seconds):
        seconds.append(_seconds_of(act))
    return seconds


def _seconds_of(act: Callable[[], None]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(Path(sys.argv[1]))
