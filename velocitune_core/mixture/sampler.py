"""Choose which sequence of which domain fills each slot of each step.

Nothing is shuffled in memory: the i-th draw from a domain is *computed*, by a keyed permutation of its indices. The
state is one count and one credit per domain whatever the corpus holds, a batch costs the same for 10^3 and 10^9
sequences, and new weights act on the very next batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from velocitune_core.mixture.apportionment import apportion, initial_credit
from velocitune_core.mixture.limits import MixtureError, domain_limits
from velocitune_core.mixture.order import DrawOrder, Step, StepOrder
from velocitune_core.mixture.permutation import key

WEIGHT_SUM_TOLERANCE = 1e-5


class DomainSampler:
    """Draw batches from domains by weight, without replacement within an epoch of a domain.

    Counts per batch are whole numbers. What rounding withholds from a domain is carried over as credit, and which
    domains are rounded up is a systematic sample over a permutation of the domains, keyed by name, seed and step. So a
    batch is a sample of the mixture, and over time every domain gets its share, however small its weight: to within
    1.5 sequences at every step, as measured, while the same domains have a weight.

    The order of `sizes` decides nothing: orders, credits and slots follow from names. Reordering domains changes no
    batch, and adding one changes no other domain's order.

    Args:
        sizes: sequences per domain, by name, K of them.
        seed: of all orders.
        batch_size: sequences per batch, over all ranks.
        fraction: draw from a random sub-sample of every domain that holds this share of it (at least one sequence).
        max_epochs: a domain that was seen this often has weight 0 from then on; the others take its share.

    Raises MixtureError for empty domains, a batch size below 1 or a fraction outside (0, 1].
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        seed: int,
        batch_size: int,
        fraction: float = 1.0,
        max_epochs: float | None = None,
    ) -> None:
        if not sizes or min(sizes.values()) < 1:
            raise MixtureError(f"sizes {dict(sizes)}: every domain needs at least one sequence")
        if batch_size < 1 or not 0 < fraction <= 1:
            raise MixtureError(f"batch_size {batch_size} must be at least 1 and fraction {fraction} in (0, 1]")
        self.names = list(sizes)
        self._seed, self._batch_size, self._fraction = seed, batch_size, fraction
        full_sizes = np.array(list(sizes.values()), dtype=np.int64)  # (K,)
        # (K,) each: sequences drawn from, and draws allowed in all
        self.sizes, self._limits = domain_limits(full_sizes, fraction, max_epochs)
        self._draws = DrawOrder(self.names, seed, full_sizes, self.sizes, subset=fraction < 1)
        self._steps = StepOrder(self.names, seed, batch_size)
        phases = np.array([key(seed, name, "phase") for name in self.names], dtype=np.uint64)
        self._phases = phases.astype(float) / 2.0**64  # (K,) in [0, 1]
        self._numbers = np.arange(batch_size)
        self._step = 0
        self._drawn = np.zeros(len(self.names), dtype=np.int64)  # (K,)
        self._credit: NDArray[np.float64] = np.zeros(len(self.names))  # (K,) sequences

    @property
    def drawn(self) -> NDArray[np.int64]:
        """Sequences drawn so far per domain, (K,)."""
        return self._drawn.copy()

    @property
    def epochs(self) -> NDArray[np.float64]:
        """Epochs seen so far per domain, (K,)."""
        return self._drawn / self.sizes

    @property
    def exhausted(self) -> list[str]:
        """Domains that have reached `max_epochs`."""
        return [name for name, stopped in zip(self.names, self._drawn >= self._limits, strict=True) if stopped]

    def next_batch(self, weights: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw one batch under `weights` (K,), in the order of `sizes`.

        Returns:
            domains (batch_size,): which domain fills each slot, as its position in `sizes`.
            indices (batch_size,): which sequence of that domain.

        Raises MixtureError for weights that are no distribution over the domains, or if every domain with a weight has
        reached `max_epochs`.
        """
        step = self._steps[self._step]
        counts = self._counts(np.asarray(weights, dtype=float), step)
        in_turn = counts[step.turns]
        drawn = step.turns.repeat(in_turn)  # domain of each draw, (batch_size,)
        ordinals = self._numbers - (in_turn.cumsum() - in_turn).repeat(in_turn) + self._drawn[drawn]
        domains, indices = np.empty((2, self._batch_size), dtype=np.int64)
        domains[step.slots] = drawn
        indices[step.slots] = self._draws.indices(drawn, ordinals)
        self._drawn += counts
        self._step += 1
        return domains, indices

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-ready state; its size depends on the number of domains alone."""
        return {
            "seed": self._seed,
            "batch_size": self._batch_size,
            "fraction": self._fraction,
            "step": self._step,
            "drawn": dict(zip(self.names, self._drawn.tolist(), strict=True)),
            "credit": dict(zip(self.names, self._credit.tolist(), strict=True)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state; domains are matched by name, and a new domain starts at its beginning.

        Raises MixtureError if the state has another seed, batch size or fraction, or a domain that `sizes` lacks.
        """
        for field, ours in (("seed", self._seed), ("batch_size", self._batch_size), ("fraction", self._fraction)):
            if state[field] != ours:
                raise MixtureError(f"sampler state has {field} {state[field]}, this run {ours}; start a new run")
        if gone := sorted(set(state["drawn"]) - set(self.names)):
            raise MixtureError(f"sampler state has domains {gone} that this run lacks; start a new run")
        self._step = int(state["step"])
        self._drawn = np.array([state["drawn"].get(name, 0) for name in self.names], dtype=np.int64)
        self._credit = np.array([state["credit"].get(name, 0.0) for name in self.names])

    def _check(self, weights: NDArray[np.float64]) -> None:
        sums_to_one = abs(weights.sum() - 1) <= WEIGHT_SUM_TOLERANCE  # False for NaN
        if weights.shape != self._drawn.shape or not weights.min() >= 0 or not sums_to_one:
            raise MixtureError(
                f"weights {weights.tolist()} must be {len(self.names)} finite, non-negative numbers that sum to 1"
            )

    def _counts(self, weights: NDArray[np.float64], step: Step) -> NDArray[np.int64]:
        """Return sequences per domain (K,) that sum to the batch size, and carry fractions over as credit.

        A domain is due its credit plus its share of the batch. All sums run in the order of the step's turns, so that
        not even their rounding errors depend on the order of `sizes`.
        """
        turns = step.turns
        self._check(weights)
        room = np.minimum(self._limits - self._drawn, self._batch_size)[turns] * (weights[turns] > 0)
        shares = weights[turns] * (room > 0)  # those of exhausted domains go to the others
        if not shares.any():
            raise MixtureError(
                f"max_epochs has stopped every domain that has a weight: {self.exhausted}; raise it or lower the token "
                "budget"
            )
        if room.sum() < self._batch_size:
            raise MixtureError(
                f"max_epochs leaves too few sequences for a batch of {self._batch_size}; raise it or lower the token "
                "budget"
            )
        fresh = self._batch_size * shares / shares.sum()
        credit = self._credit[turns] if self._step else initial_credit(self._phases[turns], fresh)
        due = (credit + fresh) * (room > 0)
        counts = apportion(due, room, self._batch_size, step.start)
        self._credit[turns] = due - counts
        result = np.empty_like(counts)
        result[turns] = counts
        return result
