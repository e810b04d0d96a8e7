"""One attempt at a job: alone in the run folder, from the newest checkpoint, to an end that is written down."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from velocitune_core.config import ConfigError
from velocitune_core.evaluation.evaluation_job import EvaluationJob
from velocitune_core.parallel.agreement import together
from velocitune_core.parallel.ranks import Ranks
from velocitune_core.train.events import EventFile, Listener
from velocitune_core.train.job import Job
from velocitune_core.train.outcome import FILE, End, has_finished, write_end_before_start, write_outcome
from velocitune_core.train.progress_bar import ProgressBar
from velocitune_core.train.run_lock import SECONDS_BETWEEN_TRIES, RunLock
from velocitune_core.train.stop import FINISHED, REFUSED, STOPPED, Interrupted


class RunFolderError(Exception):
    """A run folder that cannot be locked, whoever tries."""


def run_attempt(job: Job, ranks: Ranks, should_stop: Callable[[], bool], accept_changes: bool = False) -> int:
    """Run a job as far as it goes and return the exit status; every rank must call.

    Waits while another process runs in the folder, and leaves the result alone if that one has finished the same job.
    """
    try:
        with _run_folder(job, ranks, should_stop):
            return _attempt(job, ranks, should_stop, accept_changes)
    except Interrupted as stop:
        return end_before(job, "stopped", str(stop), is_main=ranks.is_main)
    except RunFolderError as error:
        return end_before(job, "refused", str(error), is_main=ranks.is_main)


def _attempt(job: Job, ranks: Ranks, should_stop: Callable[[], bool], accept_changes: bool) -> int:
    """Run a job in a folder that is held, and write how it ended before another process may enter."""
    try:
        if _is_finished(job, ranks):
            sys.stderr.write(f"{job.name} is finished: its result is in {job.output}\n" if ranks.is_main else "")
        else:
            with _listeners(job, ranks) as listeners:
                _run(job, ranks, listeners, should_stop, accept_changes)
        write_outcome(job, "finished")
    except Interrupted as stop:
        return _end(job, "stopped", stop)
    except ValueError as error:
        return _end(job, "refused", error)
    except Exception as error:
        write_outcome(job, "failed", f"{type(error).__name__}: {error}")
        raise
    return FINISHED


def _run(
    job: Job, ranks: Ranks, listeners: list[Listener], should_stop: Callable[[], bool], accept_changes: bool
) -> None:
    if isinstance(job, EvaluationJob):
        from velocitune_core.train.evaluator import Evaluator

        Evaluator(job, ranks, listeners, should_stop).run()
    else:
        from velocitune_core.train.trainer import Trainer  # scipy among others, which no evaluation waits for

        Trainer(job, ranks, listeners, should_stop, accept_changes).run()


def _end(job: Job, ended: End, reason: Exception) -> int:
    """Say and write how an attempt ended that held the folder; return the exit status."""
    write_outcome(job, ended, str(reason))
    return _say(ended, str(reason))


def end_before(job: Job, ended: End, reason: str, *, is_main: bool) -> int:
    """Do the same for an attempt that did not: the folder, with its outcome, may be another process's."""
    if is_main:
        write_end_before_start(job, ended, reason)
    return _say(ended, reason)


def _say(ended: End, reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return STOPPED if ended == "stopped" else REFUSED


@contextmanager
def _run_folder(job: Job, ranks: Ranks, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Hold the run folder for all ranks; the main rank has the lock. Raises Interrupted if stopped before.

    Raises RunFolderError on all ranks if it cannot be locked.
    """
    lock = RunLock(Path(job.output))

    def take() -> bool | ConfigError:
        try:
            return lock.acquire()
        except ConfigError as error:
            return error

    while True:
        taken = together(take if ranks.is_main else None, ranks)
        refused, held, stopping = ranks.count_true(isinstance(taken, ConfigError), taken is True, should_stop())
        if refused:
            raise RunFolderError(str(taken) if taken else f"{job.output}: the main rank cannot lock it")
        if stopping:
            lock.release()
            when = "before it began" if held else f"while it waited for {job.output}"
            raise Interrupted(f"{job.name} stopped {when}")
        if held:
            break
        if ranks.is_main and (news := lock.news()):
            sys.stderr.write(f"{job.name}: {news}\n")
        time.sleep(SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        lock.release()


def _is_finished(job: Job, ranks: Ranks) -> bool:
    """Return whether the folder holds the result of this recipe; otherwise remove how the last attempt ended."""

    def look() -> bool:
        finished = has_finished(job)
        if not finished:
            (Path(job.output) / FILE).unlink(missing_ok=True)
        return finished

    return ranks.any(bool(together(look if ranks.is_main else None, ranks)))


@contextmanager
def _listeners(job: Job, ranks: Ranks) -> Iterator[list[Listener]]:
    """The event file and the progress bar, on the main rank alone."""
    if not ranks.is_main:
        yield []
        return
    file, bar = EventFile(Path(job.output) / "events.jsonl"), ProgressBar()
    try:
        yield [file, bar]
    finally:
        file.close()
        bar.close()
