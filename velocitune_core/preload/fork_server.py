"""Program that imports libraries once, and then forks a run for each request that it is sent.

It is executed as a file, and imports libraries alone: a run imports the modules of Velocitune that are on the disk when
it starts, as one that is started by itself. It ends as soon as the process that started it has, and after
SECONDS_IDLE without a run.

A request is a message on a socket: module, arguments, folder, environment and what a child of the sender would inherit
as JSON, with two open files, the log and a socket. On that, this program reports the run's process id, with a
descriptor of the process, and later its exit status.

Arguments: the number of that socket, the libraries separated by commas, and room for the command of a run in `ps`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS_IDLE = 300
SECONDS_FOR_THREADS = 1.0  # to disappear from /proc once they have ended
MOST_BYTES = 2**20  # of a request
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # as in train/stop.py, which is not imported here
DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")  # of GPUs, which a forked process cannot use once they are open


@dataclass(frozen=True)
class Request:
    """A run to become."""

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    umask: int | None  # None where the system does not say
    affinity: list[int]  # cores
    niceness: int
    limits: dict[str, list[int]]  # by the number of the resource: soft, hard
    log: int


class Server:
    """Forks runs, and reports on them.

    Args:
        channel: on which requests come.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._runs: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of the process: its id, and reports
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)

    def serve(self) -> Request:
        """Return in every forked process, with what it is to run; this process ends inside."""
        while True:
            ready = self._poll.poll(SECONDS_IDLE * 1000)
            if not ready and not self._runs:
                os._exit(0)
            for descriptor, _ in ready:
                if descriptor in self._runs:
                    self._report_end(descriptor)
                elif (request := self._answer()) is not None:
                    return request

    def _answer(self) -> Request | None:
        """Fork a run, and return what it is to run in the new process."""
        message, descriptors = _received(self._channel)
        if not message:
            os._exit(0)  # the process that started this one has ended
        if len(descriptors) < 2:  # this process may open no more files; closing them says that there is no run
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        log, number = descriptors
        reports = socket.socket(fileno=number)
        try:
            pid = os.fork()
        except OSError:
            os.close(log)
            reports.close()  # which says that there is no run
            return None
        if pid == 0:
            reports.close()
            self._close()
            return Request(**json.loads(message), log=log)
        os.close(log)
        try:
            process = os.pidfd_open(pid)
        except OSError:  # this process may open no more files
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            reports.close()
            return None
        self._runs[process] = pid, reports
        self._poll.register(process, select.POLLIN)
        try:
            socket.send_fds(reports, [str(pid).encode()], [process])
        except OSError:  # nobody waits for it any more
            os.kill(pid, signal.SIGTERM)
        return None

    def _report_end(self, descriptor: int) -> None:
        pid, reports = self._runs.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        with reports:
            try:
                reports.send(str(os.waitstatus_to_exitcode(status)).encode())
            except OSError:
                return  # nobody waits for it

    def _close(self) -> None:
        """Close what belongs to the server, in a forked process."""
        self._channel.close()
        for descriptor, (_, reports) in self._runs.items():
            os.close(descriptor)
            reports.close()


def main() -> None:
    """Become a run, in forked processes; else serve until the end."""
    _, number, libraries, _ = sys.argv
    show_in_ps([sys.executable, "-P", *sys.argv[:2], f"for process {os.getppid()}"])
    channel = socket.socket(fileno=int(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # Ctrl-C and the end of a terminal are for the runs
    for library in libraries.split(","):
        if select.select([channel], [], [], 0)[0]:
            os._exit(0)  # before it is ready it is sent nothing, so this is the end of the other side
        importlib.import_module(library)
    if (reason := why_unfit()) is not None:
        sys.exit(reason)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # a collection in a run would else write to, and so copy, every page that they share
    channel.send(b"ready")
    become(Server(channel).serve(), mask)


def _received(channel: socket.socket) -> tuple[bytes, list[int]]:
    try:
        message, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES, 2)
    except ConnectionError:
        return b"", []
    return message, descriptors


def why_unfit() -> str | None:
    """Return why this process cannot be forked safely; None if it can."""
    opened = map(os.path.realpath, Path("/proc/self/fd").iterdir())
    if devices := [path for path in opened if path.startswith(DEVICES)]:
        return f"importing libraries has opened {devices[0]}, and a forked process could not use the GPU"
    if (pid := os.fork()) == 0:  # OpenBLAS ends its idle threads before a fork, and starts them when it needs them
        os._exit(0)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + SECONDS_FOR_THREADS
    while (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        if time.monotonic() > deadline:
            return f"importing libraries has started {threads - 1} threads, which a forked process would not have"
        time.sleep(0.01)
    return None


def become(request: Request, mask: set[Any]) -> None:
    """Run `python -m` of the request in this process, which is a forked one; raises SystemExit as that does."""
    printed = os.pread(2, os.fstat(2).st_size, 0)  # while libraries were imported
    for stream in (1, 2):
        os.dup2(request.log, stream)
    os.close(request.log)
    os.write(2, printed)
    inherit(request)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # else every run would draw the same numbers from the shared generator
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    if not os.environ.get("PYTHONSAFEPATH"):
        sys.path.insert(0, request.folder)  # as `-m` does
    importlib.invalidate_caches()
    sys.argv = [request.module, *request.arguments]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    show_in_ps(sys.orig_argv)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def inherit(request: Request) -> None:
    """Take over what a child of the sender would have inherited, as far as the system allows."""
    if request.umask is not None:
        os.umask(request.umask)
    with suppress(OSError):
        os.sched_setaffinity(0, request.affinity)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, request.niceness)
    for number, (soft, hard) in request.limits.items():
        with suppress(OSError, ValueError):
            resource.setrlimit(int(number), (soft, hard))


def show_in_ps(command: list[str]) -> None:
    """Make `ps` and /proc show this command for this process, as far as there is room in the memory of its own."""
    start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    if room := end - start:  # none where the system does not say
        line = "\0".join(command).encode()[: room - 1]
        ctypes.memmove(start, line.ljust(room, b"\0"), room)


if __name__ == "__main__":
    main()
