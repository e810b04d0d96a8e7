"""The laws: known parameters come back, the gradient is the gradient, and bad points are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from velocitune_core.scaling_law import (
    EXPONENT_BOUNDS,
    ScalingLawError,
    _objective,
    fit_chinchilla,
    fit_scaling_law,
)

TOKENS = np.array([1e5, 2e5, 4e5, 8e5, 1.6e6])


def law(tokens: np.ndarray | float, e: float = 2.0, b: float = 400.0, beta: float = 0.4) -> np.ndarray:
    return e + b * np.asarray(tokens) ** -beta


@pytest.mark.parametrize(("e", "b", "beta"), [(2.0, 400.0, 0.4), (0.7, 90.0, 0.28), (3.2, 5e5, 1.1)])
def test_exact_points_give_their_law_back(e: float, b: float, beta: float) -> None:
    fit = fit_scaling_law(TOKENS, law(TOKENS, e, b, beta))
    assert (fit.E, fit.B, fit.beta) == pytest.approx((e, b, beta), rel=5e-3)
    assert fit.predict(1e7) == pytest.approx(law(1e7, e, b, beta), rel=1e-4)
    assert not fit.at_bound
    assert fit.interval(1e7) is None


def test_three_points_are_enough_to_pass_through() -> None:
    losses = law(TOKENS[:3])
    assert fit_scaling_law(TOKENS[:3], losses).predict(TOKENS[:3]) == pytest.approx(losses, rel=1e-5)


def test_the_order_of_points_does_not_matter() -> None:
    order = [3, 0, 4, 1, 2]
    assert fit_scaling_law(TOKENS[order], law(TOKENS)[order]).predict(5e6) == pytest.approx(law(5e6), rel=1e-4)


def test_small_noise_moves_the_prediction_little() -> None:
    random = np.random.default_rng(0)
    tokens = np.geomspace(1e5, 1.6e6, 8)
    for _ in range(5):
        fit = fit_scaling_law(tokens, law(tokens) * np.exp(0.002 * random.standard_normal(8)))
        assert fit.predict(3.2e6) == pytest.approx(law(3.2e6), rel=0.03)


def test_an_outlier_counts_little() -> None:
    """Huber: a point 5 % off moves the target less than its own error."""
    tokens = np.geomspace(1e5, 1.6e6, 9)
    losses = law(tokens)
    losses[4] *= 1.05
    assert fit_scaling_law(tokens, losses).predict(3.2e6) == pytest.approx(law(3.2e6), rel=0.005)


@pytest.mark.parametrize("terms", [1, 2])
def test_the_gradient_is_that_of_the_objective(terms: int) -> None:
    random = np.random.default_rng(terms)
    x = random.uniform(-1.5, 1.5, size=(terms, 12))
    for scale in (0.3, 3e-4):  # residuals on the linear and on the quadratic part of the Huber loss
        theta = np.concatenate([[0.7], np.full(terms, 0.2), random.uniform(0.2, 0.8, terms)])
        logs = [np.full(12, 0.7), *(0.2 - power * each for power, each in zip(theta[1 + terms :], x, strict=True))]
        y = np.log(np.exp(logs).sum(axis=0)) + scale * random.standard_normal(12)
        _, gradient = _objective(theta, x, y)
        numeric = approx_fprime(theta, lambda at, x=x, y=y: _objective(at, x, y)[0], 1e-8)
        assert gradient == pytest.approx(numeric, rel=2e-4, abs=2e-4)


def test_the_published_chinchilla_parameters_come_back() -> None:
    """240 points as in Hoffmann et al.'s figure, without noise, from the parameters that Besiroglu et al. published."""
    truth = (1.8172, 482.01, 2085.43, 0.3478, 0.3658)
    random = np.random.default_rng(0)
    params = np.exp(random.uniform(np.log(5e7), np.log(1.6e10), 240))
    tokens = np.exp(random.uniform(np.log(2e8), np.log(5e11), 240))
    e, a, b, alpha, beta = truth
    losses = e + a / params**alpha + b / tokens**beta
    fit = fit_chinchilla(params, tokens, losses)
    assert (fit.E, fit.A, fit.B, fit.alpha, fit.beta) == pytest.approx(truth, rel=0.01)
    assert fit.predict(7e10, 1.4e12) == pytest.approx(e + a / 7e10**alpha + b / 1.4e12**beta, rel=1e-4)
    assert not fit.at_bound

    noisy = fit_chinchilla(params, tokens, losses * np.exp(0.002 * random.standard_normal(240)))
    # within two of the published standard errors: 0.026, 0.0154, 0.0206
    assert pytest.approx(e, abs=0.052) == noisy.E
    assert (noisy.alpha, noisy.beta) == (pytest.approx(alpha, abs=0.031), pytest.approx(beta, abs=0.041))


def test_the_interval_covers_the_truth_most_of_the_time() -> None:
    random = np.random.default_rng(3)
    tokens = np.geomspace(1e5, 1.6e6, 12)
    covered = 0
    for _ in range(20):
        fit = fit_scaling_law(tokens, law(tokens) * np.exp(0.005 * random.standard_normal(12)), bootstrap=40)
        low, high = fit.interval(1.6e6, 0.95)
        assert low < high
        covered += low <= law(1.6e6) <= high
    assert covered >= 14


def test_intervals_are_nested_reproducible_and_seeded() -> None:
    losses = law(TOKENS) * [1.01, 0.99, 1.01, 0.99, 1.0]
    fit = fit_scaling_law(TOKENS, losses, bootstrap=50, seed=1)
    (low, high), (lower, higher) = fit.interval(1e7, 0.5), fit.interval(1e7, 0.9)
    assert lower <= low <= high <= higher
    assert fit.samples.shape == (50, 3)
    assert np.array_equal(fit.samples, fit_scaling_law(TOKENS, losses, bootstrap=50, seed=1).samples)
    assert not np.array_equal(fit.samples, fit_scaling_law(TOKENS, losses, bootstrap=50, seed=2).samples)


def test_points_that_do_not_determine_the_law_end_at_a_bound() -> None:
    assert fit_scaling_law(TOKENS, [3.0, 3.1, 3.2, 3.3, 3.4]).at_bound  # rising: no falling law fits
    cliff = fit_scaling_law(TOKENS, [6.0, 3.0, 3.0, 3.0, 3.0])  # everything learnt at once
    assert cliff.at_bound
    assert cliff.beta == pytest.approx(EXPONENT_BOUNDS[1])


@pytest.mark.parametrize(
    ("tokens", "losses", "message"),
    [
        ([1e5, 2e5], [3.0, 2.9], "at least three different sizes"),
        ([1e5, 1e5, 2e5, 2e5], [3.0, 3.1, 2.9, 2.8], r"three different sizes, got \[100000.0, 200000.0\]"),
        ([1e5, 2e5, 4e5], [3.0, math.nan, 2.8], r"losses .*nan.* must be positive and finite"),
        ([1e5, 2e5, 4e5], [3.0, math.inf, 2.8], "losses .*inf"),
        ([1e5, 2e5, 4e5], [3.0, -2.9, 2.8], r"losses .*-2.9"),
        ([1e5, 0, 4e5], [3.0, 2.9, 2.8], "sizes .*0.0"),
        ([1e5, 2e5, 4e5], [3.0, 2.9], r"two lists of one length, got \(3,\) and \(2,\)"),
    ],
)
def test_points_that_no_law_fits_are_refused(tokens: list[float], losses: list[float], message: str) -> None:
    with pytest.raises(ScalingLawError, match=message):
        fit_scaling_law(tokens, losses)
    with pytest.raises(ScalingLawError, match=message):
        fit_chinchilla([1e7, 2e7, 4e7, 8e7][: len(tokens)], tokens, losses)
