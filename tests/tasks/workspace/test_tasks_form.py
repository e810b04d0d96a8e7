"""The fields of the deployment's form: what Prefect shows of them, and the overrides that they become."""

from __future__ import annotations

from typing import get_args

import pytest
from prefect.utilities.callables import parameter_schema

from flows.pipeline import velocitune
from tasks.workspace.form import StrategyName, with_fields
from velocitune_core.config import ConfigError
from velocitune_core.strategies import PLANNED_COURSE, PRESETS, REGISTRY


def test_the_form_has_a_described_field_for_what_one_varies() -> None:
    fields = parameter_schema(velocitune.fn).properties
    assert [*fields] == ["strategy", "seed", "token_budget", "objective", "overrides", "goal", "fresh"]
    assert all(field["description"] for field in fields.values())
    names, none = fields["strategy"]["anyOf"]
    assert set(names["enum"]) == {*REGISTRY, *PRESETS} - {PLANNED_COURSE} == set(get_args(StrategyName))
    assert none == {"type": "null"} and fields["strategy"]["default"] is None
    assert fields["seed"]["anyOf"][0] == {"type": "integer", "minimum": 0}
    assert fields["token_budget"]["anyOf"][0]["exclusiveMinimum"] == 0
    assert set(fields["objective"]["anyOf"][0]["enum"]) == {"macro", "by_size"}


def test_fields_that_are_set_become_overrides() -> None:
    rate = {"training.optimizer.learning_rate": 0.001}
    assert with_fields(rate, None, None, None, None) == rate
    assert with_fields(rate, "planned", 2, 1000, "by_size") == {
        **rate,
        "strategy.name": "planned",
        "training.seed": 2,
        "training.token_budget": 1000,
        "mixture.objective.average": "by_size",
    }
    with pytest.raises(ConfigError, match=r"training.seed: 2 in its field, 3 in overrides; set one"):
        with_fields({"training.seed": 3}, None, 2, None, None)
