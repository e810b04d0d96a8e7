"""Where MLflow keeps the record of runs: a database, or a server."""

from __future__ import annotations

import re
from pathlib import Path
from reprlib import repr as shortened
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from velocitune_core.config.base import LAST_PORT, Section
from velocitune_core.config.credentials import without_credentials
from velocitune_core.files import path_problem

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # that MLflow takes, also with a driver: postgresql+psycopg
SERVERS = ("http", "https")
EXAMPLES = "write sqlite:///mlflow.db, or the address of a server, such as http://mlflow.example.org:5000"
_SHOWN = 100  # letters of an address; of a longer one, its ends
_INSTEAD = {"postgres": "write postgresql://", "file": "write sqlite:///mlflow.db"}


class Tracking(Section):
    uri: str = "sqlite:///mlflow.db"
    experiment: Annotated[str, Field(min_length=1, pattern=r"\S")] = "velocitune"

    @field_validator("uri")
    @classmethod
    def _leads_somewhere(cls, uri: str) -> str:
        if problem := _problem(uri):
            shown = without_credentials(uri)
            raise ValueError(f"{shortened(shown) if len(shown) > _SHOWN else repr(shown)} {problem}")
        return uri

    @property
    def is_server(self) -> bool:
        """Whether a server of MLflow has the record; else a database has it."""
        return self.uri.partition("://")[0].lower() in SERVERS

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for other stores."""
        scheme, _, file = self.uri.partition(":///")
        return Path(file) if scheme in ("sqlite", "sqlite+pysqlite") else None


def _problem(uri: str) -> str | None:
    """Return what is wrong with the address of a store, and what to write; None if nothing is."""
    scheme, separator, _ = uri.partition("://")
    scheme = scheme.lower() if scheme.lower() in SERVERS else scheme  # databases are SQLAlchemy's, in small letters
    kind = scheme.partition("+")[0]  # without a driver
    if not separator or kind not in (*DATABASES, *SERVERS):
        return f"is neither a database nor a server; {_INSTEAD.get(kind, EXAMPLES)}"
    if kind == "sqlite":
        file = uri.partition(":///")[2]
        lost = not file or file.endswith("/") or ":memory:" in file
        return f"names no file that keeps the record; {EXAMPLES}" if lost else path_problem(file)
    if kind in DATABASES:
        return _problem_of_database(uri)
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:  # of a port, or of brackets
        return f"is no address with a port from 1 to {LAST_PORT}; correct it"
    if not host or re.search(r"\s", uri):
        return f"names no host; {EXAMPLES}"
    return f"has port 0; give one from 1 to {LAST_PORT}" if port == 0 else None


def _problem_of_database(uri: str) -> str | None:
    """Return what MLflow cannot read; the rest is SQLAlchemy's, to whom a password may hold `#`, `/` and `?`."""
    try:
        urlsplit(uri)
    except ValueError:
        return "has a bracket that MLflow cannot read; in a password write %5B for [ and %5D for ]"
    return None
