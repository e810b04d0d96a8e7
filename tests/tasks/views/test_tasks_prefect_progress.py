"""The progress that Prefect's UI shows of a training, and of an evaluation."""

from __future__ import annotations

import logging
import time
from typing import Any

import event_samples
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
    assert shown == ["velocitune-progress-initial", "initial: percent of 8 sequences", 25.0, 100.0]


def test_every_evaluation_of_this_start_is_a_line_in_the_log_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    watcher, now = PrefectWatcher("training"), time.time() + 1

    def evaluated(step: int, at: float = now) -> events.Evaluated:
        return events.Evaluated(time=at, step=step, tokens=step, losses={"code": 5.0 - step, "law": 4.0}, seconds=1.0)

    def reweighted(step: int, share: float) -> events.Reweighted:
        weights = {"code": share, "law": 1 - share}
        return events.Reweighted(time=now, step=step, tokens=step, weights=weights, seconds=0.0)

    with caplog.at_level(logging.INFO, "tasks.views.prefect_progress"):
        watcher(event_samples.started(name="training", total_steps=3))
        for event in (evaluated(0, now - 1000), reweighted(0, 0.5), evaluated(1), reweighted(1, 0.6), evaluated(2)):
            watcher(event)
    assert caplog.messages == [
        "training, step 1 of 3: mean loss 4.000 (code 4.000, law 4.000)",
        "training, step 2 of 3: mean loss 3.500 (code 3.000, law 4.000); weights code 50.0 → 60.0 %, law 50.0 → 40.0 %",
    ]
    assert all(record.ui_only for record in caplog.records)  # type: ignore[attr-defined]


def test_a_resumption_and_warnings_are_lines_in_the_log_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    watcher, now = PrefectWatcher("training"), time.time() + 1
    with caplog.at_level(logging.INFO, "tasks.views.prefect_progress"):
        for at in (now - 1000, now):  # the first of an earlier attempt, which has logged its own
            watcher(event_samples.started(total_steps=9, resumed_from=4, time=at))
            watcher(events.Warned(time=at, step=4, message="the disk is full"))
            watcher(events.Warned(time=at, step=4, message="dropout is off", of_model=True))  # of every run
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "training: resuming from the checkpoint at step 4 of 9"),
        ("WARNING", "training: the disk is full"),
    ]
    assert all(record.ui_only for record in caplog.records)  # type: ignore[attr-defined]


def test_an_overfitted_domain_is_a_warning_in_the_log_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    watcher, now = PrefectWatcher("training"), time.time()
    watcher(event_samples.started(name="training", total_steps=3))
    watcher(event_samples.overfitted(1, "law", time=now - 1000))  # of an earlier attempt, which has logged it
    watcher(event_samples.overfitted(2, "code", time=now + 1))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.ui_only  # type: ignore[attr-defined]
    assert record.message.startswith("training: code is probably overfitted: its held-out loss rose from 3.000")
