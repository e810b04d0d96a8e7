"""The environment that a run is started in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.runs import devices
from tasks.runs.devices import Device
from tasks.runs.torchrun import environment_of
from tasks.workspace import paths

CACHE, THREADS = "TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"


@pytest.fixture(autouse=True)
def _nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CACHE, THREADS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "gpu_names", lambda: ["GPU-a"])


def test_runs_share_the_workspace_s_cache_of_compiled_code() -> None:
    on_cpu, on_gpu = environment_of(Device((), 3)), environment_of(Device((0,), 3))
    assert on_cpu[CACHE] == on_gpu[CACHE] == str(paths.COMPILED.absolute())
    assert Path(on_cpu[CACHE]).is_absolute()  # a rank may have another working directory


def test_a_cpu_compiles_without_a_pool_of_processes() -> None:
    assert environment_of(Device((), 3))[THREADS] == "1"
    assert THREADS not in environment_of(Device((0,), 3))


def test_what_the_user_has_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, "/scratch/compiled")
    monkeypatch.setenv(THREADS, "4")
    found = environment_of(Device((), 3))
    assert (found[CACHE], found[THREADS]) == ("/scratch/compiled", "4")
