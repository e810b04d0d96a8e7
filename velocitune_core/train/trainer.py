"""The training loop: draw by weight, learn, look at every domain, reweight.

`Trainer.run` reads like the protocol of the paper (Luo et al., 2025, algorithm 1). All that a run is lives in a handful
of objects with a `state_dict`, so that a checkpoint holds it whole and a resumed run ends where the unbroken one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velocitune_core.checkpoint.background import CheckpointWriter
from velocitune_core.checkpoint.store import Checkpoint, CheckpointError, SaveError, load_latest
from velocitune_core.contracts import Timings, TrainResult
from velocitune_core.data.dataset import PackedDomains
from velocitune_core.mixture import DomainSampler
from velocitune_core.parallel.ranks import Ranks
from velocitune_core.strategies import BatchObservation, Observation, make_strategy
from velocitune_core.train import events
from velocitune_core.train.history import History
from velocitune_core.train.job import TrainJob, differences
from velocitune_core.train.learner import BatchLoss, Learner, finite
from velocitune_core.train.schedule import learning_rate_factor
from velocitune_core.train.timer import Timer

NONFINITE_STEPS_ALLOWED = 3  # in a row; then the run stops at its last good checkpoint


class TrainingError(RuntimeError):
    """A training that cannot go on."""


class Interrupted(Exception):
    """The run stopped at a step boundary on request; starting it again goes on from there."""


class Trainer:
    """One training, from its job to its result.

    Args:
        job: what to train.
        processes: this process among those of the run; weights are decided alike in all of them.
        listeners: told every event, in the first process only.
        should_stop: asked after every step; once true, the run saves a checkpoint and raises Interrupted.
        accept_changes: go on from a checkpoint of another job, warning of each difference in place of refusing.
    """

    def __init__(
        self,
        job: TrainJob,
        ranks: Ranks,
        listeners: Iterable[events.Listener] = (),
        should_stop: Callable[[], bool] = lambda: False,
        accept_changes: bool = False,
    ) -> None:
        self.clock = Timer()  # first, so that its total includes loading the model
        self.job, self.ranks, self.should_stop, self._accept_changes = job, ranks, should_stop, accept_changes
        self._listeners = list(listeners) if ranks.is_main else []
        self._settings = job.training
        self.data = PackedDomains(job.domains)
        self.sampler = DomainSampler(
            self.data.sizes,
            seed=self._settings.seed,
            batch_size=self._settings.batch_sequences,
            fraction=job.fraction,
            max_epochs=self._settings.max_epochs,
        )
        weights = {name: job.weights[name] for name in job.domains}
        self.strategy = make_strategy(job.strategy.name, initial_weights=weights, **job.strategy.options)
        self.learner = Learner(job.model, self._settings, ranks, job.reference)
        self.writer = CheckpointWriter(self._checkpoints, self._settings.checkpoints_kept, ranks)
        self.step = 0
        self.resumed = 0
        self._first_step = 0  # of this attempt
        self._nonfinite = 0
        self._stopped_domains: list[str] = []
        self.trajectory = History(list(job.domains), self.strategy.weights)

    def run(self) -> TrainResult:
        """Train to the last step, or raise Interrupted at a step boundary with everything saved."""
        self._begin()
        while self.step < self.job.total_steps:
            batch = self._train_step()
            if self._due(self._settings.log_every_steps):
                self._log(batch)
            if self._due(self.job.evaluation.every_steps):
                losses = self._evaluate()
                if self.step < self.job.total_steps:
                    self._reweight(losses)
            stopping, written = self.ranks.count_true(self.should_stop(), self.writer.done)
            if written == self.ranks.world_size:
                self._settle_checkpoint()
            if stopping or (self._due(self._settings.checkpoint_every_steps) and not self._nonfinite):
                self._checkpoint()
            if stopping:
                saved = "saved" if self._settle_checkpoint() else "not saved"
                raise Interrupted(f"{self.job.name} stopped after step {self.step} of {self.job.total_steps}; {saved}")
        return self._finish()

    @property
    def tokens(self) -> int:
        """Tokens trained on so far, over all processes."""
        return self.step * self._tokens_per_step

    @property
    def _tokens_per_step(self) -> int:
        return self._settings.batch_sequences * self.data.sequence_length

    def _begin(self) -> None:
        checkpoint, damaged = load_latest(self._checkpoints, self.ranks)
        changed = [] if checkpoint is None else self._restore(checkpoint)
        self._emit(
            events.Started(
                step=self.step,
                name=self.job.name,
                total_steps=self.job.total_steps,
                tokens_per_step=self._tokens_per_step,
                domains=list(self.job.domains),
                strategy=self.job.strategy.name,
                parameters=self.learner.parameters,
                device=str(self.ranks.device),
                world_size=self.ranks.world_size,
                resumed_from=self.step if checkpoint is not None else None,
            )
        )
        if checkpoint is None:
            start = self.trajectory.weights[0]
            self._emit(events.Reweighted(step=0, tokens=0, weights=start.weights, seconds=0.0))
        for warning in [*damaged, *changed, *self.strategy.warnings, *self.learner.warnings]:
            self._warn(warning)

    def _train_step(self) -> BatchLoss:
        """One step on one batch, drawn with the weights in force."""
        weights = self.strategy.weights
        with self.clock("sampling"):
            domains, indices = self.sampler.next_batch(weights)
            mine = slice(self.ranks.rank, None, self.ranks.world_size)
            sequences = self.data.read(domains[mine], indices[mine])
        with self.clock("training"):
            batch = self.learner.gradients(sequences, domains[mine], len(self.job.domains))
            if batch.finite:
                self.learner.apply(self._learning_rate(self.step))
                self._nonfinite = 0
            else:
                self._skip_step(batch, domains)
        self.step += 1
        self.trajectory.add_step(weights)
        if batch.finite:
            self._show_batch(batch, domains)
        if (stopped := self.sampler.exhausted) != self._stopped_domains:
            self._stopped_domains = stopped
            self._warn(f"{stopped} reached max_epochs {self._settings.max_epochs}: their weight goes to the others")
        return batch

    def _show_batch(self, batch: BatchLoss, domains: NDArray[np.int64]) -> None:
        """Let the strategy learn from a batch."""
        counts = np.bincount(domains, minlength=len(self.job.domains))
        seen = BatchObservation(self.step, self.job.total_steps, counts, batch.domain_losses, batch.domain_excess)
        with self.clock("reweighting"):
            self.strategy.observe_batch(seen)

    def _skip_step(self, batch: BatchLoss, domains: NDArray[np.int64]) -> None:
        """Report a batch whose gradients cannot be used, and stop after too many in a row."""
        self.learner.discard_gradients()
        self._nonfinite += 1
        names = sorted({list(self.job.domains)[number] for number in domains})
        self._warn(
            f"step {self.step + 1}: loss {batch.loss}, gradient norm {batch.gradient_norm}: not applied; its batch was "
            f"from {names}"
        )
        if self._nonfinite >= NONFINITE_STEPS_ALLOWED:
            raise TrainingError(
                f"{self._nonfinite} steps in a row without a finite loss, the last one step {self.step + 1}; "
                f"the last good checkpoint is in {self._checkpoints}; lower training.optimizer.learning_rate"
            )

    def _learning_rate(self, step: int) -> float:
        """Return the learning rate of a 0-based step."""
        factor = learning_rate_factor(self._settings.schedule, step, self.job.total_steps)
        return self._settings.optimizer.learning_rate * factor

    def _evaluate(self) -> dict[str, float]:
        with self.clock("evaluation") as seconds:
            losses = self.learner.evaluate(self.data.held_out, self.job.evaluation.batch_sequences)
        self._emit(events.Evaluated(step=self.step, tokens=self.tokens, losses=losses, seconds=seconds()))
        if finite(*losses.values()):
            self.trajectory.add_losses(self.step, self.tokens, losses)
        return losses

    def _reweight(self, losses: dict[str, float]) -> None:
        if unusable := [name for name, loss in losses.items() if not finite(loss)]:
            self._warn(f"step {self.step}: held-out loss of {unusable} is not finite: weights stay as they are")
            return
        seen = Observation(self.step, self.job.total_steps, self.job.evaluation.every_steps, losses)
        with self.clock("reweighting") as seconds:
            weights = self.strategy.update(seen)
        point = self.trajectory.add_weights(self.step, self.tokens, weights, self.strategy.velocity)
        self._emit(events.Reweighted(**point.model_dump(), seconds=seconds()))

    def _log(self, batch: BatchLoss) -> None:
        steps = min(self._settings.log_every_steps, self.step - self._first_step)  # fewer just after a resume
        per_step = self.clock.lap("training", "sampling") / steps
        self._emit(
            events.Stepped(
                step=self.step,
                tokens=self.tokens,
                loss=batch.loss,
                learning_rate=self._learning_rate(self.step - 1),
                gradient_norm=batch.gradient_norm,
                tokens_per_second=self._tokens_per_step / per_step,
                domain_tokens=self._domain_tokens(),
                domain_epochs=self._by_domain(self.sampler.epochs),
            )
        )

    def _checkpoint(self) -> None:
        """Begin to write a checkpoint, once the one before is on the disk."""
        self._settle_checkpoint()
        with self.clock("checkpointing"):
            self.writer.start(self.step, self.learner.state(), self._state())

    def _settle_checkpoint(self) -> bool:
        """Wait for the checkpoint being written, if any, and tell how it went; returns whether one was written."""
        if not self.writer.busy:
            return False
        try:
            with self.clock("checkpointing"):
                saved = self.writer.outcome()
        except SaveError as error:
            if self._settings.on_save_failure == "stop":
                raise TrainingError(f"training.on_save_failure is stop: {error}") from None
            self._warn(f"{error}; training goes on without it")
        else:
            self._emit(events.Checkpointed(step=saved.step, path=saved.path.name, seconds=saved.seconds))
            return True
        return False

    def _state(self) -> dict[str, Any]:
        return {
            "job": self.job.model_dump(mode="json", exclude={"output", "threads"}),
            "sampler": self.sampler.state_dict(),
            "strategy": self.strategy.state_dict(),
            "seconds": self.clock.seconds,
            "total_seconds": self.clock.total,
            "resumed": self.resumed,
            "nonfinite": self._nonfinite,
            "trajectory": self.trajectory.state_dict(),
        }

    def _restore(self, checkpoint: Checkpoint) -> list[str]:
        """Go on from a checkpoint; returns how the job differs from the one that saved it, if that is accepted."""
        state = checkpoint.state
        ours = self.job.model_dump(mode="json", exclude={"output", "threads"})
        changed = differences(state["job"], ours)
        if changed and not self._accept_changes:
            raise CheckpointError(
                f"{self._checkpoints} belongs to another job; start in a new output folder, pass --accept-changes, "
                "or undo:\n" + "\n".join(changed)
            )
        self.learner.load_state(checkpoint)
        self.sampler.load_state_dict(state["sampler"])
        self.strategy.load_state_dict(state["strategy"])
        self.clock.resume(state["seconds"], state["total_seconds"])
        self._first_step = checkpoint.step
        self.step, self.resumed, self._nonfinite = checkpoint.step, state["resumed"] + 1, state["nonfinite"]
        self.trajectory.load_state_dict(state["trajectory"])
        self._stopped_domains = self.sampler.exhausted
        return [f"accepted change since step {self.step}:{line}" for line in changed]

    def _finish(self) -> TrainResult:
        self._settle_checkpoint()
        if not self.trajectory.evaluated_at(self.step):
            self._evaluate()
        if not self.trajectory.evaluated_at(self.step):
            raise TrainingError(f"the held-out losses after the last step, {self.step}, are not finite")
        if self.job.save_model:
            with self.clock("checkpointing"):
                self.learner.save(Path(self.job.output) / "model")
        result = self._result()
        if self.ranks.is_main:
            result.write(Path(self.job.output) / "result.json")
        self._emit(events.Finished(step=self.step, seconds=result.seconds.total))
        return result

    def _result(self) -> TrainResult:
        seconds = Timings(**self.clock.seconds, total=self.clock.total)
        return TrainResult(
            name=self.job.name,
            strategy=self.job.strategy.name,
            steps=self.step,
            tokens=self.tokens,
            parameters=self.learner.parameters,
            final=self.trajectory.points[-1].losses,
            points=self.trajectory.points,
            domain_weights=self.trajectory.weights,
            mean_domain_weights=self.trajectory.mean_weights,
            tokens_per_domain=self._domain_tokens(),
            epochs_per_domain=self._by_domain(self.sampler.epochs),
            tokens_per_second=self.tokens / (seconds.training + seconds.sampling),
            seconds=seconds,
            resumed=self.resumed,
        )

    @property
    def _checkpoints(self) -> Path:
        return Path(self.job.output) / "checkpoints"

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _domain_tokens(self) -> dict[str, int]:
        drawn = self.sampler.drawn * self.data.sequence_length
        return dict(zip(self.job.domains, drawn.tolist(), strict=True))

    def _by_domain(self, values: Any) -> dict[str, float]:
        return dict(zip(self.job.domains, values.tolist(), strict=True))

    def _warn(self, message: str) -> None:
        self._emit(events.Warned(step=self.step, message=message))

    def _emit(self, event: events.Event) -> None:
        for listener in self._listeners:
            listener(event)
