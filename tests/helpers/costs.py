"""`pytest --costs`: what each test takes in processor time, and which programs load transformers, told at the end.

A program that loads transformers takes about five seconds to start. Counted are commands, and not the forks of a
process that has loaded it already.
"""

from __future__ import annotations

import os
import resource
import threading
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

LOADED = "/tokenizers/tokenizers."  # transformers' library of tokenizers, among the files that a process has mapped
SECONDS_BETWEEN_LOOKS = 0.5
TESTS_SHOWN = 40
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Costs:
    """Measure the tests of one process, and in the process that shows the summary collect those of all workers."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.programs: dict[int, str] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before = processor_seconds()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] += processor_seconds() - before

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._ended.set()
        if hasattr(session.config, "workeroutput"):  # a worker of xdist
            session.config.workeroutput["costs"] = [dict(self.seconds), list(self.programs.items())]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        seconds, programs = getattr(node, "workeroutput", {}).get("costs", ({}, []))  # none of one that crashed
        self.seconds.update(seconds)
        self.programs.update(programs)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        terminalreporter.section("processor time of tests and of what they start")
        write(f"{sum(self.seconds.values()):8.1f} s  all")
        for name, seconds in self.seconds.most_common(TESTS_SHOWN):
            write(f"{seconds:8.1f} s  {name}")
        terminalreporter.section("programs that load transformers")
        write(f"{len(self.programs):8}    all")
        for program, count in Counter(self.programs.values()).most_common():
            write(f"{count:8}    {program}")

    def _look(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.pid not in self.programs and has_loaded(process) and not is_fork(process):
                        self.programs[process.pid] = command_of(process)
                except (psutil.Error, OSError):
                    continue  # it has ended


def processor_seconds() -> float:
    """Return what this process and its children have used, with what each child's own children used that ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    total = sum(each.ru_utime + each.ru_stime for each in used)
    for file in Path("/proc/self/task").glob("*/children"):
        for child in file.read_text().split():
            try:
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            except FileNotFoundError:
                continue
            total += sum(map(int, fields[11:15])) / TICKS_PER_SECOND  # utime, stime, cutime, cstime
    return total


def has_loaded(process: psutil.Process) -> bool:
    return LOADED in Path(f"/proc/{process.pid}/maps").read_text()


def is_fork(process: psutil.Process) -> bool:
    """Whether a process runs the same command as its parent."""
    parent = process.parent()
    return parent is not None and parent.cmdline() == process.cmdline()


def command_of(process: psutil.Process) -> str:
    """Return the module of `python -m`, with what else names a program, or the beginning of its code."""
    words = process.cmdline()
    named = words[words.index("-m") + 1 :] if "-m" in words else words[1:]
    return " ".join(" ".join(named[:2]).split())[:90]
