"""Velocity-based domain reweighting for continual pretraining: the method, and the engine that trains with it.

Public names are imported on first use, so that importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velocitune_core.mixture import DomainSampler
    from velocitune_core.mixture_law import Objective, design_swarm, fit_mixture_law, optimise_mixture
    from velocitune_core.scaling_law import fit_chinchilla, fit_scaling_law
    from velocitune_core.strategies import make_strategy
    from velocitune_core.velocity import learning_velocity, update_weights

__all__ = [
    "DomainSampler",
    "Objective",
    "design_swarm",
    "fit_chinchilla",
    "fit_mixture_law",
    "fit_scaling_law",
    "learning_velocity",
    "make_strategy",
    "optimise_mixture",
    "update_weights",
]
_MODULES = {
    "DomainSampler": "mixture",
    "Objective": "mixture_law",
    "design_swarm": "mixture_law",
    "fit_chinchilla": "scaling_law",
    "fit_mixture_law": "mixture_law",
    "fit_scaling_law": "scaling_law",
    "learning_velocity": "velocity",
    "make_strategy": "strategies",
    "optimise_mixture": "mixture_law",
    "update_weights": "velocity",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
