"""Time and memory of the embedded default, in a fresh workspace: `python benchmarks/pipeline.py`.

Prices the run, then runs the whole pipeline once (some minutes on two cores), so leave the machine alone meanwhile.
`--archives` names a folder with the downloaded packages, which are fetched otherwise.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from velocitune_core.train.events import Finished, Started, read_events

PROJECT = Path(__file__).resolve().parent.parent
STAGES = {"base": "base-*", "proxies": "proxy-*", "train": "training-*"}  # and the folders of their trainings in runs
Row = tuple[str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archives", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "velocitune"
        subprocess.run(["git", "clone", "--quiet", PROJECT, workspace], check=True)
        if arguments.archives:
            shutil.copytree(arguments.archives, workspace / "archives")
        rows = list(measure(workspace))
    table = Table("what", "measured", "limit")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def measure(workspace: Path) -> Iterator[Row]:
    """(what, measured, limit) for every figure."""
    planning = time.perf_counter()
    plan = json.loads(run(workspace, "flows.plan", "--json"))
    planning = time.perf_counter() - planning
    pipeline = seconds(workspace, "flows.pipeline")
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of the largest process below us
    noop = min(seconds(workspace, "dvc", "repro") for _ in range(3))
    usage = min(seconds(workspace, "flows.pipeline", "--help") for _ in range(3))
    yield "python -m flows.pipeline, everything", f"{pipeline / 60:.1f} min", "12 min"
    yield "largest resident size of any process", f"{peak_gib:.2f} GiB", "4 GB"
    yield "dvc repro with nothing to do", f"{noop:.1f} s", "6 s"
    yield "python -m flows.pipeline --help", f"{usage:.1f} s", "3 s"
    yield from of_training(workspace)
    yield "python -m flows.plan", f"{planning:.1f} s", ""
    yield from plan_against(workspace, plan)


def of_training(workspace: Path) -> Iterator[Row]:
    """Of the main training, from its first event to its last."""
    result = json.loads((workspace / "results/train.json").read_text())
    events = list(read_events(workspace / "results/events.jsonl"))
    (started,) = [event.time for event in events if isinstance(event, Started)]
    (finished,) = [event.time for event in events if isinstance(event, Finished)]
    spent, wall = result["seconds"], finished - started
    steps = spent["training"] + spent["sampling"]
    measuring = spent["evaluation"] + spent["reweighting"]
    yield "all but the steps (evaluation, weights, events, checkpoints), of its time", f"{1 - steps / wall:.1%}", "5 %"
    yield "evaluation and reweighting alone", f"{measuring / wall:.1%}", ""
    yield "checkpoints alone, with saving the model", f"{spent['checkpointing'] / wall:.2%}", ""
    yield "drawing and reading batches, of step time", f"{spent['sampling'] / steps:.2%}", "1 %"
    yield "one step", f"{1000 * steps / result['steps']:.0f} ms", ""


def plan_against(workspace: Path, plan: dict[str, Any]) -> Iterator[Row]:
    """Compare predicted seconds with those from the start of each process to its result."""
    predicted = {stage["name"]: price["seconds"] for stage, price in zip(plan["stages"], plan["prices"], strict=True)}
    both = {}
    for stage, pattern in STAGES.items():
        folders = list((workspace / "runs").glob(pattern))
        real = sum(
            (each / "result.json").stat().st_mtime - (each / "job.json").stat().st_mtime
            for each in folders
            if (each / "job.json").exists()
        )
        both[stage] = (predicted[stage], real)
    both["all three"] = (sum(each for each, _ in both.values()), sum(each for _, each in both.values()))
    for stage, (planned, real) in both.items():
        yield f"{stage}: planned, real", f"{planned:.0f} s, {real:.0f} s: {planned / real:.2f}", "0.75 to 1.25"


def seconds(workspace: Path, module: str, *arguments: str) -> float:
    start = time.perf_counter()
    run(workspace, module, *arguments)
    return time.perf_counter() - start


def run(workspace: Path, module: str, *arguments: str) -> str:
    """Output of `python -m module`, which must succeed."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=workspace, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
