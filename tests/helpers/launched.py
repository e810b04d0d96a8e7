"""Runs in processes of their own: what they log, and which processes there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from velocitune_core.train.events import Event

LONG = {"execution__log_every_steps": 5, "evaluation__every_steps": 500, "execution__checkpoint_every_steps": 20}


class Listener:
    """Records events, and may act on each."""

    def __init__(self, act: Callable[[Event], None] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.closed = 0
        self._act = act

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._act(event)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


def children(pid: int) -> list[int]:
    """Processes that any thread of this process started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def preloaded(pid: int) -> list[int]:
    """Processes from which this one has its runs forked."""
    return [child for child in children(pid) if "fork_server.py" in command_of(child)]


def running_ranks(pid: int) -> list[int]:
    """Not the server that forks the runs of other tests, which names the program too."""
    own = [*children(pid), *(run for server in preloaded(pid) for run in children(server))]
    return [child for child in own if "-m\0velocitune_core.train\0" in command_of(child)]


def forked_beside(pid: int, folder: Path) -> list[int]:
    """Processes in a folder that come from the process which another one was forked from."""
    parent = psutil.Process(pid).parent()
    assert parent is not None
    return [each for each in children(parent.pid) if each != pid and Path(f"/proc/{each}/cwd").resolve() == folder]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
