"""Checkpoints that are whole or absent: tensors in safetensors, the rest in JSON, hashed and renamed into place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from velocitune_core.atomic import replacing

TENSORS, STATE = "tensors.safetensors", "state.json"


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or belongs to another run."""


@dataclass(frozen=True)
class Checkpoint:
    """All of a run's state after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]  # JSON-ready


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `folder`/step-NNNNNNNN, then drop all but the newest `keep`."""
    path = folder / f"step-{checkpoint.step:08d}"
    with replacing(path) as temporary:
        temporary.mkdir()
        save_file(_unshared(checkpoint.tensors), temporary / TENSORS)
        state = {
            "step": checkpoint.step,
            "sha256": _digest(temporary / TENSORS),
            "state_sha256": _state_digest(checkpoint.step, checkpoint.state),
            "state": checkpoint.state,
        }
        (temporary / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    saved = _checkpoints(folder)
    newest = saved.index(path)  # any before it were damaged, or the run would not have come back to this step
    for old in saved[:newest] + saved[newest + keep :]:
        shutil.rmtree(old)
    return path


def load_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest sound checkpoint, and a line for each newer one that is damaged. Removes what a kill left behind."""
    for leftover in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
        shutil.rmtree(leftover, ignore_errors=True)  # every process of a run does this at once
    damaged = []
    for path in _checkpoints(folder):
        try:
            return load_checkpoint(path), damaged
        except CheckpointError as error:
            damaged.append(str(error))
    return None, damaged


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises CheckpointError naming the file that is missing, malformed, or differs from its hash."""
    try:
        header = json.loads((path / STATE).read_text(encoding="utf-8"))
        expected, found = header["sha256"], _digest(path / TENSORS)
        if expected != found:
            raise CheckpointError(f"{path / TENSORS}: damaged: sha256 {found[:12]}…, saved as {expected[:12]}…")
        if header["state_sha256"] != _state_digest(header["step"], header["state"]):
            raise CheckpointError(f"{path / STATE}: damaged: its content differs from its hash")
        return Checkpoint(header["step"], load_file(path / TENSORS), header["state"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _state_digest(step: int, state: Mapping[str, Any]) -> str:
    return sha256(json.dumps([step, state]).encode()).hexdigest()


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, a copy for each one that shares its memory with another (tied embeddings)."""
    seen: set[int] = set()
    result = {}
    for name, original in tensors.items():
        tensor = original.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if pointer in seen and tensor.numel() else tensor
        seen.add(pointer)
    return result
