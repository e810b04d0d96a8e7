"""The plan of a pipeline: its stages from the settings, their cost, and times from a short probe. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from tasks.planning.inputs import Inputs, is_base, read_inputs
from tasks.planning.length import length_notices
from tasks.planning.probe_launch import NotProbedError, Probed, bfloat16_here, probe_run
from tasks.planning.stages import FURTHER_ROUNDS, planned_stages, settings_of_comparison
from tasks.runs.budget import check_planned, pipeline_steps
from tasks.runs.devices import gpu_count, gpu_memory
from tasks.workspace import paths
from tasks.workspace.evaluations import costly_evaluations, evaluation_share, few_updates, weight_updates
from velocitune_core.config import LOGITS_AT_ONCE_ON_GPU, ConfigError, Params, Training
from velocitune_core.contracts import Manifest
from velocitune_core.parallel.cores import usable_cores
from velocitune_core.plan.cost import (
    FLOAT32_BYTES,
    Cost,
    Disk,
    ModelShape,
    Speed,
    Stage,
    disk,
    estimate_cost,
    total_cost,
)
from velocitune_core.plan.memory import BFLOAT16_BYTES, Memory, Remedy, Setting, fits, memory_of, parse_size, remedies
from velocitune_core.plan.resident import UNMEASURED, resident_bytes
from velocitune_core.strategies import PLANNED
from velocitune_core.style.text import counted, percent

ALONE, TOGETHER = "one process", "side by side"
COMPILED_ON_GPU = "four runs on a GPU took 0.67 to 1.02 of it"  # docs/PERFORMANCE.md
COMPILED_ON_CPU = "a run on a CPU took 0.74 of it"  # docs/SCALING.md


@dataclass(frozen=True)
class Fit:
    """Whether a run fits into a device, and what to change if not."""

    fits: bool
    remedies: list[Remedy]


@dataclass(frozen=True)
class Footprint:
    """Memory of one kind of run, per device."""

    name: str
    setting: Setting
    memory: Memory
    fit: Fit | None  # None: no device size was given
    resident: int | None  # peak bytes of a process on the CPU; None: on a GPU


@dataclass(frozen=True)
class Plan:
    """What a pipeline will take: tokens, steps, FLOPs, seconds, bytes."""

    shape: ModelShape
    stages: list[Stage]
    prices: list[Cost]  # one per stage
    total: Cost
    footprints: list[Footprint]
    disk: Disk
    probes: dict[str, Probed]  # by the way in which runs were timed
    documents: str  # the tokens around each, and whether attention stays inside it
    finished: int  # runs of the comparison that are finished, and not priced
    left_out: list[str]  # work that the times do not contain
    assumptions: list[str]  # and what could not be timed


def make_plan(params: Params, *, compare: bool = False, device_bytes: int | None = None, probe: bool = True) -> Plan:
    """Estimate the cost of the pipeline under `params`; with `compare`, of the comparison in place of the one training.

    Args:
        device_bytes: size of a device, to check whether runs fit; None to leave that out.
        probe: whether to time a few steps on this machine.

    Raises ConfigError and ModelError for settings whose cost cannot be estimated.
    """
    inputs = read_inputs(params)
    unfilled = _unfulfillable(params, inputs)
    stages, finished = planned_stages(params, inputs, compare)
    probes, untimed = _probes(params, inputs, compare) if probe else ({}, ["no times: not probed"])
    speeds = [_speed(stage, probes, params) for stage in stages]
    shape = inputs.shape
    if ALONE in probes:
        shape = replace(shape, measured=probes[ALONE].calibration)
    prices = estimate_cost(stages, shape, speeds)
    packed = sum(domain.train.tokens + domain.held_out.tokens for domain in inputs.manifest.domains.values())
    published = int(is_base(params)) + int(not compare)  # models/base, models/trained
    return Plan(
        shape=shape,
        stages=stages,
        prices=prices,
        total=total_cost(prices),
        footprints=_footprints(params, shape, stages, device_bytes, probes),
        disk=disk(stages, shape, packed, published),
        probes=probes,
        documents=inputs.manifest.documents.described(),
        finished=finished,
        left_out=_left_out(params),
        assumptions=[
            *inputs.assumptions,
            *length_notices(params, inputs.manifest),
            *unfilled,
            *_evaluations(params, inputs.manifest),
            *_fewest_rounds(stages, prices),
            *untimed,
            *_compiled(params, device_bytes, probes),
        ],
    )


def _left_out(params: Params) -> list[str]:
    """Return the work that no time is estimated for: what neither trains nor evaluates a model."""
    made_here = ["making the embedded text (stage corpus)"] if Path(params.data.path) == paths.EMBEDDED else []
    return [
        *made_here,
        "reading and packing the text (prepare)",
        "fitting the laws of the targets",
        "writing the report",
        "starting Prefect and MLflow",
    ]


def _unfulfillable(params: Params, inputs: Inputs) -> list[str]:
    """Say what contradicts the objective by estimated sizes of the domains. Raises ConfigError where they are known."""
    try:
        check_planned(params, inputs.manifest)
    except ConfigError as error:
        if not inputs.estimated:
            raise
        return [f"by these sizes, {line.strip()}" for line in str(error).splitlines()[1:]]
    return []


def _fewest_rounds(stages: list[Stage], prices: list[Cost]) -> list[str]:
    """Say the least that a swarm in rounds leads to: the table has the most."""
    least = [price for stage, price in zip(stages, prices, strict=True) if stage.name != FURTHER_ROUNDS]
    if len(least) == len(prices):
        return []
    flops = total_cost(least).flops
    return [
        f"the swarm goes on for as many rounds as its settings allow; with its first round alone, {flops:.2e} FLOPs"
    ]


def _evaluations(params: Params, manifest: Manifest) -> list[str]:
    """Say how often the main run updates its domain weights and what evaluations cost, with warnings of it."""
    steps = pipeline_steps(params, manifest)
    updates, share = weight_updates(params, steps), percent(evaluation_share(params, steps, manifest))
    often = "" if updates is None else f"{counted(updates, 'update')} of the domain weights in {steps:,} steps"
    cost = f"evaluations take {share} as many operations as the training steps"
    lines = (few_updates(params, steps) or often, costly_evaluations(params, steps, manifest) or cost)
    return [line for line in lines if line]


def device_size(text: str) -> int:
    """Return the bytes of a size such as 80GB. Raises ConfigError for anything else."""
    return parse_size(text)


def setting_of(training: Training, params: Params, processes: int, reference: bool = False) -> Setting:
    """Return what the memory of a run depends on."""
    share = training.batch_sequences // processes
    return Setting(
        sequence_length=params.data.sequence_length,
        batch_sequences=training.batch_sequences,
        micro_batch_sequences=params.execution.micro_batch_sequences or share,
        evaluation_sequences=params.execution.evaluation_micro_batch_sequences,
        processes=processes,
        bfloat16=bfloat16_here(training),
        activation_checkpointing=params.execution.activation_checkpointing,
        reference=reference,
    )


def _footprints(
    params: Params, shape: ModelShape, stages: list[Stage], device_bytes: int | None, probes: Mapping[str, Probed]
) -> list[Footprint]:
    """Return the memory of the training or of a comparison's runs, and of proxies if their processes differ."""
    last = stages[-1]
    counts = {last.name: params.resources.processes if last.name == "train" else 1, "proxies": params.proxies.processes}
    found = []
    for name, processes in counts.items():
        if name == "proxies" and counts[last.name] == processes:
            continue
        reference = name != "proxies" and any(run.reference for stage in stages for run in stage.runs)
        setting = setting_of(params.training, params, processes, reference)
        fit = None
        if device_bytes is not None or gpu_count():
            setting = replace(setting, logits_at_once=LOGITS_AT_ONCE_ON_GPU)
        setting = replace(setting, gather_per_step=_gathers_per_step(params, shape, setting, device_bytes))
        if device_bytes is not None:
            fitting = fits(shape, setting, device_bytes)
            several = name != "compare"  # runs of a comparison have one process each
            fit = Fit(fitting, [] if fitting else remedies(shape, setting, device_bytes, more_processes=several))
        resident = None
        if not gpu_count():
            found_by = [probes[each].resident for each in (_several(processes), ALONE) if each in probes]
            ratios = next((each for each in found_by if each is not None), UNMEASURED)
            resident = resident_bytes(ratios, shape, setting)
        found.append(Footprint(name, setting, memory_of(shape, setting), fit, resident))
    return found


def _gathers_per_step(params: Params, shape: ModelShape, setting: Setting, device_bytes: int | None) -> bool:
    """Return whether runs gather per step, on devices of the size that was given, or on this machine's."""
    if params.execution.gather != "auto":
        return params.execution.gather == "step"
    from velocitune_core.parallel.gathering import gathers_per_step  # imports torch

    if device_bytes is None:
        device_bytes = gpu_memory() if gpu_count() else psutil.virtual_memory().total // setting.processes
    return gathers_per_step(shape.parameters, BFLOAT16_BYTES if setting.bfloat16 else FLOAT32_BYTES, device_bytes)


def _probes(params: Params, inputs: Inputs, compare: bool) -> tuple[dict[str, Probed], list[str]]:
    """Time a run alone on its device, and each other way in which runs are executed; return also what is untimed."""
    wanted = {ALONE: (params, 1)}
    if compare and (together := settings_of_comparison(params)) != params:
        wanted[TOGETHER] = (together, 1)
    several = {params.proxies.processes} | (set() if compare else {params.resources.processes})
    wanted |= {_several(processes): (params, processes) for processes in sorted(several - {1})}
    probes, untimed = {}, _busy(params.resources.threads)
    for name, (settings, processes) in wanted.items():
        try:
            setting = setting_of(params.training, settings, processes)
            per_step = _gathers_per_step(settings, inputs.shape, setting, None)
            found = probe_run(settings, inputs, replace(setting, gather_per_step=per_step))
            probes[name] = found
            if found.speed is None:
                untimed.append(
                    f"no times of {name}: the whole model does not fit this machine; its memory and FLOPs are those "
                    f"of {found.layers} layers, extrapolated"
                )
        except NotProbedError as error:
            untimed.append(f"no times of {name}: {error}")
    return probes, untimed


def _compiled(params: Params, device_bytes: int | None, probes: Mapping[str, Probed]) -> list[str]:
    """Say how memory of compiled runs differs, where it was not measured; probes on a GPU compile as the runs do."""
    if params.execution.compile == "never":
        return []
    found = None
    if device_bytes is not None or gpu_count():
        found = None if gpu_count() and probes else COMPILED_ON_GPU
    elif params.execution.compile == "auto" or not probes:  # it does not compile so few steps as a probe's
        found = COMPILED_ON_CPU
    return [f"memory is that of uncompiled code; compiled, {found}"] if found else []


def _several(processes: int) -> str:
    return ALONE if processes == 1 else f"{processes} processes"


def _busy(threads: int | None) -> list[str]:
    """Warn if other programs use this machine: the times then hold only as long as they do."""
    load, cores = psutil.getloadavg()[0], usable_cores()
    if gpu_count() or load < cores / 2:
        return []
    remedy = "" if threads == 1 else "; with resources.threads: 1 they slow a run least"
    return [f"other programs go on using this machine (load {load:.1f} on {cores} cores){remedy}"]


def _speed(stage: Stage, probes: dict[str, Probed], params: Params) -> Speed | None:
    """Return the speed from the probe that was executed as the stage will be; None if there is no such probe."""
    name = ALONE
    if stage.name == "compare" and settings_of_comparison(params) != params:
        name = TOGETHER
    main = params.resources.processes
    finds = params.proxies.processes if params.strategy.name == PLANNED else main
    several = {"weights": finds, FURTHER_ROUNDS: finds, "train": main, "proxies": params.proxies.processes}.get(
        stage.name, 1
    )
    if several > 1:
        name = _several(several)
    return probes[name].speed if name in probes else None
