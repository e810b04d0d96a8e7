"""Who may import whom, and that every stage of DVC watches the code it runs: both by wing.

A wing is a folder of velocitune_core or of tasks, or a single file that lies in one of the two.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from velocitune_core.strategies import REGISTRY
from velocitune_core.training_code import EVALUATION_WINGS, TRAINING_WINGS

PROJECT = Path(__file__).parents[1]
PACKAGES = ("velocitune_core", "tasks", "flows")

# wing → the wings of the same package that it may import
CORE = {
    "spelling": "",
    "config": "files spelling",
    "files": "",
    "velocity": "",
    "mixture": "",
    "scaling_law": "",
    "in_words": "",
    "rounding": "",
    "mixture_law": "in_words mixture spelling",
    "contracts": "config files",
    "strategies": "spelling velocity",
    "targets": "config contracts scaling_law",
    "planned_weights": "contracts in_words mixture_law rounding",
    "own_loop": "mixture strategies",
    "integrations": "mixture own_loop",
    "data": "config contracts files",
    "model": "config files",
    "parallel": "",
    "checkpoint": "files parallel",
    "evaluation": "config contracts data files parallel",
    "train": "checkpoint config contracts data evaluation files mixture model parallel strategies",
    "training_code": "evaluation files strategies train",
    "preload": "parallel",
    "job_folder": "config contracts evaluation files model parallel preload style targets train training_code",
    "plan": "checkpoint config parallel train",
    "style": "in_words",
    "comparison": "contracts style",
    "export": "cli config contracts files rounding spelling style",
    "report": "comparison contracts export mixture_law planned_weights rounding scaling_law strategies style",
    "recipes": "files",
    "fit": "cli config contracts files mixture_law planned_weights report spelling style",
    "cli": "files spelling",  # starts the others by name
}
TASKS = {
    "workspace": "",
    "recipes": "workspace",
    "views": "workspace",
    "runs": "views workspace",
    "stages": "runs views workspace",
    "planning": "runs stages views workspace",
    "transfer": "planning runs stages workspace",
    "cleanup": "planning runs stages transfer workspace",
}
TEMPORARY: set[tuple[str, str]] = set()
METHOD = (
    "velocity",
    "in_words",
    "rounding",
    "mixture",
    "targets",
    "strategies",
    "scaling_law",
    "mixture_law",
    "planned_weights",
    "export",
    "own_loop",
    "config",
    "contracts",
    "files",
)
FLOWS_MAY = {"config", "contracts", "recipes"}  # of the core: settings, types, and the names of what is fetched

FILES = {  # the others are in dvc.yaml
    "inputs/corpus/dvc.yaml": ("corpus",),
    "inputs/base/dvc.yaml": ("base",),
    "comparison/dvc.yaml": ("compare",),
}
STAGES = ("corpus", "base", "prepare", "initial", "proxies", "targets", "weights", "train", "report", "compare")
PARTS = {"compare": ("comparison_report",)}  # further modules of a stage, which its flow calls
# These start the training program, which no import shows: to train, or to evaluate.
TRAININGS = ("base", "proxies", "weights", "train", "compare")
EVALUATIONS = ("initial",)

ALL_STRATEGIES = {address.partition(":")[0] for address in REGISTRY.values()}  # no import shows these
STATIC = {"velocitune_core.strategies.static"}
STRATEGIES_RUN = {"base": STATIC, "proxies": STATIC} | dict.fromkeys(("weights", "train", "compare"), ALL_STRATEGIES)
# What decides results in tasks/runs: jobs and how they run, token budget, precision.
RUNS_THAT_DECIDE = {
    f"tasks.runs.{module}" for module in ("budget", "evaluation_jobs", "jobs", "launch", "resolved_precision")
}
# The rest of tasks (`views`, `workspace`, …) is plumbing that changes no result.
BORROWED = {  # through tasks.runs: `jobs`, `swarm` and `own_targets`
    "report": {"velocitune_core.mixture"},
    "weights": {"velocitune_core.planned_weights"},
    "compare": {"velocitune_core.planned_weights", "velocitune_core.scaling_law", "velocitune_core.targets"},
}


def modules(package: str) -> list[str]:
    """Dotted names of all modules of a package."""
    files = sorted((PROJECT / package).rglob("*.py"))
    return [".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__") for file in files]


@cache
def file_of(module: str) -> Path | None:
    """The project's file behind a module; None for anything that is not ours."""
    base = PROJECT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def wing_of(module: str) -> str:
    """Name of a module's wing in its package; the empty name for the package itself."""
    return module.split(".")[1] if "." in module else ""


@cache
def imports(module: str, *, typing_too: bool = True) -> frozenset[str]:
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
    return frozenset(found)


def walk(tree: ast.AST, typing_too: bool) -> Iterator[ast.AST]:
    """Every statement, without those under `if TYPE_CHECKING:` unless wanted."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.expr):
            continue  # imports nothing
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


def crossing(package: str) -> set[tuple[str, str]]:
    """Imports from one wing of a package into another, as (importing module, imported module)."""
    found: set[tuple[str, str]] = set()
    for module in modules(package):
        if module != package:  # it gives its names when they are asked for
            reached = {name for name in imports(module) if name.startswith(f"{package}.") and file_of(name) is not None}
            deepest = {name for name in reached if not any(other.startswith(f"{name}.") for other in reached)}
            found |= {(module, name) for name in deepest if wing_of(name) != wing_of(module)}
    return found


@pytest.mark.parametrize(("package", "wings"), [("velocitune_core", CORE), ("tasks", TASKS)])
def test_wings_import_only_wings_below_them(package: str, wings: dict[str, str]) -> None:
    table = {wing: set(below.split()) for wing, below in wings.items()}
    assert {wing_of(module) for module in modules(package)} - {""} == set(table)
    list(TopologicalSorter(table).static_order())  # raises CycleError
    back = {(here, there) for here, there in crossing(package) if wing_of(there) not in table[wing_of(here)]}
    assert back == {arrow for arrow in TEMPORARY if arrow[0].startswith(f"{package}.")}


def test_core_knows_nothing_of_what_runs_it() -> None:
    above = {"prefect", "mlflow", "dvc", "tasks", "flows"}
    assert [module for module in modules("velocitune_core") if top_level(imports(module)) & above] == []


def test_tasks_never_import_flows() -> None:
    assert [module for module in modules("tasks") if "flows" in top_level(imports(module))] == []


@pytest.mark.parametrize("module", modules("flows"))
def test_flows_take_only_types_and_settings_from_the_core(module: str) -> None:
    reached = {name for name in ours(imports(module)) if name.startswith("velocitune_core.")}
    assert {wing_of(name) for name in reached} <= FLOWS_MAY
    names = {name for name in imports(module) if name.startswith("velocitune_core.recipes.")}
    assert names <= {
        "velocitune_core.recipes.embedded",
        "velocitune_core.recipes.embedded.EMBEDDED",
    }  # the registry only


def test_the_method_needs_no_torch() -> None:
    heavy = {"torch", "transformers", "tokenizers", "datasets", "safetensors"}
    method = [name for name in modules("velocitune_core") if wing_of(name) in {"", *METHOD}]
    assert [module for module in reachable(method) if top_level(imports(module)) & heavy] == []


def test_whether_packed_text_fits_is_seen_without_a_tokenizer() -> None:
    """Every command of the pipeline looks, and the libraries of models take seconds to import."""
    heavy = {"torch", "transformers", "tokenizers"}
    modules_run = reachable({"tasks.workspace.packed_data"})
    assert {name for each in modules_run for name in top_level(imports(each, typing_too=False))} & heavy == set()


def test_public_names_are_there_and_torch_is_not() -> None:
    code = (
        "import sys, velocitune_core as v; [getattr(v, name) for name in v.__all__]; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, timeout=60)


def test_a_command_imports_what_takes_seconds_only_once_it_is_used() -> None:
    code = (
        "import sys, flows.pipeline; slow = {'torch', 'transformers', 'mlflow', 'datasets', 'scipy.stats', "
        "'scipy.optimize'}; assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT, timeout=120)


def test_the_identity_of_a_training_covers_the_wings_that_train() -> None:
    run = reachable({"velocitune_core.train.__main__", *ALL_STRATEGIES}, within=("velocitune_core",))
    assert {wing_of(module) for module in run} - {"", "strategies"} == set(TRAINING_WINGS)
    assert len(TRAINING_WINGS) == len(set(TRAINING_WINGS))


def test_the_identity_of_an_evaluation_covers_the_wings_that_evaluate() -> None:
    run = reachable({"velocitune_core.train.evaluator"}, within=("velocitune_core",))
    assert {wing_of(module) for module in run} - {""} == set(EVALUATION_WINGS)


@cache
def stages_of(file: str) -> dict[str, dict[str, list[str]]]:
    return yaml.safe_load((PROJECT / file).read_text(encoding="utf-8"))["stages"]


def stage(name: str) -> dict[str, list[str]]:
    return stages_of(next((file for file, names in FILES.items() if name in names), "dvc.yaml"))[name]


def watched(name: str) -> set[str]:
    """Code among a stage's dependencies: wings, and files."""
    found = {dep for dep in stage(name)["deps"] if dep.startswith(tuple(f"{package}/" for package in PACKAGES))}
    for dep in found:
        assert (PROJECT / dep).exists(), f"stage {name} watches {dep}, which does not exist"
    return found


def stage_modules(name: str) -> set[str]:
    """The tasks of a stage, and those of other stages that they import."""
    own = {f"tasks.stages.{each}" for each in (name, *PARTS.get(name, ()))}
    imported = {each for module in own for each in ours(imports(module, typing_too=False))}
    return own | {each for each in imported if each.startswith("tasks.stages.")}


def run_by(name: str) -> set[str]:
    """Of the core, what a stage runs: what its tasks import, and the training program if they start it."""
    own = (
        stage_modules(name) if name == "compare" else {f"tasks.stages.{name}"}
    )  # others only read the proxies' results
    start = {each for module in own for each in ours(imports(module, typing_too=False))} | BORROWED.get(name, set())
    if name in TRAININGS:
        start |= {"velocitune_core.train.__main__"} | ours(imports("tasks.runs.jobs", typing_too=False))
        start |= STRATEGIES_RUN[name]
    if name in EVALUATIONS:
        start |= {"velocitune_core.train.evaluator"}
    return {unit(module, name) for module in reachable(start, within=("velocitune_core",)) if wing_of(module)}


def unit(module: str, name: str) -> str:
    """What a stage watches for a module: its wing, but of the strategies each its own, unless it may run all."""
    file = file_of(module)
    assert file is not None
    path = file.relative_to(PROJECT)
    if wing_of(module) == "strategies" and STRATEGIES_RUN.get(name) != ALL_STRATEGIES:
        return str(path)
    return "/".join(path.parts[:2])


def test_every_stage_is_looked_at() -> None:
    elsewhere = {name for names in FILES.values() for name in names}
    for file, names in {"dvc.yaml": set(STAGES) - elsewhere, **FILES}.items():
        assert set(stages_of(file)) == set(names)


@pytest.mark.parametrize("name", STAGES)
def test_the_wings_of_the_core_that_a_stage_runs_are_among_its_dependencies(name: str) -> None:
    core, run = {dep for dep in watched(name) if dep.startswith("velocitune_core/")}, run_by(name)
    assert run - core == set(), f"stage {name} runs these, and DVC does not watch them"
    assert core - run == set(), f"DVC watches these, and stage {name} does not run them"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_watches_its_flow_and_the_tasks_that_decide_its_result(name: str) -> None:
    deciding = {f"tasks/stages/{module.rpartition('.')[2]}.py" for module in stage_modules(name)}
    if RUNS_THAT_DECIDE & imports(f"tasks.stages.{name}", typing_too=False):
        deciding.add("tasks/runs")
    outside_core = {dep for dep in watched(name) if not dep.startswith("velocitune_core/")}
    assert outside_core == {f"flows/{name}.py", *deciding}
    assert name not in TRAININGS + EVALUATIONS or "tasks/runs" in outside_core


def test_templates_are_watched_by_the_stage_that_fills_them() -> None:
    templates = {path.relative_to(PROJECT) for path in (PROJECT / "velocitune_core").rglob("*.jinja")}
    assert len(templates) == 5
    for name in ("report", "compare"):
        assert [path for path in templates if not watched(name) & {str(each) for each in path.parents}] == []


def test_stages_name_the_command_that_runs_their_flow() -> None:
    for name in STAGES:
        assert stage(name)["cmd"] == f"python -m flows.{name}"


def test_what_python_compiles_makes_no_stage_stale() -> None:
    assert "__pycache__/" in (PROJECT / ".dvcignore").read_text(encoding="utf-8").splitlines()
