"""The laws: known parameters are recovered, gradients are exact, names decide and not positions."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from drawn_swarm import draw_swarm
from fitted_laws import LAWS, fitted, new_mixtures
from scipy.optimize import approx_fprime, least_squares

from velocitune_core.mixture_law import MixtureLawError, design_swarm, fit_mixture_law
from velocitune_core.mixture_law.cross_validation import training_counts
from velocitune_core.mixture_law.fit_sets import FORMS
from velocitune_core.mixture_law.law import LawName
from velocitune_core.mixture_law.table import read_runs


def test_a_law_without_noise_is_recovered() -> None:
    swarm = draw_swarm(0, runs=60, noise=0.0)
    weights = new_mixtures(0, 5)
    law = fitted(swarm)
    assert np.abs(law.losses(weights) - swarm.truth(weights)).max() < 0.003
    # Of the rates, what one budget determines: the worth of each domain relative to the mean mixture's.
    rates = np.array([[law.evidence[name].parameters[f"a[{each}]"].value for each in law.domains] for name in law.sets])
    mean = swarm.weights.mean(axis=0)
    for found, true in zip(rates, swarm.rates, strict=True):
        assert found.argmax() == true.argmax()
        assert (1 + found) / (1 + found @ mean) == pytest.approx((1 + true) / (1 + true @ mean), rel=0.15)


def test_noise_is_recovered_and_mixtures_that_were_not_run_are_predicted_better_than_it() -> None:
    swarm = draw_swarm(1, runs=40, noise=0.01)
    law = fitted(swarm)
    weights = new_mixtures(1, 5)
    assert law.noise == pytest.approx([0.01] * 3, rel=0.4)
    assert np.sqrt(((law.losses(weights) - swarm.truth(weights)) ** 2).mean()) < 0.01
    for evidence in law.evidence.values():
        assert evidence.noise * 0.5 < evidence.error < evidence.baseline_error / 5
        assert evidence.rank_correlation is not None and evidence.rank_correlation > 0.95
        assert evidence.flags == ()


def test_a_run_far_off_moves_the_law_little() -> None:
    swarm = draw_swarm(2, runs=40, noise=0.002)
    weights, before = new_mixtures(2, 5), fitted(swarm)
    swarm.losses[7] += 0.5
    assert np.abs(fitted(swarm).losses(weights) - before.losses(weights)).mean() < 0.01


@pytest.mark.parametrize("name", LAWS)
def test_derivatives_by_the_parameters_are_those_of_the_curve(name: str) -> None:
    random, form = np.random.default_rng(3), FORMS[name](4)
    theta, weights = random.uniform(-0.5, 0.8, form.bounds.shape[1]), random.dirichlet(np.ones(4), size=6)
    _, jacobian = form.curve(theta[None], weights)
    for run in range(6):
        numeric = approx_fprime(theta, lambda at, run=run: form.curve(at[None], weights)[0][0, run], 1e-7)
        assert jacobian[0, :, run] == pytest.approx(numeric, rel=1e-4, abs=1e-5)
    assert form.losses(theta[None], weights)[:, 0] == pytest.approx(form.curve(theta[None], weights)[0][0], rel=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_the_gradient_of_the_prior_is_that_of_its_value(name: str) -> None:
    form = FORMS[name](4)
    theta = np.random.default_rng(4).uniform(-2, 2, form.bounds.shape[1])
    value, gradient, curvature = form.prior(theta[None])
    assert value.shape == (1,) and (curvature >= 0).all()
    assert gradient[0] == pytest.approx(approx_fprime(theta, lambda at: form.prior(at[None])[0][0], 1e-7), abs=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_derivatives_by_the_weights_are_those_of_the_losses(name: LawName) -> None:
    law = fitted(draw_swarm(5), law=name)
    weights = new_mixtures(5, 5, 4).reshape(2, 2, 5)
    step = 1e-6 * np.eye(5)
    numeric = [(law.losses(weights + each) - law.losses(weights - each)) / 2e-6 for each in step]
    assert law.jacobian(weights) == pytest.approx(np.stack(numeric, axis=-1), rel=1e-5, abs=1e-6)


def test_the_transfer_law_is_convex() -> None:
    law = fitted(draw_swarm(6))
    one, other = new_mixtures(6, 5), new_mixtures(7, 5)
    assert law.convex
    middle = (law.losses(one) + law.losses(other)) / 2
    assert (law.losses((one + other) / 2) <= middle + 1e-12).all()


@pytest.mark.parametrize("name", get_args(LawName))
def test_the_order_of_columns_changes_nothing(name: LawName) -> None:
    swarm = draw_swarm(8, noise=0.01)
    weights, losses = swarm.columns
    law = fit_mixture_law(weights, losses, law=name, bootstrap=5)
    other = fit_mixture_law(dict(reversed(weights.items())), dict(reversed(losses.items())), law=name, bootstrap=5)
    at = {"domain3": 0.1, "domain0": 0.2, "domain4": 0.3, "domain1": 0.15, "domain2": 0.25}
    for each in losses:
        assert other.predict(at)[each] == law.predict(dict(sorted(at.items())))[each]  # to the last bit
        assert other.interval(at)[each] == law.interval(at)[each]
    assert other.evidence == law.evidence


def test_auto_takes_the_law_with_the_smallest_cross_validated_error() -> None:
    swarm = draw_swarm(9, noise=0.002)
    fits = {name: fitted(swarm, law=name) for name in LAWS}
    relative = {
        name: np.mean([each.error / each.baseline_error for each in fit.evidence.values()])
        for name, fit in fits.items()
    }
    assert fitted(swarm, law="auto").name == min(relative, key=relative.__getitem__) == "transfer"


def test_loglinear_follows_a_domain_of_which_a_small_share_teaches_all() -> None:
    """As RegMix' dm_mathematics, t = −484; the yardstick is scipy's least squares without prior or bounds."""
    random = np.random.default_rng(30)
    small = 10 ** random.uniform(-4, -0.5, size=(280, 1))
    mixtures = np.hstack([(1 - small) * random.dirichlet(np.ones(3), size=280), small])
    weights, at = mixtures[:80], mixtures[80:]
    exponents = np.array([0.3, 0.5, 0.1, -400.0])
    losses = 2 + np.exp(weights @ exponents) + 0.005 * random.standard_normal(80)

    def misses(theta: np.ndarray) -> np.ndarray:
        return np.exp(theta[0]) + np.exp(weights @ theta[1:]) - losses

    best = least_squares(misses, [0.5, 0, 0, 0, -10]).x
    law = fit_mixture_law(dict(zip("abcd", weights.T, strict=True)), {"d": losses}, law="loglinear")
    assert law.theta[0, 4] == pytest.approx(best[4], rel=0.05)
    assert law.losses(at)[:, 0] == pytest.approx(np.exp(best[0]) + np.exp(at @ best[1:]), abs=0.02)


def test_bimix_takes_the_domain_of_the_sets_name_or_the_one_that_explains_it_best() -> None:
    swarm = draw_swarm(10, noise=0.001)
    weights, losses = swarm.columns
    losses["elsewhere"] = 2 + (1 + 8 * weights["domain4"]) ** -0.7
    law = fit_mixture_law(weights, losses, law="bimix")
    for name, domain in (("domain1", "domain1"), ("elsewhere", "domain4")):
        rates = {each: law.evidence[name].parameters[f"a[{each}]"].value for each in law.domains}
        assert [each for each, rate in rates.items() if rate > 0] == [domain]


def own_shares(runs: int, noise: float, seed: int, rate: float, beta: float) -> float:
    """The mean error, at a share of 0.03 and of 0.5 of a set's own domain, of a bimix law of seven such sets."""

    def loss(share: np.ndarray) -> np.ndarray:
        return 2 + 3 * (1 + rate * share) ** -beta

    names = [f"domain{each}" for each in range(7)]
    even = dict.fromkeys(names, 1 / 7)
    drawn = [even, *design_swarm(even, runs=runs - 1, seed=seed)]
    weights = {name: np.array([each[name] for each in drawn]) for name in names}
    random = np.random.default_rng(seed)
    losses = {name: loss(each) + random.normal(0, noise, runs) for name, each in weights.items()}
    law, shares, errors = fit_mixture_law(weights, losses, law="bimix"), np.array([0.03, 0.5]), []
    for name in names:
        mixtures = dict.fromkeys(names, (1 - shares) / 6) | {name: shares}
        errors.append(np.abs(law.predict(mixtures)[name] - loss(shares)).mean())
    return float(np.mean(errors))


def test_few_runs_of_bimix_are_spent_on_how_much_there_is_to_learn() -> None:
    """It is 0.022, and 0.031 without the prior on a and β. Far off, 100 runs without noise overrule it: 0.024."""
    assert np.mean([own_shares(8, 0.03, seed, rate=25, beta=0.45) for seed in range(6)]) < 0.024
    assert own_shares(100, 0.0, 1, rate=4, beta=1.5) < 0.05  # of 2.0 nats between the two shares


def test_what_a_law_cannot_read_is_refused() -> None:
    law = fitted(draw_swarm(11), bootstrap=2)
    for read in (law.losses, law.jacobian, law.resampled_losses, law.extrapolates):
        with pytest.raises(MixtureLawError, match=r"shape \(2,\); the last axis must be the 5 domains"):
            read([0.5, 0.5])
    with pytest.raises(MixtureLawError, match="level 2 is not between 0 and 1"):
        law.interval(dict.fromkeys(law.domains, 0.2), level=2)
    for bootstrap in (-1, "3", 2.5):
        with pytest.raises(MixtureLawError, match=f"bootstrap is {bootstrap!r}; give a whole number of resamples"):
            fitted(draw_swarm(11), bootstrap=bootstrap)


@pytest.mark.parametrize("mixtures", [12, 40])  # left out one by one, and in ten folds
def test_a_repeated_mixture_does_not_predict_itself(mixtures: int) -> None:
    swarm = draw_swarm(16, runs=mixtures)
    weights = {name: np.repeat(values, 2) for name, values in swarm.columns[0].items()}
    losses = {name: np.repeat(values, 2) + [0.0, 1e-6] * mixtures for name, values in swarm.columns[1].items()}
    table = read_runs(weights, losses)
    counts = training_counts(table)
    assert len(counts) == {12: 12, 40: 10}[mixtures]
    assert (counts[:, ::2] == counts[:, 1::2]).all()  # two seeds of a mixture are on one side
    assert (counts == 0).sum(axis=0).tolist() == [1] * 2 * mixtures  # every run is left out once


@pytest.mark.slow
def test_the_residual_process_is_kept_where_it_helps_and_only_there() -> None:
    swarm = draw_swarm(17, runs=120, noise=0.01)
    weights, losses = swarm.columns
    losses["bent"] = losses.pop("domain2") + 0.3 * np.sin(6 * weights["domain0"]) * np.cos(5 * weights["domain1"])
    plain = fit_mixture_law(weights, losses)
    law = fit_mixture_law(weights, losses, residual=True, bootstrap=3)
    assert law.evidence["bent"].residual_process and not law.convex
    assert law.evidence["bent"].error < 0.8 * plain.evidence["bent"].error
    assert not law.evidence["domain0"].residual_process
    assert law.evidence["domain0"].error == plain.evidence["domain0"].error
    at = new_mixtures(17, 5, 3)
    numeric = [(law.losses(at + each) - law.losses(at - each)) / 2e-7 for each in 1e-7 * np.eye(5)]
    assert law.jacobian(at) == pytest.approx(np.stack(numeric, axis=-1), rel=1e-4, abs=1e-4)
    assert law.resampled(1).losses(at) == pytest.approx(law.resampled_losses(at)[1], rel=1e-10)
