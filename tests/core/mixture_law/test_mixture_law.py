"""The laws: known parameters are recovered, gradients are exact, intervals cover, names decide and not positions."""

from __future__ import annotations

import time
from typing import get_args

import numpy as np
import pytest
from drawn_swarm import DrawnSwarm, draw_swarm
from scipy.optimize import approx_fprime, least_squares

from velocitune_core.mixture_law import MixtureLaw, MixtureLawError, design_swarm, fit_mixture_law
from velocitune_core.mixture_law.cross_validation import training_counts
from velocitune_core.mixture_law.evidence import rank_correlation
from velocitune_core.mixture_law.fit_batch import Problem, _solved, minimise
from velocitune_core.mixture_law.fit_sets import FORMS
from velocitune_core.mixture_law.law import LawName
from velocitune_core.mixture_law.table import read_runs

LAWS = tuple(FORMS)


def fitted(swarm: DrawnSwarm, **options: object) -> MixtureLaw:
    return fit_mixture_law(*swarm.columns, **options)


def new_mixtures(seed: int, domains: int, count: int = 50) -> np.ndarray:
    return np.random.default_rng(1000 + seed).dirichlet(np.full(domains, 3.0), size=count)


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


@pytest.mark.slow
def test_intervals_cover_the_truth_and_new_runs() -> None:
    """At 95 %, over sets, mixtures and swarms of 16 runs: measured 94 % of true losses and of new runs."""
    truth, runs = [], []
    for seed in range(6):
        swarm = draw_swarm(20 + seed, runs=16, noise=0.008)
        law = fitted(swarm, bootstrap=60, seed=seed)
        weights = new_mixtures(seed, 5)
        low, high = np.quantile(law.resampled_losses(weights), [0.025, 0.975], axis=0)
        true = swarm.truth(weights)
        truth.append((low <= true) & (true <= high))
        intervals = law.interval(dict(zip(swarm.domains, weights.T, strict=True)), seed=seed)
        new = true + 0.008 * np.random.default_rng(seed).standard_normal(true.shape)
        for each, (bottom, top) in enumerate(intervals.values()):
            runs.append((bottom <= new[:, each]) & (new[:, each] <= top))
    assert 0.90 <= np.mean(truth) <= 0.98
    assert 0.91 <= np.mean(runs) <= 0.98


def test_resamples_are_laws_and_their_losses_those_of_all_at_once() -> None:
    law = fitted(draw_swarm(11), bootstrap=4)
    weights = new_mixtures(11, 5, 6).reshape(2, 3, 5)
    assert law.resamples == 4 and law.resampled_losses(weights).shape == (4, 2, 3, 3)
    for index in range(4):
        assert law.resampled(index).losses(weights) == pytest.approx(law.resampled_losses(weights)[index], rel=1e-12)
    assert (law.resampled(0).resamples, law.resampled(0).evidence) == (0, {})
    same = fitted(draw_swarm(11), bootstrap=4)
    assert (same.samples == law.samples).all()
    rate = law.evidence["domain0"].parameters["a[domain0]"]
    assert rate.low is not None and rate.high is not None and rate.low <= rate.high
    with pytest.raises(MixtureLawError, match="no bootstrap"):
        fitted(draw_swarm(11)).interval(dict.fromkeys(law.domains, 0.2))


def test_a_rate_is_known_only_where_runs_move_its_weight() -> None:
    swarm = draw_swarm(12, runs=30, noise=0.002)
    swarm.weights[:, 4] = 0.0
    swarm.weights[:] /= swarm.weights.sum(axis=1, keepdims=True)
    law = fit_mixture_law(swarm.columns[0], dict(zip("abc", swarm.truth(swarm.weights).T, strict=True)))
    assert law.evidence["a"].known_rates == {f"domain{each}": each < 4 for each in range(4 + 1)}
    assert any("domain4" in note and "not known" in note for note in law.runs.notes)


def test_parameters_that_the_runs_do_not_determine_are_not_known_and_have_no_interval() -> None:
    """E hangs on β, and B on the common factor of the rates: no swarm of this size determines them."""
    for seed in range(3):
        law = fitted(draw_swarm(seed), bootstrap=3)
        for evidence in law.evidence.values():
            for name in ("E", "B", "beta"):
                assert not evidence.parameters[name].known
                assert evidence.parameters[name].low is evidence.parameters[name].high is None
            assert any(evidence.known_rates.values())


def test_what_loglinear_and_bimix_cannot_know_is_said_too() -> None:
    swarm = draw_swarm(12, runs=40, noise=0.001)
    swarm.weights[:, 4] = 0.0
    swarm.weights[:] *= 0.9 / swarm.weights.sum(axis=1, keepdims=True)
    swarm.weights[:, 4] = 0.1  # in every run
    columns = swarm.columns[0], dict(zip(swarm.columns[1], swarm.truth(swarm.weights).T, strict=True))
    loglinear = fit_mixture_law(*columns, law="loglinear", bootstrap=3).evidence["domain0"].parameters
    assert [name for name in loglinear if name.startswith("t[") and not loglinear[name].known] == ["t[domain4]"]
    assert loglinear["t[domain4]"].low is None and loglinear["t[domain0]"].low is not None
    bimix = fit_mixture_law(*columns, law="bimix", bootstrap=3).evidence["domain0"].known_rates
    assert bimix == {f"domain{each}": each == 0 for each in range(5)}


@pytest.mark.parametrize("name", LAWS)
def test_derivatives_of_the_delta_method_are_those_of_the_law(name: str) -> None:
    """By E, log B, log β and rates: the chain rule from the parameters of the fit."""
    random, form = np.random.default_rng(33), FORMS[name](4)
    theta, weights = random.uniform(-0.5, 0.8, form.bounds.shape[1]), random.dirichlet(np.ones(4), size=6)
    by_natural = np.ones_like(theta)  # derivative of the natural parameter by that of the fit
    by_natural[0] = np.exp(theta[0])
    if name != "loglinear":
        by_natural[3:] = np.exp(theta[3:])
    _, jacobian = form.curve(theta[None], weights)
    assert form.natural_jacobian(theta, weights) * by_natural[:, None] == pytest.approx(jacobian[0], rel=1e-9)
    step = 1e-6 * np.eye(len(theta))
    slopes = [(form.slopes((theta + h)[None], weights[0]) - form.slopes((theta - h)[None], weights[0])) for h in step]
    numeric = np.stack([each[0] / 2e-6 for each in slopes], axis=-1)
    assert form.slope_derivatives(theta, weights[0]) * by_natural == pytest.approx(numeric, rel=1e-5, abs=1e-7)


def test_flags_say_what_a_law_cannot_know() -> None:
    swarm = draw_swarm(13, runs=15)
    weights, losses = swarm.columns
    losses["chance"] = 3 + 0.01 * np.random.default_rng(0).standard_normal(15)
    losses["still"] = np.full(15, 2.5)
    law = fit_mixture_law(weights, losses, bootstrap=3)
    assert law.evidence["domain0"].flags == ("too_few_runs",)  # 15 < 2 · (5 + 3)
    unknown = ("too_few_runs", "not_identified", "measured_only")  # no domain is called so
    assert law.evidence["chance"].flags == law.evidence["still"].flags == unknown
    at = dict.fromkeys(law.domains, 0.2)
    assert law.predict(at)["still"] == pytest.approx(2.5)
    assert law.interval(at)["still"] == pytest.approx((2.5, 2.5))
    assert law.evidence["still"].rank_correlation is None


def test_more_domains_than_runs_give_a_law_that_says_so() -> None:
    law = fitted(draw_swarm(14, runs=5, domains=8))
    assert all("too_few_runs" in evidence.flags for evidence in law.evidence.values())
    assert any("8 domains" in note for note in law.runs.notes)
    assert np.isfinite(law.losses(new_mixtures(14, 8))).all()


def test_mixtures_beyond_the_runs_are_extrapolated() -> None:
    law = fitted(draw_swarm(15))
    inside, outside = law.runs.weights.mean(axis=0), np.array([0.96, 0.01, 0.01, 0.01, 0.01])
    assert law.extrapolates(np.stack([inside, outside])).tolist() == [False, True]
    assert not law.extrapolates(law.runs.weights).any()


def test_runs_of_a_tied_pair_do_not_cover_mixtures_that_untie_it() -> None:
    swarm = draw_swarm(15)
    swarm.weights[:, 4] = swarm.weights[:, 3]  # two domains that always have the same weight
    swarm.weights[:] /= swarm.weights.sum(axis=1, keepdims=True)
    law = fitted(swarm)
    untied = law.runs.weights.mean(axis=0) + np.array([0, 0, 0, 0.05, -0.05])
    assert (untied > law.runs.weights.min(axis=0)).all() and (untied < law.runs.weights.max(axis=0)).all()
    assert law.extrapolates(untied)


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


def test_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(0)
    one, other = random.integers(0, 5, 30).astype(float), random.standard_normal(30)
    from scipy.stats import spearmanr

    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other)[0])
    assert rank_correlation(np.ones(4), np.arange(4.0)) is None
