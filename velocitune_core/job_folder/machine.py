"""The devices that the runs of a folder share: the GPUs, or else the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import velocitune_core
from velocitune_core.parallel.cores import usable_cores
from velocitune_core.parallel.environment import without_process_group

SPARE = 0.1  # of a device's memory, for its runtime and fragmentation


@dataclass(frozen=True)
class Device:
    """A GPU by CUDA's name, or the CPU, whose name is empty."""

    name: str
    memory_bytes: int

    def has_room(self, memory_bytes: int, running: Iterable[int]) -> bool:
        """Whether a run fits beside those that are running; by itself it may always try.

        Args:
            memory_bytes: estimate of the run; 0 if it is unknown.
            running: estimates of the others.
        """
        others = list(running)
        return not others or memory_bytes + sum(others) <= (1 - SPARE) * self.memory_bytes


def find_devices() -> list[Device]:
    """Return the GPUs visible to this process, or the CPU if there is none."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        return [Device("", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else map(str, range(count))
    memory = (torch.cuda.get_device_properties(index).total_memory for index in range(count))
    return [Device(name.strip(), size) for name, size in zip(names, memory, strict=False)]


def threads_per_run(devices: int, parallel: int) -> int:
    """Return the threads of each run if `parallel` of them run on each device: the usable cores shared evenly."""
    return max(1, usable_cores() // (devices * parallel))


def environment_of(device: Device, threads: int) -> dict[str, str]:
    """Return the environment of a run: its device, its threads, and where this program was found."""
    here = str(Path(str(velocitune_core.__file__)).parents[1])
    found = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONPATH": found}
    if device.name:
        own["CUDA_VISIBLE_DEVICES"] = device.name
    return {**without_process_group(os.environ), **own}
