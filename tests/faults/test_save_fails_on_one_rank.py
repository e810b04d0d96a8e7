"""A checkpoint that one of two ranks cannot write: both ranks find out, and neither waits for the other."""

from __future__ import annotations

import re
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults import SAVE_OFTEN
from forked import ForkedRun
from tiny import job
from trainings import Run, start_two_ranks, wait_for

from velocitune_core.checkpoint.store import load_latest
from velocitune_core.train import events
from velocitune_core.train.events import read_events

pytestmark = pytest.mark.slow

SECONDS = 60  # gloo itself waits for half an hour
STOP = {"execution__on_save_failure": "stop"}


def run_two_ranks(tree: dict[str, Any], failing_rank: int) -> list[Run]:
    """Run to the end, with a first checkpoint that `failing_rank` cannot write, and later ones that it can.

    Rank 1 may write no file beyond 4,096 bytes until the first save has failed; in the way of rank 0, which also writes
    events, is a file with the name of the folder that it must make.
    """
    output = Path(tree["output"])
    in_the_way = output / "checkpoints" / ".step-00000004.tmp"
    if failing_rank == 0:
        in_the_way.parent.mkdir(parents=True)
        in_the_way.write_text("in the way")
    ranks = start_two_ranks(tree)
    try:
        if failing_rank == 1:
            limit_file_size(ranks[1], 4096)
            wait_for(lambda: failures(output) or ranks[0].poll() is not None, SECONDS, every_seconds=0.002)
            with suppress(psutil.NoSuchProcess):  # it has stopped
                limit_file_size(ranks[1], resource.RLIM_INFINITY)
        stderr = [rank.communicate(timeout=SECONDS)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [Run(output, rank.returncode, text) for rank, text in zip(ranks, stderr, strict=True)]


def limit_file_size(process: ForkedRun, size: int) -> None:
    psutil.Process(process.pid).rlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def failures(output: Path) -> list[str]:
    file = output / "events.jsonl"
    warned = [event for event in read_events(file) if isinstance(event, events.Warned)] if file.exists() else []
    return [event.message for event in warned if "cannot be saved" in event.message]


@pytest.mark.parametrize(("failing_rank", "cause"), [(0, "rank 0: .*File exists"), (1, "rank 1: .*File too large")])
def test_the_run_continues_on_both_ranks_without_that_checkpoint(
    tiny_inputs: Path, tmp_path: Path, failing_rank: int, cause: str
) -> None:
    tree = job(tiny_inputs, tmp_path / "run", **SAVE_OFTEN)
    main, other = run_two_ranks(tree, failing_rank)
    assert (main.returncode, other.returncode) == (0, 0), main.stderr + other.stderr
    assert main.result.steps == 45
    problems = failures(main.output)
    assert problems
    for problem in problems:
        assert re.search(cause, problem) and "the run continues without it" in problem
    latest, corrupt = load_latest(main.output / "checkpoints")
    assert latest is not None and (latest.step, corrupt) == (44, [])


@pytest.mark.parametrize("failing_rank", [0, 1])
def test_a_run_that_is_to_stop_stops_on_both_ranks(tiny_inputs: Path, tmp_path: Path, failing_rank: int) -> None:
    for rank in run_two_ranks(job(tiny_inputs, tmp_path / "run", **SAVE_OFTEN, **STOP), failing_rank):
        assert rank.returncode == 1
        assert "execution.on_save_failure is stop: " in rank.stderr
        assert f"step-00000004: cannot be saved: rank {failing_rank}: " in rank.stderr
