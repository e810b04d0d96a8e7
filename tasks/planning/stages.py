"""The stages of a pipeline and the runs of each, made by the code that will start them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tasks.planning.inputs import Inputs, is_base, stand_ins_of_base
from tasks.planning.packed_base import finished_of_base
from tasks.runs.budget import sizes_of
from tasks.runs.compared import comparison_settings, parent_of, runs_in_order, side_by_side
from tasks.runs.compared_before import UNHASHED, Before, digest_of
from tasks.runs.devices import parallel_runs
from tasks.runs.jobs import base_job, compared_job, proxy_jobs, reference_job, search_job, training_job, with_weights
from tasks.runs.own_targets import labels_with_own_targets, own_proxy_jobs
from tasks.runs.price import shape_of, shape_of_folder
from tasks.runs.run_folder import finished_result, run_folder
from tasks.runs.search import finished_of
from tasks.runs.swarm import is_of_sibling, is_proxy
from tasks.workspace import paths
from tasks.workspace.planned_settings import compared_mixture, compared_plans, mixture_of
from velocitune_core.config import Mixture, Params
from velocitune_core.contracts import TrainResult
from velocitune_core.model.build import llama_config
from velocitune_core.plan.cost import Run, Stage, flops_per_token, planned_run
from velocitune_core.strategies import PLANNED, strategy_class
from velocitune_core.train.job import TrainJob

FURTHER_ROUNDS = "weights, at most"  # the rounds of a swarm after its first one


def planned_stages(params: Params, inputs: Inputs, compare: bool) -> tuple[list[Stage], int]:
    """Return the stages that train or evaluate, in order, and how many runs of a comparison are finished."""
    held_out = sum(domain.held_out.sequences for domain in inputs.manifest.domains.values())
    length = inputs.manifest.sequence_length
    at_once = parallel_runs(params.resources)

    def runs(jobs: list[TrainJob]) -> tuple[Run, ...]:
        planned = [planned_run(job, length, held_out, reference=job.reference is not None) for job in jobs]
        work = [sibling_work(params, inputs, Path(job.model)) if is_of_sibling(job) else None for job in jobs]
        return tuple(replace(run, work=each or 1.0) for run, each in zip(planned, work, strict=True))

    stages = []
    if is_base(params):
        domains = stand_ins_of_base(params)
        job = base_job(params, Path(), domains, Path(), UNHASHED)
        held_out_of_base = sum(domain.held_out.sequences for domain in domains.values())
        base = planned_run(job, length, held_out_of_base)
        work = sibling_work(params, inputs, paths.SIBLING_MODEL)
        siblings = () if work is None else (replace(base, name="sibling", work=work),)
        stages.append(Stage("base", (base, *siblings), finished=finished_of_base(params)))
    initial = Run("initial", 0, 0, length, evaluations=1, evaluated_sequences=held_out)
    stages.append(Stage("initial", (initial,)))
    digest = digest_of(params.model.path) if any(paths.RUNS.glob("*/result.json")) else UNHASHED
    proxies = proxy_jobs(params, inputs.manifest, digest)
    stages.append(Stage("proxies", runs(proxies), at_once, _finished(proxies)))
    if not compare:
        job = training_job(params, inputs.manifest, inputs.initial, inputs.targets, digest)
        reference, sizes = reference_job(job), sizes_of(inputs.manifest)
        *search, last = needed_jobs(job, reference, sizes)
        done = {} if params.strategy.name == PLANNED else finished_of(job, reference, sizes)
        if search:
            stages.append(Stage("weights", runs(search), finished=sum(each.name in done for each in search)))
        swarm, further = [], []
        if params.strategy.name == PLANNED:
            swarm, further = _swarm(_before(params, inputs, digest), mixture_of(params, params.strategy.options))
        if swarm:
            stages.append(Stage("weights", runs(swarm), at_once, _finished(swarm)))
        if further:
            stages.append(Stage(FURTHER_ROUNDS, runs(further), at_once))
        return [*stages, Stage("train", runs([last]), finished=int(last.name in done))], 0
    jobs, finished = _compared_jobs(params, inputs)
    return [
        *stages,
        Stage("compare", runs(jobs), parallel_runs(settings_of_comparison(params).resources)),
    ], finished


def _finished(jobs: list[TrainJob]) -> int:
    return sum(finished_result(job) is not None for job in jobs)


def _swarm(before: Before, mixture: Mixture) -> tuple[list[TrainJob], list[TrainJob]]:
    """Return the runs of a swarm without those that are proxies, and at most how many more.

    What further rounds train under is not known yet; the mixtures of a swarm without rounds cost as much.
    """
    at_once = mixture.model_copy(update={"swarm": mixture.swarm.model_copy(update={"rounds": None})})
    first, most = ([job for job in before.swarm(each) if not is_proxy(job)] for each in (mixture, at_once))
    begun = {job.name for job in first}
    return first, [job for job in most if job.name not in begun]


def sibling_work(params: Params, inputs: Inputs, model: Path) -> float | None:
    """Return the operations per token of a sibling over those of the pipeline's model; None if there is no sibling."""
    length = inputs.manifest.sequence_length
    if is_base(params) and model == paths.SIBLING_MODEL:
        assert params.base is not None
        if params.base.sibling is None:
            return None
        shape = shape_of(llama_config(params.base.sibling, length, inputs.shape.vocabulary_size))
    elif (model / "config.json").exists():
        shape = shape_of_folder(str(model))
    else:
        return None
    return flops_per_token(shape, length) / flops_per_token(inputs.shape, length)


def needed_jobs(job: TrainJob, reference: TrainJob, sizes: Mapping[str, int]) -> list[TrainJob]:
    """Return all runs that a job needs, in order: the reference model of a search, the search, and itself."""
    if job.strategy.search is None:
        return [job]
    search, before = search_job(job, sizes), []
    if strategy_class(job.strategy.name).needs_reference:
        before.append(reference)
        search = search.model_copy(update={"reference": str(run_folder(reference) / "model")})
    return [*before, search, with_weights(job, job.name, job.initial_domain_weights)]


def settings_of_comparison(params: Params) -> Params:
    """Return the settings under which the stage `compare` executes its runs."""
    return side_by_side(params)


def _before(params: Params, inputs: Inputs, digest: str) -> Before:
    """Return what of a comparison is there."""
    return Before(params, inputs.manifest, inputs.initial, inputs.targets, digest)


def _compared_jobs(params: Params, inputs: Inputs) -> tuple[list[TrainJob], int]:
    """Return the runs of the comparison that are missing, and how many are finished; a shared reference counts once."""
    settings, sizes = comparison_settings(params), sizes_of(inputs.manifest)
    before = _before(params, inputs, digest_of(params.model.path))
    needed, done = _runs_before(params, inputs, before)

    def job_of(label: str, seed: int) -> TrainJob:
        targets = before.targets_of(label) or inputs.targets
        return compared_job(params, inputs.manifest, inputs.initial, targets, label, seed, before.digest)

    for label, seed in runs_in_order(params):
        job, reference = before.job(label, seed), job_of(settings.baseline, seed)
        parent = parent_of(params, label) if settings.runs[label].weights_of else None
        if job is None:  # for targets to be fitted, or weights to be planned
            needed |= {each.name: each for each in needed_jobs(job_of(label, seed), reference, sizes)}
            continue
        if parent is not None:
            found = done.get(f"{parent}-seed-{seed}")
            job = with_weights(job, job.name, found.mean_domain_weights if found else job.initial_domain_weights)
            if found is None:  # the run folder depends on weights that are not known yet
                needed[job.name] = job
                continue
        needed |= {each.name: each for each in needed_jobs(job, reference, sizes)}
        done |= finished_of(job, reference, sizes)
    return [job for name, job in needed.items() if name not in done], len(done)


def _runs_before(params: Params, inputs: Inputs, before: Before) -> tuple[dict[str, TrainJob], dict[str, TrainResult]]:
    """Return the proxies of own targets and the runs of swarms, by folder, and the results of those that are finished.

    Of a plan that is there no further rounds are needed: it was made after the last one.
    """
    jobs, unknown = list[TrainJob](), list[TrainJob]()
    for label in labels_with_own_targets(params):
        jobs += own_proxy_jobs(params, label, inputs.manifest, before.digest)
    for label, seed in compared_plans(params).values():
        first, further = _swarm(before, compared_mixture(params, label, seed))
        jobs += first
        if before.plan(label, seed) is None or any(finished_result(job) is None for job in first):
            unknown += further
    results = {job.folder_name: finished_result(job) for job in jobs}
    done = {name: result for name, result in results.items() if result is not None}
    return {job.folder_name: job for job in [*jobs, *unknown]}, done
