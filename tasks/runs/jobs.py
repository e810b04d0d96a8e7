"""The jobs of the pipeline, put together from settings and manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.runs.budget import check_warmup, check_warmups, pipeline_steps, share_of_steps, sizes_of, steps_for
from tasks.runs.evaluation_jobs import held_out_files
from tasks.runs.resolved_precision import check_measured_in, with_precision
from tasks.runs.strategy_options import ablated_targets, complete_strategy
from tasks.workspace import paths
from velocitune_core import mixture
from velocitune_core.config import Evaluation, Params, StrategyConfig, Training
from velocitune_core.contracts import (
    ContractError,
    DomainFiles,
    DomainManifest,
    InitialLosses,
    Manifest,
    StartingWeights,
    Targets,
)
from velocitune_core.model.io import model_digest
from velocitune_core.train.job import TrainJob, differences

STATIC = StrategyConfig(name="static")


def initial_domain_weights(params: Params, manifest: Manifest) -> dict[str, float]:
    """Return w_0 by domain, in the order of the manifest."""
    return mixture.initial_domain_weights(params.mixture.initial_domain_weights, sizes_of(manifest))


def base_domains(params: Params) -> list[str]:
    """Return the domains that the embedded base is trained on, in the order of params.yaml."""
    assert params.base is not None
    chosen = params.base.domains
    return [name for name in params.training_domains if chosen is None or name in chosen]


def base_job(
    params: Params,
    model: Path,
    domains: Mapping[str, DomainManifest],
    folder: Path,
    model_sha256: str | None = None,
    document_start: int | None = None,
    name: str = "base",
) -> TrainJob:
    """Return the job of the embedded base model, or of its sibling, trained on its domains in shares of their size.

    Args:
        model_sha256: here and below, of the model's parameters; None to hash the folder.
        document_start: id of the token that documents begin with, if attention is to stay inside a document.
    """
    assert params.base is not None
    sizes = {name: domain.train.sequences for name, domain in domains.items()}
    steps = steps_for(params.base.training, sizes, params.data.sequence_length, section="base.training")
    check_warmup("base.training", params.base.training, {"the base": steps})
    return TrainJob(
        name=name,
        output="",
        model=str(model),
        model_sha256=model_digest(model) if model_sha256 is None else model_sha256,
        domains={name: _files(domain, folder) for name, domain in domains.items()},
        document_start=document_start,
        initial_domain_weights=mixture.initial_domain_weights(None, sizes),
        total_steps=steps,
        training=with_precision(params.base.training),
        evaluation=Evaluation(every_steps=max(1, steps // 8)),
        strategy=STATIC,
        execution=params.execution,
    )


def proxy_jobs(params: Params, manifest: Manifest, model_sha256: str | None = None) -> list[TrainJob]:
    """Return one static run per seed and fraction, on that fraction of every domain and of the budget.

    Raises ConfigError if `max_epochs` of a fraction is less than a step.
    """
    jobs, total, sizes = [], pipeline_steps(params, manifest), sizes_of(manifest)
    for seed in params.proxies.seeds:
        for fraction in params.proxies.fractions:
            training = params.training.model_copy(update={"seed": seed})
            job = pipeline_job(params, manifest, proxy_name(fraction, seed), training, model_sha256)
            steps = share_of_steps(training, sizes, job.initial_domain_weights, fraction, total)
            jobs.append(sub_sampled(job, fraction, steps, -(-steps // params.proxies.evaluations)))
    return jobs


def proxy_name(fraction: float, seed: int) -> str:
    """Return the name of a proxy's run and of its result file."""
    return f"proxy-{fraction:g}-seed-{seed}".replace(".", "_")


def training_job(
    params: Params,
    manifest: Manifest,
    initial: InitialLosses,
    targets: Targets,
    model_sha256: str | None = None,
) -> TrainJob:
    """Return the job of the continual pretraining under the configured strategy.

    Raises ConfigError for initial losses that were measured in another precision.
    """
    check_measured_in(params.training, {paths.INITIAL: initial.precision})
    job = pipeline_job(params, manifest, "training", params.training, model_sha256)
    strategy = complete_strategy(params.strategy, manifest, initial, targets.losses())
    return job.model_copy(update={"strategy": strategy})


def compared_job(
    params: Params,
    manifest: Manifest,
    initial: InitialLosses,
    targets: Targets,
    label: str,
    seed: int,
    model_sha256: str | None = None,
) -> TrainJob:
    """Return one run of the comparison: the pipeline's, under the strategy of that label and its own seed.

    Args:
        targets: of the label, if it has its own.

    Raises ConfigError for initial losses that were measured in another precision.
    """
    check_measured_in(params.training, {paths.INITIAL: initial.precision})
    assert params.compare is not None
    run = params.compare.runs[label]
    training = params.training.model_copy(update={"seed": seed})
    job = pipeline_job(params, manifest, f"{label}-seed-{seed}", training, model_sha256)
    kind = run.targets if isinstance(run.targets, str) else "fitted"
    losses = ablated_targets(kind, initial.losses, targets.losses(), seed)
    named = StrategyConfig(name=run.strategy, options=run.options, search=run.search)
    strategy = complete_strategy(named, manifest, initial, losses)
    runs_alike = len(params.compare.runs) * len(params.compare.seeds)
    job = job.model_copy(update={"strategy": strategy, "runs_alike": runs_alike})
    if job.strategy.search is not None:
        search_job(job, sizes_of(manifest))  # refuses what cannot work before the first run of all
    return job


def with_weights(job: TrainJob, name: str, weights: Mapping[str, float]) -> TrainJob:
    """Return the same run under constant domain weights that another run found."""
    changes = {"name": name, "initial_domain_weights": dict(weights), "strategy": STATIC, "reference": None}
    return job.model_copy(update=changes)


def starting_from(job: TrainJob, strategy: str, found: StartingWeights, inputs: Mapping[str, Any]) -> TrainJob:
    """Return the main run under the weights that the stage `weights` found for it.

    Args:
        strategy: that params.yaml names.
        inputs: what would decide the weights now.

    Raises ContractError for weights of another strategy, of other domains, of a search or a plan that would be made
    otherwise now, or that w_0 has changed since.
    """
    initial, weights = job.initial_domain_weights, found.domain_weights
    problem, named = None, ""
    if found.strategy != strategy:
        problem = f"are of the strategy {found.strategy!r}, not of {strategy!r}"
    elif set(weights) != set(initial):
        problem = f"are of {sorted(weights)}, and the domains are {sorted(initial)}"
    elif found.found_by == "initial" and weights != initial:
        problem = "are not the initial domain weights of params.yaml"
    elif found.inputs != inputs:
        named = ":\n" + "\n".join(differences(found.inputs, dict(inputs)))
        problem = "were found under other settings, or from other measurements"
    if problem:
        raise ContractError(f"{paths.WEIGHTS}: its weights {problem}; run the stage `weights` again{named}")
    return job if found.found_by == "initial" else with_weights(job, job.name, found.domain_weights)


def reference_job(job: TrainJob) -> TrainJob:
    """Return the static run that a search for weights compares its losses with."""
    return job.model_copy(update={"name": f"{job.name}-reference", "strategy": STATIC})


def search_job(job: TrainJob, sizes: Mapping[str, int]) -> TrainJob:
    """Return the run that finds the weights of a job: as many updates, on its share of data and steps.

    Args:
        sizes: training sequences by domain.

    Raises ConfigError if `max_epochs` of its share of the data is less than a step.
    """
    share = job.strategy.search or 1.0
    steps = share_of_steps(job.training, sizes, job.initial_domain_weights, share, job.total_steps)
    check_warmup("training", job.training, {f"{job.name}-search": steps})
    search = sub_sampled(job, share, steps, round(share * job.evaluation.every_steps))
    strategy = job.strategy.model_copy(update={"search": None})
    return search.model_copy(update={"name": f"{job.name}-search", "strategy": strategy})


def sub_sampled(job: TrainJob, fraction: float, steps: int, evaluate_every: int) -> TrainJob:
    """Return a run of which only the losses and weights are used, on a fraction of every domain."""
    evaluation = job.evaluation.model_copy(update={"every_steps": max(1, evaluate_every)})
    changes = {"fraction": fraction, "total_steps": steps, "evaluation": evaluation}
    return job.model_copy(update=changes | {"save_model": False, "save_dtype": "auto"})


def pipeline_job(
    params: Params, manifest: Manifest, name: str, training: Training, model_sha256: str | None
) -> TrainJob:
    """Return a static run of the whole mixture and budget, from which all others are derived."""
    steps = pipeline_steps(params, manifest)
    check_warmups(params, steps)
    return TrainJob(
        name=name,
        output="",
        model=params.model.path,
        model_sha256=model_digest(Path(params.model.path)) if model_sha256 is None else model_sha256,
        domains={name: _files(domain, paths.PREPARED) for name, domain in manifest.domains.items()},
        measured=held_out_files(manifest.measured),
        document_start=manifest.documents.attention_start,
        initial_domain_weights=initial_domain_weights(params, manifest),
        total_steps=steps,
        training=with_precision(training),
        evaluation=params.evaluation.in_run(steps),
        strategy=STATIC,
        save_dtype=params.model.save_dtype,
        execution=params.execution,
    )


def _files(domain: DomainManifest, folder: Path) -> DomainFiles:
    return DomainFiles(
        train=str(folder / domain.train.file),
        held_out=str(folder / domain.held_out.file),
        train_sha256=domain.train.sha256,
        held_out_sha256=domain.held_out.sha256,
    )
