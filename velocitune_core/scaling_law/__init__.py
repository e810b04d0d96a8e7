"""Loss over tokens: curves, their fit, its uncertainty."""

from velocitune_core.scaling_law.fit import (
    MOST_NOISE,
    PARAMETERS,
    REFIT_STARTS,
    ChinchillaFit,
    LawName,
    ScalingLawError,
    ScalingLawFit,
    fit_chinchilla,
    fit_scaling_law,
)

__all__ = [
    "MOST_NOISE",
    "PARAMETERS",
    "REFIT_STARTS",
    "ChinchillaFit",
    "LawName",
    "ScalingLawError",
    "ScalingLawFit",
    "fit_chinchilla",
    "fit_scaling_law",
]
