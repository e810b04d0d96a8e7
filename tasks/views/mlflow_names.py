"""Names of MLflow's runs: what each is, in words that differ where runs do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from velocitune_core.config import Params, without_credentials
from velocitune_core.style.text import counted, tokens_text

SEPARATOR = " · "
_SHOWN = 2  # differing settings in a name


def joined(*parts: str) -> str:
    """Return the parts of a name that are not empty, in one."""
    return SEPARATOR.join(part for part in parts if part)


def parent_name(params: Params, comparing: bool = False) -> str:
    """Return the name of a pipeline: strategy, budget and seed; of a comparison: strategies, seeds, and budget.

    No run of the training program is called so.
    """
    budget = params.training.token_budget
    size = "one epoch" if budget is None else f"{tokens_text(budget)} tokens"
    if comparing and params.compare is not None:
        runs, seeds = len(params.compare.runs), len(params.compare.seeds)
        return joined("comparison", f"{counted(runs, 'strategy')} × {counted(seeds, 'seed')}", size)
    return joined("pipeline", params.strategy.name, size, f"seed {params.training.seed}")


def used_settings(params: Params, comparing: bool = False) -> dict[str, Any]:
    """Return the settings that decide the results of a pipeline, or of a comparison, which has its own seeds."""
    recipe = params.recipe()
    del recipe["strategy" if comparing else "compare"]
    if comparing:
        del recipe["training"]["seed"]
    return recipe


def other_settings(params: Params, first: Mapping[str, str], digest: str, comparing: bool = False) -> str:
    """Return by what a parent differs from the first one of its name: up to two settings, or how many there are.

    Settings that are not shown, such as credentials, count for the digest alone.

    Args:
        first: the logged settings of that one.
        digest: of the settings of this one.
    """
    used = used_settings(params, comparing)
    recipe, shown = (
        {key: str(value) for key, value in flatten(tree, ".")} for tree in (without_credentials(used), params.shown())
    )
    changed = {key: value for key, value in recipe.items() if first.get(key) != value}
    gone = [key for key in first if key not in shown and key.partition(".")[0] in used]
    changed |= dict.fromkeys(gone, "left out")
    if len(changed) > _SHOWN:
        return f"{counted(len(changed), 'other setting')} ({digest[:6]})"
    return ", ".join(f"{key} {value}" for key, value in changed.items()) or f"settings {digest[:6]}"


def flatten(tree: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, each under the keys that lead to it, joined by the separator."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value
