"""Domain weights in a training loop of one's own: losses in, weights out, and the batches that follow them.

Numpy and scipy only; the batches work in any loader that takes a batch sampler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from velocitune_core import lazy_names

if TYPE_CHECKING:
    from velocitune_core.own_loop.batch_sampler import MixtureBatchSampler, prefetch_lag
    from velocitune_core.own_loop.chosen_targets import (
        TargetChoiceError,
        targets_from_best_known,
        targets_from_initial_losses,
        targets_from_short_runs,
    )
    from velocitune_core.own_loop.reweighter import ReweighterError, VelocityReweighter

__all__ = [
    "MixtureBatchSampler",
    "ReweighterError",
    "TargetChoiceError",
    "VelocityReweighter",
    "prefetch_lag",
    "targets_from_best_known",
    "targets_from_initial_losses",
    "targets_from_short_runs",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "MixtureBatchSampler": "batch_sampler",
        "ReweighterError": "reweighter",
        "TargetChoiceError": "chosen_targets",
        "VelocityReweighter": "reweighter",
        "prefetch_lag": "batch_sampler",
        "targets_from_best_known": "chosen_targets",
        "targets_from_initial_losses": "chosen_targets",
        "targets_from_short_runs": "chosen_targets",
    },
)
