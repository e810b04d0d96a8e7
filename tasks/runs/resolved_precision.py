"""The precision of matrix products, decided once, before a job is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.runs.devices import gpu_count
from tasks.workspace import paths
from velocitune_core.config import ConfigError, Precision, Training


def resolve_precision(training: Training) -> Precision:
    """Return the precision of a run: as configured, or what the devices of this machine compute best.

    The initial losses, the proxies and the main run all take it from here. On a cluster whose workers differ from this
    machine, set `training.precision`.
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


def check_measured_in(training: Training, measured: Mapping[Path, Precision]) -> None:
    """Check that losses to compare with were measured in the precision of the run.

    `auto` may be another precision on the machine that measured them, which DVC does not watch.

    Args:
        measured: file of losses → precision that they were measured in.

    Raises ConfigError naming the files that differ.
    """
    resolved = resolve_precision(training)
    others = {file: precision for file, precision in measured.items() if precision != resolved}
    if not others:
        return
    setting = f"auto, which is {resolved} on this machine" if training.precision == "auto" else resolved
    found = ", ".join(f"{file} was measured in {precision}" for file, precision in others.items())
    one = set(measured.values())
    choice = f"set training.precision to {one.pop()}, or " if len(one) == 1 else ""
    raise ConfigError(
        f"{paths.PARAMS}: training.precision is {setting}, but {found}; {choice}"
        "measure again with `dvc repro --force --single-item initial proxies`"
    )
