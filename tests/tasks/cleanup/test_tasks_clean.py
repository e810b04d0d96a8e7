"""What of `runs/` may go: never what the present settings use, and nothing without `--delete`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import result_samples
import yaml
from journeys import SETTINGS, settings, write_workspace

from tasks.cleanup.command import main
from tasks.cleanup.found import Found, found_runs
from tasks.cleanup.present import present_runs
from tasks.runs.compared_before import digest_of
from tasks.runs.jobs import compared_job, with_weights
from tasks.runs.run_folder import REPLACED
from tasks.transfer.export import folder_contents
from tasks.transfer.steps import Known, steps_of
from tasks.workspace import paths
from tasks.workspace.lock import exclusive
from tasks.workspace.packed_data import settings_digest
from velocitune_core.config import Params
from velocitune_core.contracts import InitialLosses, Manifest, Targets
from velocitune_core.data.tokenize import tokenizer_digest
from velocitune_core.evaluation.evaluation_job import EvaluationJob, QuestionsFile
from velocitune_core.model.tokenizer import load_tokenizer
from velocitune_core.train.job import Job, TrainJob
from velocitune_core.train.run_lock import RunLock
from velocitune_core.training_code import record_code


@pytest.fixture
def here(tmp_path: Path, tiny_inputs: Path) -> Iterator[Path]:
    """A workspace after the stage `prepare`, which is the current folder."""
    write_workspace(tmp_path, tiny_inputs)
    (tmp_path / paths.PARAMS).write_text(yaml.safe_dump(SETTINGS))
    with chdir(tmp_path):
        packed_under(settings())
        yield tmp_path


def packed_under(params: Params) -> None:
    """Let the manifest be one that the stage `prepare` has written under these settings."""
    manifest = Manifest.read(paths.MANIFEST)
    domains = {
        name: domain.model_copy(update={"settings_sha256": settings_digest(params, name)})
        for name, domain in manifest.domains.items()
    }
    tokenizer = tokenizer_digest(load_tokenizer(params.model.path))
    manifest.model_copy(update={"domains": domains, "tokenizer_sha256": tokenizer}).write(paths.MANIFEST)


def put(job: Job, *, finished: bool = True, under: Path = paths.RUNS) -> Path:
    """A folder as a run of this job leaves it, of a little over 1,000 bytes."""
    folder = under / job.folder_name
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(job.model_dump_json())
    (folder / "log.txt").write_text("x" * 1000)
    if finished:
        (folder / "result.json").write_text("{}")
    return folder


def jobs(**changes: object) -> dict[str, Job]:
    return {job.name: job for job in present_runs(settings(**changes)).jobs.values()}


def states() -> dict[Path, Found]:
    return {each.path: each for each in found_runs(present_runs(settings()))}


def clean(*options: str) -> None:
    main(["--workspace", ".", *options])


def test_only_what_no_present_run_needs_is_deleted_and_only_if_asked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, others = jobs(), jobs(training__optimizer={"learning_rate": 0.02})
    kept = [
        put(ours["static-seed-1"]),
        put(ours["initial"], finished=False),
        put(ours["proxy-0_2-seed-1"], finished=False),
    ]
    finished, unfinished = put(others["static-seed-1"]), put(others["proxy-0_4-seed-1"], finished=False)
    replaced = put(ours["static-seed-1"], under=REPLACED)
    (paths.RUNS / "questions").mkdir()

    clean()
    said = capsys.readouterr().out
    assert (
        "what stays: 5 folders, 0.0 MB; 1 of them, 0.0 MB, are unfinished runs of other settings: --unfinished" in said
        and "2 of 7 folders, 0.0 MB, would be deleted" in said
        and f"{finished}: finished, of other settings; to be" in said
    )
    assert (
        f"{kept[0]}: finished, of the present settings\n" in said and f"{replaced}: finished, replaced; to be" in said
    )
    assert f"{unfinished}: unfinished, of other settings\n" in said and finished.exists() and replaced.exists()

    clean("--delete")
    assert not finished.exists() and not replaced.exists() and unfinished.exists()
    clean("--delete", "--unfinished")
    assert not unfinished.exists() and all(path.exists() for path in [*kept, paths.RUNS / "questions"])


def test_a_run_that_another_one_takes_stays(here: Path) -> None:
    static = jobs()["static-seed-1"]
    other = static.model_copy(update={"name": "label-that-is-gone"})
    folder = put(other)
    record_code(folder, other, 0.0)
    (folder / "model").mkdir()
    assert states()[folder].state == "taken by a run of the present settings"
    put(static)  # has a result of its own
    assert states()[folder].state == "of other settings"


def test_a_search_and_the_run_of_its_weights_that_the_pipeline_trained_stay_for_the_comparison(here: Path) -> None:
    """The pipeline trained them under its own names, and then its strategy was changed."""
    labels = {"static": {"strategy": "static"}, "found": {"strategy": "odm", "search": 0.5}}
    runs = {"strategy__name": "static", "compare__runs": labels}
    search = jobs(**runs)["found-seed-1-search"]
    assert isinstance(search, TrainJob)
    shares = {"code": (0.3, 5.0, 3.0, 3.1), "law": (0.7, 5.0, 3.0, 3.1)}
    weights = result_samples.train(shares).mean_domain_weights
    params = settings(**runs)
    held = with_weights(compared_here(params, "found"), "training", weights)
    folders = [put(search.model_copy(update={"name": "training-search"})), put(held)]
    for folder, job in zip(folders, (search, held), strict=True):
        record_code(folder, job, 0.0)
        result_samples.train(shares).write(folder / "result.json")
    (folders[1] / "model").mkdir()
    taken = "taken by a run of the present settings"
    assert {each.path: each.state for each in found_runs(present_runs(params))} == dict.fromkeys(folders, taken)
    graph = steps_of(params, Known(Manifest.read(paths.MANIFEST), None, None), compare=True)
    contents = folder_contents(params, graph, "compare")  # where a folder of jobs looks for results
    there = {
        f"runs/{job.folder_name}/result.json" for job in (search, held.model_copy(update={"name": "found-seed-1"}))
    }
    assert contents.finished == ["found-seed-1", "found-seed-1-search"] and there <= set(contents.files)


def compared_here(params: Params, label: str) -> TrainJob:
    """The run of a label under seed 1, before its weights are found; it has no measured options."""
    manifest, digest = Manifest.read(paths.MANIFEST), digest_of(params.model.path)
    initial = InitialLosses(precision="float32", losses={"code": 2.0, "law": 2.0}, tokens={}, seconds=0.0)
    targets = Targets.model_validate({"domains": {"code": {"target": 1.0}, "law": {"target": 1.0}}})
    return compared_job(params, manifest, initial, targets, label, 1, digest)


def test_a_run_whose_recipe_waits_for_a_result_stays(here: Path) -> None:
    """What a search finds is not known yet, so any folder of that name may be the present one."""
    others = jobs(training__optimizer={"learning_rate": 0.02})
    name = "velocitune-seed-1"
    assert name not in others
    static = others["static-seed-1"]
    folder = put(static.model_copy(update={"name": name}))
    assert states()[folder].state == "perhaps of the present settings"


def test_the_runs_of_a_plan_and_the_run_that_waits_for_it_stay(here: Path) -> None:
    plan = {"strategy__name": "planned", "strategy__options": {"swarm": {"runs": 4}}}
    ours = jobs(**plan)
    assert [name for name in ours if name.startswith("swarm")] == [f"swarm-0_2-seed-1-0{n}" for n in (1, 2, 3)]
    swarm = put(ours["swarm-0_2-seed-1-03"])
    main_run = put(ours["static-seed-1"].model_copy(update={"name": "training"}))
    found = {each.path: each.state for each in found_runs(present_runs(settings(**plan)))}
    assert found == {swarm: "of the present settings", main_run: "perhaps of the present settings"}
    assert states()[swarm].state == "of other settings"


def test_further_rounds_of_a_swarm_that_a_seed_of_the_comparison_draws_stay(here: Path) -> None:
    rounds = {"first": 4, "runs": 2}
    label = {"strategy": "planned", "swarm_per_seed": True, "options": {"swarm": {"rounds": rounds}}}
    plan = {"compare__seeds": [7], "compare__runs": {"static": {"strategy": "static"}, "planned": label}}
    first = jobs(**plan)["swarm-0_2-seed-7-01"]
    further = put(first.model_copy(update={"name": "swarm-0_2-seed-7-round-2-00"}))
    other = put(first.model_copy(update={"name": "swarm-0_2-seed-1-round-2-00"}))
    found = {each.path: each.state for each in found_runs(present_runs(settings(**plan)))}
    assert found == {further: "perhaps of the present settings", other: "of other settings"}


def test_two_labels_may_plan_from_runs_of_the_same_name(here: Path) -> None:
    """Their mixtures differ, and so do the folders of their runs."""
    swarms = {"a": {"runs": 4}, "b": {"runs": 4, "min_share": 0.2}}
    runs = {label: {"strategy": "planned", "options": {"swarm": swarm}} for label, swarm in swarms.items()}
    plan = {"compare__runs": {"static": {"strategy": "static"}, **runs}}
    present = [job for job in present_runs(settings(**plan)).jobs.values() if job.name.startswith("swarm")]
    assert sorted(job.name for job in present) == [f"swarm-0_2-seed-1-0{n}" for n in (1, 1, 2, 2, 3, 3)]


def test_nothing_but_replaced_runs_go_before_the_data_are_packed(here: Path) -> None:
    other = put(jobs(training__optimizer={"learning_rate": 0.02})["static-seed-1"])
    replaced = put(jobs()["static-seed-1"], under=REPLACED)
    paths.MANIFEST.unlink()
    assert {path for path, each in states().items() if each.is_freed(True)} == {replaced}
    assert other in states()


def test_checkpoints_that_a_present_run_will_go_on_from_stay(here: Path) -> None:
    schedule = {"kind": "wsd", "warmup_steps": 1, "final_fraction": 0.0}
    constant = {"learning_rate": 0.01}
    shorter = jobs(training__schedule=schedule, training__optimizer=constant)["static-seed-1"]
    params = settings(training__schedule=schedule, training__optimizer=constant, training__token_budget=5120)
    folder = put(shorter)
    (folder / "checkpoints/step-00000002").mkdir(parents=True)
    assert {each.path: each.state for each in found_runs(present_runs(params))} == {
        folder: "continued by a run of the present settings"
    }
    shutil.rmtree(folder / "checkpoints")
    assert [each.state for each in found_runs(present_runs(params))] == ["of other settings"]


def test_scores_stay_as_long_as_the_model_that_they_are_of(here: Path) -> None:
    questions = QuestionsFile(path="q.json", sha256="0", context_tokens=8)
    other = put(jobs(training__optimizer={"learning_rate": 0.02})["static-seed-1"])
    (other / "model").mkdir()
    of = {"stays": "models/mine", "goes": str(other / "model")}
    scores = {
        name: put(EvaluationJob(name=name, output="", model=model, questions=questions, precision="float32"))
        for name, model in of.items()
    }
    assert {name: states()[path].is_freed(False) for name, path in scores.items()} == {"stays": False, "goes": True}


def test_a_run_that_a_process_is_in_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = put(jobs(training__optimizer={"learning_rate": 0.02})["static-seed-1"])
    lock = RunLock(folder)
    assert lock.acquire()
    clean("--delete")
    assert folder.exists() and "a process runs in it" in capsys.readouterr().out
    lock.release()


def test_the_workspace_is_held(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def look(present: object) -> list[Found]:
        with exclusive():  # taken again by the process that has it
            held.append((paths.HOLDER).exists())
        return []

    monkeypatch.setattr("tasks.cleanup.command.found_runs", look)
    clean()
    assert held == [True]
