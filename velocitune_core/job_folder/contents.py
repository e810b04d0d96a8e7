"""What a folder of jobs holds: `jobs.json` with its steps in order, and a job file for each of them.

Paths are relative to the folder, and the same as in the workspace that wrote it, so that a run has the same identity in
both. A value that an earlier step finds is missing in the job file, and `fills` says which step's result has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from velocitune_core import config
from velocitune_core.config import Name
from velocitune_core.contracts import Contract, Part
from velocitune_core.train.job import Job, read_job

JOBS = Path("jobs.json")
RUNS = Path("runs")
TARGETS = Path("results/targets.json")


class Fill(Part):
    """A field of a job that takes its value from the result of an earlier step."""

    field: Literal["model_sha256", "reference", "initial_domain_weights", "initial_loss", "target_loss"]
    step: Name
    factors: dict[str, float] | None = None  # by domain, that the losses are multiplied with


class RunStep(Part):
    """A run of the training program."""

    name: Name
    job: str  # path of its job
    fills: list[Fill] = Field(default_factory=list)
    memory_bytes: int = 0  # of the device, estimated; 0: unknown


class TrainStep(RunStep):
    """A training."""

    kind: Literal["train"] = "train"
    publish: str | None = None  # where its model is copied to
    keeps_model: bool = False  # or it is removed once the run has finished: nothing reads it


class InitialStep(RunStep):
    """The evaluation of the base model on the held-out sets."""

    kind: Literal["initial"] = "initial"
    name: Name = "initial"


class TargetsStep(Part):
    """The target losses, fitted to those of the proxies; its result is results/targets.json. Needs no device."""

    kind: Literal["targets"] = "targets"
    name: Name = "targets"
    initial: Name = "initial"
    proxies: list[Name]
    settings: config.Targets
    token_budget: int  # D at which the laws are read


Step = Annotated[TrainStep | InitialStep | TargetsStep, Field(discriminator="kind")]


class JobFolder(Contract):
    """jobs.json"""

    goal: Literal["report", "compare"]
    trains_base: bool  # whether the base model is one of the runs
    fits_targets: bool  # whether initial losses, proxies and targets are among the steps
    steps: list[Step]  # each after those it depends on
    code: dict[str, str]  # path → SHA-256 of the code that its runs must be made by
    copies: dict[str, str] = Field(default_factory=dict)  # path → path of a file of the same content, stored once


def needs_of(step: Step) -> set[str]:
    """Return the names of the steps whose results a step takes."""
    if isinstance(step, TargetsStep):
        return {step.initial, *step.proxies}
    return {fill.step for fill in step.fills}


def read_jobs(root: Path, folder: JobFolder) -> dict[str, Job]:
    """Return the job files of a folder, by the name of their step. Raises ConfigError for one that cannot be read."""
    return {step.name: read_job(root / step.job) for step in folder.steps if isinstance(step, RunStep)}
