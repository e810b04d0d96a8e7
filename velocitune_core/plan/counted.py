"""Count what a run takes while it runs: peak bytes of the process or device, of live tensors, and operations."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

PROCESS = Path("/proc/self")  # Linux; elsewhere a CPU's peaks are 0, which means not measured


class PeakBytes:
    """Peak bytes of this process, or of what it allocates on a GPU, since the last `restart`."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None

    def restart(self) -> None:
        """Begin a new peak from the present size."""
        if self._gpu:
            torch.cuda.reset_peak_memory_stats(self._gpu)
        elif os.access(PROCESS / "clear_refs", os.W_OK):
            (PROCESS / "clear_refs").write_text("5")  # proc(5): the peak becomes the present size

    @property
    def now(self) -> int:
        return torch.cuda.memory_allocated(self._gpu) if self._gpu else _status("VmRSS")

    @property
    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._gpu) if self._gpu else _status("VmHWM")


def tensor_peak(act: Callable[[], None], device: torch.device) -> int:
    """Return by how many bytes live tensors exceed, at their peak during `act`, those alive before it."""
    if device.type == "cuda":
        memory = PeakBytes(device)
        memory.restart()
        before = memory.now
        act()
        return memory.peak - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        act()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    events: Any = profiled.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(accumulate(changes), default=0)


def flops(act: Callable[[], None]) -> int:
    """Return the operations of the matrix products and attentions of `act`; multiplying and adding count as two."""
    on_cpu: Any = torch.ops.aten  # torch's own counter has the attention kernels of GPUs only
    attention = {
        on_cpu._scaled_dot_product_flash_attention_for_cpu: _attention,
        on_cpu._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    counter = FlopCounterMode(display=False, custom_mapping=attention)
    with torch.compiler.set_stance("force_eager"), counter:  # it cannot look into compiled code
        act()
    return counter.get_total_flops()


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _status(field: str) -> int:
    """Return a size in /proc/self/status in bytes."""
    status = PROCESS / "status"
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0
