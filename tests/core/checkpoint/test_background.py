"""A checkpoint written in the background holds the state at the step of the save, whatever changes meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from velocitune_core.checkpoint.background import CheckpointWriter
from velocitune_core.checkpoint.store import load_latest, read_tensors
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
