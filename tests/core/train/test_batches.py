"""Every rank reads its part of one batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LENGTH, SEQUENCES, rows
from tiny import job as tiny_job

from velocitune_core.parallel.ranks import SINGLE_RANK, Ranks
from velocitune_core.train.batches import MixtureBatches
from velocitune_core.train.job import TrainJob

WEIGHTS = np.array([0.5, 0.5])


@pytest.fixture
def job(tiny_inputs: Path, tmp_path: Path) -> TrainJob:
    return TrainJob.model_validate(tiny_job(tiny_inputs, tmp_path), strict=False)


def test_the_parts_of_two_ranks_are_the_batch(job: TrainJob) -> None:
    whole = MixtureBatches(job, SINGLE_RANK)
    halves = [MixtureBatches(job, Ranks(rank, 2, torch.device("cpu"))) for rank in (0, 1)]
    for _ in range(5):
        domains, own, sequences = whole.next_batch(WEIGHTS)
        assert np.array_equal(domains, own) and sequences.shape == (6, LENGTH)
        for rank, half in enumerate(halves):
            every, part, ours = half.next_batch(WEIGHTS)
            assert np.array_equal(every, domains) and np.array_equal(part, domains[rank::2])
            assert torch.equal(ours, sequences[rank::2])
    assert halves[0].tokens == whole.tokens == {"code": 15 * LENGTH, "general": 15 * LENGTH}
    assert whole.epochs == pytest.approx({name: 15 / SEQUENCES[name] for name in SEQUENCES})
    assert whole.tokens_per_step == 6 * LENGTH


def test_sequences_are_of_their_domain(job: TrainJob) -> None:
    domains, _, sequences = MixtureBatches(job, SINGLE_RANK).next_batch(WEIGHTS)
    for domain, sequence in zip(domains, sequences.numpy(), strict=True):
        name = list(SEQUENCES)[domain]
        assert (rows(name, SEQUENCES[name]) == sequence).all(axis=1).any()


def test_a_restored_state_continues_with_the_same_batches(job: TrainJob) -> None:
    first, second = MixtureBatches(job, SINGLE_RANK), MixtureBatches(job, SINGLE_RANK)
    for _ in range(3):
        first.next_batch(WEIGHTS)
    second.load_state_dict(first.state_dict())
    assert second.tokens == first.tokens and second.exhausted == []
    for mine, theirs in zip(first.next_batch(WEIGHTS), second.next_batch(WEIGHTS), strict=True):
        assert np.array_equal(mine, theirs)
