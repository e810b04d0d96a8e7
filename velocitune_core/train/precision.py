"""Resolve the `auto` setting of the precision for a device."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

BFLOAT16_UNITS = {"amx_bf16", "avx512_bf16"}  # CPU features: matrix products take at most half the time of float32


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Return whether to compute in bfloat16: on request, or for `auto` where the hardware has units for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return has_bfloat16_units()


def has_bfloat16_units() -> bool:
    """Return whether this processor has units for matrix products in bfloat16."""
    return not BFLOAT16_UNITS.isdisjoint(_cpu_flags())


@cache
def _cpu_flags() -> set[str]:
    """Return the processor's feature flags; empty where /proc/cpuinfo does not exist or list them."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return set()
    flags = next((line for line in path.read_text().splitlines() if line.startswith("flags")), "")
    return set(flags.split())
