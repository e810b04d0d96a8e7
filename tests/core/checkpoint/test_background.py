"""A checkpoint written in the background holds the state at the step of the save, whatever changes meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from velocitune_core.checkpoint.background import CheckpointWriter
from velocitune_core.checkpoint.store import SaveError, load_latest, read_tensors
from velocitune_core.parallel.ranks import SINGLE_RANK


def test_a_checkpoint_holds_the_state_at_its_start(tmp_path: Path) -> None:
    weight, seconds = torch.zeros(2_000_000), {"training": 0.0}  # 8 MB take a while to write
    state: dict[str, Any] = {"seconds": seconds, "losses": [1.0]}
    writer = CheckpointWriter(tmp_path, keep=2, ranks=SINGLE_RANK)
    writer.start(1, {"weight": weight}, state)
    while not writer.done:  # training changes its times, lists and parameters
        seconds["training"] += 1.0
        state["losses"].append(2.0)
        weight += 1
    writer.outcome()
    assert seconds["training"] > 0
    checkpoint, corrupt = load_latest(tmp_path)
    assert checkpoint is not None and corrupt == []
    assert checkpoint.state == {"seconds": {"training": 0.0}, "losses": [1.0]}
    read = torch.ones(2_000_000)
    read_tensors(checkpoint, {"weight": read})
    assert not read.any()


def test_a_state_that_cannot_be_copied_costs_that_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the host has no memory for the copy."""
    writer = CheckpointWriter(tmp_path, keep=2, ranks=SINGLE_RANK)
    with monkeypatch.context() as patch:
        patch.setattr("torch.distributed.checkpoint.staging.BlockingAsyncStager.stage", no_memory)
        writer.start(1, {"weight": torch.zeros(4)}, {})
    with pytest.raises(SaveError, match="step-00000001: cannot be saved: no memory for a copy"):
        writer.outcome()
    writer.start(2, {"weight": torch.zeros(4)}, {})
    assert writer.outcome().step == 2


def no_memory(*_: object) -> None:
    raise MemoryError("no memory for a copy")
