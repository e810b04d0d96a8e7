"""What the tests of runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import job as tiny_job

from velocitune_core.config import Params, parse_params
from velocitune_core.train.job import TrainJob


@pytest.fixture
def params(workspace: Path, settings: dict[str, Any]) -> Params:
    """Settings of a workspace with a model, of which only the files' names matter."""
    folder = Path("models/mine")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return parse_params(settings)


@pytest.fixture
def make_job(workspace: Path, tiny_inputs: Path) -> Callable[..., TrainJob]:
    """Jobs on the tiny model and its two domains."""

    def make(**changes: Any) -> TrainJob:
        return TrainJob.model_validate(tiny_job(tiny_inputs, workspace / "unused", **changes), strict=False)

    return make
