"""Plan domain weights from a swarm of short runs: law of the losses, optimum of an objective, what it is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from velocitune_core.contracts import Law, Planned, ProxyResult, Steering, SwarmRun, Targets, Worth
from velocitune_core.mixture_law.break_even import pays_from
from velocitune_core.mixture_law.budget import at_full_budget
from velocitune_core.mixture_law.law import LawName, MixtureLaw, fit_mixture_law
from velocitune_core.mixture_law.mixture_plan import MixturePlan
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.optimise import optimise_mixture
from velocitune_core.mixture_law.plan_sentences import explain

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
) -> tuple[dict[str, float], Planned]:
    """Return the weights that are best for an objective, and the evidence for them.

    The law is fitted to the largest runs. Its differences to static training are taken to hold at the full budget,
    where static training reaches the targets; intervals contain what differences change by between the largest sizes.

    Args:
        runs: of the swarm.
        objective: with initial weights.
        targets: what static training reaches, and by their laws, what it gains from more tokens.
        law: its form.
        bootstrap: resamples of the runs.
        main_flops: operations of the main run.
        token_budget: of the main run.
        model: folder of the sibling that was trained.

    Raises MixtureLawError for runs that no law can be fitted to, and ObjectiveError for guards that no mixture keeps.
    """
    fitted = largest_law(runs, law, bootstrap)
    start = objective.initial_weights or {}
    plan = optimise_mixture(full_law(fitted, runs, start, targets), objective)
    worth = worth_of(plan, fitted, objective, runs, targets, main_flops=main_flops, token_budget=token_budget)
    evidence = Planned(
        fraction=max(run.fraction for run in runs),
        model=model,
        runs=list(runs),
        law=_as_json({"name": fitted.name, "evidence": {name: asdict(each) for name, each in fitted.evidence.items()}}),
        plan=_as_json(plan.as_dict()),
        worth=worth,
        explanation=[*explain(plan), *worth_in_words(worth, len(runs))],
    )
    return rounded({name: plan.weights[name] for name in start}), evidence


def largest_law(runs: Sequence[SwarmRun], law: LawName, bootstrap: int = 0) -> MixtureLaw:
    """Return the law of the largest runs of a swarm. Raises MixtureLawError for runs that no law can be fitted to."""
    return _law_at(max(run.fraction for run in runs), runs, law, bootstrap)


def full_law(
    fitted: MixtureLaw, runs: Sequence[SwarmRun], initial_weights: Mapping[str, float], targets: Targets
) -> MixtureLaw:
    """Return the law of the largest runs, moved to the full budget, where static training reaches the targets."""
    smaller = sorted({run.fraction for run in runs})[:-1]
    earlier = _law_at(smaller[-1], runs, cast("LawName", fitted.name)) if smaller else None
    known = {name: float(loss) for name, loss in fitted.predict(initial_weights).items()} | targets.losses()
    return at_full_budget(fitted, initial_weights, known, earlier=earlier)


def rounded(weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights of few decimals that sum to 1; the largest takes what rounding leaves."""
    found = {name: round(max(weight, 0.0), DECIMALS) for name, weight in weights.items()}
    largest = max(found, key=lambda name: found[name])
    rest = sum(weight for name, weight in found.items() if name != largest)
    return found | {largest: round(1 - rest, DECIMALS)}


def steering_of(
    planned: Planned, domains: Sequence[str], initial: Mapping[str, float], proxies: Sequence[ProxyResult]
) -> Steering:
    """Return the losses that are predicted for planned weights, and the course that leads there.

    Static training and planned training take the same course, as shares of their own gaps: what the largest proxy still
    had to go to its own last loss, at each measurement along it. A straight line where that proxy closed no gap.

    Args:
        domains: that are trained on.
        initial: losses of the base model.
        proxies: static runs.

    Raises ValueError without proxies.
    """
    if not proxies:
        raise ValueError("no proxy is there to take the course of a plan from; run the stage `proxies`")
    longest = max(proxies, key=lambda proxy: proxy.tokens)
    predicted = planned.plan["mixtures"]["recommended"]["losses"]
    course = {}
    for name in domains:
        last = longest.final.losses[name]
        gap = initial[name] - last
        along = [point for point in longest.points if 0 < point.tokens < longest.tokens] if gap > 0 else []
        shares = [min(max((point.losses[name] - last) / gap, 0.0), 1.0) for point in along]
        points = [(point.tokens / longest.tokens, share) for point, share in zip(along, shares, strict=True)]
        inner = [(round(progress, DECIMALS), round(share, DECIMALS)) for progress, share in points]
        course[name] = [(0.0, 1.0), *inner, (1.0, 0.0)]
    target_loss = {name: round(predicted[name]["value"], DECIMALS) for name in domains}
    return Steering(target_loss=target_loss, course=course)


def worth_of(
    plan: MixturePlan,
    law: MixtureLaw,
    objective: Objective,
    runs: Sequence[SwarmRun],
    targets: Targets,
    *,
    main_flops: float,
    token_budget: int,
) -> Worth:
    """Return what a plan gains beside what static training would gain from the operations of its swarm.

    Static training is continued by the scaling laws behind the targets, whose tokens are those of the whole mixture.
    """
    gain = -plan.mixtures["recommended"].differences[plan.average].value
    share = sum(run.flops for run in runs) / main_flops
    shares = objective.average_shares(plan.average, law.domains, law.sets)
    laws = _laws(targets)
    if any(weight and name not in laws for name, weight in shares.items()):
        return Worth(gain=gain, share=share, static_gain=None, pays_from=None)
    extra = share * token_budget

    def average(tokens: float) -> float:
        return sum(weight * float(laws[name].predict(tokens)) for name, weight in shares.items() if weight)

    static_gain = average(token_budget) - average(token_budget + extra)
    return Worth(gain=gain, share=share, static_gain=static_gain, pays_from=pays_from(average, gain, extra))


def worth_in_words(worth: Worth, runs: int) -> list[str]:
    """Return sentences on the price of a plan, and on what static training would gain for it."""
    found = [f"The {runs} runs took {worth.share:.3g} times the operations of the main run."]
    if worth.static_gain is not None:
        found.append(
            f"Static training continued for them would gain {worth.static_gain:.3f} nats by the laws of the targets, "
            f"the plan is predicted to gain {worth.gain:.3f}."
        )
    if worth.pays_from is not None:
        found.append(
            f"If that gain is the same at every size, the plan pays for a main run from {worth.pays_from:.2g} times "
            "the operations of these runs on."
        )
    return found


def _law_at(fraction: float, runs: Sequence[SwarmRun], law: LawName, bootstrap: int = 0) -> MixtureLaw:
    """Return a law of the runs of one size."""
    chosen = _different([run for run in runs if run.fraction == fraction])
    weights = {name: [run.domain_weights[name] for run in chosen] for name in chosen[0].domain_weights}
    losses = {name: [run.losses[name] for run in chosen] for name in chosen[0].losses}
    return fit_mixture_law(weights, losses, law=law, bootstrap=bootstrap)


def _different(runs: Sequence[SwarmRun]) -> list[SwarmRun]:
    """Return the runs without those that took the very batches of another: short runs have few whole sequences."""
    found: dict[tuple[float, ...], SwarmRun] = {}
    for run in runs:
        found.setdefault((*run.domain_weights.values(), *run.losses.values()), run)
    return list(found.values())


def _as_json(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a tree as it will be read from its file: with lists in place of tuples."""
    return json.loads(json.dumps(tree))


def _laws(targets: Targets) -> dict[str, Law]:
    return {name: each.evidence.law for name, each in targets.domains.items() if each.evidence is not None}
