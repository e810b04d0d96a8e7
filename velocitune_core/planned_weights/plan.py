"""Plan domain weights from a swarm of short runs, and the evidence for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from velocitune_core.contracts import Planned, SwarmRound, SwarmRun, Targets, Worth
from velocitune_core.mixture_law.law import LawName, MixtureLaw
from velocitune_core.mixture_law.law_sentences import plan_in_words
from velocitune_core.mixture_law.mixture_plan import MixturePlan
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.optimise import optimise_mixture
from velocitune_core.planned_weights.evidence_sentences import (
    earlier_in_words,
    missing_in_words,
    rounds_in_words,
    sibling_in_words,
    worth_in_words,
)
from velocitune_core.planned_weights.static_levels import level_problems, levels_in_words
from velocitune_core.planned_weights.swarm_law import full_law, largest, largest_law, sibling_effect
from velocitune_core.planned_weights.worth import worth_of
from velocitune_core.rounding import carried, whole_units

DECIMALS = 4  # of planned weights and losses: the last digits would make another run on another machine


def plan_weights(
    runs: Sequence[SwarmRun],
    objective: Objective,
    targets: Targets,
    *,
    law: LawName,
    bootstrap: int,
    main_flops: float,
    token_budget: int,
    model: str | None = None,
    rounds: Sequence[SwarmRound] = (),
    missing_runs: Sequence[str] = (),
    priced_by: Targets | None = None,
) -> tuple[dict[str, float], Planned]:
    """Return the weights that are best for an objective, and the evidence for them.

    The law is fitted to the largest runs. Its differences to static training are taken to hold at the full budget,
    where static training reaches the targets; intervals contain what differences change by between the largest sizes.

    Args:
        runs, model: of the swarm, and the folder of the sibling that it trained.
        objective: with initial weights.
        targets: what static training reaches, and by their laws, what it gains from more tokens.
        law, bootstrap: its form, and resamples of the runs.
        main_flops, token_budget: operations and tokens of the main run.
        rounds: in which the runs were made, if the swarm went on by what it had shown.
        missing_runs: names of runs of the swarm that failed.
        priced_by: targets whose laws price the operations of the runs, the same for compared plans; None: `targets`.

    Raises MixtureLawError for runs that no law can be fitted to, and ObjectiveError for guards that no mixture keeps or
    that cannot be judged.
    """
    fitted, sibling = largest_law(runs, law, bootstrap), model is not None
    moved, plan = _at_full_budget(fitted, runs, objective, targets, sibling=sibling)
    prices = priced_by or targets
    worth = worth_of(plan, fitted, objective, runs, prices, main_flops=main_flops, token_budget=token_budget)
    of_plan = [*plan_in_words(moved, plan), *levels_in_words(moved.sets, runs, targets, sibling=sibling)]
    evidence = Planned(
        fraction=largest(runs),
        model=model,
        runs=list(runs),
        rounds=list(rounds),
        missing_runs=list(missing_runs),
        law=_as_json({"name": fitted.name, "evidence": {name: asdict(each) for name, each in fitted.evidence.items()}}),
        plan=_as_json(plan.as_dict()),
        worth=worth,
        explanation=[*of_plan, *_swarm_in_words(runs, rounds, missing_runs, worth, fitted if sibling else None)],
    )
    weights = rounded(plan.weights)
    return {name: weights[name] for name in objective.initial_weights or {}}, evidence


def _at_full_budget(
    fitted: MixtureLaw, runs: Sequence[SwarmRun], objective: Objective, targets: Targets, *, sibling: bool
) -> tuple[MixtureLaw, MixturePlan]:
    """Return a law at the full budget, and the plan by it. Raises ObjectiveError for guards that cannot be judged."""
    if problems := level_problems(objective, targets, sibling=sibling):
        raise ObjectiveError("\n".join(problems))
    law = full_law(fitted, runs, objective.initial_weights or {}, targets, sibling=sibling)
    return law, optimise_mixture(law, objective)


def _swarm_in_words(
    runs: Sequence[SwarmRun],
    rounds: Sequence[SwarmRound],
    missing_runs: Sequence[str],
    worth: Worth,
    of_sibling: MixtureLaw | None,
) -> list[str]:
    """Return what is to be known of a swarm, and its worth; `of_sibling` is its law if a sibling was trained."""
    return [
        *missing_in_words(missing_runs),
        *earlier_in_words(runs),
        *([] if of_sibling is None else [sibling_in_words(sibling_effect(of_sibling, runs))]),
        *rounds_in_words(rounds),
        *worth_in_words(worth, sum(run.use != "earlier" for run in runs)),
    ]


def rounded(weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights of few decimals that sum to 1, as the page of the plan rounds them: order decides between equals.

    Like the weights on the page, they are first cut to as many digits as it carries.
    """
    on_page = {name: carried(max(weight, 0.0)) for name, weight in weights.items()}
    return {name: each / 10**DECIMALS for name, each in whole_units(on_page, 10**DECIMALS).items()}


def _as_json(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a tree as it will be read from its file: with lists in place of tuples."""
    return json.loads(json.dumps(tree))
