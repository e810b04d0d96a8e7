"""Prefect's servers: the one that its settings name must answer; a temporary one that a killed run left is ended."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from velocitune_core.config import without_credentials

SECONDS_TO_ANSWER = 10
SERVER = "prefect.server.api.server"  # in the command line of every server that Prefect starts


class PrefectServerError(ValueError):
    """The server that Prefect's settings name does not answer."""


def check_named_server() -> None:
    """Raise PrefectServerError if Prefect's settings name a server that does not answer.

    Without one, Prefect starts a temporary server for a run. Any answer will do, such as that a login is missing.
    """
    import httpx
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return
    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=SECONDS_TO_ANSWER, verify=False)  # nothing is sent
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        source = (
            "the variable PREFECT_API_URL: unset it"
            if os.environ.get("PREFECT_API_URL")
            else "Prefect's active profile: `prefect config unset PREFECT_API_URL --yes`, or remove what a killed "
            "`make serve` left, .prefect-home/profiles.toml"
        )
        raise PrefectServerError(
            f"the Prefect server {without_credentials(url)} does not answer ({error}). Start it, or do without; its "
            f"address is from {source}"
        ) from None


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
