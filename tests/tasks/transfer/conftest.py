"""A workspace with a comparison, and the folder of its jobs, run to the end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from job_folders import fork_runs, never
from journeys import Journey, settings, write_workspace

from tasks.transfer.export import folder_contents, write_folder
from tasks.transfer.steps import Known, steps_of
from tasks.workspace import paths
from velocitune_core.contracts import Manifest
from velocitune_core.job_folder.command import run_all


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_inputs: Path) -> Path:
    """A workspace before its runs; not to be changed."""
    folder = tmp_path_factory.mktemp("home")
    write_workspace(folder, tiny_inputs)
    return folder


@pytest.fixture
def fresh(home: Path, tmp_path: Path) -> Iterator[Path]:
    """A workspace before its runs, which is the current folder."""
    with chdir(shutil.copytree(home, tmp_path / "home")):
        yield tmp_path / "home"


@pytest.fixture(scope="session")
def ended(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its comparison after `train --all`; not to be changed."""
    folder = tmp_path_factory.mktemp("ended") / "folder"
    with chdir(home):
        params = settings()
        graph = steps_of(params, Known(Manifest.read(paths.MANIFEST), None, None), compare=True)
        write_folder(folder_contents(params, graph, "compare"), folder, graph.steps)
        with pytest.MonkeyPatch.context() as patch:
            fork_runs(patch)
            assert run_all(folder, never, parallel=2) == 0
    return folder


@pytest.fixture
def journey(fresh: Path, ended: Path, tmp_path: Path) -> Journey:
    """The workspace, which is the current folder, and the folder that comes back."""
    return Journey(fresh, Path(shutil.copytree(ended, tmp_path / "folder")))
