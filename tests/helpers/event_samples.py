"""Events as a run logs them."""

from __future__ import annotations

from typing import Any

from velocitune_core.train.events import Started


def started(**changes: Any) -> Started:
    """The start of a small run, with these fields in place of others."""
    fields: dict[str, Any] = {
        "name": "train",
        "total_steps": 20,
        "tokens_per_step": 64,
        "domains": ["code"],
        "strategy": "static",
        "precision": "float32",
        "parameters": 1000,
        "device": "cpu",
        "world_size": 1,
    }
    return Started(**{**fields, **changes})
