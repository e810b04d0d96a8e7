"""The figure of README on what a mixture is worth: its legend says from what size of run it pays, against static."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rendered import words

from velocitune_core.comparison.statistics import Estimate

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")
TOKENS = 1000


def test_the_legend_says_from_what_size_of_run_a_mixture_pays_against_static(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [BENCHMARKS, *sys.path])
    worth = importlib.import_module("worth_figure")

    def line(gain: float, price: float) -> object:
        return worth.Line(Estimate(gain, 0.0, 5), Estimate(0.0, 0.0, 5), price)

    def static(tokens: float) -> float:
        return TOKENS / tokens  # nats: for the price of two runs, 2 / (s (s + 2)) at s runs

    free, recommended, whole, short = worth.PRICED
    lines = {
        free: line(-0.01, 0.0),
        recommended: line(-2 / 80, 2.0),  # s = 8
        whole: line(-4 / 45, 4.0),  # s = 5
        short: line(0.01, 1.0),
    }
    figure = Figure()
    worth.draw_net(figure.subplots(), lines, static, TOKENS)
    said = words(figure)
    for text in (
        "against static",
        "T = 3: free",
        "recommended: pays from 8 runs",
        "planned, 18 whole runs: pays from 5 runs",
    ):
        assert text in said
    assert "planned, 12 short runs: never pays" in said
