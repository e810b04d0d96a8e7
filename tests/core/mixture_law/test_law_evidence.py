"""What a law says of itself: intervals, resamples, what it cannot know, and flags."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_swarm import draw_swarm
from fitted_laws import LAWS, fitted, new_mixtures

from velocitune_core.mixture_law import MixtureLawError, fit_mixture_law
from velocitune_core.mixture_law.evidence import rank_correlation
from velocitune_core.mixture_law.fit_sets import FORMS


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


def test_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(0)
    one, other = random.integers(0, 5, 30).astype(float), random.standard_normal(30)
    from scipy.stats import spearmanr

    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other)[0])
    assert rank_correlation(np.ones(4), np.arange(4.0)) is None
