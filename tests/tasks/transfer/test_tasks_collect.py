"""Results that come home: those of the runs that this workspace would start, or refused with what differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from journeys import RUNS, Journey, settings

from tasks.runs.budget import sizes_of
from tasks.runs.evaluation_jobs import held_out_job
from tasks.runs.jobs import compared_job, proxy_jobs, with_weights
from tasks.runs.run_folder import finished_result, is_finished, run_folder
from tasks.runs.search import find_weights
from tasks.transfer.collect import (
    ForeignResultsError,
    bring_runs,
    bring_targets,
    checked_results,
    initial_losses_differ,
    missing_runs,
    read_folder,
)
from tasks.transfer.steps import Known, steps_of
from tasks.workspace import paths
from velocitune_core.config import Params
from velocitune_core.contracts import EvaluationResult, InitialLosses, Manifest, Targets, TrainResult
from velocitune_core.files import file_sha256
from velocitune_core.job_folder.results import Results
from velocitune_core.train.job import TrainJob
from velocitune_core.train.run_lock import RunLock

pytestmark = pytest.mark.slow


def collected(folder: Path, params: Params) -> Results:
    contents, theirs = read_folder(folder)
    ours = steps_of(params, Known(Manifest.read(paths.MANIFEST), None, None), compare=True)
    return checked_results(folder, contents, theirs, ours)


def test_every_run_that_the_stages_would_start_is_finished(journey: Journey) -> None:
    """The jobs are made by the stages' own functions, from the files that came home."""
    params = settings()
    bring_runs(collected(journey.folder, params))
    bring_targets(journey.folder)
    manifest, targets = Manifest.read(paths.MANIFEST), Targets.read(paths.TARGETS)
    evaluation = held_out_job(params, manifest, "initial", Path(params.model.path))
    assert is_finished(evaluation)
    initial = InitialLosses.of(EvaluationResult.read(run_folder(evaluation) / "result.json"))

    def finished(job: TrainJob) -> TrainResult:
        result = finished_result(job)
        assert result is not None, job.name
        return result

    for proxy in proxy_jobs(params, manifest):
        finished(proxy)
    jobs = {label: compared_job(params, manifest, initial, targets, label, 1) for label in RUNS}
    for label, job in jobs.items():
        if label == "held":
            weights = finished(jobs["velocitune"]).mean_domain_weights
            finished(with_weights(job, job.name, weights))
        else:
            finished(find_weights(job, jobs["static"], sizes_of(manifest), finished)[0])
    brought = {path.parent.name for path in paths.RUNS.glob("*/events.jsonl")}
    assert len(brought) == 11 and not list(paths.RUNS.glob("*/checkpoints"))


def test_a_run_that_is_under_way_here_is_waited_for(journey: Journey, caplog: pytest.LogCaptureFixture) -> None:
    results = collected(journey.folder, settings())
    job = next(job for step in results.steps if (job := results.job(step.name)) is not None)
    lock = RunLock(run_folder(job))
    assert lock.acquire()
    bringing = Thread(target=bring_runs, args=[results])
    bringing.start()
    try:
        bringing.join(timeout=1)
        assert bringing.is_alive() and "waiting for" in caplog.text and not is_finished(job)
    finally:
        lock.release()
        bringing.join()
    assert is_finished(job)


def test_a_stage_waits_for_what_is_not_finished(journey: Journey) -> None:
    params = settings()
    (path,) = journey.folder.glob("runs/proxy-0_8-*/result.json")
    path.unlink()
    (journey.folder / "results/targets.json").unlink()
    results = collected(journey.folder, params)
    ours = steps_of(params, Known(Manifest.read(paths.MANIFEST), None, None), compare=True)
    assert missing_runs("initial", ours, results) == [] and missing_runs("prepare", ours, results) == []
    assert missing_runs("proxies", ours, results) == ["proxy-0_8-seed-1"]
    assert "velocitune-seed-1" in missing_runs("compare", ours, results)
    more = steps_of(settings(compare__seeds=[1, 2]), Known(Manifest.read(paths.MANIFEST), None, None), compare=True)
    assert "static-seed-2" in missing_runs("compare", more, collected(journey.folder, settings()))


def learning_rate(journey: Journey) -> tuple[Params, str]:
    changed = settings(training__optimizer={"learning_rate": 0.02})
    return changed, "and 9 others: training.optimizer.learning_rate: 0.01 → 0.02"


def options(journey: Journey) -> tuple[Params, str]:
    runs = RUNS | {"velocitune": {"strategy": "velocitune", "options": {"step_size": 0.5}}}
    return settings(compare__runs=runs), "velocitune-seed-1: strategy.options.step_size: None → 0.5"


def label_gone(journey: Journey) -> tuple[Params, str]:
    runs = {label: run for label, run in RUNS.items() if label != "zero"}
    return settings(compare__runs=runs), "zero-seed-1: not among the runs of the present settings"


def other_targets(journey: Journey) -> tuple[Params, str]:
    return settings(targets__law="anchored"), "targets: settings.law: 'chinchilla' → 'anchored'"


def other_data(journey: Journey) -> tuple[Params, str]:
    file = paths.PREPARED / "code/train.npy"
    np.save(file, np.load(file)[::-1])
    tree = json.loads(paths.MANIFEST.read_text())
    tree["domains"]["code"]["train"]["sha256"] = file_sha256(file)
    paths.MANIFEST.write_text(json.dumps(tree))
    return settings(), "and 9 others: domains.code.train_sha256: "


def other_model(journey: Journey) -> tuple[Params, str]:
    config = Path("models/mine/config.json")
    config.write_text(config.read_text() + "\n")
    return settings(), "and 10 others: model_sha256: "


def code_here(journey: Journey) -> tuple[Params, str]:
    """As if this workspace's code were another one than the folder's."""
    tree = json.loads((journey.folder / "jobs.json").read_text())
    tree["code"]["velocitune_core/train/trainer.py"] = "0" * 64
    (journey.folder / "jobs.json").write_text(json.dumps(tree))
    return settings(), "velocitune_core/train/trainer.py: this code has changed"


def code_there(journey: Journey) -> tuple[Params, str]:
    (path,) = journey.folder.glob("runs/static-*/code.json")
    tree = json.loads(path.read_text())
    tree["files"]["velocitune_core/train/learner.py"] = "0" * 64
    path.write_text(json.dumps(tree))
    return settings(), f"{path.parent.name}: made by other code: velocitune_core/train/learner.py"


def code_of_the_evaluation(journey: Journey) -> tuple[Params, str]:
    (path,) = journey.folder.glob("runs/initial-*/code.json")
    tree = json.loads(path.read_text())
    tree["files"]["velocitune_core/train/evaluator.py"] = "0" * 64
    path.write_text(json.dumps(tree))
    return settings(), f"{path.parent.name}: made by other code: velocitune_core/train/evaluator.py"


def swapped(journey: Journey) -> tuple[Params, str]:
    (static,), (zero,) = (journey.folder.glob(f"runs/{name}-seed-1-*/result.json") for name in ("static", "zero"))
    shutil.copyfile(static, zero)
    return settings(), f"{zero.parent.name}/result.json: is of another run"


def job_of_another_run(journey: Journey) -> tuple[Params, str]:
    (path,) = journey.folder.glob("runs/static-*/job.json")
    tree = json.loads(path.read_text())
    tree["training"]["seed"] = 7
    path.write_text(json.dumps(tree))
    return settings(), f"{path.parent.name}/job.json: training.seed: 7 → 1"


@pytest.mark.parametrize(
    "fault",
    [
        learning_rate,
        options,
        label_gone,
        other_targets,
        other_data,
        other_model,
        code_here,
        code_there,
        code_of_the_evaluation,
        swapped,
        job_of_another_run,
    ],
)
def test_results_of_something_else_are_refused_and_what_differs_is_named(
    journey: Journey, fault: Callable[[Journey], tuple[Params, str]]
) -> None:
    params, expected = fault(journey)
    with pytest.raises(ForeignResultsError) as error:
        collected(journey.folder, params)
    assert expected in str(error.value), error.value
    assert not paths.RUNS.exists()


def test_initial_losses_that_were_measured_there_again_are_noticed(journey: Journey) -> None:
    """They differ in last digits, and the runs of the folder were given those of the other machine."""
    results = collected(journey.folder, settings())
    assert not initial_losses_differ(results)  # there are none here yet
    theirs = results.initial_losses("initial")
    theirs.write(paths.INITIAL)
    assert not initial_losses_differ(results)
    ours = {name: loss + 1e-9 for name, loss in theirs.losses.items()}
    theirs.model_copy(update={"losses": ours}).write(paths.INITIAL)
    assert initial_losses_differ(results)


def test_execution_settings_may_differ(journey: Journey) -> None:
    collected(journey.folder, settings(execution__checkpoint_every_steps=3, resources__threads=2))


def test_a_folder_without_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no jobs.json"):
        read_folder(tmp_path)
