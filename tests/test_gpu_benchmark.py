"""benchmarks/gpu.py in miniature on a CPU, so that it needs no debugging on the day that there is a GPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from forked import ForkedRun

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")
SECONDS = 120.0


class Forked(ForkedRun):
    """A training that is forked, with the part of Popen's interface that the benchmark uses."""

    def wait(self) -> int:
        self.communicate(SECONDS)
        assert self.returncode == 0 or self.returncode < 0, self.log
        return self.returncode


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, whose trainings are forked; nothing is compiled, which takes minutes and is torch's own."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    inputs: Any = importlib.import_module("gpu_inputs")

    def start(job: Path, *, gpu: bool = True) -> Forked:
        return Forked([str(job)], environment={"TORCHDYNAMO_DISABLE": "1"})

    monkeypatch.setattr(inputs, "start", start)
    return importlib.import_module("gpu")


@pytest.mark.slow
def test_each_part_of_the_gpu_benchmark_runs_in_miniature(gpu: ModuleType) -> None:
    import torch

    chosen = [("135M", "never", False, 16, True), ("135M", "always", True, 16, False)]
    assert set(chosen) <= set(gpu.SPEED)
    chosen_all = [None, *chosen, gpu.TRAINER[0]]
    wanted = {key: row for key, row in gpu.rows_wanted().items() if row.get("setting") in chosen_all}
    with torch.compiler.set_stance("force_eager"):
        rows = {key: gpu.measure(row, miniature=True) for key, row in wanted.items()}
    checks = rows.pop("checks")
    assert [row["check"] for row in checks if not row["passed"]] == []
    assert len(checks) == len(gpu.CHECKS) + 1
    speed = [row for key, row in rows.items() if key.startswith("speed")]
    assert [row["document mask"] for row in speed] == [True, False]
    assert all(row["waits"] == 0 for row in speed)  # a CPU: nothing to wait for
    assert "tokens/s" in gpu.table(speed) and "places" not in gpu.table(speed)
