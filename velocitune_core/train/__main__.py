"""The training program: `python -m velocitune_core.train job.json`, or the same under `torchrun -m`.

Resumes by itself from the newest sound checkpoint in the job's output folder. Exit status: 0 finished, 75 stopped on
request after saving (start it again to go on), 2 the job or its data cannot work, 1 any other failure.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from pathlib import Path

FINISHED, REFUSED, STOPPED = 0, 2, 75  # 75 is EX_TEMPFAIL of sysexits.h: try again


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m velocitune_core.train", description=__doc__)
    parser.add_argument("job", type=Path, help="JSON file of a TrainJob")
    parser.add_argument("--parent", type=int, help="process id of the launcher: stop and save when it is gone")
    parser.add_argument("--accept-changes", action="store_true", help="go on from a checkpoint of a job that differs")
    arguments = parser.parse_args()
    return train(arguments.job, arguments.parent, arguments.accept_changes)


def train(path: Path, parent: int | None = None, accept_changes: bool = False) -> int:
    """Run the job; returns the exit status."""
    from velocitune_core.train.job import read_job  # imports wait until the arguments are known to be right

    try:
        job = read_job(path)
    except ValueError as error:
        return _refuse(error)
    import torch

    warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process alone is no mistake
    if job.threads:
        torch.set_num_threads(job.threads)
    from velocitune_core.parallel.ranks import join_ranks, leave_ranks
    from velocitune_core.train.events import EventFile
    from velocitune_core.train.progress_bar import ProgressBar
    from velocitune_core.train.trainer import Interrupted, Trainer

    ranks = join_ranks()
    request = StopRequest(parent)
    events = EventFile(Path(job.output) / "events.jsonl") if ranks.is_main else None
    bar = ProgressBar() if ranks.is_main else None
    try:
        listeners = [each for each in (events, bar) if each is not None]
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


class StopRequest:
    """True once the run was asked to stop: by SIGTERM or SIGINT, or because its launcher is gone."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._is_child = os.getppid() == parent  # else torchrun stands between
        self._signalled = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def __call__(self) -> bool:
        return self._signalled or (self._parent is not None and self._is_left_alone(self._parent))

    def _is_left_alone(self, parent: int) -> bool:
        if self._is_child:  # a dead parent hands us to another one, even before it is buried
            return os.getppid() != parent
        try:
            os.kill(parent, 0)  # signal 0 only asks
        except ProcessLookupError:
            return True
        return False

    def _note(self, number: int, frame: object) -> None:
        self._signalled = True


def _refuse(error: ValueError) -> int:
    sys.stderr.write(f"{error}\n")
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
