"""Progress bars start at the state they are made in, and count from there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import time
from types import SimpleNamespace
from typing import Any

import event_samples
import pytest

from tasks.views.terminal import PackingBar, TerminalWatcher, console_of, fitting_columns, print_table
from velocitune_core.train.events import Evaluated, Finished, Reweighted, Started, Stepped


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


def test_a_log_has_the_weights_a_few_times_and_only_if_they_move(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(moves: bool) -> list[str]:
        watcher, now = TerminalWatcher(shows_weights=True), time.time() + 1
        watcher(event_samples.started(time=now, name="training", total_steps=40))
        for step in range(41):
            share = 0.5 + moves * step / 100
            watcher(Evaluated(time=now, step=step, tokens=step, losses={"code": 5.0, "law": 4.0}, seconds=1.0))
            watcher(
                Reweighted(time=now, step=step, tokens=step, weights={"code": share, "law": 1 - share}, seconds=0.0)
            )
        watcher(Finished(time=now, step=40, seconds=1.0))
        watcher.close()
        return [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "weights" in line]

    assert shown(moves=False) == []
    lines = shown(moves=True)
    assert len(lines) == 4
    assert lines[1] == "training, step 20 of 40, weights: code 50.0 → 70.0 %, law 50.0 → 30.0 %, mean loss 4.500"


def test_columns_are_given_up_until_a_table_fits() -> None:
    rows = [{"domain": "code", "reached": "3.300", "flags": "too few points"}]
    assert fitting_columns(rows, 80, ("flags",)) == (["domain", "reached", "flags"], [])
    assert fitting_columns(rows, 30, ("flags", "reached")) == (["domain", "reached"], ["flags"])
    assert fitting_columns(rows, 4, ("flags",)) == (["domain", "reached"], ["flags"])  # the others are folded


def test_a_table_names_the_columns_that_did_not_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.views.terminal.LOG_WIDTH", 30)
    monkeypatch.setenv("COLUMNS", "30")
    print_table("Strategies", [{"strategy": "static", "loss": "3.910 ± 0.004", "retention": "+0.010", "steps": 3}])
    shown = capsys.readouterr().err
    assert "(not shown: steps, retention)" in " ".join(shown.split()) and "3.910 ± 0.004" in shown


@pytest.mark.parametrize("name", ["dumb", "xterm"])
def test_a_table_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TERM", name)
    for variable in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 40, 0, 0))
    with os.fdopen(writer, "w") as terminal:
        assert console_of(terminal).width == 40
        monkeypatch.setattr("sys.stderr", terminal)
        print_table("Result", [{"domain": "code", "initial": "4.900", "reached": "3.300", "flags": "too few points"}])
        terminal.flush()
        shown = os.read(reader, 4096).decode()
    os.close(reader)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert "initial" in shown and "flags" not in shown.splitlines()[-2] and max(map(len, lines)) <= 40


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
