"""Estimate the resident size of a CPU process from that of a smaller run. Arithmetic only.

A process takes more than its tensors: the libraries, gaps in the C allocator's heap, scratch space of kernels. A probe
measures the peak of a real run under one or two settings, and

    resident = libraries + a · (parameters, moments, their copy) + b · (gradients, activations, logits)

is solved for a and b. The tensors of another batch size, number of layers or of processes are those of `memory_of`;
more steps take no more. Two settings differ in b's factor alone, so a is what does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from velocitune_core.plan.cost import ModelShape
from velocitune_core.plan.memory import Setting, memory_of


@dataclass(frozen=True)
class Resident:
    """Resident bytes of a CPU process."""

    libraries: int  # before the model is there
    states: float  # bytes per byte of parameters, moments and their copy
    passes: float  # bytes per byte of gradients, activations and logits


# Where nothing was measured: torch and transformers, and the largest ratios that benchmarks/memory.py found.
UNMEASURED = Resident(libraries=420 * 10**6, states=1.1, passes=1.6)


def fit_resident(shape: ModelShape, libraries: int, peaks: Sequence[tuple[Setting, int]], *, copied: bool) -> Resident:
    """Return the ratios that measured peaks follow.

    Args:
        libraries: resident bytes before the model is there.
        peaks: one or two settings, by rising size, and the peak resident bytes under each.
        copied: whether a checkpoint was among what was measured.
    """
    found = [(*_parts(shape, setting, copied), peak - libraries) for setting, peak in peaks]
    states, passes, resident = found[-1]
    slope = (resident - states) / passes
    if len(found) > 1 and passes > found[0][1]:
        slope = (resident - found[0][2]) / (passes - found[0][1])
    slope = min(max(slope, 0.0), resident / passes)
    return Resident(libraries, (resident - slope * passes) / states, slope)


def resident_bytes(resident: Resident, shape: ModelShape, setting: Setting, *, copied: bool = True) -> int:
    """Return the peak resident bytes of a process under `setting`; `copied`: it writes checkpoints."""
    states, passes = _parts(shape, setting, copied)
    return round(resident.libraries + resident.states * states + resident.passes * passes)


def _parts(shape: ModelShape, setting: Setting, copied: bool) -> tuple[int, int]:
    memory = memory_of(shape, setting)
    return memory.steady + (memory.copy if copied else 0), memory.passing
