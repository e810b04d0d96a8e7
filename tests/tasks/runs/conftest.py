"""What the tests of runs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from velocitune_core.config import Params, parse_params


@pytest.fixture
def params(workspace: Path, settings: dict[str, Any]) -> Params:
    """Settings of a workspace with a model, of which only the files' names matter."""
    folder = Path("models/mine")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return parse_params(settings)
