"""Runs that are finished, without training."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.runs.run_folder import record_start, run_folder
from velocitune_core.contracts import LossPoint, Timings, TrainResult
from velocitune_core.train.job import TrainJob


def finish(job: TrainJob, points: Sequence[LossPoint] = ()) -> None:
    """Write the files of a finished run that a comparison reads."""
    result = TrainResult(
        name=job.name,
        strategy=job.strategy.name,
        precision="float32",
        steps=job.total_steps,
        tokens=1,
        parameters=1,
        final={},
        points=list(points),
        domain_weights=[],
        mean_domain_weights=job.initial_domain_weights,
        tokens_per_domain={},
        epochs_per_domain={},
        tokens_per_second=1.0,
        seconds=Timings(),
    )
    record_start(run_folder(job), job)
    result.write(run_folder(job) / "result.json")
    (run_folder(job) / "model").mkdir()
    (run_folder(job) / "model/config.json").write_text("{}")
