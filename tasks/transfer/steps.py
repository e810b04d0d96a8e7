"""The steps of a folder of jobs: every run that the pipeline would start, made by the code that would start it.

What no one has measured yet (the base's parameters, initial losses, targets, weights that a search finds) is left out
of the jobs, and a `Fill` names the step that finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tasks.runs.budget import sizes_of, token_budget
from tasks.runs.compared import comparison_settings, runs_in_order
from tasks.runs.compared_before import Before
from tasks.runs.evaluation_jobs import held_out_job
from tasks.runs.jobs import base_job, compared_job, proxy_jobs, reference_job, search_job, training_job, with_weights
from tasks.runs.own_targets import own_proxy_jobs
from tasks.runs.planned import plan_inputs, plan_of
from tasks.runs.resolved_precision import resolve_precision
from tasks.runs.steering import planned_job
from tasks.runs.strategy_options import random_factors
from tasks.runs.swarm import is_of_sibling, swarm_jobs
from tasks.stages.base import PACKED, UNTRAINED
from tasks.workspace import paths
from tasks.workspace.planned_settings import compared_mixture, mixture_of
from velocitune_core.config import ConfigError, Mixture, Params
from velocitune_core.contracts import DomainManifest, InitialLosses, Manifest, Targets
from velocitune_core.job_folder.contents import Fill, InitialStep, Step, TargetsStep, TrainStep
from velocitune_core.model.io import model_digest
from velocitune_core.strategies import PLANNED, strategy_class
from velocitune_core.train.job import Job, TrainJob

INITIAL, TARGETS = "initial", "targets"  # names of steps, and of the stages that they belong to
UNKNOWN = ""  # hash of a base that is not trained yet


@dataclass(frozen=True)
class Known:
    """What the workspace holds before the folder's runs.

    Args:
        base: the base's own packed domains if it is to be trained; None for a model that is there.
        measured: initial losses and targets; None if they are to be measured and fitted.
    """

    manifest: Manifest
    base: Mapping[str, DomainManifest] | None
    measured: tuple[InitialLosses, Targets] | None


@dataclass
class Graph:
    """Steps in order, each after those it depends on, and their jobs by name."""

    steps: list[Step] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)

    def add(
        self,
        job: TrainJob,
        fills: list[Fill],
        *,
        name: str = "",
        publish: str | None = None,
        keeps_model: bool = False,
    ) -> None:
        """Add a run. The same run may be added twice, as a reference and for itself.

        Args:
            name: of its step; empty: that of the run.

        Raises ConfigError for two different runs of one name.
        """
        name = name or job.name
        if name in self.jobs:
            if self.jobs[name] != job:
                raise ConfigError(f"compare.runs: two runs would have the name {name}; give the label another one")
            return
        self.jobs[name] = job
        self.steps.append(
            TrainStep(name=name, job=job_file(name), fills=fills, publish=publish, keeps_model=keeps_model)
        )


def job_file(name: str) -> str:
    """Return the path of a step's job file in the folder."""
    return f"jobs/{name}.json"


def steps_of(params: Params, known: Known, compare: bool) -> Graph:
    """Return the steps up to the main run, or up to the comparison's."""
    graph = Graph()
    digest, of_base = UNKNOWN, list[Fill]()
    if known.base is not None:
        start = known.manifest.documents.attention_start  # the tokenizer is that of the base
        base = base_job(params, UNTRAINED, known.base, PACKED, document_start=start)
        graph.add(base, [], publish=str(paths.BASE_MODEL), keeps_model=True)
        of_base = [Fill(field="model_sha256", step=base.name)]
    else:
        digest = model_digest(Path(params.model.path))
    if known.measured is None:
        _add_targets(graph, params, known, digest, of_base)
    lines = _compared if compare else _main_run
    lines(graph, params, known, digest, of_base)
    return graph


def _add_targets(graph: Graph, params: Params, known: Known, digest: str, of_base: list[Fill]) -> None:
    """Add initial losses, proxies, and the targets fitted to them."""
    proxies = proxy_jobs(params, known.manifest, digest)
    graph.jobs[INITIAL] = held_out_job(params, known.manifest, INITIAL, Path(params.model.path), digest)
    graph.steps.append(InitialStep(name=INITIAL, job=job_file(INITIAL), fills=of_base))
    for job in proxies:
        graph.add(job, of_base)
    names, budget = [job.name for job in proxies], token_budget(params, known.manifest)
    graph.steps.append(TargetsStep(proxies=names, settings=params.targets, token_budget=budget))


def _main_run(graph: Graph, params: Params, known: Known, digest: str, of_base: list[Fill]) -> None:
    initial, targets = _measured(params, known)
    job = training_job(params, known.manifest, initial, targets, digest)
    if params.strategy.name == PLANNED:
        options = params.strategy.options
        mixture = mixture_of(params, options)
        first = _add_swarm(graph, params, known, mixture, digest, of_base)
        inputs = partial(plan_inputs, params, mixture, first, known.manifest, initial, targets)
        if (plan := plan_of(paths.WEIGHTS, options, inputs)) is not None:
            graph.add(planned_job(job, plan, options, initial), of_base, keeps_model=True)
        return
    losses = {"initial_loss": Fill(field="initial_loss", step=INITIAL)}
    losses["target_loss"] = Fill(field="target_loss", step=TARGETS)
    fills = losses if known.measured is None else {}
    _add_with_search(graph, job, reference_job(job), sizes_of(known.manifest), fills, of_base, keeps_model=True)


def _compared(graph: Graph, params: Params, known: Known, digest: str, of_base: list[Fill]) -> None:
    initial, targets = _measured(params, known)
    settings, sizes = comparison_settings(params), sizes_of(known.manifest)
    before = Before(params, known.manifest, initial, targets, digest)
    searching = any(strategy_class(run.strategy).needs_reference for run in settings.runs.values())
    for label, seed in runs_in_order(params):
        run = settings.runs[label]
        job = compared_job(params, known.manifest, initial, targets, label, seed, digest)
        keeps = settings.downstream or (searching and label == settings.baseline)
        if run.own_targets is not None:  # fitted in the workspace, also from runs of this folder
            for proxy in own_proxy_jobs(params, label, known.manifest, digest):
                graph.add(proxy, of_base)
            if run.strategy != PLANNED:
                continue
        if run.strategy == PLANNED:
            _add_swarm(graph, params, known, compared_mixture(params, label, seed), digest, of_base)
            if (planned := before.job(label, seed)) is not None:
                graph.add(planned, of_base, keeps_model=keeps)
            continue
        if run.weights_of is not None:
            if f"{run.weights_of}-seed-{seed}" not in graph.jobs:
                continue  # its weights, or its targets, are found in the workspace
            weights = Fill(field="initial_domain_weights", step=f"{run.weights_of}-seed-{seed}")
            held = with_weights(job, job.name, job.initial_domain_weights)
            graph.add(held, [*of_base, weights], keeps_model=keeps)
            continue
        fills = {}
        if known.measured is None:
            fills["initial_loss"] = Fill(field="initial_loss", step=INITIAL)
            if run.targets == "fitted":
                fills["target_loss"] = Fill(field="target_loss", step=TARGETS)
            elif run.targets == "random":
                factors = random_factors(targets.losses(), seed)
                fills["target_loss"] = Fill(field="target_loss", step=INITIAL, factors=factors)
        baseline = compared_job(params, known.manifest, initial, targets, settings.baseline, seed, digest)
        _add_with_search(graph, job, baseline, sizes, fills, of_base, keeps_model=keeps)


def _add_swarm(
    graph: Graph, params: Params, known: Known, mixture: Mixture, digest: str, of_base: list[Fill]
) -> list[TrainJob]:
    """Add the runs of a swarm, of its first round if it has several, and return their jobs."""
    sibling = mixture.swarm.model
    there = sibling is not None and (Path(sibling) / "config.json").exists()
    jobs = swarm_jobs(params, known.manifest, mixture, digest, None if there else UNKNOWN)
    for job in jobs:  # swarms of two labels may differ in weights or model, which are not in the names of their runs
        name = job.name if graph.jobs.get(job.name, job) == job else job.folder_name
        graph.add(job, [] if is_of_sibling(job) else of_base, name=name)
    return jobs


def _add_with_search(
    graph: Graph,
    job: TrainJob,
    reference: TrainJob,
    sizes: Mapping[str, int],
    losses: Mapping[str, Fill],
    of_base: list[Fill],
    *,
    keeps_model: bool,
) -> None:
    """Add a run, after the search for its weights and the reference of that search, where it has them.

    Args:
        losses: where the measured options of its strategy come from, by option.
    """
    measured = [fill for option, fill in losses.items() if option in job.strategy.options]
    options = job.strategy.options | {fill.field: {} for fill in measured}
    job = job.model_copy(update={"strategy": job.strategy.model_copy(update={"options": options})})
    if job.strategy.search is None:
        graph.add(job, [*of_base, *measured], keeps_model=keeps_model)
        return
    if strategy_class(job.strategy.name).needs_reference:
        if reference.name not in graph.jobs:
            graph.add(reference, of_base, keeps_model=True)
        measured.append(Fill(field="reference", step=reference.name))
    search = search_job(job, sizes)
    graph.add(search, [*of_base, *measured])
    found = Fill(field="initial_domain_weights", step=search.name)
    held = with_weights(job, job.name, job.initial_domain_weights)
    graph.add(held, [*of_base, found], keeps_model=keeps_model)


def _measured(params: Params, known: Known) -> tuple[InitialLosses, Targets]:
    """Return what was measured, or stand-ins that serve only to make jobs."""
    if known.measured is not None:
        return known.measured
    names, precision = list(known.manifest.domains), resolve_precision(params.training)
    initial = InitialLosses(precision=precision, losses=dict.fromkeys(names, 2.0), tokens={}, seconds=0.0)
    return initial, Targets.model_validate({"domains": {name: {"target": 1.0} for name in names}})
