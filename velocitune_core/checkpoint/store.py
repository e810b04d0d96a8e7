"""Checkpoints that are complete or absent, written by all ranks of a run and read by any number of ranks.

`step-NNNNNNNN/` holds tensors as safetensors, one file per rank (in the layout of torch.distributed.checkpoint's own
safetensors storage, which contains no pickle), and `state.json` with everything else and a hash of each file. A folder
appears under its name when all of that is on the disk.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint._hf_utils import CUSTOM_METADATA_KEY, SAVED_OFFSETS_KEY
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from velocitune_core.files import commit, file_sha256
from velocitune_core.parallel.ranks import SINGLE_RANK, Ranks

T = TypeVar("T")

STATE = "state.json"
MESSAGE_BYTES = 500  # of an error, when it is exchanged between ranks


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
    path = folder / _name(step)
    temporary = folder / f".{path.name}.tmp"
    mine = temporary / _part_name(ranks.rank)

    def make_folder() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def write_part() -> bytes:
        _write_part(mine, tensors, ranks)
        return bytes.fromhex(file_sha256(mine))

    def complete(digests: Mapping[str, str]) -> None:
        content = {"step": step, "files": digests, "state_sha256": _state_digest(step, state), "state": state}
        (temporary / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")
        commit(temporary, path)
        _prune(folder, path, keep, keep_through_step)

    try:
        _together(make_folder if ranks.is_main else None, ranks)
        digest = _together(write_part, ranks)
        assert digest is not None
        digests = {_part_name(rank): each.hex() for rank, each in enumerate(_gather(digest, len(digest), ranks))}
        _together((lambda: complete(digests)) if ranks.is_main else None, ranks)
    except _PhaseError as error:
        if ranks.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise SaveError(_save_failure(path, tensors, error)) from None
    return path


def load_latest(folder: Path, ranks: Ranks = SINGLE_RANK) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest valid checkpoint, and a message for each newer one that is corrupt.

    Deletes temporary folders of interrupted saves. Every rank calls. The main rank lists the checkpoints, because each
    rank of a network file system may see others; each hashes its part of the files.
    """
    if ranks.is_main:
        for leftover in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
            shutil.rmtree(leftover, ignore_errors=True)
    corrupt = []
    for step in ranks.broadcast_numbers([step_of(path) for path in _checkpoints(folder)] if ranks.is_main else []):
        path = folder / _name(step)
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
    """Overwrite tensors in place, each rank its shards, with those saved under their names; every rank calls.

    Raises CheckpointError on all ranks for a name or shape that the checkpoint does not have.
    """
    problem: BaseException | None = None
    try:
        dcp.load(dict(into), storage_reader=HuggingFaceStorageReader(str(checkpoint.path)), no_dist=True)
    except (CheckpointException, SafetensorError, RuntimeError, ValueError, KeyError, OSError) as error:
        problem = error
    if ranks.any(problem is not None):
        cause = "another rank could not read its part" if problem is None else _cause(problem)
        raise CheckpointError(f"{checkpoint.path}: its tensors do not fit this run: {cause}")


class _PhaseError(Exception):
    """A phase of a save that failed on at least one rank; the message is that of the lowest such rank."""


def _together(work: Callable[[], T] | None, ranks: Ranks) -> T | None:
    """Do this rank's part of a phase, if any, and agree with the others on its outcome.

    The work must contain no collective: a rank that fails in it would leave the others waiting.

    Raises _PhaseError on all ranks if it failed on one, whatever the error.
    """
    result, problem = None, None
    try:
        result = work() if work is not None else None
    except Exception as error:  # any error must reach the agreement, or the other ranks wait for this one
        problem = str(error) or repr(error)
    if ranks.any(problem is not None, over_checkpoint_group=True):
        problems = _gather((problem or "").encode()[:MESSAGE_BYTES], MESSAGE_BYTES, ranks)
        rank, message = next((rank, text) for rank, each in enumerate(problems) if (text := each.rstrip(b"\0")))
        where = f"rank {rank}: " if ranks.world_size > 1 else ""
        raise _PhaseError(where + message.decode("utf-8", errors="replace"))
    return result


def _gather(content: bytes, length: int, ranks: Ranks) -> list[bytes]:
    """Return the `content` of every rank, padded with zeros to `length` bytes."""
    rows = torch.zeros(ranks.world_size, length, dtype=torch.int64)
    rows[ranks.rank, : len(content)] = torch.tensor(list(content), dtype=torch.int64)
    return [bytes(row) for row in ranks.sum(rows, over_checkpoint_group=True).tolist()]


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


def _prune(folder: Path, newest: Path, keep: int, keep_through_step: int | None) -> None:
    saved = _checkpoints(folder)
    position = saved.index(newest)  # any of a higher step were corrupt, or the run would not be back at this step
    kept = saved[position : position + keep]
    if keep_through_step is not None:
        kept += [path for path in saved[position:] if step_of(path) <= keep_through_step][:1]
    for old in saved:
        if old not in kept:
            shutil.rmtree(old)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("step-"))


def _checkpoints(folder: Path) -> list[Path]:
    named = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(named, key=step_of, reverse=True)


def _state_digest(step: int, state: Mapping[str, Any]) -> str:
    return sha256(json.dumps([step, state]).encode()).hexdigest()


def _cause(error: BaseException) -> str:
    """Return the message out of torch's report of a failed load."""
    failures = getattr(error, "failures", None)
    return str(next(iter(failures.values()))[0]) if failures else str(error)


def _save_failure(path: Path, tensors: Mapping[str, Tensor], problem: Exception) -> str:
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
    return (
        f"{path}: cannot be saved: {problem}; it needs {needed / 1e6:,.1f} MB beside the "
        f"checkpoints already there, and {free / 1e6:,.1f} MB are free"
    )
