"""How many cores this process may use: of its affinity (taskset, Slurm), and of its control groups (containers)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the whole cores that this process may use, at least one."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # outside Linux
        cores = os.cpu_count() or 1
    return max(1, min([cores, *(int(limit) for limit in _limits())]))


def _limits() -> Iterator[float]:
    """Yield the cores that each control group above this process may use, if it has a limit."""
    try:
        memberships = [line.split(":", 2) for line in MEMBERSHIP.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in memberships:
        top = GROUPS if not controllers else GROUPS / "cpu" if "cpu" in controllers.split(",") else None
        if top is None:
            continue
        own = top / path.lstrip("/")
        for folder in [own, *own.parents]:
            if folder.is_relative_to(top) and (limit := _limit(folder)) is not None:
                yield limit


def _limit(group: Path) -> float | None:
    """Return the cores of one group: version 2 has both numbers in one file, version 1 one in each of two."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if quota == "max" or int(quota) < 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None
