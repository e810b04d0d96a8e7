"""What the tests of the tasks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from databases import copy_database

if TYPE_CHECKING:
    from tasks.views.watcher import Watcher


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


class NoTracker:
    """MLflow out of reach: every method does nothing."""

    active = False

    def __init__(self, params: object, comparing: bool = False) -> None:
        pass

    def log_artifact(self, *_: object) -> None:
        pass

    def child(self, *_: object) -> Watcher:
        from tasks.views.mlflow_watcher import RunWatcher

        return RunWatcher(lambda: (None, ""))


@pytest.fixture
def no_views(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Leave MLflow's store and Prefect's server out of a stage: making them takes seconds."""
    from tasks.views.terminal import TerminalWatcher

    def leave_out(stage: str) -> None:
        monkeypatch.setattr(f"{stage}.Tracker", NoTracker, raising=False)
        monkeypatch.setattr(f"{stage}.PrefectWatcher", lambda name: TerminalWatcher())

    return leave_out


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Path]:
    """A folder with a SQLite store `mlflow.db`, which tests share."""
    folder = tmp_path_factory.mktemp("store")
    copy_database(mlflow_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield folder
