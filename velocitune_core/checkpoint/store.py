"""Checkpoints that are complete or absent, written by all ranks of a run and read by any number of ranks.

`step-NNNNNNNN/` holds tensors as safetensors, one file per rank (torch.distributed.checkpoint's own safetensors
storage, which contains no pickle), and `state.json` with everything else and a hash of each file. A folder appears
under its name when all of that is on the disk.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from velocitune_core.files import commit, file_sha256
from velocitune_core.parallel.ranks import SINGLE_RANK, Ranks

STATE = "state.json"


class CheckpointError(ValueError):
    """A checkpoint that is corrupt, or belongs to another run."""


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
    ranks: Ranks = SINGLE_RANK,
) -> Path:
    """Write `folder`/step-NNNNNNNN, then delete all but the newest `keep`; every rank calls with its own shards.

    The newest checkpoint of at most `keep_through_step` steps is kept as well.

    Args:
        state: JSON-ready.

    Raises SaveError on all ranks, with the space that was needed and the space that was free.
    """
    path = folder / f"step-{step:08d}"
    temporary = folder / f".{path.name}.tmp"
    problem: Exception | None = None
    try:
        _write_tensors(temporary, tensors, ranks)
        digests = _gather_digests(temporary, ranks)
        if ranks.is_main:
            content = {"step": step, "files": digests, "state_sha256": _state_digest(step, state), "state": state}
            (temporary / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")
            commit(temporary, path)
            _prune(folder, path, keep, keep_through_step)
    except (OSError, CheckpointException, SafetensorError) as error:
        problem = error if isinstance(error, Exception) else OSError(_cause(error))
    if ranks.any(problem is not None, over_checkpoint_group=True):
        if ranks.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise SaveError(_save_failure(path, tensors, problem))
    return path


def load_latest(folder: Path, ranks: Ranks = SINGLE_RANK) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest valid checkpoint, and a message for each newer one that is corrupt.

    Deletes temporary folders of interrupted saves. Every rank calls; each hashes its part of the files.
    """
    if ranks.is_main:
        for leftover in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
            shutil.rmtree(leftover, ignore_errors=True)
    ranks.barrier()
    corrupt = []
    for path in _checkpoints(folder):
        found, problem = None, None
        try:
            found = load_checkpoint(path, ranks)
        except CheckpointError as error:
            problem = str(error)
        if not ranks.any(problem is not None):
            return found, corrupt
        corrupt.append(problem or f"{path}: corrupt: another rank could not read it")
    return None, corrupt


def load_checkpoint(path: Path, ranks: Ranks = SINGLE_RANK) -> Checkpoint:
    """Verify a checkpoint's hashes and return it; each rank hashes its part of the files.

    Raises CheckpointError naming the file that is missing, malformed, or differs from its hash.
    """
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        if content["state_sha256"] != _state_digest(content["step"], content["state"]):
            raise CheckpointError(f"{path / STATE}: corrupt: its content differs from its hash")
        for name, expected in sorted(content["files"].items())[ranks.rank :: ranks.world_size]:
            if expected != (found := file_sha256(path / name)):
                raise CheckpointError(f"{path / name}: corrupt: sha256 {found[:12]}…, saved as {expected[:12]}…")
        return Checkpoint(path, content["step"], content["state"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: corrupt: {error}") from None


def read_tensors(checkpoint: Checkpoint, into: dict[str, Tensor], ranks: Ranks = SINGLE_RANK) -> None:
    """Overwrite tensors in place, each rank its shards, with those saved under their names.

    Raises CheckpointError for a name or shape that the checkpoint does not have.
    """
    reader = HuggingFaceStorageReader(str(checkpoint.path))
    try:
        dcp.load(dict(into), storage_reader=reader, no_dist=ranks.world_size == 1)
    except (CheckpointException, SafetensorError, RuntimeError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{checkpoint.path}: its tensors do not fit this run: {_cause(error)}") from None


def _write_tensors(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    if ranks.is_main:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ranks.barrier(over_checkpoint_group=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    dense = {name: tensor.contiguous() for name, tensor in tensors.items()}
    dcp.save(dense, storage_writer=writer, process_group=ranks.checkpoint_group, no_dist=ranks.world_size == 1)


def _gather_digests(folder: Path, ranks: Ranks) -> dict[str, str]:
    """Return the SHA-256 of each file by its name; each rank hashes its part of them."""
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    digests = torch.zeros(len(names), 32, dtype=torch.int64)
    for number in range(ranks.rank, len(names), ranks.world_size):
        digests[number] = torch.tensor(list(bytes.fromhex(file_sha256(folder / names[number]))))
    rows = ranks.sum(digests, over_checkpoint_group=True).tolist()
    return {name: bytes(row).hex() for name, row in zip(names, rows, strict=True)}


def _prune(folder: Path, newest: Path, keep: int, keep_through_step: int | None) -> None:
    saved = _checkpoints(folder)
    position = saved.index(newest)  # any of a higher step were corrupt, or the run would not be back at this step
    kept = saved[position : position + keep]
    if keep_through_step is not None:
        kept += [path for path in saved[position:] if step_of(path) <= keep_through_step][:1]
    for old in saved:
        if old not in kept:
            shutil.rmtree(old)


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("step-"))


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _state_digest(step: int, state: Mapping[str, Any]) -> str:
    return sha256(json.dumps([step, state]).encode()).hexdigest()


def _cause(error: BaseException) -> str:
    """Return the first rank's message out of torch's report of all ranks."""
    failures = getattr(error, "failures", None)
    return str(next(iter(failures.values()))[0]) if failures else str(error)


def _save_failure(path: Path, tensors: Mapping[str, Tensor], problem: Exception | None) -> str:
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
    return (
        f"{path}: cannot be saved: {problem or 'another rank failed'}; it needs {needed / 1e6:,.1f} MB beside the "
        f"checkpoints already there, and {free / 1e6:,.1f} MB are free"
    )
