"""A wrong option is named under the sub-command it was given to, with the option or choice it is most like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from velocitune_core.cli.commands import COMMANDS

PROJECT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace without params.yaml: arguments are looked at before anything else."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("flows", "tasks", "velocitune_core"):
        (folder / name).symlink_to(PROJECT / name)
    return folder


def error(folder: Path, *arguments: str) -> str:
    """The last line that the command writes when it refuses its arguments."""
    command = [sys.executable, "-P", "-m", "velocitune_core.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("command", [each.name for each in COMMANDS])
def test_every_sub_command_names_itself_and_a_wrong_option(folder: Path, command: str) -> None:
    line = error(folder, command, "--bogus")
    assert line.startswith(f"velocitune {command}: error: ") and "--bogus" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--frsh"], "velocitune run: error: unrecognized arguments: --frsh (did you mean --fresh?)"),
        (["plan", "--noprobe=1", "x"], "plan: error: unrecognized arguments: --noprobe (did you mean --no-probe?) x"),
        (["fit", "--lwa"], "fit: error: the following arguments are required: CSV; there is no option --lwa"),
        (["fit", "runs.csv", "--law", "bimx"], "(choose from 'transfer', 'loglinear', 'bimix', 'auto'); did you mean "),
        (["export", "--to", "olmo"], "'trl', 'json'); did you mean olmo-core?"),
        (["export", "--to", "xyz"], "'trl', 'json')"),
        (["--verion"], "velocitune: there is no option '--verion' before the command (did you mean --version?); opt"),
        (
            ["-S", "a=1", "run"],
            "velocitune: there is no option '-S' before the command; options follow it: velocitune ",
        ),
    ],
)
def test_what_was_meant_is_named(folder: Path, arguments: list[str], message: str) -> None:
    assert message in error(folder, *arguments)


@pytest.mark.parametrize(
    ("argument", "command"),
    [
        ("CSV", "fit LONG"),
        ("--objective", "fit runs.csv --objective LONG"),
        ("--out", "fit runs.csv --out out/LONG"),
        ("--out", "export --to olmo-core --out LONG"),
        ("--from", "export --to olmo-core --from LONG"),
        ("--manifest", "export --to olmo-core --manifest LONG"),
        ("job", "train LONG"),
        ("--all", "train --all LONG"),
        ("DIR", "init LONG"),
        ("--workspace", "plan --workspace LONG"),
        ("--workspace", "export --to olmo-core --workspace LONG"),
    ],
)
def test_a_path_that_no_file_can_have_is_refused_by_argument(folder: Path, argument: str, command: str) -> None:
    line = error(folder, *command.replace("LONG", "x" * 300).split())
    assert argument in line and len(line) < 200
    assert line.endswith("...xxxxxxxxxxxxx' cannot be a path: a name in it has 300 bytes; give one of at most 255")


@pytest.mark.parametrize(
    ("module", "argument", "given"),
    [("jobs", "--to", ["--to", "LONG"]), ("collect", "FOLDER", ["LONG"]), ("downstream", "MODEL_FOLDER", ["LONG"])],
)
def test_so_it_is_by_a_flow(folder: Path, module: str, argument: str, given: list[str]) -> None:
    command = [sys.executable, "-m", f"flows.{module}", *("x" * 300 if each == "LONG" else each for each in given)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert f"error: argument {argument}: 'xxx" in done.stderr and "Traceback" not in done.stderr


def test_every_argument_that_is_a_path_is_checked_so() -> None:
    sources = [each for name in ("velocitune_core", "tasks", "flows") for each in (PROJECT / name).rglob("*.py")]
    assert [str(each) for each in sources if "type=Path" in each.read_text(encoding="utf-8")] == []
