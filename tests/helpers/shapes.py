"""Shapes of models whose figures are published."""

from __future__ import annotations

from velocitune_core.plan.cost import ModelShape

# Llama 2 7B. Embedding and head 2·32000·4096; a layer 4·4096² + 3·4096·11008 + 2·4096; the last norm 4096.
SEVEN_BILLION = ModelShape(
    parameters=2 * 32_000 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096) + 4096,
    layers=32,
    hidden_size=4096,
    intermediate_size=11_008,
    heads=32,
    key_value_heads=32,
    head_size=128,
    vocabulary_size=32_000,
    tied=False,
)
