"""Contradictions of a plan's settings, found before any run."""

from __future__ import annotations

import re
from typing import Any

from tasks.workspace.planned_settings import planned_problems
from velocitune_core.config import parse_params


def test_an_objective_that_the_drawn_mixtures_cannot_fulfil_is_reported_before_any_run(
    settings: dict[str, Any],
) -> None:
    names = sorted(settings["domains"])
    settings["strategy"] = {"name": "planned"}
    settings["training"]["token_budget"] = None
    settings["mixture"] = {"swarm": {"runs": 8}, "initial_domain_weights": dict.fromkeys(names, 1 / len(names))}

    def found(objective: dict[str, Any], **swarm: Any) -> list[str]:
        settings["mixture"] |= {"objective": objective, "swarm": {"runs": 8, **swarm}}
        return planned_problems(parse_params(settings))

    assert found({"epochs": 1.0, "least_share": 0.05}) == []
    (line,) = found({"epochs": 0.5})
    assert line.startswith("mixture.objective.epochs is 0.5, but without training.token_budget the run is as long as")
    (line,) = found({"largest_share": {names[0]: 0.05}}, min_share=0.1)
    assert re.match(
        rf"mixture\.objective\.largest_share keeps {names[0]} below 0\.05; the runs begin at 0\.\d+: set ", line
    )
    (line,) = found({"least_share": {names[1]: 0.98}})
    assert re.match(rf"mixture\.objective\.least_share of {names[1]} is 0\.98; the runs go up to 0\.\d+: set ", line)
    settings["training"]["max_epochs"] = 1  # shares that runs realise are then others than those that are drawn
    assert found({"least_share": {names[1]: 0.98}}) == []
