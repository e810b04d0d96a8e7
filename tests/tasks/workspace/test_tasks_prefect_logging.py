"""The console has what a user reads, in short lines; Prefect's UI has all of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import flow
from prefect.logging.handlers import PrefectConsoleHandler
from prefect_databases import server_for_this_process

from tasks.workspace.prefect_logging import UI_ONLY, brief_console, errors_without_traceback
from velocitune_core.config import ConfigError


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """A console of Prefect's, made brief, and what it prints."""
    handler, root = PrefectConsoleHandler(), logging.getLogger()
    others, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    logging.getLogger("prefect.flow_runs").handlers.clear()
    brief_console()
    try:
        yield capsys
    finally:
        root.handlers[:] = others
        root.setLevel(level)


def test_prefects_routine_is_not_printed(console: pytest.CaptureFixture[str]) -> None:
    runs = logging.getLogger("prefect.flow_runs")
    runs.setLevel(logging.INFO)
    runs.info("Beginning flow run 'mature-magpie' for flow 'velocitune'")
    runs.info("Finished in state Completed()")
    prefect = logging.getLogger("prefect")
    prefect.setLevel(logging.INFO)
    prefect.info("Starting temporary server on http://127.0.0.1:8644\nSee https://docs.prefect.io for more")
    prefect.info("Stopping temporary server on http://127.0.0.1:8644")
    runs.info("[5/9] proxies, about 70 s left")
    ours = logging.getLogger("tasks.runs.budget")
    ours.setLevel(logging.INFO)
    ours.info("step 32, of which Prefect's UI shows a line", extra=UI_ONLY)
    ours.warning("targets with flags: general")
    for _ in range(2):  # Prefect's own is repeated for nothing; one of a run may be of another run
        prefect.warning("the database is slow")
        runs.warning("checkpoint 8 is corrupt")
    shown = [line.partition(" ")[2] for line in console.readouterr().err.splitlines()]  # after the time
    assert shown == [
        "Starting temporary server on http://127.0.0.1:8644",
        "[5/9] proxies, about 70 s left",
        "warning: targets with flags: general",
        "warning: the database is slow",
        *["warning: checkpoint 8 is corrupt"] * 2,
    ]


@pytest.mark.parametrize("name", ["dvc.dvcfile", "mlflow.store.db.utils", "alembic"])
def test_of_libraries_only_warnings_are_printed(name: str) -> None:
    """DVC logs a line for every lock file that it writes."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    brief_console()
    assert not logger.isEnabledFor(logging.INFO) and logger.isEnabledFor(logging.WARNING)


def test_a_failure_is_left_to_the_command_and_its_retry_has_the_reason(console: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("prefect.task_runs")
    logger.setLevel(logging.INFO)
    error = RuntimeError("proxy-1 failed: no space left\n  the end\n  of its log")
    retry = "Task run failed with %s: %r - Retry %s/%s will start %s"
    logger.info(retry, "exception", error, 1, 2, "5 second(s) from now", extra={"task_run_name": "proxy-1"})
    try:
        raise error
    except RuntimeError:
        logger.exception("Task run failed with exception: %r - Retries are exhausted", error)
    logging.getLogger("prefect.flow_runs").error("Finished in state Failed(%s)", error)
    (line,) = console.readouterr().err.splitlines()
    assert line.partition(" ")[2] == (
        "proxy-1: proxy-1 failed: no space left; Retry 1/2 will start 5 second(s) from now"
    )


def test_a_deployments_error_is_logged_once_with_what_helps_and_others_with_their_traceback(
    server: None, caplog: pytest.LogCaptureFixture, brief_errors: None, console: pytest.CaptureFixture[str]
) -> None:
    @flow
    def stage(error: Exception) -> None:
        raise error

    @flow
    def pipeline(error: Exception) -> None:
        errors_without_traceback()
        stage(error)

    for error in (ConfigError("overrides:\n  seed: -1 is negative; give a number from 0"), KeyError("a fault")):
        with pytest.raises(type(error)):
            pipeline(error)
    records = [
        each for each in caplog.records if each.name.startswith("prefect.flow_runs") and each.levelno > logging.INFO
    ]
    shown, of_pipeline, *others = [record.getMessage() for record in records]
    assert shown == "overrides:\n  seed: -1 is negative; give a number from 0" and records[0].exc_info is None
    assert of_pipeline == "overrides: seed: -1 is negative; give a number from 0" and records[1].exc_info is None
    ids = [getattr(record, "flow_run_id", None) for record in records]
    assert ids[0] != ids[1] and {*ids[:2]}.isdisjoint(ids[2:]) and None not in ids
    assert others and not any("seed" in other for other in others)
    assert console.readouterr().err.count("seed: -1 is negative") == 1
    assert records[2].exc_info is not None and isinstance(records[2].exc_info[1], KeyError)
    assert "Finished in state Failed" not in caplog.text.partition("a fault")[0]


@pytest.fixture
def server(prefect_database: Path, tmp_path: Path) -> Iterator[None]:
    with server_for_this_process(prefect_database, tmp_path):
        yield


@pytest.fixture
def brief_errors() -> Iterator[None]:
    """Filters as they were before."""
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    before = [each.filters[:] for each in loggers]
    yield
    for each, filters in zip(loggers, before, strict=True):
        each.filters[:] = filters


def test_the_state_of_a_run_that_its_worker_then_cancels_is_not_logged(
    brief_errors: None, caplog: pytest.LogCaptureFixture
) -> None:
    errors_without_traceback()
    runs = logging.getLogger("prefect.flow_runs")
    with caplog.at_level(logging.INFO, "prefect.flow_runs"):
        runs.info("Finished in state Running()")
        runs.info("Finished in state Cancelled()")
    assert "Running" not in caplog.text and "Cancelled" in caplog.text
