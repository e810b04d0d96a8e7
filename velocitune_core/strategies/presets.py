"""Named settings of strategies. `recommended` is what docs/RESULTS.md found best."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {  # name → strategy, options
    "recommended": ("velocitune", {"gap_policy": "retain", "step_size_per": "budget"}),
}
