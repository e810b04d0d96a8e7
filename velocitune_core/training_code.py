"""Identity of the code that trains: a hash of each file of the wings that a run executes.

Comments, docstrings and layout are left out, as they change no result.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from importlib.util import resolve_name
from pathlib import Path
from threading import Lock

from pydantic import BaseModel, ConfigDict, ValidationError

import velocitune_core
from velocitune_core.evaluation.evaluation_job import EvaluationJob
from velocitune_core.files import write_text
from velocitune_core.strategies import strategy_modules
from velocitune_core.train.job import Job, TrainJob

TRAINING_WINGS = (  # of the core; of the strategies, each run executes its own
    "checkpoint", "config", "contracts", "data", "evaluation", "files", "mixture", "model", "parallel",
    "spelling", "train", "velocity",
)  # fmt: skip
EVALUATION_WINGS = ("config", "contracts", "data", "evaluation", "files", "model", "parallel", "spelling", "train")

_PARSING = Lock()  # runs start in threads, and Python 3.11 raises SystemError where two of them parse (cpython#106905)


def code_of(job: Job) -> dict[str, str]:
    """Return the SHA-256 of each file that a job executes, by its path."""
    return _digests(_files(EVALUATION_WINGS)) if isinstance(job, EvaluationJob) else training_code(job.strategy.name)


def code_of_all(jobs: Iterable[Job]) -> dict[str, str]:
    """Return the SHA-256 of each file that any of the jobs executes, by its path."""
    one_each = {isinstance(job, TrainJob) and job.strategy.name: job for job in jobs}  # all others execute the same
    return {path: digest for job in one_each.values() for path, digest in code_of(job).items()}


class Code(BaseModel):
    """code.json of a run folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    started: float  # seconds since the epoch, of the run's first start
    files: dict[str, str]  # path → SHA-256, of the last start


def read_code(folder: Path) -> Code | None:
    """Return code.json of a run folder; None if there is none that can be read."""
    try:
        return Code.model_validate_json((folder / "code.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def record_code(folder: Path, job: Job, started: float) -> None:
    """Write code.json of a run; the moment of an earlier start in this folder stays."""
    earlier = read_code(folder)
    code = Code(started=started if earlier is None else earlier.started, files=code_of(job))
    write_text(folder / "code.json", code.model_dump_json(indent=1))


def training_code(strategy: str) -> dict[str, str]:
    """Return the SHA-256 of each file that a run under a strategy executes, by its path.

    Of the strategies these are the files of its class and base classes, and those in the working folder that they
    import. Another strategy may change, or be added, without a run of this one being made by other code.
    """
    own = map(str, [_root() / "strategies/base.py", *_strategy_files(strategy)])
    return _digests([*_files(TRAINING_WINGS), *own])


def changed_files(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the paths that were added, removed or changed."""
    return sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))


def code_digest(source: str) -> str:
    """Return the SHA-256 of Python source without comments, docstrings and layout, the same under any Python."""
    tree = _parsed(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [each for each in node.body if not _is_text(each)]
    return sha256(_canonical(tree).encode()).hexdigest()


def _parsed(source: str) -> ast.Module:
    with _PARSING:
        return ast.parse(source)


def _root() -> Path:
    return Path(str(velocitune_core.__file__)).parent


def _files(wings: Iterable[str]) -> list[str]:
    """Return the files of some wings, as text, as every start looks at all: paths of pathlib take twice the time."""
    root, found = str(_root()), []
    for wing in wings:
        found.append(f"{root}/{wing}.py")
        for folder, _, names in os.walk(f"{root}/{wing}"):
            found += [f"{folder}/{name}" for name in names if name.endswith(".py")]
    return found


def _digests(files: Iterable[str]) -> dict[str, str]:
    folders = [f"{folder}{os.sep}" for folder in (_root().parent, Path.cwd())]
    found = {}
    for file in sorted(set(files)):
        with suppress(FileNotFoundError):
            fact = Path(file).stat()
            found[_name(file, folders)] = _digest(file, fact.st_size, fact.st_mtime_ns)
    return found


def _strategy_files(strategy: str) -> set[Path]:
    """Return the files of a strategy: of its class and base classes, and of what these import, directly or not."""
    found: dict[str, Path] = {}
    waiting = strategy_modules(strategy)
    while waiting:
        module, file = waiting.popitem()
        found[module] = file
        imported = ((each, _users_file(each)) for each in _imports(module, file))
        waiting.update((each, path) for each, path in imported if path is not None and each not in found)
    return set(found.values())


def _imports(module: str, file: Path) -> tuple[str, ...]:
    """Return the names that a module may import, also inside functions, each with the packages that it lies in."""
    fact = file.stat()
    return _imports_of(module, file, fact.st_size, fact.st_mtime_ns)


@lru_cache(maxsize=256)
def _imports_of(module: str, file: Path, size_bytes: int, changed_nanoseconds: int) -> tuple[str, ...]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(_parsed(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(package.split(".")) or (node.level and not package):
                continue  # would fail if it were executed
            start = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{start}.{alias.name}" for alias in node.names]  # a module, or a name in the module `start`
        for name in names:
            parts = name.split(".")
            found += (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return tuple(dict.fromkeys(found))


def _users_file(module: str) -> Path | None:
    """Return the file of a module in the working folder, or of a strategy of the registry; None for any other."""
    if module.partition(".")[0] == "velocitune_core":  # the other wings count as they are, or decide no weights
        file = Path(str(velocitune_core.__file__)).parents[1].joinpath(*module.split(".")).with_suffix(".py")
        return file if file.parent.name == "strategies" and file.exists() else None
    here = Path.cwd()
    loaded = getattr(sys.modules.get(module), "__file__", None)
    base = here.joinpath(*module.split("."))
    for file in [Path(loaded)] if loaded else [base.with_suffix(".py"), base / "__init__.py"]:
        inside = file.is_relative_to(here) and not {"site-packages", "dist-packages"} & set(file.parts)
        if inside and file.suffix == ".py" and file.exists():
            return file
    return None


def _canonical(part: object) -> str:
    """Return a part of a syntax tree as text. `ast.unparse` and `ast.dump` write one tree in other ways by version."""
    if isinstance(part, list):
        return f"[{','.join(map(_canonical, part))}]"
    if not isinstance(part, ast.AST):
        return ascii(part)
    given = ((name, value) for name, value in ast.iter_fields(part) if value is not None and value != [])
    return f"{type(part).__name__}({','.join(f'{name}={_canonical(value)}' for name, value in given)})"


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a bare string: a docstring, or one below a field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _name(file: str, folders: Iterable[str]) -> str:
    return next((file.removeprefix(folder) for folder in folders if file.startswith(folder)), file)


@lru_cache(maxsize=1024)
def _digest(file: str, size_bytes: int, changed_nanoseconds: int) -> str:
    return code_digest(Path(file).read_text(encoding="utf-8"))
