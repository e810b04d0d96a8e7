"""The number of positions under every name that configurations use."""

from typing import Any

import pytest
from tiny import LENGTH, llama

from velocitune_core.model.fits_data import position_limit


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
