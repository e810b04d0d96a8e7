"""Prefect starts a temporary server for a flow that runs without one; a killed run leaves it behind."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

SERVER = "prefect.server.api.server"  # in the command line of every server that Prefect starts


def end_servers_of_killed_runs() -> None:
    """Terminate the temporary Prefect servers of killed runs of this workspace; each served only its own run.

    Call it while holding the workspace, so that no other run there can own such a server.
    """
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):  # ended meanwhile, or of another user
            if not any(SERVER in word for word in process.cmdline()) or process.ppid() == os.getpid():
                continue
            temporary = process.environ().get("PREFECT__SERVER_EPHEMERAL") == "1"
            parent = process.parent()
            orphaned = parent is None or parent.pid == 1 or "python" not in parent.name()
            if temporary and orphaned and Path(process.cwd()) == Path.cwd():
                sys.stderr.write(f"terminating the Prefect server (process {process.pid}) of a killed run\n")
                process.terminate()
