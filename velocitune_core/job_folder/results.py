"""What the finished steps of a folder of jobs give to the others: jobs with every value filled in."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from velocitune_core.contracts import EvaluationResult, InitialLosses, ProxyResult, Targets, TrainResult
from velocitune_core.job_folder.contents import RUNS, TARGETS, Fill, RunStep, Step, TargetsStep
from velocitune_core.model.io import model_digest
from velocitune_core.targets import fit_targets
from velocitune_core.train.job import Job, TrainJob


class Results:
    """The results of a folder's steps, as far as they are finished.

    Args:
        root: the folder that holds `runs` and `results`.
        steps: in order, each after those it depends on.
        jobs: as their files say, by the name of the step.
        outdated: names of steps whose results, if there are any, do not count.
        folder_of: where a job runs, or ran; None: in the folder of its own name. A workspace may have its result under
            the name of another run of the same recipe.
    """

    def __init__(
        self,
        root: Path,
        steps: list[Step],
        jobs: Mapping[str, Job],
        outdated: Collection[str] = (),
        folder_of: Callable[[Job], Path] | None = None,
    ) -> None:
        self.steps = steps
        self._folder_of = folder_of or (lambda job: root / RUNS / job.folder_name)
        self._root, self._jobs, self._outdated = root, jobs, outdated
        self._steps = {step.name: step for step in steps}
        self._filled: dict[str, Job] = {}
        self._folders: dict[str, Path] = {}
        self._done: set[str] = set()

    def finished(self, name: str) -> bool:
        """Whether a step has its result."""
        if name in self._outdated:
            return False
        if name not in self._done and self._has_result(name):
            self._done.add(name)
        return name in self._done

    def job(self, name: str) -> Job | None:
        """Return the job of a run with every value filled in; None while a step that has one of them is unfinished."""
        if name in self._filled:
            return self._filled[name]
        step, job = self._steps[name], self._jobs[name]
        assert isinstance(step, RunStep)
        if not all(self.finished(fill.step) for fill in step.fills):
            return None
        for fill in step.fills:
            job = job.model_copy(update=self._value(job, fill))
        self._filled[name] = job
        return job

    def sequences(self, name: str) -> int:
        """Return the sequences that a run trains on, finished or not; 0 for a step that is no training."""
        job = self._jobs.get(name)
        return job.total_steps * job.training.batch_sequences if isinstance(job, TrainJob) else 0

    def run_folder(self, job: Job) -> Path:
        """Return where the job of a step runs, or ran; `job` is what `self.job` returned."""
        if job.name not in self._folders:
            self._folders[job.name] = self._folder_of(job)
        return self._folders[job.name]

    def result(self, name: str) -> TrainResult:
        """Return the result of a finished training."""
        return TrainResult.read(self._finished_folder(name) / "result.json")

    def initial_losses(self, name: str) -> InitialLosses:
        """Return what the finished evaluation of the base model measured."""
        trainings = [job for job in self._jobs.values() if isinstance(job, TrainJob)]
        only_measured = {each for job in trainings for each in job.measured}
        return InitialLosses.of(EvaluationResult.read(self._finished_folder(name) / "result.json"), only_measured)

    def fit_targets(self, step: TargetsStep) -> None:
        """Write the target losses, once initial losses and proxies are finished."""
        proxies = []
        for name in step.proxies:
            job = self.job(name)
            assert isinstance(job, TrainJob), name
            proxies.append(ProxyResult.of(self.result(name), job.fraction, job.training.seed))
        initial = self.initial_losses(step.initial)
        fit_targets(initial, proxies, step.token_budget, step.settings).write(self._root / TARGETS)

    def _has_result(self, name: str) -> bool:
        if isinstance(self._steps[name], TargetsStep):
            return _is_whole(self._root / TARGETS)
        job = self.job(name)  # None while a step that it needs is unfinished
        return job is not None and _is_whole(self.run_folder(job) / "result.json")

    def _finished_folder(self, name: str) -> Path:
        job = self.job(name)
        assert job is not None, name
        return self.run_folder(job)

    def _value(self, job: Job, fill: Fill) -> dict[str, Any]:
        """Return the fields of a job that a fill changes."""
        match fill.field:
            case "model_sha256":
                return {"model_sha256": _digest(self._model(fill.step))}
            case "reference":
                model = self._model(fill.step)
                return {"reference": str(model.relative_to(self._root)), "reference_sha256": _digest(model)}
            case "initial_domain_weights":
                return {"initial_domain_weights": self.result(fill.step).mean_domain_weights}
            case "initial_loss" | "target_loss":
                assert isinstance(job, TrainJob), "an evaluation has no strategy"
                return {"strategy": _with_losses(job, fill, self._losses(fill.step))}

    def _model(self, name: str) -> Path:
        return self._finished_folder(name) / "model"

    def _losses(self, name: str) -> dict[str, float]:
        if isinstance(self._steps[name], TargetsStep):
            return Targets.read(self._root / TARGETS).losses()
        return self.initial_losses(name).losses


def _is_whole(result: Path) -> bool:
    """Return whether a file holds all of a result: a copy can be cut short."""
    try:
        return isinstance(json.loads(result.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _with_losses(job: TrainJob, fill: Fill, losses: Mapping[str, float]) -> Any:
    factors = fill.factors
    filled = dict(losses) if factors is None else {name: losses[name] * factors[name] for name in factors}
    return job.strategy.model_copy(update={"options": job.strategy.options | {fill.field: filled}})


def _digest(model: Path) -> str:
    status = model.stat()
    return _digest_of_folder(model.resolve(), status.st_ino, status.st_mtime_ns)  # a run may make the folder anew


@lru_cache(maxsize=64)
def _digest_of_folder(model: Path, inode: int, modified_nanoseconds: int) -> str:
    return model_digest(model)
