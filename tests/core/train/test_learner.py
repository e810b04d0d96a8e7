"""In which precision a model learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from velocitune_core.config import Optimizer, Training
from velocitune_core.parallel.ranks import SINGLE_RANK
from velocitune_core.train import learner
from velocitune_core.train.learner import Learner, uses_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "expected"), [({"avx2", "fma"}, False), ({"avx2", "amx_bf16"}, True), ({"avx512_bf16"}, True)]
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    flags: set[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "_cpu_flags", lambda: flags)
    assert uses_bfloat16("auto", CPU) == expected
    assert uses_bfloat16("bfloat16", CPU) and not uses_bfloat16("float32", CPU)


def test_after_an_evaluation_in_bfloat16_the_state_is_still_the_float32_shares(tiny_inputs: Path) -> None:
    """FSDP2 leaves what a forward pass gathered in place of the shares until a backward pass or a reshard."""
    settings = Training(batch_sequences=2, optimizer=Optimizer(learning_rate=1e-2), precision="bfloat16")
    learner = Learner(str(tiny_inputs / "model"), settings, SINGLE_RANK)
    before = weights(learner)
    learner.evaluate({"code": np.load(tiny_inputs / "code" / "held_out.npy")}, 4)
    after = weights(learner)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    assert all(torch.equal(after[name], before[name]) for name in before)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    state = {name: tensor for name, tensor in learner.state().items() if name.startswith("model.")}
    return {name: getattr(tensor, "full_tensor", tensor.clone)().clone() for name, tensor in state.items()}
