"""Time and memory of the embedded default, in a fresh workspace: `python benchmarks/pipeline.py`.

Runs the whole pipeline once (about ten minutes on two cores), so leave the machine alone meanwhile. `--archives` names
a folder with the downloaded packages, which are fetched otherwise.
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
from pathlib import Path

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archives", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "velocitune"
        subprocess.run(["git", "clone", "--quiet", PROJECT, workspace], check=True)
        if arguments.archives:
            shutil.copytree(arguments.archives, workspace / "archives")
        rows = measure(workspace)
    table = Table("what", "measured", "limit")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def measure(workspace: Path) -> list[tuple[str, str, str]]:
    """(what, measured, limit) for every figure."""
    pipeline = run(workspace, "flows.pipeline")
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of the largest process below us
    noop = min(run(workspace, "dvc", "repro") for _ in range(3))
    usage = min(run(workspace, "flows.pipeline", "--help") for _ in range(3))
    seconds = json.loads((workspace / "results/train.json").read_text())["seconds"]
    steps = json.loads((workspace / "results/train.json").read_text())["steps"]
    looking = (seconds["evaluation"] + seconds["reweighting"]) / seconds["total"]
    drawing = seconds["sampling"] / (seconds["sampling"] + seconds["training"])
    return [
        ("python -m flows.pipeline, everything", f"{pipeline / 60:.1f} min", "12 min"),
        ("largest resident size of any process", f"{peak_gib:.2f} GiB", "4 GB"),
        ("dvc repro with nothing to do", f"{noop:.1f} s", "6 s"),
        ("python -m flows.pipeline --help", f"{usage:.1f} s", "3 s"),
        ("evaluation and reweighting, of the training's time", f"{looking:.1%}", "10 %"),
        ("drawing and reading batches, of step time", f"{drawing:.2%}", "1 %"),
        ("one step", f"{1000 * (seconds['sampling'] + seconds['training']) / steps:.0f} ms", ""),
    ]


def run(workspace: Path, module: str, *arguments: str) -> float:
    """Seconds of `python -m module`, which must succeed."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=workspace, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
