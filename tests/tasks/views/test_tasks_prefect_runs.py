"""Names and tags of the run that one started, as Prefect's UI shows it."""

from __future__ import annotations

from typing import Any

from tasks.views.prefect_runs import run_name, run_tags
from velocitune_core.config import parse_params


def test_a_comparison_is_named_by_how_much_it_compares(settings: dict[str, Any]) -> None:
    labels = {"static": {"strategy": "static"}, "velocitune": {"strategy": "velocitune"}}
    settings["compare"] = {"runs": labels, "seeds": [7], "baseline": "static"}
    params = parse_params(settings)
    assert run_name(params, comparing=True) == "compare · 2 strategies · 1 seed"
    assert run_tags(params, comparing=True) == ["comparison", "seed: 7", "experiment: velocitune"]
    assert run_name(params, comparing=False) == "train · velocitune · seed 1"
    assert run_tags(params, comparing=False) == ["strategy: velocitune", "seed: 1", "experiment: velocitune"]
