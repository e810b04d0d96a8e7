"""A law moved to the full budget predicts static losses plus the differences of the swarm."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_swarm import draw_swarm

from velocitune_core.mixture_law import (
    MixtureLaw,
    MixtureLawError,
    Objective,
    ObjectiveError,
    at_full_budget,
    effect_size,
    explain,
    fit_mixture_law,
    optimise_mixture,
)
from velocitune_core.mixture_law.budget import budget_drift, effect_of
from velocitune_core.mixture_law.mixture_plan import Interval
from velocitune_core.mixture_law.sets_of_more_runs import with_sets_of

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


@pytest.fixture(scope="module")
def shrunk() -> tuple[MixtureLaw, MixtureLaw]:
    """A law, and one of an earlier fraction where weights did half."""
    swarm = draw_swarm(1, noise=0.001)
    weights, losses = swarm.columns
    static = swarm.truth(np.full(5, 0.2))
    half = {name: static[each] + 0.5 * (losses[name] - static[each]) for each, name in enumerate(losses)}
    return fit_mixture_law(weights, losses, bootstrap=30), fit_mixture_law(weights, half)


def test_resamples_drift_as_much_as_differences_did_from_an_earlier_fraction(
    shrunk: tuple[MixtureLaw, MixtureLaw],
) -> None:
    law, earlier = shrunk
    moved, still = at_full_budget(law, UNIFORM, earlier=earlier), at_full_budget(law, UNIFORM)
    runs, at = law.runs.weights, np.full(5, 0.2)
    assert moved.resampled_losses(at) == pytest.approx(np.zeros((30, 3)))  # none at the initial weights
    drawn = np.sqrt(((moved.resampled_losses(runs) - still.resampled_losses(runs)) ** 2).mean(axis=(0, 1)))
    assert drawn / 2**0.5 == pytest.approx(budget_drift(law, earlier, at), rel=0.3)  # t of 4 directions: variance 2
    centre = np.median(moved.resampled_losses(runs), axis=0)
    assert centre == pytest.approx(law.losses(runs) - law.losses(at), abs=0.1)  # drawn to either side


def test_all_that_a_plan_says_of_differences_contains_the_drift(shrunk: tuple[MixtureLaw, MixtureLaw]) -> None:
    law, earlier = shrunk
    objective = Objective(initial_weights=UNIFORM, worse_than_static={"domain1": 0.01})
    sure, honest = (optimise_mixture(at_full_budget(law, UNIFORM, earlier=each), objective) for each in (None, earlier))

    def width(each: Interval | None) -> float:
        assert each is not None and each.low is not None and each.high is not None
        return each.high - each.low

    for name in ("set_differences", "differences"):
        one, other = (getattr(plan.mixtures["recommended"], name) for plan in (sure, honest))
        assert all(width(other[key]) > 3 * width(one[key]) for key in one)
    assert sure.regret is not None and honest.regret is not None and honest.regret.value > 3 * sure.regret.value
    notes = [[line for line in explain(plan) if "from the swarm's budget" in line] for plan in (sure, honest)]
    assert len(notes[0]) == 1 and not notes[1]


def test_forgetting_cannot_be_guarded_under_a_law_of_differences(shrunk: tuple[MixtureLaw, MixtureLaw]) -> None:
    objective = Objective(initial_weights=UNIFORM, forgetting=0.0, retained=["domain0"], initial_losses={"domain0": 3})
    with pytest.raises(ObjectiveError, match=r"forgetting is 0.0, but the law predicts differences .* static_losses"):
        optimise_mixture(at_full_budget(shrunk[0], UNIFORM), objective, bootstrap=0)
    plan = optimise_mixture(at_full_budget(shrunk[0], UNIFORM, STATIC), objective, bootstrap=0)
    assert plan.limits[0].reached < 0


def test_runs_of_the_model_itself_say_how_much_larger_its_effects_are() -> None:
    swarm = draw_swarm(2, runs=30, noise=0.001)
    weights, losses = ({name: values[:24] for name, values in table.items()} for table in swarm.columns)
    law = fit_mixture_law(weights, losses)
    few = {name: values[24:] for name, values in swarm.columns[0].items()}
    larger = {name: 1 + 1.2 * values[24:] for name, values in swarm.columns[1].items()}
    assert effect_size(law, few, larger) == pytest.approx(1.2, abs=0.05)
    found = effect_of(law, few, larger)
    assert found.runs == 6 and found.error is not None and 0 < found.error < 0.05
    two = effect_of(law, {n: x[:2] for n, x in few.items()}, {n: x[:2] for n, x in larger.items()})
    assert two.error is None
    with pytest.raises(MixtureLawError, match="they contradict each other, so plan with a swarm of the model itself"):
        effect_of(law, few, {name: 5 - values for name, values in larger.items()})


def test_the_error_of_an_effect_size_widens_differences_and_moves_no_recommendation() -> None:
    law = fit_mixture_law(*draw_swarm(0).columns, bootstrap=40)
    sure, unsure = (at_full_budget(law, UNIFORM, STATIC, effect=1.5, effect_error=error) for error in (None, 0.3))
    at, static = law.runs.weights[0], np.full(5, 0.2)
    assert unsure.losses(at) == pytest.approx(sure.losses(at))
    assert unsure.resampled_losses(static) == pytest.approx(np.tile(list(STATIC.values()), (40, 1)))
    drawn, known = (each.resampled_losses(at) - list(STATIC.values()) for each in (unsure, sure))
    spread = (drawn / known).std(axis=0)
    assert spread == pytest.approx(np.full(3, 0.2), abs=0.06)  # 0.3 of 1.5
    assert (drawn / known).mean(axis=0) == pytest.approx(np.ones(3), abs=1e-9)


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
    with pytest.raises(MixtureLawError, match=r"static_losses: those of \['domain1'\] are no numbers"):
        at_full_budget(law, UNIFORM, STATIC | {"domain1": np.nan})
    with pytest.raises(MixtureLawError, match=r"losses of \['domain0', 'domain1', 'domain2'\] are missing"):
        effect_size(law, {name: [0.2, 0.2] for name in UNIFORM}, {})
    with pytest.raises(MixtureLawError, match="predicts the same losses for all runs"):
        effect_size(law, {name: [0.2, 0.2] for name in UNIFORM}, {name: [2.0, 2.1] for name in STATIC})


def test_sets_that_more_runs_measured_come_from_all_of_them() -> None:
    swarm = draw_swarm(4, runs=30)
    weights, losses = swarm.columns
    few = fit_mixture_law(*({name: x[:16] for name, x in each.items()} for each in (weights, losses)), bootstrap=3)
    some = {name: losses[name] for name in ("domain0", "domain2")}
    more = fit_mixture_law(weights, some, bootstrap=3)
    joined = with_sets_of(few, more)
    at = swarm.weights[20:25]
    assert joined.losses(at)[:, [0, 2]] == pytest.approx(more.losses(at))
    assert joined.losses(at)[:, 1] == pytest.approx(few.losses(at)[:, 1])
    assert joined.resampled_losses(at)[..., [0, 2]] == pytest.approx(more.resampled_losses(at))
    assert joined.runs is few.runs and joined.evidence["domain2"] == more.evidence["domain2"]
    rows = [more.runs.runs.index(run) for run in few.runs.runs]
    assert rows != list(range(16))  # further runs stand between them
    assert (joined.cross_validated[:, [0, 2]] == more.cross_validated[rows]).all()
    assert (joined.cross_validated[:, 1] == few.cross_validated[:, 1]).all()
    with pytest.raises(MixtureLawError, match="its runs and further ones"):
        with_sets_of(more, few)
