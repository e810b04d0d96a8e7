"""The fit in numbers: minima, equations, and the time and memory of many domains and resamples."""

from __future__ import annotations

import time

import numpy as np
import pytest
from drawn_swarm import draw_swarm
from fitted_laws import fitted

from velocitune_core.mixture_law.fit_batch import Problem, _solved, minimise


@pytest.mark.slow
def test_large_swarms_and_many_resamples_take_seconds() -> None:
    """The limits are for one idle core; processor time of the slowest machine in use stays well below."""
    begin = time.process_time()
    fitted(draw_swarm(18, runs=512, domains=17, sets=13))
    assert time.process_time() - begin < 10
    begin = time.process_time()
    fitted(draw_swarm(19, runs=24, domains=7, sets=7), bootstrap=100)
    assert time.process_time() - begin < 10


def test_the_optimiser_ends_at_a_minimum_within_the_bounds() -> None:
    """A line through robust points: the gradient vanishes, and a bound holds."""
    x, random = np.linspace(0, 1, 9), np.random.default_rng(0)
    y = np.stack([1 + 2 * x + 0.01 * random.standard_normal(9), 1 - 2 * x])

    def curve(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return theta[:, :1] + theta[:, 1:] * x, np.broadcast_to(np.stack([np.ones(9), x]), (len(theta), 2, 9)).copy()

    def prior(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.zeros(len(theta)), np.zeros_like(theta), np.zeros_like(theta)

    problem = Problem(curve, prior, np.array([[-5.0, -1.0], [5.0, 5.0]]), delta=0.1)
    ended = minimise(problem, np.zeros((2, 2)), y, np.ones((2, 9)))
    residuals = curve(ended.theta)[0] - y
    slopes = residuals / np.sqrt(1 + (residuals / 0.1) ** 2)
    assert np.abs([slopes[0].sum(), slopes[0] @ x]).max() < 1e-5
    assert ended.theta[1, 1] == -1.0 and abs(slopes[1].sum()) < 1e-5


def test_a_step_with_more_parameters_than_runs_solves_the_same_equations() -> None:
    random = np.random.default_rng(31)
    jacobian, weights = random.normal(size=(2, 12, 5)), random.random((2, 5))
    held = random.random((2, 12)) < 0.2
    prior, gradient = np.where(held, 1.0, 1e-3), np.where(held, 0.0, random.normal(size=(2, 12)))
    found = _solved(jacobian, weights, prior, np.full((2, 1), 0.01), gradient, held)
    for each in range(2):
        rows = jacobian[each] * ~held[each][:, None]
        matrix = (rows * weights[each]) @ rows.T + np.diag(prior[each])
        matrix += np.diag(0.01 * np.diag(matrix) + 1.1e-8)
        assert matrix @ found[each] == pytest.approx(gradient[each], abs=1e-6)


@pytest.mark.slow
def test_a_thousand_domains_take_seconds_and_little_memory() -> None:
    begin = time.process_time()
    law = fitted(draw_swarm(32, runs=40, domains=1000, sets=1))
    assert time.process_time() - begin < 20
    assert np.isfinite(law.losses(law.runs.weights)).all()
