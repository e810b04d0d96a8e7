"""Steering along a planned course: an update by hand, a run on its course, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velocitune_core.strategies import Observation, StrategyError, make_strategy
from velocitune_core.strategies.planned_course import PlannedCourse

WEIGHTS = {"code": 0.5, "papers": 0.3, "general": 0.2}
INITIAL = {"code": 4.0, "papers": 5.0, "general": 4.0}
TARGET = {"code": 2.0, "papers": 3.0, "general": 3.0}
FORGOTTEN = TARGET | {"general": 4.1}  # the plan forgets `general` a little: no gap


def make(**options: Any) -> PlannedCourse:
    given = {"initial_weights": WEIGHTS, "initial_loss": INITIAL, "target_loss": TARGET, **options}
    strategy = make_strategy("planned_course", **given)
    assert isinstance(strategy, PlannedCourse)
    return strategy


def at(step: int, **losses: float) -> Observation:
    return Observation(step=step, total_steps=100, steps_since_update=10, losses=losses)


def test_an_update_half_way_along_a_straight_course() -> None:
    """V = ¾, ½, ¼ where ½ is planned: code is behind, general ahead."""
    half = at(50, code=3.5, papers=4.0, general=3.25)
    strategy = make(step_size=1.0, step_size_per="update")
    # w ∝ (0.5·e^¼, 0.3, 0.2·e^−¼) = (0.642013, 0.3, 0.155760), sum 1.097773
    assert strategy.update(half) == pytest.approx([0.584832, 0.273280, 0.141888], abs=1e-6)
    assert strategy.velocity == pytest.approx([0.75, 0.5, 0.25])
    # by default 2 per budget, here 0.2: w ∝ (0.5·e^0.05, 0.3, 0.2·e^−0.05) = (0.525636, 0.3, 0.190246), sum 1.015882
    assert make().update(half) == pytest.approx([0.517418, 0.295310, 0.187272], abs=1e-6)


def test_the_course_goes_through_its_points_and_is_monotone_between_them() -> None:
    steep = [[0.0, 1.0], [0.25, 0.4], [0.5, 0.2], [0.75, 0.1], [1.0, 0.0]]
    strategy = make(course=dict.fromkeys(WEIGHTS, steep))
    assert [strategy.open_share(p)[0] for p, _ in steep] == pytest.approx([c for _, c in steep])
    along = [strategy.open_share(p)[0] for p in np.linspace(0, 1, 101)]
    assert np.all(np.diff(along) < 0)
    # code has 0.4 of its gap of 2 left after a quarter, as planned; papers and general have half a gap
    weights = strategy.update(at(25, code=2.8, papers=4.0, general=3.5))
    assert weights[0] < 0.5 and weights[1] / weights[2] == pytest.approx(1.5)


@st.composite
def plans(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, float]]:
    """Draw the options of a strategy, and the gap of each domain, negative for one without a gap."""
    names = [f"domain{number}" for number in range(draw(st.integers(1, 5)))]
    shares = st.floats(0, 1)
    knots = [0.0, *sorted(draw(st.sets(st.sampled_from([0.1, 0.25, 0.5, 0.6, 0.9]), max_size=3))), 1.0]
    course = {
        name: [(p, 1.0 if p == 0 else 0.0 if p == 1 else draw(shares)) for p in knots] for name in names
    }  # not monotone: a loss may rise on the way
    gaps = {name: draw(st.sampled_from([2.0, 0.3, 1e-3, -0.2])) for name in names}
    options = {
        "initial_weights": {name: draw(st.sampled_from([0.0, 1e-6, 0.5, 3.0])) for name in names} | {names[0]: 1.0},
        "initial_loss": dict.fromkeys(names, 5.0),
        "target_loss": {name: 5.0 - gap for name, gap in gaps.items()},
        "course": course,
        "gap_policy": draw(st.sampled_from(["hold", "freeze"])),
        "step_size": draw(st.sampled_from([0.5, 2.0, 30.0])),
        "step_size_per": draw(st.sampled_from(["update", "budget"])),
        "velocity_unit": draw(st.sampled_from(["share", "nats"])),
    }
    return options, gaps


@settings(max_examples=60, deadline=None)
@given(plan=plans(), steps=st.lists(st.integers(1, 99), max_size=6, unique=True).map(sorted))
def test_a_run_on_its_course_keeps_the_planned_weights(
    plan: tuple[dict[str, Any], dict[str, float]], steps: list[int]
) -> None:
    options, gaps = plan
    strategy = make(**options)
    planned = strategy.weights.copy()
    for step in steps:
        shares = strategy.open_share(step / 100)
        losses = {
            name: options["target_loss"][name] + share * gap if gap > 0 else 4.0 + step  # whatever it does
            for (name, gap), share in zip(gaps.items(), shares, strict=True)
        }
        assert strategy.update(at(step, **losses)) == pytest.approx(planned, abs=1e-9)


def test_a_domain_that_is_behind_gains_and_one_that_is_forgotten_as_planned_does_not() -> None:
    behind = at(50, code=3.5, papers=4.0, general=9.0)
    held = make(target_loss=FORGOTTEN).update(behind)
    # code and papers share 0.8 as 0.5·e^0.05 : 0.3
    assert held == pytest.approx([0.8 * 0.525636 / 0.825636, 0.8 * 0.3 / 0.825636, 0.2], abs=1e-6)
    frozen = make(target_loss=FORGOTTEN, gap_policy="freeze").update(behind)
    assert frozen[2] == pytest.approx(0.2 / (0.5 * math.exp(0.05) + 0.5))
    assert make(target_loss=FORGOTTEN).warnings == [
        "target not below initial loss: general (target 4.100, initial 4.000); gap policy hold: "
        "they keep their planned weight"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap_policy": "retain"}, "'retain' has no planned course; choose 'hold'"),
        ({"gap_policy": "error", "target_loss": FORGOTTEN}, "general"),
        ({"course": {"code": [[0, 1], [1, 0]]}}, r"missing for \['papers', 'general'\]"),
        ({"course": {name: [[0, 1], [0.5, 0.4]] for name in WEIGHTS}}, r"must lead from \(0, 1\) to \(1, 0\)"),
        ({"course": {name: [[0, 1], [0.5, 1.2], [1, 0]] for name in WEIGHTS}}, r"shares in \[0, 1\]"),
        ({"course": {name: [[0, 1], [0.5, 0.4], [0.5, 0.3], [1, 0]] for name in WEIGHTS}}, "increasing progress"),
        ({"course": {name: [0, 1] for name in WEIGHTS}}, "points of two numbers"),
    ],
)
def test_what_gives_no_course_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        make(**options)
