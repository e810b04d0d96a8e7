"""`python -m flows.plan` in a copy of the project with the settings of the miniature and no data: it only answers."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROJECT = Path(__file__).parents[2]
PROGRAM = str(PROJECT / "flows/plan.py")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, folder / name)
    shutil.copyfile(PROJECT / "tests/miniature.yaml", folder / "params.yaml")
    return folder


@pytest.fixture
def ask(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `python -m flows.plan` prints, in this process, which has imported torch; a refusal is on standard error."""
    monkeypatch.chdir(workspace)

    def ask_here(*arguments: str, refused: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["flows.plan", *arguments])
        if not refused:
            runpy.run_path(PROGRAM, run_name="__main__")
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(PROGRAM, run_name="__main__")
        assert stop.value.code == 2
        return capsys.readouterr().err

    return ask_here


def files(workspace: Path) -> dict[str, bytes]:
    """All of it, but for what Python compiles."""
    found = (path for path in workspace.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {str(path): path.read_bytes() for path in found}


def test_a_plan_for_machines_with_times(workspace: Path, ask: Callable[..., str]) -> None:
    """Real steps are timed, two runs at once, and no file is left."""
    before = files(workspace)
    two_at_once = ("-S", "resources.threads=1", "-S", "resources.runs_per_device=2")
    plan = json.loads(ask("--json", *two_at_once), parse_constant=pytest.fail)
    assert files(workspace) == before
    assert [stage["name"] for stage in plan["stages"]] == ["base", "initial", "proxies", "train"]
    # 60,000 / 64 / 16 = 58 steps of the base; 624 + 312 + 156 sequences make 68, and 0.2, 0.4, 0.6, 0.8 of them
    assert [price["steps"] for price in plan["prices"]] == [58, 0, 14 + 27 + 41 + 54, 68]
    # V·d + L·(4·d² + 3·d·i + 2·d) + d = 512·32 + 2·(4,096 + 6,144 + 64) + 32
    assert plan["shape"]["parameters"] == 37_024
    assert all(price["seconds"] > 0 for price in [*plan["prices"], plan["total"]])
    (probed,) = plan["probes"].values()
    assert (probed["copies"], probed["threads"], probed["processes"]) == (2, 1, 1)
    assert probed["steps"] == 12 and 0 < probed["step_seconds"] < 10
    speed = probed["speed"]
    assert min(speed["start"], speed["step_per_sequence"], speed["evaluation_per_sequence"]) > 0
    assert speed["checkpoint"] is not None
    assert plan["footprints"][0]["resident"] > 300_000_000  # its libraries
    assert plan["shape"]["measured"]["activations"] == pytest.approx(1, abs=0.2)
    counted = json.loads(ask("--json", "--no-probe"))["prices"][-1]["training_flops"]
    assert plan["prices"][-1]["training_flops"] == pytest.approx(counted, rel=0.1)


def test_a_plan_for_people(workspace: Path, ask: Callable[..., str]) -> None:
    before = files(workspace)
    said = ask("--no-probe", "--fits", "1MB", "-S", "execution.micro_batch_sequences=4")
    assert files(workspace) == before
    for word in ("base", "proxies", "train", "total", "FLOPs", "memory per device", "disk", "37,024", "max_tokens"):
        assert word in said
    assert "does not fit" in said


def test_a_comparison(workspace: Path, ask: Callable[..., str]) -> None:
    lines = {"static": {"strategy": "static"}, "doremi": {"strategy": "doremi"}}
    tree = yaml.safe_load((workspace / "params.yaml").read_text())
    told = f"compare={json.dumps({'seeds': [1, 2], 'runs': lines})}"
    plan = json.loads(ask("--json", "--no-probe", "--compare", "-S", told))
    assert [run["name"] for run in plan["stages"][-1]["runs"]] == [
        f"{name.format(seed)}"
        for seed in (1, 2)
        for name in ("static-seed-{}", "doremi-seed-{}-search", "doremi-seed-{}")
    ]
    assert yaml.safe_load((workspace / "params.yaml").read_text()) == tree
    assert "compare: missing" in ask("--no-probe", "--compare", refused=True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--fits", "80 bananas"], "80 bananas"),
        (["-S", "strategy.name=velocitum"], "unknown (did you mean velocitune?); choose one of"),
        (["-S", "training.batch_sequences=0"], "training.batch_sequences"),
        (["-S", "nonsense"], "not KEY=VALUE"),
        (["-S", "base.domains=[poetry]"], "base.domains: poetry are no domains"),
        (["-S", "model.path=models/absent"], "model.path: 'models/absent' is not a folder"),
        (["-S", "data.path=nowhere"], "domains.code.source: nowhere/code.jsonl: no such file or folder"),
    ],
)
def test_what_cannot_be_priced_is_refused(ask: Callable[..., str], arguments: list[str], reason: str) -> None:
    assert reason in ask("--no-probe", *arguments, refused=True)
