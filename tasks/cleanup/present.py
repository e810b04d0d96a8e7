"""The runs that a pipeline of the present settings would start or take, as far as they are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.planning.inputs import is_base
from tasks.planning.packed_base import packed_base
from tasks.runs.earlier_runs import earlier_runs
from tasks.runs.run_folder import run_folder
from tasks.runs.swarm import SWARM
from tasks.runs.swarm_rounds import further_names
from tasks.transfer.steps import Graph, Known, steps_of
from tasks.workspace import paths
from tasks.workspace.packed_data import packed_manifest
from tasks.workspace.planned_settings import compared_mixture, compared_plans, mixture_of
from velocitune_core.config import Mixture, Params
from velocitune_core.contracts import DomainManifest, InitialLosses, Manifest, Targets
from velocitune_core.job_folder.contents import RunStep
from velocitune_core.job_folder.results import Results
from velocitune_core.strategies import PLANNED
from velocitune_core.train.job import Job, TrainJob


@dataclass
class Present:
    """Runs of the present settings.

    Args:
        jobs: by the name of their folder.
        undecided: names of runs whose recipe depends on a result that is not there yet, so that any folder of that
            name may be theirs; None if no run is known.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    undecided: set[str] | None = field(default_factory=set)


def present_runs(params: Params) -> Present:
    """Return every run that the pipeline and the comparison would start now, or would take if it is finished.

    Nothing is packed or built for it: before the stage `prepare` has run for these domains, no run is known.
    """
    manifest, _ = packed_manifest(params)
    if manifest is None:
        return Present(undecided=None)
    present, undecided = Present(), _planned_runs(params)
    for graph in _graphs(params, manifest):
        results = Results(Path(), graph.steps, graph.jobs, folder_of=run_folder)
        for step in graph.steps:
            if isinstance(step, RunStep):
                if (job := _job_of(step, results)) is None:
                    undecided.add(step.name)
                else:
                    present.jobs[job.folder_name] = job
    if is_base(params) and packed_base(params) is None:
        undecided.add("base")
    swarm = [job for job in present.jobs.values() if isinstance(job, TrainJob) and job.name.startswith(SWARM)]
    earlier = {job.folder_name: job for job, _ in earlier_runs(swarm, manifest)}
    return Present(present.jobs | earlier, undecided)


def _planned_runs(params: Params) -> set[str]:
    """Return the names of runs whose weights are planned or whose targets are their own, and of further rounds."""
    names: set[str] = set()
    if params.strategy.name == PLANNED:
        names = {"training"} | _further(params, mixture_of(params, params.strategy.options))
    if params.compare is not None:
        runs = params.compare.runs
        planned = [label for label, run in runs.items() if run.strategy == PLANNED]
        labels = [*planned, *(label for label, run in runs.items() if run.own_targets is not None)]
        labels += [label for label, run in runs.items() if run.weights_of in labels]
        names |= {f"{label}-seed-{seed}" for label in labels for seed in params.compare.seeds}
        for label, seed in compared_plans(params).values():
            names |= _further(params, compared_mixture(params, label, seed))
    return names


def _further(params: Params, mixture: Mixture) -> set[str]:
    return further_names(mixture.swarm, len(params.training_domains))


def _job_of(step: RunStep, results: Results) -> Job | None:
    """Return the job of a step; None if it takes something that is not there, or cannot be read."""
    try:
        return results.job(step.name)
    except (OSError, ValueError):  # the model of a reference, a result
        return None


def _graphs(params: Params, manifest: Manifest) -> Iterator[Graph]:
    """Yield the steps of the pipeline and of the comparison: with losses and targets to be measured, and as they are.

    Raises ConfigError for settings under which no run can start.
    """
    bases: list[dict[str, DomainManifest] | None] = []
    if is_base(params) and (packed := packed_base(params)) is not None:
        bases.append(packed)
    if (Path(params.model.path) / "config.json").exists():
        bases.append(None)
    measured: list[tuple[InitialLosses, Targets] | None] = [None]
    if paths.INITIAL.exists() and paths.TARGETS.exists():
        measured.append((InitialLosses.read(paths.INITIAL), Targets.read(paths.TARGETS)))
    for base in bases:
        for each in measured:
            for compare in [False, *([] if params.compare is None else [True])]:
                yield steps_of(params, Known(manifest, base, each), compare)
