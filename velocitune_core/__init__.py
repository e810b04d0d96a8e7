"""Velocity-based domain reweighting for continual pretraining: the method, and the engine that trains with it.

Public names are imported on first use, so that importing the package does not import torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velocitune_core.mixture import DomainSampler
    from velocitune_core.mixture_law import Objective, design_swarm, fit_mixture_law, optimise_mixture
    from velocitune_core.own_loop import MixtureBatchSampler, VelocityReweighter
    from velocitune_core.scaling_law import fit_chinchilla, fit_scaling_law
    from velocitune_core.strategies import make_strategy
    from velocitune_core.velocity import learning_velocity, update_weights

__all__ = [
    "DomainSampler",
    "MixtureBatchSampler",
    "Objective",
    "VelocityReweighter",
    "design_swarm",
    "fit_chinchilla",
    "fit_mixture_law",
    "fit_scaling_law",
    "learning_velocity",
    "make_strategy",
    "optimise_mixture",
    "update_weights",
]


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562).

    Args:
        package: its `__name__`.
        modules: by public name, the module inside the package that has it.
    """

    def attribute(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return attribute, names


__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DomainSampler": "mixture",
        "MixtureBatchSampler": "own_loop",
        "Objective": "mixture_law",
        "VelocityReweighter": "own_loop",
        "design_swarm": "mixture_law",
        "fit_chinchilla": "scaling_law",
        "fit_mixture_law": "mixture_law",
        "fit_scaling_law": "scaling_law",
        "learning_velocity": "velocity",
        "make_strategy": "strategies",
        "optimise_mixture": "mixture_law",
        "update_weights": "velocity",
    },
)
