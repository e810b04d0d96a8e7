"""`make serve` starts its servers on the ports that are asked for, and restores Prefect's profiles at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
import yaml
from servers import environment, free_port

from tasks.views.mlflow_links import address_of
from tasks.views.serve import (
    BYTES_READ,
    LOGS,
    PREFECT,
    ServeError,
    _check,
    _last_lines,
    _only_one_here,
    _prefect,
    _running,
    _wait_until_ours,
    main,
)
from tasks.views.serve_profile import PROFILE, active_profile
from tasks.views.served_runs import ServedRuns
from velocitune_core.config import Tracking

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
    with pytest.raises(KeyboardInterrupt), active_profile(API):
        assert f'active = "{PROFILE}"' in profiles.read_text() and API in profiles.read_text()
        raise KeyboardInterrupt
    assert (profiles.read_text() if profiles.exists() else None) == before


@pytest.mark.parametrize("before", [None, MINE])
def test_after_a_kill_the_next_start_restores_the_profile_of_before(profiles: Path, before: str | None) -> None:
    if before is not None:
        profiles.write_text(before)
    killed = active_profile("http://127.0.0.1:1/api")
    killed.__enter__()  # and no end
    with active_profile(API):
        assert API in profiles.read_text()
    assert (profiles.read_text() if profiles.exists() else None) == before
    assert [each.name for each in profiles.parent.glob("profiles*")] == ([] if before is None else ["profiles.toml"])


def test_a_server_that_ends_is_named() -> None:
    with _running(("timeit", "-n", "1", "pass")) as process:
        process.wait(30)
        with pytest.raises(ServeError, match=r"MLflow UI ended \(exit status 0\); its last lines are above"):
            _check({"MLflow UI": process})


def test_a_server_that_is_killed_is_said_to_be() -> None:
    with _running(("timeit", "-n", "1", "import time; time.sleep(60)")) as process:
        process.kill()
        process.wait(30)
        with pytest.raises(ServeError, match=r"worker ended \(killed by SIGKILL: often out of memory\)"):
            _check({"worker": process})


def test_tracebacks_of_the_prefect_server_are_in_its_log_and_shown_if_it_ends(
    workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    retried = ("timeit", "-n", "1", "raise OSError('database is locked')")
    with _running(retried, LOGS[PREFECT]) as process:
        process.wait(60)
        with pytest.raises(ServeError, match=r"(?s)status 1\); its last lines in .*server\.log:\nTraceback.*is locked"):
            _check({PREFECT: process})
    with _running(("timeit", "-n", "1", "pass"), LOGS[PREFECT]) as process:
        process.wait(60)
    assert "locked" not in LOGS[PREFECT].read_text()  # of this start alone
    assert capfd.readouterr() == ("", "")


def test_of_a_long_log_only_the_end_is_read(workspace: Path) -> None:
    LOGS[PREFECT].parent.mkdir()
    LOGS[PREFECT].write_text("é" * BYTES_READ + "\nwhy\n")
    shown = _last_lines(PREFECT)
    assert shown.endswith("é\nwhy") and len(shown.encode()) < 1.1 * BYTES_READ


@pytest.fixture
def _handlers_are_restored() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def no_server(*_: object, **__: object) -> Any:
    raise httpx.ConnectError("no server in this test")


@pytest.fixture
def commands(
    workspace: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, _handlers_are_restored: None
) -> list[str]:
    """The commands that `main` starts, without starting them; the worker's is interrupted, as by Ctrl-C."""
    started: list[str] = []
    server = SimpleNamespace(poll=lambda: None)

    @contextmanager
    def running(command: tuple[str, ...], log: Path | None) -> Iterator[SimpleNamespace]:
        started.append(" ".join(command))
        if "worker" in command:
            started.append(PROFILES.read_text())
            started.append(address_of(Tracking()))
            raise KeyboardInterrupt
        yield server

    monkeypatch.setattr("tasks.views.serve._running", running)
    monkeypatch.setattr("tasks.views.serve._prepare_store", lambda: started.append("store"))
    monkeypatch.setattr("tasks.views.serve._prefect", lambda *arguments: started.append(" ".join(arguments)))
    monkeypatch.setattr(
        "tasks.views.serve._wait_until_ours", lambda name, port, path, servers: started.append(f"{port}{path}")
    )
    monkeypatch.setattr("tasks.views.serve.is_free", lambda port: True)
    monkeypatch.setattr("tasks.views.serve.ServedRuns.has_pool", lambda runs: False)
    monkeypatch.setattr("tasks.views.serve.ServedRuns._request", no_server)  # a user's may be at the default port
    monkeypatch.setattr("tasks.views.serve._begun", lambda api: started.append(f"begun {api}") or ServedRuns(api))
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    return started


def serve(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["serve", *arguments])
    monkeypatch.setattr("os.environ", dict(os.environ))  # `main` sets some for what it starts
    return main()


def test_ports_reach_the_servers_and_the_profile(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve(monkeypatch, "--prefect-port", "4321", "--mlflow-port", "4322") == 0
    prefect, store, mlflow, up, pool, deploy, begun, worker, profile, link = commands
    assert prefect == "prefect server start --host 127.0.0.1 --port 4321"
    assert mlflow.startswith("mlflow server ") and "--port 4322" in mlflow
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == "sqlite:///mlflow.db"
    assert store == "store" and mlflow.endswith("--no-access-log --log-level warning")
    assert up == "4321/api/health"
    assert pool.startswith("work-pool create local") and deploy == "deploy --all" and "--pool local" in worker
    assert begun == "begun http://127.0.0.1:4321/api" and worker.endswith("--limit 1")
    assert "http://127.0.0.1:4321/api" in profile and link.startswith("http://127.0.0.1:4322/")
    assert os.environ["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:4321/api"  # where the page looks for it
    assert not PROFILES.exists()


def test_a_server_that_does_not_answer_is_named(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.views.serve.ServedRuns.has_pool", no_server)
    assert serve(monkeypatch) == 1
    assert "Prefect server does not answer (no server in this test); its last lines are" in capsys.readouterr().err


def test_a_server_elsewhere_is_not_served_and_a_database_is(
    commands: list[str], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({**settings, "tracking": {"uri": "http://mlflow.example:5000"}}))
    assert serve(monkeypatch) == 0
    assert not any(command.startswith(("mlflow", "store")) for command in commands)
    database = "postgresql://me:pa55@h/db"
    Path("params.yaml").write_text(yaml.safe_dump({**settings, "tracking": {"uri": database}}))
    assert serve(monkeypatch) == 0
    assert any(command.startswith("mlflow server") for command in commands)
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == database
    assert not any("pa55" in command for command in commands)  # every user of the machine can list them


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", ""])
def test_what_other_terminals_need_behind_a_proxy_is_printed(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], proxy: str
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)

    def interrupted(servers: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.views.serve._running", lambda command, log: nullcontext())
    monkeypatch.setattr("tasks.views.serve._check", interrupted)
    assert serve(monkeypatch) == 0
    shown = capsys.readouterr().err
    line = "In other terminals first, as a proxy is set:  export NO_PROXY=127.0.0.1,localhost\nStart a run, in "
    assert (line in shown) == bool(proxy) and ":  prefect deployment run" in shown


def test_servers_of_this_machine_are_reached_without_a_proxy(
    commands: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert serve(monkeypatch) == 0 and commands
    assert requests.utils.should_bypass_proxies("http://127.0.0.1:4200/api", None)  # as the commands inherit it


def test_a_workspace_without_settings_is_refused(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("params.yaml").unlink()
    assert serve(monkeypatch) == 2
    assert "params.yaml: no such file" in capsys.readouterr().err
    assert commands == [] and list(Path().iterdir()) == []
    Path("params.yaml").write_text("domains: [")
    assert serve(monkeypatch) == 2
    assert "params.yaml: line 1, " in capsys.readouterr().err and list(Path().iterdir()) == [Path("params.yaml")]


def test_a_folder_that_cannot_be_written_is_refused(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".velocitune").write_text("where the folder would be")
    assert serve(monkeypatch) == 2
    assert ".velocitune: cannot be locked: File exists" in capsys.readouterr().err and commands == []


def test_a_command_of_prefect_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ServeError, match=r"^`prefect deploy --all` ended \(exit status 1\); its last lines are above"):
        _prefect("deploy", "--all")


def test_a_port_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        serve(monkeypatch, "--prefect-port", "http")


def test_a_server_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.views.serve.SECONDS_TO_START", 0.2)
    servers: Any = {"MLflow UI": SimpleNamespace(poll=lambda: None, pid=os.getpid())}
    port = free_port()
    with pytest.raises(ServeError, match=rf"MLflow UI did not answer on port {port} within 0\.2 s"):
        _wait_until_ours("MLflow UI", port, "/health", servers)


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[HTTPServer]:
    """A server that somebody else runs; it answers everything."""
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        (
            ["--prefect-port", "70000"],
            "'70000' is no port of a server; give a number from 1024 to 65535",
        ),
        (["--mlflow-port", "0"], "--mlflow-port: '0' is no port of a server"),
        (["--mlflow-port", "four"], "--mlflow-port: 'four' is no port of a server"),
        (["--mlflow-port", "4200"], "--prefect-port and --mlflow-port are both 4200; two servers need two ports"),
    ],
)
def test_a_port_that_there_is_not_is_refused(
    commands: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ports: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        serve(monkeypatch, *ports)
    assert message in capsys.readouterr().err and commands == []


def test_the_sub_command_of_an_installed_package_names_itself_and_no_make(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VELOCITUNE_SHOWN_AS", "velocitune serve")
    monkeypatch.setattr("tasks.views.serve.is_free", lambda port: False)
    assert serve(monkeypatch) == 2
    said = capsys.readouterr().err
    assert "or give `velocitune serve` another port: --prefect-port 4201 --mlflow-port 5001\n" in said
    monkeypatch.setenv("VELOCITUNE_SHOWN_AS", "velocitune serve")
    with pytest.raises(SystemExit):
        serve(monkeypatch, "--help")
    shown = capsys.readouterr().out
    assert not any(word in said + shown for word in ("make", "python -m"))


def test_servers_of_another_folder_are_left_alone(workspace: Path, settings: dict[str, Any]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    PROFILES.parent.mkdir()
    PROFILES.write_text("of the running servers")
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        ports = ["--prefect-port", str(port), "--mlflow-port", str(free_port())]
        refused = subprocess.run(
            [sys.executable, "-m", "tasks.views.serve", *ports],
            env=environment(workspace),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):  # nothing was sent to it
            theirs.accept()
    assert refused.returncode == 2 and refused.stdout == ""
    assert f"port {port} (prefect): another program listens there" in refused.stderr
    ending = f"another port: --prefect-port {port + 1}, or `make serve` with PREFECT_PORT={port + 1}\n"
    assert refused.stderr.endswith(ending)
    assert PROFILES.read_text() == "of the running servers"
    assert {path.name for path in workspace.iterdir()} == {"params.yaml", ".prefect-home", ".velocitune"}


def test_a_server_of_another_process_is_not_taken_for_ours(
    stranger: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.views.serve.SECONDS_TO_START", 0.2)
    servers: Any = {"Prefect server": SimpleNamespace(poll=lambda: None, pid=os.getpid())}
    _wait_until_ours("Prefect server", stranger.server_port, "/", servers)  # it runs in this process
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        servers["Prefect server"].pid = other.pid
        with pytest.raises(ServeError, match="did not answer on port"):
            _wait_until_ours("Prefect server", stranger.server_port, "/", servers)


def test_a_second_start_in_the_folder_is_refused_and_changes_nothing(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with _only_one_here():
        assert serve(monkeypatch) == 2
    assert "servers run for this folder already" in capsys.readouterr().err
    assert commands == []


def test_a_profile_that_somebody_changed_meanwhile_is_kept(profiles: Path) -> None:
    with active_profile(API):
        profiles.write_text(MINE)
    assert profiles.read_text() == MINE


def test_ports_are_variables_of_make() -> None:
    makefile = (Path(__file__).parents[3] / "Makefile").read_text()
    assert "--prefect-port $(PREFECT_PORT) --mlflow-port $(MLFLOW_PORT)" in makefile
