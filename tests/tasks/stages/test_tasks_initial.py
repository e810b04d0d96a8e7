"""Initial losses of the tiny model on its two domains."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LENGTH, VOCABULARY, llama

from tasks.runs.launch import TrainingFailedError
from tasks.stages.initial import evaluate_base, worse_than_guessing
from tasks.workspace import paths
from tasks.workspace.fresh import starting_over
from velocitune_core.config import ConfigError, Params
from velocitune_core.contracts import Border, DocumentBorders, InitialLosses, Manifest
from velocitune_core.model.loss import NextTokenLoss
from velocitune_core.train.events import EvaluationStarted, Event, read_events


@pytest.fixture(autouse=True)
def _forked(forked_program: None, no_views: Callable[[str], None]) -> None:
    no_views("tasks.stages.initial")


def events_of_run() -> list[Event]:
    return list(read_events(next(paths.RUNS.glob("initial-*/events.jsonl"))))


def test_losses_are_those_of_the_model_on_every_held_out_token(prepared: tuple[Params, Manifest]) -> None:
    params, manifest = prepared
    initial = evaluate_base.fn(params, manifest)
    assert InitialLosses.read(paths.INITIAL) == initial
    for name, domain in manifest.domains.items():
        rows = torch.from_numpy(np.load(paths.PREPARED / domain.held_out.file).astype(np.int64))
        with torch.no_grad():
            logits = llama()(rows[:, :-1]).logits.double()
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        assert initial.losses[name] == pytest.approx(expected.item(), abs=1e-5)
        assert initial.losses[name] == pytest.approx(math.log(VOCABULARY), abs=0.1)  # an untrained model
        assert initial.tokens[name] == len(rows) * (LENGTH - 1)


def test_a_model_that_is_worse_than_guessing_is_warned_of() -> None:
    """ln 64 = 4.1589 is the loss of the same probability for each of 64 tokens."""
    measured = InitialLosses(precision="float32", losses={"code": 4.1, "law": 4.2}, tokens={}, seconds=0.0)
    [warning] = worse_than_guessing(measured, 64)
    assert "worse than guessing (ln 64 = 4.16 nats per token) on law 4.20: its tokenizer may be" in warning
    assert worse_than_guessing(measured, 100) == []


def test_losses_are_of_attention_as_in_the_training(prepared: tuple[Params, Manifest]) -> None:
    params, manifest = prepared
    borders = DocumentBorders(start=Border(ids=[5], tokens=["word5"]), mask=True)
    losses = evaluate_base.fn(params, manifest.model_copy(update={"documents": borders})).losses
    for name, domain in manifest.domains.items():
        rows = torch.from_numpy(np.load(paths.PREPARED / domain.held_out.file).astype(np.int64))
        with torch.no_grad():
            expected = NextTokenLoss(llama().eval(), document_start=5)(rows).double().mean()
        assert losses[name] == pytest.approx(expected.item(), abs=1e-6)
    assert losses != pytest.approx(evaluate_base.fn(params, manifest).losses, abs=1e-6)


def test_a_finished_evaluation_is_taken_whatever_its_execution(prepared: tuple[Params, Manifest]) -> None:
    params, manifest = prepared
    first = evaluate_base.fn(params, manifest)
    paths.INITIAL.unlink()
    log = next(paths.RUNS.glob("initial-*/log.txt"))
    log.unlink()
    execution = params.execution.model_copy(update={"evaluation_micro_batch_sequences": 2})
    assert evaluate_base.fn(params.model_copy(update={"execution": execution}), manifest) == first
    assert InitialLosses.read(paths.INITIAL) == first and not log.exists()
    with starting_over(True):
        again = evaluate_base.fn(params, manifest)
    assert log.exists() and again.losses == first.losses


@pytest.mark.slow
def test_losses_are_measured_in_the_arithmetic_of_the_training_also_of_sets_without_training_text(
    prepared: tuple[Params, Manifest],
) -> None:
    params, manifest = prepared
    changed = manifest.model_copy(update={"measured": {"set": manifest.domains["law"]}})
    rounded = params.training.model_copy(update={"precision": "bfloat16"})
    exact = evaluate_base.fn(params, changed)
    half = evaluate_base.fn(params.model_copy(update={"training": rounded}), changed)
    assert (exact.precision, half.precision) == ("float32", "bfloat16")
    assert half.losses != exact.losses and half.losses == pytest.approx(exact.losses, abs=0.01)
    assert set(exact.losses) == {"code", "law"} and exact.measured == {"set": pytest.approx(exact.losses["law"])}


@pytest.mark.slow
def test_several_processes_share_the_model(prepared: tuple[Params, Manifest]) -> None:
    params, manifest = prepared
    two = params.model_copy(update={"resources": params.resources.model_copy(update={"processes": 2})})
    losses = evaluate_base.fn(two, manifest).losses
    (started,) = [event for event in events_of_run() if isinstance(event, EvaluationStarted)]
    assert started.world_size == 2
    with starting_over(True):
        assert evaluate_base.fn(params, manifest).losses == pytest.approx(losses, abs=1e-6)


def test_an_altered_held_out_file_is_refused(prepared: tuple[Params, Manifest]) -> None:
    params, manifest = prepared
    path = paths.PREPARED / manifest.domains["law"].held_out.file
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ConfigError, match=rf"{path}: not the file that `prepare` wrote"):
        evaluate_base.fn(params, manifest)
    assert not paths.INITIAL.exists()


def test_a_model_that_is_missing_is_an_error(prepared: tuple[Params, Manifest]) -> None:
    params, manifest = prepared
    gone = params.model_copy(update={"model": params.model.model_copy(update={"path": "models/gone"})})
    with pytest.raises((ValueError, OSError), match=str(Path("models/gone"))):
        evaluate_base.fn(gone, manifest)


def test_what_is_wrong_with_a_model_is_in_the_error(prepared: tuple[Params, Manifest]) -> None:
    params, manifest = prepared
    shutil.copytree(params.model.path, "models/cut")
    weights = Path("models/cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    cut = params.model_copy(update={"model": params.model.model_copy(update={"path": "models/cut"})})
    with pytest.raises(TrainingFailedError, match=r"(?s)The end of .*cannot load the model of models/cut"):
        evaluate_base.fn(cut, manifest)
    assert not paths.INITIAL.exists()
