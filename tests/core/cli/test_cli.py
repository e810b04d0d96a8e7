"""The command `velocitune`: its help, what it refuses, and where its programs run."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import result_samples

from velocitune_core.cli import programs
from velocitune_core.cli.command import main, take_workspace
from velocitune_core.cli.commands import BY_NAME, COMMANDS, PACKAGES

PROJECT = Path(__file__).parents[3]


def velocitune(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder that nothing can be imported from."""
    command = [sys.executable, "-P", "-m", "velocitune_core.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_help_has_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for each in COMMANDS:
        assert f"\n  {each.name} " in text and each.summary in text
    assert all(len(line) < 110 for line in text.splitlines())
    assert main([]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["comapre"], "there is no command 'comapre'; did you mean compare?"),
        (["run", "--workspace"], "--workspace needs a folder"),
        (["bogus"], "there is no command 'bogus'; commands: fit, export,"),
        (["--workspace", "nowhere", "train", "job.json"], "there is no folder nowhere"),
        (["fit", "runs.csv", "--workspace", "w"], "`velocitune fit` has no --workspace; its paths are relative to"),
        (["export", "--to", "json", "--workspace", "w"], "is in w; give --from FILE or --workspace DIR"),
        (["plan"], "is no workspace. Make one with `velocitune init DIR`"),
    ],
)
def test_what_cannot_run_is_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_help_of_fit_and_export_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("fit", "export"):
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        text = capsys.readouterr().out
        assert text.count(f"\n  velocitune {name} ") >= 2
        assert name == "fit" or "or fit/weights.json" in " ".join(text.split())


def test_the_workspace_may_be_named_anywhere() -> None:
    expected = (Path("w"), ["run", "-S", "a=1"])
    assert take_workspace(["--workspace", "w", "run", "-S", "a=1"]) == expected
    assert take_workspace(["run", "--workspace=w", "-S", "a=1"]) == expected
    assert take_workspace(["run", "-S", "a=1", "--workspace", "w"]) == expected
    assert take_workspace(["run"]) == (None, ["run"])


def test_paths_of_an_export_are_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result_samples.train().write(Path("w/results/train.json"))
    assert main(["export", "--to", "json", "--workspace", "w", "--out", "mixture.json"]) == 0
    assert Path("mixture.json").is_file()


def test_a_folder_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert main(["plan"]) == 2
    assert "the current folder has been deleted" in capsys.readouterr().err


def test_the_training_program_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "velocitune_core").mkdir()
    for name in ("argparse.py", "velocitune_core/__init__.py"):
        (tmp_path / name).write_text("raise SystemExit('of something else')")
    shown = velocitune("train", "--help", folder=tmp_path)
    assert shown.returncode == 0 and "--accept-changes" in shown.stdout, shown.stderr
    assert shown.stdout.startswith("usage: velocitune train ") and "--workspace DIR" in shown.stdout


def test_packages_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda name: None if name in {"prefect", "torch"} else find_spec(name))
    assert main(["plan"]) == 2
    problem = capsys.readouterr().err
    assert "(prefect, torch)" in problem and "pip install 'velocitune[lab]'" in problem
    assert main(["train", "job.json"]) == 2
    assert "(torch)" in capsys.readouterr().err
    absent = {"pydantic", "yaml"}
    monkeypatch.setattr(programs, "find_spec", lambda name: None if name in absent else find_spec(name))
    for name in ("fit", "export"):
        assert main([name, "--help"]) == 2
        problem = capsys.readouterr().err
        assert "(pydantic, yaml)" in problem and "pip install 'velocitune'\n" in problem


def test_packages_and_modules_of_commands_exist() -> None:
    assert [name for names in PACKAGES.values() for name in names if find_spec(name) is None] == []
    for each in COMMANDS:
        assert find_spec(each.module if each.extra == "lab" else f"velocitune_core.{each.module}"), each


@pytest.mark.slow
def test_a_workspace_is_made_and_used(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()  # of something else, which must not be in the way
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/__init__.py").touch()
    name = "my work/é"
    made = velocitune("init", name, folder=tmp_path)
    assert made.returncode == 0, made.stderr
    assert f"velocitune plan --workspace '{name}'\n" in made.stdout
    settings = tmp_path / name / "params.yaml"
    assert settings.read_text() == (PROJECT / "params.yaml").read_text()
    settings.write_text("- mine")
    assert velocitune("--workspace", name, "init", folder=tmp_path).returncode == 0
    assert settings.read_text() == "- mine"
    used = velocitune("plan", "--workspace", name, folder=tmp_path)
    assert used.returncode == 2 and "params.yaml" in used.stderr, used
    refused = velocitune("plan", "--workspace", "tasks", folder=tmp_path)
    assert refused.returncode == 2 and "neither empty nor a workspace" in refused.stderr


@pytest.mark.parametrize("name", BY_NAME)
def test_the_help_of_every_command_calls_it_by_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Programs get it in their environment; that they show it is seen at `train` above, `init` and `serve` below."""
    named: list[str] = []

    def note(program: str, command: list[str], environment: dict[str, str]) -> None:
        named.append(environment[programs.SHOWN_AS])
        sys.exit(0)

    monkeypatch.setattr(os, "execve", note)
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert named == [f"velocitune {name}"] or capsys.readouterr().out.startswith(f"usage: velocitune {name} ")


def test_help_of_the_pipeline_needs_no_workspace(tmp_path: Path) -> None:
    shown = velocitune("init", "--help", folder=tmp_path)
    assert shown.returncode == 0 and shown.stdout.startswith("usage: velocitune init"), shown.stderr
    assert list(tmp_path.iterdir()) == []
    shown = velocitune("serve", "--help", folder=tmp_path)
    assert shown.stdout.startswith("usage: velocitune serve ") and "python -m" not in shown.stdout
    assert "--workspace DIR " in shown.stdout


def test_a_program_lists_the_option_that_the_command_takes_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--workspace" not in programs.program_parser("python -m x", "", workspace="where").format_help()
    monkeypatch.setenv(programs.SHOWN_AS, "velocitune x")
    assert "--workspace DIR  where" in programs.program_parser("python -m x", "", workspace="where").format_help()


def test_goals_are_options_of_the_pipeline() -> None:
    goals = {name: (each.module, each.arguments) for name, each in BY_NAME.items() if each.module == "flows.pipeline"}
    assert goals == {
        "run": ("flows.pipeline", ()),
        "mixture": ("flows.pipeline", ("--mixture",)),
        "compare": ("flows.pipeline", ("--compare",)),
    }
