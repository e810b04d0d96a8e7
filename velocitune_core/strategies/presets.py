"""Named settings of strategies. docs/RESULTS.md has what `recommended` gains, and where it does not help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A strategy with options, and the length of its search run, whose mean weights the main run then uses."""

    strategy: str
    options: Mapping[str, Any]
    search: float | None  # share of the token budget; None: no search, the strategy updates weights in the main run


PLANNED = "planned"
PLANNED_COURSE = "planned_course"  # what steers a planned run
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
    PLANNED: Preset("static", {}, search=None),  # the stage `weights` finds what it holds, from a swarm of short runs
}
