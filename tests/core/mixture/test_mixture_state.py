"""What is saved of a sampler and what it refuses; its stream is that of earlier versions."""

from __future__ import annotations

import json
import math
from hashlib import sha256

import numpy as np
import pytest
from drawn_batches import SIZES, WEIGHTS, draw, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from velocitune_core.mixture import DomainSampler, MixtureError, initial_domain_weights


@given(st.integers(0, 60), st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_a_saved_state_resumes_identically(batches: int, seed: int) -> None:
    def sampler() -> DomainSampler:
        return DomainSampler(SIZES, seed=4, batch_size=6, fraction=0.7)

    unbroken, resumed, weights = sampler(), sampler(), random_weights(seed, 3)
    draw(unbroken, batches, weights)
    resumed.load_state_dict(json.loads(json.dumps(unbroken.state_dict())))
    for step in range(20):
        for ours, theirs in zip(unbroken.next_batch(weights(step)), resumed.next_batch(weights(step)), strict=True):
            assert ours.tolist() == theirs.tolist()
    assert unbroken.state_dict() == resumed.state_dict()


def test_the_state_does_not_grow_with_the_corpus() -> None:
    sizes = []
    for sequences in (10**3, 10**12):
        sampler = DomainSampler({"a": sequences, "b": sequences}, seed=1, batch_size=64)
        draw(sampler, 10, np.array([0.4, 0.6]))
        sizes.append(len(json.dumps(sampler.state_dict())))
    assert sizes[0] == sizes[1] < 300


def test_a_new_domain_starts_at_its_beginning() -> None:
    sampler = DomainSampler(SIZES, seed=1, batch_size=6)
    draw(sampler, 4)
    wider = DomainSampler({**SIZES, "law": 50}, seed=1, batch_size=6)
    wider.load_state_dict(sampler.state_dict())
    assert wider.drawn.tolist() == [*sampler.drawn.tolist(), 0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 2}, "sampler state has seed 1, this run 2; start a new run"),
        ({"batch_size": 4}, "batch_size 6, this run 4"),
        ({"fraction": 0.5}, "fraction 1.0, this run 0.5"),
        ({"sizes": {"code": 40}}, r"has domains \['general', 'papers'\] that this run lacks"),
    ],
)
def test_the_state_of_another_run_is_refused(other: dict, message: str) -> None:
    state = DomainSampler(SIZES, seed=1, batch_size=6).state_dict()
    with pytest.raises(MixtureError, match=message):
        DomainSampler(**{"sizes": SIZES, "seed": 1, "batch_size": 6, **other}).load_state_dict(state)


@pytest.mark.parametrize(
    "weights", [[0.5, 0.5], [0.5, 0.3, 0.1], [1.2, -0.2, 0.0], [math.nan, 0.5, 0.5], [math.inf, 0, 0], []]
)
def test_weights_that_are_no_distribution_are_refused(weights: list[float]) -> None:
    sampler = DomainSampler(SIZES, seed=1, batch_size=6)
    with pytest.raises(MixtureError, match=r"weights \["):
        sampler.next_batch(weights)
    assert sampler.drawn.sum() == 0


@pytest.mark.parametrize(
    "changes", [{"sizes": {}}, {"sizes": {"a": 0}}, {"batch_size": 0}, {"fraction": 0.0}, {"fraction": 1.5}]
)
def test_settings_that_make_no_batch_are_refused(changes: dict) -> None:
    with pytest.raises(MixtureError):
        DomainSampler(**{"sizes": SIZES, "seed": 1, "batch_size": 6, **changes})


def test_initial_domain_weights_are_configured_or_the_share_of_the_sequences() -> None:
    assert initial_domain_weights(None, {"a": 30, "b": 10}) == {"a": 0.75, "b": 0.25}
    assert initial_domain_weights({"b": 0.5, "a": 0.5}, {"a": 30, "b": 10}) == {"a": 0.5, "b": 0.5}


def test_the_stream_of_a_seed_is_pinned() -> None:
    """Golden: a change here would give every resumed run other batches than it would have had without the stop.

    Counts by hand, (code, papers, general). The first credit is 0 but for general's (0.751 − 0.5 + 0.5·√0.8)(1 − 0.8) =
    0.140, so 4.4, 2.8, 0.940 are due, and less 0.047 each they sum to 8: 4.353, 2.753, 0.893. Four times the fractions,
    less 1.41 to 2.01, clipped to 0 and 1, are chances of 0, 1, 1: the batch has 4, 3, 1. Due of the second are 4.8,
    2.6, 0.740, lowered 4.753, 2.553, 0.693; four times the fractions less 1.993 are chances of 1, 0.221, 0.779. In the
    turns of that step, papers have 0 to 0.221 and general has 0.221 to 1, which holds its point, 0.810: 5, 2, 1.
    """
    sampler = DomainSampler(SIZES, seed=17, batch_size=8)
    batches = [[each.tolist() for each in sampler.next_batch(WEIGHTS)] for _ in range(2)]
    assert batches == [
        [[2, 0, 1, 0, 1, 0, 1, 0], [2, 18, 1, 36, 11, 33, 8, 39]],  # domains, indices
        [[1, 2, 1, 0, 0, 0, 0, 0], [6, 3, 10, 24, 12, 23, 8, 32]],
    ]
    _, indices = DomainSampler({"a": 10**12}, seed=17, batch_size=3, fraction=0.1).next_batch([1.0])
    assert indices.tolist() == [65894501793, 640783426542, 456528001837]


@pytest.mark.parametrize(
    ("domains", "sequences", "batch", "steps", "options", "digest"),
    [
        (7, 70_000, 16, 60, {}, "e8f0f359dd19f06d"),
        (7, 1000, 300, 8, {}, "b01cdfbfd9015a15"),
        (300, 50, 16, 60, {}, "1ec4a5ec6a025c11"),
        (3, 3, 4, 60, {"fraction": 0.95}, "f124ba2c64081147"),
        (3, 40, 8, 20, {"fraction": 0.6, "max_epochs": 9}, "e8f182e90fececd3"),
    ],
)
@pytest.mark.parametrize("resumed_every", [1000, 7])
def test_batches_are_those_of_earlier_versions(
    domains: int, sequences: int, batch: int, steps: int, options: dict[str, float], digest: str, resumed_every: int
) -> None:
    """Recorded before draws were computed ahead: a run's batches may not change with the program."""
    weights = np.random.default_rng(domains).dirichlet(np.ones(domains), size=steps)
    sizes = {f"domain-{number}": sequences + number for number in range(domains)}
    found = sha256()
    sampler = DomainSampler(sizes, seed=3, batch_size=batch, **options)
    for step, row in enumerate(weights):
        if step % resumed_every == resumed_every - 1:
            state, sampler = sampler.state_dict(), DomainSampler(sizes, seed=3, batch_size=batch, **options)
            sampler.load_state_dict(state)
        for array in sampler.next_batch(row):
            found.update(array.astype("<i8").tobytes())
    assert found.hexdigest()[:16] == digest
