"""What Prefect and the libraries print beside a command: the lines that a reader needs.

Prefect's UI has all that Prefect logs; lines are left out only by its console handler.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from textwrap import shorten

from tqdm import tqdm

from tasks.workspace.shown_errors import shown_to_user

LONGEST_LINE = 400  # characters of an error that is repeated
UI_ONLY = {"ui_only": True}  # `extra` of a log call whose line is for Prefect's UI
_RUNS = ("prefect.flow_runs", "prefect.task_runs")
_ROUTINE = ("Beginning ", "Finished in state Completed", "Created ", "View at ", "Stopping ")
_FAILED = "Finished in state Failed"  # and then the message in brackets
_CANCELLED = "Finished in state Running"  # of a run that its worker then sets to Cancelled
_RETRY = re.compile(r"Task run failed with \w+: \w+\(.(?P<reason>.*?)(\\n.*)?.\) - (?P<then>Retry .*)")
_CHATTY = (
    "dvc.dvcfile",
    "mlflow.store.db.utils",
    "alembic",
)  # loggers whose lines below a warning say nothing to a user


def brief_console() -> None:
    """Leave on the console what a user reads, in short lines: no routine of Prefect's, and no failure twice.

    Prefect logs an error with its traceback for the task and for each flow around it, and again in the state that each
    of them ends in. The command line prints an error that the user can fix once, in full, at its end; of others Python
    prints the traceback.
    """
    import prefect  # noqa: F401 - sets its handlers up
    from prefect.logging.handlers import PrefectConsoleHandler

    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler) and not any(isinstance(each, _Brief) for each in handler.filters):
            handler.addFilter(_Brief())
            handler.setFormatter(_Line())
            handler.console.file = _AboveBars()
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def errors_without_traceback() -> None:
    """Log an error that says all that a user needs once and without a traceback, on the terminal and in Prefect's UI.

    The log of a flow run around the one that failed, which is a page of its own in the UI, has it there in a line. This
    is for the process of a deployment's run, where no command prints the error at its end.
    """
    from prefect.logging.handlers import PrefectConsoleHandler

    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler) and _printed_before not in handler.filters:
            handler.addFilter(_printed_before)
    brief = _BriefErrors()
    for name in _RUNS:
        if not any(isinstance(each, _BriefErrors) for each in logging.getLogger(name).filters):
            logging.getLogger(name).addFilter(brief)


class _BriefErrors(logging.Filter):
    """Leaves the message of an error that the user can fix, once per flow run; drops what else Prefect logs of it."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, set[str | None]] = {}  # flow runs by message

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message.startswith(_CANCELLED) or (self._shown and message.startswith(_FAILED)):
            return False
        error = record.exc_info[1] if record.exc_info else None
        shown = shown_to_user(error) if isinstance(error, Exception) else None
        if shown is None:
            return True
        flow_runs, flow_run = self._shown.setdefault(shown.message, set()), getattr(record, "flow_run_id", None)
        if flow_run in flow_runs:
            return False
        record.again = bool(flow_runs)
        text = shorten(shown.message, LONGEST_LINE, placeholder=" …") if flow_runs else shown.message
        flow_runs.add(flow_run)
        record.msg, record.args, record.exc_info, record.exc_text = text, (), None, None
        return True


def _printed_before(record: logging.LogRecord) -> bool:
    """Let pass what is not the repetition of an error for the UI."""
    return not getattr(record, "again", False)


class _Brief(logging.Filter):
    """Drops what the reader of a terminal has no use for, and warnings of Prefect itself that were printed before."""

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if getattr(record, "ui_only", False):
            return False
        if record.name == "prefect" or record.name.startswith(_RUNS):
            if record.levelno < logging.WARNING and message.startswith(_ROUTINE):
                return False
            if record.exc_info or message.startswith(_FAILED):
                return False
        of_prefect = record.name.partition(".")[0] == "prefect" and not record.name.startswith(_RUNS)
        if of_prefect and record.levelno == logging.WARNING:
            if message in self._warned:
                return False
            self._warned.add(message)
        return True


class _Line(logging.Formatter):
    """The message in one line, after its time where the output is a log, and its level if that is above INFO."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        time = "" if sys.stderr.isatty() else f"{self.formatTime(record, '%H:%M:%S')} "
        message = record.getMessage()
        if record.name == "prefect":  # a server starts, which takes seconds; its further lines say what else there is
            message = message.partition("\n")[0]
        if retry := _RETRY.match(message):
            message = f"{getattr(record, 'task_run_name', 'a task')}: {retry['reason']}; {retry['then']}"
        text = f"{time}{level}{message}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _AboveBars(io.StringIO):
    """Standard error, for lines that appear above the progress bars."""

    def write(self, text: str) -> int:
        tqdm.write(text, file=sys.stderr, end="")
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()
