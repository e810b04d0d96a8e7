"""SIGTERM to all processes of a command, as `timeout`, systemd and Slurm send it: Prefect's server is gone, too."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from databases import copy_database
from servers import environment, kill_group
from trainings import wait_for

from tasks.workspace import paths, signals
from tasks.workspace.command_end import when_command_ends
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


@pytest.mark.parametrize(("before", "status"), [("SIG_DFL", 129), ("SIG_IGN", 143)])
def test_a_terminal_that_is_closed_ends_a_command_but_not_under_nohup(
    workspace: Path, before: str, status: int
) -> None:
    """What the program inherits is set by it, since the tests may run under `nohup` themselves."""
    inherited = f"import signal\nsignal.signal(signal.SIGHUP, signal.{before})\n"
    with started(inherited + TAKEN_OVER, workspace) as process:
        process.send_signal(signal.SIGHUP)
        if before == "SIG_IGN":
            process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == status


def full_stderr() -> None:
    """Standard error is a pipe that nobody reads, and full."""
    _, written = os.pipe()
    os.set_blocking(written, False)
    with suppress(BlockingIOError):
        while True:
            os.write(written, bytes(4096))
    os.set_blocking(written, True)
    sys.stderr = os.fdopen(written, "w", buffering=1)


def no_right_to_see_children() -> None:
    def refuse(*_: object, **__: object) -> list[psutil.Process]:
        raise psutil.AccessDenied

    psutil.Process.children = refuse  # type: ignore[method-assign]


def no_time_is_left() -> None:
    signals.shutdown_seconds = lambda: -1
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by the child
    subprocess.Popen(["sleep", "60"])
    signal.signal(signal.SIGTERM, handler)


class _Interrupted:
    """A lock after whose first acquisition another signal comes at once."""

    def __init__(self) -> None:
        self.lock, self.taken = signals._ENDING._begins, 0

    def acquire(self, blocking: bool) -> bool:
        acquired = self.lock.acquire(blocking=blocking)
        self.taken += 1
        if self.taken == 1:
            os.kill(os.getpid(), signal.SIGHUP)
        return acquired


def another_signal_at_once() -> None:
    signals._ENDING._begins = _Interrupted()  # type: ignore[assignment]


def forked(prepare: Callable[[], None]) -> None:
    """A command in which Prefect has taken SIGTERM over."""
    signals.end_on_signals()
    signal.signal(signal.SIGTERM, lambda *_: time.sleep(600))
    signal.signal(signal.SIGHUP, signals._on_signal)
    when_command_ends(lambda end: Path("ended").write_text(end))
    prepare()
    Path("waits").touch()
    while True:
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("prepare", "number"),
    [
        (full_stderr, signal.SIGINT),
        (no_right_to_see_children, signal.SIGTERM),
        (no_time_is_left, signal.SIGTERM),
        (another_signal_at_once, signal.SIGINT),
    ],
)
def test_whatever_is_in_the_way_a_signal_ends_the_command(
    workspace: Path, prepare: Callable[[], None], number: signal.Signals
) -> None:
    process = multiprocessing.get_context("fork").Process(target=forked, args=(prepare,))
    process.start()
    wait_for(Path("waits").exists, 20)
    children = psutil.Process(process.pid).children()
    os.kill(process.pid or 0, number)
    process.join(5)
    ended = process.exitcode
    process.kill()
    assert ended in (128 + number, 128 + signal.SIGHUP)
    wait_for(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in children), 5)
    assert Path("ended").read_text() == "stopped"


def test_with_a_named_server_no_time_is_granted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[tuple[int, float]] = []
    fast = {"_ENDING": signals._Ending(), "SECONDS_FOR_PREFECT": 0.1, "_names_server": lambda: True}
    fast |= {"shutdown_seconds": lambda: 0.1, "_end": lambda *given: ends.append(given)}
    for name, value in fast.items():
        monkeypatch.setattr(signals, name, value)
    read, written = os.pipe()
    os.write(written, bytes([signal.SIGTERM]))
    began = time.monotonic()
    signals._end_when_terminated(read)
    ((number, deadline),) = ends
    assert number == signal.SIGTERM and began + 0.2 <= deadline <= time.monotonic()
    os.close(read)
    os.close(written)


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
