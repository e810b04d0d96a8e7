"""The runs of a folder: in order, resumed, side by side where memory allows, and refused where anything differs."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar

import pytest
from job_folders import ORDER, PROXIES, fork_runs, never, write_folder
from result_samples import train

from velocitune_core.contracts import EvaluationResult, InitialLosses, Targets, TrainResult
from velocitune_core.job_folder.command import run_all
from velocitune_core.job_folder.contents import JOBS, Fill, JobFolder, TrainStep
from velocitune_core.job_folder.machine import Device, environment_of, threads_per_run
from velocitune_core.job_folder.running import Running
from velocitune_core.train.job import TrainJob, read_job
from velocitune_core.train.run_lock import RunLock
from velocitune_core.train.stop import FINISHED, REFUSED, STOPPED
from velocitune_core.training_code import training_code

FAILED = 1
OFTEN = {"execution__checkpoint_every_steps": 2}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were started, as forked processes."""
    names: list[str] = []
    fork_runs(monkeypatch, lambda program: names.append(name_of(program)))
    return names


def name_of(program: Sequence[str]) -> str:
    return Path(program[1]).parent.name.rpartition("-")[0]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_inputs: Path) -> Path:
    root = tmp_path_factory.mktemp("written") / "folder"
    write_folder(root, tiny_inputs, **OFTEN)
    return root


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "folder"))


def only(folder: Path, *names: str, **changes: object) -> None:
    """Leave the folder only some of its steps, all of them static runs."""
    contents = JobFolder.read(folder / JOBS)
    steps = [step.model_copy(update=changes) for step in contents.steps if step.name in names]
    contents.model_copy(update={"steps": steps, "code": training_code("static")}).write(folder / JOBS)


def results(folder: Path) -> dict[str, TrainResult]:
    files = [path for path in folder.glob("runs/*/result.json") if not path.parent.name.startswith("initial-")]
    return {(found := TrainResult.read(path)).name: found for path in files}


@pytest.mark.slow
def test_every_step_runs_after_those_it_depends_on_and_once(folder: Path, started: list[str]) -> None:
    assert run_all(folder, never) == FINISHED
    assert set(started) == set(ORDER) - {"targets"}
    assert started.index("held") > started.index("velocitune") > max(map(started.index, ["initial", *PROXIES]))
    done, targets = results(folder), Targets.read(folder / "results/targets.json")
    job = read_job(next(folder.glob("runs/velocitune-*/job.json")))
    assert isinstance(job, TrainJob)
    measured = EvaluationResult.read(next(folder.glob("runs/initial-*/result.json")))
    assert job.strategy.options["initial_loss"] == InitialLosses.of(measured).losses
    assert job.strategy.options["target_loss"] == targets.losses()
    held = read_job(next(folder.glob("runs/held-*/job.json")))
    assert isinstance(held, TrainJob)
    assert held.initial_domain_weights == done["velocitune"].mean_domain_weights
    assert held.initial_domain_weights != job.initial_domain_weights

    models = {path.parent.name.rpartition("-")[0] for path in folder.glob("runs/*/model")}
    assert models == {"static"} and not list(folder.glob("runs/*/checkpoints/step-*"))  # what nothing reads is removed
    started.clear()
    assert run_all(folder, never) == FINISHED and started == []


@pytest.mark.slow
def test_a_stopped_folder_goes_on_and_ends_as_one_that_was_not_stopped(
    folder: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    only(folder, "static")
    whole = Path(shutil.copytree(folder, folder.with_name("whole")))

    def there_is_a_checkpoint() -> bool:
        return any(Path("runs").glob("static-*/checkpoints/step-*"))

    assert run_all(folder, there_is_a_checkpoint) == STOPPED
    assert "goes on from here" in capsys.readouterr().out and not results(folder)
    assert run_all(folder, never) == FINISHED and run_all(whole, never) == FINISHED
    stopped, unbroken = results(folder)["static"], results(whole)["static"]
    assert (stopped.resumed, unbroken.resumed) == (1, 0) and stopped.final == unbroken.final


@pytest.mark.slow
def test_a_run_that_fails_costs_only_those_that_need_it(
    folder: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    waits_for(folder, "static", "proxy-8", also="proxy-4")
    text = (folder / "jobs/proxy-8.json").read_text()
    (folder / "jobs/proxy-8.json").write_text(text.replace('"learning_rate":0.01', '"learning_rate":1e30'))
    assert run_all(folder, never) == FAILED
    said = capsys.readouterr().out
    assert "proxy-8: failed (exit status 1): " in said and "lower training.optimizer.learning_rate" in said
    assert "static: needs proxy-8" in said
    assert results(folder).keys() == {"proxy-4"}
    (folder / "jobs/proxy-8.json").write_text(text)
    assert run_all(folder, never) == FINISHED and results(folder).keys() == {"proxy-4", "proxy-8", "static"}


def waits_for(folder: Path, name: str, other: str, also: str = "") -> None:
    """Leave the folder two steps, and perhaps one more, the first of which takes its domain weights from the second."""
    only(folder, name, other, also)
    contents = JobFolder.read(folder / JOBS)
    fills = [Fill(field="initial_domain_weights", step=other)]
    steps = [step.model_copy(update={"fills": fills}) if step.name == name else step for step in contents.steps]
    contents.model_copy(update={"steps": steps}).write(folder / JOBS)


class Lingering:
    """In place of a run's process: writes its result at once and ends later."""

    events: ClassVar[list[str]] = []
    running: ClassVar[int] = 0
    most: ClassVar[int] = 0

    def __init__(self, program: Sequence[str], *_: object) -> None:
        self._name, self._looks = name_of(program), 3
        Lingering.running += 1
        Lingering.most = max(Lingering.most, Lingering.running)
        self.events.append(f"{self._name} starts")
        weights = {"code": 0.5, "general": 0.5}
        sample = train().model_copy(update={"name": self._name, "mean_domain_weights": weights})
        sample.write(Path(program[1]).parent / "result.json")

    def poll(self) -> int | None:
        self._looks -= 1
        if self._looks:
            return None
        Lingering.running -= 1
        self.events.append(f"{self._name} ends")
        return 0


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch, started: list[str]) -> type[Lingering]:
    """Runs that take no time, on a device of 1,000 bytes."""
    monkeypatch.setattr("velocitune_core.job_folder.running.start_process", Lingering)
    monkeypatch.setattr("velocitune_core.job_folder.command.find_devices", lambda: [Device("", 1000)])
    for name, start in {"events": [], "running": 0, "most": 0}.items():
        monkeypatch.setattr(Lingering, name, start)
    return Lingering


@pytest.mark.parametrize(("share", "most"), [(0.3, 2), (0.6, 1)])
def test_as_many_runs_share_a_device_as_its_memory_holds(
    folder: Path, lingering: type[Lingering], share: float, most: int
) -> None:
    """With two per device allowed; the estimate of each run is a share of the device."""
    only(folder, "proxy-4", "proxy-8", "static", memory_bytes=int(share * 1000))
    assert run_all(folder, never, parallel=2) == FINISHED
    assert lingering.most == most


def test_a_result_counts_once_the_process_that_wrote_it_has_ended(folder: Path, lingering: type[Lingering]) -> None:
    """A run writes its result before its last event, and only then is its model copied to where others read it."""
    waits_for(folder, "held", "static")
    assert run_all(folder, never, parallel=2) == FINISHED
    assert lingering.events == ["static starts", "static ends", "held starts", "held ends"]


def test_a_folder_that_another_process_runs_is_refused(
    folder: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = RunLock(folder)
    assert other.acquire()
    assert run_all(folder, never) == REFUSED and started == []
    assert f"process {os.getpid()} on " in capsys.readouterr().err  # whoever holds it is named
    other.release()


def change_code(folder: Path) -> str:
    contents = JobFolder.read(folder / JOBS)
    code = contents.code | {"velocitune_core/train/trainer.py": "0" * 64}
    contents.model_copy(update={"code": code}).write(folder / JOBS)
    return "velocitune_core/train/trainer.py: not the code that the folder was written by"


def damage_data(folder: Path) -> str:
    with (folder / "inputs/code/train.npy").open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\0\1")
    return "inputs/code/train.npy: damaged"


def leave_data_out(folder: Path) -> str:
    (folder / "inputs/general/held_out.npy").unlink()
    return "inputs/general/held_out.npy: missing"


def change_model(folder: Path) -> str:
    (folder / "inputs/model/config.json").write_text("{}")
    return "inputs/model: not the model that the folder was written for"


@pytest.mark.parametrize("fault", [change_code, damage_data, leave_data_out, change_model])
def test_what_differs_from_the_machine_that_wrote_the_folder_is_named_before_any_run(
    folder: Path, started: list[str], fault: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = fault(folder)
    assert run_all(folder, never) == REFUSED and started == []
    assert expected in capsys.readouterr().err


def test_a_file_that_is_stored_once_is_read_under_all_its_names(folder: Path, started: list[str]) -> None:
    only(folder, "proxy-4")
    original = folder / "inputs/code/held_out.npy"
    original.rename(folder / "inputs/stored.npy")
    copies = {"inputs/code/held_out.npy": "inputs/stored.npy"}
    JobFolder.read(folder / JOBS).model_copy(update={"copies": copies}).write(folder / JOBS)
    assert run_all(folder, never) == FINISHED


def test_where_there_are_no_hard_links_it_is_copied(
    folder: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr("os.link", refused)
    test_a_file_that_is_stored_once_is_read_under_all_its_names(folder, started)


def test_a_result_that_is_cut_short_does_not_count(folder: Path, started: list[str]) -> None:
    only(folder, "proxy-4")
    assert run_all(folder, never) == FINISHED
    (result,) = folder.glob("runs/proxy-4-*/result.json")
    whole = result.read_text()
    result.write_text(whole[: len(whole) // 2])
    assert run_all(folder, never) == FINISHED
    assert TrainResult.read(result).steps == 4 and started == ["proxy-4"] * 2


def test_a_run_that_is_to_stop_has_as_long_as_its_settings_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the default it would have 300 s, and of a constant of the runner another time."""

    def deaf(program: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
        return process

    monkeypatch.setattr("velocitune_core.job_folder.running.start_process", deaf)
    monkeypatch.chdir(folder)
    job = read_job(Path("jobs/static.json"))
    execution = job.execution.model_copy(update={"shutdown_seconds": 1})
    step = TrainStep(name="static", job="jobs/static.json")
    running = Running(step, job.model_copy(update={"execution": execution}), Path("run"), Device("", 1), threads=1)
    running.terminate()
    since = time.monotonic()
    running.wait()
    assert 1 <= time.monotonic() - since < 30


def test_a_stop_while_files_are_checked_starts_nothing(
    folder: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all(folder, lambda: True) == STOPPED and started == []
    assert "before all files of the folder were ready" in capsys.readouterr().err


def test_a_folder_that_cannot_be_locked_is_refused(
    folder: Path, started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "run.lock").mkdir()
    assert run_all(folder, never) == REFUSED
    assert f"{folder}/run.lock: cannot be locked: Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("nowhere", 1), ("folder", 0)])
def test_a_wrong_command_is_refused(
    folder: Path, started: list[str], arguments: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all(folder.with_name(arguments[0]), never, arguments[1]) == REFUSED
    assert "jobs.json" in (said := capsys.readouterr().err) or "--parallel" in said


def test_cores_that_a_container_may_not_use_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocitune_core.job_folder.machine.usable_cores", lambda: 3)
    assert (threads_per_run(1, 1), threads_per_run(1, 2), threads_per_run(2, 4)) == (3, 1, 1)


def test_a_run_sees_its_own_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "mine")
    environment = environment_of(Device("GPU-1", 10), threads=3)
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-1" and environment["OMP_NUM_THREADS"] == "3"
    assert environment["PYTHONPATH"].endswith(":mine")
    assert Device("", 100).has_room(500, []) and Device("", 100).has_room(40, [50])
    assert not Device("", 100).has_room(41, [50])
