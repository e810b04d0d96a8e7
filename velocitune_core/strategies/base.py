"""What every strategy is: weights, and an update from what was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

MEASURED = frozenset({"initial_loss", "target_loss", "domain_tokens"})  # options that the pipeline passes in


class StrategyError(ValueError):
    """An unknown strategy, or options that it cannot work with."""


@dataclass(frozen=True)
class Observation:
    """What a strategy learns at an evaluation."""

    step: int
    total_steps: int
    steps_since_update: int
    losses: Mapping[str, float]  # held-out, nats per token


@dataclass(frozen=True)
class BatchObservation:
    """What a strategy learns from a training batch; arrays are (K,), in the order of the domains."""

    step: int  # steps done, this one included
    total_steps: int
    sequences: NDArray[np.int64]  # of the batch, per domain
    losses: NDArray[np.float64]  # training loss in nats per token; NaN for a domain that the batch lacks
    excess: NDArray[np.float64] | None = None  # mean over tokens of max(ℓ − ℓ_reference, 0), where there is a reference


class Strategy:
    """Domain weights over time. `weights` is (K,), in the order of `initial_weights`, and sums to 1.

    A strategy learns from held-out losses in `update`, from training batches in `observe_batch`, or from both; either
    may change `weights`, which act on the very next batch. An option named in MEASURED is passed in by the pipeline.
    """

    needs_reference: ClassVar[bool] = False  # weights are found in a search run beside a trained reference model
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
        self.velocity: NDArray[np.float64] | None = None  # of the last update, where the strategy has one
        self.notes: list[str] = []  # what the user should know before the run starts

    def update(self, observation: Observation) -> NDArray[np.float64]:
        """Take in an evaluation and return the weights (K,) from the next batch on."""
        return self.weights

    def observe_batch(self, batch: BatchObservation) -> None:
        """Take in a training batch."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"weights": dict(zip(self.domains, self.weights.tolist(), strict=True))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights = self.vector(state["weights"], "weights of the saved state")

    def vector(self, by_domain: Mapping[str, float], what: str) -> NDArray[np.float64]:
        """Values by domain as (K,). Raises StrategyError naming the domains that lack one."""
        if missing := [name for name in self.domains if name not in by_domain]:
            raise StrategyError(f"{what} is missing for {missing}; it has {sorted(by_domain)}")
        return np.array([by_domain[name] for name in self.domains], dtype=float)
