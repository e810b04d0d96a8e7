"""Runs on a machine that has nothing but the training program: the folder goes there and comes back.

The middle part runs in an environment of its own, with torch, transformers, numpy, safetensors, pydantic and what these
require: no Prefect, no DVC, no MLflow.
"""

from __future__ import annotations

import importlib.metadata
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from databases import copy_database
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prefect_databases import server_for_this_process
from rendered import without_drawing
from workspaces import PROJECT, Workspace, finished, make_workspace

from velocitune_core.contracts import Comparison

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FIND = """
from importlib.util import find_spec
print([name for name in ("prefect", "dvc", "mlflow", "datasets", "scipy", "tasks", "torch") if find_spec(name)])
"""
NEEDED = ("torch", "transformers", "numpy", "safetensors", "pydantic")
RUNS = {"base", "proxy-0_2-seed-1", "proxy-0_4-seed-1", "proxy-0_8-seed-1", "static-seed-1", "velocitune-seed-1"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Workspace:
    made = make_workspace(tmp_path_factory.mktemp("workspace"))
    copy_database(mlflow_database, made.folder / "mlflow.db")
    tree = made.params()
    tree["proxies"] = {"fractions": [0.2, 0.4, 0.8], "seeds": [1], "evaluations": 2, "retries": 0}
    runs = {"static": {"strategy": "static"}, "velocitune": {"strategy": "velocitune"}}
    tree["compare"] = {"seeds": [1], "frontier": ["static"], "runs": runs}
    tree["downstream"] = {"instances": 5}
    tree["training"]["token_budget"] = tree["base"]["training"]["token_budget"] = 20_000
    tree["base"]["training"]["precision"] = "float32"
    made.write_params(tree)
    return made


@pytest.fixture(scope="module", autouse=True)
def _prefect_server(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with server_for_this_process(prefect_database, tmp_path_factory.mktemp("prefect")):
        yield


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the packages that the training program needs, and no others."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for distribution in closure(NEEDED):
        for name in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            source = Path(str(distribution.locate_file(name)))
            if source.exists() and not (packages / name).exists():
                (packages / name).symlink_to(source)
    return folder / "bin/python"


def closure(names: tuple[str, ...]) -> Iterator[importlib.metadata.Distribution]:
    """Installed packages, and all that they require."""
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # required on another system
            continue
        yield found
        wanted = map(Requirement, found.requires or [])
        waiting += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]


def test_a_comparison_runs_elsewhere_and_is_up_to_date_at_home(
    workspace: Workspace, bare_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = subprocess.run([bare_python, "-I", "-c", FIND], capture_output=True, text=True, check=True)
    assert found.stdout == "['torch']\n"

    folder = tmp_path / "folder"
    said = workspace.run_here("flows.jobs", "--compare", "--to", str(folder))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert f"8 steps, 0 finished before; {size / 10**6:.1f} MB" in said and size < 10**6
    assert not list(folder.rglob("*.safetensors"))  # the seed of the base travels, not its parameters

    assert "8 of 8 steps finished" in finished(start(bare_python, folder))
    monkeypatch.setattr("tasks.runs.launch.run_program", never)
    with without_drawing():
        said = workspace.run_here("flows.collect", str(folder))
    assert "Strategies compared" in said
    for file in workspace.folder.glob("runs/*/events.jsonl"):  # nothing was trained at home
        assert file.read_bytes() == (folder / file.relative_to(workspace.folder)).read_bytes(), file
    assert names_in_mlflow(workspace) == RUNS
    runs = Comparison.read(workspace.folder / "results/comparison.json").runs
    assert {run.label for run in runs} == {"static", "velocitune"}

    said = workspace.run_here("flows.pipeline", "--compare")
    assert "compare: up to date, skipped" in said and "proxies: up to date, skipped" in said
    assert "Running stage" not in workspace.run("dvc", "repro", "comparison/dvc.yaml")

    tree = workspace.params()
    tree["training"]["optimizer"]["learning_rate"] = 0.003
    workspace.write_params(tree)
    said = workspace.run_here("flows.collect", str(folder), status=2)
    assert "training.optimizer.learning_rate: 0.002 → 0.003" in said and "none was taken" in said


def start(python: Path, folder: Path) -> subprocess.Popen[str]:
    """The command of the other machine."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(PROJECT)}
    command = [python, "-m", "velocitune_core.train", "--all", folder, "--parallel", "2"]
    return subprocess.Popen(
        command, env=environment, cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def never(*_: object) -> int:
    raise AssertionError("a run is started at home")


def names_in_mlflow(workspace: Workspace) -> set[str]:
    """Names of the child runs, from the store itself: MLflow's client does not load beside a Prefect server."""
    with closing(sqlite3.connect(workspace.folder / "mlflow.db")) as store:
        return {name for (name,) in store.execute("select value from tags where key = 'velocitune.name'")}
