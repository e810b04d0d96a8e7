"""One run at a time in a workspace, whatever happens to the run."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.workspace import paths
from tasks.workspace.lock import WorkspaceBusyError, exclusive, run_stage, spare_tracebacks_of_user_errors

HOLD = """
import time
from tasks.workspace.lock import exclusive
with exclusive():
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(workspace: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the workspace."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=workspace, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_of_the_first(holder: subprocess.Popen[str]) -> None:
    for _ in range(2):  # being refused changes nothing
        with pytest.raises(WorkspaceBusyError, match=rf'"pid": {holder.pid}\b'), exclusive():
            pytest.fail("two processes hold the workspace")


def test_a_killed_holder_lets_go(holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    with exclusive():
        assert f'"pid": {os.getpid()}' in (paths.STATE / "lock").read_text()


def test_a_run_that_failed_lets_go(workspace: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive():
        _ = 1 / 0
    with exclusive():
        pass


def test_a_stage_that_cannot_start_ends_with_status_2(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_stage(lambda: pytest.fail("was run"), arguments=[])
    assert "params.yaml: no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run_stage(lambda: pytest.fail("was run"), arguments=["-S", "training.seed=77"])
    assert "unrecognized arguments: -S" in capsys.readouterr().err


SERVED = """
import time
from prefect.server.api.server import SubprocessASGIServer
server = SubprocessASGIServer()
server.start()
print(server.server_process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_the_server_of_a_killed_run_is_ended_by_the_next_one(workspace: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(workspace), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVED], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        server = psutil.Process(int(process.stdout.readline()))
        with exclusive():
            assert server.is_running(), "its run is alive"
        process.kill()
    assert server.is_running()
    with exclusive():
        server.wait(20)


INTERRUPTIBLE = """
import subprocess, sys, threading
from tasks.workspace.lock import stop_children_on_interrupt
stop_children_on_interrupt()
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
threading.Event().wait(600)
"""


def test_an_interrupt_ends_everything_below_and_says_how_to_go_on(workspace: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "run the same command again" in said
    assert not Path(f"/proc/{child}").exists()


def test_a_process_may_take_what_it_holds_again(workspace: Path) -> None:
    with exclusive(), exclusive():
        pass
    with exclusive():
        pass


def test_prefect_tells_the_first_line_of_a_users_mistake(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("prefect.flow_runs")
    spare_tracebacks_of_user_errors()
    try:
        with caplog.at_level(logging.ERROR, logger="prefect.flow_runs"):
            try:
                raise ValueError("two rows are malformed:\n  code.jsonl:3\n  code.jsonl:9")
            except ValueError as error:
                logger.exception("Encountered exception: %r", error)
                logger.error("Finished in state Failed(%s)", error)
            try:
                raise RuntimeError("ours:\nto mend")
            except RuntimeError:
                logger.exception("a defect of ours:\nwith its traceback")
    finally:
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).filters.clear()
    mistake, finished, defect = caplog.records
    assert mistake.exc_info is None and finished.getMessage() == "Finished in state Failed(two rows are malformed: …"
    assert defect.exc_info and defect.getMessage() == "a defect of ours:\nwith its traceback"
