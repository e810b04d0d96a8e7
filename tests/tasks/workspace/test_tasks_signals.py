"""SIGTERM to all processes of a command, as `timeout`, systemd and Slurm send it: Prefect's server is gone, too."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from databases import copy_database
from servers import environment, kill_group
from trainings import wait_for

from tasks.workspace import paths
from tasks.workspace.stage_cli import run_flow

# A flow that waits for a task in a thread, with the temporary server that Prefect starts for it.
FLOW = """
import time
import tasks  # before Prefect: its server may start slowly
from pathlib import Path
from prefect import flow, task
from tasks.workspace.own_settings import keep_own_settings
from tasks.workspace.stage_cli import run_flow

@task
def wait():
    Path("waits").touch()
    while True: time.sleep(0.1)

@flow
def waiting():
    keep_own_settings("seed: 2\\n")
    Path("params.yaml").write_text("seed: 2\\n")
    wait.submit().result()

run_flow(waiting, lambda: None)
"""
# What Prefect does, without it: it takes SIGTERM over, and waits for its server once it has come.
TAKEN_OVER = """
import signal, time
from pathlib import Path
from tasks.workspace.signals import end_on_signals
def report(*_):
    time.sleep(600)
end_on_signals()
signal.signal(signal.SIGTERM, report)
Path("waits").touch()
while True: time.sleep(0.1)
"""


@contextmanager
def started(program: str, folder: Path, proxy: socket.socket | None = None) -> Iterator[subprocess.Popen[str]]:
    """Yield a program, in a session of its own, once it waits; kill it at the end."""
    command = [sys.executable, "-c", program]
    address = "" if proxy is None else f"http://127.0.0.1:{proxy.getsockname()[1]}"
    proxies = dict.fromkeys(("HTTP_PROXY", "ALL_PROXY"), address)
    with subprocess.Popen(
        command, env=environment(folder, **proxies), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            wait_for(lambda: Path("waits").exists() or process.poll() is not None, 300)
            yield process
        finally:
            kill_group(process)


def test_a_command_ends_although_prefect_waits(workspace: Path) -> None:
    with started(TAKEN_OVER, workspace) as process:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and said.strip().startswith("terminated: runs save and stop"), said


def test_once_a_flow_is_over_its_command_handles_signals_as_others_do(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # those of the tests stay
    threads = threading.active_count()
    run_flow(lambda: None, lambda: None)
    assert signal.set_wakeup_fd(-1) == -1
    wait_for(lambda: threading.active_count() == threads, 20)


@pytest.mark.parametrize(("before", "status"), [("", 129), ("signal.signal(signal.SIGHUP, signal.SIG_IGN)", 143)])
def test_a_terminal_that_is_closed_ends_a_command_but_not_under_nohup(
    workspace: Path, before: str, status: int
) -> None:
    with started(f"import signal\n{before}\n{TAKEN_OVER}", workspace) as process:
        process.send_signal(signal.SIGHUP)
        if before:
            process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == status


@pytest.mark.slow
def test_a_flow_whose_server_gets_the_signal_too_ends_at_once_with_all_its_processes(
    workspace: Path, prefect_database: Path
) -> None:
    """The proxy that the environment names answers nothing: the temporary server is reached without it."""
    copy_database(prefect_database, workspace / ".prefect-home/prefect.db")
    paths.PARAMS.write_text("seed: 1\n")
    with socket.create_server(("127.0.0.1", 0)) as proxy, started(FLOW, workspace, proxy) as process:
        all_of_it = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(all_of_it) > 1, "no server was started"
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "give the same command again" in said and "Traceback" not in said, said
    assert psutil.wait_procs(all_of_it, timeout=10)[1] == []
    assert paths.PARAMS.read_text() == "seed: 1\n"
