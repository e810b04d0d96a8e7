"""Named settings of strategies. What `recommended` gives, and where it does not help: docs/RESULTS.md."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {  # name → strategy, options
    "recommended": (
        "velocitune",
        {
            "gap_policy": "hold",
            "initial_temperature": 5.0,
            "step_size": 10.0,
            "step_size_per": "budget",
            "velocity_unit": "nats",
        },
    ),
}
