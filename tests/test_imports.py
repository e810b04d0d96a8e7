"""Who may import whom, and that every stage of DVC watches the code it runs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from velocitune_core.strategies import REGISTRY

PROJECT = Path(__file__).parents[1]
PACKAGES = ("velocitune_core", "tasks", "flows")
FILES = {"inputs/dvc.yaml": ("corpus", "base"), "comparison/dvc.yaml": ("compare",)}  # the others are in dvc.yaml
STAGES = ("corpus", "base", "prepare", "initial", "proxies", "targets", "train", "report", "compare")
TRAININGS = ("base", "proxies", "train", "compare")  # these start the training program, which no import shows

EMPTY = {"velocitune_core/__init__.py"}  # code that a stage may reach and need not watch
ALL_STRATEGIES = {address.partition(":")[0] for address in REGISTRY.values()}  # no import shows these
STATIC = {"velocitune_core.strategies.constant"}
STRATEGIES_RUN = {"base": STATIC, "proxies": STATIC, "train": ALL_STRATEGIES, "compare": ALL_STRATEGIES}
# The rest of tasks (tracking, watchers, artifacts, devices, …) is plumbing that changes no result.
BORROWED = {  # through `initial_weights` of tasks.jobs, and through tasks.downstream
    "report": {"velocitune_core.mixture"},
    "compare": {"velocitune_core.downstream", "velocitune_core.downstream_tasks"},
}


def modules(package: str) -> list[str]:
    """Dotted names of all modules of a package."""
    files = sorted((PROJECT / package).rglob("*.py"))
    return [".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__") for file in files]


def file_of(module: str) -> Path | None:
    """The project's file behind a module; None for anything that is not ours."""
    base = PROJECT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imports(module: str, *, typing_too: bool = True) -> set[str]:
    """What a module imports anywhere in it, functions included; `from a import b` gives both `a` and `a.b`."""
    file = file_of(module)
    assert file is not None, module
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in walk(tree, typing_too):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}:{node.lineno}: a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def walk(tree: ast.AST, typing_too: bool) -> Iterator[ast.AST]:
    """Every node, without those under `if TYPE_CHECKING:` unless wanted."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing_too:
            continue
        yield node
        yield from walk(node, typing_too)


def ours(names: Iterable[str]) -> set[str]:
    """Modules of the project among the names, with the packages that importing them runs."""
    found: set[str] = set()
    for name in names:
        if name.split(".")[0] in PACKAGES and file_of(name) is not None:
            parts = name.split(".")
            found |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return found


def reachable(start: Iterable[str], within: tuple[str, ...] = PACKAGES) -> set[str]:
    """Modules of the project that run when these are imported and their functions called."""
    seen: set[str] = set()
    todo = list(start)
    while todo:
        module = todo.pop()
        if module in seen or module.split(".")[0] not in within:
            continue
        seen.add(module)
        todo += ours(imports(module, typing_too=False))
    return seen


def top_level(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("module", modules("velocitune_core"))
def test_core_knows_nothing_of_what_runs_it(module: str) -> None:
    assert top_level(imports(module)) & {"prefect", "mlflow", "dvc", "tasks", "flows"} == set()


@pytest.mark.parametrize("module", modules("tasks"))
def test_tasks_never_import_flows(module: str) -> None:
    assert "flows" not in top_level(imports(module))


@pytest.mark.parametrize("module", modules("flows"))
def test_flows_take_only_types_and_settings_from_the_core(module: str) -> None:
    allowed = {"velocitune_core.config", "velocitune_core.contracts", "velocitune_core.corpora"}
    reached = ours(imports(module)) - {"velocitune_core"}
    assert {name for name in reached if name.startswith("velocitune_core.")} <= allowed
    if "velocitune_core.corpora" in reached:  # of it the registry only
        assert {name for name in imports(module) if name.startswith("velocitune_core.corpora.")} == {
            "velocitune_core.corpora.EMBEDDED"
        }


@pytest.mark.parametrize(
    "module",
    [
        "velocitune_core.velocity",
        "velocitune_core.scaling_law",
        "velocitune_core.mixture",
        *modules("velocitune_core/strategies"),
    ],
)
def test_the_method_needs_no_torch(module: str) -> None:
    found = {name for each in reachable([module]) for name in top_level(imports(each))}
    assert found & {"torch", "transformers", "tokenizers", "datasets", "safetensors"} == set()


def stage(name: str) -> dict[str, list[str]]:
    file = next((file for file, names in FILES.items() if name in names), "dvc.yaml")
    return yaml.safe_load((PROJECT / file).read_text(encoding="utf-8"))["stages"][name]


def watched(name: str) -> set[str]:
    """Python files among a stage's dependencies; a folder stands for all in it."""
    found: set[str] = set()
    for dep in stage(name)["deps"]:
        path = PROJECT / dep
        if dep.startswith(PACKAGES):
            assert path.exists(), f"stage {name} watches {dep}, which does not exist"
            found |= {str(file.relative_to(PROJECT)) for file in ([path] if path.is_file() else path.rglob("*.py"))}
    return {file for file in found if file.endswith(".py")}


def run_by(name: str) -> set[str]:
    """Files of the core that a stage runs: what its tasks import of it, and the training program if they start it."""
    start = ours(imports(f"tasks.{name}", typing_too=False))
    if name in TRAININGS:
        start |= {"velocitune_core.train"} | ours(imports("tasks.jobs", typing_too=False)) | STRATEGIES_RUN[name]
    start |= BORROWED.get(name, set())
    files = (file_of(module) for module in reachable(start, within=("velocitune_core",)))
    return {str(file.relative_to(PROJECT)) for file in files if file is not None}


def test_every_stage_is_looked_at() -> None:
    elsewhere = {name for names in FILES.values() for name in names}
    for file, names in {"dvc.yaml": set(STAGES) - elsewhere, **FILES}.items():
        assert set(yaml.safe_load((PROJECT / file).read_text(encoding="utf-8"))["stages"]) == set(names)


@pytest.mark.parametrize("name", STAGES)
def test_the_code_of_the_core_that_a_stage_runs_is_among_its_dependencies(name: str) -> None:
    core = {file for file in watched(name) if file.startswith("velocitune_core/")}
    run = run_by(name) - EMPTY
    assert run - core == set(), f"stage {name} runs these, and DVC does not watch them"
    assert core - run - EMPTY == set(), f"DVC watches these, and stage {name} does not run them"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_watches_its_flow_and_the_tasks_that_decide_its_result(name: str) -> None:
    deciding = {f"tasks/{name}.py"}
    if name in TRAININGS:
        deciding |= {"tasks/jobs.py", "tasks/launch.py"}
    if name in {"train", "compare"}:
        deciding |= {"tasks/search.py"}
    if name == "compare":
        deciding |= {"tasks/downstream.py", "tasks/proxies.py"}
    if name in {"targets", "report"}:
        deciding |= {"tasks/jobs.py", "tasks/proxies.py"}  # token budget, original weights, which proxies there are
    outside_core = {file for file in watched(name) if not file.startswith("velocitune_core/")}
    assert outside_core == {f"flows/{name}.py", *deciding}


def test_templates_are_watched_by_the_stage_that_fills_them() -> None:
    templates = {str(path.relative_to(PROJECT)) for path in (PROJECT / "velocitune_core").rglob("*.jinja")}
    assert templates == {dep for name in ("report", "compare") for dep in stage(name)["deps"] if dep.endswith(".jinja")}


def test_stages_name_the_command_that_runs_their_flow() -> None:
    for name in STAGES:
        assert stage(name)["cmd"] == f"python -m flows.{name}"
