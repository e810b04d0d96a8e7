"""Which runs a comparison is made of, in which order, with which targets and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.runs.strategy_options import ablated_targets
from tasks.stages.compare import parent_of, runs_in_order, side_by_side
from velocitune_core.config import ConfigError, Params, parse_params

PROJECT = Path(__file__).parents[3]


def params(**compare: Any) -> Params:
    tree = yaml.safe_load((PROJECT / "tests/miniature.yaml").read_text())
    runs = {
        "constant": {"strategy": "static", "weights_of": "paper"},
        "found": {"strategy": "doremi"},
        "paper": {"strategy": "velocitune"},
        "static": {"strategy": "static"},
    }
    return parse_params({**tree, "compare": {"seeds": [3, 1], "runs": runs, **compare}})


def test_a_run_comes_after_the_one_that_it_starts_from() -> None:
    labels = ["paper", "static", "constant", "found"]
    assert runs_in_order(params()) == [(label, seed) for seed in (3, 1) for label in labels]


def test_what_a_line_starts_from() -> None:
    settings = params()
    assert parent_of(settings, "constant") == "paper"
    assert parent_of(settings, "found") == "static"  # the baseline is its reference model
    assert parent_of(settings, "paper") is None


def test_a_cpu_trains_one_run_per_core_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.stages.compare.gpu_count", lambda: 0)
    monkeypatch.setattr("tasks.stages.compare.usable_cores", lambda: 6)
    resources = side_by_side(params()).resources
    assert (resources.runs_per_device, resources.threads) == (6, 1)
    tree = params().model_dump()
    chosen = parse_params({**tree, "resources": {"runs_per_device": 2}})
    assert side_by_side(chosen).resources == chosen.resources


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "none"}, "baseline names 'none'"),
        ({"frontier": ["static", "T2"]}, "frontier names 'T2'"),
        ({"seeds": [1, 1]}, "distinct seeds"),
        ({"runs": {"static": {"strategy": "static", "weights_of": "x"}}}, "runs.static.weights_of names 'x'"),
        (
            {
                "runs": {
                    "static": {"strategy": "static"},
                    "a": {"strategy": "static", "weights_of": "static"},
                    "b": {"strategy": "static", "weights_of": "a"},
                }
            },
            "takes its own weights from another run",
        ),
    ],
)
def test_a_comparison_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        params(**changes)


def test_targets_of_the_ablations() -> None:
    initial, fitted = {"a": 4.0, "b": 6.0}, {"a": 2.0, "b": 3.0}
    assert ablated_targets("fitted", initial, fitted, 1) == fitted
    assert ablated_targets("zero", initial, fitted, 1) == {"a": 0.0, "b": 0.0}
    drawn = [ablated_targets("random", initial, fitted, seed) for seed in range(200)]
    assert drawn[7] == ablated_targets("random", initial, fitted, 7) != drawn[8]
    assert all(0 <= each["a"] < 4 and 0 <= each["b"] < 6 for each in drawn)
    assert sum(each["a"] for each in drawn) / 200 == pytest.approx(2.0, abs=0.3)  # uniform below the initial loss
