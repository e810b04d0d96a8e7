"""What is wrong with the settings of the strategy `planned`, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.workspace import paths
from tasks.workspace.home import missing_in_copy
from tasks.workspace.made_by_stages import made_by_a_stage
from tasks.workspace.model_checks import same_tokenizer
from tasks.workspace.planned_settings import (
    first_mixtures,
    first_size,
    mixture_of,
    stated_objective,
    steering_options,
    swarm_size,
)
from velocitune_core.config import CompareRun, Mixture, Params, Swarm, WantedMixture
from velocitune_core.mixture_law.feasibility import uncovered_bounds
from velocitune_core.mixture_law.objective import Objective, ObjectiveError
from velocitune_core.mixture_law.share_bounds import by_name
from velocitune_core.mixture_law.swarm_design import design_swarm
from velocitune_core.mixture_law.table import enough_runs
from velocitune_core.model.folder import check_model_folder
from velocitune_core.strategies import MEASURED, PLANNED, PLANNED_COURSE, check_strategy

WHOLE_SEQUENCES = 0.005  # of weight: realised shares of short runs differ from drawn ones by so much


def planned_problems(params: Params, comparing: bool = False) -> list[str]:
    """Return what is wrong with the objective, and with every plan that is to be made; without what runs measure.

    Args:
        comparing: whether the plans of a comparison are made too; otherwise the sibling that they need may be missing.
    """
    plans = {"strategy": params.strategy} if params.strategy.name == PLANNED else {}
    problems = []
    if params.compare is not None:
        plans |= {f"compare.runs.{label}": run for label, run in params.compare.runs.items() if run.strategy == PLANNED}
        problems += _plan_name_problems(params)
    if not plans:
        return problems if params.mixture == Mixture() else problems + _mixture_problems(params, params.mixture, [])
    for where, plan in plans.items():
        if plan.search is not None:
            problems.append(f"{where}.search: planned finds its weights in a swarm of runs; set search to null")
        try:
            mixture = mixture_of(params, plan.options)
        except ValueError as error:
            problems.append(f"{where}.options: {error}")
            continue
        problems += [f"{where}.options.{each}" for each in _steering_problems(params, plan.options)]
        if isinstance(plan, CompareRun) and plan.own_targets is not None:
            problems += _own_retained_problems(where, mixture.objective)
        if params.compare is not None and isinstance(plan, CompareRun) and plan.swarm_per_seed:  # one seed per plan
            mixture = mixture.model_copy(
                update={"swarm": mixture.swarm.model_copy(update={"seeds": params.compare.seeds[:1]})}
            )
        is_made = comparing or not isinstance(plan, CompareRun)
        sibling = _sibling_problems(params, mixture.swarm.model) if is_made else []
        found = _mixture_problems(params, mixture, sibling)
        problems += [f"{where}: {each}" if plan.options else each for each in found]
    return list(dict.fromkeys(problems))


def _own_retained_problems(where: str, wanted: WantedMixture) -> list[str]:
    """Return what is wrong if the retained sets are known only after a label's own proxies, and so after its swarm."""
    if wanted.forgetting is None or isinstance(wanted.forgetting, Mapping) or wanted.retained is not None:
        return []
    return [
        f"{where}.targets: which sets mixture.objective.forgetting is for would follow from its own targets, which are "
        "not there when its swarm begins; name them in mixture.objective.retained"
    ]


def _steering_problems(params: Params, options: Mapping[str, Any]) -> list[str]:
    steer = options.get("steer", False)
    if not isinstance(steer, bool | Mapping):
        return [f"steer is {steer!r}; set true, or options of {PLANNED_COURSE} such as {{step_size: 1.0}}"]
    if made := sorted({"course", *MEASURED} & set(steer if isinstance(steer, Mapping) else {})):
        return [f"steer names {made}, which the plan gives; leave them out"]
    given = steering_options(options) or {}
    return [f"steer: {each}" for each in check_strategy(PLANNED_COURSE, given, params.training_domains)]


def _plan_name_problems(params: Params) -> list[str]:
    assert params.compare is not None
    runs, seeds = params.compare.runs, params.compare.seeds
    problems = [
        f"compare.runs.{label}.swarm_per_seed: {run.strategy} makes no swarm; leave the key out, or set strategy to "
        f"{PLANNED}"
        for label, run in runs.items()
        if run.swarm_per_seed and run.strategy != PLANNED
    ]
    return problems + [
        f"compare.runs.{label}-seed-{seed}: a plan of {label} has this name; give one of the two labels another name"
        for label, run in runs.items()
        for seed in seeds
        if run.swarm_per_seed and f"{label}-seed-{seed}" in runs
    ]


def sized_problems(
    params: Params, initial: Mapping[str, float], domain_tokens: Mapping[str, float], token_budget: float
) -> list[str]:
    """Return the contradictions of every plan that show once the text is packed, and before any run.

    Args:
        initial: w_0 by domain.
        domain_tokens: of one epoch, by domain.
        token_budget: of the main run.
    """
    main = params.strategy
    plans: list[tuple[str, Mapping[str, Any], list[int] | None]] = [(main.name, main.options, None)]
    if params.compare is not None:
        for run in params.compare.runs.values():
            each_seed = [[seed] for seed in params.compare.seeds] if run.swarm_per_seed else [None]
            plans += [(run.strategy, run.options, seeds) for seeds in each_seed]
    problems, known = [], {"domain_tokens": domain_tokens, "token_budget": token_budget}
    for mixture, seeds in ((mixture_of(params, options), seeds) for name, options, seeds in plans if name == PLANNED):
        objective = _stated(params, mixture, initial, **known)
        problems += objective.problems(list(initial), list(params.domains)) or _uncovered(
            params, mixture, objective, mixture.swarm.seeds if seeds is None else seeds
        )
    return [f"mixture.{each}" for each in dict.fromkeys(problems)]


def _stated(params: Params, mixture: Mixture, initial: Mapping[str, float], **known: Any) -> Objective:
    """Return the objective of the settings before anything is measured."""
    sets = list(params.domains)
    losses = dict.fromkeys(sets, 1.0)
    return stated_objective(mixture.objective, sets, initial_weights=initial, initial_losses=losses, **known)


def _uncovered(params: Params, mixture: Mixture, objective: Objective, seeds: Sequence[int]) -> list[str]:
    """Return the bounds of weights that no run of the first round will be near."""
    if params.training.max_epochs is not None:  # runs then train on other shares than these
        return []
    initial = objective.initial_weights or {}
    runs = [weights for seed in seeds for weights in first_mixtures(mixture.swarm, initial, seed)]
    found = uncovered_bounds(objective, list(initial), runs, slack=WHOLE_SEQUENCES)
    return [
        f"{each}: set other bounds, a smaller mixture.swarm.min_share or mixture.initial_domain_weights, since the law "
        "predicts nothing outside of the runs"
        for each in found
    ]


def strategy_problems(strategy: str, options: Mapping[str, Any], params: Params) -> list[str]:
    """Return the problems of a strategy's settings; those of a plan are `planned_problems`."""
    if strategy == PLANNED_COURSE:
        return [f"strategy: {strategy} is what steers a planned run; set {PLANNED}, with the option {{steer: true}}"]
    return check_strategy(strategy, {} if strategy == PLANNED else options, params.training_domains)


def _mixture_problems(params: Params, mixture: Mixture, sibling: Sequence[str]) -> list[str]:
    names = params.training_domains
    if len(names) < 2:
        return [f"domains: {', '.join(names) or 'none'} to train on; a mixture has at least two"]
    even = dict.fromkeys(names, 1 / len(names))
    initial = mixture.initial_domain_weights or even
    objective = _stated(params, mixture, initial, domain_tokens=even, token_budget=1e-9)
    problems = [*objective.problems(names, list(params.domains)), *_epoch_problems(params, mixture.objective)]
    problems = [f"mixture.{each}" for each in problems]
    problems += _run_problems(mixture.swarm, len(names))
    try:
        design_swarm(initial, runs=swarm_size(mixture.swarm, len(names)), min_share=mixture.swarm.min_share)
        if mixture.initial_domain_weights is not None and not problems:
            problems += [f"mixture.{each}" for each in _uncovered(params, mixture, objective, mixture.swarm.seeds)]
    except ObjectiveError as error:
        problems += [f"mixture.swarm: {line}" for line in str(error).splitlines()]
    return problems + list(sibling)


def _epoch_problems(params: Params, wanted: WantedMixture) -> list[str]:
    """Return what is wrong with epochs if the budget is one epoch of all domains; other budgets need their sizes."""
    names = params.training_domains
    if wanted.epochs is None or params.training.token_budget is not None:
        return []
    limits = by_name(wanted.epochs, names)
    if set(limits) != set(names) or max(limits.values()) >= 1:
        return []
    return [
        f"objective.epochs is {wanted.epochs}, but without training.token_budget the run is as long as one epoch of "
        "all domains, and less than one of each cannot fill it; allow 1 or more, or set training.token_budget"
    ]


def _run_problems(swarm: Swarm, domains: int) -> list[str]:
    """Return what is wrong with the numbers of runs."""
    rounds, most, problems = swarm.rounds, swarm_size(swarm, domains), []
    first = first_size(swarm, domains)
    field = "runs" if rounds is None or rounds.first is None else "rounds.first"
    if (count := first * len(swarm.seeds)) <= domains:
        problems.append(
            f"mixture.swarm.{field}: {count} runs are too few for a law of {domains} domains; at least "
            f"{domains + 1}, better {enough_runs(domains)}"
        )
    if first > most:
        problems.append(
            f"mixture.swarm.rounds.first: {first} runs are more than the {most} that mixture.swarm.runs allows in all"
        )
    if rounds is not None and not swarm.bootstrap:
        problems.append("mixture.swarm.bootstrap: 0, but rounds are decided by resamples of the runs; set it to 100")
    if swarm.model_runs and swarm.model is None:
        problems.append("mixture.swarm.model_runs: the swarm trains the model itself; set it to 0, or name a sibling")
    if swarm.model_runs == 1 or swarm.model_runs > first:
        problems.append(
            f"mixture.swarm.model_runs: {swarm.model_runs}; give 0, or two and more, at most the {first} runs of each "
            "seed with which the swarm begins"
        )
    return problems


def _sibling_problems(params: Params, model: str | None) -> list[str]:
    if model is None:
        return []
    if Path(model) != paths.SIBLING_MODEL:
        return [f"mixture.swarm.model: {each}" for each in _own_sibling_problems(model, params.model.path)]
    if Path(params.model.path) != paths.BASE_MODEL:
        return [
            f"mixture.swarm.model: {model} is a sibling of {paths.BASE_MODEL}, not of {params.model.path}; name the "
            "folder of a smaller model with the same tokenizer, or null and fractions such as [0.2] for short runs of "
            "the model itself"
        ]
    if params.base is None or params.base.sibling is None:
        return [
            f"mixture.swarm.model: {model} is made by the stage `base` if base.sibling has its shape; set that, or set "
            "mixture.swarm.model to null"
        ]
    return []


def _own_sibling_problems(model: str, main: str) -> list[str]:
    if made := made_by_a_stage(Path(model), apart_from=paths.BASE_MODEL):
        return [
            f"{made}, and every plan would be made anew; copy the model to another folder, such as models/smaller, and "
            "name that"
        ]
    if not Path(model).is_dir():  # and none of the hub, which is fetched for model.path alone
        return [missing_in_copy(Path(model)) or f"{model!r} is not a folder"]
    problems = [each.removeprefix("model.path: ") for each in check_model_folder(model)]
    if not problems and not check_model_folder(main) and not same_tokenizer(model, main):
        problems = [f"the tokenizer of {model} is not that of model.path, {main}; name a sibling that shares it"]
    return problems
