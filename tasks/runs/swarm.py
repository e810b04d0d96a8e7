"""The runs of a swarm, as jobs and with their results, and the objective that they are made for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.runs.budget import check_warmup, pipeline_steps, share_of_steps, sizes_of, token_budget
from tasks.runs.earlier_runs import earlier_runs, same_sets
from tasks.runs.jobs import initial_domain_weights, pipeline_job, proxy_jobs, sub_sampled
from tasks.runs.price import flops_of, price_of
from tasks.workspace import paths
from tasks.workspace.planned_settings import first_mixtures, stated_objective
from velocitune_core.config import ConfigError, Mixture, Params
from velocitune_core.contracts import (
    InitialLosses,
    Manifest,
    SwarmRun,
    Targets,
    TrainResult,
)
from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.mixture_law.objective import Objective
from velocitune_core.model.io import model_digest
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.planned_weights import level_problems
from velocitune_core.train.job import TrainJob

Finished = Sequence[tuple[TrainJob, TrainResult]]
Use = Literal["law", "earlier", "effect"]
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
    run that is a proxy too is that proxy's job. Of a swarm in rounds, these are the runs of the first one. Beside a
    sibling's swarm, the model itself trains under the first `model_runs` mixtures, at the largest fraction.

    Args:
        model_sha256: of the model's parameters; None to hash the folder.
        sibling_sha256: the same of the folder that `mixture.swarm.model` names.

    Raises ConfigError for a fraction that gives no step or ends within the warm-up, and for a sibling of another
    tokenizer.
    """
    settings, start = mixture.swarm, initial_domain_weights(params, manifest)
    first, *_ = mixtures = [first_mixtures(settings, start, seed) for seed in settings.seeds]
    if settings.model is None:
        return _of_model(params, manifest, model_sha256).jobs(settings.fractions, settings.seeds, mixtures)
    if sibling_sha256 is None:
        _check_tokenizer(settings.model, manifest)
        sibling_sha256 = model_digest(Path(settings.model))
    sibling = _Trained(params, manifest, settings.model, sibling_sha256, {})
    jobs = sibling.jobs(settings.fractions, settings.seeds, mixtures)
    if settings.model_runs:
        own = _of_model(params, manifest, model_sha256)
        jobs += own.jobs(settings.fractions[-1:], settings.seeds[:1], [first[: settings.model_runs]])
    return jobs


@dataclass(frozen=True)
class _Trained:
    """The model that runs of a swarm train."""

    params: Params
    manifest: Manifest
    sibling: str | None  # its folder; None: the model itself
    sha256: str  # of its parameters
    proxies: Mapping[tuple[float, int], TrainJob]  # static runs that are there already, by fraction and seed

    def jobs(
        self, fractions: Sequence[float], seeds: Sequence[int], mixtures: Sequence[Sequence[Mapping[str, float]]]
    ) -> list[TrainJob]:
        """Return a run per seed, fraction and mixture of the seed."""
        return [
            self._job(weights, fraction, seed, number)
            for seed, drawn in zip(seeds, mixtures, strict=True)
            for fraction in fractions
            for number, weights in enumerate(drawn)
        ]

    def _job(self, weights: Mapping[str, float], fraction: float, seed: int, number: int) -> TrainJob:
        if number == 0 and (fraction, seed) in self.proxies:
            return self.proxies[fraction, seed]
        training = self.params.training.model_copy(update={"seed": seed})
        name = swarm_name(self.sibling, fraction, seed, f"{number:02d}")
        job = pipeline_job(self.params, self.manifest, name, training, self.sha256)
        job = job.model_copy(update={} if self.sibling is None else {"model": self.sibling})
        return under_weights(job, weights, fraction, self.params, self.manifest)


def _of_model(params: Params, manifest: Manifest, sha256: str | None) -> _Trained:
    """Return the model itself, with its proxies."""
    digest = model_digest(Path(params.model.path)) if sha256 is None else sha256
    proxies = {(job.fraction, job.training.seed): job for job in proxy_jobs(params, manifest, digest)}
    return _Trained(params, manifest, None, digest, proxies)


def under_weights(
    job: TrainJob, weights: Mapping[str, float], fraction: float, params: Params, manifest: Manifest
) -> TrainJob:
    """Return a static run under other weights, on a fraction of every domain and of the budget.

    Raises ConfigError for a fraction that gives no step or ends within the warm-up.
    """
    total = pipeline_steps(params, manifest)
    steps = share_of_steps(job.training, sizes_of(manifest), weights, fraction, total)
    check_warmup("training", job.training, {f"the swarm of {fraction:g}": steps})
    return sub_sampled(job.model_copy(update={"initial_domain_weights": dict(weights)}), fraction, steps, steps)


def _check_tokenizer(model: str, manifest: Manifest) -> None:
    """Raise ConfigError for a sibling whose tokenizer is not the one that the text was packed with."""
    if tokenizer_digest(load_tokenizer(model)) != manifest.tokenizer_sha256:
        raise ConfigError(
            f"mixture.swarm.model: the tokenizer of {model} is not that of the packed text; name a sibling that shares "
            "the tokenizer of model.path"
        )


def swarm_name(sibling: str | None, fraction: float, seed: int, which: str) -> str:
    """Return the name of a run."""
    start = SWARM if sibling is None else SIBLING_SWARM + re.sub(r"[^A-Za-z0-9]+", "_", Path(sibling).name) + "-"
    return f"{start}{fraction:g}-seed-{seed}-{which}".replace(".", "_")


def is_proxy(job: TrainJob) -> bool:
    """Return whether a run of a swarm is one of the proxies."""
    return not job.name.startswith(SWARM)


def is_of_sibling(job: TrainJob) -> bool:
    """Return whether a run of a swarm trains a smaller sibling of the model."""
    return job.name.startswith(SIBLING_SWARM)


def of_the_law(jobs: Sequence[TrainJob]) -> list[TrainJob]:
    """Return the runs of a swarm that its law is fitted to: beside a sibling's, not those of the model itself."""
    return [job for job in jobs if is_of_sibling(job)] or list(jobs)


def swarm_runs(finished: Finished, manifest: Manifest) -> list[SwarmRun]:
    """Return what a plan needs of the finished runs of a swarm, and of earlier runs without a domain, with prices."""
    jobs = [job for job, _ in finished]
    law = {job.name for job in of_the_law(jobs)}
    runs = [swarm_run(job, result, manifest, "law" if job.name in law else "effect") for job, result in finished]
    return [
        *runs,
        *(swarm_run(job, result, manifest, "earlier") for job, result in earlier_runs(of_the_law(jobs), manifest)),
    ]


def swarm_run(job: TrainJob, result: TrainResult, manifest: Manifest, use: Use = "law") -> SwarmRun:
    """Return what a plan needs of a finished run, with its price.

    Its weights are the shares of the tokens that it was trained on: whole sequences, and `max_epochs`, leave others
    than were asked for. Of an earlier run, the losses are those of sets whose text is still the same.
    """
    trained, losses = sum(result.tokens_per_domain.values()), result.final | result.measured
    return SwarmRun(
        **price_of(job, result, manifest).model_dump(exclude={"shared"}),
        shared=is_proxy(job) or use == "earlier",
        fraction=job.fraction,
        seed=job.training.seed,
        domain_weights={name: result.tokens_per_domain.get(name, 0) / trained for name in manifest.domains},
        losses=losses if use != "earlier" else {name: losses[name] for name in same_sets(job, manifest)},
        use=use,
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
    problems = objective.problems(list(start), [*initial.losses, *initial.measured])
    if problems := problems or level_problems(objective, targets, sibling=mixture.swarm.model is not None):
        raise ConfigError(f"{paths.PARAMS}:\n" + "\n".join(f"  mixture.{problem}" for problem in problems))
    return objective


def main_flops(params: Params, manifest: Manifest) -> float:
    """Return the operations of the main run."""
    return flops_of(pipeline_job(params, manifest, "training", params.training, ""), manifest)
