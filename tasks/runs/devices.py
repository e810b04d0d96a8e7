"""Which device a run may use. A slot is a locked file, which the system unlocks when its process ends, however it ends.

(A concurrency slot of Prefect stays taken for minutes after a kill, and does not cover other workspaces.)
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from tasks.workspace import paths
from velocitune_core.config import Resources
from velocitune_core.parallel.cores import usable_cores
from velocitune_core.parallel.openmp import short_spin
from velocitune_core.train.system_lock import system_lock

SECONDS_BETWEEN_TRIES = 0.5


class DeviceError(RuntimeError):
    """Devices that cannot be leased safely."""


@dataclass(frozen=True)
class Device:
    """GPUs by torch's index, none for the CPU, and the threads that each process of a run may use."""

    gpus: tuple[int, ...]
    threads: int

    @property
    def environment(self) -> dict[str, str]:
        """Variables that restrict a process to this device, and make its waiting threads leave the cores to others."""
        threads = {"OMP_NUM_THREADS": str(self.threads), **short_spin(os.environ)}
        if not self.gpus:
            return threads
        names = gpu_names()
        return {**threads, "CUDA_VISIBLE_DEVICES": ",".join(names[index] for index in self.gpus)}


def gpu_count() -> int:
    """Return how many GPUs are visible to this process."""
    import torch

    return torch.cuda.device_count()


def gpu_memory() -> int:
    """Return the bytes of memory of the first GPU."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory


def gpu_names() -> list[str]:
    """Return CUDA's names of the visible GPUs, in torch's order; Ray, Slurm or users may restrict them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else map(str, range(gpu_count()))
    return [name.strip() for name in names][: gpu_count()]


def parallel_runs(resources: Resources) -> int:
    """Return how many single-device runs fit on this machine at once."""
    return max(1, gpu_count()) * resources.runs_per_device


def threads_per_process(resources: Resources, processes: int = 1) -> int:
    """Return the threads per process of a run of so many processes: as configured, or an even share of usable cores."""
    gpus = gpu_count()
    threads = resources.threads or max(1, usable_cores() // (max(1, gpus) * resources.runs_per_device))
    return threads if gpus else max(1, threads // processes)


@contextmanager
def leased_device(resources: Resources, processes: int = 1) -> Iterator[Device]:
    """Wait for `processes` GPUs, or for the CPU if there is none, and hold them.

    Raises ValueError for more processes than the machine has GPUs, and DeviceError if another user could interfere with
    the locks.
    """
    gpus, threads = gpu_count(), threads_per_process(resources, processes)
    with ExitStack() as held:
        if not gpus:
            cpu = f"cpu-{socket.gethostname()}"  # the workspace may be shared by machines
            _wait_for_slots(held, paths.STATE / "slots", [cpu], resources.runs_per_device, 1)
            yield Device((), threads)
            return
        if processes > gpus:
            raise ValueError(f"resources.processes: {processes} processes need as many GPUs, this machine has {gpus}")
        folder = _folder_of_machine()
        names = [f"gpu-{name}".replace("/", "-") for name in gpu_names()]
        taken = _wait_for_slots(held, folder, names, resources.runs_per_device, processes)
        yield Device(tuple(taken), threads)


def _folder_of_machine() -> Path:
    """Return the folder of locks on GPUs, which belong to the machine and not to a workspace.

    It is where everybody may write, so another user may have made it first, or have put a link in its place.
    """
    folder = Path(tempfile.gettempdir()) / f"velocitune-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise DeviceError(
            f"{folder}: locks of GPUs must be in a folder that nobody else may write to or read, and its owner is "
            f"{found.st_uid}, its mode {stat.filemode(found.st_mode)}; remove it, or set TMPDIR to a folder of your own"
        )
    return folder


def _wait_for_slots(held: ExitStack, folder: Path, names: list[str], per_device: int, count: int) -> list[int]:
    """Lock a slot on each of `count` devices, all or none, and return the devices' positions in `names`."""
    while True:
        with ExitStack() as attempt:
            taken: list[int] = []
            for number, name in enumerate(names):
                if len(taken) < count and _try_device(attempt, folder, name, per_device):
                    taken.append(number)
            if len(taken) == count:
                held.push(attempt.pop_all())
                return taken
        time.sleep(SECONDS_BETWEEN_TRIES)


def _try_device(attempt: ExitStack, folder: Path, name: str, per_device: int) -> bool:
    """Lock a free slot of a device, if there is one; `attempt` holds it."""
    for slot in range(per_device):
        lock = system_lock(folder / f"{name}-{slot}.lock", blocking=False)  # follows no link
        with suppress(Timeout):
            attempt.enter_context(lock)
            return True
    return False
