"""Time a few real steps on this machine, in processes that are started like those of a run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from tasks.planning.inputs import Inputs, is_base, read_model_config
from tasks.runs.devices import Device, gpu_count, threads_per_process
from tasks.runs.torchrun import environment_of
from velocitune_core.config import Params, Training
from velocitune_core.model.folder import check_model_folder
from velocitune_core.plan.cost import Speed, checkpoint_bytes
from velocitune_core.plan.memory import HEAP, Setting, memory_of
from velocitune_core.plan.probe import Probe, ProbeTimings

MAX_STEPS, MAX_STEP_SECONDS = 12, 6.0  # of training
MAX_MICRO_BATCHES = 4  # per process and step; more would repeat what was timed
MAX_COPIES = 4  # at once
MAX_CHECKPOINT_BYTES = 2 * 10**9  # larger ones are not written to time them
MAX_SECONDS = 180  # of a whole probe


class NotProbedError(Exception):
    """This machine cannot run what was to be timed; the message says why."""


@dataclass(frozen=True)
class Probed:
    """The speed of each of several runs at once: the median over them."""

    speed: Speed
    step_seconds: float  # of a whole batch
    steps: int  # timed
    copies: int
    processes: int
    threads: int  # per process
    device: str


def bfloat16_here(training: Training) -> bool:
    """Return whether matrix products would be computed in bfloat16 on this machine."""
    import torch

    from velocitune_core.train.precision import uses_bfloat16

    return uses_bfloat16(training.precision, torch.device("cuda" if gpu_count() else "cpu"))


def probe_speed(params: Params, inputs: Inputs, setting: Setting) -> Probed:
    """Time a run under `params` in `setting.processes` processes, with as many runs at once as share a device.

    Raises NotProbedError if this machine lacks memory or devices, or a step takes too long.
    """
    copies = min(params.resources.runs_per_device, MAX_COPIES)
    _check_memory(inputs, setting, copies)
    threads = threads_per_process(params.resources, setting.processes)
    with tempfile.TemporaryDirectory() as folder:
        probe = Probe(
            model=_model_folder(params, Path(folder)),
            training=_shortened(params.training, setting),
            execution=params.execution,
            sequence_length=setting.sequence_length,
            vocabulary_size=inputs.shape.vocabulary_size,
            evaluation_sequences=setting.evaluation_sequences,
            steps=MAX_STEPS,
            seconds=MAX_STEP_SECONDS,
            saves=checkpoint_bytes(inputs.shape) <= MAX_CHECKPOINT_BYTES,
            threads=threads,
        )
        started, timings = _run(probe, [Path(folder) / str(number) for number in range(copies)], setting.processes)
    step = median(each.step for each in timings) / probe.training.batch_sequences
    checkpoints = [each.checkpoint for each in timings if each.checkpoint is not None]
    return Probed(
        speed=Speed(
            start=median(each.ready for each in timings) - started,
            step_per_sequence=step,
            evaluation_per_sequence=median(each.evaluation for each in timings)
            / (setting.evaluation_sequences * setting.processes),
            checkpoint=median(checkpoints) if checkpoints else None,
        ),
        step_seconds=step * params.training.batch_sequences,
        steps=min(each.steps for each in timings),
        copies=copies,
        processes=setting.processes,
        threads=threads,
        device=_device_name(),
    )


def _check_memory(inputs: Inputs, setting: Setting, copies: int) -> None:
    needed, gpus = memory_of(inputs.shape, setting).peak * copies, gpu_count()
    if gpus and setting.processes > gpus:
        raise NotProbedError(f"{setting.processes} processes need as many GPUs, this machine has {gpus}")
    if gpus:
        import torch

        free = torch.cuda.mem_get_info(0)[0]
    else:
        needed, free = int(needed * setting.processes * HEAP), psutil.virtual_memory().available
    if needed > free:
        raise NotProbedError(f"it needs {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free here")


def _model_folder(params: Params, folder: Path) -> str:
    """Return the model's own folder, or write a model of the same shape with random parameters."""
    if not is_base(params) and not check_model_folder(params.model.path):
        return params.model.path
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = AutoModelForCausalLM.from_config(read_model_config(params), dtype=torch.float32)
    model.save_pretrained(folder / "model")
    return str(folder / "model")


def _shortened(training: Training, setting: Setting) -> Training:
    """Return the settings with a batch of a few micro-batches."""
    batch = min(setting.batch_sequences, MAX_MICRO_BATCHES * setting.micro_batch_sequences * setting.processes)
    return training.model_copy(update={"batch_sequences": batch})


def _run(probe: Probe, folders: list[Path], processes: int) -> tuple[float, list[ProbeTimings]]:
    """Start one probe per folder, all at once; return when (in seconds since 1970), and their timings."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "velocitune_core.plan.probe"]
    device = Device((0,) if gpu_count() and processes == 1 else (), probe.threads)
    environment = environment_of(device)
    for folder in folders:
        folder.mkdir()
        (folder / "probe.json").write_text(probe.model_dump_json(), encoding="utf-8")
    started, running = time.time(), []
    try:
        for folder in folders:
            with (folder / "log.txt").open("wb") as log:
                running.append(
                    subprocess.Popen([*command, str(folder / "probe.json")], env=environment, stdout=log, stderr=log)
                )
        for process, folder in zip(running, folders, strict=True):
            if process.wait(started + MAX_SECONDS - time.time()) != 0:
                last = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise NotProbedError(f"its process failed: {''.join(last)}")
    except subprocess.TimeoutExpired:
        raise NotProbedError(f"a few steps take more than {MAX_SECONDS} s here") from None
    finally:
        for process in running:
            process.terminate()
            process.wait()
    return started, [
        ProbeTimings.model_validate_json((folder / "timings.json").read_text(encoding="utf-8")) for folder in folders
    ]


def _device_name() -> str:
    if not gpu_count():
        return "CPU"
    import torch

    return torch.cuda.get_device_name(0)
