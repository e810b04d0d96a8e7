"""Contradictions of a plan's settings, found before any run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.workspace.planned_checks import planned_problems, sized_problems
from tasks.workspace.planned_settings import first_mixtures
from velocitune_core.config import Swarm, parse_params

PROJECT = Path(__file__).parents[3]


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


def test_a_sibling_that_nothing_trains_may_be_missing(settings: dict[str, Any]) -> None:
    """The default's is of the embedded base model; a model of one's own has none."""
    settings["model"] = {"path": "models/mine"}
    settings["mixture"] = {"swarm": {"model": "models/base/sibling"}}
    settings["compare"] = {"seeds": [1], "runs": {"static": {"strategy": "static"}, "planned": {"strategy": "planned"}}}
    settings["strategy"] = {"name": "static"}
    params = parse_params(settings)
    assert planned_problems(params) == []
    expected = "mixture.swarm.model: models/base/sibling is a sibling of models/base, not of models/mine"
    (line,) = planned_problems(params, comparing=True)
    assert line.startswith(expected)
    settings["strategy"] = {"name": "planned"}
    (line,) = planned_problems(parse_params(settings))
    assert line.startswith(expected)


@pytest.mark.parametrize(("model", "made"), [("models/trained", "the stage `train`"), ("runs/a/model", "runs of the")])
def test_a_sibling_that_the_pipeline_makes_is_refused(
    workspace: Path, settings: dict[str, Any], model: str, made: str
) -> None:
    shutil.copyfile(PROJECT / "dvc.yaml", "dvc.yaml")
    settings |= {"strategy": {"name": "planned"}, "mixture": {"swarm": {"model": model}}}
    (line,) = planned_problems(parse_params(settings))
    assert line.startswith(f"mixture.swarm.model: {model} is made by {made}") and line.endswith("and name that")


def test_a_single_domain_is_no_mixture(settings: dict[str, Any]) -> None:
    name = min(settings["domains"])
    settings["domains"] = {name: settings["domains"][name]}
    settings["strategy"] = {"name": "planned"}
    (line,) = planned_problems(parse_params(settings))
    assert line == f"domains: {name} to train on; a mixture has at least two"


def test_bounds_are_held_against_the_swarm_of_the_options_once_the_text_is_packed(settings: dict[str, Any]) -> None:
    """Of two seeds, one draws a run with more of a domain than the other's runs have."""
    name, *others = sorted(settings["domains"])
    names, swarm = [name, *others], {"runs": 8, "seeds": [1]}
    even = dict.fromkeys(names, 1 / len(names))
    most = {seed: max(each[name] for each in first_mixtures(Swarm(runs=8), even, seed)) for seed in range(1, 6)}
    widest = max(most, key=lambda seed: most[seed])
    settings["mixture"] = {"swarm": swarm | {"seeds": [min(most, key=lambda seed: most[seed])]}}
    options = {"swarm": swarm | {"seeds": [widest]}, "objective": {"least_share": {name: most[widest]}}}
    settings["strategy"] = {"name": "planned", "options": options}
    settings["training"] |= {"token_budget": 1000, "max_epochs": None}
    params = parse_params(settings)
    assert planned_problems(params) == sized_problems(params, even, dict.fromkeys(names, 1e6), 1000) == []
