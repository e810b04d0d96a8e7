"""Which folder a run has, whose code made what is in it, and what a new run takes from an older one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import train_here
from tiny import job as tiny_job

from tasks.runs.run_folder import (
    REPLACED,
    alone_in_run_folder,
    finished_result,
    open_run_folder,
    record_start,
    run_folder,
)
from tasks.workspace.fresh import starting_over
from tasks.workspace.home import share_runs
from velocitune_core.config import Execution, Optimizer, Schedule, Training
from velocitune_core.train.events import Evaluated, Event, Reweighted, Started, Stepped, read_events
from velocitune_core.train.extension import common_steps, discard_checkpoints
from velocitune_core.train.job import NOT_RECIPE, TrainJob
from velocitune_core.train.run_lock import RunLock

MakeJob = Callable[..., TrainJob]
WSD = {"kind": "wsd", "warmup_steps": 4, "decay_fraction": 0.2}
STATIC = {"name": "static", "options": {}}


@pytest.fixture
def make_job(workspace: Path, tiny_inputs: Path) -> MakeJob:
    """Jobs on the tiny model and its two domains."""

    def make(**changes: Any) -> TrainJob:
        return TrainJob.model_validate(tiny_job(tiny_inputs, workspace / "unused", **changes), strict=False)

    return make


def run(job: TrainJob) -> list[Event]:
    """Run a job in this process, in its folder, as `run_training` does in another one; return its events."""
    folder = open_run_folder(job)
    settled = job.model_copy(update={"output": str(folder)})
    record_start(folder, settled)
    events = train_here(settled.model_dump(mode="json"))
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(event.model_dump_json() + "\n" for event in events)
    return events


RECIPE: dict[str, Any] = {  # a value for every setting that the tiny job does not have
    "model": "elsewhere",
    "model_sha256": "1",
    "domains__code__train_sha256": "1",
    "initial_domain_weights": {"code": 0.6, "general": 0.4},
    "fraction": 0.5,
    "total_steps": 46,
    "evaluation__every_steps": 6,
    "strategy": STATIC,
    "reference": "other",
    "reference_sha256": "1",
    "measured": {"target": {"path": "target.bin", "sha256": "1"}},
    "save_model": False,
    "training__batch_sequences": 12,
    "training__precision": "bfloat16",
    "training__max_epochs": 100.0,
    "training__seed": 2,
    "training__optimizer__learning_rate": 0.02,
    "training__optimizer__weight_decay": 0.2,
    "training__optimizer__betas": (0.8, 0.9),
    "training__optimizer__gradient_clip": 2.0,
    "training__optimizer__epsilon": 1e-6,
    "training__optimizer__weight_decay_on": "all",
    "document_start": 1,
    "save_dtype": "float16",
    **{
        f"training__schedule__{key}": value
        for key, value in {
            "kind": "wsd",
            "warmup_fraction": 0.1,
            "warmup_steps": 1,
            "decay_fraction": 0.1,
            "final_fraction": 0.2,
        }.items()
    },
}


def test_every_recipe_setting_is_tried() -> None:
    tried = {tuple(key.split("__")[:2]) for key in RECIPE} | {tuple(key.split("__")) for key in RECIPE}
    fields = {(name,) for name in TrainJob.model_fields} - {(name,) for name in NOT_RECIPE}
    fields -= {("training",), ("evaluation",), ("domains",), ("execution",)}
    fields |= {("training", name) for name in Training.model_fields} - {("training", "token_budget")}
    for section, model in (("optimizer", Optimizer), ("schedule", Schedule)):
        fields |= {("training", section, name) for name in model.model_fields}
    assert fields - tried == set(), "settings of the recipe that no test changes"


@pytest.mark.parametrize("key", RECIPE)
def test_another_recipe_has_another_folder_and_names_the_one_before(
    make_job: MakeJob, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    caplog.set_level("INFO")
    changes: dict[str, Any] = {"training__schedule": {}} if "schedule" in key else {}
    before, job = make_job(**changes), make_job(**changes, **{key: RECIPE[key]})
    record_start(open_run_folder(before), before)
    assert caplog.text == ""
    assert run_folder(job) != run_folder(before) and not open_run_folder(job).exists()
    assert f"in {run_folder(before)} it differs by:" in caplog.text
    assert key.replace("__", ".") in caplog.text
    assert not [line for line in caplog.text.splitlines() if "extended" in line and "→" in line], "stands above it"


def test_another_execution_has_the_same_folder(make_job: MakeJob) -> None:
    job = make_job()
    for changes in (
        {"execution": Execution(log_every_steps=9)},
        {"threads": 2},
        {"output": "elsewhere"},
        {"start_id": "1"},
        {"runs_alike": 80},
    ):
        assert run_folder(job) == run_folder(job.model_copy(update=changes))
    budget = job.training.model_copy(update={"token_budget": 45 * 6 * 16 + 1})  # of as many steps
    assert run_folder(job) == run_folder(job.model_copy(update={"training": budget}))


def test_a_run_of_another_name_is_no_sibling(make_job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    search = make_job(name="tiny-search")
    record_start(open_run_folder(search), search)
    open_run_folder(make_job(training__seed=2))
    assert caplog.text == ""


def test_a_result_is_taken_only_from_the_code_that_made_it(make_job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    job = make_job(total_steps=2, strategy=STATIC)
    assert finished_result(job) is None
    run(job)
    result = finished_result(job)
    assert result is not None and result.precision == "float32"
    edit_code(run_folder(job))
    assert finished_result(job) is None
    assert not open_run_folder(job).exists()
    assert "starts over, its code changed: velocitune_core/train/trainer.py" in caplog.text
    (aside,) = REPLACED.iterdir()
    assert (aside / "result.json").exists() and str(aside) in caplog.text
    run(job)
    (run_folder(job) / "code.json").unlink()  # of a version that did not record it
    assert finished_result(job) is None


def test_an_unfinished_run_goes_on_under_other_code_with_a_warning(
    make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job(total_steps=2, strategy=STATIC)
    run(job)
    (run_folder(job) / "result.json").unlink()
    edit_code(run_folder(job))
    folder = open_run_folder(job)
    assert (folder / "events.jsonl").exists()
    assert "other code" in caplog.text and "changed: velocitune_core/train/trainer.py; --fresh" in caplog.text
    record_start(folder, job)
    caplog.clear()
    open_run_folder(job)
    assert caplog.text == ""  # the warning is given once per change


def test_fresh_starts_over_what_began_before_and_continues_what_it_began(make_job: MakeJob) -> None:
    job = make_job(total_steps=2, strategy=STATIC)
    run(job)
    with starting_over(False):
        assert finished_result(job) is not None
    with starting_over(True):
        assert finished_result(job) is None
        run(job)
        assert len(list(REPLACED.iterdir())) == 1
        assert finished_result(job) is not None  # a retry, or another user of the same run
        assert open_run_folder(job).exists()
    assert finished_result(job) is not None


def edit_code(folder: Path) -> None:
    """Make a folder look as if another version of the trainer had been started in it."""
    code = json.loads((folder / "code.json").read_text())
    code["files"]["velocitune_core/train/trainer.py"] = "0"
    (folder / "code.json").write_text(json.dumps(code))


@pytest.mark.slow
def test_a_larger_budget_goes_on_from_the_stable_part(make_job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    """Bit for bit like a run that had the larger budget from the start."""
    caplog.set_level("INFO")
    changes = {"training__schedule": WSD, "execution__checkpoint_every_steps": 9, "execution__checkpoints_kept": 1}
    short, long = make_job(total_steps=20, **changes), make_job(total_steps=40, **changes)
    run(short)
    kept = sorted(path.name for path in (run_folder(short) / "checkpoints").iterdir())
    assert kept == ["step-00000016", "step-00000018"]  # where the decay began, and the newest
    at_once = make_job(name="whole", total_steps=40, **changes)
    whole = run(at_once)
    shutil.rmtree(run_folder(at_once))  # its result would be taken
    discard_checkpoints(run_folder(short), short)
    assert [path.name for path in (run_folder(short) / "checkpoints").iterdir()] == kept[:1]
    caplog.clear()
    continued = run(long)
    assert f"goes on from step 16 of {run_folder(short)}" in caplog.text
    (started,) = [event for event in continued if isinstance(event, Started)]
    assert started.resumed_from == 16 and started.total_steps == 40
    assert logged(read_events(run_folder(long) / "events.jsonl")) == logged(whole)
    assert (run_folder(short) / "result.json").exists() and (run_folder(short) / "checkpoints" / kept[0]).exists()


def logged(events: Any) -> dict[tuple[str, int], dict[str, Any]]:
    """Losses, rates, weights and counts by kind of event and step."""
    timing = {"time", "seconds", "tokens_per_second"}
    found = [event for event in events if isinstance(event, Stepped | Evaluated | Reweighted)]
    assert len(found) == len({(event.event, event.step) for event in found}), "each step once"
    return {(event.event, event.step): event.model_dump(exclude=timing) for event in found}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"training__schedule": {"kind": "wsd", "warmup_fraction": 0.2}}, "warm-up over 4 and 8 steps"),
        ({"training__schedule": {"kind": "cosine"}}, "the learning rate differs from the first step"),
        (
            {
                "training__schedule": WSD,
                "strategy__options__step_size_per": "budget",
            },
            "the weights of strategy velocitune depend on the number of steps",
        ),
    ],
)
def test_a_larger_budget_starts_again_where_the_first_steps_would_differ(
    make_job: MakeJob, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], reason: str
) -> None:
    caplog.set_level("INFO")
    run(make_job(total_steps=20, **changes))
    caplog.clear()
    assert not open_run_folder(make_job(total_steps=40, **changes)).exists()
    assert "it cannot be extended: " in caplog.text and reason in caplog.text


LENGTHS: dict[str, Any] = {"training__schedule": WSD, "execution__checkpoint_every_steps": 5, "strategy": STATIC}


def test_a_folder_stays_locked_while_it_is_extended(make_job: MakeJob) -> None:
    short, long = make_job(total_steps=20, **LENGTHS), make_job(total_steps=40, **LENGTHS)
    run(short)
    run_folder(long).mkdir()  # as a run leaves it that was killed before its first checkpoint
    (run_folder(long) / "log.txt").write_text("kept")
    with alone_in_run_folder(long):
        assert list((open_run_folder(long) / "checkpoints").iterdir())
        assert not RunLock(run_folder(long)).acquire()
    assert (run_folder(long) / "log.txt").read_text() == "kept"


def test_a_finished_run_that_cannot_be_extended_keeps_no_checkpoints(make_job: MakeJob) -> None:
    job = make_job(total_steps=6, execution__checkpoint_every_steps=2)
    run(job)
    assert list((run_folder(job) / "checkpoints").iterdir())
    stray = run_folder(job) / "checkpoints" / "step-6.bak"
    stray.mkdir()
    discard_checkpoints(run_folder(job), job)
    assert list((run_folder(job) / "checkpoints").iterdir()) == [stray] and finished_result(job) is not None


def test_a_run_of_another_strategy_is_not_said_to_be_of_other_code(
    make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = make_job()
    record_start(open_run_folder(before), before)
    open_run_folder(make_job(strategy={"name": "static", "options": {}}))
    assert "it cannot be extended, as strategy.name differs" in caplog.text and "its code" not in caplog.text


def test_a_checkpoint_that_cannot_be_deleted_keeps_no_other(
    make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    """No user can delete a link as a folder."""
    job = make_job()
    checkpoints = run_folder(job) / "checkpoints"
    (checkpoints / "elsewhere").mkdir(parents=True)
    for step in (2, 3, 6):
        (checkpoints / f"step-{step:08d}").mkdir()
    for step in (4, 5):
        (checkpoints / f"step-{step:08d}").symlink_to("elsewhere")
    discard_checkpoints(run_folder(job), job)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["elsewhere", "step-00000004", "step-00000005"]
    (said,) = [each.getMessage() for each in caplog.records]
    assert "step-00000004: " in said and "step-00000005: " in said


def test_a_run_is_not_extended_from_one_of_other_code(make_job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    """Or a result would be taken as made by the present code that began under another."""
    caplog.set_level("INFO")
    short, long = make_job(total_steps=20, **LENGTHS), make_job(total_steps=40, **LENGTHS)
    run(short)
    edit_code(run_folder(short))
    assert not open_run_folder(long).exists()
    assert "it cannot be extended: its code is another one; changed: velocitune_core/" in caplog.text


def test_another_strategy_is_named_with_both_and_not_as_other_code(
    make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    """Each strategy has files of its own, so that its code is another one, too."""
    caplog.set_level("INFO")
    run(make_job(total_steps=20, **LENGTHS))
    caplog.clear()
    options = {"strategy": {"name": "uniform", "options": {}}}
    open_run_folder(make_job(total_steps=20, **{**LENGTHS, **options}))
    open_run_folder(make_job(total_steps=40, **{**LENGTHS, **options}))
    only_strategy, also_length = caplog.messages
    assert "strategy.name: 'static' → 'uniform'" in only_strategy and "cannot be extended" not in only_strategy
    assert "strategy.name: 'static' → 'uniform'" in also_length
    assert also_length.endswith("\nit cannot be extended, as strategy.name differs")
    assert "code" not in caplog.text


@pytest.mark.slow
def test_a_run_goes_on_from_an_earlier_checkpoint_if_the_newest_of_its_sibling_is_corrupt(make_job: MakeJob) -> None:
    kept = {**LENGTHS, "execution__checkpoints_kept": 9}
    short, long = make_job(total_steps=20, **kept), make_job(total_steps=40, **kept)
    run(short)
    newest = run_folder(short) / "checkpoints" / "step-00000016"  # where the decay begins
    next(newest.glob("*.safetensors")).write_bytes(b"")
    (started,) = [event for event in run(long) if isinstance(event, Started)]
    assert started.resumed_from == 15


def test_a_run_that_saved_nothing_yet_may_still_be_extended(make_job: MakeJob) -> None:
    short, long = make_job(total_steps=20, **LENGTHS), make_job(total_steps=40, **LENGTHS)
    run(short)
    record_start(run_folder(long), long)  # killed before its first checkpoint
    assert [path.name for path in (open_run_folder(long) / "checkpoints").iterdir()]


def test_folders_are_moved_aside_whatever_was_deleted_there(make_job: MakeJob) -> None:
    job = make_job(total_steps=2, strategy=STATIC)
    for _ in range(2):
        run(job)
        edit_code(run_folder(job))
        open_run_folder(job)
    shutil.rmtree(sorted(REPLACED.iterdir())[0])
    run(job)
    edit_code(run_folder(job))
    assert not open_run_folder(job).exists()
    assert len(list(REPLACED.iterdir())) == 2


def test_a_subclass_answers_for_itself_whether_it_depends_on_the_number_of_steps(
    make_job: MakeJob, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from velocitune_core.strategies.static import Static\n\n\nclass {0}(Static):\n    {1}\n"
    silent, says = source.format("Silent", "pass"), source.format("Says", "depends_on_total_steps = False")
    (workspace / "own_answers.py").write_text(silent + says.split("\n", 1)[1])
    monkeypatch.chdir(workspace)
    for name, shared in (("Silent", 0), ("Says", 16)):
        strategy = {"name": f"own_answers:{name}", "options": {}}
        short, long = (make_job(total_steps=steps, **{**LENGTHS, "strategy": strategy}) for steps in (20, 40))
        assert common_steps(short.recipe(), long)[0] == shared


def test_a_finished_run_of_the_same_recipe_is_taken_whatever_its_name(make_job: MakeJob) -> None:
    compared, training = make_job(name="recommended-seed-1"), make_job(name="training")
    run(compared)
    assert run_folder(training) == run_folder(compared)
    found = finished_result(training)
    assert found is not None and found.name == "training"
    with starting_over(fresh=True):
        assert run_folder(training) != run_folder(compared) and finished_result(training) is None
    shutil.rmtree(run_folder(compared) / "model")
    assert finished_result(training) is None and finished_result(compared) is not None


def work_in_copy(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = repository / ".dvc/tmp/exps/one"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(repository))
    share_runs()
    return copy


def test_in_a_copy_of_the_repository_the_run_itself_moves_aside(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc exp run --temp` works in a copy whose runs are links."""
    job, repository = make_job(name="shared"), Path.cwd()
    run(job)
    edit_code(run_folder(job))
    work_in_copy(repository, monkeypatch)
    assert run_folder(job).is_symlink()
    assert not (open_run_folder(job) / "result.json").exists()
    monkeypatch.chdir(repository)
    assert (REPLACED / f"{job.folder_name}-0" / "result.json").exists() and not any(run_folder(job).iterdir())


def test_a_run_that_is_extended_in_a_copy_of_the_repository_outlives_it(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    short, long = make_job(total_steps=20, **LENGTHS), make_job(total_steps=40, **LENGTHS)
    record_start(open_run_folder(short), short)
    (run_folder(short) / "checkpoints/step-00000015").mkdir(parents=True)
    (run_folder(short) / "events.jsonl").touch()
    repository = Path.cwd()
    copy = work_in_copy(repository, monkeypatch)
    open_run_folder(long)
    with caplog.at_level("INFO"):
        open_run_folder(make_job(total_steps=40, training__seed=2, **LENGTHS))
    assert "training.seed" in caplog.text
    monkeypatch.chdir(repository)
    shutil.rmtree(copy)
    assert any((run_folder(long) / "checkpoints").iterdir())
