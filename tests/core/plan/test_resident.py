"""Resident size of a process: ratios from peaks, and other sizes from ratios."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import SEVEN_BILLION

from velocitune_core.plan.cost import with_layers
from velocitune_core.plan.memory import Setting, memory_of
from velocitune_core.plan.resident import Resident, fit_resident, resident_bytes

SMALL = Setting(sequence_length=256, batch_sequences=4, micro_batch_sequences=2, evaluation_sequences=1)
LARGE = replace(SMALL, batch_sequences=16, micro_batch_sequences=8)


@given(st.floats(0.9, 2.0), st.floats(0.9, 4.0), st.booleans())
def test_two_peaks_give_the_ratios_they_were_made_with(states: float, passes: float, copied: bool) -> None:
    made = Resident(400_000_000, states, passes)
    peaks = [(each, resident_bytes(made, SEVEN_BILLION, each, copied=copied)) for each in (SMALL, LARGE)]
    found = fit_resident(SEVEN_BILLION, made.libraries, peaks, copied=copied)
    assert (found.states, found.passes) == pytest.approx((states, passes), rel=1e-6)
    assert resident_bytes(found, SEVEN_BILLION, SMALL, copied=copied) == pytest.approx(peaks[0][1])


def test_one_peak_leaves_parameters_and_moments_at_their_size() -> None:
    memory = memory_of(SEVEN_BILLION, SMALL)
    peak = 5 + memory.steady + memory.copy + 2 * memory.passing
    assert fit_resident(SEVEN_BILLION, 5, [(SMALL, peak)], copied=True) == Resident(5, 1.0, 2.0)


def test_a_peak_without_a_checkpoint_gains_the_copy() -> None:
    found = fit_resident(SEVEN_BILLION, 0, [(SMALL, memory_of(SEVEN_BILLION, SMALL).peak)], copied=False)
    copy = resident_bytes(found, SEVEN_BILLION, SMALL) - resident_bytes(found, SEVEN_BILLION, SMALL, copied=False)
    assert copy == 12 * SEVEN_BILLION.parameters  # parameters and two moments in float32


def test_a_model_of_fewer_layers_keeps_its_embeddings() -> None:
    few = with_layers(SEVEN_BILLION, 2)
    layer = 4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096
    assert few.layers == 2
    assert few.parameters == pytest.approx(
        2 * 32_000 * 4096 + 2 * layer + 4096, abs=4096
    )  # the last norm is shared out
