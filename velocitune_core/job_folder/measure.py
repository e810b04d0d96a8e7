"""The initial losses of a folder of jobs: `python -m velocitune_core.job_folder.measure jobs/initial.json`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from velocitune_core.contracts import InitialLosses
from velocitune_core.job_folder.contents import INITIAL, InitialJob, read_initial_job
from velocitune_core.parallel.openmp import short_spin


def measure(job: InitialJob) -> InitialLosses:
    """Return the held-out losses of a model in nats per token, in the precision and batch size of its training."""
    from velocitune_core.data.dataset import load_split
    from velocitune_core.parallel.ranks import join_ranks
    from velocitune_core.train.learner import Learner

    start = time.perf_counter()
    held_out = {name: load_split(Path(files.held_out)) for name, files in job.domains.items()}
    learner = Learner(job.model, job.training, job.execution, join_ranks())
    losses = learner.evaluate(held_out, job.execution.evaluation_micro_batch_sequences)
    assert job.training.precision != "auto", "resolved by whoever wrote the folder"
    return InitialLosses(
        precision=job.training.precision,
        losses=losses,
        tokens={name: rows.shape[0] * (rows.shape[1] - 1) for name, rows in held_out.items()},
        seconds=time.perf_counter() - start,
    )


if __name__ == "__main__":
    os.environ.update(short_spin(os.environ))  # before torch, which brings libgomp
    measure(read_initial_job(Path(sys.argv[1]))).write(INITIAL)
