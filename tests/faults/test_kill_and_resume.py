"""A training that is killed again and again, at random, ends bit for bit like one that never was."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny import job
from trainings import ALONE, TOGETHER, assert_ends_like, signal_at, train

KILLS, STEPS = 3, 45


@pytest.mark.parametrize("program", [ALONE, TOGETHER], ids=["alone", "two processes"])
def test_kills_at_random_steps_change_nothing(tiny_inputs: Path, tmp_path: Path, program: Sequence[str]) -> None:
    """Optimizer moments, generator, sample order, credit of the sampler and weights are all that a run is."""
    seed = random.SystemRandom().randrange(10**6)
    steps = sorted(random.Random(seed).sample(range(1, STEPS), KILLS))
    print(f"seed {seed}: killed after steps {steps}")  # noqa: T201 - shown when the test fails
    changes = {"training__checkpoint_every_steps": 4}
    unbroken = train(job(tiny_inputs, tmp_path / "unbroken", **changes), program)
    assert unbroken.returncode == 0, unbroken.stderr

    tree = job(tiny_inputs, tmp_path / "killed", **changes)
    for step in steps:
        killed = signal_at(step, signal.SIGKILL, tree, program)
        assert killed.returncode == -signal.SIGKILL
    resumed = train(tree, program)
    assert len(resumed.resumed_from) == KILLS + 1
    for step, start in zip(steps, resumed.resumed_from[1:], strict=True):
        assert (start or 0) >= step - 2 * 4  # at most the steps since the save before the one under way
    assert_ends_like(resumed, unbroken)
