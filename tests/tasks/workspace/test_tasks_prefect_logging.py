"""Prefect logs a user's mistake in a line, and a defect of the project in full."""

from __future__ import annotations

import logging

import pytest

from tasks.workspace.prefect_logging import shorten_user_errors


def test_prefect_logs_the_first_line_of_a_users_mistake(caplog: pytest.LogCaptureFixture) -> None:
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
    mistake, finished, defect = caplog.records
    assert mistake.exc_info is None and finished.getMessage() == "Finished in state Failed(two rows are malformed: …"
    assert defect.exc_info and defect.getMessage() == "a defect of the project:\nwith its traceback"
