"""Scaling laws of the held-out loss over training tokens: curves, their fit, and its uncertainty."""

from velocitune_core.scaling_law.curves import power_law
from velocitune_core.scaling_law.fit import (
    PARAMETERS,
    ChinchillaFit,
    LawName,
    ScalingLawError,
    ScalingLawFit,
    fit_chinchilla,
    fit_scaling_law,
)

__all__ = [
    "PARAMETERS",
    "ChinchillaFit",
    "LawName",
    "ScalingLawError",
    "ScalingLawFit",
    "fit_chinchilla",
    "fit_scaling_law",
    "power_law",
]
