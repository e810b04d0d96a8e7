"""The checkpoints of a training: what they hold, when they are written, and how a run resumes from one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from velocitune_core.checkpoint.background import CheckpointWriter
from velocitune_core.checkpoint.store import Checkpoint, CorruptError, SaveError, load_latest
from velocitune_core.parallel.ranks import Ranks
from velocitune_core.strategies import Strategy
from velocitune_core.train import events
from velocitune_core.train.batches import MixtureBatches
from velocitune_core.train.history import History
from velocitune_core.train.job import TrainJob
from velocitune_core.train.learner import Learner
from velocitune_core.train.resume import check_recipe
from velocitune_core.train.schedule import decay_start
from velocitune_core.train.stop import TrainingError
from velocitune_core.train.timer import Timer


@dataclass
class RunState:
    """All of a training that changes from step to step."""

    learner: Learner
    batches: MixtureBatches
    strategy: Strategy
    trajectory: History
    clock: Timer
    step: int = 0  # taken, over all attempts
    resumed: int = 0  # how often the run was resumed
    nonfinite: int = 0  # steps in a row without a finite loss, up to the present one

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the tensors of the learner, JSON-ready."""
        return {
            "sampler": self.batches.state_dict(),
            "strategy": self.strategy.state_dict(),
            "seconds": self.clock.seconds,
            "total_seconds": self.clock.total,
            "resumed": self.resumed,
            "nonfinite": self.nonfinite,
            "trajectory": self.trajectory.state_dict(),
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint; every rank must call. Raises CheckpointError if its tensors do not fit."""
        state = checkpoint.state
        self.learner.load_state(checkpoint)
        self.batches.load_state_dict(state["sampler"])
        self.strategy.load_state_dict(state["strategy"])
        self.clock.resume(state["seconds"], state["total_seconds"])
        self.trajectory.load_state_dict(state["trajectory"])
        self.step, self.resumed, self.nonfinite = checkpoint.step, state["resumed"] + 1, state["nonfinite"]


class Saving:
    """Checkpoints of one run, at most one of them being written at a time; every rank makes each call.

    Whoever calls `start` must call `settle` before the run may be called saved, and `close` at its end.

    Args:
        state: of the run; saved as it is when `start` is called.
        emit: called with an event for each checkpoint, written or not.
    """

    def __init__(self, job: TrainJob, ranks: Ranks, state: RunState, emit: Callable[[events.Event], None]) -> None:
        self._job, self._ranks, self._state, self._emit = job, ranks, state, emit
        self._folder = Path(job.output) / "checkpoints"
        schedule = job.training.schedule
        # Where a WSD schedule begins to decay, a run of a larger budget goes on: that checkpoint is kept.
        self._stable_steps = decay_start(schedule, job.total_steps) if schedule.kind == "wsd" else None
        kept = job.execution.checkpoints_kept
        self._writer = CheckpointWriter(self._folder, kept, ranks, keep_through_step=self._stable_steps)

    def resume(self, *, accept_changes: bool) -> tuple[bool, list[str]]:
        """Load the newest valid checkpoint into the state; return whether there is one, and what to warn of.

        Raises CheckpointError for a checkpoint of another recipe, unless changes are accepted.
        """
        checkpoint, problems = load_latest(self._folder, self._ranks)
        self._writer.corrupt = [each.path for each in problems if isinstance(each, CorruptError)]
        warnings = [str(each) for each in problems]
        if checkpoint is not None:
            warnings += check_recipe(checkpoint, self._job, accept_changes=accept_changes)
            self._state.load(checkpoint)
        return checkpoint is not None, warnings

    @property
    def due(self) -> bool:
        """Whether the present step is one after which a checkpoint is wanted."""
        return self._state.step % self._job.execution.checkpoint_every_steps == 0 or (
            self._state.step == self._stable_steps
        )

    @property
    def written(self) -> bool:
        """Whether this rank has written its part of a checkpoint, so that `settle` waits at most for other ranks."""
        return self._writer.done

    def start(self) -> None:
        """Copy the state and start to write it, once the checkpoint before is written."""
        self.settle()
        content = {"recipe": self._job.recipe(), **self._state.state_dict()}
        with self._state.clock("checkpointing"):
            self._writer.start(self._state.step, self._state.learner.state(), content)

    def settle(self) -> bool:
        """Wait for the checkpoint that is being written, if any, and return whether it was written.

        Raises TrainingError if it was not and `execution.on_save_failure` is stop.
        """
        if not self._writer.busy:
            return False
        try:
            with self._state.clock("checkpointing"):
                saved = self._writer.outcome()
        except SaveError as error:
            if self._job.execution.on_save_failure == "stop":
                raise TrainingError(f"execution.on_save_failure is stop: {error}") from None
            self._emit(events.Warned(step=self._state.step, message=f"{error}; the run continues without it"))
            return False
        self._emit(events.Checkpointed(step=saved.step, path=saved.path.name, seconds=saved.seconds))
        return True

    def close(self) -> None:
        """Wait until nothing is being written, whatever becomes of it; nothing can be saved after."""
        self._writer.close()
