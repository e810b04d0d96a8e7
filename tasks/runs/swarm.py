"""The runs of a swarm, as jobs, and the plan that is made from their results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tasks.runs.budget import check_warmup, pipeline_steps, share_of_steps, sizes_of, token_budget
from tasks.runs.jobs import initial_domain_weights, pipeline_job, proxy_jobs, sub_sampled
from tasks.runs.price import flops_of, price_of
from tasks.workspace import paths
from tasks.workspace.planned_settings import stated_objective, swarm_size
from velocitune_core.config import ConfigError, Mixture, Params
from velocitune_core.contracts import InitialLosses, Manifest, StartingWeights, SwarmRun, Targets, TrainResult
from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.mixture_law.swarm_design import design_swarm
from velocitune_core.model.io import model_digest
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.planned_weights import plan_weights
from velocitune_core.strategies import PLANNED
from velocitune_core.train.job import TrainJob

SWARM = "swarm-"  # names of its runs begin with this
SIBLING_SWARM = f"{SWARM}of-"  # and so if they train a sibling of the model


def swarm_jobs(
    params: Params,
    manifest: Manifest,
    mixture: Mixture,
    model_sha256: str | None = None,
    sibling_sha256: str | None = None,
) -> list[TrainJob]:
    """Return a static run per mixture, fraction and seed; the first mixture is w_0, and the others are drawn around it.

    Each runs on its fraction of every domain and of the budget, so that text is repeated as in the whole run. A static
    run that is a proxy too is that proxy's job.

    Args:
        model_sha256: of the model's parameters; None to hash the folder.
        sibling_sha256: the same of the folder that `mixture.swarm.model` names.

    Raises ConfigError for a fraction that gives no step or ends within the warm-up, and for a sibling of another
    tokenizer.
    """
    settings, total, sizes = mixture.swarm, pipeline_steps(params, manifest), sizes_of(manifest)
    start = initial_domain_weights(params, manifest)
    model = {"model": settings.model, "model_sha256": sibling_sha256}
    if settings.model is not None and sibling_sha256 is None:
        _check_tokenizer(settings.model, manifest)
        model["model_sha256"] = model_digest(Path(settings.model))
    if settings.model is None and model_sha256 is None:
        model_sha256 = model_digest(Path(params.model.path))  # once for all
    proxies = {} if settings.model is not None else _proxies(params, manifest, model_sha256)
    jobs = []
    for seed in settings.seeds:
        drawn = design_swarm(start, runs=swarm_size(settings, len(start)), seed=seed, min_share=settings.min_share)
        training = params.training.model_copy(update={"seed": seed})
        for fraction in settings.fractions:
            for number, weights in enumerate([start, *drawn[:-1]]):
                if number == 0 and (fraction, seed) in proxies:
                    jobs.append(proxies[fraction, seed])
                    continue
                name = _name(settings.model, fraction, seed, number)
                job = pipeline_job(params, manifest, name, training, model_sha256 if settings.model is None else "")
                steps = share_of_steps(training, sizes, weights, fraction, total)
                check_warmup("training", training, {f"the swarm of {fraction:g}": steps})
                changes = {"initial_domain_weights": weights} | ({} if settings.model is None else model)
                jobs.append(sub_sampled(job.model_copy(update=changes), fraction, steps, steps))
    return jobs


def _check_tokenizer(model: str, manifest: Manifest) -> None:
    """Raise ConfigError for a sibling whose tokenizer is not the one that the text was packed with."""
    if tokenizer_digest(load_tokenizer(model)) != manifest.tokenizer_sha256:
        raise ConfigError(
            f"mixture.swarm.model: the tokenizer of {model} is not that of the packed text; name a sibling that shares "
            "the tokenizer of model.path"
        )


def _proxies(params: Params, manifest: Manifest, model_sha256: str | None) -> dict[tuple[float, int], TrainJob]:
    return {(job.fraction, job.training.seed): job for job in proxy_jobs(params, manifest, model_sha256)}


def _name(model: str | None, fraction: float, seed: int, number: int) -> str:
    start = SWARM if model is None else SIBLING_SWARM + re.sub(r"[^A-Za-z0-9]+", "_", Path(model).name) + "-"
    return f"{start}{fraction:g}-seed-{seed}-{number:02d}".replace(".", "_")


def is_proxy(job: TrainJob) -> bool:
    """Return whether a run of a swarm is one of the proxies."""
    return not job.name.startswith(SWARM)


def is_of_sibling(job: TrainJob) -> bool:
    """Return whether a run of a swarm trains a smaller sibling of the model."""
    return job.name.startswith(SIBLING_SWARM)


def swarm_run(job: TrainJob, result: TrainResult, manifest: Manifest) -> SwarmRun:
    """Return what a plan needs of a finished run, with its price.

    Its weights are the shares of the tokens that it was trained on: whole sequences, and `max_epochs`, leave others
    than were asked for.
    """
    trained = sum(result.tokens_per_domain.values())
    return SwarmRun(
        **price_of(job, result, manifest).model_dump(exclude={"shared"}),
        shared=is_proxy(job),
        fraction=job.fraction,
        seed=job.training.seed,
        domain_weights={name: result.tokens_per_domain[name] / trained for name in job.domains},
        losses=result.final | result.measured,
    )


def objective_of(
    params: Params, mixture: Mixture, manifest: Manifest, initial: InitialLosses, targets: Targets
) -> Objective:
    """Return the objective of the settings, with the initial losses, sizes and budget of the main run.

    Without `retained`, the sets without a gap to their target are.

    Raises ConfigError with every contradiction.
    """
    goals = targets.losses()
    start = initial_domain_weights(params, manifest)
    objective = stated_objective(
        mixture.objective,
        [name for name, loss in initial.losses.items() if name in goals and goals[name] >= loss],
        initial_weights=start,
        initial_losses=initial.losses | initial.measured,
        domain_tokens={name: float(domain.train.tokens) for name, domain in manifest.domains.items()},
        token_budget=float(token_budget(params, manifest)),
    )
    if problems := objective.problems(list(start), [*initial.losses, *initial.measured]):
        raise ConfigError(f"{paths.PARAMS}:\n" + "\n".join(f"  mixture.{problem}" for problem in problems))
    return objective


def planned_weights(
    params: Params,
    mixture: Mixture,
    manifest: Manifest,
    initial: InitialLosses,
    targets: Targets,
    finished: Sequence[tuple[TrainJob, TrainResult]],
) -> StartingWeights:
    """Return the weights that a finished swarm gives, and the evidence for them. Raises what `plan_weights` raises."""
    main = pipeline_job(params, manifest, "training", params.training, "")
    weights, planned = plan_weights(
        [swarm_run(job, result, manifest) for job, result in finished],
        objective_of(params, mixture, manifest, initial, targets),
        targets,
        law=mixture.swarm.law,
        bootstrap=mixture.swarm.bootstrap,
        main_flops=flops_of(main, manifest),
        token_budget=token_budget(params, manifest),
        model=mixture.swarm.model,
    )
    return StartingWeights(strategy=PLANNED, found_by="planned", domain_weights=weights, planned=planned)
