"""What README and docs promise exists: commands, settings, files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_imports import CORE, TASKS

from velocitune_core.config import parse_params
from velocitune_core.contracts import Targets

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    """Code blocks of README in a language, without indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", README, flags=re.MULTILINE | re.DOTALL)
    return ["\n".join(line.removeprefix(indent) for line in text.splitlines()) for indent, text in found]


def commands() -> list[str]:
    lines = [
        line.partition("  ")[0].partition(" #")[0].strip() for block in blocks("bash") for line in block.splitlines()
    ]
    return [command for line in lines if line for command in line.split(" && ")]


def test_the_two_commands_of_a_fresh_machine() -> None:
    assert commands()[:2] == ["make demo", "make test"]
    assert "make check" in (PROJECT / ".ci/run").read_text()


@pytest.mark.parametrize("command", sorted({command for command in commands() if command.startswith("make ")}))
def test_make_targets_exist(command: str) -> None:
    subprocess.run(["make", "--dry-run", command.split()[1]], cwd=PROJECT, check=True, capture_output=True)


def test_settings_reach_the_comparison() -> None:
    given = ["make", "--dry-run", "compare", "SETTINGS=-S compare.seeds=[1]"]
    shown = subprocess.run(given, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    assert "python -m flows.pipeline --compare -S compare.seeds=[1]\n" in shown


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({" ".join(c.split()[:2]) for c in commands() if c.split()[0] == "prefect"}))
def test_programs_know_the_subcommands(command: str) -> None:
    program, subcommand = command.split()
    called = [sys.executable, "-m", program, subcommand, "--help"]
    assert subprocess.run(called, capture_output=True, check=False, timeout=60).returncode == 0


def test_modules_that_are_started_exist() -> None:
    modules = set(re.findall(r"-m ((?:flows|tasks|velocitune_core)(?:\.\w+)+)", "".join(p.read_text() for p in PAGES)))
    assert {"flows.pipeline", "velocitune_core.train"} <= modules
    for module in modules:
        base = PROJECT / module.replace(".", "/")
        assert base.with_suffix(".py").exists() or (base / "__main__.py").exists(), module


def test_the_deployment_exists() -> None:
    deployments = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    assert all(f"deployment run velocitune/{name}" in README for name in ("local", "compare"))
    assert [each["name"] for each in deployments] == ["local", "compare"]


@pytest.mark.parametrize("block", blocks("yaml"))
def test_settings_are_accepted(block: str) -> None:
    tree = yaml.safe_load((PROJECT / "params.yaml").read_text())
    shown = yaml.safe_load(block)
    for section, values in shown.items():
        tree[section] = values if section == "domains" else {**tree[section], **values}
    parse_params(tree)


def test_targets_by_hand_are_accepted() -> None:
    (example,) = re.findall(r"`(\{\"domains\".*?\}\})`", README)
    assert Targets.model_validate_json(example).losses() == {"code": 2.1}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_programs_are_installed() -> None:
    folder = str(Path(sys.executable).parent)
    assert [name for name in ("torchrun", "dvc", "prefect", "mlflow") if not shutil.which(name, path=folder)] == []


def reachable(arrows: set[tuple[str, str]], start: str) -> set[str]:
    """Return all names that arrows lead to from `start`."""
    found: set[str] = set()
    todo = {start}
    while todo:
        todo = {there for here, there in arrows if here in todo} - found
        found |= todo
    return found


def test_the_picture_of_the_architecture_is_the_table_of_imports() -> None:
    (picture,) = re.findall(r"```mermaid\n(.*?)```", (PROJECT / "docs/ARCHITECTURE.md").read_text(), flags=re.DOTALL)
    drawn = set(re.findall(r"^    (?:\w+\[)?(\w+)\]? --> (\w+)$", picture, flags=re.MULTILINE))
    method = ("velocity", "mixture", "mixture_law", "targets", "planned_weights", "scaling_law", "strategies")
    boxes = dict.fromkeys(method, "method")
    table = {
        (boxes.get(wing, wing), boxes.get(below, below))
        for wings in (CORE, TASKS)
        for wing, names in wings.items()
        for below in names.split()
    }
    allowed = {(here, there) for here, there in table if here != there}
    assert drawn <= allowed
    assert [(here, there) for here, there in sorted(allowed) if there not in reachable(drawn, here)] == []


def test_the_tests_that_the_page_on_reliability_names_exist() -> None:
    page = (PROJECT / "docs/RELIABILITY.md").read_text(encoding="utf-8")
    missing = []
    file = Path()
    for name, test in re.findall(r"`([\w/]*(?:test_\w+\.py))?(?:::(test_\w+))?`", page):
        if name:
            folder = "" if "/" in name or name == "test_imports.py" else "faults"
            file = PROJECT / "tests" / folder / name
        if (name or test) and not (file.exists() and f"def {test or ''}" in file.read_text(encoding="utf-8")):
            missing.append(f"{file.relative_to(PROJECT)}::{test}")
    assert missing == []
