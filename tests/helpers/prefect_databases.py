"""Prefect servers on copies of one database, whose migrations take seven seconds of processor time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from databases import copy_database, made_once
from servers import free_port, running

QUIET = ("--host", "127.0.0.1", "--log-level", "error")
MIGRATE = """
import asyncio
from prefect.server.database.dependencies import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""


def migrated_database(folder: Path) -> Path:
    """Return the database of a server that has seen nothing yet; made once in a folder that processes may share."""

    def make(file: Path) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        own = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{file}"}
        subprocess.run([sys.executable, "-c", MIGRATE], cwd=folder, env=inherited | own, check=True)

    return made_once(folder / f"prefect-{version('prefect')}.db", make)


@contextmanager
def prefect_server(database: Path, folder: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a Prefect server in a folder, on a copy of a database; yield its process and the address of its API.

    Settings are Prefect's variables.
    """
    own = folder / ".prefect-home/server.db"
    copy_database(database, own)
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--port", str(port), *QUIET]
    variables = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{own}",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT__SERVER_EPHEMERAL": "1",  # as Prefect starts its own: without schedules, late runs and the like
        "PREFECT__SERVER_FINAL": "1",
    }
    with running(folder, *command, health=f"{api}/health", **variables, **settings) as server:
        yield server, api


@contextmanager
def server_for_this_process(database: Path, folder: Path) -> Iterator[None]:
    """A Prefect server for all flows of this process.

    Prefect's own `prefect_test_harness` imports the whole server into this process too, which takes three seconds.
    """
    from prefect._internal.concurrency.services import _QueueServiceBase
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        prefect_server(database, folder) as (_, api),
        temporary_settings({PREFECT_API_URL: api}),
        _temporary_global_settings_context(get_settings_context()),  # for threads that others start
        pytest.MonkeyPatch.context() as patch,
    ):
        # At the end of a fork of this process, such as a worker of a data loader, the services that send logs and
        # events would fail, and the fork end with status 1.
        patch.setattr(_QueueServiceBase, "_at_exit", lambda service: None)
        try:
            yield
        finally:
            _QueueServiceBase.drain_all(timeout=10)  # or they try to reach the server when this process ends
