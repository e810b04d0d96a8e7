"""The hash of the code that trains: blind to text for people, and to nothing else."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from velocitune_core.training_code import changed_files, code_digest, training_code

SOURCE = '''
"""A module."""

RATE = 0.5  # of something


class Thing:
    """A thing."""

    field: int = 1
    """Below a field."""

    def act(self, x: float) -> float:
        """Do it."""
        return RATE * x
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', ""),
        ("  # of something", "  # other words"),
        ('"""A thing."""', '"""Another text."""'),
        ('    """Below a field."""\n', ""),
        ('        """Do it."""\n', ""),
        ("\n\n\nclass", "\n\n\n\n\nclass"),
    ],
)
def test_text_for_people_changes_nothing(old: str, new: str) -> None:
    assert old in SOURCE and code_digest(SOURCE.replace(old, new)) == code_digest(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.5", "0.25"), ("RATE * x", "x * RATE"), ("field: int = 1", "field: int = 2"), ("x: float", "x: int")],
)
def test_code_does(old: str, new: str) -> None:
    assert old in SOURCE and code_digest(SOURCE.replace(old, new)) != code_digest(SOURCE)


def test_runs_that_start_at_once_have_one_code() -> None:
    """In threads, which change while a source is parsed: where a collection of garbage runs code of Python."""
    source = "\n".join(f"def f{number}(a, b=1): return [a + {number}, b, (a, b)]" for number in range(200))
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.callbacks.append(busy := lambda *_: [None for _ in range(20)])
    try:
        gc.set_threshold(50)
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(4) as threads:
            assert len(set(threads.map(code_digest, [source] * 8))) == 1
    finally:
        gc.callbacks.remove(busy)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)


def test_the_hash_is_the_same_under_every_python() -> None:
    """As computed by Python 3.11, 3.12 and 3.14, of which `ast.unparse` quotes f-strings in different ways."""
    source = """def line(name, width):
    return f"{name!r:>{width}} isn't \\"{', '.join(name)}\\" é"
"""
    assert code_digest(source) == "ebc01d540b84828916d035f4192a5d582e2cd4fab17137dec69fa9708e71e429"


def test_a_run_has_the_code_of_its_own_strategy() -> None:
    static, velocitune = training_code("static"), training_code("velocitune")
    assert changed_files(static, velocitune) == [
        "velocitune_core/strategies/static.py",
        "velocitune_core/strategies/velocitune.py",
    ]
    assert {"velocitune_core/train/trainer.py", "velocitune_core/mixture/sampler.py"} <= static.keys()
    assert not any("/plan/" in path or "/report/" in path for path in static)


def test_an_edit_while_the_process_lives_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "ours_edited.py"
    file.write_text("from velocitune_core.strategies import Strategy\nclass Mine(Strategy):\n    RATE = 1\n")
    before = training_code("ours_edited:Mine")
    assert before["ours_edited.py"]
    file.write_text(file.read_text().replace("RATE = 1", "RATE = 20"))
    assert changed_files(before, training_code("ours_edited:Mine")) == ["ours_edited.py"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write a file of the user's own package into the working folder; what another test imported is forgotten."""
    for name in [each for each in sys.modules if each.partition(".")[0] == PACKAGE]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / PACKAGE
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep/__init__.py").write_text("DEPTH = 1\n")
    (package / "deep/rates.py").write_text("RATE = 1\n")
    (package / "helper.py").write_text("from .deep.rates import RATE\n")
    (package / "lazy.py").write_text("LATE = 1\n")
    (package / "other.py").write_text("UNUSED = 1\n")
    (package / "mixin.py").write_text("class Mixin:\n    EXTRA = 1\n")
    (package / "mine.py").write_text(MINE)
    return lambda file: package / file


PACKAGE = "ours_with_helpers"
MINE = f"""
import abc
import numpy
import {PACKAGE}.helper
from velocitune_core.strategies.velocitune import Velocitune
from {PACKAGE}.mixin import Mixin
class Mine(Velocitune, Mixin, abc.ABC):
    def update(self, observation):
        from . import lazy
        return super().update(observation)
"""


def test_a_strategy_of_the_users_own_is_its_bases_and_all_that_it_imports(own: Callable[[str], Path]) -> None:
    added = training_code(f"{PACKAGE}.mine:Mine").keys() - training_code("static").keys()
    files = ("__init__", "mine", "mixin", "helper", "lazy", "deep/__init__", "deep/rates")
    assert added == {"velocitune_core/strategies/velocitune.py", *(f"{PACKAGE}/{file}.py" for file in files)}


@pytest.mark.parametrize("file", ["mine.py", "mixin.py", "helper.py", "lazy.py", "deep/rates.py", "deep/__init__.py"])
def test_an_edit_of_any_of_them_is_seen(own: Callable[[str], Path], file: str) -> None:
    before = training_code(f"{PACKAGE}.mine:Mine")
    own(file).write_text(own(file).read_text() + "EDITED = True\n")
    assert changed_files(before, training_code(f"{PACKAGE}.mine:Mine")) == [f"{PACKAGE}/{file}"]


def test_an_import_added_meanwhile_is_followed(own: Callable[[str], Path]) -> None:
    before = training_code(f"{PACKAGE}.mine:Mine")
    own("helper.py").write_text("from ours_with_helpers import other\n")
    changed = changed_files(before, training_code(f"{PACKAGE}.mine:Mine"))
    assert changed == [f"{PACKAGE}/{file}.py" for file in ("deep/__init__", "deep/rates", "helper", "other")]
