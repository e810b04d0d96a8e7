"""How an attempt ended: outcome.json in the run folder.

An exit status says less: `torchrun` turns each that is not 0 into 1. A start that ended before it had the folder, or
whose job file was refused, has a file of its own there, outcome-<id of the start>.json, until a run finishes in it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from velocitune_core.files import write_text
from velocitune_core.train.job import Job
from velocitune_core.train.stop import ENDED_BY_STOP_SIGNAL, FINISHED, REFUSED, STOPPED

End = Literal["finished", "stopped", "refused", "failed"]
FILE = "outcome.json"
LOG = "log.txt"  # what the processes of a run print
LOG_LINES_SHOWN = 15


class Outcome(BaseModel):
    """The end of one attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ended: End
    message: str
    start_id: str  # of the job
    recipe: str  # fingerprint of the job


def write_outcome(job: Job, ended: End, message: str = "") -> None:
    """Write how this attempt ended, unless another rank has: the first error is the cause of the others.

    Only the holder of the folder may call. Nothing is written on a full disk, and no folder is made: a refused job
    leaves nothing behind.
    """
    folder = Path(job.output)
    earlier = read_outcome(folder)
    if not folder.is_dir() or (earlier is not None and job.start_id and earlier.start_id == job.start_id):
        return
    _write(folder / FILE, job, ended, message)
    if ended == "finished":  # which is how other starts of this folder end too
        for file in folder.glob("outcome-*.json"):
            with suppress(OSError):
                file.unlink()


def write_end_before_start(job: Job, ended: End, message: str) -> None:
    """Write how this start ended before it held the folder, to a file of its own: FILE is the holder's.

    Without the id of a start nobody could find it, and nothing is written.
    """
    if job.start_id:
        _write(_file_of(Path(job.output), job.start_id), job, ended, message)


def write_refusal(job_file: Path, message: str) -> None:
    """Write that a job file is refused which cannot be read, to a file of its start: under torchrun no status says so.

    Nothing is written where the file does not even say which start it is for.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        tree = json.loads(job_file.read_text(encoding="utf-8"))
        outcome = Outcome(ended="refused", message=message, start_id=tree["start_id"], recipe="")
        if outcome.start_id and Path(tree["output"]).is_dir():
            write_text(_file_of(Path(tree["output"]), outcome.start_id), outcome.model_dump_json(indent=1))


def _write(file: Path, job: Job, ended: End, message: str) -> None:
    outcome = Outcome(ended=ended, message=message, start_id=job.start_id, recipe=job.fingerprint())
    with suppress(OSError):  # the exit status says what it can
        write_text(file, outcome.model_dump_json(indent=1))


def read_outcome(folder: Path) -> Outcome | None:
    """Return how the last attempt in a run folder ended; None while one runs, or if it was killed."""
    return _read(folder / FILE)


def _read(file: Path) -> Outcome | None:
    try:
        return Outcome.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def _file_of(folder: Path, start_id: str) -> Path:
    return folder / f"outcome-{start_id}.json"


def _outcome_of(folder: Path, start_id: str) -> Outcome | None:
    """Return what a start of a run wrote about its end, as the holder of the folder or before it was that."""
    found = (_read(folder / FILE), _read(_file_of(folder, start_id)))
    return next((each for each in found if each is not None and each.start_id == start_id), None)


def end_of(folder: Path, start_id: str, status: int, recipe: str = "") -> End:
    """Return how a start of a run ended: as it wrote, or, if it wrote nothing, as its exit status says.

    Args:
        recipe: fingerprint of its job, whose result in the folder counts for more than the status, which can be lost.
    """
    if (outcome := _outcome_of(folder, start_id)) is not None:
        return outcome.ended
    if recipe and _has_result(folder, recipe):
        return "finished"
    if status in ENDED_BY_STOP_SIGNAL:  # it came before the program could handle it, so nothing was begun
        return "stopped"
    ends: dict[int, End] = {FINISHED: "finished", STOPPED: "stopped", REFUSED: "refused"}
    return ends.get(status, "failed")


def message_of(folder: Path, start_id: str) -> str:
    """Return what a start of a run wrote about its end; empty if it wrote nothing."""
    outcome = _outcome_of(folder, start_id)
    return "" if outcome is None else outcome.message


def end_of_log(folder: Path) -> str:
    """Return where the log of a run folder is, and its last lines."""
    log = folder / LOG
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    return "\n".join([f"The end of {log}:", *lines]) if lines else f"{log} is empty."


def has_finished(job: Job) -> bool:
    """Return whether the job's folder holds the result of its recipe, however later attempts there ended."""
    return _has_result(Path(job.output), job.fingerprint())


def _has_result(folder: Path, recipe: str) -> bool:
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(result, dict) and result.get("recipe") == recipe
