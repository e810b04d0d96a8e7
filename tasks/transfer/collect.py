"""Bring the results of a folder of jobs home, if they are those of this workspace's settings, data, model and code."""

from __future__ import annotations

import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.runs.run_folder import alone_in_run_folder, is_finished, run_folder
from tasks.transfer.steps import INITIAL, Graph
from tasks.workspace import paths
from velocitune_core.config import ConfigError
from velocitune_core.contracts import EvaluationResult, InitialLosses, Targets, TrainResult
from velocitune_core.files import replacing
from velocitune_core.job_folder.contents import JOBS, JobFolder, RunStep, Step, TargetsStep, TrainStep, read_jobs
from velocitune_core.job_folder.results import Results
from velocitune_core.style.text import counted
from velocitune_core.train.job import Job, TrainJob, differences, read_job
from velocitune_core.training_code import changed_files, code_of, code_of_all, read_code

logger = logging.getLogger(__name__)
MAIN = "training"  # name of the main run; a folder lacks it if its weights are planned from the folder's runs
LEFT_THERE = shutil.ignore_patterns("checkpoints", "run.lock", "holder.json", "*.tmp")  # of a run folder


class ForeignResultsError(ConfigError):
    """Results of other settings, data, models or code than the workspace has now."""


def read_folder(folder: Path) -> tuple[JobFolder, Graph]:
    """Return a folder of jobs, and its steps. Raises ConfigError if it is none."""
    if not (folder / JOBS).exists():
        raise ConfigError(f"{folder}: no {JOBS} in it; name a folder that `python -m flows.jobs` wrote")
    contents = JobFolder.read(folder / JOBS)
    return contents, Graph(contents.steps, read_jobs(folder, contents))


def checked_results(folder: Path, contents: JobFolder, theirs: Graph, ours: Graph) -> Results:
    """Return the results of a folder, after a comparison with what this workspace would run now.

    Args:
        theirs: the steps of the folder.
        ours: the steps of the settings, data and model as they are now.

    Raises ForeignResultsError naming everything that differs.
    """
    results = Results(folder, theirs.steps, theirs.jobs)
    problems, code = [*_changed_steps(theirs, ours)], code_of_all(theirs.jobs.values())
    problems += [f"{name}: this code has changed" for name in changed_files(contents.code, code)]
    problems = problems or [problem for step in theirs.steps for problem in _foreign(results, step, theirs, folder)]
    if problems:
        raise ForeignResultsError(
            f"{folder}: its results are not those of this workspace as it is now, so none was taken; undo these "
            "changes (folder → workspace), or write a new folder with `python -m flows.jobs`:\n"
            + "\n".join(f"  {each}" for each in problems)
        )
    return results


def missing_runs(stage: str, ours: Graph, results: Results) -> list[str]:
    """Return the steps that a stage needs, now that results were brought home, and that are finished nowhere."""
    there = {step.name for step in results.steps if results.finished(step.name)}
    return [name for name in _steps_of_stage(stage, ours) if name not in there]


def bring_runs(results: Results) -> None:
    """Copy the folders of finished runs into `runs`, without checkpoints; those that are finished here stay."""
    brought = 0
    for step in results.steps:
        job = results.job(step.name) if isinstance(step, RunStep) else None
        if job is None or not results.finished(step.name) or is_finished(job):
            continue
        with alone_in_run_folder(job):
            if is_finished(job):  # by the process that was waited for
                continue
            with replacing(run_folder(job)) as temporary:
                shutil.copytree(results.run_folder(job), temporary, ignore=LEFT_THERE)
        brought += 1
    logger.info("%s brought home", counted(brought, "run"))


def initial_losses_differ(results: Results) -> bool:
    """Whether the initial losses were measured there too, with other last digits than those that are known here."""
    if INITIAL not in {step.name for step in results.steps} or not results.finished(INITIAL):
        return False
    return paths.INITIAL.exists() and InitialLosses.read(paths.INITIAL).losses != results.initial_losses(INITIAL).losses


def bring_targets(folder: Path) -> None:
    """Copy the targets, which the runs that depend on them were given.

    (Fitted again here, they would differ in their last digits, and those runs would be other runs.)
    """
    with replacing(paths.TARGETS) as temporary:
        shutil.copyfile(folder / paths.TARGETS, temporary)


def _steps_of_stage(stage: str, graph: Graph) -> list[str]:
    """Return the names of the steps that give a stage its result."""
    runs = [step.name for step in graph.steps if isinstance(step, TrainStep)]
    proxies = [name for step in graph.steps if isinstance(step, TargetsStep) for name in step.proxies]
    base = [step.name for step in graph.steps if isinstance(step, TrainStep) and step.publish is not None]
    others = [name for name in runs if name not in {*proxies, *base}]
    return {
        "base": base,
        "initial": [step.name for step in graph.steps if step.name == stage],
        "proxies": proxies,
        "targets": [step.name for step in graph.steps if step.name == stage],
        "weights": [name for name in others if name != MAIN],
        "train": [MAIN],
        "compare": others,
    }.get(stage, [])


def _changed_steps(theirs: Graph, ours: Graph) -> Iterator[str]:
    """Yield a line for each field that differs, naming the steps in which it does."""
    here = {step.name: step for step in ours.steps}
    found: dict[str, list[str]] = defaultdict(list)
    for step in theirs.steps:
        if step.name not in here:
            found["not among the runs of the present settings"].append(step.name)
            continue
        for line in differences(_recipe(step, theirs), _recipe(here[step.name], ours)):
            found[line.strip()].append(step.name)
    for line, names in found.items():
        others = f" and {len(names) - 1} others" if len(names) > 1 else ""
        yield f"{names[0]}{others}: {line}"


def _recipe(step: Step, graph: Graph) -> dict[str, object]:
    """Return all that decides a step's result, apart from the results that it takes."""
    if isinstance(step, TargetsStep):
        return step.model_dump(mode="json")
    return {**graph.jobs[step.name].recipe(), "takes": [fill.model_dump(mode="json") for fill in step.fills]}


def _foreign(results: Results, step: Step, graph: Graph, folder: Path) -> Iterable[str]:
    """Return what is wrong with the result of a finished step."""
    if not results.finished(step.name):
        return []
    if isinstance(step, RunStep):
        job = results.job(step.name)
        assert job is not None, "it is finished"
        return _foreign_run(results.run_folder(job), job)
    targets = Targets.read(folder / paths.TARGETS)
    names = set().union(*(_trained(graph.jobs[proxy]).domains for proxy in step.proxies))
    if set(targets.domains) != names or targets.token_budget != step.token_budget:
        return [f"{paths.TARGETS}: is of other domains, or another budget"]
    return []


def _foreign_run(folder: Path, job: Job) -> list[str]:
    """Return how a run's job, code or result differ from those of the job that it must be of."""
    changed = differences(read_job(folder / "job.json").recipe(), job.recipe())
    problems = [f"{folder.name}/job.json: {line.strip()}" for line in changed]
    code = read_code(folder)
    if code is None:
        problems.append(f"{folder.name}/code.json: cannot be read, so the code of the run is unknown")
    elif other := changed_files(code.files, code_of(job)):
        problems.append(f"{folder.name}: made by other code: {', '.join(other)}")
    found, expected = _facts(folder / "result.json", job)
    if found != expected:
        problems.append(f"{folder.name}/result.json: is of another run: {found}, not {expected}")
    return problems


def _facts(file: Path, job: Job) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """Return what a result says of its run, and what its job says of the same."""
    if isinstance(job, TrainJob):
        result = TrainResult.read(file)
        found = (result.name, result.strategy, result.precision, result.steps)
        return found, (job.name, job.strategy.name, job.training.precision, job.total_steps)
    measured = EvaluationResult.read(file)
    return (measured.name, measured.precision, sorted(measured.sets)), (job.name, job.precision, sorted(job.held_out))


def _trained(job: Job) -> TrainJob:
    assert isinstance(job, TrainJob), job.name
    return job
