"""Runs share no device by accident, and a killed one keeps none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tasks.runs import devices
from tasks.runs.devices import Device, DeviceError, _try_device, _wait_for_slots, gpu_count, leased_device
from tasks.workspace import paths
from velocitune_core.config import ConfigError, Resources

TAKE_TURNS = """
import os, time
from tasks.runs.devices import leased_device
from velocitune_core.config import Resources
for _ in range(3):
    with leased_device(Resources(runs_per_device=1)):
        os.close(os.open("inside", os.O_CREAT | os.O_EXCL))
        time.sleep(0.1)
        os.unlink("inside")
"""
HOLD = """
import time
from tasks.runs.devices import leased_device
from velocitune_core.config import Resources
with leased_device(Resources(runs_per_device=1)):
    print("held", flush=True)
    time.sleep(120)
"""
TWO = ["gpu-0", "gpu-1"]


@pytest.fixture
def cpu_workspace(workspace: Path) -> Path:
    if gpu_count():
        pytest.skip("this machine has a CUDA device, so runs use that and not the CPU")
    return workspace


def start(script: str, folder: Path, stdout: int | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=stdout, text=True)


@pytest.mark.slow
def test_the_cpu_is_held_by_one_at_a_time(cpu_workspace: Path) -> None:
    others = [start(TAKE_TURNS, cpu_workspace) for _ in range(2)]
    overlaps: list[FileExistsError] = []

    def take_turns() -> None:
        for _ in range(3):
            with leased_device(Resources(runs_per_device=1)):
                try:
                    os.close(os.open("inside", os.O_CREAT | os.O_EXCL))
                    time.sleep(0.1)
                    Path("inside").unlink()
                except FileExistsError as error:
                    overlaps.append(error)

    threads = [threading.Thread(target=take_turns) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [other.wait(60) for other in others] == [0, 0]
    assert overlaps == [] and not any(thread.is_alive() for thread in threads)


@pytest.mark.slow
def test_a_killed_holder_frees_the_cpu(cpu_workspace: Path) -> None:
    with start(HOLD, cpu_workspace, subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with ExitStack() as attempt:
            assert not _try_device(attempt, paths.STATE / "slots", f"cpu-{socket.gethostname()}", per_device=1)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    begun = time.monotonic()
    with leased_device(Resources(threads=3)) as device:
        assert device == Device((), 3)
    assert time.monotonic() - begun < 2


def test_processes_share_the_threads_of_a_cpu(cpu_workspace: Path) -> None:
    with leased_device(Resources(threads=4), processes=2) as device:
        assert device == Device((), 2)
    with leased_device(Resources(threads=1), processes=2) as device:
        assert device == Device((), 1)


def test_as_many_as_configured_fit_on_a_device(tmp_path: Path) -> None:
    with ExitStack() as held:
        assert [_try_device(held, tmp_path, "cpu", per_device=2) for _ in range(3)] == [True, True, False]
    with ExitStack() as held:
        assert _try_device(held, tmp_path, "cpu", per_device=1)


def wait_in_thread(held: ExitStack, folder: Path, count: int) -> tuple[threading.Thread, list[int]]:
    """Wait in a thread for slots on `count` of two GPUs; the list fills when they are locked."""
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(_wait_for_slots(held, folder, TWO, 1, count)), daemon=True)
    thread.start()
    return thread, taken


def test_two_runs_take_different_gpus(tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        assert _wait_for_slots(first, tmp_path, TWO, per_device=1, count=1) == [0]
        thread, taken = wait_in_thread(second, tmp_path, count=1)
        thread.join(5)
        assert taken == [1], "the second GPU is free, and the second run does not get it"


def test_a_run_on_two_gpus_takes_both_or_none(tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second, ExitStack() as both:
        assert _wait_for_slots(first, tmp_path, TWO, per_device=1, count=1) == [0]
        thread, taken = wait_in_thread(both, tmp_path, count=2)
        time.sleep(0.3)  # it has tried, locked one, and must have unlocked it
        assert _wait_for_slots(second, tmp_path, TWO, per_device=1, count=1) == [1]
        first.close()
        time.sleep(1)
        assert taken == []
        second.close()
        thread.join(5)
        assert taken == [0, 1]
        with ExitStack() as attempt:
            assert not any(_try_device(attempt, tmp_path, name, per_device=1) for name in TWO)


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "gpu-0-0.lock").symlink_to(precious)
    with ExitStack() as attempt, pytest.raises(ConfigError, match="symbolic links"):
        _try_device(attempt, tmp_path, "gpu-0", per_device=1)
    assert precious.read_text() == "kept"


def test_a_lock_that_another_holds_is_not_truncated(tmp_path: Path) -> None:
    file = tmp_path / "gpu-0-0.lock"
    file.write_text("kept")
    with ExitStack() as attempt:
        assert _try_device(attempt, tmp_path, "gpu-0", per_device=1)
        with ExitStack() as other:
            assert not _try_device(other, tmp_path, "gpu-0", per_device=1)
        assert file.read_text() == "kept"


@pytest.mark.parametrize("obstacle", ["link", "open to others", "of another user"])
def test_locks_of_gpus_are_in_a_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)
    folder = tmp_path / f"velocitune-{os.getuid()}"
    match obstacle:
        case "link":
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            folder.symlink_to(tmp_path / "elsewhere")
        case "open to others":
            folder.mkdir()
            folder.chmod(0o777)
        case _:
            stranger = os.getuid() + 1
            (tmp_path / f"velocitune-{stranger}").mkdir(mode=0o700)
            monkeypatch.setattr(os, "getuid", lambda: stranger)
    with pytest.raises(DeviceError, match="nobody else may write"), leased_device(Resources()):
        pass
    assert not list((tmp_path / "elsewhere").glob("*"))


def test_gpus_keep_the_names_that_the_environment_gave_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.runs.devices.gpu_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-8f1e")  # torch calls them 0 and 1
    monkeypatch.setenv("GOMP_SPINCOUNT", "9")  # the user's own
    assert Device((1, 0), 3).environment == {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "GPU-8f1e,5"}
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert Device((1,), 3).environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert Device((), 2).environment == {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "1000"}
