"""A run whose execution, recipe, data or model changed between a kill and its resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from faults import train_here, warnings
from tiny import job

from velocitune_core.config import Execution
from velocitune_core.train.events import Event, Started, Stepped

pytestmark = pytest.mark.slow


class Killed(Exception):
    """Leaves the run where it stands, as a kill would."""


def kill(event: Event) -> None:
    if isinstance(event, Stepped) and event.step == 6:
        raise Killed


SETTINGS = {"execution__checkpoint_every_steps": 2, "total_steps": 8}
OTHER_EXECUTION: dict[str, Any] = {  # a value for every field that the tiny job does not have
    "micro_batch_sequences": 2,
    "evaluation_micro_batch_sequences": 3,
    "activation_checkpointing": True,
    "gather": "step",
    "compile": "always",
    "log_every_steps": 2,
    "checkpoint_every_steps": 3,
    "checkpoints_kept": 1,
    "on_save_failure": "stop",
    "shutdown_seconds": 5,
}


@pytest.fixture(scope="module")
def unbroken(tiny_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of a run that nothing happened to."""
    return losses(train_here(job(tiny_inputs, tmp_path_factory.mktemp("unbroken"), **SETTINGS)))


def test_every_execution_setting_is_tried() -> None:
    assert OTHER_EXECUTION.keys() == Execution.model_fields.keys()


@pytest.mark.parametrize("field", Execution.model_fields)
def test_a_killed_run_resumes_under_any_other_execution(
    tiny_inputs: Path, tmp_path: Path, unbroken: dict[int, float], field: str
) -> None:
    tree = job(tiny_inputs, tmp_path / "run", **SETTINGS)
    with pytest.raises(Killed):
        train_here(tree, kill)
    assert tree["execution"].get(field, Execution.model_fields[field].default) != OTHER_EXECUTION[field]
    tree["execution"][field] = OTHER_EXECUTION[field]
    # a compiled loss is asked for and runs as it is: that its numbers are the same is what test_compiled_runs shows
    with torch.compiler.set_stance("force_eager"):
        resumed = train_here(tree)
    (started,) = [event for event in resumed if isinstance(event, Started)]
    assert started.resumed_from is not None and started.resumed_from >= 4 and warnings(resumed) == []
    assert losses(resumed)[8] == pytest.approx(unbroken[8], abs=1e-5)


def losses(logged: list[Event]) -> dict[int, float]:
    return {event.step: event.loss for event in logged if isinstance(event, Stepped)}


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
    "precision": ({"training__precision": "bfloat16"}, ["training.precision: 'float32' → 'bfloat16'"]),
    "length": ({"total_steps": 12}, ["total_steps: 8 → 12"]),  # the cosine schedule is of all steps
}


@pytest.mark.parametrize(("changes", "lines"), CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_recipe_is_refused_with_what_differs(
    tiny_inputs: Path, tmp_path: Path, changes: dict[str, Any], lines: list[str]
) -> None:
    with pytest.raises(Killed):
        train_here(job(tiny_inputs, tmp_path / "run", **SETTINGS), kill)
    changed = job(tiny_inputs, tmp_path / "run", **SETTINGS | changes)
    with pytest.raises(ValueError, match="belongs to another recipe") as refused:
        train_here(changed)
    for line in lines:
        assert line in str(refused.value)
    warned = warnings(train_here(changed, accept_changes=True))
    assert [line for line in lines if not any(line in message for message in warned)] == []
    assert all("accepted change since step" in message for message in warned)
