"""What the tests of faults share: the training that met none."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import SAVE_OFTEN
from tiny import job
from trainings import Run, train


@pytest.fixture(scope="session")
def unbroken(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One process, saved every four steps, left in peace."""
    run = train(job(tiny_inputs, tmp_path_factory.mktemp("unbroken") / "run", **SAVE_OFTEN))
    assert run.returncode == 0, run.stderr
    return run
