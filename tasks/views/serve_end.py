"""How `make serve` ends: its flow runs save and stop, then its servers do; a second signal kills all of them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from tasks.views.served_runs import ServedRuns, flow_processes, kill_groups, running_of, session_leaders, signalled
from tasks.workspace.command_end import SECONDS, say
from tasks.workspace.signals import SECONDS_FOR_PREFECT, shutdown_seconds
from velocitune_core.style.text import counted

SERVED = "VELOCITUNE_SERVED"  # variable with the folder, in the environment of every server and of what it starts
SECONDS_TO_STOP = 20  # of a server


def stop_on_signals() -> None:
    """Make Ctrl-C, SIGTERM and a closed terminal raise KeyboardInterrupt, once: the next signal kills all processes."""
    for number in _numbers():  # also SIGINT, which a shell ignores for what it starts in the background
        signal.signal(number, _stop_in_order)


def _numbers() -> list[signal.Signals]:
    closed = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # `nohup` ignores it
    return [signal.SIGINT, signal.SIGTERM, *closed]


def _stop_in_order(_number: int, _frame: object) -> None:
    _next_signal_kills()
    raise KeyboardInterrupt


def _next_signal_kills() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _kill_all)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes may send it twice


def _kill_all(_number: int, _frame: object) -> None:
    say(
        "\nkilled; the next command in this folder puts params.yaml back, and the next start ends the runs in Prefect\n"
    )
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()


@contextmanager
def stopping_runs(runs: ServedRuns) -> Iterator[ServedRuns]:
    """After this block, however it ends, let the flow runs of this workspace save and end, and show that in Prefect."""
    try:
        yield runs
    finally:
        _next_signal_kills()  # also if it is a server's end that ends the block
        try:
            _stop(runs)
        except httpx.HTTPError as error:
            say(f"Prefect's server does not answer ({error}); the next start ends the runs there\n")


def _stop(runs: ServedRuns) -> None:
    with suppress(httpx.HTTPError, OSError):  # runs are stopped all the same
        runs.pause()
    processes = flow_processes()
    if processes:
        _stop_processes(list(processes.values()), "stopping the flow run")
    for name in runs.end_stopped(processes):
        say(f"Prefect: «{name}» is cancelled; a new run with the same parameters continues it\n")
    runs.end_dead()
    if waiting := runs.waiting():
        say(f"Prefect: {counted(waiting, 'run')} will begin when the servers are started again\n")


def _stop_processes(processes: list[psutil.Process], what: str, signal_that_kills: str = "Ctrl-C again") -> None:
    """Let flow runs save and end, in bounded time, and say so."""
    if not running_of(processes):  # a second signal has killed them
        return
    seconds = shutdown_seconds() + SECONDS_FOR_PREFECT + round(SECONDS)
    say(
        f"\n{what}, which saves a checkpoint: at most {seconds} s (execution.shutdown_seconds and "
        f"{seconds - shutdown_seconds()} s more). {signal_that_kills} kills it at once\n"
    )
    signalled(processes, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while (alive := running_of(processes)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if alive:
        say(f"the flow run has not ended within {seconds} s: killed\n")
        kill_groups(alive)


def end_left_over() -> None:
    """Stop servers and flow runs of this folder that an earlier start has left, because it was killed.

    Call it while no other start can hold the folder.
    """
    here = str(Path.cwd())
    left = [each for each in session_leaders() if _folder_of(each) == here]
    if not left:
        return
    say(f"an earlier start was killed: stopping {counted(len(left), 'process')} that it left\n")
    flows = list(flow_processes().values())
    try:
        if flows:
            _stop_processes(flows, "stopping the flow run that it left", "Ctrl-C")
    except KeyboardInterrupt:  # it is no child of this process, which kills those at a second signal
        kill_groups(running_of([*flows, *left]))
        raise
    servers = running_of(left)
    signalled(servers, signal.SIGINT)
    deadline = time.monotonic() + SECONDS_TO_STOP
    while (servers := running_of(servers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    kill_groups(servers)


def _folder_of(process: psutil.Process) -> str | None:
    """Return the folder that a process was started for, by a start of these servers."""
    with suppress(psutil.Error):
        return process.environ().get(SERVED)
    return None
