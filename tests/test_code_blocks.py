"""Every code block of README and docs: Python is run, settings are read, commands exist with their options."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import result_samples
import yaml
from docs_pages import PROJECT, Block, blocks, blocks_of, commands, shell_blocks
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser

from tasks.workspace import paths
from tasks.workspace.params_file import overridden_text, parse_override
from tasks.workspace.stage_cli import run_pipeline
from velocitune_core import design_swarm
from velocitune_core.cli.command import take_workspace
from velocitune_core.cli.commands import BY_NAME, PIPELINE, PROGRAM
from velocitune_core.config import parse_params
from velocitune_core.export import DataSizes, DomainSize
from velocitune_core.export.options import parser as export_parser
from velocitune_core.export.sizes import read_counts
from velocitune_core.fit.command import main as fit
from velocitune_core.fit.command import parser as fit_parser

ELSEWHERE = {  # pages whose Python is run, with all that it needs, by a test of its own
    "DOWNSTREAM.md": "tests/tasks/stages/test_tasks_downstream.py",
    "README.md": "tests/helpers/trainer_program.py",
}
OF_THEIR_OWN = {
    "README.md",
    "FIT.md",
    "EXPORT.md",
}  # pages whose YAML is not of params.yaml alone
PROGRAMS = {"caps=$(for", "cd", "echo", "mv", "pip", "prefect", "ray", "rm", "source", "torchrun"}  # not looked into


def runs_of_a_swarm() -> dict[str, Any]:
    """Weights and losses as a reader of docs/OBJECTIVE.md has them after training the swarm."""
    swarm = design_swarm({"code": 0.5, "law": 0.3, "web": 0.2}, runs=12)
    weights = {name: np.array([mixture[name] for mixture in swarm]) for name in swarm[0]}
    return {"weights": weights, "losses": {name: 1.5 + (1 + 6 * share) ** -0.4 for name, share in weights.items()}}


def results_of_a_run() -> dict[str, Any]:
    """No names: what a finished run leaves in a workspace, in the current folder."""
    result_samples.train().write(paths.TRAIN)
    result_samples.manifest().write(paths.MANIFEST)
    return {}


def a_loop() -> dict[str, Any]:
    """What a reader of docs/OWN_LOOP.md has: model, data and labels."""
    from loop_of_docs import yours

    return yours()


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {  # names that a page begins with, and files
    "OBJECTIVE.md": runs_of_a_swarm,
    "EXPORT.md": results_of_a_run,
    "OWN_LOOP.md": a_loop,
}


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("python")}), ids=lambda page: page.name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after the other, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names = GIVEN.get(page.name, dict)()
    names["__name__"] = "example"
    for block in (each for each in blocks_of(page) if each.language == "python"):
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        if page.name not in ELSEWHERE:
            exec(code, names)


def test_what_is_run_elsewhere_is_named_there() -> None:
    for page, test in ELSEWHERE.items():
        for block in (each for each in blocks("python") if each.page.name == page):
            tested = (PROJECT / test).read_text(encoding="utf-8")
            imported = re.findall(r"^from [\w.]+ import ([\w, ]+)", block.text, flags=re.MULTILINE)
            names = {name.strip() for line in imported for name in line.split(",")}
            assert page in tested or [name for name in names if name not in tested] == [], block


@pytest.mark.parametrize("block", [b for b in blocks("yaml") if b.page.name not in OF_THEIR_OWN], ids=str)
def test_settings_of_the_docs_are_accepted(block: Block) -> None:
    def merged(tree: Any, shown: Any) -> Any:
        if not isinstance(tree, dict) or "name" in shown:  # of a strategy, whose options are its own
            return shown
        return tree | {name: merged(tree.get(name), value) for name, value in shown.items()}

    parse_params(merged(yaml.safe_load((PROJECT / "params.yaml").read_text()), yaml.safe_load(block.text)))


def test_the_table_and_the_objective_of_the_page_on_fits_give_weights(tmp_path: Path) -> None:
    page = PROJECT / "docs/FIT.md"
    (table,) = (block.text for block in blocks_of(page) if block.text.startswith("run,"))
    (objective,) = (block.text for block in blocks_of(page) if block.language == "yaml")
    (tmp_path / "runs.csv").write_text(table)
    (tmp_path / "objective.yaml").write_text(objective)
    files = [str(tmp_path / "runs.csv"), "--objective", str(tmp_path / "objective.yaml"), "--out", str(tmp_path)]
    assert fit([*files, "--bootstrap", "4"]) == 0


def test_the_counts_of_the_page_on_exports_are_read(tmp_path: Path) -> None:
    (counts,) = (block.text for block in blocks_of(PROJECT / "docs/EXPORT.md") if block.language == "yaml")
    (tmp_path / "counts.yaml").write_text(counts)
    found = read_counts(tmp_path / "counts.yaml")
    assert found == DataSizes(
        {"code": DomainSize(3_000_000_000, 2_500_000), "web": DomainSize(40_000_000_000, 30_000_000)}, 4096
    )


@pytest.mark.parametrize("block", shell_blocks(), ids=str)
def test_commands_can_be_given(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=10)
    for command in commands(block):
        words = [word for word in command if not re.fullmatch(r"[A-Z_]+=.*", word)]  # variables before a command
        program, arguments = words[0], words[1:]
        if program == "python":
            check_python(arguments)
        elif program == "make":
            check_make(arguments)
        elif program == "dvc":
            check_dvc(arguments)
        elif program == "velocitune":
            check_velocitune(arguments)
        else:
            assert program in PROGRAMS, f"{program} is not known; add a check of it"


def check_python(arguments: list[str]) -> None:
    """A module or a file that exists, has the options, and accepts the settings."""
    if arguments[0] == "-m":
        module, options = arguments[1], arguments[2:]
        if not module.startswith(("flows.", "tasks.", "velocitune_core.")):
            assert module == "torch.distributed.run"
            return
        base = PROJECT / module.replace(".", "/")
        assert base.with_suffix(".py").is_file() or (base / "__main__.py").is_file(), module
        check_options(module.split(".")[0], options)
    else:
        file, options = PROJECT / arguments[0], arguments[1:]
        assert file.is_file(), file
        text = "".join(
            each.read_text(encoding="utf-8") for each in file.parent.glob("*.py")
        )  # and what it imports there
        named = [each[2:].removeprefix("no-") for each in options if each.startswith("--") and each != "--help"]
        assert [each for each in named if not re.search(f'"(--)?{each}"', text.replace("_", "-"))] == []


def check_options(package: str, options: list[str]) -> None:
    """Options that some command of the package has; settings that params.yaml, or that of a larger mixture, takes."""
    for option in (each.partition("=")[0] for each in options if each.startswith("--")):
        assert f'"{option}"' in sources(package), option
    given = [value for option, value in pairwise(options) if option in {"-S", "--set"}]
    if not (settings := dict(map(parse_override, given))):
        return
    sized = next((size for size in ("small", "medium") if f"--{size}" in options), None)
    parse_params(
        yaml.safe_load(overridden_text(settings, PROJECT / (f"large/{sized}.yaml" if sized else "params.yaml"))[0])
    )


@cache
def sources(package: str) -> str:
    """The text of a package; commands of flows are in tasks."""
    folders = {"flows": ("flows", "tasks")}.get(package, (package,))
    return "".join(path.read_text(encoding="utf-8") for name in folders for path in (PROJECT / name).rglob("*.py"))


def check_make(arguments: list[str]) -> None:
    target = re.compile(rf"^{re.escape(arguments[0])}:", flags=re.MULTILINE)
    assert target.search((PROJECT / "Makefile").read_text()), arguments[0]
    for name, value in (each.split("=", 1) for each in arguments[1:]):
        assert name in (PROJECT / "Makefile").read_text(), name
        if name == "SETTINGS":
            check_options("flows", shlex.split(value))


def check_dvc(arguments: list[str]) -> None:
    get_main_parser().parse_args(arguments)  # exits for a command that does not exist


def check_velocitune(arguments: list[str]) -> None:
    arguments = take_workspace(arguments)[1]
    if arguments[0] in {"--help", "--version"}:
        return
    assert arguments[0] in BY_NAME, arguments[0]
    command, options = BY_NAME[arguments[0]], [*BY_NAME[arguments[0]].arguments, *arguments[1:]]
    if command.name == "fit":
        fit_parser().parse_args(options)
    elif command.name == "export":
        export_parser().parse_args(options)
    elif command.kind == PROGRAM:
        check_program(f"velocitune_core.{command.module}", options)
    elif command.kind == PIPELINE:
        check_program(command.module, options)
        check_options("flows", options)


def check_program(module: str, options: list[str]) -> None:
    """What the program's own parser accepts; it exits for all else. The program goes no further."""

    class Parsed(Exception):
        pass

    def parse_only(parser: ArgumentParser, arguments: list[str] | None = None) -> None:
        if parser.parse_known_args(arguments)[1]:
            parser.error("unknown options")
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArgumentParser, "parse_args", parse_only)
        patch.setattr(sys, "argv", [module, *options])
        for imported in (module, f"{module}.__main__"):  # by another test: a program is run anew
            if imported.partition(".")[2] and not hasattr(sys.modules.get(imported), "__path__"):
                patch.delitem(sys.modules, imported, raising=False)
        with pytest.raises(Parsed):
            if module == "flows.pipeline":  # as it ends, without all that it imports
                run_pipeline(list, {})
            runpy.run_module(module, run_name="__main__", alter_sys=True)


def test_the_checks_fail_where_they_should() -> None:
    for wrong in (["-m", "flows.nothing"], ["-m", "flows.plan", "--nothing"], ["benchmarks/simulate.py", "--nothing"]):
        with pytest.raises(AssertionError):
            check_python(wrong)
    with pytest.raises(ValueError, match=r"training\.nothing"):
        check_python(["-m", "flows.pipeline", "-S", "training.nothing=1"])
    for wrong in (["train", "--nothing"], ["train"], ["plan", "--fresh"], ["run", "--no-probe"], ["init", "a", "b"]):
        with pytest.raises(SystemExit, match="2"):
            check_velocitune(wrong)
    with pytest.raises(AssertionError):
        check_velocitune(["nothing"])
    for wrong in (["--to", "nothing"], ["--to", "json", "--nothing"]):
        with pytest.raises(SystemExit):
            check_velocitune(["export", *wrong])
    with pytest.raises(AssertionError):
        check_make(["nothing"])
    with pytest.raises(DvcParserError):
        check_dvc(["nothing"])
