"""One attempt: when the run folder is given back, and what is written there."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import job, write_job

from velocitune_core.checkpoint import background
from velocitune_core.checkpoint.store import save_checkpoint
from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.train.attempt import run_attempt
from velocitune_core.train.job import read_job
from velocitune_core.train.run_lock import RunLock
from velocitune_core.train.trainer import TrainingError


def test_a_failed_run_holds_its_folder_until_its_checkpoint_is_written(
    tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of its steps is saved slowly, and three without a finite loss end the run meanwhile."""
    folder, held = tmp_path / "run", []

    def save_slowly(*arguments: Any, **options: Any) -> Path:
        time.sleep(0.8)
        path = save_checkpoint(*arguments, **options)
        held.append(not RunLock(folder).acquire())
        return path

    monkeypatch.setattr(background, "save_checkpoint", save_slowly)
    changes = {"training__optimizer__learning_rate": 1e30, "execution__checkpoint_every_steps": 1}
    diverging = read_job(write_job(job(tiny_inputs, folder, **changes)))
    with pytest.raises(TrainingError, match="in a row without a finite loss"):
        run_attempt(diverging, SINGLE_RANK, lambda: False)
    assert held and all(held)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]
    assert [path.name[:5] for path in (folder / "checkpoints").iterdir()] == ["step-"]
