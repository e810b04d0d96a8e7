"""Run a few optimizer steps, held-out batches and a checkpoint of a real model: `python -m velocitune_core.plan.probe`.

Takes a probe.json and writes what was measured, times, peak bytes and operations, beside it. Started like a training
run, alone or by `torchrun -m`, so that it uses the same threads and devices, and leaves nothing allocated in the
process that plans. Token ids are random, since times do not depend on the text.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from velocitune_core.config import Execution, Positive, Section, Training
from velocitune_core.plan.cost import FLOAT32_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from velocitune_core.parallel.ranks import Ranks
    from velocitune_core.plan.counted import PeakBytes

EVALUATIONS = 9  # at most; they are short, and the median of three was sometimes too high
SMALLER = 4  # the full micro-batch over the smaller one that is tried before it
DOMAIN = "random"


class Probe(Section):
    """What to time, as read from probe.json."""

    model: str  # transformers folder, with weights
    training: Training
    execution: Execution
    sequence_length: Positive
    vocabulary_size: Positive
    document_start: Annotated[int, Field(ge=0)] | None = None  # as in a TrainJob
    evaluation_sequences: Positive  # per forward pass and rank
    steps: Positive  # at most, after an untimed first one
    seconds: float  # after which no further step starts
    saves: bool  # also time a checkpoint, written beside probe.json
    threads: Positive


class Peak(Section):
    """The peak of a run under one micro-batch: of its process on a CPU, of its tensors on a GPU."""

    batch_sequences: Positive  # over all ranks
    micro_batch_sequences: Positive
    evaluation_sequences: Positive
    peak_bytes: int


class ProbeResult(Section):
    """What was measured; times are medians in seconds."""

    ready: float  # time of being ready for the first step, seconds since the epoch
    step: float  # of one step of training.batch_sequences
    steps: int  # number of timed steps
    evaluation: float  # of one forward pass of evaluation_sequences on every rank
    checkpoint: float | None  # None: not timed
    libraries_bytes: int  # of the process before its tensors; 0 on a GPU
    peaks: list[Peak]  # by rising micro-batch
    tensor_bytes: int  # peak of a step with the smallest micro-batch, beside parameters and moments
    step_flops: float  # per token of a step
    evaluation_flops: float  # per token of an evaluation


def main(path: Path) -> None:
    """Run the probe that the file describes and write result.json beside it."""
    probe = Probe.model_validate_json(path.read_text(encoding="utf-8"), strict=False)
    import torch

    torch.set_num_threads(probe.threads)
    from velocitune_core.parallel.ranks import join_ranks, leave_ranks

    ranks = join_ranks()
    try:
        result = measure(probe, ranks, path.parent)
        if ranks.is_main:
            (path.parent / "result.json").write_text(result.model_dump_json(), encoding="utf-8")
    finally:
        leave_ranks()


def measure(probe: Probe, ranks: Ranks, scratch: Path) -> ProbeResult:
    """Run steps, evaluations and a checkpoint; collective over all ranks. Write only below `scratch`.

    A smaller micro-batch is tried first, so that its peak is not hidden by what the larger one leaves in the heap.
    """
    from velocitune_core.plan.counted import PeakBytes, flops, tensor_peak

    memory = PeakBytes(ranks.device)
    run = _ProbedRun(probe, ranks, scratch)
    ready, tensors = time.time(), run.parameters_bytes // ranks.world_size
    libraries = 0 if ranks.device.type == "cuda" else max(0, memory.now - tensors)
    full = probe.execution.micro_batch_sequences or probe.training.batch_sequences // ranks.world_size
    small, peaks = max(1, full // SMALLER), []
    if small < full:
        peaks.append(run.peak_of(small, memory))
    memory.restart()
    steps = _timed(run.step, probe.steps, probe.seconds, ranks)
    evaluations = _timed(run.evaluate, EVALUATIONS, probe.seconds / 2, ranks)
    checkpoint = run.save(run.step) if probe.saves else None
    peaks.append(
        Peak(
            batch_sequences=probe.training.batch_sequences,
            micro_batch_sequences=full,
            evaluation_sequences=probe.evaluation_sequences,
            peak_bytes=memory.peak,
        )
    )
    return ProbeResult(
        ready=ready,
        step=median(steps),
        steps=len(steps),
        evaluation=median(evaluations),
        checkpoint=checkpoint,
        libraries_bytes=libraries,
        peaks=peaks,
        tensor_bytes=tensor_peak(lambda: run.accumulate(small), ranks.device),
        step_flops=flops(run.step) / (probe.training.batch_sequences // ranks.world_size * probe.sequence_length),
        evaluation_flops=flops(run.evaluate) / (probe.evaluation_sequences * probe.sequence_length),
    )


class _ProbedRun:
    """A Learner on random tokens, and the checkpoint writer of a run."""

    def __init__(self, probe: Probe, ranks: Ranks, scratch: Path) -> None:
        import numpy as np

        from velocitune_core.checkpoint.background import CheckpointWriter
        from velocitune_core.train.learner import Learner

        self._probe, self._ranks = probe, ranks
        self._random = np.random.default_rng(ranks.rank)
        self._learner = Learner(probe.model, probe.training, probe.execution, ranks, None, probe.document_start)
        self._writer = CheckpointWriter(scratch / "checkpoints", 1, ranks)
        self.parameters_bytes = FLOAT32_BYTES * self._learner.parameters

    def step(self) -> None:
        """Take one optimizer step."""
        self._gradients(self._probe.training.batch_sequences // self._ranks.world_size)
        self._learner.apply(self._probe.training.optimizer.learning_rate)

    def accumulate(self, sequences: int) -> None:
        """Take one optimizer step of two micro-batches of so many sequences each."""
        self._gradients(sequences)
        self._gradients(sequences)
        self._learner.apply(self._probe.training.optimizer.learning_rate)

    def evaluate(self, sequences: int | None = None) -> None:
        """Take one forward pass on every rank."""
        each = sequences or self._probe.evaluation_sequences
        self._learner.evaluate({DOMAIN: self._tokens(each * self._ranks.world_size)}, each)

    def save(self, meanwhile: Callable[[], None]) -> float:
        """Write a checkpoint, and train on meanwhile; return the seconds from the copy to the end."""
        self._writer.start(1, self._learner.state(), {})
        meanwhile()
        return self._writer.outcome().seconds

    def peak_of(self, sequences: int, memory: PeakBytes) -> Peak:
        """Return the peak of steps that accumulate two micro-batches, an evaluation, and a checkpoint if asked for."""
        evaluated = min(sequences, self._probe.evaluation_sequences)
        memory.restart()
        for _ in range(2):
            self.accumulate(sequences)
        self.evaluate(evaluated)
        if self._probe.saves:
            self.save(lambda: self.accumulate(sequences))
        return Peak(
            batch_sequences=2 * sequences * self._ranks.world_size,
            micro_batch_sequences=sequences,
            evaluation_sequences=evaluated,
            peak_bytes=memory.peak,
        )

    def _gradients(self, sequences: int) -> None:
        import numpy as np
        import torch

        tokens = torch.from_numpy(self._tokens(sequences))
        assert self._learner.gradients(tokens, np.zeros(sequences, dtype=np.int64), 1).finite

    def _tokens(self, sequences: int) -> NDArray[np.int64]:
        """Return random tokens; with `document_start` there are two documents per sequence."""
        shape = (sequences, self._probe.sequence_length)
        tokens = self._random.integers(self._probe.vocabulary_size, size=shape)
        if self._probe.document_start is not None:
            tokens[:, shape[1] // 2] = self._probe.document_start
        return tokens


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
