"""The main rank writes the model for longer than a collective of the device may take, and the other one waits."""

from __future__ import annotations

from pathlib import Path

import pytest
from forked import ForkedRun

SLOW_DISK = """
import sys, time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from velocitune_core.config import Execution, Training
from velocitune_core.model.io import write_model
from velocitune_core.parallel import ranks as parallel
from velocitune_core.train import learner as module

parallel.DEVICE_TIMEOUT = timedelta(seconds=3)  # in place of half an hour
ranks = parallel.join_ranks()


def save_slowly(*arguments):
    time.sleep(6)
    write_model(*arguments)


module.write_model = save_slowly
training = Training.model_validate({"optimizer": {"learning_rate": 1e-3}, "batch_sequences": 2, "precision": "float32"})
learner = module.Learner(sys.argv[1], training, Execution(), ranks)
learner.save(Path(sys.argv[2]))
assert (Path(sys.argv[2]) / "model.safetensors").exists()  # on each rank: it waited until the model was there
ranks.all_reduce(torch.zeros(1))  # the group of the device still works
print("done", flush=True)
try:  # and its timeout is the one of above
    if ranks.is_main:
        time.sleep(6)
    dist.barrier()
except RuntimeError:
    print("timed out", flush=True)
"""


@pytest.mark.slow
def test_the_other_rank_waits_for_the_model(tiny_inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "slow_disk.py").write_text(SLOW_DISK)
    arguments = [str(tiny_inputs / "model"), str(tmp_path / "trained")]
    _, said = ForkedRun(arguments, 2, {"PYTHONPATH": str(tmp_path)}, program="slow_disk").communicate(120)
    assert said.count("done") == 2, said  # two ranks may share a line
    assert "timed out" in said
