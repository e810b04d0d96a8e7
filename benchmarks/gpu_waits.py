"""Count how often the host waits for the GPU, for benchmarks/gpu.py."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

import torch


def waits(act: Callable[[], None], device: torch.device) -> dict[str, int]:
    """Return how often `act` makes the host wait for the GPU, by file and line of the Python code; none on a CPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        act()
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    found = [each for each in caught if "called a synchronizing" in str(each.message)]
    return dict(Counter(f"{each.filename}:{each.lineno}" for each in found))
