"""Where MLflow's record is to lie is checked before any work: a run would end well, and its record be nowhere."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from velocitune_core.config import Tracking, describe_problems


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("foo", "'foo' is neither a database nor a server; write sqlite:///mlflow.db, or the address"),
        ("mlruns", "'mlruns' is neither a database nor a server; write sqlite:///mlflow.db"),
        ("file:///tmp/mlruns", "'file:///tmp/mlruns' is neither a database nor a server; write sqlite:///mlflow.db"),
        ("postgres://me:pa55@h/db", "'postgres://***@h/db' is neither a database nor a server; write postgresql://"),
        ("http://127.0.0.1:99999", "'http://127.0.0.1:99999' is no address with a port from 1 to 65535; correct it"),
        ("https://h:x/", "'https://h:x/' is no address with a port from 1 to 65535; correct it"),
        ("http://h:0", "'http://h:0' has port 0; give one from 1 to 65535"),
        ("http://", "'http://' names no host; write"),
        ("http://my server:5000", "'http://my server:5000' names no host; write"),
        ("sqlite://mlflow.db", "'sqlite://mlflow.db' names no file that keeps the record; write sqlite:///mlflow.db"),
        ("sqlite:///:memory:", "'sqlite:///:memory:' names no file that keeps the record; write"),
        ("mysql://me:a[b@h/db", "'mysql://***@h/db' has a bracket that MLflow cannot read; in a password write %5B"),
        ("", "'' is neither a database nor a server"),
    ],
)
def test_a_record_that_would_lie_nowhere(uri: str, problem: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Tracking(uri=uri)
    assert describe_problems(refused.value).startswith(f"  uri: {problem}")


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////abs/mlflow.db",
        "postgresql+psycopg://me:pa55@h:5432/db",
        "postgresql://me:p#a/b?c@h/db",
        "mysql:///db",
        "HTTP://h:5000",
        "https://h/mlflow",
        "http://[::1]:5000",
    ],
)
def test_records_in_databases_and_on_servers(uri: str) -> None:
    assert Tracking(uri=uri).is_server == uri.lower().startswith("http")


@pytest.mark.parametrize("name", ["", " "])
def test_an_experiment_without_a_name(name: str) -> None:
    with pytest.raises(ValidationError, match="experiment"):
        Tracking(experiment=name)
