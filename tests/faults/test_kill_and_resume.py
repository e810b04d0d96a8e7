"""A training that is killed again and again, at random, ends bit for bit like one that never was."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from faults import SAVE_OFTEN
from tiny import job
from trainings import ALONE, TOGETHER, Run, assert_ends_like, signal_at, train

pytestmark = pytest.mark.slow

NOT_KILLED = 9  # of the last steps, so that the kill is in time, however busy the machine
SHORT = {"total_steps": 25}  # of two processes, which take longer


def kill_at_random(tree: dict, kills: int, ranks: int) -> Run:
    """Kill a training at random steps, each life further than the one before, then let it end."""
    seed = random.SystemRandom().randrange(10**6)
    steps = sorted(random.Random(seed).sample(range(1, tree["total_steps"] - NOT_KILLED), kills))
    print(f"seed {seed}: killed after steps {steps}")  # noqa: T201 - shown when the test fails
    for step in steps:
        assert signal_at(step, signal.SIGKILL, tree, ranks=ranks).returncode == -signal.SIGKILL
    resumed = train(tree, ranks)
    assert len(resumed.resumed_from) == kills + 1
    for step, start in zip(steps, resumed.resumed_from[1:], strict=True):
        assert (start or 0) >= step - 2 * 4  # of the saves every four steps, one at most was under way
    return resumed


def test_three_kills_at_random_steps_change_nothing(tiny_inputs: Path, tmp_path: Path, unbroken: Run) -> None:
    """Moments, generator, order of the sequences, credit of the sampler, weights: all that a run is comes back."""
    assert_ends_like(kill_at_random(job(tiny_inputs, tmp_path / "run", **SAVE_OFTEN), 3, ALONE), unbroken)


def test_kills_of_two_processes_change_nothing(tiny_inputs: Path, tmp_path: Path) -> None:
    unbroken = train(job(tiny_inputs, tmp_path / "unbroken", **SAVE_OFTEN, **SHORT), TOGETHER)
    tree = job(tiny_inputs, tmp_path / "killed", **SAVE_OFTEN, **SHORT)
    assert_ends_like(kill_at_random(tree, 1, TOGETHER), unbroken)
