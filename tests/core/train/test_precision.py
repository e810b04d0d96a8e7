"""How `auto` is resolved for the precision."""

from __future__ import annotations

import pytest
import torch

from velocitune_core.train import precision
from velocitune_core.train.precision import uses_bfloat16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "expected"), [({"avx2", "fma"}, False), ({"avx2", "amx_bf16"}, True), ({"avx512_bf16"}, True)]
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    flags: set[str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_cpu_flags", lambda: flags)
    assert uses_bfloat16("auto", CPU) == expected
    assert uses_bfloat16("bfloat16", CPU) and not uses_bfloat16("float32", CPU)
