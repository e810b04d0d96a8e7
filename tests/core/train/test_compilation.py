"""When a training is compiled, and that a compiled one is one graph, whatever documents its batches hold."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LENGTH, VOCABULARY

from velocitune_core.config import Execution, Training
from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.train import compilation as module
from velocitune_core.train.compilation import Compilation, Work, compilation, compiles_layers
from velocitune_core.train.learner import BatchLoss, Learner

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WIDTH, LAYERS, TOKENS = 96, 4, 4096  # of the default
START, BATCH = 0, 4


def decided(work: Work | None, setting: str = "auto", sharded: bool = False, device: torch.device = CPU) -> Compilation:
    return compilation(setting, device, sharded, WIDTH, LAYERS, work)


def test_a_cpu_compiles_a_long_run_and_runs_that_share_the_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_for_cpp", lambda: None)
    assert not decided(Work(250, TOKENS)).whole_loss
    assert decided(Work(250, TOKENS, runs_alike=80)).whole_loss
    assert decided(Work(5000, TOKENS)).whole_loss
    assert not decided(None).whole_loss
    assert not decided(Work(5000, TOKENS), setting="never").whole_loss
    assert decided(Work(1, TOKENS), setting="always").whole_loss


def test_the_reason_holds_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_for_cpp", lambda: None)
    assert decided(Work(250, TOKENS)).reason == (
        "not compiled: it would save about 10 s of processor time and cost about 34"
    )


def test_without_a_compiler_auto_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = decided(Work(5000, TOKENS))
    assert not found.whole_loss and found.reason.endswith("but there is no C++ compiler")


def test_layers_are_compiled_on_a_gpu_and_sharded_ones_on_request() -> None:
    assert compiles_layers("auto", GPU, sharded=True) and compiles_layers("always", CPU, sharded=True)
    assert not compiles_layers("auto", CPU, sharded=True) and not compiles_layers("never", GPU, sharded=False)
    assert not compiles_layers("always", CPU, sharded=False)
    for device, sharded in ((GPU, False), (GPU, True), (CPU, True)):
        assert not decided(Work(5000, TOKENS), "always", sharded, device).whole_loss
    assert not decided(Work(5000, TOKENS), sharded=True).whole_loss


def learner_of(inputs: Path, setting: str) -> Learner:
    settings = {"batch_sequences": BATCH, "optimizer": {"learning_rate": 1e-2}, "precision": "float32"}
    execution = Execution.model_validate({"compile": setting, "micro_batch_sequences": 2})
    training = Training.model_validate(settings)
    return Learner(str(inputs / "model"), training, execution, SINGLE_RANK, document_start=START)


def step(learner: Learner, number: int) -> BatchLoss:
    rows = np.random.default_rng(number).integers(VOCABULARY, size=(BATCH, LENGTH))
    rows[:, number + 1] = START  # documents begin elsewhere in every batch
    found = learner.gradients(torch.from_numpy(rows), np.zeros(BATCH, dtype=np.int64), 1)
    learner.apply(1e-2)
    return found


@pytest.mark.slow
def test_a_compiled_training_is_one_graph_and_its_evaluations_are_not_compiled(
    tiny_inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.testing import CompileCounter  # not while tests are collected

    graphs = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=graphs, fullgraph=True))
    compiled, plain = learner_of(tiny_inputs, "always"), learner_of(tiny_inputs, "never")
    held_out = {"code": np.random.default_rng(9).integers(VOCABULARY, size=(5, LENGTH))}
    for number in range(4):
        assert step(compiled, number).loss == pytest.approx(step(plain, number).loss, abs=1e-5)
        assert compiled.evaluate(held_out, 3) == pytest.approx(plain.evaluate(held_out, 3), abs=1e-4)
    assert graphs.frame_count == 1
