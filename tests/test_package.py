"""The wheel: what it holds, what it needs, and that it works where nothing else is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

from tasks.workspace.create import FILES

PROJECT = Path(__file__).parents[1]
INSTALLED = Path(sysconfig.get_path("purelib"))
pytestmark = pytest.mark.slow

METHOD = """
import sys
import velocitune_core
heavy = {"numpy", "scipy", "torch", "pydantic"}
assert not heavy & set(sys.modules), "the package imports what it does not use yet"
for name in velocitune_core.__all__:
    getattr(velocitune_core, name)
weights = {"code": [0.2, 0.5, 0.8, 0.35], "web": [0.8, 0.5, 0.2, 0.65]}
losses = {"code": [2.0, 1.7, 1.6, 1.8], "web": [2.5, 2.6, 2.9, 2.52]}
law = velocitune_core.fit_mixture_law(weights, losses, law="bimix")
plan = velocitune_core.optimise_mixture(law, velocitune_core.Objective())
assert abs(sum(plan.weights.values()) - 1) < 1e-9
for name in ("flows", "tasks", "torch", "jinja2", "yaml"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(f"{name} can be imported")
"""
EXPORTS = """
import contextlib, io
from velocitune_core.export import FORMATS
from velocitune_core.export.command import main
for name in FORMATS:
    with contextlib.redirect_stdout(io.StringIO()) as written:
        assert main(["--to", name, "--from", "fit/weights.json", "--unit", "sequences"]) == 0, name
    assert "web" in written.getvalue(), name
"""
TABLE = """run,weight/code,weight/web,loss/code,loss/web
a,0.2,0.8,2.0,2.5
b,0.5,0.5,1.7,2.6
c,0.8,0.2,1.6,2.9
d,0.35,0.65,1.8,2.52
"""


class Bare:
    """An environment with the wheel, and links to the packages that are given to it."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, symlinks=True)
        self.python = folder / "bin/python"
        (self.packages,) = folder.glob("lib/python*/site-packages")
        install = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
        ]
        subprocess.run([*install, wheel], check=True, timeout=120)

    def give(self, name: str) -> None:
        """Link a package, and all that it requires."""
        found = distribution(name)
        for top in {Path(str(file)).parts[0] for file in found.files or () if ".." not in Path(str(file)).parts}:
            link = self.packages / top
            if top != "__pycache__" and not link.is_symlink():
                link.symlink_to(INSTALLED / top)
        for each in required(found):
            self.give(each)

    def run(self, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run its Python, which ignores the variables of this one."""
        command = [str(self.python), "-I", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def required(found: Distribution) -> list[str]:
    """Return the names of what a package needs without any extra, on any machine."""
    return [re.split(r"[^\w.-]", each)[0] for each in found.requires or () if ";" not in each]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git has, so that no old build can be part of it."""
    source = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if not name.startswith(("tests/", "docs/", "benchmarks/")) and (PROJECT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", source / "dist", source], check=True, timeout=300)
    (found,) = (source / "dist").glob("velocitune-*.whl")
    return found


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return Bare(tmp_path_factory.mktemp("bare"), wheel)


def test_the_wheel_holds_the_package_alone_and_what_workspaces_are_made_of(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"velocitune_core", "velocitune"}
    assert "velocitune_core/py.typed" in names
    code = [path for folder in ("flows", "tasks", "velocitune_core") for path in (PROJECT / folder).rglob("*.py")]
    for path in (each.relative_to(PROJECT).as_posix() for each in code):
        assert {path, f"velocitune_core/template/{path}"} & names, path
    template = {name.removeprefix("velocitune_core/template/") for name in names}
    assert {*FILES, "params.yaml"} <= template
    for kind in ("jinja", "css", "js"):
        for path in (PROJECT / "velocitune_core/report/templates").glob(f"*.{kind}"):
            assert path.relative_to(PROJECT).as_posix() in names


def test_numpy_and_scipy_are_enough_for_the_method_and_the_declared_packages_for_fits_and_exports(
    bare: Bare, tmp_path: Path
) -> None:
    for name in ("numpy", "scipy"):
        bare.give(name)
    method = bare.run("-c", METHOD, folder=tmp_path)
    assert method.returncode == 0, method.stderr
    for name in ("fit", "export"):
        refused = bare.run("-m", "velocitune_core.cli", name, "--help", folder=tmp_path)
        assert refused.returncode == 2 and "(jinja2, pydantic, yaml)" in refused.stderr, refused.stderr

    (own,) = Distribution.discover(name="velocitune", path=[str(bare.packages)])
    for name in required(own):
        bare.give(name)
    (tmp_path / "runs.csv").write_text(TABLE)
    command = ("-m", "velocitune_core.cli", "fit", "runs.csv", "--law", "bimix", "--bootstrap", "4")
    fitted = bare.run(*command, folder=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    assert {path.name for path in (tmp_path / "fit").iterdir()} == {"plan.html", "plan.json", "weights.json"}
    exported = bare.run("-c", EXPORTS, folder=tmp_path)
    assert exported.returncode == 0, exported.stderr
    script = bare.python.with_name("velocitune")
    refused = bare.run(str(script), "run", folder=tmp_path)
    assert refused.returncode == 2 and "pip install 'velocitune[lab]'" in refused.stderr


def test_a_workspace_is_made_from_the_wheel(bare: Bare, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(bare.packages)}  # here with all packages of the pipeline
    command = [sys.executable, "-P", "-m", "velocitune_core.cli"]
    made = subprocess.run([*command, "init", "work"], cwd=tmp_path, env=environment, check=False, timeout=60)
    assert made.returncode == 0
    package = bare.packages / "velocitune_core"
    assert (tmp_path / "work/velocitune_core").resolve() == package.resolve()
    assert (tmp_path / "work/flows").resolve() == (package / "template/flows").resolve()
    assert (tmp_path / "work/params.yaml").read_text() == (PROJECT / "params.yaml").read_text()
