"""The laws: known parameters are recovered, gradients are exact, intervals cover, invalid points are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize

from velocitune_core.scaling_law import ScalingLawError, fit_chinchilla, fit_scaling_law
from velocitune_core.scaling_law.curves import EXPONENT_BOUNDS, Anchored, Powers
from velocitune_core.scaling_law.huber import minimise_huber, objective_and_gradient

TOKENS = np.array([1e5, 2e5, 4e5, 8e5, 1.6e6])
# Besiroglu et al. (2024): their fit of Hoffmann et al.'s points, and its standard errors.
PUBLISHED = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
PUBLISHED_ERRORS = {"E": 0.026, "A": 124.5, "B": 1293.0, "alpha": 0.0154, "beta": 0.0206}


def law(tokens: np.ndarray | float, e: float = 2.0, b: float = 400.0, beta: float = 0.4) -> np.ndarray:
    return e + b * np.asarray(tokens) ** -beta


def anchored(tokens: np.ndarray | float, e: float = 2.0, shift: float = 3e5, beta: float = 0.5) -> np.ndarray:
    """Return a law that starts from 5 nats."""
    return e + (5 - e) * (1 + np.asarray(tokens) / shift) ** -beta


@pytest.mark.parametrize(("e", "b", "beta"), [(2.0, 400.0, 0.4), (0.7, 90.0, 0.28), (3.2, 5e5, 1.1)])
def test_exact_points_recover_their_law(e: float, b: float, beta: float) -> None:
    fit = fit_scaling_law(TOKENS, law(TOKENS, e, b, beta))
    assert (fit.E, fit.B, fit.beta, fit.D0) == pytest.approx((e, b, beta, 0.0), rel=1e-4)
    assert fit.predict(1e7) == pytest.approx(law(1e7, e, b, beta), rel=1e-5)
    assert not fit.at_bound
    assert (fit.interval(1e7), fit.standard_errors) == (None, {})


def test_exact_points_recover_their_anchored_law() -> None:
    fit = fit_scaling_law(TOKENS, anchored(TOKENS), law="anchored", initial_loss=5.0)
    assert (fit.E, fit.D0, fit.beta) == pytest.approx((2.0, 3e5, 0.5), rel=1e-4)
    assert fit.predict([0.0, 1e7]) == pytest.approx([5.0, anchored(1e7)], rel=1e-5)
    assert not fit.at_bound


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    e=st.floats(0.5, 4.0),
    term=st.floats(0.2, 4.0),
    beta=st.floats(0.15, 1.5),
    order=st.permutations(range(5)),
)
def test_any_law_is_recovered_whatever_the_order_of_its_points(
    e: float, term: float, beta: float, order: list[int]
) -> None:
    def truth(tokens: np.ndarray | float) -> np.ndarray:
        return e + term * (np.asarray(tokens) / 4e5) ** -beta

    fit = fit_scaling_law(TOKENS[order], truth(TOKENS[order]))
    assert fit.predict(TOKENS) == pytest.approx(truth(TOKENS), rel=1e-5)
    assert fit.predict(6.4e6) == pytest.approx(truth(6.4e6), rel=1e-3)


def test_three_points_are_interpolated_and_give_no_interval() -> None:
    fit = fit_scaling_law(TOKENS[:3], law(TOKENS[:3]), bootstrap=20)
    assert fit.predict(TOKENS[:3]) == pytest.approx(law(TOKENS[:3]), rel=1e-5)
    assert (fit.noise, fit.interval(1e7)) == (None, None)


def test_small_noise_moves_the_prediction_little() -> None:
    random = np.random.default_rng(0)
    tokens = np.geomspace(1e5, 1.6e6, 8)
    for _ in range(5):
        fit = fit_scaling_law(tokens, law(tokens) * np.exp(0.002 * random.standard_normal(8)))
        assert fit.predict(3.2e6) == pytest.approx(law(3.2e6), rel=0.03)


def test_an_outlier_has_little_weight() -> None:
    """Huber: a point 5 % off moves the target less than its own error."""
    tokens = np.geomspace(1e5, 1.6e6, 9)
    losses = law(tokens)
    losses[4] *= 1.05
    assert fit_scaling_law(tokens, losses).predict(3.2e6) == pytest.approx(law(3.2e6), rel=0.005)


@pytest.mark.parametrize("scale", [0.3, 3e-4])  # residuals on the linear and on the quadratic part of the Huber loss
@pytest.mark.parametrize("kind", ["one size", "two sizes", "anchored"])
def test_the_gradient_is_that_of_the_objective(kind: str, scale: float) -> None:
    random = np.random.default_rng(1)
    if kind == "anchored":
        shape, theta = Anchored(random.uniform(10, 13, 12), 5.0), np.array([0.4, -0.3, 0.6])
    else:
        terms = 1 if kind == "one size" else 2
        shape = Powers(random.uniform(10, 13, (terms, 12)))
        theta = np.array([0.7, *[0.2] * terms, *random.uniform(0.2, 0.8, terms)])
    y = shape.curve(theta[None])[0][0] + scale * random.standard_normal(12)
    counts = random.integers(0, 3, (1, 12)).astype(float)

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        fitted, jacobian = shape.curve(at[None])
        value, gradient = objective_and_gradient(fitted - y, jacobian, counts)
        return float(value[0]), gradient[0]

    numeric = approx_fprime(theta, lambda at: objective(at)[0], 1e-8)
    assert objective(theta)[1] == pytest.approx(numeric, rel=2e-4, abs=2e-4)


def test_the_optimiser_is_no_worse_than_scipys() -> None:
    random = np.random.default_rng(4)
    shape = Powers(np.log(np.geomspace(1e5, 1.6e6, 20))[None])
    y = np.log(law(np.geomspace(1e5, 1.6e6, 20))) + 0.004 * random.standard_normal(20)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        fitted, jacobian = shape.curve(theta[None])
        value, gradient = objective_and_gradient(fitted - y, jacobian, np.ones((1, 20)))
        return float(value[0]), gradient[0]

    starts = shape.starts(y)[::3]
    minima = minimise_huber(shape.curve, starts, y, *shape.bounds)
    bounds = list(zip(*shape.bounds, strict=True))
    theirs = min(minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds).fun for start in starts)
    assert minima.objective.min() <= theirs * (1 + 1e-9)


def hoffmann_design(points: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw models, tokens and losses over the ranges of Hoffmann et al.'s points, from the published parameters."""
    random = np.random.default_rng(0)
    params = np.exp(random.uniform(np.log(5.7e7), np.log(1.6e10), 20 * points))
    tokens = np.exp(random.uniform(np.log(1e18), np.log(3e21), 20 * points)) / 6 / params
    within = np.flatnonzero((tokens > 8e8) & (tokens < 3e11))[:points]
    params, tokens = params[within], tokens[within]
    e, a, b, alpha, beta = PUBLISHED.values()
    return params, tokens, (e + a / params**alpha + b / tokens**beta) * np.exp(noise * random.laplace(size=points))


@pytest.mark.slow
def test_the_published_chinchilla_parameters_are_recovered_within_their_standard_errors() -> None:
    params, tokens, losses = hoffmann_design(240, noise=0.0045)  # median residual 0.3 %, as theirs
    fit = fit_chinchilla(params, tokens, losses, bootstrap=50)
    intervals = fit.parameter_intervals(0.99)
    for name, value in PUBLISHED.items():
        assert getattr(fit, name) == pytest.approx(value, abs=1.5 * PUBLISHED_ERRORS[name]), name
        assert 0.1 * PUBLISHED_ERRORS[name] < fit.standard_errors[name] < 1.5 * PUBLISHED_ERRORS[name], name
        assert intervals[name][0] < value < intervals[name][1], name
    low, high = fit.interval(7e10, 1.4e12)
    assert low < fit.predict(7e10, 1.4e12) < high
    assert not fit.at_bound


@pytest.mark.slow
def test_the_interval_covers_new_runs_at_its_level() -> None:
    """Even from four points, which leave one degree of freedom."""
    random = np.random.default_rng(4)
    tokens, runs, covered = np.geomspace(1.5e5, 7e5, 4), 15, 0
    for run in range(runs):
        losses = law(tokens) * np.exp(0.003 * random.standard_normal(4))
        low, high = fit_scaling_law(tokens, losses, bootstrap=50, seed=run).interval(1.5e6, 0.8)
        covered += low <= law(1.5e6) * np.exp(0.003 * random.standard_normal()) <= high
    assert covered >= 0.6 * runs


def test_intervals_are_nested_reproducible_and_seeded() -> None:
    losses = law(TOKENS) * [1.01, 0.99, 1.01, 0.99, 1.0]
    fit = fit_scaling_law(TOKENS, losses, bootstrap=50, seed=1)
    (low, high), (lower, higher) = fit.interval(1e7, 0.5), fit.interval(1e7, 0.9)
    assert lower <= low <= high <= higher
    assert fit.samples.shape == (50, 4)
    assert fit.standard_errors["E"] == fit.samples[:, 0].std()
    assert set(fit.standard_errors) == {"E", "B", "beta"}
    assert np.array_equal(fit.samples, fit_scaling_law(TOKENS, losses, bootstrap=50, seed=1).samples)
    assert not np.array_equal(fit.samples, fit_scaling_law(TOKENS, losses, bootstrap=50, seed=2).samples)


def test_points_that_do_not_determine_the_law_end_at_a_bound() -> None:
    assert fit_scaling_law(TOKENS, [3.0, 3.1, 3.2, 3.3, 3.4]).at_bound  # rising: no falling law fits
    cliff = fit_scaling_law(TOKENS, [6.0, 3.0, 3.0, 3.0, 3.0])  # everything learnt at once
    assert cliff.at_bound
    assert cliff.beta == pytest.approx(EXPONENT_BOUNDS[1])


@pytest.mark.parametrize("initial_loss", [2.0, 3.2, 5.0])
def test_the_anchored_law_is_finite_for_points_above_the_initial_loss(initial_loss: float) -> None:
    losses = [3.0, 3.1, 3.2, 3.3, 3.4]
    fit = fit_scaling_law(TOKENS, losses, law="anchored", initial_loss=initial_loss, bootstrap=10)
    assert fit.predict(0) == pytest.approx(initial_loss)
    assert 0 < fit.predict(1e7) <= initial_loss
    assert all(map(math.isfinite, fit.interval(1e7)))


@pytest.mark.parametrize(
    ("tokens", "losses", "message"),
    [
        ([1e5, 2e5], [3.0, 2.9], "at least three different sizes"),
        ([1e5, 1e5, 2e5, 2e5], [3.0, 3.1, 2.9, 2.8], r"three different sizes, got \[100000.0, 200000.0\]"),
        ([1e5, 2e5, 4e5], [3.0, math.nan, 2.8], r"losses: \[nan\] at \[1\] must be positive and finite"),
        ([1e5, 2e5, 4e5], [3.0, math.inf, 2.8], r"losses: \[inf\]"),
        ([1e5, 2e5, 4e5], [3.0, -2.9, 2.8], r"losses: \[-2.9\] at \[1\] .* leave these points out"),
        ([1e5, 0, 4e5], [3.0, 2.9, 2.8], r"tokens: \[0.0\] at \[1\]"),
        ([1e5, 2e5, 4e5], [3.0, 2.9], r"two lists of one length, got shapes \(3,\) and \(2,\)"),
    ],
)
def test_invalid_points_are_refused(tokens: list[float], losses: list[float], message: str) -> None:
    with pytest.raises(ScalingLawError, match=message):
        fit_scaling_law(tokens, losses)
    with pytest.raises(ScalingLawError, match=message):
        fit_chinchilla([1e7, 2e7, 4e7, 8e7][: len(tokens)], tokens, losses)


def test_an_unknown_law_or_an_anchored_one_without_initial_loss_is_refused() -> None:
    with pytest.raises(ScalingLawError, match="law 'linear' is none of chinchilla, anchored"):
        fit_scaling_law(TOKENS, law(TOKENS), law="linear")  # type: ignore[arg-type]
    for initial_loss in (None, -1.0, math.nan):
        with pytest.raises(ScalingLawError, match=f"initial_loss {initial_loss} must be positive"):
            fit_scaling_law(TOKENS, law(TOKENS), law="anchored", initial_loss=initial_loss)
