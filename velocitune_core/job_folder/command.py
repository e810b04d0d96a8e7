"""`python -m velocitune_core.train --all FOLDER`: check the folder, hold it, run what is not finished in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from velocitune_core.config import ConfigError
from velocitune_core.files import describe_holder, file_sha256, link_or_copy
from velocitune_core.job_folder.contents import JOBS, JobFolder, read_jobs
from velocitune_core.job_folder.machine import find_devices
from velocitune_core.job_folder.results import Results
from velocitune_core.job_folder.runner import Runner
from velocitune_core.model.build import draw_parameters
from velocitune_core.model.io import UNTRAINED, model_digest
from velocitune_core.train.job import Job
from velocitune_core.train.run_lock import RunLock
from velocitune_core.train.stop import REFUSED, STOPPED, Interrupted
from velocitune_core.training_code import changed_files, code_of_all

T = TypeVar("T")


def run_all(root: Path, should_stop: Callable[[], bool], parallel: int = 1) -> int:
    """Run what is not finished in a folder of jobs; return an exit status as the training program's.

    Args:
        should_stop: as the `Runner` has it.
        parallel: likewise.
    """
    try:
        if parallel < 1:
            raise ConfigError(f"--parallel: {parallel} runs per device are none; give a number from 1")
        if not (root / JOBS).exists():
            raise ConfigError(f"{root}: no {JOBS} in it; name a folder that `python -m flows.jobs` wrote")
        os.chdir(root)
        folder = JobFolder.read(JOBS)
        with _held():
            jobs = read_jobs(Path(), folder)
            _make_copies(folder, should_stop)
            check(folder, jobs, should_stop)
            _draw_parameters(jobs, should_stop)
            results = Results(Path(), folder.steps, jobs)
            return Runner(folder, results, find_devices(), parallel, should_stop).run()
    except Interrupted as stop:
        sys.stderr.write(f"{stop}\n")
        return STOPPED
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED


def check(folder: JobFolder, jobs: Mapping[str, Job], should_stop: Callable[[], bool]) -> None:
    """Compare this machine's program, and the folder's data and models, with what the folder was written for.

    Raises ConfigError naming every file that differs, and Interrupted if stopped before all are read.
    """
    problems = [
        f"{name}: not the code that the folder was written by; take the same version of Velocitune"
        for name in changed_files(folder.code, code_of_all(jobs.values()))
    ]
    files = dict(file for job in jobs.values() for file in job.files())
    for path, expected in _until_stopped(files.items(), should_stop):
        if not path.is_file():
            problems.append(f"{path}: missing; copy the whole folder")
        elif file_sha256(path) != expected:
            problems.append(f"{path}: damaged; copy the folder again")
    models = {(job.model, job.model_sha256) for job in jobs.values() if job.model_sha256}
    for path, expected in _until_stopped(models, should_stop):
        if not Path(path).is_dir():
            problems.append(f"{path}: no such model folder; copy it to this place")
        elif model_digest(Path(path)) != expected:
            problems.append(f"{path}: not the model that the folder was written for")
    if problems:
        raise ConfigError("\n".join(problems))


def _until_stopped(items: Iterable[T], should_stop: Callable[[], bool]) -> Iterator[T]:
    """Yield items, of which each may take a while. Raises Interrupted once the command is to stop."""
    for item in items:
        if should_stop():
            raise Interrupted("stopped before all files of the folder were ready; no run was started")
        yield item


def _make_copies(folder: JobFolder, should_stop: Callable[[], bool]) -> None:
    """Make the files that are stored once and read under several names."""
    for name, original in _until_stopped(folder.copies.items(), should_stop):
        if not Path(name).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(original, name)


def _draw_parameters(jobs: Mapping[str, Job], should_stop: Callable[[], bool]) -> None:
    """Draw the parameters of untrained models, which the folder does not hold: the seed gives them."""
    for path in _until_stopped({job.model for job in jobs.values()}, should_stop):
        if (Path(path) / UNTRAINED).exists():
            draw_parameters(Path(path))


@contextmanager
def _held() -> Iterator[None]:
    """Hold the current folder for this process. Raises ConfigError if another process runs it."""
    lock = RunLock(Path())
    if not lock.acquire():
        holder = describe_holder(Path("holder.json")) or "another process"
        raise ConfigError(f"{Path.cwd()}: {holder} is running this folder; wait until it ends, or stop it")
    try:
        yield
    finally:
        lock.release()
