"""Prefect leaves a user's mistake to the command line, which prints it once, and logs a defect in full."""

from __future__ import annotations

import logging

import pytest

from tasks.workspace.prefect_logging import shorten_user_errors


def test_prefect_logs_that_a_task_failed_and_not_the_mistake_again(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("prefect.flow_runs")
    shorten_user_errors()
    try:
        with caplog.at_level(logging.ERROR, logger="prefect.flow_runs"):
            try:
                raise ValueError("two rows are malformed:\n  code.jsonl:3\n  code.jsonl:9")
            except ValueError as error:
                logger.exception("Encountered exception: %r", error)
                logger.error("Finished in state Failed(%s)", error)
            try:
                raise RuntimeError("a defect")
            except RuntimeError:
                logger.exception("a defect of the project:\nwith its traceback")
    finally:
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).filters.clear()
    finished, defect = caplog.records
    assert finished.getMessage() == "Finished in state Failed"
    assert defect.exc_info and defect.getMessage() == "a defect of the project:\nwith its traceback"
