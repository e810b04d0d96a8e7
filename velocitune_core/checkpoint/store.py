"""Checkpoints that are complete or absent, written by all ranks of a run and read by any number of ranks.

`step-NNNNNNNN/` holds tensors as safetensors, one file per rank (in the layout of torch.distributed.checkpoint's own
safetensors storage, which contains no pickle), and `state.json` with everything else and a hash of each file. A folder
appears under its name when all of that is on the disk.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, SAVED_OFFSETS_KEY
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from velocitune_core.checkpoint.names import saved_checkpoints, step_of
from velocitune_core.files import commit, file_sha256
from velocitune_core.parallel.agreement import PhaseError, gather, together
from velocitune_core.parallel.ranks import SINGLE_RANK, Ranks

logger = logging.getLogger(__name__)
STATE = "state.json"


class CheckpointError(ValueError):
    """A checkpoint that is corrupt, cannot be read, or belongs to another run."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path  # of the checkpoint


class CorruptError(CheckpointError):
    """A checkpoint whose content differs from its hashes: it will never be of use."""


class SaveError(OSError):
    """A checkpoint that could not be written; earlier ones are left as they were."""


@dataclass(frozen=True)
class Checkpoint:
    """A valid checkpoint on the disk; read its tensors with `read_tensors`."""

    path: Path
    step: int
    state: dict[str, Any]  # JSON-ready


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    keep: int,
    keep_through_step: int | None = None,
    corrupt: Collection[Path] = (),
    problem: Exception | None = None,
    ranks: Ranks = SINGLE_RANK,
) -> Path:
    """Write `folder`/step-NNNNNNNN, then delete old ones; every rank calls with its own shards.

    The newest `keep` of at most this step are kept, and the newest one of at most `keep_through_step` steps. One of a
    later step is left alone. One that cannot be deleted stays, with a warning.

    Args:
        state: JSON-ready.
        corrupt: checkpoints that are of no use; those of a later step are deleted too.
        problem: why this rank has nothing to save, if so; the save then fails on all ranks.

    Raises SaveError on all ranks, with the space that was needed and the space that was free.
    """
    path = folder / _name(step)
    temporary = folder / f".{path.name}.tmp"

    def complete(digests: Mapping[str, str]) -> None:
        content = {"step": step, "files": digests, "state_sha256": _state_digest(step, state), "state": state}
        (temporary / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        commit(temporary, path)

    try:
        together(lambda: _make_folder(temporary, problem, ranks), ranks, over_checkpoint_group=True)
        digests = _write_parts(temporary, tensors, ranks)
        together((lambda: complete(digests)) if ranks.is_main else None, ranks, over_checkpoint_group=True)
    except PhaseError as error:
        if ranks.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise SaveError(_save_failure(path, tensors, error)) from None
    if ranks.is_main:  # after the agreement: this checkpoint is on the disk, whatever becomes of older ones
        _prune(folder, step, keep, keep_through_step, corrupt)
    return path


def load_latest(folder: Path, ranks: Ranks = SINGLE_RANK) -> tuple[Checkpoint | None, list[CheckpointError]]:
    """Return the newest valid checkpoint, and what is wrong with each newer one.

    Deletes temporary folders of interrupted saves, so no other process may write checkpoints into the folder. Every
    rank calls. The main rank lists the checkpoints, because each rank of a network file system may find others; each
    hashes its part of the files.
    """
    if ranks.is_main:
        for leftover in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
            shutil.rmtree(leftover, ignore_errors=True)
    problems: list[CheckpointError] = []
    for step in ranks.broadcast_numbers([step_of(path) for path in saved_checkpoints(folder)] if ranks.is_main else []):
        path = folder / _name(step)
        found, problem = None, None
        try:
            found = load_checkpoint(path, ranks)
        except CheckpointError as error:
            problem = error
        unusable, corrupt = ranks.count_true(problem is not None, isinstance(problem, CorruptError))
        if not unusable:
            return found, problems
        kind = CorruptError if corrupt else CheckpointError
        problems.append(kind(path, str(problem or f"{path}: corrupt: another rank could not read it")))
    return None, problems


def load_checkpoint(path: Path, ranks: Ranks = SINGLE_RANK) -> Checkpoint:
    """Verify a checkpoint's hashes and return it; each rank hashes its part of the files.

    Raises CorruptError naming the file that is malformed or differs from its hash, CheckpointError for one that cannot
    be read.
    """
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        if content["state_sha256"] != _state_digest(content["step"], content["state"]):
            raise CorruptError(path, f"{path / STATE}: corrupt: its content differs from its hash")
        for name, expected in sorted(content["files"].items())[ranks.rank :: ranks.world_size]:
            if expected != (found := file_sha256(path / name)):
                raise CorruptError(path, f"{path / name}: corrupt: sha256 {found[:12]}…, saved as {expected[:12]}…")
        return Checkpoint(path, content["step"], content["state"])
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(path, f"{path}: corrupt: {error}") from None
    except OSError as error:
        raise CheckpointError(path, f"{path}: corrupt: {error}") from None


def read_tensors(checkpoint: Checkpoint, into: dict[str, Tensor], ranks: Ranks = SINGLE_RANK) -> None:
    """Overwrite tensors in place, each rank its shards, with those saved under their names; every rank calls.

    Raises CheckpointError on all ranks for a name or shape that the checkpoint does not have.
    """

    def read() -> None:
        try:
            dcp.load(dict(into), storage_reader=HuggingFaceStorageReader(str(checkpoint.path)), no_dist=True)
        except CheckpointException as error:  # torch's report of what failed on which rank
            raise ValueError(str(next(iter(error.failures.values()))[0]) if error.failures else str(error)) from None

    try:
        together(read, ranks)
    except PhaseError as error:
        raise CheckpointError(checkpoint.path, f"{checkpoint.path}: its tensors do not fit this run: {error}") from None


def _make_folder(temporary: Path, problem: Exception | None, ranks: Ranks) -> None:
    """Make the folder that a checkpoint is written in, unless this rank has nothing to save: raise why, then."""
    if problem is not None:
        raise problem
    if ranks.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)


def _write_parts(temporary: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, str]:
    """Write every rank's part; return the hash of each by the name of its file. Raises PhaseError on all ranks."""

    def write() -> bytes:
        mine = temporary / _part_name(ranks.rank)
        _write_part(mine, tensors, ranks)
        return bytes.fromhex(file_sha256(mine))

    digest = together(write, ranks, over_checkpoint_group=True)
    assert digest is not None
    parts = gather(digest, len(digest), ranks, over_checkpoint_group=True)
    return {_part_name(rank): each.hex() for rank, each in enumerate(parts)}


def _write_part(file: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Write this rank's shards, and on the main rank every tensor that is not sharded.

    The layout is that of torch.distributed.checkpoint's HuggingFaceStorageWriter. That one exchanges plans and
    outcomes between ranks, which a rank that cannot write must not do.
    """
    parts: dict[str, Tensor] = {}
    offsets: dict[str, dict[str, list[int]]] = {}
    for name, tensor in tensors.items():
        part, start = tensor, [0] * tensor.dim()
        if isinstance(tensor, DTensor):
            part, start = tensor.to_local(), list(tensor.__create_chunk_list__()[0].offsets)
        elif not ranks.is_main:
            continue
        if part.numel() or ranks.is_main:  # a small dimension leaves the last ranks without a part of it
            parts[name], offsets[name] = part.cpu().contiguous(), {SAVED_OFFSETS_KEY: start}
    save_file(parts, file, {CUSTOM_METADATA_KEY: json.dumps(offsets)})


def _part_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _prune(folder: Path, newest_step: int, keep: int, keep_through_step: int | None, corrupt: Collection[Path]) -> None:
    """Delete what the checkpoint of `newest_step`, just written, has made superfluous; warn of what stays."""
    earlier = [path for path in saved_checkpoints(folder) if step_of(path) <= newest_step]
    kept = earlier[:keep]
    if keep_through_step is not None:
        kept += [path for path in earlier if step_of(path) <= keep_through_step][:1]
    useless = [path for path in corrupt if step_of(path) > newest_step and path.exists()]
    for path in [*earlier, *useless]:
        if path in kept:
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:  # no reason for a checkpoint that is written to count as not saved
            logger.warning("%s: this old checkpoint stays: %s", path, error)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _state_digest(step: int, state: Mapping[str, Any]) -> str:
    return sha256(json.dumps([step, state]).encode()).hexdigest()


def _save_failure(path: Path, tensors: Mapping[str, Tensor], problem: Exception) -> str:
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
    return (
        f"{path}: cannot be saved: {problem}; it needs {needed / 1e6:,.1f} MB beside the "
        f"checkpoints already there, and {free / 1e6:,.1f} MB are free"
    )
