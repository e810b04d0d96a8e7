"""Learning rate, speed and wall time of a run that is killed and resumed are what their names say.

The clock gains a second whenever it is read, so every activity takes a second, and a step two: sampling and training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from faults import train_here
from tiny import LENGTH, job

from velocitune_core.checkpoint.store import load_latest
from velocitune_core.contracts import TrainResult
from velocitune_core.train import events
from velocitune_core.train.learner import Learner
from velocitune_core.train.timer import Timer

STEPS = 12
SETTINGS: dict[str, Any] = {
    "total_steps": STEPS,
    "execution__log_every_steps": 5,
    "execution__checkpoint_every_steps": 3,
    "training__schedule": {"kind": "wsd", "warmup_steps": 2, "decay_fraction": 0.5, "final_fraction": 0.0},
}


class Killed(Exception):
    """Leaves the run where it stands, as a kill would."""


@dataclass
class Watched:
    """What two attempts logged, and what the test saw them do."""

    logged: list[events.Event] = field(default_factory=list)
    applied: list[float] = field(default_factory=list)  # learning rate of each optimizer step of the second attempt
    seconds_before: float = 0.0  # total in the checkpoint
    readings: int = 0  # of the second attempt's clock
    result: TrainResult | None = None


@pytest.fixture(scope="module")
def watched(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    tree, seen = job(tiny_inputs, tmp_path_factory.mktemp("watched") / "run", **SETTINGS), Watched()
    apply = Learner.apply

    def applied(learner: Learner, learning_rate: float) -> None:
        seen.applied.append(learning_rate)
        apply(learner, learning_rate)

    def kill(event: events.Event) -> None:
        seen.logged.append(event)
        if isinstance(event, events.Stepped) and event.step == 10:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "apply", applied)
        patch.setattr("velocitune_core.train.trainer.Timer", lambda: Timer(map(float, count()).__next__))
        with pytest.raises(Killed):
            train_here(tree, kill)
        latest, _ = load_latest(Path(tree["output"]) / "checkpoints")
        assert latest is not None and latest.step in (6, 9)  # the last may have been under way
        seen.seconds_before = latest.state["total_seconds"]
        clock = count()
        patch.setattr("velocitune_core.train.trainer.Timer", lambda: Timer(lambda: float(next(clock))))
        seen.applied.clear()
        seen.logged += train_here(tree)
        seen.readings = next(clock)
    seen.result = TrainResult.read(Path(tree["output"]) / "result.json")
    return seen


def test_the_logged_learning_rate_is_the_one_the_step_was_taken_with(watched: Watched) -> None:
    first = STEPS - len(watched.applied)
    last = [event for event in watched.logged if isinstance(event, events.Stepped)][-1]
    assert last.step == 10
    assert last.learning_rate == watched.applied[last.step - 1 - first] > 0
    assert min(watched.applied) == watched.applied[-1] == 0.0  # the last step's, and none is below


def test_every_speed_is_that_of_the_steps_since_the_last_one(watched: Watched) -> None:
    """The second attempt logs after fewer steps than `log_every_steps`, and its clock has not seen the first one's."""
    speeds = [event.tokens_per_second for event in watched.logged if isinstance(event, events.Stepped)]
    assert speeds == pytest.approx([6 * LENGTH / 2] * 3)  # after step 5, and after step 10 twice


def test_wall_time_is_that_of_the_timeline_and_holds_more_than_the_activities(watched: Watched) -> None:
    assert watched.result is not None
    spent = watched.result.seconds
    assert spent.training == spent.sampling == STEPS
    named = spent.training + spent.sampling + spent.evaluation + spent.reweighting + spent.checkpointing
    assert named < spent.total
    assert spent.total == watched.seconds_before + watched.readings - 1  # the timer starts at its first reading
