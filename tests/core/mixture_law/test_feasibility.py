"""Guards and bounds that no mixture keeps: what is named would do, and less would not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from known_law import PAIR, KnownLaw, everywhere, known_law

from velocitune_core.mixture_law.feasibility import uncovered_bounds
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.optimise import optimise_mixture
from velocitune_core.mixture_law.swarm_design import design_swarm

ANYWHERE = replace(everywhere(2), low=np.full(2, 0.01))
HALVES = {"a": 0.5, "b": 0.5}
LESS = 3e-4  # nats: limits are named with four decimals


def refused(law: KnownLaw, objective: Objective) -> str:
    """Why no mixture keeps an objective; "" if one does."""
    try:
        optimise_mixture(law, objective)
    except ObjectiveError as error:
        return str(error)
    return ""


def test_guards_that_nothing_keeps_are_named_with_the_least_limit_that_would_do() -> None:
    # a may be 13, so w₂ ≤ 1 − 4/13 and b is 13/9 at least: 5/9 better than static
    with pytest.raises(
        ObjectiveError, match=r"of b: .* -1\.6 nats; the least limit that would do is -0\.5555"
    ) as alone:
        optimise_mixture(
            PAIR, Objective(initial_weights=HALVES, worse_than_static={"a": 5.0, "b": -1.6}), support=ANYWHERE
        )
    assert "of a" not in str(alone.value)
    # a = 8 − 1 wants w₁ ≥ 4/7, so b is 7/3 at best: 1/3 above static; b = 2.1 wants w₂ ≥ 0.47619, a is 4/0.5238 − 8
    both = Objective(initial_weights=HALVES, worse_than_static={"a": -1.0, "b": 0.1})
    with pytest.raises(ObjectiveError, match="at once") as together:
        optimise_mixture(PAIR, both, support=ANYWHERE)
    assert "of a: beside the other guards -1 nats; the least limit that would do is -0.3636" in str(together.value)
    assert "of b: beside the other guards +0.1 nats; the least limit that would do is 0.3334" in str(together.value)
    assert (
        optimise_mixture(PAIR, replace(both, worse_than_static={"a": -1.0, "b": 0.3334}), support=ANYWHERE).weights["a"]
        > 0.57
    )


def changed(objective: Objective, limits: Mapping[str, float]) -> Objective:
    """The objective with other limits, by the name of their setting in messages."""
    fields: dict[str, Any] = {}
    for setting, limit in limits.items():
        field, _, name = setting.partition(" of ")
        fields[field] = {**fields.get(field, getattr(objective, field)), name: limit} if name else limit
    return replace(objective, **fields)


def advised(message: str, limits: Mapping[str, float]) -> list[dict[str, float]]:
    """The limits that a message says would do, by setting: each of them alone, or all of a list together."""
    if "loosened alike" in message:
        return [{name: float(limit) for name, limit in re.findall(r"objective\.(\S+ of \w+|\w+): (\S+), not", message)}]
    found = re.findall(r"objective\.(\S+ of \w+|\w+): .*the least limit that would do is (\S+)", message)
    every = [float(by) for by in re.findall(r"all by (\S+) nats", message)]
    return [
        *({name: float(limit)} for name, limit in found),
        *({name: limit + by for name, limit in limits.items()} for by in every),
    ]


def settings_of(asked: Mapping[str, Any]) -> dict[str, float]:
    """The limits of an objective by the name of their setting."""
    found = {}
    for field, limit in asked.items():
        of_sets = {f"{field} of {name}": one for name, one in limit.items()} if isinstance(limit, dict) else {}
        found |= of_sets or {field: limit}
    return found


@pytest.mark.parametrize("size", [2, 3, 5])
def test_limits_that_are_named_suffice_and_smaller_ones_do_not(size: int) -> None:
    seen = set()
    for seed in range(3):
        law, random = known_law(size, seed=seed), np.random.default_rng(seed)
        initial = dict(zip(law.domains, random.dirichlet(np.full(size, 4.0)), strict=True))
        static = dict(zip(law.sets, law.losses(np.array(list(initial.values()))), strict=True))
        basis = Objective(initial_weights=initial, initial_losses=static, retained=law.sets)
        few = {name: float(limit) for name, limit in zip("ab", random.uniform(-0.6, -0.1, 2), strict=True)}
        for asked in (
            {"worse_than_static": -0.02},
            {"worse_than_static": few},
            {"worse_than_static": few, "averages_worse_than_static": {"macro": -0.02}},
            {"forgetting": -0.01, "worse_than_static": {"a": -0.1}},
        ):
            objective = replace(basis, **asked)
            if not (message := refused(law, objective)):
                continue
            assert "-0.0000" not in message
            for limits in (found := advised(message, settings_of(asked))):
                seen.add((len(limits), *sorted(each.partition(" ")[0] for each in limits)))
                assert not refused(law, changed(objective, limits)), (message, asked)
                less = {name: limit - LESS for name, limit in limits.items()}
                assert refused(law, changed(objective, less)), (message, asked)
            assert found, message
    assert (1, "worse_than_static") in seen and len(seen) > 2


def test_one_number_for_all_sets_is_answered_by_one_number() -> None:
    law = known_law(3, seed=2)
    initial = dict(zip(law.domains, (0.5, 0.3, 0.2), strict=True))
    message = refused(law, Objective(initial_weights=initial, worse_than_static=-0.05))
    said = "objective.worse_than_static: no mixture that the runs cover keeps -0.05 nats in every set"
    assert re.fullmatch(rf"{said}; the least limit that would do is -?0\.\d{{4}}", message)


def test_bounds_that_planned_runs_will_not_cover_are_found_before_they_run() -> None:
    initial = {"code": 0.6, "law": 0.3, "general": 0.1}
    runs = [initial, *design_swarm(initial, runs=11, seed=1)]
    most = max(run["general"] for run in runs)
    assert uncovered_bounds(Objective(initial_weights=initial, least_share={"general": 0.3}), list(initial), runs) == []
    too_much = Objective(initial_weights=initial, least_share={"general": 0.95})
    assert uncovered_bounds(too_much, list(initial), runs) == [
        f"objective.least_share of general is 0.95; the runs go up to {most:.4g}"
    ]
    # no bound is outside the range of its domain, but no run is near a mixture that keeps both
    both = Objective(initial_weights=initial, least_share={"general": most - 0.01}, largest_share={"law": 0.02})
    (line,) = uncovered_bounds(both, list(initial), runs)
    assert "together leave no mixture near enough to the runs" in line
