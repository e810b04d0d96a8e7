"""The interface of all strategies: domain weights, updated from observed losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from velocitune_core.spelling import aside

MEASURED = frozenset({"initial_loss", "target_loss", "domain_tokens"})  # options whose values the pipeline measures


class StrategyError(ValueError):
    """An unknown strategy, or invalid options or inputs of one."""


def check_choice(option: str, value: object, choices: Sequence[str]) -> None:
    """Raise StrategyError, with the choice that was probably meant, unless the value of an option is a choice."""
    if value not in choices:
        raise StrategyError(f"{option} {value!r}{aside(value, choices)} must be one of {', '.join(choices)}")


@dataclass(frozen=True)
class Observation:
    """Held-out losses of one evaluation."""

    step: int
    total_steps: int
    steps_since_update: int
    losses: Mapping[str, float]  # held-out, nats per token


@dataclass(frozen=True)
class BatchObservation:
    """Training losses of one global batch; arrays are (K,), in the order of the domains."""

    step: int  # steps done, this one included
    total_steps: int
    sequences: NDArray[np.int64]  # of the batch, per domain
    losses: NDArray[np.float64]  # nats per token; NaN for a domain that the batch lacks
    excess: NDArray[np.float64] | None = None  # nats per token, mean of max(ℓ − ℓ_reference, 0); None: no reference


class Strategy:
    """Domain weights over time. `weights` is (K,), in the order of `initial_weights`, and sums to 1.

    A strategy uses held-out losses in `update`, training losses in `observe_batch`, or both; either may change
    `weights`, which act on the very next batch. The pipeline supplies every option named in MEASURED.

    Args:
        initial_weights: initial domain weights w_0, relative: non-negative and not all zero.

    Raises StrategyError for initial weights that are negative, not finite or all zero.
    """

    needs_reference: ClassVar[bool] = False  # needs the excess loss over a reference model, so it runs as a search
    # Whether the weights of a step depend on the length of the whole run, which then cannot be extended by a larger
    # token budget but starts again. True unless a strategy says otherwise.
    depends_on_total_steps: bool = True

    def __init__(self, *, initial_weights: Mapping[str, float]) -> None:
        self.domains: Sequence[str] = list(initial_weights)
        shares = np.array(list(initial_weights.values()), dtype=float)
        if not shares.size or not np.all(np.isfinite(shares)) or np.any(shares < 0) or shares.sum() <= 0:
            raise StrategyError(f"initial_weights {dict(initial_weights)} must be non-negative and not all zero")
        self.initial_weights: NDArray[np.float64] = shares / shares.sum()
        self.weights: NDArray[np.float64] = self.initial_weights.copy()
        self.velocity: NDArray[np.float64] | None = None  # (K,) of the last update, if any
        self.warnings: list[str] = []  # logged before the first step

    def update(self, observation: Observation) -> NDArray[np.float64]:
        """Update from an evaluation; return the weights (K,) of the next batch."""
        return self.weights

    def observe_batch(self, batch: BatchObservation) -> None:
        """Update from a training batch."""

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-ready state."""
        return {"weights": dict(zip(self.domains, self.weights.tolist(), strict=True))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state. Raises StrategyError if it lacks a domain."""
        self.weights = self.vector(state["weights"], "weights of the saved state")

    def vector(self, by_domain: Mapping[str, float], what: str) -> NDArray[np.float64]:
        """Return values by domain as (K,); `what` names them in the StrategyError for missing domains."""
        if missing := [name for name in self.domains if name not in by_domain]:
            raise StrategyError(f"{what} is missing for {missing}; it has {sorted(by_domain)}")
        return np.array([by_domain[name] for name in self.domains], dtype=float)
