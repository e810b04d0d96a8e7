"""The training loop: sample by domain weight, step, evaluate every domain, update the domain weights.

`Trainer.run` reads like the protocol of the paper (Luo et al., 2025, algorithm 1). The run's entire state is held by
objects with a `state_dict`, so a checkpoint captures it completely and a resumed run ends like an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from velocitune_core.config import Precision
from velocitune_core.contracts import Timings, TrainResult
from velocitune_core.data.dataset import load_split
from velocitune_core.model.saved import checked_rows
from velocitune_core.parallel.agreement import PhaseError, together
from velocitune_core.parallel.ranks import Ranks
from velocitune_core.strategies import BatchObservation, Observation, make_strategy
from velocitune_core.train import events, hardware
from velocitune_core.train.batches import MixtureBatches
from velocitune_core.train.compilation import Work
from velocitune_core.train.history import History
from velocitune_core.train.job import TrainJob
from velocitune_core.train.learner import BatchLoss, Learner, finite
from velocitune_core.train.saving import RunState, Saving
from velocitune_core.train.schedule import learning_rate_factor
from velocitune_core.train.stop import Interrupted, TrainingError
from velocitune_core.train.timer import Timer

MAX_NONFINITE_STEPS = 3  # in a row; then the run fails, and its newest checkpoint is before them


class Trainer:
    """One run, from its job to its result.

    Args:
        job: what to train, on what, and how.
        ranks: this rank among those of the run.
        listeners: called with every event, on the main rank only.
        should_stop: called after every step; once it returns True on any rank, the run saves a checkpoint and raises
            Interrupted.
        accept_changes: resume from a checkpoint of another recipe, with a warning for each difference.

    Raises ConfigError, ModelError or StrategyError for a job that cannot work.
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
        self._settings, self._execution = job.training, job.execution
        self.batches = MixtureBatches(job, ranks)
        weights = {name: job.initial_domain_weights[name] for name in job.domains}
        self.strategy = make_strategy(job.strategy.name, initial_weights=weights, **job.strategy.options)
        work = Work(job.total_steps, self.batches.tokens_per_step, job.runs_alike)
        self.learner = Learner(
            job.model, self._settings, self._execution, ranks, job.reference, job.document_start, work
        )
        self.trajectory = History(list(job.domains), self.strategy.weights)
        self._state = RunState(self.learner, self.batches, self.strategy, self.trajectory, self.clock)
        self._saving = Saving(job, ranks, self._state, self._emit)
        self._first_step = 0  # of this attempt
        self._stopped_domains: list[str] = []

    def run(self) -> TrainResult:
        """Train to the last step and return the result, which is also written to result.json.

        Raises Interrupted if it was stopped, TrainingError if it cannot continue, and CheckpointError for checkpoints
        of another recipe.
        """
        try:
            return self._run()
        finally:
            self._saving.close()  # before another process may enter the folder, and the ranks part

    def _run(self) -> TrainResult:
        self._begin()
        while self.step < self.job.total_steps:
            batch = self._train_step()
            if self._due(self._execution.log_every_steps):
                self._log(batch)
            if self._due(self.job.evaluation.every_steps):
                losses = self._evaluate()
                if self.step < self.job.total_steps:
                    self._reweight(losses)
            stopping, written = self.ranks.count_true(self.should_stop(), self._saving.written)
            if written == self.ranks.world_size:
                self._saving.settle()
            if stopping or (self._saving.due and not self._state.nonfinite):
                self._saving.start()
            if stopping:
                saved = "saved" if self._saving.settle() else "not saved"
                raise Interrupted(f"{self.job.name} stopped after step {self.step} of {self.job.total_steps}; {saved}")
        return self._finish()

    @property
    def step(self) -> int:
        """Steps taken so far, over all attempts."""
        return self._state.step

    @property
    def tokens(self) -> int:
        """Tokens trained on so far, over all ranks."""
        return self.step * self.batches.tokens_per_step

    def _begin(self) -> None:
        resumed, warnings = self._saving.resume(accept_changes=self._accept_changes)
        if resumed:
            self._first_step, self._stopped_domains = self.step, self.batches.exhausted
        self._emit(
            events.Started(
                step=self.step,
                name=self.job.name,
                total_steps=self.job.total_steps,
                tokens_per_step=self.batches.tokens_per_step,
                domains=list(self.job.domains),
                strategy=self.job.strategy.name,
                precision=self._precision,
                parameters=self.learner.parameters,
                compilation=self.learner.compilation.reason,
                hardware=hardware.described(self.ranks.device),
                device=str(self.ranks.device),
                world_size=self.ranks.world_size,
                resumed_from=self.step if resumed else None,
            )
        )
        if not resumed:
            self._emit(events.Reweighted(step=0, tokens=0, weights=self.trajectory.weights[0].weights, seconds=0.0))
        for warning in [*warnings, *self.strategy.warnings]:
            self._warn(warning)
        for note in self.learner.model_notes:
            self._warn(note, of_model=True)

    def _train_step(self) -> BatchLoss:
        """Take one step on a batch that is sampled with the current domain weights."""
        with self.clock("sampling"):
            weights = self.ranks.broadcast(self.strategy.weights)  # one rank decides, whatever a strategy computes
            domains, ours, sequences = self.batches.next_batch(weights)
        with self.clock("training"):
            batch = self.learner.gradients(sequences, ours, len(self.job.domains))
            if batch.finite:
                self.learner.apply(self._learning_rate(self.step))
                self._state.nonfinite = 0
            else:
                self._skip_step(batch, domains)
        self._state.step += 1
        self.trajectory.add_step(weights)
        if batch.finite:
            self._observe_batch(batch, domains)
        if (stopped := self.batches.exhausted) != self._stopped_domains:
            self._stopped_domains = stopped
            self._warn(f"{stopped} reached max_epochs {self._settings.max_epochs}: their weight goes to the others")
        return batch

    def _observe_batch(self, batch: BatchLoss, domains: NDArray[np.int64]) -> None:
        """Pass the losses of a batch to the strategy."""
        counts = np.bincount(domains, minlength=len(self.job.domains))
        seen = BatchObservation(self.step, self.job.total_steps, counts, batch.domain_losses, batch.domain_excess)
        with self.clock("reweighting"):
            self.strategy.observe_batch(seen)

    def _skip_step(self, batch: BatchLoss, domains: NDArray[np.int64]) -> None:
        """Warn of a batch without finite gradients. Raises TrainingError after too many in a row."""
        self.learner.discard_gradients()
        self._state.nonfinite += 1
        names = sorted({list(self.job.domains)[number] for number in domains})
        self._warn(
            f"step {self.step + 1}: loss {batch.loss}, gradient norm {batch.gradient_norm}: not applied; its batch was "
            f"from {names}"
        )
        if self._state.nonfinite >= MAX_NONFINITE_STEPS:
            raise TrainingError(
                f"{self._state.nonfinite} steps in a row without a finite loss, the last one step {self.step + 1}; "
                f"the last good checkpoint is in {self.job.output}/checkpoints; lower training.optimizer.learning_rate"
            )

    def _learning_rate(self, step: int) -> float:
        """Return the learning rate of a 0-based step."""
        factor = learning_rate_factor(self._settings.schedule, step, self.job.total_steps)
        return self._settings.optimizer.learning_rate * factor

    def _evaluate(self) -> dict[str, float]:
        with self.clock("evaluation") as seconds:
            losses = self.learner.evaluate(self.batches.held_out, self._execution.evaluation_micro_batch_sequences)
        self._emit(events.Evaluated(step=self.step, tokens=self.tokens, losses=losses, seconds=seconds()))
        if finite(*losses.values()):
            self.trajectory.add_losses(self.step, self.tokens, losses)
            if found := self.trajectory.newly_overfitted(self.batches.epochs):
                self._emit(events.Overfitted(step=self.step, domains=found))
        return losses

    def _reweight(self, losses: dict[str, float]) -> None:
        if unusable := [name for name, loss in losses.items() if not finite(loss)]:
            self._warn(f"step {self.step}: held-out loss of {unusable} is not finite: domain weights stay as they are")
            return
        observation = Observation(self.step, self.job.total_steps, self.job.evaluation.every_steps, losses)
        with self.clock("reweighting") as seconds:
            weights = self.strategy.update(observation)
        point = self.trajectory.add_weights(self.step, self.tokens, weights, self.strategy.velocity)
        self._emit(events.Reweighted(**point.model_dump(), seconds=seconds()))

    def _log(self, batch: BatchLoss) -> None:
        steps = min(self._execution.log_every_steps, self.step - self._first_step)  # fewer just after a resume
        per_step = self.clock.lap("training", "sampling") / steps
        self._emit(
            events.Stepped(
                step=self.step,
                tokens=self.tokens,
                loss=batch.loss,
                learning_rate=self._learning_rate(self.step - 1),
                gradient_norm=batch.gradient_norm,
                tokens_per_second=self.batches.tokens_per_step / per_step,
                domain_tokens=self.batches.tokens,
                domain_epochs=self.batches.epochs,
            )
        )

    def _finish(self) -> TrainResult:
        self._saving.settle()
        if not self.trajectory.evaluated_at(self.step):
            self._evaluate()
        if not self.trajectory.evaluated_at(self.step):
            raise TrainingError(f"the held-out losses after the last step, {self.step}, are not finite")
        warnings: list[str] = []
        try:
            if self.job.save_model:
                with self.clock("checkpointing"):
                    rows = checked_rows(self.batches.held_out)
                    warnings = self.learner.save(Path(self.job.output) / "model", self.job.save_dtype, rows)
            for warning in warnings:
                self._warn(warning)
            result = self._result(self._measured())
            together((lambda: self._write_result(result)) if self.ranks.is_main else None, self.ranks)
        except PhaseError as error:
            raise TrainingError(
                f"{self.job.output}: all {self.step} steps are taken, but their result cannot be written: {error}; "
                "once it can, start the run again: it resumes from its newest checkpoint"
            ) from None
        return result

    def _write_result(self, result: TrainResult) -> None:
        """Log the last event, then write the result, which makes the run finished: no event is missing then."""
        self._emit(events.Finished(step=self.step, seconds=result.seconds.total))
        result.write(Path(self.job.output) / "result.json")

    def _measured(self) -> dict[str, float]:
        """Return the losses of the sets without training text."""
        if not self.job.measured:
            return {}
        held_out = {name: load_split(Path(file.path)) for name, file in self.job.measured.items()}
        with self.clock("evaluation"):
            return self.learner.evaluate(held_out, self._execution.evaluation_micro_batch_sequences)

    def _result(self, measured: dict[str, float]) -> TrainResult:
        seconds = Timings(**self.clock.seconds, total=self.clock.total)
        return TrainResult(
            name=self.job.name,
            recipe=self.job.fingerprint(),
            strategy=self.job.strategy.name,
            precision=self._precision,
            steps=self.step,
            tokens=self.tokens,
            parameters=self.learner.parameters,
            final=self.trajectory.points[-1].losses,
            measured=measured,
            points=self.trajectory.points,
            domain_weights=self.trajectory.weights,
            mean_domain_weights=self.trajectory.mean_weights,
            tokens_per_domain=self.batches.tokens,
            epochs_per_domain=self.batches.epochs,
            tokens_per_second=self.tokens / (seconds.training + seconds.sampling),
            seconds=seconds,
            resumed=self._state.resumed,
        )

    @property
    def _precision(self) -> Precision:
        assert self._settings.precision != "auto", "refused by TrainJob"
        return self._settings.precision

    def _due(self, every: int) -> bool:
        return self.step % every == 0

    def _warn(self, message: str, *, of_model: bool = False) -> None:
        self._emit(events.Warned(step=self.step, message=message, of_model=of_model))

    def _emit(self, event: events.Event) -> None:
        for listener in self._listeners:
            listener(event)
