"""A run whose settings, data or model changed between a kill and its resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults import train_here, warnings
from tiny import job

from velocitune_core.train.events import Event, Stepped


class Killed(Exception):
    """Leaves the training where it stands, as a kill would."""


def kill(event: Event) -> None:
    if isinstance(event, Stepped) and event.step == 6:
        raise Killed


CHANGES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "config": (
        {"training__optimizer__learning_rate": 0.02, "evaluation__every_steps": 3},
        ["training.optimizer.learning_rate: 0.01 → 0.02", "evaluation.every_steps: 5 → 3"],
    ),
    "data": (
        {"domains__code__train_sha256": "1"},  # what a changed document, tokenizer or split does
        ["domains.code.train_sha256: '", "' → '1'"],
    ),
    "model": ({"model_sha256": "1"}, ["model_sha256: '' → '1'"]),
}


@pytest.mark.parametrize(("changes", "lines"), CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_job_is_refused_with_what_differs(
    tiny_inputs: Path, tmp_path: Path, changes: dict[str, Any], lines: list[str]
) -> None:
    tree = job(tiny_inputs, tmp_path / "run", execution__checkpoint_every_steps=2)
    with pytest.raises(Killed):
        train_here(tree, kill)
    changed = job(tiny_inputs, tmp_path / "run", execution__checkpoint_every_steps=2, **changes)
    with pytest.raises(ValueError, match="belongs to another recipe") as refused:
        train_here(changed)
    for line in lines:
        assert line in str(refused.value)
    warned = warnings(train_here(changed, accept_changes=True))
    assert [line for line in lines if not any(line in message for message in warned)] == []
    assert all("accepted change since step" in message for message in warned)
