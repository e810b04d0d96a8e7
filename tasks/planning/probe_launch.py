"""Run a few real steps on this machine, in processes that are started like those of a run: time, memory, FLOPs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tasks.planning.inputs import Inputs, is_base, read_model_config
from tasks.runs.devices import Device, gpu_count, threads_per_process
from tasks.runs.torchrun import environment_of
from velocitune_core.config import Params, Training
from velocitune_core.model.folder import check_model_folder
from velocitune_core.plan.calibrate import calibrated, resident_of
from velocitune_core.plan.cost import Calibration, ModelShape, Speed, checkpoint_bytes, with_layers
from velocitune_core.plan.memory import Setting, memory_of
from velocitune_core.plan.probe import Probe, ProbeResult
from velocitune_core.plan.resident import UNMEASURED, Resident, resident_bytes
from velocitune_core.train.stop import end_in_words

MAX_STEPS, MAX_STEP_SECONDS = 12, 6.0  # of training
MAX_MICRO_BATCHES = 4  # per process and step; more would repeat what was timed
MAX_COPIES = 4  # at once
FEW_LAYERS = 2  # of a model that this machine has no room for
MAX_CHECKPOINT_BYTES = 2 * 10**9  # larger ones are not written to time them
MAX_SECONDS = 180  # of a whole probe


class NotProbedError(Exception):
    """This machine cannot run what was to be timed; the message says why."""


@dataclass(frozen=True)
class Probed:
    """What one of several runs at once takes: the median over them."""

    speed: Speed | None  # None: the whole model does not fit this machine
    step_seconds: float  # of a whole batch
    steps: int  # timed
    copies: int
    processes: int
    threads: int  # per process
    layers: int  # of the model that was run, which has fewer where the whole one does not fit
    device: str
    calibration: Calibration
    resident: Resident | None  # None: on a GPU


def bfloat16_here(training: Training) -> bool:
    """Return whether matrix products would be computed in bfloat16 on this machine."""
    import torch

    from velocitune_core.train.precision import uses_bfloat16

    return uses_bfloat16(training.precision, torch.device("cuda" if gpu_count() else "cpu"))


def probe_run(params: Params, inputs: Inputs, setting: Setting) -> Probed:
    """Run steps under `params` in `setting.processes` processes, with as many runs at once as share a device.

    Where this machine lacks the memory, a model of fewer layers and the smallest micro-batches are run, and not timed.

    Raises NotProbedError if this machine lacks devices or memory even for that, or a step takes too long.
    """
    copies = min(params.resources.runs_per_device, MAX_COPIES)
    shape, setting = what_fits(inputs.shape, setting, copies)
    whole = shape is inputs.shape
    threads = threads_per_process(params.resources, setting.processes)
    with tempfile.TemporaryDirectory() as folder:
        model = _model_folder(params, Path(folder), None if whole else shape.layers)
        probe = _probe_of(params, inputs, shape, setting, model, threads)
        started, results = _run(probe, [Path(folder) / str(number) for number in range(copies)], setting.processes)
    speed = _speed_of(results, probe, setting.processes, started)
    first = results[0]
    return Probed(
        speed=speed if whole else None,
        step_seconds=speed.step_per_sequence * params.training.batch_sequences,
        steps=min(each.steps for each in results),
        copies=copies,
        processes=setting.processes,
        threads=threads,
        layers=shape.layers,
        device=_device_name(),
        calibration=calibrated(shape, setting, first),
        resident=resident_of(shape, setting, first, copied=probe.saves) if first.libraries_bytes else None,
    )


def _probe_of(params: Params, inputs: Inputs, shape: ModelShape, setting: Setting, model: str, threads: int) -> Probe:
    """Return what each process is to run, of the model in folder `model`."""
    micro = setting.micro_batch_sequences
    whole_batch = setting.batch_sequences == setting.processes * micro
    execution = params.execution.model_copy(
        update={
            "micro_batch_sequences": None if whole_batch else micro,
            "gather": "step" if setting.gather_per_step else "layer",  # auto may decide otherwise for fewer layers
        }
    )
    return Probe(
        model=model,
        training=_shortened(params.training, setting),
        execution=execution,
        sequence_length=setting.sequence_length,
        vocabulary_size=inputs.shape.vocabulary_size,
        document_start=inputs.manifest.documents.attention_start,
        evaluation_sequences=setting.evaluation_sequences,
        steps=MAX_STEPS,
        seconds=MAX_STEP_SECONDS,
        saves=checkpoint_bytes(shape) <= MAX_CHECKPOINT_BYTES,
        threads=threads,
    )


def _speed_of(results: list[ProbeResult], probe: Probe, processes: int, started: float) -> Speed:
    """Return the medians over probes that were started at `started`, in seconds since 1970."""
    checkpoints = [each.checkpoint for each in results if each.checkpoint is not None]
    return Speed(
        start=median(each.ready for each in results) - started,
        step_per_sequence=median(each.step for each in results) / probe.training.batch_sequences,
        evaluation_per_sequence=median(each.evaluation for each in results) / (probe.evaluation_sequences * processes),
        checkpoint=median(checkpoints) if checkpoints else None,
    )


def what_fits(shape: ModelShape, setting: Setting, copies: int) -> tuple[ModelShape, Setting]:
    """Return the model and setting to run: as they are, or else of few layers in the smallest micro-batches."""
    gpus = gpu_count()
    if gpus and setting.processes > gpus:
        raise NotProbedError(f"{setting.processes} processes need as many GPUs, this machine has {gpus}")
    if gpus:
        import torch

        free = torch.cuda.mem_get_info(0)[0]
    else:
        free = psutil.virtual_memory().available

    def needed(shape: ModelShape, setting: Setting) -> int:
        if gpus:
            return memory_of(shape, setting).peak * copies
        return resident_bytes(UNMEASURED, shape, setting) * setting.processes * copies

    if needed(shape, setting) <= free:
        return shape, setting
    smallest = replace(setting, micro_batch_sequences=1, batch_sequences=2 * setting.processes, evaluation_sequences=1)
    few = with_layers(shape, min(shape.layers, FEW_LAYERS))
    if (bytes_needed := needed(few, smallest)) > free / 2:
        raise NotProbedError(
            f"{few.layers} layers of it need {bytes_needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free here"
        )
    return few, smallest


def _model_folder(params: Params, folder: Path, layers: int | None) -> str:
    """Return the model's own folder, or write a model of the same shape, or of fewer layers, with random parameters."""
    if layers is None and not is_base(params) and not check_model_folder(params.model.path):
        return params.model.path
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    config: Any = read_model_config(params)
    if layers is not None:
        config.num_hidden_layers = layers
        if kinds := getattr(config, "layer_types", None):
            config.layer_types = kinds[:layers]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder / "model")
    return str(folder / "model")


def _shortened(training: Training, setting: Setting) -> Training:
    """Return the settings with a batch of a few micro-batches."""
    batch = min(setting.batch_sequences, MAX_MICRO_BATCHES * setting.micro_batch_sequences * setting.processes)
    return training.model_copy(update={"batch_sequences": batch})


def _run(probe: Probe, folders: list[Path], processes: int) -> tuple[float, list[ProbeResult]]:
    """Start one probe per folder, all at once; return when (in seconds since 1970), and their results."""
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
            if (status := process.wait(started + MAX_SECONDS - time.time())) != 0:
                last = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                raise NotProbedError(f"its process failed ({end_in_words(status)}): {''.join(last)}")
    except subprocess.TimeoutExpired:
        raise NotProbedError(f"a few steps take more than {MAX_SECONDS} s here") from None
    finally:
        for process in running:
            process.terminate()
            process.wait()
    return started, [
        ProbeResult.model_validate_json((folder / "result.json").read_text(encoding="utf-8")) for folder in folders
    ]


def _device_name() -> str:
    if not gpu_count():
        return "CPU"
    import torch

    return torch.cuda.get_device_name(0)
