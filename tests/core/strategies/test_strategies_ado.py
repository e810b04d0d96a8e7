"""Adaptive data optimization: the law and the weights by hand, a bounded state, and the time of a refit."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from velocitune_core.strategies import BatchObservation, Strategy, StrategyError, make_strategy
from velocitune_core.strategies.ado import LossHistory, fit_power_laws


def fit(seen: list[float], losses: list[float], counts: list[float] | None = None) -> tuple[float, float, float]:
    counts = counts or [1.0] * len(seen)
    law = fit_power_laws(np.array([seen], float), np.array([losses], float), np.array([counts], float))
    return law["exponent"][0], law["floor"][0], law["scale"][0]


def run(strategy: Strategy, first: int, last: int, sequences: tuple[int, int] = (4, 4), total: int = 100) -> np.ndarray:
    """Show steps whose losses follow 2 + 3/√n and 1 + 2/√n exactly, n being the domain's own samples."""
    for step in range(first, last + 1):
        seen = np.array(sequences) * step
        losses = np.array([2.0, 1.0]) + np.array([3.0, 2.0]) / np.sqrt(seen)
        strategy.observe_batch(BatchObservation(step, total, np.array(sequences), losses))
    return strategy.weights


def make(weights: tuple[float, float] = (0.5, 0.5), **options: object) -> Strategy:
    options = {"start_steps": 6, "ignore_steps": 0, **options}
    return make_strategy("ado", initial_weights=dict(zip("ab", weights, strict=True)), **options)


def test_a_law_without_noise_is_found() -> None:
    # 2 + 3/√n at n = 1, 4, 16, 64, 256
    assert fit([1, 4, 16, 64, 256], [5, 3.5, 2.75, 2.375, 2.1875]) == pytest.approx((0.5, 2.0, 3.0))


def test_the_floor_is_at_least_zero() -> None:
    # 4·n^−0.8 − 0.01 would want E = −0.01; the best law without it has E = 0
    seen = [1, 2, 4, 8, 16]
    exponent, floor, scale = fit(seen, [4 * n**-0.8 - 0.01 for n in seen])
    assert (exponent, floor) == (0.8, 0.0)
    assert scale == pytest.approx(4.0, rel=0.02)


def test_a_rising_loss_has_no_slope() -> None:
    assert fit([1, 2, 3, 4, 5], [2.0, 2.1, 2.2, 2.3, 2.4])[1:] == pytest.approx((2.2, 0.0), abs=1e-3)  # its median


def test_an_outlier_moves_the_law_little() -> None:
    seen = list(range(1, 33))
    losses = [2 + 3 / math.sqrt(n) for n in seen]
    losses[20] = 9.0
    assert fit(seen, losses) == pytest.approx((0.5, 2.0, 3.0), rel=0.01)


def test_points_without_sequences_are_ignored_and_too_few_points_give_no_law() -> None:
    with_gap = fit([1, 0, 4, 16, 64, 0, 256], [5, 0, 3.5, 2.75, 2.375, 0, 2.1875], [1, 0, 1, 1, 1, 0, 1])
    assert with_gap == pytest.approx((0.5, 2.0, 3.0))
    assert np.isnan(fit([1, 4, 16, 64, 0], [5, 3.5, 2.75, 2.375, 0], [1, 1, 1, 1, 0])).all()


def test_weights_by_hand() -> None:
    strategy = make()
    assert run(strategy, 1, 5).tolist() == [0.5, 0.5]
    # both α are ½ and both n 24: slopes 3 : 2, so ρ = (0.6, 0.4), and w = 0.9·π̄ + 0.1·ρ with π̄ = ½ before the start
    assert run(strategy, 6, 6) == pytest.approx([0.51, 0.49], abs=1e-6)
    # π̄ = 0.5 + (0.6 − 0.5)/7 = 0.514286: w = 0.462857 + 0.06
    assert run(strategy, 7, 7) == pytest.approx([0.522857, 0.477143], abs=1e-6)


@pytest.mark.parametrize(
    ("count", "preference"),
    [
        # n = 6t and 2t. |dL/dn| = ½·β·n^−1½: 1.5/(6t)^1½ : 1/(2t)^1½ = 0.102062 : 0.353553 at t = 1,
        # times μ·√h = 0.75·√0.75 : 0.25·√0.25 = 0.649519 : 0.125, that is 0.066291 : 0.044194
        ("own", 0.6),
        # n = 8t for both: 3/√(6t) = 3.464102/√n, 2/√(2t) = 4/√n; times μ·√h: 2.25 : 0.5
        ("batch", 2.25 / 2.75),
    ],
)
def test_samples_of_the_domain_or_of_the_batch_are_counted(count: str, preference: float) -> None:
    weights = run(make((0.75, 0.25), count=count), 1, 6, sequences=(6, 2))
    assert weights[0] == pytest.approx(0.9 * 0.75 + 0.1 * preference, abs=1e-6)


def test_a_domain_that_does_not_fall_gets_the_minimum() -> None:
    strategy = make(preference_share=1.0)
    for step in range(1, 9):
        losses = np.array([2 + 3 / math.sqrt(4 * step), 2.0 + step / 10])
        strategy.observe_batch(BatchObservation(step, 100, np.array([4, 4]), losses))
    assert strategy.weights == pytest.approx([1 / 1.01, 0.01 / 1.01])


def test_where_nothing_falls_the_initial_weights_stay() -> None:
    strategy = make((0.7, 0.3))
    for step in range(1, 30):
        strategy.observe_batch(BatchObservation(step, 100, np.array([4, 4]), np.array([2.0, 3.0])))
    assert strategy.weights == pytest.approx([0.7, 0.3])


def test_a_domain_with_too_few_points_keeps_its_share() -> None:
    strategy = make_strategy(
        "ado", initial_weights={"a": 0.4, "b": 0.4, "c": 0.2}, start_steps=6, ignore_steps=0, preference_share=1.0
    )
    for step in range(1, 7):
        losses = np.array([2 + 3 / math.sqrt(4 * step), 1 + 2 / math.sqrt(4 * step), math.nan])
        strategy.observe_batch(BatchObservation(step, 100, np.array([4, 4, 0]), losses))
    # a and b share 0.8 as 3 : 2, n and μ·√h being equal
    assert strategy.weights == pytest.approx([0.48, 0.32, 0.2], abs=1e-6)


def test_without_a_point_the_initial_weights_stay() -> None:
    assert run(make(ignore_steps=50), 1, 40).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("total", "start"),
    [(60, 6), (300, 30), (10_000, 1_000), (60_000, 1_000)],
)
def test_the_start_follows_the_length_of_the_run(total: int, start: int) -> None:
    strategy = make(start_steps=None, ignore_steps=0)
    before = run(strategy, 1, start - 1, total=total).copy()
    after = run(strategy, start, start, total=total)
    assert before.tolist() == [0.5, 0.5]
    assert after[0] > 0.5


def test_the_history_keeps_sums_and_few_blocks() -> None:
    history = LossHistory(1)
    for step in range(1, 66):  # the 65th finds 64 blocks full
        history.add(np.array([float(step)]), np.array([2]), np.array([10.0 * step]))
    seen, losses, counts = history.points()
    assert losses[0].tolist() == [*np.arange(1.5, 64, 2), 65.0]  # (1 + 2)/2, (3 + 4)/2, …, and the last alone
    assert seen[0].tolist() == [*np.arange(15.0, 640, 20), 650.0]
    assert counts[0].tolist() == [4.0] * 32 + [2.0]


def test_a_mean_is_weighted_by_sequences_and_ignores_losses_that_are_not_finite() -> None:
    history = LossHistory(2)
    history._block_steps = 3
    for losses, sequences in (([1.0, math.nan], [1, 2]), ([4.0, 3.0], [3, 1]), ([math.inf, 9.0], [8, 0])):
        history.add(np.array(losses), np.array(sequences), np.array([1.0, 1.0]))
    assert history.points()[1][:, 0].tolist() == [3.25, 3.0]  # (1·1 + 3·4)/4


def test_the_state_of_a_long_run_stays_small() -> None:
    strategy = make()
    run(strategy, 1, 500, total=100_000)
    middle = len(json.dumps(strategy.state_dict()))
    run(strategy, 501, 5_000, total=100_000)
    assert len(json.dumps(strategy.state_dict())) < 2.5 * middle < 30_000
    assert strategy.weights[0] == pytest.approx(0.6, abs=0.01)  # π̄ has come near ρ = (0.6, 0.4)


def test_a_refit_of_a_thousand_domains_is_cheap() -> None:
    random = np.random.default_rng(0)
    seen = np.cumsum(random.integers(1, 20, (1_000, 64)), axis=1).astype(float)
    losses = (2 + 3 / np.sqrt(seen)) * np.exp(random.normal(0, 0.02, seen.shape))
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        fit_power_laws(seen, losses, np.ones_like(seen))
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.5  # about 0.1 s on one core of 2024


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": "tokens"}, "count 'tokens' must be one of own, batch"),
        ({"start_steps": 0}, "start_steps 0 must be at least 1"),
        ({"refit_every_steps": -5}, "refit_every_steps -5 must be at least 1"),
        ({"ignore_steps": math.inf}, "ignore_steps inf must be at least 0"),
        ({"minimum_share": 1.5}, r"minimum_share 1.5 must be in \[0, 1\]"),
        ({"preference_share": math.nan}, r"preference_share nan must be in \[0, 1\]"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        make(**options)
