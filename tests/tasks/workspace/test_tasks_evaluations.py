"""How often a run evaluates and updates its weights is said before it, with a warning if it is too seldom or costly."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
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


def test_of_packed_data_the_held_out_sequences_that_there_are_count() -> None:
    manifest: Any = SimpleNamespace(domains={"a": held_out(4), "b": held_out(10)})
    assert evaluation_share(committed(), EMBEDDED_STEPS, manifest) == pytest.approx(8 * 14 / (3 * 246 * 16))
    params = committed(data={"held_out_sequences": 1000})
    assert evaluation_warning(params, 1000, manifest) is None
    assert "up to 7,000 held-out sequences every 32 steps" in (evaluation_warning(params, 1000) or "")


def held_out(sequences: int) -> SimpleNamespace:
    return SimpleNamespace(held_out=SimpleNamespace(sequences=sequences))


BEGIN = "as many operations as the training steps: up to"
NEITHER = "a longer run with evaluation.every_steps: auto, or larger batches, would bring it down"


@pytest.mark.parametrize(
    ("sections", "steps", "warning"),
    [
        ({"data": {"held_out_sequences": 64}}, 999, None),
        (
            {"data": {"held_out_sequences": 64}},
            1000,
            f"evaluations take 30 % {BEGIN} 448 held-out sequences every 32 steps of 16 sequences; "
            "about 5 % with data.held_out_sequences: 10 or evaluation.every_steps: 192",
        ),
        (
            {
                "data": {"held_out_sequences": 64},
                "evaluation": {"every_steps": 200},
                "training": {"batch_sequences": 2},
            },
            1200,
            f"evaluations take 37 % {BEGIN} 448 held-out sequences every 200 steps of 2 sequences; "
            "about 5 % with data.held_out_sequences: 8",  # seldomer would be too few evaluations
        ),
        (
            {"data": {"held_out_sequences": 4}, "evaluation": {"every_steps": 4}},
            1000,
            f"evaluations take 15 % {BEGIN} 28 held-out sequences every 4 steps of 16 sequences; "
            "about 5 % with evaluation.every_steps: 12",  # fewer sequences would be noise
        ),
        (
            {"data": {"held_out_sequences": 200}, "training": {"batch_sequences": 1}, "strategy": {"name": "static"}},
            1000,
            f"evaluations take 1493 % {BEGIN} 1,400 held-out sequences every 32 steps of 1 sequence; {NEITHER}",
        ),
    ],
)
def test_costly_evaluations_of_a_long_run_are_warned_of_with_settings_that_help(
    sections: dict[str, dict[str, Any]], steps: int, warning: str | None
) -> None:
    assert evaluation_warning(committed(**sections), steps) == warning


@given(
    domains=st.integers(1, 7),
    held_out=st.integers(1, 500),
    every=st.one_of(st.just("auto"), st.integers(1, 3000)),
    batch=st.integers(1, 64),
    steps=st.integers(1000, 9000),
)
def test_the_settings_that_are_named_help(
    domains: int, held_out: int, every: int | str, batch: int, steps: int
) -> None:
    used = dict(list(COMMITTED["domains"].items())[-domains:])
    base = {**COMMITTED, "domains": used, "strategy": {"name": "static"}, "compare": None}

    def with_values(held_out: int, every: int | str) -> Params:
        data, training = COMMITTED["data"], COMMITTED["training"]
        changed = {
            "data": {**data, "held_out_sequences": held_out},
            "evaluation": {"every_steps": every},
            "training": {**training, "batch_sequences": batch},
        }
        return Params.model_validate({**base, **changed})

    warning = evaluation_warning(with_values(held_out, every), steps) or ""
    if fewer := re.search(r"held_out_sequences: (\d+)", warning):
        assert int(fewer[1]) >= 8 and evaluation_share(with_values(int(fewer[1]), every), steps) <= 0.05
    if seldom := re.search(r"with .*every_steps: (\d+)", warning):
        found = with_values(held_out, int(seldom[1]))
        assert evaluation_share(found, steps) <= 0.0625  # not 0.05: a last evaluation follows fewer steps
        assert found.evaluation.in_run(steps).updates(steps) >= 4


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
