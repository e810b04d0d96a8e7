"""The progress that Prefect's UI shows of a training, and of an evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.views.prefect_progress import PrefectWatcher
from velocitune_core.train import events


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Prefect is given: descriptions of new artifacts, and percentages."""
    given: list[Any] = []

    def create(progress: float, key: str, description: str) -> int:
        given.extend([key, description, progress])
        return 1

    monkeypatch.setattr("prefect.artifacts.create_progress_artifact", create)
    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", lambda _, progress: given.append(progress))
    return given


def test_an_evaluation_is_shown_in_percent_of_its_sequences(shown: list[Any]) -> None:
    watcher = PrefectWatcher("initial")
    started = {"name": "initial", "recipe": "0", "rows": 8, "tokens": 80, "measured_tokens": 0, "sets": ["code"]}
    machine = {"precision": "float32", "parameters": 1, "device": "cpu", "world_size": 1}
    watcher(events.EvaluationStarted.model_validate({**started, **machine}))
    watcher(events.Measured(step=2, first=0, nats=[1.0, 1.0], tokens=20, seconds=0.1))
    watcher.flush()
    watcher(events.Finished(step=8, seconds=1.0))
    watcher.close()
    assert shown == ["progress-initial", "initial: percent of 8 sequences", 25.0, 100.0]
