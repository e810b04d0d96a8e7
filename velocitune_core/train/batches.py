"""The batches of a run: which sequences are sampled, this rank's part of them, and what was sampled so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from velocitune_core.data.dataset import PackedDomains
from velocitune_core.mixture import DomainSampler
from velocitune_core.parallel.ranks import Ranks
from velocitune_core.train.job import TrainJob


class MixtureBatches:
    """Batches sampled by domain weight from a job's packed domains; all ranks sample the same batch.

    Args:
        ranks: this rank reads only its part of a batch.
    """

    def __init__(self, job: TrainJob, ranks: Ranks) -> None:
        self._data, self._ranks, self._domains = PackedDomains(job.domains), ranks, list(job.domains)
        self._sampler = DomainSampler(
            self._data.sizes,
            seed=job.training.seed,
            batch_size=job.training.batch_sequences,
            fraction=job.fraction,
            max_epochs=job.training.max_epochs,
        )
        self.tokens_per_step = job.training.batch_sequences * self._data.sequence_length
        self.held_out: Mapping[str, np.ndarray] = self._data.held_out  # (sequences, length) per domain

    def next_batch(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Tensor]:
        """Sample the next batch.

        Args:
            weights: domain weights, (K,).

        Returns the domain of each sequence of the batch, (batch,); those of this rank's part, (batch / world size,);
        and the token ids of that part, (batch / world size, length).
        """
        domains, indices = self._sampler.next_batch(weights)
        part = slice(self._ranks.rank, None, self._ranks.world_size)
        return domains, domains[part], self._data.read(domains[part], indices[part])

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens sampled so far, over all ranks, by domain."""
        sampled = self._sampler.drawn * self._data.sequence_length
        return dict(zip(self._domains, sampled.tolist(), strict=True))

    @property
    def epochs(self) -> dict[str, float]:
        """Epochs so far by domain."""
        return dict(zip(self._domains, self._sampler.epochs.tolist(), strict=True))

    @property
    def exhausted(self) -> list[str]:
        """Domains that reached max_epochs."""
        return self._sampler.exhausted

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-ready state."""
        return self._sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self._sampler.load_state_dict(state)
