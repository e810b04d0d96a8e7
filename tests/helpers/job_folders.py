"""A folder of jobs of the tiny model, and its runs as forked processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
from forked import ForkedProcess
from tiny import job as tiny_job

from velocitune_core.config import Targets
from velocitune_core.evaluation.evaluation_job import EvaluationJob, HeldOutFile
from velocitune_core.files import file_sha256
from velocitune_core.job_folder.contents import JOBS, Fill, InitialStep, JobFolder, Step, TargetsStep, TrainStep
from velocitune_core.model.io import model_digest
from velocitune_core.train.job import TrainJob
from velocitune_core.training_code import code_of_all

PROXIES = {"proxy-4": 4, "proxy-8": 8, "proxy-12": 12}  # name: steps
ORDER = ["initial", *PROXIES, "targets", "static", "velocitune", "held"]


def fork_runs(patch: pytest.MonkeyPatch, watch: Callable[[Sequence[str]], object] = lambda program: None) -> None:
    """Start the runs of a folder in forked processes of one thread.

    Args:
        watch: called with module and arguments of each.
    """

    def start(program: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> ForkedProcess:
        watch(program)
        return ForkedProcess(program, environment, log)

    patch.setattr("velocitune_core.job_folder.running.start_process", start)
    patch.setattr("velocitune_core.job_folder.runner.threads_per_run", lambda devices, parallel: 1)
    patch.setattr("velocitune_core.job_folder.runner.SECONDS_BETWEEN_POLLS", 0.02)
    patch.chdir(Path.cwd())  # to come back here: the program enters the folder


def never() -> bool:
    """In place of a StopRequest."""
    return False


def write_folder(root: Path, inputs: Path, **changes: Any) -> JobFolder:
    """Write a folder with the steps ORDER.

    Args:
        inputs: of `tiny.write_inputs`.
        changes: of every job, as in `tiny.job`.
    """
    shutil.copytree(inputs, root / "inputs")
    jobs = _jobs(root, changes)
    losses = [Fill(field="initial_loss", step="initial"), Fill(field="target_loss", step="targets")]
    fills = {"velocitune": losses, "held": [Fill(field="initial_domain_weights", step="velocitune")]}
    runs = {name: TrainStep(name=name, job=f"jobs/{name}.json", fills=fills.get(name, [])) for name in jobs}
    runs["static"] = runs["static"].model_copy(update={"keeps_model": True})
    others: dict[str, Step] = {
        "initial": InitialStep(job="jobs/initial.json"),
        "targets": TargetsStep(proxies=list(PROXIES), settings=Targets(bootstrap=0), token_budget=16 * 6 * 16),
    }
    static = jobs["static"]
    measured = EvaluationJob(
        name="initial",
        output="",
        model=static.model,
        model_sha256=static.model_sha256,
        held_out={
            name: HeldOutFile(path=files.held_out, sha256=files.held_out_sha256)
            for name, files in static.domains.items()
        },
        precision="float32",
        execution=static.execution,
    )
    folder = JobFolder(
        goal="compare",
        trains_base=False,
        fits_targets=True,
        steps=[(runs | others)[name] for name in ORDER],
        code=code_of_all([*jobs.values(), measured]),
    )
    (root / "jobs").mkdir()
    for name, job in {**jobs, "initial": measured}.items():
        (root / f"jobs/{name}.json").write_text(job.model_dump_json())
    folder.write(root / JOBS)
    return folder


def _jobs(root: Path, changes: Mapping[str, Any]) -> dict[str, TrainJob]:
    """Jobs whose paths are relative to the folder, by name."""
    lengths = PROXIES | {"static": 16, "velocitune": 16, "held": 16}
    jobs = {}
    for name, steps in lengths.items():
        tree = tiny_job(root / "inputs", Path(), total_steps=steps, name=name, **changes)
        tree |= {"output": "", "model": "inputs/model", "model_sha256": model_digest(root / "inputs/model")}
        tree["domains"] = {
            domain: {
                f"{split}{suffix}": value
                for split in ("train", "held_out")
                for suffix, value in {
                    "": f"inputs/{domain}/{split}.npy",
                    "_sha256": file_sha256(root / f"inputs/{domain}/{split}.npy"),
                }.items()
            }
            for domain in tree["domains"]
        }
        tree["save_model"] = name not in PROXIES
        if name == "velocitune":
            tree["strategy"] = {"name": "velocitune", "options": {"initial_loss": {}, "target_loss": {}}}
        else:
            tree["strategy"] = {"name": "static", "options": {}}
        jobs[name] = TrainJob.model_validate(tree, strict=False)
    return jobs
