"""Held-out losses and domain weights by step, their mean, and the state that a checkpoint holds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from velocitune_core.train.history import History


@pytest.fixture
def history() -> History:
    """Two steps at w₀, an evaluation with an update, two steps at the new weights."""
    history = History(["code", "papers"], np.array([0.75, 0.25]))
    for _ in range(2):
        history.add_step(np.array([0.75, 0.25]))
    history.add_losses(2, 128, {"code": 3.0, "papers": 2.5})
    history.add_weights(2, 128, np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    for _ in range(2):
        history.add_step(np.array([0.5, 0.5]))
    return history


def test_points_are_kept_by_step_and_domain(history: History) -> None:
    assert [(point.step, point.tokens, point.losses) for point in history.points] == [
        (2, 128, {"code": 3.0, "papers": 2.5})
    ]
    start, updated = history.weights
    assert (start.step, start.tokens, start.weights, start.velocity) == (0, 0, {"code": 0.75, "papers": 0.25}, None)
    assert (updated.step, updated.weights, updated.velocity) == (
        2,
        {"code": 0.5, "papers": 0.5},
        {"code": 0.0, "papers": 1.0},
    )


def test_the_mean_is_over_steps(history: History) -> None:
    assert history.mean_weights == pytest.approx({"code": 0.625, "papers": 0.375})


def test_only_the_last_evaluation_counts_as_done(history: History) -> None:
    assert history.evaluated_at(2) and not history.evaluated_at(4)
    assert not History(["code"], np.array([1.0])).evaluated_at(0)


def test_a_restored_history_continues_as_the_first_one(history: History) -> None:
    restored = History(["code", "papers"], np.array([0.1, 0.9]))
    restored.load_state_dict(json.loads(json.dumps(history.state_dict())))
    assert restored.state_dict() == history.state_dict()
    for each in (history, restored):
        each.add_step(np.array([0.0, 1.0]))
        each.add_losses(5, 320, {"code": 2.0, "papers": 2.0})
    assert restored.mean_weights == history.mean_weights
    assert restored.points == history.points and restored.weights == history.weights
