"""A reweighter of two groups."""

from __future__ import annotations

from typing import Any

from velocitune_core import VelocityReweighter

WEIGHTS = {"cats": 3.0, "dogs": 1.0}

INITIAL, TARGETS = {"cats": 2.0, "dogs": 4.0}, {"cats": 1.0, "dogs": 2.0}


def reweighter(strategy: str = "velocitune", **options: Any) -> VelocityReweighter:
    return VelocityReweighter(
        WEIGHTS,
        strategy=strategy,
        initial_losses=INITIAL,
        target_losses=TARGETS,
        options=options,
        total_steps=40,
    )
