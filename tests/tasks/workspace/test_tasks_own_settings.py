"""The settings of a workspace return if a command with overrides does not finish. Commands are processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from trainings import wait_for

from tasks.workspace import command_end, paths
from tasks.workspace.command_end import command_ended, when_command_ends
from tasks.workspace.lock import exclusive
from tasks.workspace.own_settings import keep_own_settings
from tasks.workspace.params_file import override_params
from tasks.workspace.signals import end_on_signals
from tasks.workspace.stage_cli import command_line, parse
from velocitune_core.config import ConfigError
from velocitune_core.files import write_text

FORK = multiprocessing.get_context("fork")
PROJECT = Path(__file__).parents[3]


@pytest.fixture
def own(workspace: Path) -> bytes:
    """What params.yaml of a workspace holds."""
    content = (PROJECT / "tests/miniature.yaml").read_bytes() + b"# mine: \xc3\xa4\n"
    paths.PARAMS.write_bytes(content)
    return content


def command(work: Callable[[], object]) -> None:
    """What a pipeline does with overrides, of the command line and of the flow."""
    end_on_signals()
    with exclusive():
        override_params({"training.seed": 7})
        override_params({"training.token_budget": 1_000_000})
        Path("runs-now").touch()
        work()
    os._exit(0)  # without the exit functions of the process that it was forked from


def fail() -> None:
    raise RuntimeError("no such luck")


def refuse() -> None:
    raise ConfigError("training.token_budget: less than one step")


def after(work: Callable[[], object], number: signal.Signals | None = None) -> bytes:
    """Run a command to its end, and return what params.yaml holds."""
    process = FORK.Process(target=command, args=(work,))
    process.start()
    if number is not None:
        wait_for(Path("runs-now").exists, 60)
        os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode is not None
    return paths.PARAMS.read_bytes()


@pytest.mark.parametrize(
    ("work", "number"), [(signal.pause, signal.SIGINT), (signal.pause, signal.SIGTERM), (fail, None)]
)
def test_a_command_that_is_stopped_or_fails_leaves_the_settings_as_they_were(
    own: bytes, work: Callable[[], object], number: signal.Signals | None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert after(work, number) == own
    assert "settings of this run are taken back" in capfd.readouterr().err
    assert not paths.OWN_SETTINGS.exists()


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (refuse, "settings of this run are taken back, as they are refused\n"),
        (
            fail,
            "settings of this run are taken back, as it did not finish; the same command, or a deployment with the ",
        ),
    ],
)
def test_a_run_whose_settings_are_unusable_is_not_said_to_go_on(
    own: bytes, work: Callable[[], object], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert after(work) == own
    shown = capfd.readouterr().err
    assert said in shown and shown.count("taken back") == 1


def test_a_command_that_finishes_leaves_the_settings_that_made_its_results(own: bytes) -> None:
    overridden = after(int)
    assert b"seed: 7" in overridden and b"token_budget: 1000000" in overridden and not paths.OWN_SETTINGS.exists()
    with exclusive():
        assert paths.PARAMS.read_bytes() == overridden


def test_after_a_kill_the_next_command_puts_them_back_but_for_an_edit(
    own: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overridden = after(signal.pause, signal.SIGKILL)
    assert b"seed: 7" in overridden
    monkeypatch.setenv("DVC_STAGE", "train")  # DVC has read the file already
    with pytest.raises(RuntimeError), exclusive():
        assert paths.PARAMS.read_bytes() == overridden
        fail()
    monkeypatch.delenv("DVC_STAGE")
    with exclusive():
        assert paths.PARAMS.read_bytes() == own
    assert "settings of a run that was killed are taken back" in capsys.readouterr().err
    Path("runs-now").unlink()
    paths.PARAMS.write_bytes(after(signal.pause, signal.SIGKILL) + b"# and now this\n")
    with exclusive():
        assert paths.PARAMS.read_bytes() == own + b"# and now this\n"
    assert "taken back, as it did not finish; what was edited meanwhile stays; " in capsys.readouterr().err
    assert not paths.OWN_SETTINGS.exists()


def edit(old: str, new: str) -> None:
    text = paths.PARAMS.read_bytes().decode()
    assert old in text
    paths.PARAMS.write_bytes(text.replace(old, new).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("every_steps: 12", "every_steps: 6   # mine"),
        ("  batch_sequences: 16\n  precision", "  batch_sequences: 8\n  precision"),  # the line after an override
        ("training:\n  token_budget: 1000000\n", "# a note\ntraining:   # and another\n  token_budget: 1000000\n"),
        ("# mine", "strategy2: {}\n# yours"),
    ],
)
def test_overrides_are_taken_back_in_a_file_that_was_edited_during_the_run(
    own: bytes, capfd: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    def edit_and_fail() -> None:
        edit(old, new)
        fail()

    found = after(edit_and_fail).decode()
    before = (old.replace("1000000", "null"), new.replace("1000000", "null"))
    assert found == own.decode().replace(*before)
    assert "what was edited meanwhile stays" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("token_budget: 1000000", "token_budget: 500", None),  # edited itself
        (
            "token_budget: 1000000",
            "'token_budget': 1000000",
            "this run, training.token_budget: 1000000 could not be",
        ),
        (
            "training:",
            "training: [",
            "training.token_budget: 1000000, training.seed: 7 could not be taken",
        ),
    ],
)
def test_an_override_that_cannot_be_taken_back_is_named(
    own: bytes, capfd: pytest.CaptureFixture[str], old: str, new: str, said: str | None
) -> None:
    def edit_and_fail() -> None:
        edit(old, new)
        fail()

    found, shown = after(edit_and_fail).decode(), capfd.readouterr().err
    assert new in found and ("seed: 7" in found) == ("[" in new)
    assert said in shown if said else "could not" not in shown


def test_lines_that_overrides_removed_return_and_those_that_they_added_go(own: bytes) -> None:
    def override_edit_and_fail() -> None:
        override_params({"strategy.name": "planned", "strategy.options": {}, "resources.threads": 1})
        edit("every_steps: 12", "every_steps: 6")
        fail()

    assert after(override_edit_and_fail) == own.replace(b"every_steps: 12", b"every_steps: 6")


def left_by_a_kill(overridden: str = "seed: 2\n") -> None:
    keep_own_settings(overridden)
    write_text(paths.PARAMS, overridden)
    command_end._actions.clear()


def test_once_a_stage_of_dvc_has_finished_the_settings_of_its_results_stay(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.PARAMS.write_text("seed: 1\n")
    left_by_a_kill()
    monkeypatch.setenv("DVC_STAGE", "train")
    with exclusive():
        assert paths.PARAMS.read_text() == "seed: 2\n"
    monkeypatch.delenv("DVC_STAGE")
    with exclusive():
        assert paths.PARAMS.read_text() == "seed: 2\n"


@pytest.mark.parametrize("dvc", [False, True])
def test_settings_of_a_killed_command_return_before_the_next_one_reads_any(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, dvc: bool
) -> None:
    paths.PARAMS.write_text("seed: 1\n")
    left_by_a_kill()
    if dvc:  # which has read them
        monkeypatch.setenv("DVC_STAGE", "train")
    parse(command_line("plan"), [])
    assert (paths.PARAMS.read_text(), paths.OWN_SETTINGS.exists()) == (f"seed: {2 if dvc else 1}\n", dvc)


def test_neither_a_closed_terminal_nor_a_failing_view_hinders_the_rest_of_an_end(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def write(self, _: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    paths.PARAMS.write_text("seed: 1\n")
    when_command_ends(lambda _: fail())
    keep_own_settings("seed: 2\n")
    paths.PARAMS.write_text("seed: 2\n")
    when_command_ends(lambda _: Path("closed").touch())
    monkeypatch.setattr("sys.stderr", Gone())
    command_ended("stopped")
    assert paths.PARAMS.read_text() == "seed: 1\n" and not paths.OWN_SETTINGS.exists() and Path("closed").exists()
