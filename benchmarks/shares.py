"""What the time of a finished run went into, from its result and events: `python benchmarks/shares.py runs/<run>`.

With `--starts N` its job is started N times by itself and N times forked from a preloaded process, alternating, each to
the end of its first step. Processor times are those of the run's process over all threads. The preloaded process is
paid once; its memory, and what a forked run does not share with it, are printed too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table

from velocitune_core.contracts import TrainResult
from velocitune_core.parallel.openmp import short_spin
from velocitune_core.preload.forked_process import ForkServer
from velocitune_core.preload.start import Process
from velocitune_core.train.events import Checkpointed, Evaluated, Stepped, read_events
from velocitune_core.train.job import TrainJob, read_job

START = "loading the model with its imports, events, and what no activity is named for"
MB = 10**6


def shares(folder: Path) -> list[tuple[str, float]]:
    """Return the wall seconds of each activity of a run, the steps first; they sum to its total."""
    seconds = TrainResult.read(folder / "result.json").seconds
    named = {name: value for name, value in seconds.model_dump().items() if name != "total"}
    return [*named.items(), (START, seconds.total - sum(named.values()))]


@dataclass(frozen=True)
class Start:
    """A run at the end of its first step."""

    wall_seconds: float
    processor_seconds: float
    resident_bytes: int
    own_bytes: int  # of these, shared with no other process


def first_step(job: TrainJob, start: Callable[[list[str], IO[bytes]], Process]) -> Start:
    """Start a job in a folder of its own, kill it after its first step, and return what that took."""
    with tempfile.TemporaryDirectory() as folder:
        file, events = Path(folder) / "job.json", Path(folder) / "run/events.jsonl"
        execution = job.execution.model_copy(update={"log_every_steps": 1})
        changes = {"output": str(events.parent), "threads": 1, "execution": execution}
        file.write_text(job.model_copy(update=changes).model_dump_json())
        with (Path(folder) / "log.txt").open("w+b") as log:
            begun = time.perf_counter()
            process = start(["velocitune_core.train", str(file), "--parent", str(os.getpid())], log)
            while not (events.exists() and any(isinstance(event, Stepped) for event in read_events(events))):
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(log.read().decode())
                time.sleep(0.005)
            wall, processor = time.perf_counter() - begun, processor_seconds(process.pid)
            resident, own = memory(process.pid)
            process.kill()
            process.wait()
    return Start(wall, processor, resident, own)


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> tuple[int, int]:
    """Return the resident bytes of a process, and how many of these it shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: 1024 * int(size.split()[0]) for name, size in (line.split(":") for line in lines)}
    return sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


def starts(job: TrainJob, turns: int) -> Table:
    """Return the time to the first step of either start: the median of the turns, and the least and most of them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment |= short_spin(environment)
    begun = time.perf_counter()
    server = ForkServer(environment)
    wall, processor = time.perf_counter() - begun, processor_seconds(server.pid)
    resident, _ = memory(server.pid)

    def fork(program: list[str], log: IO[bytes]) -> Process:
        process = server.fork(program, environment, log)
        assert process is not None, "it is running"
        return process

    def plain(program: list[str], log: IO[bytes]) -> Process:
        return subprocess.Popen([sys.executable, "-m", *program], env=environment, stdout=log, stderr=log)

    seen: dict[str, list[Start]] = {"started by itself": [], "forked": []}
    for _ in range(turns):
        seen["started by itself"].append(first_step(job, plain))
        seen["forked"].append(first_step(job, fork))
    server.close()
    table = Table("to the end of the first step", "processor s", "wall s", "resident MB", "of its own MB")
    for name, each in seen.items():
        times = [[start.processor_seconds for start in each], [start.wall_seconds for start in each]]
        medians = [f"{statistics.median(row):.2f} ({min(row):.2f} to {max(row):.2f})" for row in times]
        sizes = [statistics.median(row) for row in zip(*((s.resident_bytes, s.own_bytes) for s in each), strict=True)]
        table.add_row(name, *medians, *(f"{size / MB:.0f}" for size in sizes))
    table.add_row("the preloaded process, once", f"{processor:.2f}", f"{wall:.2f}", f"{resident / MB:.0f}", "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished training")
    parser.add_argument("--starts", type=int, metavar="N", help="measure the time to the first step of its job instead")
    arguments = parser.parse_args()
    folder = arguments.run
    if arguments.starts:
        job = read_job(folder / "job.json")
        assert isinstance(job, TrainJob), "the job of a training"
        Console().print(starts(job, arguments.starts))
        return
    rows = shares(folder)
    total = sum(value for _, value in rows)
    events = list(read_events(folder / "events.jsonl"))
    evaluations = [event.seconds for event in events if isinstance(event, Evaluated)]
    checkpoints = sum(isinstance(event, Checkpointed) for event in events)
    title = f"{folder.name}: {total:.1f} s, {len(evaluations)} evaluations, {checkpoints} checkpoints"
    table = Table("what", "seconds", "share", title=title)
    for name, value in rows:
        table.add_row(name, f"{value:.2f}", f"{value / total:.2%}")
    Console().print(table)


if __name__ == "__main__":
    main()
