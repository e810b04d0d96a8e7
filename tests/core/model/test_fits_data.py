"""The numbers of positions and embeddings that a configuration names, under every name, or has by default."""

from pathlib import Path
from typing import Any

import pytest
from tiny import LENGTH, llama

from velocitune_core.model.fits_data import Fit, check_vocabulary, position_limit


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (llama().config.to_dict(), LENGTH),
        ({"max_seq_len": 2048}, 2048),  # MPT
        ({"n_positions": 1024, "n_ctx": 512}, 1024),  # GPT-2
        ({"max_position_embeddings": None}, None),
        ({}, None),
    ],
)
def test_the_limit_has_many_names(config: dict[str, Any], limit: int | None) -> None:
    assert position_limit(config) == limit


def test_the_vocabulary_is_that_of_the_class_where_config_json_names_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert check_vocabulary(str(tmp_path), 50256) == Fit()
    (problem,) = check_vocabulary(str(tmp_path), 50257).problems
    assert "has token ids up to 50257, and the model has 50257 embeddings" in problem
