"""The frontier of constant mixtures: distances by hand, within and beyond its ends."""

from __future__ import annotations

import comparison_samples as samples
import pytest
from comparison_samples import losses, run
from hypothesis import given
from hypothesis import strategies as st

from velocitune_core.comparison.frontier import Frontier
from velocitune_core.comparison.statistics import Estimate, FrontierDistance, summarise

# (0, 4), (1, 2), (3, 1) are the hull; (2, 3) is dominated, (1.9, 1.6) lies above the line, (4, 1.5) right of the lowest
POINTS = [(3.0, 1.0), (2.0, 3.0), (0.0, 4.0), (4.0, 1.5), (1.0, 2.0), (1.9, 1.6)]


def test_the_hull_leaves_out_mixtures_that_others_dominate() -> None:
    frontier = Frontier.through(POINTS)
    assert frontier.x.tolist() == [0, 1, 3]
    assert frontier.y.tolist() == [4, 2, 1]


@pytest.mark.parametrize(
    ("x", "y", "distance"),
    [
        (0.5, 3.0, 0.0),  # on the line from (0, 4) to (1, 2)
        (0.5, 2.5, -0.5),
        (2.0, 3.0, 1.5),  # the dominated mixture; the line is at 1.5
        (4.0, 1.5, 0.5),  # right of the lowest: flat at 1
        (9.0, 0.9, -0.1),
        (-1.0, 5.5, -0.5),  # left: 4 + 2 · 1 = 6
        (-1.0, 6.5, 0.5),
    ],
)
def test_distances_by_hand(x: float, y: float, distance: float) -> None:
    assert Frontier.through(POINTS).distance(x, y) == pytest.approx(distance)


def test_a_short_end_segment_does_not_determine_the_slope() -> None:
    # (0, 10), (0.01, 5), (1, 4): the end falls by 500 per unit, over a tenth of the width 10 → 5 − 0.09/0.99
    frontier = Frontier.through([(0.0, 10.0), (0.01, 5.0), (1.0, 4.0)])
    assert frontier.left_slope == pytest.approx((5 - 0.09 / 0.99 - 10) / 0.1)
    assert frontier.height(0.01) == pytest.approx(5)  # within, the hull is what it is


def test_one_mixture_better_in_both_is_a_flat_frontier() -> None:
    frontier = Frontier.through([(1.0, 2.0), (2.0, 3.0), (1.0, 4.0), (1.5, 2.0)])
    assert frontier.x.tolist() == [1.0]
    assert frontier.distance(0.5, 2.5) == pytest.approx(0.5)
    assert frontier.distance(3.0, 1.5) == pytest.approx(-0.5)
    assert not frontier.reaches(0.5)
    assert frontier.reaches(1.0)
    with pytest.raises(ValueError, match="at least one point"):
        Frontier.through([])


def test_distances_over_seeds() -> None:
    """Per seed, static is at (3.96, 4.2), even at (4.05, 4.1), both plus d: a slope of −0.1 / 0.09.

    3.96 = 0.5·3.0 + 0.2·4.2 + 0.3·5.4 and 4.05 = 0.5·3.9 + 0.2·4.2 + 0.3·4.2. velocitune is left of static by
    0.09·seed, where the line is higher by 0.1·seed, and lower than static by 0.1·seed: distances −0.2, −0.4, −0.6.
    """
    distance = summarise(samples.three_seeds()).strategies["velocitune"].distances["size_weighted"]
    assert distance is not None
    assert distance.estimate.mean == pytest.approx(-0.4)
    assert distance.estimate.half_width == pytest.approx(4.302653 * 0.2 / 3**0.5, rel=1e-6)  # 0.497: not clear
    assert distance.extrapolated == 3
    assert distance.verdict == "on the frontier"


def test_constant_mixtures_of_the_hull_are_on_the_frontier() -> None:
    summary = summarise(samples.three_seeds())
    for strategy in summary.constant:
        assert strategy.distances["size_weighted"] == FrontierDistance(Estimate(0, 0, 3), 0)
        assert strategy.distances["size_weighted"].verdict == "on the frontier"


def test_verdicts() -> None:
    assert FrontierDistance(Estimate(-0.2, 0.1, 3), 0).verdict == "gain"
    assert FrontierDistance(Estimate(0.2, 0.1, 3), 0).verdict == "loses"
    assert FrontierDistance(Estimate(-0.2, 0.3, 3), 0).verdict == "on the frontier"
    assert FrontierDistance(Estimate(-0.2, None, 1), 0).verdict is None


def test_without_mixtures_or_retained_domains_there_is_no_distance() -> None:
    summary = summarise(samples.three_seeds(frontier=[]))
    assert summary.strategies["velocitune"].distances == {"size_weighted": None, "retention": None}
    unkept = summarise(samples.three_seeds(retained=[]))
    assert unkept.strategies["velocitune"].distances["retention"] is None
    assert unkept.strategies["velocitune"].distances["size_weighted"] is not None


coordinates = st.integers(-100, 100).map(lambda number: number / 10)
mixtures = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=8)


@given(mixtures, st.data())
def test_a_mixture_of_two_constant_ones_is_never_below_the_frontier(
    points: list[tuple[float, float]], data: st.DataObject
) -> None:
    index, share = data.draw(st.integers(0, len(points) - 2)), data.draw(st.floats(0, 1))
    (x0, y0), (x1, y1) = points[index : index + 2]
    x, y = (1 - share) * x0 + share * x1, (1 - share) * y0 + share * y1
    assert Frontier.through(points).distance(x, y) >= -1e-9


@given(mixtures)
def test_the_frontier_falls_and_is_convex(points: list[tuple[float, float]]) -> None:
    frontier = Frontier.through(points)
    slopes = [
        (after_y - y) / (after_x - x)
        for x, y, after_x, after_y in zip(frontier.x, frontier.y, frontier.x[1:], frontier.y[1:], strict=False)
    ]
    assert slopes == sorted(slopes)
    assert all(slope < 0 for slope in slopes)
    assert frontier.left_slope <= 0
    assert frontier.through(list(reversed(points))).x.tolist() == frontier.x.tolist()


def test_a_seed_without_all_mixtures_does_not_count() -> None:
    data = samples.three_seeds()
    lone = run("velocitune", 4, losses(3, 4, 5)), run("static", 4, losses(3, 4, 5))
    distance = summarise(samples.three_seeds(runs=[*data.runs, *lone])).strategies["velocitune"].distances
    assert distance["size_weighted"] is not None
    assert distance["size_weighted"].estimate.seeds == 3
