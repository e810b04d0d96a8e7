"""Optima that are worked out by hand, proven ones, and properties of every plan."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_law import PAIR, KnownLaw, everywhere, known_law, resampled_law

from velocitune_core import mixture_law
from velocitune_core.mixture_law.mixture_plan import Interval, Limit, MixturePlan
from velocitune_core.mixture_law.named_guard import NamedGuard
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.optimise import optimise_mixture
from velocitune_core.mixture_law.plan_sentences import explain
from velocitune_core.mixture_law.support import Support
from velocitune_core.mixture_law.trade_off_curve import trade_off
from velocitune_core.mixture_law.what_if import predict_mixture

ANYWHERE = replace(everywhere(2), low=np.full(2, 0.01))
HALVES = {"a": 0.5, "b": 0.5}
SEVEN = dict(zip("abcdefg", (0.33, 0.20, 0.13, 0.13, 0.07, 0.07, 0.07), strict=True))


def optimum(law: KnownLaw, objective: Objective, support: Support | None = None) -> MixturePlan:
    return optimise_mixture(law, objective, support=support)


def test_two_domains_by_hand() -> None:
    plan = optimum(PAIR, Objective(initial_weights=HALVES), ANYWHERE)
    assert plan.weights == pytest.approx({"a": 2 / 3, "b": 1 / 3}, abs=1e-6)
    assert plan.mixtures["recommended"].average.value == pytest.approx((6 + 3) / 2)
    assert plan.mixtures["static"].average.value == pytest.approx((8 + 2) / 2)
    assert plan.most is not None and plan.most.gain.value == pytest.approx(0.5)  # equal shares at every temperature
    assert plan.proven


def test_a_guard_by_hand_and_what_it_costs() -> None:
    # b may be 2.5 at most, so w₂ = 0.4: the mean is (4/0.6 + 2.5)/2 and falls by ½(4/w₁² − 1/w₂²)·w₂² = 7/18 per nat.
    plan = optimum(PAIR, Objective(initial_weights=HALVES, worse_than_static={"b": 0.5}), ANYWHERE)
    assert plan.weights == pytest.approx({"a": 0.6, "b": 0.4}, abs=1e-6)
    (limit,) = plan.limits
    assert limit.binds and limit.about == "b" and limit.reached == pytest.approx(0.5)
    assert limit.price == pytest.approx(7 / 18, rel=1e-4)
    assert plan.mixtures["without guards"].weights == pytest.approx({"a": 2 / 3, "b": 1 / 3}, abs=1e-6)


def test_bounds_of_weights_and_their_prices_by_hand() -> None:
    # w₁ ≤ 0.6: the derivative of the mean there is ½(1/0.16 − 4/0.36) = −2.4306 per unit of weight
    most = optimum(PAIR, Objective(initial_weights=HALVES, largest_share={"a": 0.6}), ANYWHERE)
    assert [(limit.kind, limit.about) for limit in most.limits] == [("largest_share", "a")]
    assert most.limits[0].price == pytest.approx(2.43056, rel=1e-4)
    # the same as 1.2 epochs of half of the budget: 0.5 of weight per epoch
    tokens = {"a": 500.0, "b": 1e9}
    epochs = Objective(initial_weights=HALVES, epochs=1.2, domain_tokens=tokens, token_budget=1000)
    (limit,) = optimum(PAIR, epochs, ANYWHERE).limits
    assert (limit.kind, limit.about, limit.limit) == ("epochs", "a", pytest.approx(1.2))
    assert limit.price == pytest.approx(0.5 * 2.43056, rel=1e-4)
    (limit,) = optimum(PAIR, Objective(initial_weights=HALVES, least_share={"b": 0.4}), ANYWHERE).limits
    assert (limit.kind, limit.price) == ("least_share", pytest.approx(2.43056, rel=1e-4))


def test_forgetting_is_measured_from_the_initial_model() -> None:
    kept = {"forgetting": 0.1, "retained": ("b",), "initial_losses": {"b": 2.4}}
    plan = optimum(PAIR, Objective(initial_weights=HALVES, **kept), ANYWHERE)
    assert plan.mixtures["recommended"].losses["b"].value == pytest.approx(2.5)
    assert [limit.kind for limit in plan.limits] == ["forgetting"]


def test_a_target_set_that_is_no_training_domain() -> None:
    target = replace(PAIR, sets=("a", "target"))
    plan = optimum(target, Objective(average={"target": 2.0}), replace(ANYWHERE, low=np.array([0.25, 0.25])))
    assert plan.weights == pytest.approx({"a": 0.25, "b": 0.75}, abs=1e-6)
    assert plan.baseline == "uniform" and plan.average == "shares"


def test_three_domains_agree_with_a_fine_grid() -> None:
    law = known_law(3, seed=3)
    objective = Objective(
        initial_weights={"a": 0.6, "b": 0.3, "c": 0.1},
        averages_worse_than_static={"by_size": 0.0},
        worse_than_static={"b": 0.02},
        least_share=0.05,
    )
    steps = np.arange(0, 401) / 400
    grid = np.array([(x, y, 1 - x - y) for x in steps for y in steps if x >= 0.05 and y >= 0.05 and x + y <= 0.95])
    losses, static = law.losses(grid), law.losses(np.array([0.6, 0.3, 0.1]))
    kept = ((losses - static) @ [0.6, 0.3, 0.1] <= 0) & (losses[:, 1] <= static[1] + 0.02)
    region = Support.around(law.run_weights)
    kept &= [region.excess(each) <= 0 for each in grid]
    kept &= ((grid >= region.low) & (grid <= region.high)).all(axis=1)
    best = losses[kept].mean(axis=1).min()
    plan = optimum(law, objective)
    assert best - 2e-4 < plan.mixtures["recommended"].average.value <= best + 1e-9
    assert plan.mixtures["recommended"].keeps_guards and plan.mixtures["recommended"].inside


def test_prices_are_what_finite_differences_say() -> None:
    law, step = known_law(7, seed=1), 1e-4
    objective = Objective(
        initial_weights=SEVEN, averages_worse_than_static={"by_size": -0.03}, worse_than_static={"a": 0.06, "b": 0.08}
    )
    plan = optimum(law, objective)
    binding = [limit for limit in plan.limits if limit.kind in {"set", "average"} and limit.binds]
    assert len(binding) >= 2
    for limit in binding:
        values = []
        for sign in (-1, 1):
            moved = limit.limit + sign * step
            if limit.kind == "average":
                other = replace(objective, averages_worse_than_static={"by_size": moved})
            else:
                other = replace(objective, worse_than_static={**objective.worse_than_static, limit.about: moved})
            values.append(optimum(law, other).mixtures["optimum"].average.value)
        assert limit.price == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.02, abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 6), limit=st.floats(0, 0.1))
def test_properties_of_every_plan(seed: int, size: int, limit: float) -> None:
    law = known_law(size, seed=seed)
    random = np.random.default_rng(seed)
    initial = dict(zip(law.domains, random.dirichlet(np.full(size, 5.0)), strict=True))
    objective = Objective(initial_weights=initial, worse_than_static=limit)
    region = Support.around(np.vstack([law.run_weights, list(initial.values())]))
    plan = optimum(law, objective, region)
    weights = np.array(list(plan.weights.values()))
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1, abs=1e-9)
    assert plan.mixtures["recommended"].inside and plan.mixtures["recommended"].keeps_guards
    assert plan.mixtures["recommended"].differences["macro"].value <= 1e-7  # static training keeps the guards too
    tighter = optimum(law, replace(objective, worse_than_static=limit / 2), region)
    assert tighter.mixtures["recommended"].average.value >= plan.mixtures["recommended"].average.value - 1e-7
    order = random.permutation(size)
    swapped = optimum(
        law.reordered(order),
        replace(objective, initial_weights=dict(reversed(initial.items()))),
        Support.around(np.vstack([law.run_weights, list(initial.values())])[:, order]),
    )
    assert swapped.weights == pytest.approx(plan.weights, abs=2e-3)
    assert swapped.mixtures["recommended"].average.value == pytest.approx(
        plan.mixtures["recommended"].average.value, abs=1e-7
    )


def test_bounds_outside_what_the_runs_cover_are_named() -> None:
    region = Support.around(np.array([[0.4, 0.6], [0.6, 0.4], [0.5, 0.5]]))
    with pytest.raises(ObjectiveError, match=r"least_share of a is 0.7; the runs go up to 0.6"):
        optimum(PAIR, Objective(least_share={"a": 0.7}), region)
    with pytest.raises(ObjectiveError, match=r"largest_share keeps a below 0.2; the runs begin at 0.4"):
        optimum(PAIR, Objective(largest_share={"a": 0.2}), region)


def test_resamples_give_a_set_of_optima_and_weights_that_are_good_in_all() -> None:
    law = resampled_law(5, resamples=12, noise=0.3)
    initial = dict(zip(law.domains, (0.4, 0.3, 0.1, 0.1, 0.1), strict=True))
    plan = optimum(law, Objective(initial_weights=initial))
    optima = np.array([list(each.values()) for each in plan.optima])

    def mean_regret(weights: dict[str, float]) -> float:
        own = np.mean([each.losses(w).mean() for each, w in zip(law.others, optima, strict=True)])
        return float(law.resampled_losses(np.array(list(weights.values()))).mean() - own)

    assert plan.regret is not None and plan.regret.value == pytest.approx(mean_regret(plan.weights))
    others = [*plan.optima, plan.mixtures["optimum"].weights, dict(zip(law.domains, optima.mean(axis=0), strict=True))]
    assert all(mean_regret(plan.weights) <= mean_regret(other) + 1e-7 for other in others)
    guarded = optimum(law, Objective(initial_weights=initial, worse_than_static=0.05))
    assert guarded.mixtures[
        "recommended"
    ].keeps_guards  # under the law itself, not only under the mean of its resamples
    assert plan.most is not None
    gain = plan.most.gain
    assert gain.low is not None and gain.high is not None and gain.low <= gain.high
    with pytest.raises(ObjectiveError, match="bootstrap is 13, but the law has 12 resamples"):
        optimise_mixture(law, Objective(), bootstrap=13)
    json.loads(json.dumps(plan.as_dict(), allow_nan=False))


def test_what_the_law_cannot_tell_apart_is_said() -> None:
    law = resampled_law(4, resamples=10, noise=0.6)
    static = optimum(law, Objective()).weights  # as good as it gets
    plan = optimum(law, Objective(initial_weights=static))
    assert "static" in plan.indistinguishable
    sentences = explain(plan)
    assert sentences[0].startswith(
        "No mixture that the runs cover is predicted to be better than static by more than 0.0"
    )
    assert any(sentence.startswith("The law cannot distinguish the recommended weights from") for sentence in sentences)
    most = max(static, key=lambda name: static[name])
    bounded = optimum(law, Objective(initial_weights=static, largest_share={most: static[most] - 0.01}))
    assert "static" not in bounded.indistinguishable  # it breaks the bound


def test_a_plan_in_sentences() -> None:
    objective = Objective(initial_weights=HALVES, worse_than_static={"b": 0.5})
    first, gained, second, third, fourth = explain(optimum(PAIR, objective, ANYWHERE))
    assert first == (
        "No mixture that the runs cover and that keeps the guards is predicted to be better than static by more than "
        "0.417 nats of the average 'macro'."
    )
    assert gained.startswith("The recommended weights are predicted to be 0.417 nats better than static, of the 0.417")
    assert second.startswith("Recommended: a 0.600, b 0.400. Predicted differences to static: macro −0.417")
    assert third.startswith("The guard of b against static (+0.5 nats) binds: 0.01 more would gain 0.0038 of")
    assert fourth == "Without guards and bounds the best mixture is at −0.500 to static."


def test_a_plan_that_gains_nothing_says_no_zero() -> None:
    plan = optimum(PAIR, Objective(initial_weights=HALVES), ANYWHERE)
    nothing, none = Interval(-0.0002, -0.0007, 0.0004), Interval(1e-12, None, None)
    same = {**plan.mixtures}
    same["recommended"] = replace(same["recommended"], differences={"macro": nothing, "by_size": none})
    assert plan.most is not None
    for bound, said in (
        (0.0002, "by more than 0.001 nats of the average"),
        (0.0, "than static in the average 'macro'."),
    ):
        most = replace(plan.most, gain=Interval(bound, None, None), reference="static")
        text = explain(replace(plan, mixtures=same, most=most, regret=Interval(0.0, 0.0, 1e-6), optima=[{}]))
        assert said in text[0]
        assert "macro less than 0.001 [−0.001, 0.000], by_size less than 0.001." in " ".join(text)
        assert "by less than 0.0001 on average and by less than 0.0001 at most" in " ".join(text)


def test_what_binds_is_said_once_and_its_gain_only_if_there_is_one() -> None:
    plan = optimum(PAIR, Objective(initial_weights=HALVES), ANYWHERE)
    limits = [
        Limit("set", "a", 0.02, 0.02, True, 1.5, 0.0132, 0.01, for_all=True, kept_in=0.5),
        Limit("set", "b", 0.02, 0.02, True, 0.5, 0.0132, 0.01, for_all=True, kept_in=0.75),
        Limit("set", "c", 0.02, 0.01, False, 0.0, for_all=True, kept_in=1.0),
        Limit("epochs", "a", 1.0, 1.0, True, 0.2, 0.0132, 0.1),
        Limit("least_share", "b", 0.1, 0.1, True, 1e-5, 0.00004, 0.01),
        Limit("runs", "a", 0.3, 0.3, True, 1e-5, 0.00004, 0.01),
    ]
    said = explain(replace(plan, limits=limits))
    assert said[said.index(next(line for line in said if "binds" in line)) :][:4] == [
        "The guard of a and b against static (+0.02 nats) binds: 0.01 more for all would gain 0.0132 of 'macro'; it is "
        "kept in 50% (a) and 75% (b) of the resamples.",
        "a may be repeated once, which binds: 0.1 epochs more would gain 0.0132.",
        "The least share of b (0.1) binds.",
        "The weight of a lies at the edge of its range in the runs (0.3).",
    ]


def test_initial_weights_that_no_run_is_near_are_said_to_be_extrapolated() -> None:
    far = optimum(known_law(3, seed=3), Objective(initial_weights={"a": 0.98, "b": 0.01, "c": 0.01}))
    assert not far.mixtures["static"].inside
    assert "The runs do not cover static weights, so differences to them are extrapolated: run them too." in explain(
        far
    )


def test_a_law_that_is_not_convex_is_searched_from_several_starts() -> None:
    class Humps(KnownLaw):
        def losses(self, weights: np.ndarray) -> np.ndarray:  # least at w₁ = 0.9; a second valley at w₁ = 0.1
            x = weights[..., 0]
            return np.stack([np.minimum((x - 0.1) ** 2 + 0.01, (x - 0.9) ** 2)] * 2, axis=-1)

        def jacobian(self, weights: np.ndarray) -> np.ndarray:
            x = weights[..., 0]
            slope = 2 * np.where((x - 0.1) ** 2 + 0.01 < (x - 0.9) ** 2, x - 0.1, x - 0.9)
            return np.stack([np.stack([slope, np.zeros_like(x)], axis=-1)] * 2, axis=-2)

    law = Humps(*(getattr(PAIR, name) for name in ("domains", "sets", "e", "b", "c", "beta", "a")), convex=False)
    low = replace(ANYWHERE, centre=np.array([0.2, 0.8]))
    plan = optimum(law, Objective(), low)
    assert plan.weights["a"] == pytest.approx(0.9, abs=1e-4)
    assert not plan.proven


def test_the_trade_off_curve_falls_and_its_slope_is_the_price() -> None:
    objective = Objective(initial_weights=HALVES)
    points = trade_off(PAIR, objective, "worse_than_static", [0.5, -9.0, 0.1, 0.3, 2.0], support=ANYWHERE)
    assert [point.limit for point in points] == [0.1, 0.3, 0.5, 2.0]  # −9 is kept by no mixture
    averages = np.array([point.average for point in points])
    assert (np.diff(averages) < 0).all() and averages[-1] == pytest.approx(4.5)
    assert [point.price for point in points[2:]] == pytest.approx([7 / 18, 0.0], rel=1e-4)
    assert points[2].differences["macro"] == pytest.approx((4 / 0.6 + 2.5) / 2 - 5)


def test_on_the_curve_of_one_set_the_others_keep_the_limit_that_is_one_number_for_all() -> None:
    objective = Objective({"a": 1.0}, dict.fromkeys("abc", 1 / 3), worse_than_static=0.02)
    law = known_law(3, seed=1)
    of_all, of_b = (trade_off(law, objective, f"worse_than_static{name}", [0.02])[0] for name in ("", ".b"))
    assert of_b.weights == pytest.approx(of_all.weights, abs=1e-6)
    retained = Objective(forgetting=0.1, retained=("a", "b"))
    assert NamedGuard.of("forgetting.b").with_limit(retained, 0.3, law.sets).forgetting == {"a": 0.1, "b": 0.3}


def test_what_is_recommended_is_no_worse_than_references_and_runs_that_are_covered() -> None:
    # 4/w₁ and 1/w₂: the best reference, T = 2 of (0.8, 0.2), is at the optimum w₁ = 2/3, which is out of the reach
    runs = np.array([[0.2, 0.8], [0.3, 0.7], [0.5, 0.5], [0.7, 0.3]])
    law, objective = replace(PAIR, run_weights=runs), Objective(initial_weights={"a": 0.8, "b": 0.2})
    plan = optimum(law, objective)
    assert plan.given == "T = 2" and plan.weights["a"] == pytest.approx(2 / 3)
    assert plan.most is not None and plan.most.gain.value == 0
    assert any("These are T = 2, predicted to be better" in line for line in explain(plan))
    assert trade_off(law, objective, "macro", [0.0])[0].weights == pytest.approx(plan.weights)
    measured = optimise_mixture(law, objective, temperatures=())
    assert measured.given == "one of the runs" and measured.weights["a"] == 0.7
    # a guard that only mixtures out of the reach keep: a = 4/0.65 at most
    only = optimum(law, Objective(initial_weights={"a": 0.65, "b": 0.35}, worse_than_static={"a": -0.4}))
    assert only.given == "one of the runs" and only.mixtures["recommended"].keeps_guards
    assert any("These are one of the runs, since no mixture within the reach" in line for line in explain(only))


def test_what_a_guard_costs_is_what_the_optimum_gains_under_a_looser_one() -> None:
    """The average falls less and less as a guard is loosened, so the multiplier promises too much."""
    law, objective = known_law(5, seed=1), Objective(initial_weights=dict.fromkeys("abcde", 0.2))

    def best(limits: Any) -> MixturePlan:
        return optimise_mixture(law, replace(objective, worse_than_static=limits))

    for limits, looser in ((0.02, 0.03), ({"a": 0.02, "b": 0.9}, {"a": 0.03, "b": 0.9})):
        plan = best(limits)
        limit = next(each for each in plan.limits if each.binds and each.kind == "set")
        gained = best(looser).mixtures["recommended"].average.value - plan.mixtures["recommended"].average.value
        assert (limit.gain, limit.step) == (pytest.approx(-gained, abs=1e-7), 0.01) and limit.gain > 1e-5
        assert limit.gain < 0.01 * sum(each.price for each in plan.limits if each.for_all or each is limit)
        said = f"0.01 {'more for all' if limit.for_all else 'more'} would gain {limit.gain:.4f}"
        assert any(said in line for line in explain(plan))


def test_of_a_given_mixture_it_is_said_what_binds() -> None:
    """The reach goes to w₁ = 0.65: only the run at 0.7 has a lower a = 4/w₁, until a may be what it is under static."""
    runs = np.array([[0.2, 0.8], [0.3, 0.7], [0.5, 0.5], [0.7, 0.3]])
    law, initial = replace(PAIR, run_weights=runs), {"a": 0.65, "b": 0.35}
    objective = Objective(average={"b": 1.0}, initial_weights=initial, worse_than_static={"a": -0.005})
    plan = optimise_mixture(law, objective)
    assert plan.given
    (binding,) = [each for each in plan.limits if each.binds]
    assert (binding.kind, binding.about, binding.price) == ("set", "a", 0.0)
    assert binding.gain == pytest.approx(1 / 0.3 - 1 / (1 - 4 / (4 / 0.65 + 0.005)), abs=1e-6)
    assert any("The guard of a against static" in line and "binds" in line for line in explain(plan))


def test_no_reference_is_compared_with_that_breaks_the_guards() -> None:
    # b may be 1.45, so w₂ ≥ 0.69: static and its temperatures break it
    guards = Objective(initial_weights=HALVES, worse_than_static={"b": -0.55})
    plan = optimum(PAIR, guards, ANYWHERE)
    assert plan.most is None and plan.most_without_guards is not None
    assert explain(plan)[0].startswith("The runs cover no reference mixture that keeps the guards")


def test_edges_of_ranges_have_names_and_prices_and_the_simplex_is_no_edge() -> None:
    # w₁ ≤ 0.6 by the runs, where the mean falls by 2.4306 per unit of weight; w₂ ≥ 0.4 says the same
    plan = optimum(PAIR, Objective(), replace(ANYWHERE, high=np.array([0.6, 1.0])))
    (limit,) = plan.limits
    assert (limit.kind, limit.about, limit.limit) == ("runs", "a", 0.6)
    assert limit.price == pytest.approx(2.43056, rel=1e-4)
    assert any("The weight of a lies at the edge of its range in the runs (0.6)" in line for line in explain(plan))
    free = replace(PAIR, a=np.array([[1.0, 0.0], [1.0, 0.0]]), c=np.ones(2))  # b teaches nothing
    corner = optimum(free, Objective(), everywhere(2))
    assert corner.weights["b"] == pytest.approx(0, abs=1e-6) and not corner.limits


def test_what_an_average_leaves_out_is_said() -> None:
    plan = optimum(replace(PAIR, sets=("a", "target")), Objective(initial_weights=HALVES), ANYWHERE)
    assert "'by_size' leaves out b: no held-out set has the name." in explain(plan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperatures": [0, 1]}, r"temperatures hold \[0\]; they are numbers above 0"),
        ({"bootstrap": "3"}, "bootstrap is '3'; give a whole number of resamples"),
        ({"bootstrap": 0.5}, "bootstrap is 0.5; give a whole number of resamples"),
        ({"level": 95}, "level is 95; it is a share between 0 and 1"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        optimise_mixture(PAIR, Objective(), support=ANYWHERE, **options)


def test_public_names_are_imported_in_a_fresh_interpreter_and_are_no_modules() -> None:
    """A module named like a function of the wing would take its place once it is imported."""
    wing = "velocitune_core.mixture_law"
    code = f"""
import types, {wing} as wing
for name in wing.__all__:
    exec(f"from {wing} import {{name}} as found")
    assert not isinstance(found, types.ModuleType), name
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in mixture_law.__all__:
        assert not importlib.util.find_spec(f"{wing}.{name}"), name


def test_any_mixture_is_predicted_as_those_of_a_plan() -> None:
    law, objective = resampled_law(3, resamples=4, noise=0.1), Objective(initial_weights={"a": 0.5, "b": 0.3, "c": 0.2})
    plan = optimise_mixture(law, objective)
    doubled = {name: 2 * weight for name, weight in reversed(plan.weights.items())}  # normalised, joined by name
    found, expected = predict_mixture(law, objective, doubled), plan.mixtures["recommended"]
    assert found.average.value == pytest.approx(expected.average.value, abs=1e-12)
    assert found.losses["b"].high == pytest.approx(expected.losses["b"].high, abs=1e-12)
    with pytest.raises(ValueError, match="domains are a, b, c; got a, b"):
        predict_mixture(law, objective, {"a": 0.5, "b": 0.5})
    with pytest.raises(ValueError, match="at least 0"):
        predict_mixture(law, objective, {"a": 1.5, "b": -0.5, "c": 0.0})
