"""A law moved to the full budget predicts static losses plus the differences of the swarm."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_swarm import draw_swarm

from velocitune_core.mixture_law import MixtureLawError, at_full_budget, effect_size, fit_mixture_law

UNIFORM = dict.fromkeys((f"domain{number}" for number in range(5)), 0.2)
STATIC = {"domain0": 1.5, "domain1": 2.0, "domain2": 2.5}


def test_the_losses_are_those_of_static_training_plus_the_differences() -> None:
    law = fit_mixture_law(*draw_swarm(0).columns, bootstrap=3)
    moved = at_full_budget(law, UNIFORM, STATIC, effect=1.5)
    at = law.runs.weights[:4].reshape(2, 2, 5)
    static = np.full(5, 0.2)
    assert moved.losses(static) == pytest.approx([1.5, 2.0, 2.5])
    assert moved.resampled_losses(static) == pytest.approx(np.tile([1.5, 2.0, 2.5], (3, 1)))
    assert moved.losses(at) - moved.losses(static) == pytest.approx(1.5 * (law.losses(at) - law.losses(static)))
    assert moved.jacobian(at) == pytest.approx(1.5 * law.jacobian(at))
    assert moved.resampled(2).losses(at) == pytest.approx(moved.resampled_losses(at)[2])
    again = at_full_budget(moved, UNIFORM)
    assert again.losses(at) == pytest.approx(moved.losses(at) - moved.losses(static))


def test_an_earlier_fraction_widens_the_intervals_by_what_changed() -> None:
    swarm = draw_swarm(1, noise=0.001)
    law = fit_mixture_law(*swarm.columns, bootstrap=30)
    weights, losses = swarm.columns
    static = swarm.truth(np.full(5, 0.2))
    shrunk = {name: static[each] + 0.8 * (losses[name] - static[each]) for each, name in enumerate(losses)}
    earlier = fit_mixture_law(weights, shrunk)
    moved = at_full_budget(law, UNIFORM, earlier=earlier)
    differences = law.losses(law.runs.weights) - law.losses(np.full(5, 0.2))
    drift = np.sqrt(((0.2 * differences) ** 2).mean(axis=0))
    assert moved.noise == pytest.approx(np.sqrt(law.noise**2 + drift**2), rel=0.1)
    widths = [np.subtract(*each.interval(UNIFORM)["domain0"][::-1]) for each in (law, moved)]
    assert widths[1] > widths[0]


def test_runs_of_the_model_itself_say_how_much_larger_its_effects_are() -> None:
    swarm = draw_swarm(2, runs=30, noise=0.001)
    weights, losses = ({name: values[:24] for name, values in table.items()} for table in swarm.columns)
    law = fit_mixture_law(weights, losses)
    few = {name: values[24:] for name, values in swarm.columns[0].items()}
    larger = {name: 1 + 1.2 * values[24:] for name, values in swarm.columns[1].items()}
    assert effect_size(law, few, larger) == pytest.approx(1.2, abs=0.05)


def test_what_cannot_be_moved_is_refused() -> None:
    law = fit_mixture_law(*draw_swarm(3).columns)
    with pytest.raises(MixtureLawError, match=r"static_losses: sets \['domain2'\] are missing"):
        at_full_budget(law, UNIFORM, {"domain0": 1.0, "domain1": 1.0})
    with pytest.raises(MixtureLawError, match="effect 0 must be positive"):
        at_full_budget(law, UNIFORM, effect=0)
    with pytest.raises(MixtureLawError, match=r"domains missing \['domain4'\]"):
        at_full_budget(law, {f"domain{number}": 0.25 for number in range(4)})
    with pytest.raises(MixtureLawError, match="are not those of the law"):
        at_full_budget(law, UNIFORM, earlier=fit_mixture_law(*draw_swarm(3, sets=2).columns))
    with pytest.raises(MixtureLawError, match="two runs or more"):
        effect_size(law, {name: [0.2] for name in UNIFORM}, {name: [2.0] for name in STATIC})
