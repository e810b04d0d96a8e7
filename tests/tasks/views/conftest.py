"""What the tests of MLflow's runs share; slow imports are in the fixtures, as most tests of views need none of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from velocitune_core.config import Params, parse_params

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def store(mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(mlflow_store)
    return mlflow_store


@pytest.fixture
def params(store: Path, settings: dict[str, Any], request: pytest.FixtureRequest) -> Params:
    """An experiment of its own for every test."""
    settings["tracking"] = {"uri": f"sqlite:///{store / 'mlflow.db'}", "experiment": request.node.name}
    return parse_params(settings)


@pytest.fixture
def client(params: Params) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(params.tracking.uri)


@pytest.fixture
def event_file(tmp_path: Path) -> Path:
    """The events of a small run."""
    from mlflow_points import sample_events

    from velocitune_core.train.events import EventFile

    path = tmp_path / "events.jsonl"
    file = EventFile(path)
    for event in sample_events():
        file(event)
    file.close()
    return path
