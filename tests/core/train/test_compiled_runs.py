"""Runs whose loss torch.compile really compiles, to C++: resumed, with the cache, and where compiling fails."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import job, llama
from torch import nn
from trainings import Run, assert_ends_like, end, start

from velocitune_core.model.io import save_model
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.train.compilation import compiled_loss, missing_for_cpp

EVERY = 3  # steps between checkpoints
COMPILED: dict[str, Any] = {
    "total_steps": 3 * EVERY,
    "execution__compile": "always",
    "execution__checkpoint_every_steps": EVERY,
    "execution__checkpoints_kept": 9,
    "execution__micro_batch_sequences": 6,
}


@pytest.fixture
def model(tiny_inputs: Path, tmp_path: Path) -> Path:
    """Of one layer, which is compiled sooner than two."""
    small = llama()
    small.model.layers = small.model.layers[:1]
    small.config.num_hidden_layers = 1
    save_model(small, load_tokenizer(str(tiny_inputs / "model")), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
@pytest.mark.skipif(missing_for_cpp() is not None, reason=f"torch.compile needs a {missing_for_cpp()} on a CPU")
def test_a_compiled_run_that_goes_on_ends_like_an_unbroken_one_and_compiles_nothing_anew(
    tiny_inputs: Path, model: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(cache), "TORCHINDUCTOR_COMPILE_THREADS": "1"}

    def tree(name: str) -> dict[str, Any]:
        return job(tiny_inputs, tmp_path / name, model=str(model), **COMPILED)

    def libraries() -> set[Path]:
        return set(cache.rglob("*.so"))

    def finished(name: str) -> Run:
        return end(start(tree(name), **variables), tree(name))

    unbroken = finished("unbroken")
    assert unbroken.returncode == 0, unbroken.stderr
    compiled = libraries()
    assert compiled
    first, *_ = unbroken.checkpoints  # as a run has it that is killed after it
    shutil.copytree(unbroken.output / "checkpoints" / first, tmp_path / "broken" / "checkpoints" / first)
    shutil.copy(unbroken.output / "events.jsonl", tmp_path / "broken")
    resumed = finished("broken")
    assert resumed.resumed_from == [None, EVERY]
    assert_ends_like(resumed, unbroken)
    assert libraries() == compiled


class Doubled(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return (values * 2).exp()


@pytest.mark.slow
def test_where_compiling_fails_the_run_goes_on_without() -> None:
    from torch._inductor import config as inductor_config  # not while tests are collected
    from torch._inductor.utils import fresh_cache

    compiled, values = compiled_loss(Doubled()), torch.arange(4.0)
    with fresh_cache(), inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(compiled(values), Doubled()(values))
