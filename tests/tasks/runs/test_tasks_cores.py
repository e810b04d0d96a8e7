"""Cores that a process may use: by its affinity, and by the limits of its control groups, of both versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.runs.devices import threads_per_process
from velocitune_core.config import Resources
from velocitune_core.parallel import cores
from velocitune_core.parallel.cores import usable_cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight cores without limits, in which this process is in the group a/b."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    (tmp_path / "membership").write_text("5:memory:/m\n4:cpu,cpuacct:/a/b\n0::/a/b\n")
    for folder in ("a/b", "cpu/a/b"):
        (tmp_path / "groups" / folder).mkdir(parents=True)
    return tmp_path / "groups"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"a/b/cpu.max": "max 100000\n"}, 8),
        ({"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "max 100000\n"}, 3),
        ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "250000 100000\n"}, 2),  # of the group above it
        ({"a/b/cpu.max": "50000 100000\n"}, 1),
        ({"cpu/a/cpu.cfs_quota_us": "400000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, 8),
        ({"a/b/cpu.max": "nonsense\n"}, 8),
    ],
)
def test_limits_of_control_groups_count(groups: Path, files: dict[str, str], expected: int) -> None:
    for name, content in files.items():
        (groups / name).write_text(content)
    assert usable_cores() == expected


def test_affinity_counts_and_decides_the_threads_of_a_run(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 6})
    monkeypatch.setattr("tasks.runs.devices.gpu_count", lambda: 0)
    assert usable_cores() == 3
    assert threads_per_process(Resources()) == 3
    assert threads_per_process(Resources(runs_per_device=2)) == 1


def test_a_process_that_taskset_binds_to_one_core_uses_one() -> None:
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{core}}}); "
        "from velocitune_core.parallel.cores import usable_cores as u; print(u())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
