"""Prefect's servers: the one that its settings name must answer; a temporary one that a killed run left is ended."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from velocitune_core.config import without_credentials

if TYPE_CHECKING:
    import httpx

SECONDS_TO_ANSWER = 10
SERVER = "prefect.server.api.server"  # in the command line of every server that Prefect starts


class PrefectServerError(ValueError):
    """No Prefect server answers where Prefect's settings name one."""


def check_named_server() -> None:
    """Raise PrefectServerError if Prefect's settings name an address where no Prefect server answers.

    Without one, Prefect starts a temporary server for a run.
    """
    import httpx
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return
    try:
        page = f"{url.rstrip('/')}/health"
        answer = httpx.get(page, timeout=SECONDS_TO_ANSWER, verify=False, follow_redirects=True)  # as Prefect's client
        problem = _problem_of(answer, url)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:  # the last two: of a proxy
        problem = f"does not answer ({error}). Start it, or do without"
    if problem:
        source = (
            "the variable PREFECT_API_URL: unset it"
            if os.environ.get("PREFECT_API_URL")
            else "Prefect's active profile: `prefect config unset PREFECT_API_URL --yes`, or remove what killed "
            "servers (make serve, velocitune serve) left, .prefect-home/profiles.toml"
        )
        raise PrefectServerError(
            f"the Prefect server {without_credentials(url)} {problem}; its address is from {source}"
        ) from None


def _problem_of(answer: httpx.Response, url: str) -> str | None:
    """Return why an answer to a request without a login, such as any website gives, is not that of a Prefect server."""
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_KEY,
        PREFECT_CLIENT_CUSTOM_HEADERS,
        PREFECT_CLOUD_API_URL,
    )

    if url.startswith(PREFECT_CLOUD_API_URL.value()):
        return None  # which has no such page for everybody
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        if any(each.value() for each in (PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_CLIENT_CUSTOM_HEADERS)):
            return None  # which Prefect's client sends
        return f"needs a login (status {answer.status_code}): set PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
    if answer.status_code == HTTPStatus.OK and answer.text.strip() == "true":
        return None
    kind = answer.headers.get("content-type", "no type").partition(";")[0]
    return (
        f"is none: its page /health answers with status {answer.status_code} and {kind} in place of `true`. Correct "
        "the address, which ends with /api"
    )


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
