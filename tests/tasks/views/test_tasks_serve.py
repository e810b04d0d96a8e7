"""`make serve` starts its servers on the ports that are asked for, and restores Prefect's profiles at the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from servers import free_port

from tasks.views.serve import PROFILE, ServeError, _active_profile, _check, _running, _wait_until_up, main

PROFILES = Path(".prefect-home/profiles.toml")
API = "http://127.0.0.1:4200/api"
MINE = 'active = "mine"\n\n[profiles.mine]\n'


@pytest.fixture
def profiles(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PREFECT_HOME", str(workspace))
    return workspace / "profiles.toml"


@pytest.mark.parametrize("before", [None, MINE])
def test_profiles_are_restored(profiles: Path, before: str | None) -> None:
    if before is not None:
        profiles.write_text(before)
    with pytest.raises(KeyboardInterrupt), _active_profile(API):
        assert f'active = "{PROFILE}"' in profiles.read_text() and API in profiles.read_text()
        raise KeyboardInterrupt
    assert (profiles.read_text() if profiles.exists() else None) == before


def test_a_profile_that_a_kill_has_left_is_removed(profiles: Path) -> None:
    with _active_profile("http://127.0.0.1:1/api"):
        left = profiles.read_text()
    profiles.write_text(left)
    with _active_profile(API):
        pass
    assert not profiles.exists()


def test_a_server_that_ends_is_named() -> None:
    with _running(("timeit", "-n", "1", "pass")) as process:
        process.wait(30)
        with pytest.raises(ServeError, match=r"MLflow UI ended with status 0; is its port taken\?"):
            _check({"MLflow UI": process})


@pytest.fixture
def _handlers_are_restored() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def commands(
    workspace: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, _handlers_are_restored: None
) -> list[str]:
    """The commands that `main` starts, without starting them; the worker's is interrupted, as by Ctrl-C."""
    started: list[str] = []
    server = SimpleNamespace(poll=lambda: None)

    @contextmanager
    def running(command: tuple[str, ...]) -> Iterator[SimpleNamespace]:
        started.append(" ".join(command))
        if "worker" in command:
            started.append(PROFILES.read_text())
            raise KeyboardInterrupt
        yield server

    monkeypatch.setattr("tasks.views.serve._running", running)
    monkeypatch.setattr("tasks.views.serve._prefect", lambda *arguments: started.append(" ".join(arguments)))
    monkeypatch.setattr("tasks.views.serve._wait_until_up", lambda url, servers: started.append(url))
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    return started


def serve(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["serve", *arguments])
    monkeypatch.setattr("os.environ", dict(os.environ))  # `main` sets some for what it starts
    return main()


def test_ports_reach_the_servers_and_the_profile(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve(monkeypatch, "--prefect-port", "4321", "--mlflow-port", "4322") == 0
    prefect, mlflow, up, pool, deploy, worker, profile = commands
    assert prefect == "prefect server start --host 127.0.0.1 --port 4321"
    assert mlflow.startswith("mlflow server --backend-store-uri sqlite:///") and "--port 4322" in mlflow
    assert up == "http://127.0.0.1:4321/api/health"
    assert pool.startswith("work-pool create local") and deploy == "deploy --all" and "--pool local" in worker
    assert "http://127.0.0.1:4321/api" in profile
    assert not PROFILES.exists()


def test_a_store_elsewhere_needs_no_server(
    commands: list[str], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({**settings, "tracking": {"uri": "http://mlflow.example:5000"}}))
    assert serve(monkeypatch) == 0
    assert not any(command.startswith("mlflow") for command in commands)


def test_a_workspace_without_settings_is_refused(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("params.yaml").unlink()
    assert serve(monkeypatch) == 1
    assert "params.yaml: no such file" in capsys.readouterr().err
    assert commands == []


def test_a_port_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        serve(monkeypatch, "--prefect-port", "http")


def test_a_server_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.views.serve.SECONDS_TO_START", 0.2)
    address = f"http://127.0.0.1:{free_port()}/health"
    with pytest.raises(ServeError, match=rf"{address} did not answer within 0\.2 s"):
        _wait_until_up(address, {})
