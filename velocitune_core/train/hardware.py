"""What a run computes on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def described(device: torch.device) -> str:
    """Return the name of a GPU, or this machine's processor and cores: 'NVIDIA H100 80GB HBM3', 'AMD EPYC, 2 cores'."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = os.cpu_count() or 1
    return f"{_processor()}, {cores} core{'s' if cores > 1 else ''}"


def _processor() -> str:
    """Return the model of the processor; of its architecture where Linux does not say it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.machine()
