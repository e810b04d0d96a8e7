"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from process_state import restored

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: processes of two threads each crawl on two cores
os.environ["PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW"] = "ignore"  # before Prefect: tests log outside of flows

settings.register_profile("busy machine", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few examples", settings.get_profile("busy machine"), max_examples=30)  # `make test-fast`
settings.load_profile("busy machine")

gc.disable()  # until all tests are collected: what their imports make stays, and searching it takes seconds

LONGEST_FIRST = ("flows", "faults", "tasks")  # so that no worker is left with the longest file at the end


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", action="store_true", help="show processor time, and programs that load transformers")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("costs"):
        from costs import Costs

        config.pluginmanager.register(Costs())


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        wing = item.path.relative_to(Path(__file__).parent).parts[0]
        return LONGEST_FIRST.index(wing) if wing in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch sees none"))


@pytest.fixture(autouse=True)
def own_process_state() -> Iterator[None]:
    """Leave nothing in this process that the next test would find."""
    with restored():
        yield


@pytest.fixture(scope="session")
def tiny_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its tokenizer and two packed domains; see helpers/tiny.py."""
    from tiny import write_inputs  # imports torch, which most tests need not wait for

    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def prefect_database(databases: Path) -> Path:
    """A database for Prefect servers to copy."""
    from prefect_databases import migrated_database

    return migrated_database(databases)


@pytest.fixture(scope="session")
def mlflow_database(databases: Path) -> Path:
    """A store of MLflow without any experiment of ours, to copy."""
    from databases import mlflow_store

    return mlflow_store(databases)


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Path:
    """The folder of databases that are made once, by the first worker of xdist, and kept for later sessions."""
    return request.config.cache.mkdir("databases")


@pytest.fixture
def forked_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the training program from a process that has imported torch, where a test is not of how it is started."""
    from forked import run_forked

    monkeypatch.setattr("tasks.runs.launch.run_program", run_forked)


@pytest.fixture
def forked_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, but watched by the launcher while it runs, as it is without this."""
    from forked import ForkedProcess

    monkeypatch.setattr("tasks.runs.torchrun.start_process", ForkedProcess)
