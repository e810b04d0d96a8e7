"""Write a folder of jobs: the steps, the data and the model that they need, and the results that are there already."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.planning.build import setting_of
from tasks.planning.inputs import read_model_config
from tasks.runs.own_targets import labels_with_own_targets
from tasks.runs.price import shape_of
from tasks.runs.resolved_precision import with_precision
from tasks.runs.run_folder import is_finished, run_folder
from tasks.transfer.steps import INITIAL, TARGETS, Graph, job_file
from tasks.workspace import paths
from velocitune_core.config import LOGITS_AT_ONCE_ON_GPU, ConfigError, Params
from velocitune_core.files import obstacle_to_files_in, replacing
from velocitune_core.job_folder.contents import JOBS, JobFolder, RunStep, Step, TrainStep
from velocitune_core.job_folder.results import Results
from velocitune_core.model.io import UNTRAINED
from velocitune_core.plan.memory import memory_of
from velocitune_core.strategies import PLANNED
from velocitune_core.style.text import counted
from velocitune_core.train.job import Job, TrainJob
from velocitune_core.training_code import code_of_all

logger = logging.getLogger(__name__)
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
RESULT_FILES = ("result.json", "job.json", "code.json", "outcome.json")
MEGABYTE = 10**6


@dataclass(frozen=True)
class Contents:
    """What a folder of jobs will hold.

    Args:
        files: path in the folder → file that is copied there.
        texts: path in the folder → text that is written there.
        finished: names of steps whose results are among the files.
    """

    files: dict[str, Path]
    texts: dict[str, str]
    finished: list[str]

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files.values()) + sum(map(len, self.texts.values()))


def check_destination(to: Path) -> None:
    """Raise ConfigError for a folder that holds something, or that cannot be made."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"--to: {to} is not empty; name a new folder")
    if obstacle := obstacle_to_files_in(to):
        raise ConfigError(f"--to: {obstacle}")


def check_can_leave(params: Params, compare: bool) -> None:
    """Raise ConfigError for runs that no folder can hold.

    What the planned labels of a comparison train under is found here, after its runs, and so are the targets that a
    label has for itself. A sibling is trained here.
    """
    model = params.mixture.swarm.model if params.strategy.name == PLANNED else None
    if model is not None and not (Path(model) / "config.json").exists():
        raise ConfigError(f"mixture.swarm.model: {model} is not there yet; run `python -m flows.base` first")
    labels = [label for label, run in params.compare.runs.items() if run.strategy == PLANNED] if params.compare else []
    own = labels_with_own_targets(params)
    if compare and own:
        raise ConfigError(
            f"compare.runs.{own[0]}: its own targets are fitted in this workspace; leave the label out, or compare here"
        )
    if compare and labels:
        raise ConfigError(
            f"compare.runs.{labels[0]}: the weights of planned are found in this workspace, from runs that a folder of "
            "jobs would bring back; leave the label out, or compare here"
        )


def folder_contents(params: Params, graph: Graph, goal: str) -> Contents:
    """Return what a folder of these steps will hold.

    Args:
        goal: `report` or `compare`.
    """
    finished = _finished(graph)
    files: dict[str, Path] = {}
    for step in _runs(graph):
        if step.name in finished:
            keeps_model = isinstance(step, TrainStep) and step.keeps_model
            files |= _result_files(finished[step.name], keeps_model)
    code = code_of_all(graph.jobs.values())
    files |= {name: Path(name) for name in code if not name.startswith("velocitune_core/")}
    trained_there = {step.publish for step in graph.steps if isinstance(step, TrainStep)} - {None}
    for model in {job.model for job in graph.jobs.values()} - trained_there:
        files |= _model_files(Path(model))
    copies = _add_packed(files, graph)
    folder = JobFolder.model_validate(
        {
            "goal": goal,
            "trains_base": bool(trained_there),
            "fits_targets": INITIAL in graph.jobs,
            "steps": _with_memory(params, graph),
            "code": code,
            "copies": copies,
        }
    )
    texts = {job_file(name): job.model_dump_json(indent=1) for name, job in graph.jobs.items()}
    texts[str(JOBS)] = folder.model_dump_json(indent=1) + "\n"
    return Contents(files, texts, sorted(finished))


def write_folder(contents: Contents, to: Path, steps: Iterable[Step]) -> None:
    """Say how large the folder will be, and write it. Raises ConfigError if the disk has no room for it."""
    count, size = len(list(steps)), contents.size_bytes
    logger.info(
        "%s: %s, %d finished before; %.1f MB", to, counted(count, "step"), len(contents.finished), size / MEGABYTE
    )
    parent = next(folder for folder in (to.absolute(), *to.absolute().parents) if folder.exists())
    if (free := shutil.disk_usage(parent).free) < size:
        raise ConfigError(f"--to: {to} needs {size / MEGABYTE:.1f} MB, and its disk has {free / MEGABYTE:.1f} MB left")
    with replacing(to) as temporary:
        for name, source in contents.files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, temporary / name)
        for name, text in contents.texts.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_text(text, encoding="utf-8")


def _finished(graph: Graph) -> dict[str, Job]:
    """Return the jobs, with every value filled in, of the runs that are finished in this workspace."""
    outdated = {TARGETS}
    results = Results(Path(), graph.steps, graph.jobs, outdated, run_folder)
    finished: dict[str, Job] = {}
    for step in _runs(graph):
        job = results.job(step.name)
        if job is None or not is_finished(job):
            outdated.add(step.name)
        else:
            finished[step.name] = job
    return finished


def _result_files(job: Job, keeps_model: bool) -> dict[str, Path]:
    """Return the files of a finished run, by where a folder of jobs has them: under the job's own name."""
    folder = run_folder(job)
    found = [folder / name for name in RESULT_FILES if (folder / name).exists()]
    if keeps_model:
        found += (folder / "model").iterdir()
    return {str(paths.RUNS / job.folder_name / file.relative_to(folder)): file for file in found}


def _model_files(model: Path) -> dict[str, Path]:
    """Return the files of a model in this workspace; none of one elsewhere, which is not copied along."""
    if model.is_absolute() or ".." in model.parts:
        logger.warning("model.path: %s is not copied along; put it at the same place on the other machine", model)
        return {}
    patterns = [each for each in MODEL_FILES if each != "*.safetensors" or not (model / UNTRAINED).exists()]
    return {str(file): file for pattern in patterns for file in sorted(model.glob(pattern))}


def _add_packed(files: dict[str, Path], graph: Graph) -> dict[str, str]:
    """Add the packed files of all jobs, each content once; return the names that share another one's content."""
    stored: dict[str, str] = {}
    copies: dict[str, str] = {}
    for path, digest in (file for job in graph.jobs.values() for file in job.files()):
        name = str(path)
        if (first := stored.setdefault(digest, name)) != name:
            copies[name] = first
        else:
            files[name] = path
    return copies


def _with_memory(params: Params, graph: Graph) -> list[Step]:
    """Return the steps with an estimate of what each run takes of a GPU; an evaluation takes less than a training."""
    shape = shape_of(read_model_config(params))

    def estimate(step: RunStep) -> int:
        job, refers = graph.jobs[step.name], any(fill.field == "reference" for fill in step.fills)
        training = job.training if isinstance(job, TrainJob) else params.training
        setting = setting_of(with_precision(training), params, 1, refers)
        return memory_of(shape, replace(setting, logits_at_once=LOGITS_AT_ONCE_ON_GPU)).peak

    return [
        step.model_copy(update={"memory_bytes": estimate(step)}) if isinstance(step, RunStep) else step
        for step in graph.steps
    ]


def _runs(graph: Graph) -> list[RunStep]:
    return [step for step in graph.steps if isinstance(step, RunStep)]
