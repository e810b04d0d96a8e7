"""The hash of the code that trains: blind to text for people, and to nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.runs.training_code import changed_files, code_digest, training_code

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


def test_a_run_has_the_code_of_its_own_strategy() -> None:
    static, velocitune = training_code("static"), training_code("velocitune")
    assert changed_files(static, velocitune) == [
        "velocitune_core/strategies/static.py",
        "velocitune_core/strategies/velocitune.py",
    ]
    assert {"velocitune_core/train/trainer.py", "velocitune_core/mixture.py"} <= static.keys()
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
