"""From what size of run on a plan pays: closed forms."""

from __future__ import annotations

import math

import pytest

from velocitune_core.mixture_law.break_even import pays_from


def test_under_a_logarithmic_law_the_size_has_a_closed_form() -> None:
    # −ln D: training on from m to m + 1 gains ln(1 + 1/m), which is the gain g at m = 1 / (e^g − 1)
    for gain in (0.01, 0.1, 1.0):
        assert pays_from(lambda tokens: -math.log(tokens), gain, 1e6) == pytest.approx(1 / math.expm1(gain), rel=1e-6)


def test_what_gains_nothing_or_costs_nothing_has_no_such_size() -> None:
    assert pays_from(lambda tokens: 1 / tokens, 0.0, 1e6) is None
    assert pays_from(lambda tokens: 1 / tokens, -0.1, 1e6) is None
    assert pays_from(lambda tokens: 1 / tokens, 0.1, 0.0) is None
