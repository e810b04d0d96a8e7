"""How the command of a flow ends: refused arguments, errors that the user can fix, an interrupt."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.cleanup.command import main as clean
from tasks.workspace import paths
from tasks.workspace.params_file import params_tree, read_params
from tasks.workspace.stage_cli import (
    add_overrides,
    command_line,
    overrides_of,
    parse,
    run_flow,
    run_pipeline,
    run_stage,
    user_errors_shown,
)
from velocitune_core.cli.commands import COMMANDS
from velocitune_core.cli.programs import SHOWN_AS
from velocitune_core.config import parse_params

INTERRUPTIBLE = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from tasks.workspace.signals import end_on_signals
from velocitune_core.preload import forked_process, start
forked_process.LIBRARIES = ("json",)
Path("saving.py").write_text('''
import os, signal, time
def save(*_):
    time.sleep(0.5)
    print("saved", flush=True)
    os._exit(75)
signal.signal(signal.SIGTERM, save)
print("runs", flush=True)
while True: signal.pause()
''')
end_on_signals()
child = subprocess.Popen(["sleep", "600"])
slot = threading.Lock()
def run():
    with slot, Path("log.txt").open("ab") as log:
        process = start.start_process(["saving"], os.environ, log)
        print(child.pid, process.pid, flush=True)
        Path("status").write_text(str(process.wait()))
for _ in range(2):  # the second one waits for the slot
    threading.Thread(target=run).start()
while not Path("log.txt").exists() or "runs" not in Path("log.txt").read_text(): time.sleep(0.01)
(server,) = start._SERVERS._servers.values()
if sys.argv[1:]: os.kill(server.pid, signal.SIGKILL)  # its runs have another parent then
print(server.pid, flush=True)
threading.Event().wait(600)
"""


def test_the_help_of_a_flow_calls_it_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__doc__", "What it costs: `python -m flows.plan`.")
    for shown in ("python -m flows.plan", "velocitune plan"):
        text = command_line("plan").format_help()
        assert text.startswith(f"usage: {shown} ") and f"What it costs: `{shown}`." in text
        monkeypatch.setenv(SHOWN_AS, "velocitune plan")


def test_the_help_of_each_goal_is_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As a sub-command of `velocitune`, whose name is the goal; without one, the goals are options."""
    descriptions = set()
    for command in COMMANDS:
        if command.module != "flows.pipeline":
            continue
        monkeypatch.setenv(SHOWN_AS, f"velocitune {command.name}")
        with pytest.raises(SystemExit, match="0"):
            run_pipeline(list, {}, arguments=[*command.arguments, "--help"])
        text = capsys.readouterr().out
        assert "--workspace" in text and "--compare" not in text and "--mixture" not in text
        descriptions.add(text.split("\n\n")[1])
        assert "  [" not in text.split("\n\n")[0], "a gap where an option is left out"
    assert len(descriptions) == 3
    monkeypatch.setenv(SHOWN_AS, "velocitune mixture")
    with pytest.raises(SystemExit, match="2"):
        run_pipeline(list, {}, arguments=["--mixture", "--compare"])
    with pytest.raises(SystemExit, match="0"):
        run_pipeline(list, {}, arguments=["--help"])
    assert "[--compare | --mixture]" in capsys.readouterr().out


def test_a_stage_that_cannot_start_ends_with_status_2(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_stage(lambda: pytest.fail("was run"), arguments=[])
    assert "params.yaml: no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run_stage(lambda: pytest.fail("was run"), arguments=["-S", "training.seed=77"])
    assert "unrecognized arguments: -S" in capsys.readouterr().err


def test_a_stage_names_the_commands_that_make_the_files_it_lacks(
    workspace: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.workspace.preflight.checked_params", lambda comparing: parse_params(settings))
    monkeypatch.setattr(sys, "argv", ["flows/train.py"])
    for file in (paths.MANIFEST, paths.INITIAL):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with pytest.raises(SystemExit, match="2"):
        run_stage(lambda: pytest.fail("was run"), arguments=[])
    said = capsys.readouterr().err
    assert "results/targets.json: make it with `python -m flows.targets`" in said
    assert "results/weights.json: make it with `python -m flows.weights`" in said
    assert "initial.json" not in said and "`python -m flows.pipeline` runs all" in said
    with pytest.raises(SystemExit, match="0"):
        run_stage(lambda: pytest.fail("was run"), arguments=["--help"])
    helped = " ".join(capsys.readouterr().out.split())
    assert "results/weights.json (python -m flows.weights)" in helped and "results/train.json. `python -m" in helped


def test_a_stage_ends_with_the_files_that_it_made(
    workspace: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.workspace.preflight.checked_params", lambda comparing: parse_params(settings))
    monkeypatch.setattr(sys, "argv", ["flows/prepare.py"])
    paths.PARAMS.write_text("seed: 1\n")
    run_stage(lambda: None, arguments=[])
    assert capsys.readouterr().err.startswith("prepare: made prepared in ")


class _FailedError(RuntimeError):
    """An error as this project's modules raise it, of a run that failed."""

    __module__ = "tasks.runs.launch"


def test_a_failed_run_is_reported_once_and_a_defect_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"), user_errors_shown():
        try:
            raise _FailedError("proxy-1 failed: no space left")
        except _FailedError as first:
            raise _FailedError("the targets need proxies of 3 sizes") from first
    assert capsys.readouterr().err == "\nthe targets need proxies of 3 sizes\nproxy-1 failed: no space left\n"
    with pytest.raises(RuntimeError, match="a defect"), user_errors_shown():
        raise RuntimeError("a defect")


def test_a_busy_dvc_is_reported_in_words(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dvc.lock import LockError

    with pytest.raises(SystemExit, match="2"), user_errors_shown():
        raise LockError("'results' is busy")
    assert "another command of DVC is at work in this folder; wait until it ends" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "ran", "shown"),
    [
        ([], ["report"], ["report", "answer"]),
        (["--compare"], ["compare"], ["compare", "answer"]),
        (["--mixture"], [], ["mixture", "answer"]),
        (["--mixture"], ["targets", "weights"], ["mixture"]),  # the stage has shown its weights
    ],
)
def test_the_answer_to_a_goal_is_shown_once(
    arguments: list[str], ran: list[str], shown: list[str], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def pipeline(goal: str, fresh: bool) -> list[str]:
        found.append(goal)
        return ran

    paths.PARAMS.touch()
    for check in ("settle_params", "check_named_server", "end_on_signals"):
        monkeypatch.setattr(f"tasks.workspace.stage_cli.{check}", lambda *_: None)
    answers = dict.fromkeys(("report", "compare", "mixture"), lambda: found.append("answer"))
    run_pipeline(pipeline, answers, arguments=arguments)
    assert found == shown


def test_no_command_leaves_anything_in_a_folder_that_is_no_workspace(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(**_: object) -> None:
        pytest.fail("was run")

    for command in (lambda: run_pipeline(never, {}, arguments=[]), lambda: clean([])):
        with pytest.raises(SystemExit, match="2"):
            command()
        assert f"no such file in {workspace}; give the command in the project's folder" in capsys.readouterr().err
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("edited", [False, True])
def test_a_stage_during_which_params_were_edited_ends_with_status_2(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], edited: bool
) -> None:
    monkeypatch.setattr("tasks.workspace.preflight.checked_params", lambda comparing: None)
    paths.PARAMS.write_text("seed: 1\n")
    used: list[object] = []

    def stage() -> None:
        paths.PARAMS.write_text("seed: 2\n" if edited else "seed: 1\n")
        used.append(params_tree())

    with pytest.raises(SystemExit, match="2") if edited else nullcontext():
        run_stage(stage, arguments=[])
    assert used == [{"seed": 1}]
    assert ("params.yaml was edited during the stage" in capsys.readouterr().err) == edited


def test_a_stage_may_change_params_before_it_runs(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.workspace.preflight.checked_params", lambda comparing: read_params())
    monkeypatch.setattr("tasks.workspace.hub.fetch_named_model", lambda: None)
    project = Path(__file__).parents[3]
    paths.PARAMS.write_bytes((project / "params.yaml").read_bytes())
    with pytest.raises(SystemExit, match="2"):
        run_stage(lambda: pytest.fail("was run"), changes_params=True, arguments=["-S", "mixture.swarm.runs=0"])
    assert "mixture.swarm.runs" in capsys.readouterr().err
    assert paths.PARAMS.read_bytes() == (project / "params.yaml").read_bytes()
    used: list[object] = []
    arguments = ["-S", "mixture.objective.average=by_size", "-S", "strategy={name: planned, options: {}}"]
    run_stage(lambda: used.append(read_params().mixture.objective.average), changes_params=True, arguments=arguments)
    assert used == ["by_size"] == [params_tree()["mixture"]["objective"]["average"]]


def test_a_pipeline_writes_no_override_that_is_not_valid(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def never(**_: object) -> None:
        pytest.fail("was run")

    project = Path(__file__).parents[3]
    paths.PARAMS.write_bytes((project / "params.yaml").read_bytes())
    for setting, reason in {"nonsense": "KEY=VALUE", "training.batch_sequences=0": "batch_sequences"}.items():
        with pytest.raises(SystemExit, match="2"):
            run_pipeline(never, {}, arguments=["-S", setting])
        assert reason in capsys.readouterr().err
    assert paths.PARAMS.read_bytes() == (project / "params.yaml").read_bytes()


def test_overrides_are_read_as_yaml() -> None:
    parser = command_line("pipeline")
    add_overrides(parser, "change settings")
    given = parse(parser, ["-S", "training.seed=3", "--set", "a.b=[1, 2]"])
    assert overrides_of(given) == {"training.seed": 3, "a.b": [1, 2]}


def test_a_flow_is_checked_before_it_runs(workspace: Path) -> None:
    def refuse() -> None:
        raise ValueError("wrong")

    with pytest.raises(SystemExit, match="2"):
        run_flow(lambda: pytest.fail("was run"), refuse)
    assert not paths.STATE.exists()
    ran: list[str] = []
    run_flow(lambda: ran.append("flow"), lambda: ran.append("check"))
    assert ran == ["check", "flow"]


@pytest.mark.parametrize("preloaded", ["preloaded", "killed"])
def test_an_interrupt_ends_all_children_and_names_how_to_resume(workspace: Path, preloaded: str) -> None:
    """Runs save first, one that waits for its turn does not start, and nothing waits for what runs are forked from."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *([preloaded] if preloaded == "killed" else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pids = [*process.stdout.readline().split(), process.stdout.readline().strip()]
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "give the same command again" in errors
    assert output == "" and Path("log.txt").read_text().splitlines() == ["runs", "saved"]
    statuses = [Path(f"/proc/{pid}/stat") for pid in pids]
    assert not [each for each in statuses if each.exists() and ") Z" not in each.read_text()]
    if preloaded == "preloaded" and Path("status").exists():  # its thread may not have come to it
        assert Path("status").read_text() == "75"


@pytest.mark.slow
def test_a_command_runs_in_another_workspace(
    workspace: Path,
    settings: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The plan of a folder that holds only settings, sources and a model's shape, asked for from elsewhere."""
    other = workspace / "other"
    (other / "models/mine").mkdir(parents=True)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 16}
    config |= {"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    (other / "models/mine/config.json").write_text(json.dumps(config))
    training = {**settings["training"], "token_budget": 64_000}  # type: ignore[dict-item]
    (other / "data/raw").mkdir(parents=True)
    for name in ("code", "law"):
        (other / f"data/raw/{name}.jsonl").write_text('{"text": "x"}\n')
    (other / "params.yaml").write_text(yaml.safe_dump({**settings, "training": training}))

    def plan(setting: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.plan", "--no-probe", "--workspace", "other", "-S", setting]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    done = plan("training.seed=3")
    assert done.returncode == 0, done.stderr
    assert "memory per device" in done.stdout
    done = plan("nonsense")
    assert (done.returncode, done.stdout) == (2, "") and "'nonsense' is not KEY=VALUE" in done.stderr

    (workspace / "thesis.tex").touch()
    monkeypatch.chdir(other)
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("was run"))  # it would replace the tests
    with pytest.raises(SystemExit, match="2"):
        parse(command_line("plan"), ["--workspace", ".."])
    assert "neither empty nor a workspace" in capsys.readouterr().err
