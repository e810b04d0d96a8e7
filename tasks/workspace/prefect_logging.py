"""What Prefect logs of a user's mistake."""

from __future__ import annotations

import logging

from tasks.workspace.lock import WorkspaceBusyError


def shorten_user_errors() -> None:
    """Keep Prefect from logging tracebacks of errors that the user can fix, and all but the first line of a message.

    Prefect logs such an error twice, for the task and for each flow around it; the command line prints it once, in
    full, at the end.
    """

    def shorten(record: logging.LogRecord) -> bool:
        if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], ValueError | WorkspaceBusyError):
            record.exc_info = None
        if record.levelno >= logging.ERROR and record.exc_info is None:
            first, _, more = record.getMessage().partition("\n")
            record.msg, record.args = first + (" …" if more else ""), ()
        return True

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(shorten)
