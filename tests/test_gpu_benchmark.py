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
def test_every_row_of_the_gpu_benchmark_is_measured_in_miniature(gpu: ModuleType) -> None:
    import torch

    rows = {}
    with torch.compiler.set_stance("force_eager"):
        for key, row in gpu.rows_wanted().items():
            rows[key] = gpu.measure(row, miniature=True)
    checks = rows.pop("checks")
    assert [row["check"] for row in checks if not row["passed"]] == []
    assert len(checks) == len(gpu.CHECKS) + 1
    masked = [row for key, row in rows.items() if key.startswith("speed") and row["document mask"]]
    assert len(masked) == 2 and all(row["waits"] == 0 for row in masked)  # a CPU: nothing to wait for
    assert "document mask" in gpu.table([row for key, row in rows.items() if key.startswith("speed")])
