"""When a run stops: on a signal, or once its launcher has exited."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import job, write_job
from trainings import ENVIRONMENT, wait_for

from velocitune_core.train.outcome import end_of
from velocitune_core.train.stop import StopRequest, end_in_words


@pytest.fixture(autouse=True)
def _handlers_are_restored() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("kill -KILL $$", "killed by SIGKILL: often out of memory"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("sh -c 'kill -KILL $$' 2> /dev/null; exit $?", "exit status 137, as after SIGKILL"),
        ("exit 1", "exit status 1"),
        ("exit 128", "exit status 128"),
        ("exit 0", "exit status 0"),
    ],
)
def test_how_a_process_ended_is_said_in_words(end: str, words: str) -> None:
    assert end_in_words(subprocess.run(["sh", "-c", end], check=False).returncode) == words


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_requests_a_stop_and_does_not_end_the_process(number: signal.Signals) -> None:
    request = StopRequest()
    assert not request()
    os.kill(os.getpid(), number)
    assert request()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_libraries_are_imported_stops_the_run_before_it_begins(
    tiny_inputs: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = write_job(job(tiny_inputs, tmp_path / "run", start_id="now"))
    command = [sys.executable, "-m", "velocitune_core.train", str(path)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), every_seconds=0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 75 and said.endswith("tiny stopped before it began\n")
    assert end_of(tmp_path / "run", "now", status=1) == "stopped"  # as under torchrun
    assert not (tmp_path / "run/events.jsonl").exists()


def test_a_rank_that_waits_for_others_ends_at_a_signal(tiny_inputs: Path, tmp_path: Path) -> None:
    """Where torch waits for the other ranks, for up to half an hour, no handler of Python is called."""
    path = write_job(job(tiny_inputs, tmp_path / "run", start_id="now"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    others = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "velocitune_core.train", str(path)]
    with subprocess.Popen(command, env=ENVIRONMENT | others) as process:
        try:
            wait_for(lambda: is_taken(port))
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == -signal.SIGTERM
        finally:
            process.kill()
    assert end_of(tmp_path / "run", "now", process.returncode) == "stopped"


def is_taken(port: str) -> bool:
    with socket.socket() as other:
        return other.connect_ex(("127.0.0.1", int(port))) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_process_that_a_signal_ended_before_it_was_handled_was_stopped(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The first moments of Python, and of `torchrun`, are before any handler."""
    code = f"import os, signal; signal.signal({number}, signal.SIG_DFL); os.kill(os.getpid(), {number})"
    itself = subprocess.run([sys.executable, "-c", code], check=False).returncode
    in_a_shell = subprocess.run(["sh", "-c", f"{sys.executable} -c '{code}'; exit $?"], check=False).returncode
    assert (itself, in_a_shell) == (-number, 128 + number)
    assert [end_of(tmp_path, "now", status) for status in (itself, in_a_shell)] == ["stopped", "stopped"]
    assert end_of(tmp_path, "now", -signal.SIGKILL) == "failed"  # as by the kernel, for want of memory


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    request = StopRequest()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not request() and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_launcher_that_is_not_the_parent_is_watched_by_its_process_id() -> None:
    """As under torchrun, which stands between, and in a process forked from a preloaded one."""
    launcher = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    request = StopRequest()
    request.watch(launcher.pid)
    assert not request()
    assert launcher.stdin is not None
    launcher.stdin.close()
    os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the list of processes
    assert request()
    launcher.wait()
    assert request()


def test_a_launcher_whose_process_id_another_user_has_now_has_exited(monkeypatch: pytest.MonkeyPatch) -> None:
    request = StopRequest()
    request.watch(2**22)

    def kill(pid: int, number: int) -> None:
        raise PermissionError(f"{pid}: not yours to send {number}")

    monkeypatch.setattr(os, "kill", kill)
    assert request()


def test_a_parent_that_is_running_requests_nothing() -> None:
    request = StopRequest()
    request.watch(os.getppid())
    assert not request()


CHILD = """
import os, sys, time
from velocitune_core.train.stop import StopRequest
request = StopRequest()
request.watch(int(sys.argv[1]) or None)
print("ready", flush=True)
sys.stdin.readline()
print("before", request(), flush=True)
sys.stdin.readline()
deadline = time.monotonic() + 20
while not request() and time.monotonic() < deadline:
    time.sleep(0.01)
print("after", request(), flush=True)
"""
PARENT = """
import os, subprocess, sys
under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "0" if under_torchrun else str(os.getpid())])
os.read(int(sys.argv[2]), 1)
os._exit(0)  # without waiting for the child
"""


@pytest.mark.parametrize("variables", [{}, {"TORCHELASTIC_RUN_ID": "1"}], ids=["launcher", "torchrun"])
def test_a_parent_that_has_exited_requests_a_stop(variables: dict[str, str]) -> None:
    """The child shares the pipes of this test; the parent, a launcher or `torchrun`, ends before it."""
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, str(reader)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(reader,),
        text=True,
        env={**os.environ, **variables},
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "before False\n"
        os.write(writer, b"x")
        parent.wait(timeout=30)
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "after True\n"
    os.close(reader)
    os.close(writer)
