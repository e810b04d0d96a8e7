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
from velocitune_core.train.compilation import Compilation, Place, Work, compilation, missing_for_cpp
from velocitune_core.train.learner import BatchLoss, Learner

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FLOAT32, BFLOAT16 = Place(CPU), Place(CPU, bfloat16=True)
WIDTH, LAYERS, TOKENS = 96, 4, 4096  # of the default
START, BATCH = 0, 4


def decided(work: Work | None, setting: str = "auto", place: Place = FLOAT32) -> Compilation:
    return compilation(setting, place, WIDTH, LAYERS, work)


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_for_cpp", lambda: None)
    monkeypatch.setattr(module, "has_bfloat16_units", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("place", [FLOAT32, BFLOAT16])
def test_a_cpu_compiles_a_long_run_and_runs_that_share_the_cost(place: Place) -> None:
    def compiles(work: Work | None, setting: str = "auto") -> bool:
        found = decided(work, setting, place)
        assert not (found.layers if place == FLOAT32 else found.whole_loss)
        return found.layers or found.whole_loss

    assert not compiles(Work(250, TOKENS))
    assert compiles(Work(250, TOKENS, runs_alike=80))
    assert compiles(Work(5000, TOKENS))
    assert not compiles(None)
    assert not compiles(Work(5000, TOKENS), setting="never")
    assert compiles(Work(1, TOKENS), setting="always")


@pytest.mark.usefixtures("able")
def test_the_reason_holds_the_figures() -> None:
    assert decided(Work(250, TOKENS)).reason == (
        "not compiled: it would save about 10 s of processor time and cost about 34"
    )
    # 3e-8 s · 5,000 steps · 4,096 tokens · 4 layers · width 96 = 236 s
    assert decided(Work(5000, TOKENS), place=BFLOAT16).reason == (
        "layers compiled: it would save about 236 s of processor time and cost about 20"
    )


@pytest.mark.parametrize("place", [FLOAT32, BFLOAT16])
def test_without_a_compiler_auto_does_not_compile(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    monkeypatch.setattr(module, "has_bfloat16_units", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = decided(Work(5000, TOKENS), place=place)
    assert not (found.whole_loss or found.layers) and found.reason.endswith("but there is no C++ compiler")


@pytest.mark.usefixtures("able")
def test_bfloat16_without_units_for_it_and_several_processes_are_compiled_on_request_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "has_bfloat16_units", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for place in (BFLOAT16, Place(CPU, ranks=2), Place(CPU, ranks=2, bfloat16=True)):
        found = decided(Work(5000, TOKENS), place=place)
        assert not (found.layers or found.whole_loss) and found.reason.startswith("not compiled")
        assert decided(Work(5000, TOKENS), "always", place).layers


def test_a_gpu_compiles_layers_unless_refused() -> None:
    for place in (Place(GPU), Place(GPU, ranks=8, bfloat16=True)):
        for setting in ("auto", "always"):
            assert decided(None, setting, place) == Compilation("layers are compiled", layers=True)
        assert not decided(Work(5000, TOKENS), "never", place).layers


def learner_of(inputs: Path, setting: str, precision: str = "float32") -> Learner:
    settings = {"batch_sequences": BATCH, "optimizer": {"learning_rate": 1e-2}, "precision": precision}
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


@pytest.mark.slow
@pytest.mark.skipif(missing_for_cpp() is not None, reason=f"torch.compile needs a {missing_for_cpp()} on a CPU")
def test_compiled_layers_in_bfloat16_train_alike_and_are_not_compiled_for_evaluations(
    tiny_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters  # not while tests are collected

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiled, plain = (learner_of(tiny_inputs, setting, "bfloat16") for setting in ("always", "never"))
    held_out = {"code": np.random.default_rng(9).integers(VOCABULARY, size=(5, LENGTH))}
    assert compiled.evaluate(held_out, 3) == plain.evaluate(held_out, 3)  # from the same code, so bit for bit
    counters.clear()
    assert step(compiled, 0).loss == pytest.approx(step(plain, 0).loss, abs=1e-2)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    compiled.evaluate(held_out, 3)
    assert counters["stats"]["unique_graphs"] == graphs
