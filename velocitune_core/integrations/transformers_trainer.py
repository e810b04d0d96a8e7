"""Domain weights in `transformers.Trainer`: its batches follow them, and its evaluations update them.

Between two evaluations lies one pass of the sampler, which is one epoch in the Trainer's count. So no batch is drawn
before its weights are set, whatever the loader prefetches, and the Trainer's own way of resuming (the state of the
callback, then skipping the batches of the epoch that were done) gives the same batches.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from velocitune_core.integrations.trainer_settings import TrainerSettingsError, first_update, pass_steps, problems
from velocitune_core.own_loop import MixtureBatchSampler, VelocityReweighter
from velocitune_core.own_loop.checks import positive_number
from velocitune_core.own_loop.group_labels import Groups

logger = logging.getLogger(__name__)


class VelocityCallback(TrainerCallback, ExportableState):
    """Draw a Trainer's batches by domain weights, and update the weights after every evaluation.

    `attach` it to a Trainer that has `max_steps`, `eval_strategy="steps"`, and an `eval_dataset` by group. Every
    `eval_steps` the losses of all groups go to the reweighter; weights and velocities are logged as `weight/<group>`
    and `velocity/<group>`. Its state is in `trainer_state.json` of every checkpoint, so that
    `trainer.train(resume_from_checkpoint=True)` goes on with the same examples and weights.

    Args:
        reweighter: with a strategy that learns from held-out losses, or keeps its weights.
        groups: the label of every training example, (N,); or lengths (or data sets) by name, in the order in which the
            training data set concatenates them.
        max_epochs: a group that was seen this often has weight 0 from then on.

    Raises TrainerSettingsError for a `max_epochs` that is not above 0.
    """

    def __init__(
        self,
        reweighter: VelocityReweighter,
        groups: Groups,
        *,
        max_epochs: float | None = None,
    ) -> None:
        self.reweighter = reweighter
        self._groups = groups
        self._max_epochs = (
            None if max_epochs is None else positive_number("max_epochs", max_epochs, TrainerSettingsError)
        )
        self._trainer: Trainer | None = None
        self._sampler: MixtureBatchSampler | None = None
        self._start = reweighter.state_dict()  # of a training that is not resumed
        self._pass_start: dict[str, Any] = {}  # the sampler's state there
        self._losses: dict[str, float] = {}  # of the evaluation in progress
        self._measured_at = 0  # step of the last update, or of the start: another evaluation there changes nothing
        self._training = False

    @property
    def sampler(self) -> MixtureBatchSampler:
        """The sampler of the training data, there from the start of `train`.

        Raises TrainerSettingsError before that, and in a Trainer that has the callback without `attach`.
        """
        if self._sampler is None:
            raise TrainerSettingsError(
                "VelocityCallback has no sampler: it is made when the Trainer that it is attached to starts to train; "
                "call callback.attach(trainer), in place of trainer.add_callback(callback) or callbacks=[callback]"
            )
        return self._sampler

    def attach(self, trainer: Trainer) -> Trainer:
        """Make the trainer draw its batches by the weights, add this callback to it, and return it.

        Raises TrainerSettingsError with all settings that do not allow it.
        """
        found = problems(trainer, self.reweighter, self._groups, self._max_epochs)
        present = trainer.callback_handler.callbacks
        if any(isinstance(each, VelocityCallback) and each is not self for each in present):
            found.append("another VelocityCallback is attached already: give each training one")
        if found:
            raise TrainerSettingsError("VelocityCallback needs other settings:\n- " + "\n- ".join(found))
        if first_update(trainer.args) == trainer.args.max_steps:
            logger.warning("the only evaluation is after the last step: the weights are updated, and no batch has them")
        self._trainer = trainer
        # On the object and not in a subclass, so that it works for every kind of Trainer.
        setattr(trainer, "_get_train_sampler", self._order)  # noqa: B010
        if self not in present:
            trainer.add_callback(self)
        return trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the state of the checkpoint that is resumed; without one, start from the initial weights."""
        if state.global_step == 0:
            self.reweighter.load_state_dict(self._start)
            self.sampler.set_weights(self.reweighter.weights)
        else:
            saved = state.stateful_callbacks.get(type(self).__name__)  # type: ignore[union-attr]
            if not saved:
                raise TrainerSettingsError(
                    f"the checkpoint of step {state.global_step} has no state of VelocityCallback: it was saved by a "
                    "training without it; start a new training from its model"
                )
            start = saved["attributes"]["sampler"]["sampler"]["step"]
            expected = state.global_step - state.global_step % pass_steps(args)
            if start != expected:
                raise TrainerSettingsError(
                    f"the checkpoint of step {state.global_step} is of a pass that began at step {start}, and "
                    f"eval_steps {args.eval_steps} would have begun it at step {expected}; resume with the eval_steps "
                    "of before"
                )
            self.reweighter.load_state_dict(saved["attributes"]["reweighter"])
            self.sampler.load_state_dict(saved["attributes"]["sampler"])
        self._training, self._losses, self._measured_at = True, {}, state.global_step

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the sampler's state at the start of the pass, to which checkpoints within it refer."""
        self._pass_start = self.sampler.state_dict()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Collect the losses of the groups, which are evaluated one after the other; update after the last one."""
        is_measured = state.global_step == self._measured_at
        if not self._training or is_measured or state.global_step % pass_steps(args):
            return
        metrics = metrics or {}
        for name in self.reweighter.groups:
            if (key := f"eval_{name}_loss") in metrics:
                self._losses[name] = float(metrics[key])
            elif f"eval_{name}_runtime" in metrics:
                raise TrainerSettingsError(
                    f"the evaluation of {name!r} gave no {key}: the model must return a loss, and Trainer looks for "
                    f"one only if its inputs have the labels that label_names lists, {args.label_names}"
                )
        if len(self._losses) == len(self.reweighter.groups):
            losses, self._losses, self._measured_at = self._losses, {}, state.global_step
            self._update(args, state.global_step, losses)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the weights alone in evaluations after the training."""
        self._training = False

    def state(self) -> dict[str, Any]:
        """Return what the Trainer writes to `trainer_state.json`."""
        attributes: dict[str, Any] = {"reweighter": self.reweighter.state_dict()}
        if self._trainer is not None and self._sampler is not None:
            step = self._trainer.state.global_step
            at_border = self._training and step % pass_steps(self._trainer.args) == 0
            # A Trainer that resumes at the border of two passes begins the next one, updated weights or not.
            attributes["sampler"] = (
                {**self._sampler.state_dict(step), "in_pass": False} if at_border else self._pass_start
            )
        return {"args": {}, "attributes": attributes}

    def _update(self, args: TrainingArguments, step: int, losses: dict[str, float]) -> None:
        """Set new weights for the pass that follows."""
        if all(map(math.isfinite, losses.values())):
            self.reweighter.update(losses, step=step)
        else:
            logger.warning(f"step {step}: losses {losses} are not all finite; the weights stay as they are")
        weights = [self.reweighter.weights]
        if args.world_size > 1:
            broadcast_object_list(weights)  # all ranks have the same losses; the first one's weights count
        self.sampler.set_weights(weights[0])
        logged = {f"weight/{name}": weight for name, weight in weights[0].items()}
        logged |= {f"velocity/{name}": value for name, value in (self.reweighter.velocity or {}).items()}
        assert self._trainer is not None
        self._trainer.log(logged)

    def _order(self, *_: Any, **__: Any) -> Examples:
        """Return the order of the training examples; called at every start of `train`."""
        assert self._trainer is not None
        args = self._trainer.args
        self._sampler = MixtureBatchSampler(
            self._groups,
            self.reweighter.weights,
            self._trainer.get_total_train_batch_size(args),
            args.seed if args.data_seed is None else args.data_seed,
            steps=pass_steps(args),
            max_epochs=self._max_epochs,
        )
        return Examples(self._sampler)


class Examples:
    """The examples of a pass, one by one: a Trainer makes micro-batches and distributes them over its ranks."""

    def __init__(self, batches: MixtureBatchSampler) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[int]:
        for batch in self._batches:
            yield from batch

    def __len__(self) -> int:
        return len(self._batches) * self._batches.batch_size
