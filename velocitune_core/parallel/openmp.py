"""How the OpenMP threads of a process wait for each other; libgomp reads it once, when torch is imported."""

from __future__ import annotations

from collections.abc import Mapping

SPINS = 1000  # turns of a loop; during libgomp's own 300,000 a waiting thread keeps its core from a working one
CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def short_spin(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that makes waiting threads sleep soon; none where `environment` has made a choice."""
    return {} if any(name in environment for name in CHOICES) else {"GOMP_SPINCOUNT": str(SPINS)}
