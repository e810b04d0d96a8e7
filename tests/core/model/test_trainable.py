"""Models that cannot be trained as their configuration asks, named with value and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from velocitune_core.model.trainable import check_trainable, training_notes, training_problems

ROUTED = {"num_local_experts": 8, "router_aux_loss_coef": 0.02}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"quantization_config": {"quant_method": "gptq"}},
            ["quantization_config (quant_method 'gptq')", "dequantize"],
        ),
        ({"quantization_config": "odd"}, ["quant_method 'odd'"]),
        (ROUTED | {"output_router_logits": True}, ["router_aux_loss_coef 0.02", "set output_router_logits to false"]),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, ["config.json: text_config", "'awq'"]),
    ],
)
def test_each_reason_has_place_value_and_remedy(config: dict[str, Any], expected: list[str]) -> None:
    (problem,) = training_problems(config, "models/mine")
    assert problem.startswith("model.path: models/mine/config.json")
    assert all(part in problem for part in expected)


def test_all_reasons_are_given_at_once(tmp_path: Path) -> None:
    config = ROUTED | {"output_router_logits": True, "quantization_config": {"quant_method": "gptq"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert len(check_trainable(str(tmp_path))) == 2


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"quantization_config": None},
        ROUTED | {"output_router_logits": False},
        {"output_router_logits": True, "router_aux_loss_coef": 0.0},
    ],
)
def test_others_can_be_trained(config: dict[str, Any]) -> None:
    assert training_problems(config, "models/mine") == []


def test_a_mixture_of_experts_without_router_loss_has_a_note() -> None:
    assert len(training_notes(ROUTED)) == 1 and training_notes({"model_type": "llama"}) == []


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_an_unreadable_configuration_is_not_reported_twice(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert check_trainable(str(tmp_path)) == []
