"""A database that cannot hold MLflow's record is refused before any work; a server may be out of reach for now."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.workspace.preflight import checked_settings
from tasks.workspace.record_store import SQLITE, store_problems
from velocitune_core.config import ConfigError, Tracking

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("sqlite:///notes.txt/mlflow.db", "{here}/notes.txt is no folder; name a file in another folder"),
        ("sqlite:///data", "is a folder; name a file in it"),
        ("sqlite:///notes.txt", "holds no SQLite database; name another file"),
        ("sqlite:////dev/null", "is a device, a pipe or a socket; name a file"),
        ("sqlite:///pipe", "is a device, a pipe or a socket; name a file"),
        ("sqlite:///link", "is a device, a pipe or a socket; name a file"),
        ("mssql+nodriver://me:pa55@h/db", "Can't load plugin: sqlalchemy.dialects:mssql.nodriver; install its driver"),
        ("mysql://me:pa55@h:x/db", "is no address with a port from 1 to 65535; correct it"),
        ("mysql://me:pa55@h:99999/db", "has port 99999; give one from 1 to 65535"),
        ("sqlite:///old.db", None),
        ("sqlite:///no/such/mlflow.db", None),
        ("sqlite:///empty.db", None),
        ("sqlite:///mlflow.db", None),
        ("http://127.0.0.1:9", None),
    ],
)
def test_each_store_is_looked_at_without_connecting(workspace: Path, uri: str, problem: str | None) -> None:
    Path("data").mkdir()
    Path("notes.txt").write_text("notes of mine")
    Path("old.db").write_bytes(SQLITE + b"...")
    Path("empty.db").touch()
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    before = set(workspace.iterdir())
    found = store_problems(Tracking(uri=uri))
    assert set(workspace.iterdir()) == before
    if problem is None:
        assert not found
    else:
        assert found[0].startswith(f"tracking.uri: {uri.replace('me:pa55', '***')!r}: {problem.format(here=workspace)}")


def test_a_store_is_looked_at_before_any_work(workspace: Path, settings: dict[str, Any]) -> None:
    settings["tracking"] = {"uri": "sqlite:///params.yaml/mlflow.db"}
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match=r"^params\.yaml:\n  tracking\.uri: 'sqlite:///params\.yaml/mlflow\.db': /"):
        checked_settings({})


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder that takes no files from anybody")
@pytest.mark.parametrize("uri", ["sqlite:////proc/x/y.db", "sqlite+pysqlite:////proc/x/y.db", "sqlite:////proc/y.db"])
def test_a_folder_that_takes_no_files_is_named_also_where_permissions_allow_all(uri: str) -> None:
    (found,) = store_problems(Tracking(uri=uri))
    assert f"{uri!r}: /proc cannot be written (" in found and found.endswith("); name a file in another folder")


def test_a_database_that_cannot_be_written_is_named(workspace: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write every file")
    Path("old.db").write_bytes(SQLITE)
    Path("old.db").chmod(0o400)
    (found,) = store_problems(Tracking(uri="sqlite:///old.db"))
    assert found.endswith("cannot be written (Permission denied); name another file")


def test_a_name_that_is_too_long_is_refused() -> None:
    (found,) = store_problems(Tracking(uri=f"sqlite:///{'x' * 252}.db"))  # for the files that SQLite makes beside it
    assert "(File name too long)" in found


@pytest.mark.parametrize(
    ("file", "made"),
    [("report/mlflow.db", "is made by the stage `report`"), ("results/mlflow.db", None), ("mlflow.db", None)],
)
def test_a_store_in_a_folder_that_a_stage_replaces_is_refused(workspace: Path, file: str, made: str | None) -> None:
    shutil.copyfile(PROJECT / "dvc.yaml", "dvc.yaml")
    found = store_problems(Tracking(uri=f"sqlite:///{file}"))
    if made is None:
        assert found == []
    else:
        assert found == [
            f"tracking.uri: 'sqlite:///{file}': {file} {made}, and would be lost with it; name a file in another folder"
        ]
