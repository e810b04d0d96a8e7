"""Events as a run logs them."""

from __future__ import annotations

from typing import Any

from velocitune_core.contracts import Overfitting
from velocitune_core.train.events import Overfitted, Started, Stepped


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


def stepped(step: int, **changes: Any) -> Stepped:
    """A step of such a run, with these fields in place of others."""
    fields: dict[str, Any] = {
        "step": step,
        "tokens": 64 * step,
        "loss": 3.25,
        "learning_rate": 1e-3,
        "gradient_norm": 0.5,
        "tokens_per_second": 12_345.0,
        "domain_tokens": {"code": 64 * step},
        "domain_epochs": {"code": 0.1},
    }
    return Stepped(**{**fields, **changes})


def overfitted(step: int, *domains: str, **changes: Any) -> Overfitted:
    """Domains found overfitted at a step, 0.3 nats above their lowest loss, with twice the weight of then."""
    found = Overfitting(lowest_step=2, lowest_loss=3.0, lowest_weight=0.2, step=step, loss=3.3, weight=0.4, epochs=2.5)
    return Overfitted(step=step, domains=dict.fromkeys(domains, found), **changes)
