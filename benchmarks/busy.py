"""What waiting threads cost on idle and on busy cores: `python benchmarks/busy.py`.

Each setting of OpenMP trains in a process of its own. They take turns, idle and beside a busy loop per core, and every
rate is divided by that of the first setting in the same round, so that other work on the machine affects both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from velocitune_core.parallel.openmp import CHOICES, short_spin

Worker = subprocess.Popen[str]
SETTINGS: dict[str, dict[str, str]] = {
    "2 threads, libgomp's own": {"OMP_NUM_THREADS": "2"},
    "2 threads, as runs are started": {"OMP_NUM_THREADS": "2", **short_spin({})},
    "2 threads, OMP_WAIT_POLICY=PASSIVE": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
}
LENGTH, BATCH = 256, 16
BUSY_LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with this program


def work(folder: Path) -> None:
    """Train the default's model for as many seconds as each line of the input says; answer with steps per second."""
    import numpy as np
    import torch

    from velocitune_core.config import Execution, Optimizer, Training
    from velocitune_core.parallel.ranks import SINGLE_RANK
    from velocitune_core.train.learner import Learner

    settings = Training(batch_sequences=BATCH, optimizer=Optimizer(learning_rate=1e-3), precision="float32")
    learner = Learner(str(folder), settings, Execution(), SINGLE_RANK)
    sequences, domains = torch.randint(1000, (BATCH, LENGTH)), np.zeros(BATCH, dtype=np.int64)
    for line in sys.stdin:
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < float(line):
            learner.gradients(sequences, domains, 1)
            learner.apply(1e-3)
            steps += 1
        print(steps / (time.perf_counter() - start), flush=True)


def rate(worker: Worker, seconds: float) -> float:
    """Return the steps per second of one turn."""
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{seconds}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core busy with one process."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def start_workers(folder: Path) -> dict[str, Worker]:
    """Start a process per setting, and let each take a first step."""
    workers = {}
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    for name, setting in SETTINGS.items():
        command = [sys.executable, __file__, "--work", str(folder)]
        workers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment | setting, text=True
        )
    for worker in workers.values():
        rate(worker, 0.1)
    return workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    from rich.console import Console
    from rich.table import Table
    from throughput import SHAPES, write_model

    idle: dict[str, list[float]] = {name: [] for name in SETTINGS}
    busy: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        write_model(SHAPES["default"], Path(folder))
        workers = start_workers(Path(folder))
        try:
            for _ in range(arguments.rounds):
                for name, worker in workers.items():
                    idle[name].append(rate(worker, arguments.seconds))
                with busy_cores():
                    for name, worker in workers.items():
                        busy[name].append(rate(worker, arguments.seconds))
        finally:
            for worker in workers.values():
                worker.kill()
    table = Table("setting", "steps/s idle", "steps/s busy", "ratio idle", "ratio busy")
    for name in SETTINGS:
        figures = [f"{statistics.median(rates[name]):.2f}" for rates in (idle, busy)]
        for rates in (idle, busy):
            pairs = zip(rates[name], next(iter(rates.values())), strict=True)
            figures.append(f"{statistics.median(ours / first for ours, first in pairs):.2f}")
        table.add_row(name, *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
