"""Domain weights found in a search, and the unfinished run that holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from faults import train_here
from tiny import SEQUENCES as SIZES
from tiny import job as tiny_job

from tasks.runs.run_folder import finished_result, open_run_folder, record_start, run_folder
from tasks.runs.search import find_weights
from velocitune_core.contracts import TrainResult
from velocitune_core.train.job import TrainJob

STEERED: dict[str, Any] = {"name": "velocitune", "search": 0.5}


@pytest.fixture
def job(workspace: Path, tiny_inputs: Path) -> TrainJob:
    tree = tiny_job(tiny_inputs, workspace / "unused", total_steps=20, execution__checkpoint_every_steps=5)
    tree["strategy"] = {**tree["strategy"], **STEERED}
    return TrainJob.model_validate(tree, strict=False)


def run(job: TrainJob) -> TrainResult:
    if (result := finished_result(job)) is None:
        folder = open_run_folder(job)
        settled = job.model_copy(update={"output": str(folder)})
        record_start(folder, settled)
        train_here(settled.model_dump(mode="json"))
        result = TrainResult.read(folder / "result.json")
    return result


def never(job: TrainJob) -> TrainResult:
    raise AssertionError(f"{job.name} is run")


def test_an_unfinished_run_keeps_the_weights_that_its_search_found_under_other_code(
    job: TrainJob, caplog: pytest.LogCaptureFixture
) -> None:
    """The same search under other code, or on other hardware, gives weights with other last digits."""
    held, spent = find_weights(job, job, SIZES, run)
    assert held.initial_domain_weights != job.initial_domain_weights and spent.tokens > 0
    run(held)
    (run_folder(held) / "result.json").unlink()  # killed after its last checkpoint
    for code in run_folder(held).parent.glob("*search*/code.json"):
        edited = json.loads(code.read_text())
        edited["files"]["velocitune_core/train/trainer.py"] = "0"
        code.write_text(json.dumps(edited))
    assert find_weights(job, job, SIZES, never) == (held, spent)
    assert "its search found under other code" in caplog.text


def test_without_an_unfinished_run_the_search_of_other_code_is_repeated(job: TrainJob) -> None:
    held, _ = find_weights(job, job, SIZES, run)
    for code in run_folder(held).parent.glob("*search*/code.json"):
        code.unlink()
    with pytest.raises(AssertionError, match="is run"):
        find_weights(job, job, SIZES, never)
