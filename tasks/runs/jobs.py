"""The training jobs of the pipeline, put together from settings and manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from tasks.workspace import paths
from velocitune_core.config import ConfigError, Evaluation, Params, StrategyConfig, Training
from velocitune_core.contracts import DomainFiles, DomainManifest, InitialLosses, Manifest, Targets
from velocitune_core.mixture import initial_domain_weights
from velocitune_core.model.io import model_digest
from velocitune_core.strategies import measured_options, resolve_preset, search_share
from velocitune_core.train.job import TrainJob

logger = logging.getLogger(__name__)
STATIC = StrategyConfig(name="static")


def initial_weights(params: Params, manifest: Manifest) -> dict[str, float]:
    """w_0 by domain, in the order of the manifest."""
    return initial_domain_weights(params.mixture.weights, sizes_of(manifest))


def sizes_of(manifest: Manifest) -> dict[str, int]:
    """Training sequences by domain."""
    return {name: domain.train.sequences for name, domain in manifest.domains.items()}


def steps_for(training: Training, sizes: Mapping[str, int], sequence_length: int) -> int:
    """Optimizer steps in the token budget; without one, in one epoch of all domains.

    Raises ConfigError if the budget is no whole step, or more than `max_epochs` lets the domains give.
    """
    sequences = sum(sizes.values())
    if training.token_budget is not None:
        sequences = training.token_budget // sequence_length
    steps = sequences // training.batch_sequences
    if steps < 1:
        raise ConfigError(
            f"token_budget: {sequences} sequences are less than one step of {training.batch_sequences}; "
            "raise it, or lower batch_sequences"
        )
    if training.max_epochs is not None and steps * training.batch_sequences > training.max_epochs * sum(sizes.values()):
        raise ConfigError(
            f"max_epochs: {training.max_epochs} epochs of {sum(sizes.values())} sequences are less than the budget of "
            f"{sequences}; raise max_epochs or lower token_budget"
        )
    return steps


def base_domains(params: Params) -> list[str]:
    """Names of the domains that the embedded base is trained on, in the order of params.yaml."""
    assert params.base is not None
    chosen = params.base.domains
    return [name for name in params.domains if chosen is None or name in chosen]


def base_job(
    params: Params, model: Path, domains: Mapping[str, DomainManifest], folder: Path, model_sha256: str | None = None
) -> TrainJob:
    """The embedded base model, trained on its domains in shares of their size.

    `model_sha256`, here and below: None to hash the folder.
    """
    assert params.base is not None
    sizes = {name: domain.train.sequences for name, domain in domains.items()}
    steps = steps_for(params.base.training, sizes, params.data.sequence_length)
    return TrainJob(
        name="base",
        output="",
        model=str(model),
        model_sha256=model_digest(model) if model_sha256 is None else model_sha256,
        domains={name: _files(domain, folder) for name, domain in domains.items()},
        weights=initial_domain_weights(None, sizes),
        total_steps=steps,
        training=params.base.training,
        evaluation=Evaluation(every_steps=max(1, steps // 8), batch_sequences=params.evaluation.batch_sequences),
        strategy=STATIC,
    )


def proxy_jobs(params: Params, manifest: Manifest, model_sha256: str | None = None) -> list[TrainJob]:
    """One static run per seed and fraction, on that fraction of every domain and of the budget."""
    jobs = []
    for seed in params.proxies.seeds:
        for fraction in params.proxies.fractions:
            training = params.training.model_copy(update={"seed": seed})
            steps = max(1, round(fraction * pipeline_steps(params, manifest)))
            job = _pipeline_job(params, manifest, proxy_name(fraction, seed), training, model_sha256)
            jobs.append(sub_sampled(job, fraction, steps, -(-steps // params.proxies.evaluations)))
    return jobs


def proxy_name(fraction: float, seed: int) -> str:
    return f"proxy-{fraction:g}-seed-{seed}".replace(".", "_")


def training_job(
    params: Params,
    manifest: Manifest,
    initial: InitialLosses,
    targets: Targets,
    model_sha256: str | None = None,
) -> TrainJob:
    """The continual pretraining under the configured strategy."""
    job = _pipeline_job(params, manifest, "training", params.training, model_sha256)
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
    """One training of the comparison: the pipeline's, under the strategy of that line and its own seed."""
    assert params.compare is not None
    line = params.compare.runs[label]
    training = params.training.model_copy(update={"seed": seed})
    job = _pipeline_job(params, manifest, f"{label}-seed-{seed}", training, model_sha256)
    losses = ablated_targets(line.targets, initial.losses, targets.losses(), seed)
    named = StrategyConfig(name=line.strategy, options=line.options, search=line.search)
    return job.model_copy(update={"strategy": complete_strategy(named, manifest, initial, losses)})


def complete_strategy(
    strategy: StrategyConfig, manifest: Manifest, initial: InitialLosses, targets: Mapping[str, float]
) -> StrategyConfig:
    """A strategy with what the pipeline measured for it. Raises ConfigError naming domains that lack a target."""
    measured: dict[str, Mapping[str, float]] = {
        "initial_loss": initial.losses,
        "target_loss": targets,
        "domain_tokens": {name: domain.train.tokens for name, domain in manifest.domains.items()},
    }
    needed = measured_options(strategy.name)
    missing = sorted(set(manifest.domains) - set(targets))
    if missing and "target_loss" in needed:
        raise ConfigError(f"{paths.TARGETS}: no target for {missing}; add them, or run the stage `targets` again")
    name, options = resolve_preset(strategy.name, strategy.options)
    return StrategyConfig(
        name=name,
        options=options | {key: dict(measured[key]) for key in sorted(needed)},
        search=strategy.search or search_share(strategy.name),
    )


def ablated_targets(
    kind: str, initial: Mapping[str, float], targets: Mapping[str, float], seed: int
) -> Mapping[str, float]:
    """Targets of the paper's ablations: as fitted, zero, or random between zero and the initial loss."""
    if kind == "fitted":
        return targets
    if kind == "zero":
        return dict.fromkeys(targets, 0.0)
    return {name: initial[name] * _uniform(f"{seed} random target of {name}") for name in targets}


def with_weights(job: TrainJob, name: str, weights: Mapping[str, float]) -> TrainJob:
    """The same training under constant weights that another run found."""
    return job.model_copy(update={"name": name, "weights": dict(weights), "strategy": STATIC, "reference": None})


def reference_job(job: TrainJob) -> TrainJob:
    """The static training that a search for weights compares its losses with."""
    return job.model_copy(update={"name": f"{job.name}-reference", "strategy": STATIC})


def search_job(job: TrainJob) -> TrainJob:
    """The run that finds the weights of a job: as many updates, on the share of data and steps that it searches on."""
    share = job.strategy.search or 1.0
    steps = max(1, round(share * job.total_steps))
    search = sub_sampled(job, share, steps, round(share * job.evaluation.every_steps))
    strategy = job.strategy.model_copy(update={"search": None})
    return search.model_copy(update={"name": f"{job.name}-search", "strategy": strategy})


def sub_sampled(job: TrainJob, fraction: float, steps: int, evaluate_every: int) -> TrainJob:
    """A run of which only the losses and weights matter, on that fraction of every domain."""
    evaluation = job.evaluation.model_copy(update={"every_steps": max(1, evaluate_every)})
    changes = {"fraction": fraction, "total_steps": steps, "evaluation": evaluation, "save_model": False}
    return job.model_copy(update=changes)


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") / 2**64


def check_budget(params: Params, manifest: Manifest) -> None:
    """Log the length of the training. Raises ConfigError, before any training, for a budget that cannot be met."""
    steps = pipeline_steps(params, manifest)
    logger.info("token budget: %s tokens in %d steps", f"{token_budget(params, manifest):,}", steps)


def pipeline_steps(params: Params, manifest: Manifest) -> int:
    return steps_for(params.training, sizes_of(manifest), manifest.sequence_length)


def token_budget(params: Params, manifest: Manifest) -> int:
    """Tokens of the whole training: D at which the laws are read."""
    return pipeline_steps(params, manifest) * params.training.batch_sequences * manifest.sequence_length


def _pipeline_job(
    params: Params, manifest: Manifest, name: str, training: Training, model_sha256: str | None
) -> TrainJob:
    return TrainJob(
        name=name,
        output="",
        model=params.model.path,
        model_sha256=model_digest(Path(params.model.path)) if model_sha256 is None else model_sha256,
        domains={name: _files(domain, paths.PREPARED) for name, domain in manifest.domains.items()},
        weights=initial_weights(params, manifest),
        total_steps=pipeline_steps(params, manifest),
        training=training,
        evaluation=params.evaluation,
        strategy=STATIC,
    )


def _files(domain: DomainManifest, folder: Path) -> DomainFiles:
    return DomainFiles(
        train=str(folder / domain.train.file),
        held_out=str(folder / domain.held_out.file),
        train_sha256=domain.train.sha256,
        held_out_sha256=domain.held_out.sha256,
    )
