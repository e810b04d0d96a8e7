"""No test finds in its process what an earlier one left there."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from process_state import restored

from tasks.views.mlflow_open import left_open
from tasks.workspace.command_end import command_ended, when_command_ends
from tasks.workspace.loopback import loopback_without_proxy
from tasks.workspace.said_once import warn_once
from tasks.workspace.signals import end_on_signals


def test_what_a_command_leaves_in_the_process_of_a_test_goes_with_the_test(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def found() -> object:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        return dict(os.environ), Path.cwd(), sys.path[:], handlers

    before, ended = found(), []
    with restored():
        os.chdir(tmp_path)
        sys.path.insert(0, str(tmp_path))
        loopback_without_proxy()
        end_on_signals()
        when_command_ends(ended.append)
        left_open.is_first("store experiment")
        left_open.ended("run", "KILLED")
        warn_once("a warning")
        assert found() != before
    command_ended("failed")
    assert found() == before and not ended
    assert left_open.is_first("store experiment") and not left_open._stopped
    warn_once("a warning")
    assert caplog.messages == ["a warning"] * 2
