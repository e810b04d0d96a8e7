"""Run the steps of a folder that are not finished, each once those it depends on are."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from velocitune_core.files import replacing
from velocitune_core.job_folder.contents import JobFolder, RunStep, Step, TargetsStep, TrainStep, needs_of
from velocitune_core.job_folder.machine import Device, threads_per_run
from velocitune_core.job_folder.progress import say
from velocitune_core.job_folder.results import Results
from velocitune_core.job_folder.running import Running
from velocitune_core.style.text import counted, duration
from velocitune_core.train.extension import discard_checkpoints
from velocitune_core.train.stop import FINISHED, STOPPED

FAILED = 1
SECONDS_BETWEEN_POLLS = 0.2
SECONDS_BETWEEN_LINES = 15.0


class Runner:
    """The steps of the current folder, on the devices of this machine.

    Args:
        folder: its steps.
        results: what is finished of them.
        devices: that runs may use.
        parallel: most runs at once on a device; fewer where their estimated memory does not fit.
        should_stop: called between any two looks at the runs; once it returns True, all of them save and stop.
    """

    def __init__(
        self,
        folder: JobFolder,
        results: Results,
        devices: list[Device],
        parallel: int,
        should_stop: Callable[[], bool],
    ) -> None:
        self._steps, self._results, self._should_stop = folder.steps, results, should_stop
        self._devices, self._parallel = devices, parallel
        self._threads = threads_per_run(len(devices), parallel)
        self._behind = _longest_chains(folder.steps)
        self._running: list[Running] = []
        self._failed: set[str] = set()
        self._begun, self._sequences = time.monotonic(), 0  # that ended runs have trained on since

    def run(self) -> int:
        """Run everything that can be run, and return an exit status as the training program's."""
        for step in self._steps:
            if self._results.finished(step.name):
                self._settle(step)
        said = time.monotonic()
        try:
            while not self._should_stop():
                self._start_what_can_start()
                if not self._running:
                    return self._conclude()
                time.sleep(SECONDS_BETWEEN_POLLS)
                self._end_what_has_ended()
                if time.monotonic() - said > SECONDS_BETWEEN_LINES:
                    said = time.monotonic()
                    for run in self._running:
                        say(f"{run.step.name}: {run.progress.line()}")
        finally:
            self._stop_all()
        say(f"stopped; {self._count()}; the same command goes on from here")
        return STOPPED

    def _start_what_can_start(self) -> None:
        """Start runs while a device is free, those first that most others wait for. Targets are fitted at once."""
        while targets := [step for step in self._ready() if isinstance(step, TargetsStep)]:
            self._results.fit_targets(targets[0])
            self._finish(targets[0])
        for step in sorted(self._ready(), key=lambda step: self._behind[step.name], reverse=True):
            assert not isinstance(step, TargetsStep)
            if (device := self._free_device(step)) is None:
                continue
            job = self._results.job(step.name)
            assert job is not None, "all it needs is finished"
            self._running.append(Running(step, job, self._results.run_folder(job), device, self._threads))
            say(f"{step.name}: starts" + (f" on GPU {device.name}" if device.name else ""))

    def _ready(self) -> list[Step]:
        """Return the steps that are not begun and have all they need."""
        begun = {run.step.name for run in self._running} | self._failed
        waiting = [step for step in self._unfinished() if step.name not in begun]
        return [step for step in waiting if not self._missing(step)]

    def _unfinished(self) -> list[Step]:
        """Return the steps without a result, and those whose process has written one but has not ended."""
        running = {run.step.name for run in self._running}
        return [step for step in self._steps if step.name in running or not self._results.finished(step.name)]

    def _missing(self, step: Step) -> list[str]:
        return sorted(needs_of(step) & {each.name for each in self._unfinished()})

    def _free_device(self, step: RunStep) -> Device | None:
        """Return the device with the fewest runs among those that have room for another."""
        taken = {
            device: [run.step.memory_bytes for run in self._running if run.device == device] for device in self._devices
        }
        free = [
            device
            for device, runs in taken.items()
            if len(runs) < self._parallel and device.has_room(step.memory_bytes, runs)
        ]
        return min(free, key=lambda device: len(taken[device]), default=None)

    def _end_what_has_ended(self) -> None:
        for run in list(self._running):
            if (end := run.poll()) is None:
                continue
            self._running.remove(run)
            self._sequences += self._taken_by(run)
            if end == "finished" and self._results.finished(run.step.name):
                self._finish(run.step)
            else:  # as far as this command is concerned: the next one tries again
                self._failed.add(run.step.name)
                say(f"{run.step.name}: {end} {run.why()}")

    def _finish(self, step: Step | RunStep) -> None:
        self._settle(step)
        say(f"{step.name}: finished; {self._count()}{self._time_left()}")

    def _settle(self, step: Step | RunStep) -> None:
        """Copy the model of a finished training to where others read it, and remove what nothing reads again."""
        if not isinstance(step, TrainStep):
            return
        job = self._results.job(step.name)
        assert job is not None, "it is finished"
        folder = self._results.run_folder(job)
        if step.publish is not None and not Path(step.publish).exists():
            with replacing(Path(step.publish)) as temporary:
                shutil.copytree(folder / "model", temporary)
        if not step.keeps_model:
            shutil.rmtree(folder / "model", ignore_errors=True)
        discard_checkpoints(folder, job)

    def _stop_all(self) -> None:
        for run in self._running:
            run.terminate()
        for run in self._running:
            run.wait()

    def _conclude(self) -> int:
        """Say what is finished and why the rest is not, and return the exit status."""
        say(self._count())
        unfinished = self._unfinished()
        for step in unfinished:
            failed = step.name in self._failed
            say(f"{step.name}: failed" if failed else f"{step.name}: needs {', '.join(self._missing(step))}")
        return FAILED if unfinished else FINISHED

    def _count(self) -> str:
        return f"{len(self._steps) - len(self._unfinished())} of {counted(len(self._steps), 'step')} finished"

    def _time_left(self) -> str:
        """Return how long the rest will take at the speed since this command began, once there is one."""
        running = sum(self._taken_by(run) for run in self._running)
        unfinished = [step.name for step in self._unfinished()]
        left = sum(map(self._results.sequences, unfinished)) - running
        if not unfinished or not (taken := self._sequences + running):
            return ""
        return f", about {duration(left * (time.monotonic() - self._begun) / taken, rough=True)} left"

    def _taken_by(self, run: Running) -> int:
        """Return the sequences that a run has trained on since it was started."""
        steps = max(run.progress.total_steps, 1)
        return self._results.sequences(run.step.name) * run.progress.steps_taken // steps


def _longest_chains(steps: list[Step]) -> dict[str, int]:
    """Return how many steps wait for each other behind a step at most, by its name."""
    behind = dict.fromkeys((step.name for step in steps), 0)
    for step in reversed(steps):
        for name in needs_of(step):
            behind[name] = max(behind[name], behind[step.name] + 1)
    return behind
