"""Evaluations are launched like trainings: under the lease, alone unless asked otherwise, with nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from evaluations import UNEVEN, evaluation, write_questions, write_sets

from tasks.runs import devices, launch
from tasks.runs.devices import Device, leased_device
from tasks.runs.evaluation_jobs import questions_job
from tasks.runs.launch import run_evaluation
from tasks.runs.run_folder import is_finished, record_start, run_folder
from tasks.runs.torchrun import environment_of
from tasks.views.watcher import Watcher
from tasks.workspace import paths
from velocitune_core.config import Resources, parse_params
from velocitune_core.contracts import EvaluationResult, MeasuredSet
from velocitune_core.evaluation.evaluation_job import EvaluationJob
from velocitune_core.training_code import EVALUATION_WINGS

PROJECT = Path(__file__).parents[3]
OF_A_CLUSTER = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}
DRIVER = """
import sys
from tasks.runs.launch import run_evaluation
from velocitune_core.config import Resources
from velocitune_core.train.job import read_job
from pathlib import Path
result = run_evaluation(read_job(Path("job.json")), Resources(threads=1))
models = [name for name in ("transformers", "velocitune_core.model.loss") if name in sys.modules]
print(len(result.sets), models)
"""


@pytest.fixture
def tree(workspace: Path, tiny_inputs: Path) -> dict[str, Any]:
    held_out = write_sets(workspace / "sets", UNEVEN)
    return evaluation(tiny_inputs / "model", workspace / "unused", held_out=held_out)


@pytest.fixture
def job(tree: dict[str, Any]) -> EvaluationJob:
    return EvaluationJob.model_validate(tree)


@pytest.mark.slow
def test_a_driver_under_another_launcher_evaluates_alone_and_holds_no_model(tree: dict[str, Any]) -> None:
    Path("job.json").write_text(json.dumps(tree))
    environment = {**os.environ, **OF_A_CLUSTER, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", DRIVER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "3 []\n", done.stderr


def test_variables_of_a_process_group_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**OF_A_CLUSTER, "TORCHELASTIC_RUN_ID": "none", "HF_HOME": "here"}.items():
        monkeypatch.setenv(name, value)
    environment = environment_of(Device((), 3))
    assert not OF_A_CLUSTER.keys() & environment.keys() and "TORCHELASTIC_RUN_ID" not in environment
    assert (environment["HF_HOME"], environment["OMP_NUM_THREADS"]) == ("here", "3")


@pytest.mark.usefixtures("forked_program")
@pytest.mark.slow
def test_an_evaluation_waits_for_the_device(job: EvaluationJob) -> None:
    found: list[EvaluationResult] = []
    thread = threading.Thread(target=lambda: found.append(run_evaluation(job, Resources(threads=1))), daemon=True)
    with leased_device(Resources(threads=1)):
        thread.start()
        thread.join(1)
        assert not (run_folder(job) / "log.txt").exists(), "started while another run holds the device"
    thread.join(60)
    assert list(found[0].sets) == list(UNEVEN)


def test_an_evaluation_takes_the_gpu_that_is_free(
    job: EvaluationJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started: list[tuple[str, list[str]]] = []

    def run(folder: Path, device: Device, launcher: list[str], watchers: Sequence[Watcher], seconds: int) -> int:
        started.append((device.environment["CUDA_VISIBLE_DEVICES"], launcher))
        sets = {"code": MeasuredSet(sequences=1, tokens=1, nats=1.0)}
        EvaluationResult(name=job.name, precision="float32", parameters=1, sets=sets, seconds=1.0).write(
            folder / "result.json"
        )
        return 0

    monkeypatch.setattr(launch, "run_program", run)
    with leased_device(Resources()) as first:
        assert first.gpus == (0,)
        run_evaluation(job, Resources(processes=2))
    assert started == [("7", [])]
    other = job.model_copy(update={"precision": "bfloat16"})
    run_evaluation(other, Resources(processes=2), spread=True)
    assert started[1][0] == "5,7" and started[1][1][-1] == "--nproc-per-node=2"


def test_a_result_is_taken_only_from_the_code_that_made_it(job: EvaluationJob) -> None:
    folder = run_folder(job)
    record_start(folder, job)
    (folder / "result.json").write_text("{}")
    assert is_finished(job)
    code = json.loads((folder / "code.json").read_text())
    assert {name.split("/")[1].removesuffix(".py") for name in code["files"]} == set(EVALUATION_WINGS)
    code["files"]["velocitune_core/model/loss.py"] = "0" * 64
    (folder / "code.json").write_text(json.dumps(code))
    assert not is_finished(job)


def test_questions_and_tokenizer_are_part_of_the_identity(
    workspace: Path, settings: dict[str, Any], tiny_inputs: Path
) -> None:
    shutil.copytree(tiny_inputs / "model", "models/mine")
    params, model, file = parse_params(settings), Path("models/mine"), workspace / "questions.json"

    def fingerprint() -> str:
        return questions_job(params, file, "downstream", model).fingerprint()

    write_questions(file, {"sums": [1, 2]})
    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    write_questions(file, {"sums": [1, 3]})
    seen.append(fingerprint())
    (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + "\n")
    seen.append(fingerprint())
    assert len(set(seen)) == 3


def test_files_that_changed_are_refused(job: EvaluationJob) -> None:
    Path(job.held_out["law"].path).write_bytes(b"other")
    with pytest.raises(ValueError, match=r"law\.npy: not the file that `prepare` wrote"):
        run_evaluation(job, Resources(threads=1))
    assert not list(paths.RUNS.glob("*/log.txt"))
