"""The folder of a run: which one is a job's, whose code made it, and what a new one can take from an older one.

A folder is named by the run and the recipe's fingerprint. Beside the files of the training program it holds `job.json`,
the job as it was last started, and `code.json`, the code that it was last started with.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from tasks.workspace import paths
from tasks.workspace.fresh import fresh_since
from tasks.workspace.home import share_run
from velocitune_core.checkpoint.names import saved_checkpoints, step_of
from velocitune_core.contracts import TrainResult
from velocitune_core.files import link_or_copy, replacing, write_text
from velocitune_core.train.events import Evaluated, Reweighted, Stepped, read_events
from velocitune_core.train.extension import common_steps
from velocitune_core.train.job import KEY_LENGTH, Job, TrainJob, differences, recipe_of
from velocitune_core.train.run_lock import alone_in
from velocitune_core.train.timeline import timeline
from velocitune_core.training_code import changed_files, code_of, read_code, record_code

logger = logging.getLogger(__name__)
REPLACED = paths.RUNS / "replaced"  # folders of runs that were started over


def run_folder(job: Job) -> Path:
    """Return where a job runs: another recipe has another folder, another way of executing it has the same.

    A job that has no folder yet shares that of a finished run of its recipe under another name: what a comparison has
    trained is not trained again by the pipeline, nor the other way round.
    """
    own = paths.RUNS / job.folder_name
    return own if own.exists() else _finished_under_another_name(job) or own


def _finished_under_another_name(job: Job) -> Path | None:
    if not isinstance(job, TrainJob):
        return None
    for result in sorted(paths.RUNS.glob(f"*{job.folder_name.removeprefix(job.name)}/result.json")):
        folder = result.parent
        if not _must_start_over(folder, job) and (not job.save_model or (folder / "model").exists()):
            return folder
    return None


def is_finished(job: Job) -> bool:
    """Return whether a run of this recipe has its result, and the code of the run is the code that made it."""
    folder = run_folder(job)
    return (folder / "result.json").exists() and not _must_start_over(folder, job)


def finished_result(job: TrainJob) -> TrainResult | None:
    """Return the result of a finished training, if it may be used. Raises ContractError if it cannot be read."""
    return read_result(run_folder(job), job) if is_finished(job) else None


def read_result(folder: Path, job: TrainJob) -> TrainResult:
    """Return the result of a finished run, under the name of the job. Raises ContractError if it cannot be read."""
    return TrainResult.read(folder / "result.json").model_copy(update={"name": job.name})


@contextmanager
def alone_in_run_folder(job: Job) -> Iterator[None]:
    """Hold the folder of a job, if it exists, after waiting for the end of a process that still runs in it."""
    folder = run_folder(job)
    with alone_in(folder, logger.warning) if folder.exists() else nullcontext():
        yield


def open_run_folder(job: Job) -> Path:
    """Return the folder of an unfinished run, made ready: continued, extended from a shorter run, or empty.

    What the run is continued from is logged, with the files of the code and the fields of the recipe that changed.
    """
    folder = run_folder(job)
    if folder.exists() and _must_start_over(folder, job):
        _move_aside(folder, job)
    share_run(folder)
    if isinstance(job, TrainJob) and not _checkpoints(folder):
        _compare_with_siblings(folder, job)
    code = read_code(folder)
    if code is not None and (changed := changed_files(code.files, code_of(job))):
        logger.warning(
            "%s: goes on in %s under other code than it was started with; changed: %s; --fresh starts it over",
            job.name,
            folder,
            ", ".join(changed),
        )
    return folder


def record_start(folder: Path, job: Job) -> None:
    """Write job.json and code.json."""
    write_text(folder / "job.json", job.model_dump_json(indent=2))
    # A worker's clock may be behind that of the command that gave --fresh.
    record_code(folder, job, max(time.time(), fresh_since() or 0.0))


def _must_start_over(folder: Path, job: Job) -> bool:
    """Whether what a folder holds is not to be used: made before --fresh, or finished by other code."""
    code, since = read_code(folder), fresh_since()
    if since is not None and (code is None or code.started < since):
        return True
    if not (folder / "result.json").exists():
        return False
    return code is None or bool(changed_files(code.files, code_of(job)))


def _move_aside(folder: Path, job: Job) -> None:
    link = folder if folder.is_symlink() else None  # in a copy of the repository, which has the run itself
    folder = folder if link is None else folder.resolve()
    replaced = folder.parent / REPLACED.name
    replaced.mkdir(parents=True, exist_ok=True)
    names = (replaced / f"{folder.name}-{number}" for number in count())
    aside = next(name for name in names if not name.exists())
    why = "because of --fresh" if fresh_since() else f"its code changed: {_changed_code(folder, job)}"
    logger.warning("%s: starts over, %s; what was in %s is now in %s", job.name, why, folder, aside)
    folder.rename(aside)
    if link is not None:
        link.unlink()


def _compare_with_siblings(folder: Path, job: TrainJob) -> None:
    """Take the state of another run of this name where the recipes allow it; log how the recipes differ otherwise."""
    siblings = _siblings(folder, job)
    if not siblings:
        return
    if fresh_since() is None and (found := _longest_common(siblings, job)) and _extend(folder, *found, job):
        return
    if (folder / "job.json").exists():  # started before
        return
    newest, tree = siblings[0]
    lines = differences(recipe_of(tree), job.recipe())
    reason = "" if fresh_since() is not None else _not_extended(_why_not_extended(newest, tree, job), lines)
    logger.info("%s: a new run in %s; in %s it differs by:\n%s%s", job.name, folder, newest, "\n".join(lines), reason)


def _siblings(folder: Path, job: TrainJob) -> list[tuple[Path, dict[str, Any]]]:
    """Folders of the same run under other recipes, with their jobs, the one that was started last first."""
    name = re.compile(re.escape(job.name) + f"-[0-9a-f]{{{KEY_LENGTH}}}")
    found = []
    for file in paths.RUNS.glob(f"{job.name}-*/job.json"):
        if name.fullmatch(file.parent.name) and file.parent != folder:
            try:
                tree = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(tree, dict):
                found.append((file.stat().st_mtime, file.parent, tree))
    return [(path, tree) for _, path, tree in sorted(found, key=lambda each: each[0], reverse=True)]


def _longest_common(siblings: list[tuple[Path, dict[str, Any]]], job: TrainJob) -> tuple[Path, int] | None:
    """Return the sibling that has the latest checkpoint a job can go on from, and how many steps they share.

    Only siblings whose code is the present one count: the result will be taken as made by it.
    """
    best, latest = None, -1
    for sibling, tree in siblings:
        if _changed_code(sibling, job):
            continue
        shared, _ = common_steps(recipe_of(tree), job)
        newest = max((step_of(each) for each in _checkpoints(sibling) if step_of(each) <= shared), default=-1)
        if newest > latest:
            best, latest = (sibling, shared), newest
    return best


def _why_not_extended(sibling: Path, tree: Mapping[str, Any], job: TrainJob) -> str:
    if reason := common_steps(recipe_of(tree), job)[1]:  # first: another strategy is other code, too
        return reason
    if changed := _changed_code(sibling, job):
        return f"its code is another one; changed: {changed}"
    return "it has no checkpoint so early"


def _not_extended(why: str, lines: Sequence[str]) -> str:
    """Return the line on why a run cannot be extended below how it differs, without the values that are there."""
    same = next((line.strip() for line in lines if why == f"{line.strip()} differs"), None)
    if same is None:
        return f"\nit cannot be extended: {why}"
    return "" if len(lines) == 1 else f"\nit cannot be extended, as {same.partition(':')[0]} differs"


def _changed_code(folder: Path, job: Job) -> str:
    """Return the files of the present code that a run was not made by; empty if it was made by this code."""
    code = read_code(folder)
    return "unknown" if code is None else ", ".join(changed_files(code.files, code_of(job)))


def _extend(folder: Path, sibling: Path, shared: int, job: TrainJob) -> bool:
    """Begin a folder with another run's checkpoints of shared steps, and with what it logged until the newest.

    All of them are taken, as the newest may turn out to be corrupt. A process that still runs in the other folder, as
    one whose launcher was killed, is waited for: it might delete a checkpoint meanwhile. Returns whether any was there.
    """
    with alone_in(sibling, logger.warning):
        checkpoints = [each for each in _checkpoints(sibling) if step_of(each) <= shared]
        if not checkpoints:
            return False
        step = step_of(checkpoints[0])
        logger.info("%s: a new run in %s, which goes on from step %d of %s", job.name, folder, step, sibling)
        kept = [
            event
            for event in timeline(read_events(sibling / "events.jsonl"))
            if isinstance(event, Stepped | Evaluated | Reweighted) and event.step <= step
        ]
        # Not the folder as a whole: its lock is held. Checkpoints last: as long as there are none, this begins again.
        write_text(folder / "events.jsonl", "".join(event.model_dump_json() + "\n" for event in kept))
        with replacing(folder / "checkpoints") as temporary:
            for checkpoint in checkpoints:
                shutil.copytree(checkpoint, temporary / checkpoint.name, copy_function=link_or_copy)
    return True


def _checkpoints(folder: Path) -> list[Path]:
    return saved_checkpoints(folder / "checkpoints")
