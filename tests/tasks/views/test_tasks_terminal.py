"""Progress bars start at the state they are made in, and count from there."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import event_samples
import pytest

from tasks.views.terminal import PackingBar, TerminalWatcher
from velocitune_core.train.events import Finished, Started, Stepped


def started(at: float) -> Started:
    return event_samples.started(time=at, name="training", total_steps=4, tokens_per_step=96)


def stepped(at: float, step: int) -> Stepped:
    return Stepped(
        time=at,
        step=step,
        tokens=96 * step,
        loss=4.0,
        learning_rate=1e-3,
        gradient_norm=0.1,
        tokens_per_second=1e5,
        domain_tokens={"code": 96 * step},
        domain_epochs={"code": 0.1 * step},
    )


def test_events_of_earlier_attempts_move_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = TerminalWatcher()
    long_ago = time.time() - 1000
    for event in (started(long_ago), stepped(long_ago, 1), Finished(time=long_ago, step=4, seconds=1.0)):
        watcher(event)
    watcher.flush()
    watcher.close()
    assert capsys.readouterr().err == ""


def test_a_run_is_shown_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = TerminalWatcher()
    now = time.time() + 1
    for event in (started(now), *(stepped(now, step) for step in range(1, 5))):
        watcher(event)
    watcher.close()
    assert "training" in (shown := capsys.readouterr().err) and "4/4" in shown


def test_resumed_packing_counts_only_its_own_documents(capsys: pytest.CaptureFixture[str]) -> None:
    def progress(**values: int | None) -> Any:
        return SimpleNamespace(**values)

    bar = PackingBar("code", 1000)
    assert not bar.started
    bar(progress(documents=50, tokens=400, resumed_at=50))
    bar(progress(documents=60, tokens=1000, resumed_at=None))
    assert bar.started
    bar.close()
    assert "packing code" in (shown := capsys.readouterr().err) and "1.00k/1.00k" in shown
