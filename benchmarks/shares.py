"""What the time of a finished run went into, from its result and events: `python benchmarks/shares.py runs/<run>`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from velocitune_core.contracts import TrainResult
from velocitune_core.train.events import Checkpointed, Evaluated, read_events

START = "loading the model with its imports, events, and what no activity is named for"


def shares(folder: Path) -> list[tuple[str, float]]:
    """Return the wall seconds of each activity of a run, the steps first; they sum to its total."""
    seconds = TrainResult.read(folder / "result.json").seconds
    named = {name: value for name, value in seconds.model_dump().items() if name != "total"}
    return [*named.items(), (START, seconds.total - sum(named.values()))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished training")
    folder = parser.parse_args().run
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
