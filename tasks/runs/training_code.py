"""Identity of the code that trains: a hash of each file of the wings that a run executes.

Comments, docstrings and layout are left out, as they change no result.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import velocitune_core
from velocitune_core.strategies import strategy_file

TRAINING_WINGS = (  # of the core; of the strategies, each run executes its own
    "checkpoint", "config", "contracts", "data", "evaluation", "files", "mixture", "model", "parallel", "train",
    "velocity",
)  # fmt: skip


def training_code(strategy: str) -> dict[str, str]:
    """Return the SHA-256 of each file that a run under a strategy executes, by its path.

    Another strategy may change, or be added, without a run of this one being made by other code.
    """
    root = Path(str(velocitune_core.__file__)).parent
    files = [file for wing in TRAINING_WINGS for file in [root / f"{wing}.py", *(root / wing).rglob("*.py")]]
    files += [root / "strategies/base.py", strategy_file(strategy)]
    return {_name(file, root): _digest_of(file) for file in sorted(files) if file.exists()}


def changed_files(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the paths that were added, removed or changed."""
    return sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))


def code_digest(source: str) -> str:
    """Return the SHA-256 of Python source without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [each for each in node.body if not _is_text(each)]
    return sha256(ast.unparse(tree).encode()).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a bare string: a docstring, or one below a field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _name(file: Path, root: Path) -> str:
    for folder in (root.parent, Path.cwd()):
        if file.is_relative_to(folder):
            return str(file.relative_to(folder))
    return str(file)


def _digest_of(file: Path) -> str:
    fact = file.stat()
    return _digest(file, fact.st_size, fact.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest(file: Path, size_bytes: int, changed_nanoseconds: int) -> str:
    return code_digest(file.read_text(encoding="utf-8"))
