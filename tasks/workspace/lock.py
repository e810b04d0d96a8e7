"""One run at a time in a workspace, and the command line of a stage."""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from tasks.workspace import paths

INTERRUPTED = 130  # 128 + SIGINT, as shells say it
SECONDS_TO_SAVE = 60.0
PREFECT_SERVER = "prefect.server.api.server"  # in the command of every server that Prefect starts


class WorkspaceBusyError(RuntimeError):
    """Another run is at work in this workspace."""


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the workspace for this process. The system lets go of it when the process dies, however it dies.

    A process that holds it may take it again. Raises WorkspaceBusyError naming the process that holds it.
    """
    paths.STATE.mkdir(exist_ok=True)
    with (paths.STATE / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            if not holder.startswith(f'{{"pid": {os.getpid()},'):
                raise WorkspaceBusyError(
                    f"a run is going in this workspace already: {holder}; wait for it, or stop that process"
                ) from None
            yield
            return
        lock.truncate(0)
        since, command = datetime.now(UTC).isoformat(timespec="seconds"), " ".join(sys.orig_argv)
        holder = {"pid": os.getpid(), "since": since, "command": command}
        lock.write(json.dumps(holder))
        lock.flush()
        _end_forsaken_servers()
        yield


def _end_forsaken_servers() -> None:
    """End Prefect's temporary servers of runs in this workspace that were killed: each serves its own run alone."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone meanwhile, or not ours
            if not any(PREFECT_SERVER in word for word in process.cmdline()) or process.ppid() == os.getpid():
                continue
            temporary = process.environ().get("PREFECT__SERVER_EPHEMERAL") == "1"
            parent = process.parent()
            forsaken = parent is None or parent.pid == 1 or "python" not in parent.name()
            if temporary and forsaken and Path(process.cwd()) == Path.cwd():
                sys.stderr.write(f"ending the Prefect server (pid {process.pid}) of a run that was killed\n")
                process.terminate()


def stop_children_on_interrupt() -> None:
    """Let Ctrl-C end a command line at once: trainings are asked to save and stop, then everything below us ends.

    (Prefect would wait minutes for its temporary server, which the same Ctrl-C has ended.)
    """

    def stop(*_: object) -> None:
        import psutil

        sys.stderr.write("\ninterrupted: trainings save and stop; run the same command again to go on from there\n")
        children = psutil.Process().children(recursive=True)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        alive = psutil.wait_procs(children, timeout=SECONDS_TO_SAVE)[1]
        for child in alive:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(INTERRUPTED)  # not sys.exit: threads that wait for the server would hold it up

    signal.signal(signal.SIGINT, stop)


def spare_tracebacks_of_user_errors() -> None:
    """Keep Prefect from printing where in our code a user's mistake was noticed; its message says what to mend.

    Prefect tells it of the task and of each flow around it, twice; we tell it whole at the end, here its first line.
    """

    def spare(record: logging.LogRecord) -> bool:
        if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], ValueError | WorkspaceBusyError):
            record.exc_info = None
        if record.levelno >= logging.ERROR and record.exc_info is None:
            first, _, more = record.getMessage().partition("\n")
            record.msg, record.args = first + (" …" if more else ""), ()
        return True

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(spare)


def run_stage(stage: Callable[[], object], *, comparing: bool = False, arguments: Sequence[str] | None = None) -> None:
    """Command line of a stage: check everything, hold the workspace, run; exit status 2 for what the user can fix."""
    from tasks.workspace.preflight import checked_params

    program = f"python -m flows.{Path(sys.argv[0]).stem}"
    argparse.ArgumentParser(program, description=sys.modules["__main__"].__doc__).parse_args(arguments)  # takes none
    stop_children_on_interrupt()
    spare_tracebacks_of_user_errors()
    try:
        checked_params(comparing)
        with exclusive():
            stage()
    except (ValueError, WorkspaceBusyError) as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(2)
