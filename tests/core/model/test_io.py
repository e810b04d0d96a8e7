"""Several threads load models and tokenizers at once, as a comparison does that scores its models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from velocitune_core.model.io import load_model
from velocitune_core.model.tokenizer import load_tokenizer


def test_threads_that_load_at_once_get_complete_models(tiny_inputs: Path) -> None:
    folder = str(tiny_inputs / "model")
    expected = load_model(folder).state_dict()

    def load(number: int) -> bool:
        load_tokenizer(folder)
        found = load_model(folder).state_dict()
        return all(torch.equal(found[name], expected[name]) for name in expected)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(load, range(40)))
