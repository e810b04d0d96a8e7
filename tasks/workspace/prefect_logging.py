"""What Prefect logs of a user's mistake."""

from __future__ import annotations

import logging

from tasks.workspace.lock import WorkspaceBusyError

_FAILED = "Finished in state Failed"  # and then the message in brackets


def shorten_user_errors() -> None:
    """Keep Prefect from logging errors that the user can fix, which the command line prints once, in full, at its end.

    Prefect logs such an error with its traceback for the task and for each flow around it, and again in the state that
    each of them ends in; what is left is which of them failed.
    """

    def shorten(record: logging.LogRecord) -> bool:
        if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], ValueError | WorkspaceBusyError):
            return False
        if record.getMessage().startswith(_FAILED):
            record.msg, record.args = _FAILED, ()
        return True

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(shorten)
