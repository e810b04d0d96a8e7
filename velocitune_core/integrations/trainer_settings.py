"""Under which settings of a `transformers.Trainer` its batches can follow the weights, and a resume is exact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized

from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from velocitune_core.mixture import MixtureError
from velocitune_core.own_loop import VelocityReweighter
from velocitune_core.own_loop.checks import group_name
from velocitune_core.own_loop.group_labels import Groups, grouped


class TrainerSettingsError(ValueError):
    """Settings of a Trainer under which batches could not follow the weights, or a resume would not be exact."""


def pass_steps(args: TrainingArguments) -> int:
    """Return the steps between two evaluations; `eval_steps` may be a share of the training."""
    assert args.eval_steps is not None
    return int(args.eval_steps) if args.eval_steps >= 1 else math.ceil(args.max_steps * args.eval_steps)


def first_update(args: TrainingArguments) -> int:
    """Return the step of the first evaluation, which may lie after the end."""
    every = pass_steps(args)
    return every * max(1, math.ceil(args.eval_delay / every))


def problems(trainer: Trainer, reweighter: VelocityReweighter, groups: Groups, max_epochs: float | None) -> list[str]:
    """Return what must be changed in the settings of a Trainer, its data sets, or the groups."""
    args = trainer.args
    wrong = {
        "max_steps must be above 0: a mixture by weights has no epoch, and Trainer would count passes": (
            args.max_steps <= 0
        ),
        "eval_strategy must be 'steps': weights are updated every eval_steps": not _evaluates_by_steps(args),
        f"train_sampling_strategy must be 'random', not {args.train_sampling_strategy!r} (group_by_length): the "
        "weights decide which examples form a batch": args.train_sampling_strategy != "random",
        "packing must be off: it joins examples across groups; pack each group by itself beforehand": bool(
            getattr(args, "packing", False)
        ),
        "accelerator_config.split_batches must be False: steps would hold fewer examples than Trainer counts": (
            getattr(args.accelerator_config, "split_batches", False)
        ),
        "auto_find_batch_size must be False: it changes which examples form a step": args.auto_find_batch_size,
        "ignore_data_skip must be False: a resumed epoch would begin again": args.ignore_data_skip,
        "restore_callback_states_from_checkpoint must be False: this callback restores itself": (
            args.restore_callback_states_from_checkpoint
        ),
        "the strategy learns from training batches, whose losses by group Trainer does not have; choose one that "
        "learns from held-out losses": reweighter.needs_batches,
    }
    found = [message for message, is_wrong in wrong.items() if is_wrong]
    return found + _of_evaluations(args) + _of_data(trainer, reweighter, groups, max_epochs)


def _evaluates_by_steps(args: TrainingArguments) -> bool:
    return IntervalStrategy(args.eval_strategy) == "steps"


def _of_evaluations(args: TrainingArguments) -> list[str]:
    """Return a problem if no evaluation lies within the training."""
    if args.max_steps <= 0 or not _evaluates_by_steps(args) or (first := first_update(args)) <= args.max_steps:
        return []
    delayed = f" and eval_delay {args.eval_delay}" if args.eval_delay else ""
    return [
        f"eval_steps {args.eval_steps}{delayed} must be at most max_steps {args.max_steps}: the first evaluation would "
        f"come at step {first}, so the weights would be updated 0 times (left out, eval_steps is logging_steps, "
        f"{args.logging_steps})"
    ]


def _of_data(trainer: Trainer, reweighter: VelocityReweighter, groups: Groups, max_epochs: float | None) -> list[str]:
    """Return problems of the data sets, and of the labels with them."""
    data, held_out, found = trainer.train_dataset, trainer.eval_dataset, []
    names = {group_name(label) for label in held_out} if isinstance(held_out, Mapping) else set()
    if missing := sorted(set(reweighter.groups) - names):
        found.append(f"eval_dataset must be data sets by group; it lacks {missing}")
    try:
        sizes, _ = grouped(groups)
    except MixtureError as error:
        return [*found, str(error)]
    if set(sizes) != set(reweighter.groups):
        found.append(
            f"groups are {sorted(sizes)}, those of the reweighter {sorted(reweighter.groups)}: both must be the same"
        )
    if isinstance(data, IterableDataset) or not isinstance(data, Sized):
        return [*found, "train_dataset must have a length and be indexed by number (a map-style data set)"]
    if (examples := sum(sizes.values())) != len(data):
        found.append(
            f"train_dataset has {len(data)} examples, groups {examples}: one label per example is needed; if the "
            "Trainer packed or filtered the data, do that by group beforehand"
        )
    needed = trainer.args.max_steps * trainer.get_total_train_batch_size(trainer.args)
    if max_epochs is not None and needed > (most := sum(math.ceil(max_epochs * size) for size in sizes.values())):
        found.append(
            f"max_epochs {max_epochs} allows {most} examples, and max_steps {trainer.args.max_steps} need {needed}: "
            "give a larger max_epochs or fewer steps"
        )
    return found
