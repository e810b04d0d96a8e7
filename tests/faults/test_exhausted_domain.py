"""A domain that has no unseen text left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults import train_here, warnings
from tiny import LENGTH, SEQUENCES, job

from velocitune_core.train.events import Event, Stepped

MOSTLY_GENERAL = {
    "strategy": {"name": "static", "options": {}},
    "initial_domain_weights": {"code": 0.4, "general": 0.6},
}


def last_step(said: list[Event]) -> Stepped:
    return [event for event in said if isinstance(event, Stepped)][-1]


def small(inputs: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """13 steps of 6 sequences: 78 of the 84 that there are."""
    return job(inputs, output, total_steps=13, **MOSTLY_GENERAL, **changes)


def test_repetition_is_counted_and_told(tiny_inputs: Path, tmp_path: Path) -> None:
    said = train_here(small(tiny_inputs, tmp_path / "run"))
    last = last_step(said)
    assert last.domain_epochs["general"] == pytest.approx(0.6 * 78 / SEQUENCES["general"], abs=0.05)
    assert last.domain_epochs["general"] > 1.9 and warnings(said) == []


def test_a_cap_on_epochs_gives_its_weight_to_the_others(tiny_inputs: Path, tmp_path: Path) -> None:
    said = train_here(small(tiny_inputs, tmp_path / "run", training__max_epochs=1.0))
    last = last_step(said)
    assert last.domain_tokens == {"code": (78 - 24) * LENGTH, "general": 24 * LENGTH}
    assert last.domain_epochs["general"] == 1.0
    (warning,) = warnings(said)
    assert warning == "['general'] reached max_epochs 1.0: their weight goes to the others"
