"""The fields of the deployment's form in Prefect's UI, as overrides of params.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.workspace.override_keys import dotted
from velocitune_core.config import ConfigError

StrategyName = Literal[
    "static", "uniform", "temperature", "velocitune", "recommended", "planned", "dbl", "doremi", "odm", "ado"
]  # those of velocitune_core.strategies that a user chooses; one of your own goes into the overrides
Average = Literal["macro", "by_size"]
Seed = Annotated[int, Field(ge=0)]
Tokens = Annotated[int, Field(gt=0)]


def with_fields(
    overrides: Mapping[str, Any] | None,
    strategy: StrategyName | None,
    seed: Seed | None,
    token_budget: Tokens | None,
    objective: Average | None,
) -> dict[str, Any]:
    """Return the overrides of a form: its fields that are set, and what was given as `overrides`.

    Raises ConfigError for a key that is given twice, with two values.
    """
    fields = {
        "strategy.name": strategy,
        "training.seed": seed,
        "training.token_budget": token_budget,
        "mixture.objective.average": objective,
    }
    chosen = {key: value for key, value in fields.items() if value is not None}
    given = dotted(overrides or {})
    if twice := [key for key in chosen if key in given and given[key] != chosen[key]]:
        raise ConfigError(
            "\n".join(f"{key}: {chosen[key]!r} in its field, {given[key]!r} in overrides; set one" for key in twice)
        )
    return given | chosen
