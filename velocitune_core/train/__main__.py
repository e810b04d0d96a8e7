"""The training program: `python -m velocitune_core.train job.json`, or the same under `torchrun -m`.

The job is a training or an evaluation. Once no other process runs in the job's output folder, a training resumes from
the newest valid checkpoint there, and an evaluation measures what its event file lacks.

Exit status: 0 finished, 75 stopped on request, after saving if it had begun (start it again to resume), 2 the job or
its data cannot work, 1 any other failure. `torchrun` turns the last three into 1; outcome.json in the output folder
says which it was.

`--all FOLDER` runs what is not finished in a folder of jobs that `python -m flows.jobs` wrote, with the same statuses.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path

from velocitune_core.parallel.openmp import short_spin
from velocitune_core.train.stop import REFUSED, StopRequest


def main() -> int:
    """Parse the command line and run the job; return the exit status."""
    request = StopRequest()  # first: a signal while modules are imported, for seconds, must not end the process
    command_line = importlib.import_module("velocitune_core.cli.programs")  # by name, as no run executes it
    path_argument = importlib.import_module("velocitune_core.cli.parser").path_argument
    parser = command_line.program_parser(
        "python -m velocitune_core.train", __doc__, workspace="run in this folder; other paths are relative to it"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("job", type=path_argument, nargs="?", help="JSON file of a TrainJob or an EvaluationJob")
    what.add_argument(
        "--all", type=path_argument, metavar="FOLDER", help="run what is not finished in a folder of jobs"
    )
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="with --all: at most N runs per device")
    parser.add_argument("--parent", type=int, help="process id of the launcher: stop and save once it has exited")
    parser.add_argument("--accept-changes", action="store_true", help="resume a checkpoint of a job that differs")
    arguments = parser.parse_args()
    request.watch(arguments.parent)
    if arguments.all is not None:  # by name, too
        importlib.import_module("velocitune_core.train.retried_writes").retry_standard_streams()
        run_all = importlib.import_module("velocitune_core.job_folder.command").run_all
        return run_all(arguments.all, request, arguments.parallel)
    return train(arguments.job, request, arguments.accept_changes)


def train(path: Path, request: StopRequest, accept_changes: bool = False) -> int:
    """Run the job of a file; return the exit status."""
    from velocitune_core.train.job import read_job  # slow imports wait until the arguments are known to be valid
    from velocitune_core.train.outcome import write_refusal
    from velocitune_core.train.retried_writes import retry_standard_streams

    retry_standard_streams()
    try:
        job = read_job(path)
    except ValueError as error:
        write_refusal(path, str(error))
        sys.stderr.write(f"{error}\n")
        return REFUSED
    os.environ.update(short_spin(os.environ))  # before torch, which brings libgomp
    import torch

    warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a single rank saves without it
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")  # `float32` means all of its digits
    if job.threads:
        torch.set_num_threads(job.threads)
    from velocitune_core.parallel.ranks import join_ranks, leave_ranks
    from velocitune_core.train.attempt import end_before, run_attempt

    if request():  # or it would wait for other ranks, which are stopped, too
        return end_before(
            job, "stopped", f"{job.name} stopped before it began", is_main=os.environ.get("RANK", "0") == "0"
        )
    with request.at_once():
        ranks = join_ranks()
    try:
        return run_attempt(job, ranks, request, accept_changes)
    finally:
        leave_ranks()


if __name__ == "__main__":
    sys.exit(main())
