"""The precision of matrix products, decided once, before a job is built."""

from __future__ import annotations

from tasks.runs.devices import gpu_count
from velocitune_core.config import Precision, Training


def resolve_precision(training: Training) -> Precision:
    """Return the precision of a run: as configured, or what the devices of this machine compute best.

    The initial losses, the proxies and the main run all take it from here, so it is one for the whole pipeline. On a
    cluster whose workers differ from this machine, set `training.precision`.
    """
    if training.precision != "auto":
        return training.precision
    import torch  # takes seconds

    from velocitune_core.train.precision import uses_bfloat16

    device = torch.device("cuda" if gpu_count() else "cpu")
    return "bfloat16" if uses_bfloat16("auto", device) else "float32"


def with_precision(training: Training) -> Training:
    """Return the settings with the precision resolved."""
    return training.model_copy(update={"precision": resolve_precision(training)})
