"""The same training on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import job as tiny_job

from velocitune_core.train.job import TrainJob

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-2), ("bfloat16", 5e-2)])
def test_a_gpu_learns_what_a_cpu_learns(tiny_inputs: Path, tmp_path: Path, precision: str, tolerance: float) -> None:
    import torch

    from velocitune_core.parallel.ranks import Ranks
    from velocitune_core.train.trainer import Trainer

    finals = []
    for device in ("cpu", "cuda"):
        tree = tiny_job(tiny_inputs, tmp_path / device, training__precision=precision)
        trainer = Trainer(TrainJob.model_validate(tree, strict=False), Ranks(0, 1, torch.device(device)))
        finals.append(trainer.run().final)
    assert finals[1] == pytest.approx(finals[0], rel=tolerance)
