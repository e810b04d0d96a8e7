"""What the tests of the core share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its tokenizer and two packed domains; see tiny.py."""
    from tiny import write_inputs  # imports torch, which most of these tests need not wait for

    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder
