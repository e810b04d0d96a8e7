"""How often the weights are updated is said before a run, with a warning if it is too seldom."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.workspace import paths, said_once
from tasks.workspace.updates import few_updates, warn_of_few_updates, weight_updates
from velocitune_core.config import Evaluation, EvaluationConfig, Params, parse_params

PROJECT = Path(__file__).parents[3]
EMBEDDED_STEPS = 246  # one epoch of the embedded domains


@pytest.fixture
def tree(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings that evaluate every five steps."""
    monkeypatch.setattr(said_once, "_said", set())
    return settings


@pytest.mark.parametrize(
    ("strategy", "steps", "updates", "warning"),
    [
        ("velocitune", 21, 4, None),
        ("velocitune", 20, 3, "5 gives 3 updates of the domain weights in 20 steps, too few to move them far"),
        ("velocitune", 6, 1, "5 gives 1 update of the domain weights in 6 steps, too few to move them far"),
        ("recommended", 5, 0, "5 gives no updates of the domain weights in 5 steps, so the weights never move"),
        ("static", 5, None, None),
        ("odm", 5, None, None),  # it learns from batches
    ],
)
def test_updates_and_the_warning(
    tree: dict[str, Any], strategy: str, steps: int, updates: int | None, warning: str | None
) -> None:
    params = Params.model_validate({**tree, "strategy": {"name": strategy}})
    assert weight_updates(params, steps) == updates
    found = few_updates(params, steps)
    assert found is None if warning is None else found and warning in found


def test_the_committed_settings_are_not_warned_of() -> None:
    params = parse_params(yaml.safe_load((PROJECT / paths.PARAMS).read_text(encoding="utf-8")))
    assert weight_updates(params, EMBEDDED_STEPS) == 7
    assert few_updates(params, EMBEDDED_STEPS) is None


@pytest.mark.parametrize(("steer", "updates"), [(True, 1), ({"step_size": 1.0}, 1), (False, None)])
def test_a_plan_that_is_steered_has_updates(tree: dict[str, Any], steer: object, updates: int | None) -> None:
    params = Params.model_validate({**tree, "strategy": {"name": "planned", "options": {"steer": steer}}})
    assert weight_updates(params, 6) == updates
    assert (few_updates(params, 6) is None) == (updates is None)


@pytest.mark.parametrize(
    ("steps", "every", "updates"), [(1, 1, 0), (20, 1, 19), (32, 1, 31), (33, 2, 16), (246, 8, 30), (32_000, 1000, 31)]
)
def test_auto_evaluates_at_most_32_times(steps: int, every: int, updates: int) -> None:
    evaluation = EvaluationConfig(every_steps="auto").in_run(steps)
    assert evaluation == Evaluation(every_steps=every)
    assert evaluation.updates(steps) == updates == len([n for n in range(1, steps) if n % every == 0])


def test_a_budget_of_few_updates_is_warned_of_once(
    workspace: object, tree: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    tree["training"]["token_budget"] = 64 * 16 * 12  # twelve steps
    for _ in range(3):
        with caplog.at_level(logging.WARNING):
            warn_of_few_updates(Params.model_validate(tree))
    [message] = caplog.messages
    assert "2 updates of the domain weights in 12 steps" in message and "set it to auto" in message
