"""What the tests of the tasks share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def settings() -> dict[str, Any]:
    """A params.yaml with two domains, as a tree."""
    return {
        "domains": {
            "code": {"source": {"type": "jsonl", "path": "code.jsonl"}},
            "law": {"source": {"type": "jsonl", "path": "law.jsonl"}},
        },
        "data": {"path": "data/raw", "sequence_length": 64},
        "model": {"path": "models/mine"},
        "mixture": {"initial_domain_weights": None},
        "evaluation": {"every_steps": 5},
        "execution": {"evaluation_micro_batch_sequences": 8},
        "proxies": {"fractions": [0.2, 0.4, 0.8], "seeds": [1], "evaluations": 4},
        "targets": {"bootstrap": 0},
        "strategy": {"name": "velocitune", "options": {}},
        "training": {
            "token_budget": None,
            "batch_sequences": 16,
            "precision": "float32",
            "optimizer": {"learning_rate": 0.001},
        },
    }
