"""The sampler: no sequence twice before every other once, counts that follow the weights, and a pinned order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from drawn_batches import SIZES, draw, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from velocitune_core.mixture import DomainSampler, MixtureError, permute


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=60)
def test_permute_is_a_bijection(size: int, key: int) -> None:
    image = permute(np.arange(size), size, np.uint64(key))
    assert sorted(image.tolist()) == list(range(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 4096])
def test_permute_around_the_powers_of_two(size: int) -> None:
    assert sorted(permute(np.arange(size), size, np.uint64(7)).tolist()) == list(range(size))


def test_permute_moves_most_positions_and_differs_by_key() -> None:
    first, second = (permute(np.arange(1000), 1000, np.uint64(key)) for key in (1, 2))
    assert np.mean(first == np.arange(1000)) < 0.02
    assert np.mean(first == second) < 0.02
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.15
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.15


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 40), st.booleans())
@settings(deadline=None, max_examples=25)
def test_counts_follow_the_weights(seed: int, count: int, batch_size: int, changing: bool) -> None:
    sampler = DomainSampler({f"d{i}": 1000 for i in range(count)}, seed=1, batch_size=batch_size)
    weights, owed = random_weights(seed, count), np.zeros(count)
    for step in range(50):
        now = weights(step if changing else 0)
        domains, _ = sampler.next_batch(now)
        assert len(domains) == batch_size
        owed += batch_size * now
        assert np.max(np.abs(sampler.drawn - owed)) < 1.5  # at every step, not only at the end
    assert sampler.drawn.sum() == 50 * batch_size


def test_a_small_weight_gets_its_share() -> None:
    sampler = DomainSampler({"small": 500, "large": 500}, seed=1, batch_size=16)
    draw(sampler, 2000, np.array([0.003, 0.997]))
    assert sampler.drawn[0] in (95, 96, 97)  # 2,000 · 16 · 0.003 = 96


def counts_of(sampler: DomainSampler, weights: np.ndarray) -> np.ndarray:
    return np.bincount(sampler.next_batch(weights)[0], minlength=len(weights))


def many(count: int, seed: int, batch_size: int) -> DomainSampler:
    return DomainSampler({f"d{number}": 1000 for number in range(count)}, seed=seed, batch_size=batch_size)


def test_a_batch_of_some_of_many_domains_is_no_run_of_neighbours() -> None:
    """Of 100 domains in tens, 9 · 10 / 100 = 0.9 pairs per batch are neighbours in the list; in runs it would be 9."""
    sampler, weights = many(100, 1, 10), np.full(100, 0.01)
    batches = [counts_of(sampler, weights) for _ in range(200)]
    assert max(batch.max() for batch in batches) == 1
    pairs = [int((batch[1:] * batch[:-1]).sum()) for batch in batches]
    assert np.mean(pairs) == pytest.approx(0.9, abs=0.3)
    assert max(pairs) < 6


@pytest.mark.parametrize("exponent", [0.0, 1.0])
@pytest.mark.parametrize("step", [0, 6])
def test_batches_of_few_sequences_from_many_domains_are_samples_of_the_mixture(exponent: float, step: int) -> None:
    """1,000 domains in batches of 16: over seeds, a batch has the mixture's share of domains of every size."""
    weights = np.arange(1, 1001) ** exponent
    weights, seeds = weights / weights.sum(), 60
    seen = np.zeros(1000)
    for seed in range(seeds):
        sampler = many(1000, seed, 16)
        for _ in range(step + 1):
            batch = counts_of(sampler, weights)
        assert batch.max() == 1
        seen += batch
    groups = np.arange(1000) // 50  # twenty, each with similar weights
    observed, expected = (np.bincount(groups, each) for each in (seen, seeds * 16 * weights))
    large = expected > 5  # where the statistic is close to chi-square
    statistic = ((observed - expected) ** 2 / expected)[large].sum()
    assert statistic < chi2.ppf(0.999, large.sum() - 1)


@given(st.integers(0, 10_000), st.integers(1, 40), st.permutations(range(7)))
@settings(deadline=None, max_examples=25)
def test_reordering_domains_changes_no_batch(seed: int, batch_size: int, order: list[int]) -> None:
    sizes = {f"d{number}": 20 + number for number in range(7)}
    listed = DomainSampler(sizes, seed=seed, batch_size=batch_size, max_epochs=3)
    reordered = DomainSampler({f"d{n}": sizes[f"d{n}"] for n in order}, seed=seed, batch_size=batch_size, max_epochs=3)
    for step in range(10):
        weights = random_weights(seed, 7)(step)
        (ours, indices), (theirs, same) = listed.next_batch(weights), reordered.next_batch(weights[list(order)])
        assert [listed.names[each] for each in ours] == [reordered.names[each] for each in theirs]  # slot by slot
        assert indices.tolist() == same.tolist()


def test_new_weights_act_on_the_very_next_batch() -> None:
    sampler = DomainSampler(SIZES, seed=1, batch_size=20)
    draw(sampler, 5, np.array([0.5, 0.5, 0.0]))
    domains, _ = sampler.next_batch([0.0, 0.0, 1.0])
    assert set(domains.tolist()) == {2}
    domains, _ = sampler.next_batch([0.0, 1.0, 0.0])
    assert set(domains.tolist()) == {1}


def test_every_sequence_is_seen_once_before_any_is_seen_again() -> None:
    streams = draw(DomainSampler(SIZES, seed=3, batch_size=1), 600)
    for name, size in SIZES.items():
        epochs = [streams[name][start : start + size] for start in range(0, len(streams[name]), size)]
        assert len(epochs) > 5
        for epoch in epochs[:-1]:
            assert sorted(epoch) == list(range(size))
        assert len(set(epochs[-1])) == len(epochs[-1])
        assert epochs[0] != epochs[1]  # a new epoch has a new order


@given(st.integers(0, 10_000), st.integers(1, 30))
@settings(deadline=None, max_examples=25)
def test_after_every_batch_no_sequence_is_ahead_by_more_than_one(seed: int, batch_size: int) -> None:
    sampler, weights = DomainSampler(SIZES, seed=seed, batch_size=batch_size), random_weights(seed, 3)
    seen = {name: np.zeros(size, dtype=int) for name, size in SIZES.items()}
    for step in range(40):
        for name, stream in draw(sampler, 1, weights(step)).items():
            np.add.at(seen[name], stream, 1)
            assert np.ptp(seen[name]) <= 1


def test_a_batch_of_many_epochs_still_covers_evenly() -> None:
    _, indices = DomainSampler({"tiny": 3}, seed=1, batch_size=31).next_batch([1.0])
    assert sorted(Counter(indices.tolist()).values()) == [10, 10, 11]


def test_slots_of_a_batch_are_mixed() -> None:
    """Each rank takes every n-th slot, so each must see every domain."""
    sampler = DomainSampler({"a": 10_000, "b": 10_000}, seed=1, batch_size=16)
    seen = np.zeros((2, 2))
    for _ in range(300):
        domains, _ = sampler.next_batch([0.5, 0.5])
        for rank in (0, 1):
            seen[rank] += np.bincount(domains[rank::2], minlength=2)
    assert np.all(np.abs(seen / seen.sum(axis=1, keepdims=True) - 0.5) < 0.05)


@cache
def order_alone(name: str) -> list[int]:
    sampler = DomainSampler({name: SIZES[name]}, seed=5, batch_size=1)
    return draw(sampler, 800, np.ones(1))[name]


@pytest.mark.parametrize(
    "other_sizes",
    [
        {"general": 7, "code": 40, "papers": 25},
        {"law": 90, **SIZES, "biomed": 11},
        {"papers": 25},
    ],
)
@pytest.mark.parametrize("batch_size", [1, 16, 50])
def test_a_domains_order_depends_on_nothing_but_its_name(other_sizes: Mapping[str, int], batch_size: int) -> None:
    """Batches of any size and any company take consecutive pieces of the order that the domain has alone."""
    for sizes in (SIZES, other_sizes):
        sampler = DomainSampler(sizes, seed=5, batch_size=batch_size)
        weights = random_weights(3, len(sizes))
        taken = dict.fromkeys(sizes, 0)
        for step in range(640 // batch_size):
            for name, indices in draw(sampler, 1, weights(step)).items():
                if name in SIZES:  # slots of a batch are mixed, so a piece is compared as a set with repetitions
                    order = order_alone(name)
                    assert Counter(indices) == Counter(order[taken[name] : taken[name] + len(indices)])
                taken[name] += len(indices)
        assert min(taken[name] for name in set(SIZES) & set(sizes)) > 38


def test_other_seeds_give_other_orders() -> None:
    first, second = (draw(DomainSampler(SIZES, seed=seed, batch_size=8), 4) for seed in (1, 2))
    assert first != second


def test_a_fraction_stays_inside_a_fixed_sub_sample() -> None:
    def seen(epochs: int, seed: int = 2) -> dict[str, set[int]]:
        sampler = DomainSampler({"code": 400, "papers": 33}, seed=seed, batch_size=10, fraction=0.25)
        streams = draw(sampler, epochs * 20, np.array([0.5, 0.5]))
        return {name: set(stream) for name, stream in streams.items()}

    once, often = seen(1), seen(8)
    assert len(once["code"]) == len(often["code"]) == 100
    assert len(often["papers"]) == 8  # round(8.25)
    assert once == often
    assert seen(1, seed=3) != once
    assert max(once["code"]) > 300  # drawn from everywhere, not from the front


def test_a_fraction_takes_at_least_one_sequence() -> None:
    sampler = DomainSampler({"tiny": 3}, seed=1, batch_size=4, fraction=0.01)
    assert len(set(draw(sampler, 5, np.array([1.0]))["tiny"])) == 1


def test_max_epochs_stops_a_domain_and_gives_its_weight_to_the_others() -> None:
    sampler = DomainSampler(SIZES, seed=1, batch_size=10, max_epochs=2)
    weights = np.array([0.3, 0.2, 0.5])
    while "general" not in sampler.exhausted:
        sampler.next_batch(weights)
        assert sampler.drawn[2] <= 14
    assert sampler.exhausted == ["general"]
    assert sampler.epochs[2] == 2.0
    before = sampler.drawn
    draw(sampler, 5, weights)
    assert sampler.drawn[2] == 14
    # 50 sequences, shared 0.3 : 0.2
    assert (sampler.drawn - before)[:2].tolist() == pytest.approx([30, 20], abs=2)


def test_drawing_when_every_domain_is_exhausted_is_refused() -> None:
    sampler = DomainSampler({"a": 6, "b": 4}, seed=1, batch_size=5, max_epochs=1)
    draw(sampler, 2, np.array([0.6, 0.4]))
    assert sampler.exhausted == ["a", "b"]
    with pytest.raises(MixtureError, match=r"max_epochs has stopped every domain that has a weight: \['a', 'b'\]"):
        sampler.next_batch([0.6, 0.4])
    sampler = DomainSampler({"a": 6, "b": 4}, seed=1, batch_size=4, max_epochs=1)
    draw(sampler, 2, np.array([0.6, 0.4]))
    with pytest.raises(MixtureError, match="too few sequences for a batch of 4"):
        sampler.next_batch([0.6, 0.4])
