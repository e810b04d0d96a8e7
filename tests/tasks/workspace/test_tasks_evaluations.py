"""How often a run evaluates and updates its weights is said before it, with a warning if it is too seldom or costly."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.workspace import paths, said_once
from tasks.workspace.evaluations import evaluation_share, evaluation_warning, warn_of_evaluations, weight_updates
from velocitune_core.config import Evaluation, EvaluationConfig, Params, parse_params

PROJECT = Path(__file__).parents[3]
COMMITTED = yaml.safe_load((PROJECT / paths.PARAMS).read_text(encoding="utf-8"))
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
    found = evaluation_warning(params, steps) or ""
    assert warning in found if warning else "of the domain weights" not in found


def committed(**sections: dict[str, Any]) -> Params:
    """The committed settings with changes."""
    return parse_params({**COMMITTED, **{name: {**COMMITTED[name], **values} for name, values in sections.items()}})


def test_the_committed_settings_are_not_warned_of() -> None:
    params = committed()
    assert weight_updates(params, EMBEDDED_STEPS) == 7
    assert evaluation_warning(params, EMBEDDED_STEPS) is None


def test_the_cost_of_evaluations() -> None:
    """Eight of 7 · 10 sequences forward; 246 steps of 16 sequences forward, and backward, which is twice that."""
    assert evaluation_share(committed(), EMBEDDED_STEPS) == pytest.approx(8 * 70 / (3 * 246 * 16))


@pytest.mark.parametrize(
    ("sections", "steps", "warning"),
    [
        ({"data": {"held_out_sequences": 64}}, 999, None),
        (
            {"data": {"held_out_sequences": 64}},
            1000,
            "evaluations cost 30 % of what the steps do, in operations: 64 sequences of each of 7 domains every 32 "
            "steps, which train on 16; about 5 % with data.held_out_sequences: 10 or evaluation.every_steps: 192",
        ),
        (
            {
                "data": {"held_out_sequences": 64},
                "evaluation": {"every_steps": 200},
                "training": {"batch_sequences": 2},
            },
            1200,
            "evaluations cost 37 % of what the steps do, in operations: 64 sequences of each of 7 domains every 200 "
            "steps, which train on 2; about 5 % with data.held_out_sequences: 8",  # or with too few updates
        ),
        (
            {"data": {"held_out_sequences": 1}, "evaluation": {"every_steps": 1}},
            1000,
            "evaluations cost 15 % of what the steps do, in operations: 1 sequence of each of 7 domains every 1 step, "
            "which train on 16; about 5 % with evaluation.every_steps: 3",
        ),
    ],
)
def test_costly_evaluations_of_a_long_run_are_warned_of_with_settings_that_help(
    sections: dict[str, dict[str, Any]], steps: int, warning: str | None
) -> None:
    assert evaluation_warning(committed(**sections), steps) == warning


@given(
    held_out=st.integers(1, 200), every=st.one_of(st.just("auto"), st.integers(1, 300)), batch=st.sampled_from([8, 64])
)
def test_the_settings_that_are_named_help(held_out: int, every: int | str, batch: int) -> None:
    sections = {
        "data": {"held_out_sequences": held_out},
        "evaluation": {"every_steps": every},
        "training": {"batch_sequences": batch},
    }
    steps = 3000
    warning = evaluation_warning(committed(**sections), steps) or ""
    for section, name, value in re.findall(r"(data|evaluation)\.(\w+): (\d+)", warning):
        changed = committed(**{**sections, section: {name: int(value)}})
        assert evaluation_share(changed, steps) < 0.06  # not 0.05: a last evaluation follows fewer steps


@pytest.mark.parametrize(("steer", "updates"), [(True, 1), ({"step_size": 1.0}, 1), (False, None)])
def test_a_plan_that_is_steered_has_updates(tree: dict[str, Any], steer: object, updates: int | None) -> None:
    params = Params.model_validate({**tree, "strategy": {"name": "planned", "options": {"steer": steer}}})
    assert weight_updates(params, 6) == updates
    assert ("of the domain weights" in (evaluation_warning(params, 6) or "")) == (updates is not None)


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
            warn_of_evaluations(Params.model_validate(tree))
    [message] = caplog.messages
    assert "2 updates of the domain weights in 12 steps" in message and "set it to auto" in message
