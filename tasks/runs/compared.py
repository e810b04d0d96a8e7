"""The runs of a comparison: their settings, their order, and how they share the machine."""

from __future__ import annotations

from tasks.runs.devices import gpu_count
from tasks.workspace import paths
from velocitune_core.config import Compare, ConfigError, Params
from velocitune_core.parallel.cores import usable_cores
from velocitune_core.strategies import strategy_class


def comparison_settings(params: Params) -> Compare:
    """Return the comparison's settings. Raises ConfigError if params.yaml has none."""
    if params.compare is None:
        raise ConfigError(f"{paths.PARAMS}: compare: missing; name the strategies to compare and their seeds")
    return params.compare


def side_by_side(params: Params) -> Params:
    """Return settings under which runs use the whole machine: on a CPU, one run of one thread per usable core.

    (A small model gains little from a second thread, and two processes of two threads each slow each other down.)
    """
    if gpu_count() or params.resources.runs_per_device > 1:
        return params
    resources = params.resources.model_copy(update={"runs_per_device": usable_cores(), "threads": 1})
    return params.model_copy(update={"resources": resources})


def parent_of(params: Params, label: str) -> str | None:
    """Return the label whose run, under the same seed, must precede this one; None if there is none."""
    settings = comparison_settings(params)
    compared = settings.runs[label]
    if strategy_class(compared.strategy).needs_reference:
        return settings.baseline
    return compared.weights_of


def runs_in_order(params: Params) -> list[tuple[str, int]]:
    """Return (label, seed) of every run, seed by seed, each after the run that it depends on."""
    settings = comparison_settings(params)
    labels = sorted(settings.runs, key=lambda label: parent_of(params, label) is not None)  # stable
    return [(label, seed) for seed in settings.seeds for label in labels]
