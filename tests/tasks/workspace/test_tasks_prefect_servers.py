"""The temporary Prefect server of a killed run is terminated by the next run, and that of a live run is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from databases import copy_database
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_CLIENT_CUSTOM_HEADERS, temporary_settings
from servers import environment, free_port

from tasks.workspace.lock import exclusive
from tasks.workspace.prefect_servers import PrefectServerError, check_named_server

SERVED = """
import time
import tasks
from prefect.server.api.server import SubprocessASGIServer
server = SubprocessASGIServer()
server.start()
print(server.server_process.pid, flush=True)
time.sleep(600)
"""

STAGE = """
from tasks.workspace.stage_cli import run_flow
run_flow(lambda: print("flow"), lambda: print("checked"))
"""

PIPELINE = """
from tasks.workspace.stage_cli import run_pipeline
run_pipeline(lambda **_: print("flow"), {}, arguments=[])
"""


@pytest.mark.slow
def test_the_server_of_a_run_may_start_slowly() -> None:
    show = "import flows; from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS as seconds"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-c", f"{show}; print(seconds.value())"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert int(shown) == 300


@pytest.mark.slow
def test_the_server_of_a_killed_run_is_ended_by_the_next_one(workspace: Path, prefect_database: Path) -> None:
    copy_database(prefect_database, workspace / "prefect.db")
    environment = {
        **os.environ,
        "PREFECT_HOME": str(workspace),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    with subprocess.Popen(
        [sys.executable, "-c", SERVED], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        server = psutil.Process(int(process.stdout.readline()))
        with exclusive():
            assert server.is_running(), "its run has not ended"
        process.kill()
    assert server.is_running()
    with exclusive():
        server.wait(20)


@pytest.mark.parametrize(("command", "printed"), [(STAGE, "checked\n"), (PIPELINE, "")])
def test_a_named_server_that_does_not_answer_is_refused_at_once_also_behind_a_proxy(
    workspace: Path, command: str, printed: str
) -> None:
    """The proxy that the environment names lets every connection wait; nothing on this machine is reached by it."""
    url = f"http://me:secret@127.0.0.1:{free_port()}/api"
    (workspace / "params.yaml").touch()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxies = dict.fromkeys(("HTTP_PROXY", "ALL_PROXY"), f"http://127.0.0.1:{proxy.getsockname()[1]}")
        refused = subprocess.run(
            [sys.executable, "-c", command],
            env=environment(workspace, PREFECT_API_URL=url, NO_PROXY="", no_proxy="", **proxies),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    message = refused.stderr.strip()
    assert refused.returncode == 2 and refused.stdout == printed, message
    assert "does not answer" in message and "Connection refused" in message and "unset it" in message
    assert "secret" not in message and message.count("\n") == 0


@pytest.mark.parametrize(
    ("status", "content", "problem"),
    [
        ("200 OK", "true", None),
        (
            "200 OK",
            "<html>a page</html>",
            "is none: its page /health answers with status 200 and text/html in place",
        ),
        ("404 Not Found", "true", "is none: its page /health answers with status 404 and text/html in place of `true`"),
        ("302 Found", "", "is none: its page /health answers with status 302"),
        ("401 Unauthorized", "", "needs a login (status 401): set PREFECT_API_AUTH_STRING or PREFECT_API_KEY"),
        ("403 Forbidden", "", "needs a login (status 403): set PREFECT_API_AUTH_STRING or PREFECT_API_KEY"),
    ],
)
def test_a_server_is_one_of_prefect(status: str, content: str, problem: str | None) -> None:
    with answering(
        f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(content)}\r\n\r\n{content}"
    ) as url:
        if problem is None:
            return check_named_server()
        with pytest.raises(PrefectServerError) as refused:
            check_named_server()
        assert str(refused.value).startswith(f"the Prefect server {url} {problem}") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "login", [{PREFECT_API_AUTH_STRING: "me:secret"}, {PREFECT_CLIENT_CUSTOM_HEADERS: {"X-Login": "secret"}}]
)
def test_a_server_that_needs_the_login_that_is_set_is_there(login: dict[Any, Any]) -> None:
    with answering("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"), temporary_settings(login):
        check_named_server()


def test_a_server_may_be_behind_a_redirect() -> None:
    with answering("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue") as url:
        moved = f"HTTP/1.1 308 Permanent Redirect\r\nLocation: {url}/health\r\nContent-Length: 0\r\n\r\n"
        with answering(moved):
            check_named_server()


def test_a_proxy_that_needs_another_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(PrefectServerError, match="socks"),
    ):
        check_named_server()


@contextmanager
def answering(response: str) -> Iterator[str]:
    """Have Prefect's settings name a server that gives one answer; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/api"

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(response.encode())

        server.settimeout(10)  # or a test that fails would wait for ever
        thread = threading.Thread(target=answer)
        thread.start()
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
        thread.join()
