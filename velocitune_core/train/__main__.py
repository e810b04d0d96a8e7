"""The training program: `python -m velocitune_core.train job.json`, or the same under `torchrun -m`.

The job is a training or an evaluation. A training resumes from the newest valid checkpoint in the job's output folder,
an evaluation measures what its event file lacks.

Exit status: 0 finished, 75 stopped on request after saving (start it again to resume), 2 the job or its data cannot
work, 1 any other failure.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

from velocitune_core.parallel.openmp import short_spin
from velocitune_core.train.stop import FINISHED, REFUSED, STOPPED, Interrupted, StopRequest


def main() -> int:
    """Parse the command line and run the job; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m velocitune_core.train", description=__doc__)
    parser.add_argument("job", type=Path, help="JSON file of a TrainJob or an EvaluationJob")
    parser.add_argument("--parent", type=int, help="process id of the launcher: stop and save once it has exited")
    parser.add_argument("--accept-changes", action="store_true", help="resume a checkpoint of a job that differs")
    arguments = parser.parse_args()
    return train(arguments.job, arguments.parent, arguments.accept_changes)


def train(path: Path, parent: int | None = None, accept_changes: bool = False) -> int:
    """Run the job of a file; return the exit status."""
    from velocitune_core.evaluation.evaluation_job import EvaluationJob
    from velocitune_core.train.job import read_job  # slow imports wait until the arguments are known to be valid

    try:
        job = read_job(path)
    except ValueError as error:
        return _refuse(error)
    os.environ.update(short_spin(os.environ))  # before torch, which brings libgomp
    import torch

    warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a single rank saves without it
    if job.threads:
        torch.set_num_threads(job.threads)
    from velocitune_core.parallel.ranks import join_ranks, leave_ranks
    from velocitune_core.train.events import EventFile
    from velocitune_core.train.progress_bar import ProgressBar

    ranks = join_ranks()
    request = StopRequest(parent)
    events = EventFile(Path(job.output) / "events.jsonl") if ranks.is_main else None
    bar = ProgressBar() if ranks.is_main else None
    try:
        listeners = [each for each in (events, bar) if each is not None]
        if isinstance(job, EvaluationJob):
            from velocitune_core.train.evaluator import Evaluator

            Evaluator(job, ranks, listeners, request).run()
        else:
            from velocitune_core.train.trainer import Trainer  # scipy among others, which no evaluation waits for

            Trainer(job, ranks, listeners, request, accept_changes).run()
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        return STOPPED
    except ValueError as error:
        return _refuse(error)
    finally:
        if events and bar:
            events.close()
            bar.close()
        leave_ranks()
    return FINISHED


def _refuse(error: ValueError) -> int:
    sys.stderr.write(f"{error}\n")
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
