"""From what a probe measured to what a plan computes with."""

from __future__ import annotations

from dataclasses import replace

from velocitune_core.plan.cost import Calibration, ModelShape, flops_per_token, forward_flops_per_token
from velocitune_core.plan.memory import Setting, memory_of
from velocitune_core.plan.probe import SMALLER, ProbeResult
from velocitune_core.plan.resident import Resident, fit_resident


def calibrated(shape: ModelShape, setting: Setting, result: ProbeResult) -> Calibration:
    """Return how the model that was probed, of `shape` under `setting`, differs from the arithmetic."""
    small = max(1, setting.micro_batch_sequences // SMALLER)
    accumulating = replace(setting, micro_batch_sequences=small, batch_sequences=2 * small * setting.processes)
    memory = memory_of(shape, accumulating)
    fixed = memory.gradients + (memory.whole or memory.gathered) + memory.cast_parameters
    recomputes = setting.activation_checkpointing
    return Calibration(
        step_flops=result.step_flops - flops_per_token(shape, setting.sequence_length, recomputes=recomputes),
        forward_flops=result.evaluation_flops - forward_flops_per_token(shape, setting.sequence_length),
        activations=max(0.0, result.tensor_bytes - fixed) / (memory.activations + memory.logits),
    )


def resident_of(shape: ModelShape, setting: Setting, result: ProbeResult, *, copied: bool) -> Resident:
    """Return what a process takes beside its tensors; `copied`: a checkpoint was written."""
    peaks = [
        (
            replace(
                setting,
                batch_sequences=each.batch_sequences,
                micro_batch_sequences=each.micro_batch_sequences,
                evaluation_sequences=each.evaluation_sequences,
            ),
            each.peak_bytes,
        )
        for each in result.peaks
    ]
    measured = replace(shape, measured=calibrated(shape, setting, result))
    return fit_resident(measured, result.libraries_bytes, peaks, copied=copied)
