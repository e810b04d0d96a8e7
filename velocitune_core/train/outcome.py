"""How an attempt ended: outcome.json in the run folder.

An exit status says less: `torchrun` turns each that is not 0 into 1.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from velocitune_core.files import write_text
from velocitune_core.train.job import Job
from velocitune_core.train.stop import FINISHED, REFUSED, STOPPED

End = Literal["finished", "stopped", "refused", "failed"]
FILE = "outcome.json"


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
    outcome = Outcome(ended=ended, message=message, start_id=job.start_id, recipe=job.fingerprint())
    earlier = read_outcome(folder)
    if not folder.is_dir() or (earlier is not None and job.start_id and earlier.start_id == job.start_id):
        return
    with suppress(OSError):  # the exit status says what it can
        write_text(folder / FILE, outcome.model_dump_json(indent=1))


def read_outcome(folder: Path) -> Outcome | None:
    """Return how the last attempt in a run folder ended; None while one runs, or if it was killed."""
    try:
        return Outcome.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def end_of(folder: Path, start_id: str, status: int) -> End:
    """Return how a start of a run ended: as it wrote, or, if it wrote nothing, as its exit status says."""
    outcome = read_outcome(folder)
    if outcome is not None and outcome.start_id == start_id:
        return outcome.ended
    ends: dict[int, End] = {FINISHED: "finished", STOPPED: "stopped", REFUSED: "refused"}
    return ends.get(status, "failed")


def message_of(folder: Path, start_id: str) -> str:
    """Return what a start of a run wrote about its end; empty if it wrote nothing."""
    outcome = read_outcome(folder)
    return outcome.message if outcome is not None and outcome.start_id == start_id else ""


def has_finished(job: Job) -> bool:
    """Return whether the job's folder holds the result of its recipe, however later attempts there ended."""
    try:
        result = json.loads((Path(job.output) / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(result, dict) and result.get("recipe") == job.fingerprint()
