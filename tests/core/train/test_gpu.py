"""The training engine on a CUDA device; `benchmarks/gpu.py` checks and measures more."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from tiny import LENGTH, VOCABULARY
from tiny import job as tiny_job

from velocitune_core.config import Execution, Optimizer, Training
from velocitune_core.train.job import TrainJob

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_a_gpu_learns_what_a_cpu_learns(tiny_inputs: Path, tmp_path: Path, precision: str, tolerance: float) -> None:
    """Held-out losses of every evaluation, in nats per token."""
    import torch

    from velocitune_core.parallel.ranks import Ranks
    from velocitune_core.train.trainer import Trainer

    curves = []
    for device in ("cpu", "cuda"):
        tree = tiny_job(tiny_inputs, tmp_path / device, training__precision=precision)
        result = Trainer(TrainJob.model_validate(tree, strict=False), Ranks(0, 1, torch.device(device))).run()
        curves.append([list(point.losses.values()) for point in result.points])
    assert np.abs(np.array(curves[0]) - np.array(curves[1])).max() < tolerance


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_waits_for_the_gpu_once(tiny_inputs: Path, precision: str, checkpointing: bool) -> None:
    import torch

    from velocitune_core.parallel.ranks import Ranks
    from velocitune_core.train.learner import Learner

    passes = 4
    settings = Training(batch_sequences=2 * passes, optimizer=Optimizer(learning_rate=1e-3), precision=precision)  # type: ignore[arg-type]
    execution = Execution(micro_batch_sequences=2, compile="never", activation_checkpointing=checkpointing)
    learner = Learner(str(tiny_inputs / "model"), settings, execution, Ranks(0, 1, torch.device("cuda")))
    sequences, domains = torch.randint(VOCABULARY, (2 * passes, LENGTH)), np.arange(2 * passes) % 2

    def step() -> None:
        learner.gradients(sequences, domains, 2)
        learner.apply(1e-3)

    step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        step()
        torch.cuda.set_sync_debug_mode("default")
    assert sum("called a synchronizing" in str(each.message) for each in caught) <= 1
