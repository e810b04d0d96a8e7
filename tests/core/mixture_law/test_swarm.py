"""The design of a swarm, the region that its runs cover, and its further rounds."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_law import KnownLaw, known_law, resampled_law

from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.optimise import optimise_mixture
from velocitune_core.mixture_law.rounds import next_round
from velocitune_core.mixture_law.support import Support, weights_by_name
from velocitune_core.mixture_law.swarm_design import design_swarm
from velocitune_core.mixture_law.table import MixtureLawError

INITIAL = {"code": 0.5, "law": 0.3, "web": 0.2}


@settings(max_examples=25, deadline=None)
@given(
    shares=st.lists(st.floats(0.01, 1), min_size=2, max_size=9),
    runs=st.integers(1, 12),
    seed=st.integers(0, 99),
    min_share=st.floats(0, 0.1),
)
def test_a_swarm_by_keys_of_names(shares: list[float], runs: int, seed: int, min_share: float) -> None:
    initial = {f"domain {index}": share for index, share in enumerate(shares)}
    swarm = design_swarm(initial, runs=runs, seed=seed, min_share=min_share)
    for run in swarm:
        assert list(run) == list(initial)
        assert sum(run.values()) == pytest.approx(1) and min(run.values()) >= min_share
    assert design_swarm(initial, runs=runs + 5, seed=seed, min_share=min_share)[:runs] == swarm
    assert design_swarm(dict(reversed(initial.items())), runs=runs, seed=seed, min_share=min_share) == swarm


def test_the_design_lies_around_the_square_root_of_the_initial_weights() -> None:
    weights = weights_by_name(design_swarm(INITIAL, runs=400, min_share=0.0), list(INITIAL))
    centre = np.sqrt(list(INITIAL.values()))
    assert weights.mean(axis=0) == pytest.approx(centre / centre.sum(), abs=0.03)


def test_no_two_runs_are_nearly_the_same() -> None:
    """Of independent draws the nearest two of 12 runs are as near as 0.045 on average."""
    nearest = []
    for seed in range(10):
        roots = np.sqrt(weights_by_name(design_swarm(INITIAL, runs=12, seed=seed), list(INITIAL)))
        gaps = np.linalg.norm(roots[:, None] - roots, axis=-1)
        nearest.append(gaps[np.triu_indices(12, 1)].min())
    assert np.mean(nearest) > 0.1


def test_a_swarm_is_the_same_on_every_machine() -> None:
    first = design_swarm(INITIAL, runs=1, seed=3)[0]
    assert first == pytest.approx({"code": 0.143747, "law": 0.303788, "web": 0.552465}, abs=1e-9)


def test_runs_made_without_a_domain_stay_usable() -> None:
    more = {**INITIAL, "blogs": 0.1}
    table = [*design_swarm(INITIAL, runs=6), *design_swarm(more, runs=8)]
    weights = weights_by_name(table, list(more))
    assert weights.shape == (14, 4) and (weights[:6, 3] == 0).all() and (weights[6:, 3] > 0).all()
    assert Support.around(weights).low[3] == 0


@pytest.mark.parametrize(
    ("initial", "options", "message"),
    [
        ({"code": 1.0}, {}, "name 1 domains; a mixture has at least two"),
        ({"code": 1.0, "law": -0.1}, {}, "they are at least 0"),
        ({"code": 0.0, "law": 0.0}, {}, "one of them is above 0"),
        (INITIAL, {"runs": 0}, "runs is 0; a swarm has a whole number of runs, at least one"),
        (INITIAL, {"runs": 2.5}, "runs is 2.5; a swarm has a whole number of runs"),
        ({**INITIAL, "web": "0.2"}, {}, "initial_weights of web is '0.2'; give a number"),
        (INITIAL, {"min_share": 0.34}, "min_share is 0.34 for 3 domains; it must be at least 0 and below 0.3333"),
    ],
)
def test_a_swarm_that_cannot_be(initial: dict[str, float], options: dict[str, float], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        design_swarm(initial, **{"runs": 3, **options})


def test_what_runs_cover() -> None:
    runs = known_law(4, seed=0).run_weights
    region = Support.around(runs)
    distances = region.distance(runs)
    assert distances.max() == pytest.approx(1) and region.distance(runs.mean(axis=0)) == pytest.approx(0, abs=1e-9)
    assert region.distance(np.array([1.0, 0.0, 0.0, 0.0])) > 1
    outermost = runs[distances.argmax()]
    assert region.excess(outermost) > 0  # beyond the reach of an optimum, unless it is where one starts
    assert region.reaching(outermost).excess(outermost) == pytest.approx(0)
    assert region.reaching(np.array([1.0, 0.0, 0.0, 0.0])) is region


def test_a_domain_that_no_run_varies_is_not_moved() -> None:
    runs = np.c_[np.random.default_rng(0).dirichlet(np.ones(3), 12) * 0.8, np.full(12, 0.2)]
    law = replace(known_law(4, seed=0), run_weights=runs)
    assert optimise_mixture(law, Objective()).weights["d"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"code": [0.5], "law": [0.5]}, "domains missing .'web'."),
        ({"code": [0.5], "law": [0.2], "web": [0.2], "blogs": [0.1]}, "unknown .'blogs'."),
        ({"code": [0.0], "law": [0.0], "web": [0.0]}, "not to 1"),
        ({"code": [np.nan], "law": [0.5], "web": [0.5]}, "must be finite"),
        ([], "support is an empty list; give a DataFrame"),
        (np.array([[0.5, 0.3, 0.2]]), "support is a ndarray without names; give a DataFrame"),
        ([[0.5, 0.3, 0.2]], "support is a list without names; give a DataFrame"),
    ],
)
def test_weights_of_runs_that_cannot_be_read(table: object, message: str) -> None:
    with pytest.raises(MixtureLawError, match=message):
        weights_by_name(table, ["code", "law", "web"])


class Loud(KnownLaw):
    @property
    def noise(self) -> np.ndarray:
        return np.full(len(self.sets), 0.3)


def test_further_runs_are_where_optima_disagree() -> None:
    law, objective = resampled_law(4, resamples=16, noise=0.6), Objective()
    plan = optimise_mixture(law, objective)
    assert plan.regret is not None and plan.regret.high is not None
    further = next_round(law, plan, objective, runs=3, tolerance=plan.regret.high / 2)
    assert not further.settled and len(further.weights) == 3 and further.spread > 0
    assert all(sum(run.values()) == pytest.approx(1) for run in further.weights)
    assert further.gains == sorted(further.gains, reverse=True) and further.gains[-1] > 0
    found = [next_round(law, plan, objective, runs=3, tolerance=0.0, noise=each) for each in (0.01, 0.3)]
    assert further.gains == found[0].gains != found[1].gains  # the law's own noise, 0.01, if none is given
    loud = Loud(**{each.name: getattr(law, each.name) for each in fields(law)})
    assert next_round(loud, plan, objective, runs=3, tolerance=0.0).gains == found[1].gains
    settled = next_round(law, plan, objective, runs=3, tolerance=plan.regret.high)
    assert settled.settled and settled.weights == []
    again = next_round(law, plan, objective, runs=3, tolerance=0.0, tried=further.weights[:1])
    assert further.weights[0] not in again.weights and again.weights[0] != further.weights[0]
    most = next_round(law, plan, objective, runs=500, tolerance=0.0).weights
    apart = [[0.5 * sum(abs(one[name] - two[name]) for name in one) for two in most] for one in most]
    assert min(gap for row, gaps in enumerate(apart) for gap in gaps[:row]) > 0.002  # no mixture twice
    lost = replace(plan, infeasible_resamples=1)  # of 17, more than one in forty
    assert not next_round(law, lost, objective, runs=1, tolerance=plan.regret.high).settled
    none = replace(plan, optima=[], regret=None, infeasible_resamples=16)
    unknown = next_round(law, none, objective, runs=1, tolerance=1.0)
    assert (unknown.settled, unknown.regret, len(unknown.weights)) == (False, None, 1)
    bare = replace(law, others=())
    with pytest.raises(ObjectiveError, match="fit the law with bootstrap=100"):
        next_round(bare, optimise_mixture(bare, objective), objective, runs=3, tolerance=0.01)
