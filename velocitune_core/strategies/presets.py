"""Named settings of strategies. What `recommended` gives, and where it does not help: docs/RESULTS.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A strategy with options, and how long it searches before a training holds the weights that it found."""

    strategy: str
    options: Mapping[str, Any]
    search: float | None  # share of the token budget; None: the strategy steers the training itself


PRESETS = {
    "recommended": Preset(
        "velocitune",
        {
            "gap_policy": "hold",
            "initial_temperature": 5.0,
            "step_size": 10.0,
            "step_size_per": "budget",
            "velocity_unit": "nats",
        },
        search=1.0,
    ),
}
